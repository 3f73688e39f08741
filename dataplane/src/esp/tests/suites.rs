//! Padding and lengths, with every suite.

use super::*;

/// RFC 4303 section 2.4: the padding is what the alignment needs and no more, 4 for combined modes and
/// a block for CBC; 49 octets of payload are where others have padded too much.
#[test]
fn rfc4303_section_2_4_an_odd_payload_of_49_octets_is_never_over_padded() {
    for mut tunnel in every_tunnel() {
        let suite = tunnel.sender.key.suite();
        for length in 28..=80 {
            let outer = tunnel.send(&inner_v4(length), length as u64).unwrap();
            let esp = &outer[tunnel.overhead..];
            let text = esp.len() - prefix(suite) - suite.icv_length();
            assert_eq!(text % suite.alignment(), 0);
            assert!((length + TRAILER..length + TRAILER + suite.alignment()).contains(&text));
            if length == 49 {
                let expected = if suite.alignment() == 16 { 64 } else { 52 };
                assert_eq!(text, expected, "{suite:?}");
            }
        }
    }
}

/// RFC 4303 sections 2.4 and 3.4.4: the peer may pad with 0 to 255 octets.
#[test]
fn rfc4303_section_2_4_every_pad_length_from_0_to_255_is_accepted_with_every_suite() {
    for &suite in EspSuite::ALL {
        let mut tunnel = Tunnel::new(&child(suite, true, None));
        for padding in 0..=255u8 {
            let odd = (usize::from(padding) + TRAILER) % 16;
            let inner = inner_v4(80 - odd);
            let esp = tunnel.forge(
                1 + u64::from(padding),
                &[&inner[..], &trailer(padding, 4)].concat(),
            );
            assert_eq!(tunnel.receive(&esp), Ok(inner), "{suite:?} {padding}");
        }
    }
}

/// A pad length beyond the packet, an inner length beyond what is there, an empty payload: each is
/// counted with its reason, with every suite, and the number is burned.
#[test]
fn rfc4303_section_2_4_pad_and_inner_length_beyond_the_packet_are_refused_with_every_suite() {
    for &suite in EspSuite::ALL {
        let mut tunnel = Tunnel::new(&child(suite, true, None));
        let mut too_long = inner_v4(62);
        too_long[3] = 63;
        let cases = [
            (
                [&inner_v4(62)[..], &[0xff, 4]].concat(),
                DropReason::BadPadding,
            ),
            (
                [&inner_v4(62)[..], &[63, 4]].concat(),
                DropReason::BadPadding,
            ),
            ([&too_long[..], &[0, 4]].concat(), DropReason::Malformed),
            (trailer(14, 4), DropReason::Malformed),
            (trailer(14, 41), DropReason::Malformed),
            (trailer(14, 59), DropReason::Dummy),
        ];
        for (number, (text, reason)) in (1u64..).zip(cases) {
            let esp = tunnel.forge(number, &text);
            for expected in [reason, DropReason::Replay] {
                assert_eq!(tunnel.receive(&esp), Err(expected), "{suite:?} {number}");
            }
        }
        assert_eq!(tunnel.receiver.counters.packets(), 0);
        assert_eq!(tunnel.pool.available(), tunnel.pool.frames());
    }
}

/// RFC 3602 section 2.4: CBC has whole blocks only. What verifies but has others cannot be decrypted.
#[test]
fn rfc3602_section_2_4_a_text_that_is_not_whole_blocks_is_refused_and_moves_nothing() {
    let mut tunnel = Tunnel::new(&child(EspSuite::Aes256CbcHmacSha256, true, None));
    let esp = tunnel.send(&inner_v4(64), 9).unwrap().split_off(20);
    let before = tunnel.receiver.window.export();
    for missing in 1..16 {
        let text = &esp[..esp.len() - 16 - missing];
        let forged = [text, &[0; 16]].concat();
        assert_eq!(tunnel.receive(&forged), Err(DropReason::Integrity));
    }
    assert_eq!(tunnel.receiver.window.export(), before);
    assert!(tunnel.receive(&esp).is_ok());
}
