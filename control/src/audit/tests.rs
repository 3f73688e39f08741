//! The audit against hand-made frames, with planted faults: an oracle that finds nothing must have
//! been shown that it can.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::super::pcap::PcapWriter;
use super::super::wire::{Echo, Frame, decode};
use super::*;

const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PEER_TAP: TapId = TapId(0);
const SWITCH_TAP: TapId = TapId(1);

fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    frame.extend_from_slice(&[0x08, 0x00]);
    let total = (20 + payload.len()) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(payload);
    // Ethernet's least length: what the decoder must not take for content.
    frame.resize(frame.len().max(60), 0);
    frame
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    segment.extend_from_slice(&[0, 0]);
    segment.extend_from_slice(payload);
    ip(source, destination, 17, &segment)
}

fn esp_bytes(spi: u32, number: u64, iv: u64, fill: u8) -> Vec<u8> {
    let mut packet = spi.to_be_bytes().to_vec();
    packet.extend_from_slice(&(number as u32).to_be_bytes());
    packet.extend_from_slice(&iv.to_be_bytes());
    packet.extend_from_slice(&[fill; 40]);
    packet
}

/// As hitless sends it: IV and number are one.
fn esp(spi: u32, number: u64) -> Vec<u8> {
    udp(CLUSTER, PEER, 4500, &esp_bytes(spi, number, number, 0xee))
}

fn ike(from_cluster: bool, exchange: u8, flags: u8, message_id: u32, octets: usize) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend_from_slice(&0x1111_u64.to_be_bytes());
    message.extend_from_slice(&0x2222_u64.to_be_bytes());
    message.extend_from_slice(&[46, 0x20, exchange, flags]);
    message.extend_from_slice(&message_id.to_be_bytes());
    message.extend_from_slice(&((28 + octets) as u32).to_be_bytes());
    message.resize(message.len() + octets, 0x5a);
    if from_cluster {
        udp(CLUSTER, PEER, 4500, &message)
    } else {
        udp(PEER, CLUSTER, 4500, &message)
    }
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Observes frames one millisecond apart at one tap.
fn audit(frames: &[Vec<u8>]) -> Report {
    let mut audit = Audit::default();
    for (i, frame) in frames.iter().enumerate() {
        audit.observe(PEER_TAP, at(i as u64), frame);
    }
    audit.report()
}

#[test]
fn esp_is_decoded_bare_and_in_udp() {
    let bytes = esp_bytes(0xc001_cafe, 7, 0x0102_0304_0506_0708, 1);
    for (encapsulated, frame) in [
        (false, ip(CLUSTER, PEER, 50, &bytes)),
        (true, udp(CLUSTER, PEER, 4500, &bytes)),
    ] {
        let Frame::Esp(esp) = decode(&frame) else {
            panic!("not ESP: {:?}", decode(&frame));
        };
        assert_eq!(esp.encapsulated, encapsulated);
        assert_eq!((esp.spi, esp.sequence), (0xc001_cafe, 7));
        assert_eq!(esp.iv, 0x0102_0304_0506_0708);
        assert_eq!(esp.packet, bytes);
        assert_eq!(esp.destination, IpAddr::from(PEER));
    }
}

#[test]
fn ike_is_decoded_on_both_ports() {
    let marked = ike(true, 37, 0x20, 9, 30);
    let message = marked[14 + 20 + 8 + 4..].to_vec();
    let message = &message[..58];
    for frame in [marked.clone(), udp(CLUSTER, PEER, 500, message)] {
        let Frame::Ike(ike) = decode(&frame) else {
            panic!("not IKE: {:?}", decode(&frame));
        };
        assert_eq!((ike.initiator_spi, ike.responder_spi), (0x1111, 0x2222));
        assert_eq!((ike.exchange, ike.message_id), (37, 9));
        assert!(ike.response && !ike.initiator);
        assert_eq!(ike.message, message);
    }
}

#[test]
fn keepalives_fragments_echoes_and_strangers_are_told_apart() {
    assert_eq!(decode(&udp(PEER, CLUSTER, 4500, &[0xff])), Frame::Keepalive);
    let mut fragment = esp(1, 1);
    fragment[20] = 0x20;
    assert_eq!(decode(&fragment), Frame::Fragment);
    let echo = ip(PEER, CLUSTER, 1, &[8, 0, 0, 0, 0x12, 0x34, 0, 5]);
    assert_eq!(
        decode(&echo),
        Frame::Echo(Echo {
            source: PEER.into(),
            destination: CLUSTER.into(),
            reply: false,
            identifier: 0x1234,
            sequence: 5,
        })
    );
    assert!(matches!(
        decode(&ip(PEER, CLUSTER, 6, &[0; 20])),
        Frame::Ip(_)
    ));
    let mut arp = vec![0xff; 12];
    arp.extend_from_slice(&[0x08, 0x06]);
    assert_eq!(decode(&arp), Frame::NotIp);
}

#[test]
fn a_frame_cut_at_any_length_is_malformed_and_nothing_worse() {
    for whole in [
        esp(1, 1),
        ike(true, 35, 8, 1, 40),
        ip(CLUSTER, PEER, 50, &[0; 40]),
    ] {
        let content = 14 + usize::from(u16::from_be_bytes([whole[16], whole[17]]));
        for cut in 0..content {
            assert!(
                matches!(decode(&whole[..cut]), Frame::Malformed(_)),
                "cut at {cut}"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_frame_makes_the_audit_panic(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..20),
    ) {
        let frames: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|mut frame| {
                if frame.len() > 14 {
                    frame[12..14].copy_from_slice(&[0x08, 0x00]);
                    frame[14] = 0x45;
                }
                frame
            })
            .collect();
        prop_assert_eq!(audit(&frames).frames, frames.len() as u64);
    }
}

#[test]
fn a_clean_failover_is_clean() {
    let frames: Vec<_> = (1..=50).chain(1025..=1050).map(|n| esp(7, n)).collect();
    let report = audit(&frames);
    assert_eq!(report.repeated_sequence_numbers(), 0);
    assert_eq!(report.repeated_iv_count, 0);
    let stream = report.streams.values().next().expect("one stream");
    assert_eq!(report.streams.len(), 1);
    assert_eq!((stream.first, stream.last, stream.packets), (1, 1050, 76));
    assert_eq!(stream.greatest_jump, 975);
    assert_eq!(stream.greatest_jump_time, at(50));
    assert_eq!((stream.reordered, stream.iv_not_number), (0, 0));
}

#[test]
fn s1_a_number_used_for_two_packets_is_found() {
    let mut second = esp(7, 3);
    *second.last_mut().expect("not empty") ^= 1;
    let report = audit(&[esp(7, 3), esp(7, 4), second]);
    assert_eq!(
        (report.repeated_distinct, report.repeated_identical),
        (1, 0)
    );
    assert_eq!(report.repeated[0].number, 3);
    assert_eq!(report.repeated[0].time, at(2));
    assert!(report.repeated[0].distinct);
}

#[test]
fn s1_a_packet_sent_twice_is_found_even_if_identical() {
    let report = audit(&[esp(7, 3), esp(7, 4), esp(7, 3)]);
    assert_eq!(
        (report.repeated_distinct, report.repeated_identical),
        (0, 1)
    );
    assert_eq!(report.repeated_sequence_numbers(), 1);
}

#[test]
fn a_copy_at_another_tap_is_the_same_packet() {
    let mut audit = Audit::default();
    for tap in [PEER_TAP, SWITCH_TAP] {
        audit.observe(tap, at(1), &esp(7, 3));
        audit.observe(tap, at(2), &ike(true, 37, 0, 4, 30));
    }
    let report = audit.report();
    assert_eq!(report.repeated_sequence_numbers(), 0);
    assert_eq!(report.ike.len(), 1);
}

#[test]
fn s1_two_members_with_one_number_are_found_across_taps() {
    let mut audit = Audit::default();
    let mut other = esp(7, 3);
    *other.last_mut().expect("not empty") ^= 1;
    audit.observe(PEER_TAP, at(1), &esp(7, 3));
    audit.observe(SWITCH_TAP, at(1), &other);
    assert_eq!(audit.report().repeated_distinct, 1);
}

#[test]
fn other_sas_and_other_directions_do_not_clash() {
    let back = udp(PEER, CLUSTER, 4500, &esp_bytes(7, 3, 3, 0));
    let report = audit(&[esp(7, 3), esp(8, 3), back]);
    assert_eq!(report.repeated_sequence_numbers(), 0);
    assert_eq!(report.streams.len(), 3);
}

#[test]
fn extended_numbers_that_share_their_low_half_do_not_clash() {
    let report = audit(&[esp(7, 5), esp(7, (1 << 32) + 5)]);
    assert_eq!(report.repeated_sequence_numbers(), 0);
    // A sender whose IV is not the number shows only 32 bits, and those repeat.
    let foreign = |iv| udp(CLUSTER, PEER, 4500, &esp_bytes(7, 5, iv, 0));
    let report = audit(&[foreign(0xaa00), foreign(0xbb00)]);
    assert_eq!(report.repeated_distinct, 1);
}

#[test]
fn s2_an_iv_used_with_two_numbers_is_found() {
    let frame = |n| udp(CLUSTER, PEER, 4500, &esp_bytes(7, n, 0xdead_0000_0000, 0));
    let report = audit(&[frame(1), frame(2), frame(3)]);
    assert_eq!(report.repeated_sequence_numbers(), 0);
    assert_eq!(report.repeated_iv_count, 2);
    assert_eq!(report.repeated_ivs[0].numbers, (1, 2));
    let stream = report.streams.values().next().expect("one stream");
    assert_eq!(stream.iv_not_number, 3);
}

#[test]
fn reordering_is_counted_and_is_no_repeat() {
    let report = audit(&[esp(7, 1), esp(7, 3), esp(7, 2), esp(7, 4)]);
    let stream = report.streams.values().next().expect("one stream");
    assert_eq!((stream.reordered, stream.greatest_jump), (1, 2));
    assert_eq!(report.repeated_sequence_numbers(), 0);
}

#[test]
fn ike_auth_after_a_moment_is_counted() {
    let frames = [
        ike(false, 35, 0x08, 1, 100),
        ike(true, 35, 0x20, 1, 90),
        ike(false, 37, 0x08, 2, 30),
        ike(true, 37, 0x20, 2, 30),
        ike(false, 35, 0x08, 1, 101),
    ];
    let report = audit(&frames);
    assert_eq!(report.count_after(Exchange::IkeAuth, at(0)), 3);
    assert_eq!(report.count_after(Exchange::IkeAuth, at(2)), 1);
}

#[test]
fn exchanges_are_paired_and_an_unanswered_one_is_seen() {
    let frames = [
        ike(true, 37, 0x00, 0, 60),
        ike(false, 37, 0x28, 0, 60),
        ike(true, 37, 0x00, 1, 30),
        ike(true, 37, 0x00, 1, 30),
    ];
    let report = audit(&frames);
    assert_eq!(report.message_id_zero(at(0)).count(), 2);
    assert_eq!(report.message_id_zero(at(1)).count(), 1);
    let exchanges = report.exchanges_from(CLUSTER.into(), Exchange::Informational, at(0));
    let answered: Vec<bool> = exchanges
        .iter()
        .map(|(_, answer)| answer.is_some())
        .collect();
    assert_eq!(
        answered,
        [true, false, false],
        "a retransmission is a message of its own"
    );
    assert_eq!(exchanges[1].0.digest, exchanges[2].0.digest);
}

#[test]
fn clear_text_between_protected_addresses_is_a_leak() {
    let (a, b) = (Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 2, 0, 2));
    let report = audit(&[
        ip(a, b, 1, &[8, 0, 0, 0, 0, 1, 0, 1]),
        ip(a, b, 17, &[0, 9, 0, 9, 0, 8, 0, 0]),
        esp(7, 1),
        ip(PEER, CLUSTER, 1, &[8, 0, 0, 0, 0, 1, 0, 1]),
    ]);
    let inner = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
    assert_eq!(report.leaked(inner), 2);
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[next, 64]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn rfc4443_section_4_an_echo_over_ipv6_is_one_and_a_neighbour_solicitation_is_none() {
    let (a, b) = ("fd01::2".parse(), "fd02::2".parse());
    let (a, b): (Ipv6Addr, Ipv6Addr) = (a.expect("valid"), b.expect("valid"));
    for (kind, reply) in [(128, false), (129, true)] {
        let frame = ipv6(a, b, 58, &[kind, 0, 0, 0, 0, 7, 0, 9]);
        let echo = Echo {
            source: a.into(),
            destination: b.into(),
            reply,
            identifier: 7,
            sequence: 9,
        };
        assert_eq!(decode(&frame), Frame::Echo(echo));
    }
    // The other version's numbers of an echo, and a solicitation (RFC 4861 section 4.3).
    for (protocol, kind) in [(58, 8), (58, 0), (58, 135), (1, 128), (1, 129)] {
        let frame = ipv6(a, b, protocol, &[kind; 24]);
        assert!(matches!(decode(&frame), Frame::Ip(_)), "{kind}");
    }
    let clear = ipv6(a, b, 58, &[128, 0, 0, 0, 0, 7, 0, 9]);
    let inner = |address: IpAddr| address == IpAddr::V6(a);
    assert_eq!(audit(&[clear]).leaked(inner), 1);
}

#[test]
fn a_capture_file_is_audited_and_a_cut_frame_is_counted() {
    let mut writer = PcapWriter::new(Vec::new()).expect("a vector takes all");
    for n in [1, 2, 2] {
        writer.write(at(n), &esp(7, n)).expect("a vector takes all");
    }
    let mut file = writer.finish().expect("a vector takes all");
    let mut audit = Audit::default();
    audit.observe_pcap(PEER_TAP, &file).expect("whole");
    let report = audit.report();
    assert_eq!((report.repeated_identical, report.cut), (1, 0));
    // The first record claims to have been longer on the wire.
    file[24 + 12..24 + 16].copy_from_slice(&9000u32.to_le_bytes());
    let mut audit = Audit::default();
    audit.observe_pcap(PEER_TAP, &file).expect("whole");
    assert_eq!(audit.report().cut, 1);
}

/// Captures with planted faults, each of which must be named, and nothing else.
mod planted {
    use super::super::super::{Expectations, Permits, Verdict, judge};
    use super::*;

    fn verdict(frames: &[Vec<u8>]) -> Verdict {
        judge(&audit(frames), &Expectations::default())
    }

    fn kinds(verdict: &Verdict) -> Vec<(&'static str, u64)> {
        verdict.faults.iter().map(|f| (f.kind, f.count)).collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_failover_that_skips_ahead() {
        let sound = verdict(&[
            esp(7, 1),
            esp(7, 2),
            ike(true, 37, 0, 4, 30),
            ike(false, 37, 0x28, 4, 30),
            esp(7, 5000),
            esp(7, 4999),
        ]);
        assert!(sound.clean, "{sound}");
        assert_eq!((sound.greatest_skip, sound.reordered), (4998, 1));
        assert!(sound.to_string().ends_with("clean\n"));
    }

    #[test]
    fn s1_and_s2_faults_are_named() {
        let mut other = esp(7, 2);
        *other.last_mut().unwrap() ^= 1;
        let found = verdict(&[esp(7, 1), esp(7, 2), other, esp(7, 1)]);
        let expected = [("repeated-number", 1), ("packet-sent-twice", 1)];
        assert_eq!(kinds(&found), expected);
        assert!(
            found
                .to_string()
                .contains("SPI 00000007 to 192.0.2.2: number 2 again")
        );
        let iv = |n| udp(CLUSTER, PEER, 4500, &esp_bytes(7, n, 0xdead_0000_0000, 0));
        let found = verdict(&[iv(1), iv(2)]);
        assert_eq!(kinds(&found), [("repeated-iv", 1)]);
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.contains("not their number"))
        );
    }

    #[test]
    fn numbers_below_the_other_member_s_are_told_as_a_split_only_if_both_led_then() {
        let kinds_of = |frames: &[(u64, u16, u64)]| {
            let mut audit = Audit::new(Places::OneForAll);
            for (at, tap, number) in frames {
                let frame = esp(7, *number);
                audit.observe(TapId(*tap), Duration::from_millis(*at), &frame);
            }
            kinds(&judge(&audit.report(), &Expectations::default()))
        };
        // The old member goes on inside its lease, the new one above it.
        let split = [(0, 0, 1), (100, 1, 9_000), (110, 0, 2), (120, 1, 9_001)];
        assert_eq!(kinds_of(&split), [("went-back-of-a-split", 1)]);
        // The same numbers of a successor that began anew.
        let failover = [(0, 0, 1), (50, 0, 9_000), (100, 1, 2), (5_000, 1, 3)];
        assert_eq!(kinds_of(&failover), [("went-back", 1)]);
    }

    #[test]
    fn a_successor_that_begins_behind_or_too_far_ahead_is_named() {
        let back = verdict(&[esp(7, 1), esp(7, 9000), esp(7, 2)]);
        assert_eq!(kinds(&back), [("went-back", 1)]);
        let ahead = verdict(&[esp(7, 1), esp(7, (1 << 31) + 2)]);
        assert_eq!(kinds(&ahead), [("skipped-too-far", 1)]);
    }

    #[test]
    fn rfc7296_section_2_1_one_message_id_has_one_request_and_one_response() {
        // A retransmission is no fault, another message is.
        let sound = [ike(true, 36, 0, 4, 30), ike(true, 36, 0, 4, 30)];
        assert!(verdict(&sound).clean);
        let two = [ike(true, 36, 0, 4, 30), ike(true, 37, 0, 4, 50)];
        assert_eq!(kinds(&verdict(&two)), [("two-requests", 1)]);
        let two = [ike(true, 36, 0x20, 4, 30), ike(true, 36, 0x20, 4, 31)];
        assert_eq!(kinds(&verdict(&two)), [("two-responses", 1)]);
    }

    #[test]
    fn message_id_0_has_one_response_for_each_request() {
        let answer = |octets| ike(false, 37, 0x20, 0, octets);
        let asked = |octets| ike(true, 37, 0x08, 0, octets);
        // The first ordinary request of a rekeyed IKE SA, answered by two members.
        let two = [asked(30), answer(30), answer(31)];
        assert_eq!(kinds(&verdict(&two)), [("two-responses", 1)]);
        let sound = [asked(30), answer(30), asked(30), answer(30)];
        assert!(verdict(&sound).clean);
        // A synchronisation and that request.
        let both = [asked(30), answer(30), asked(40), answer(31)];
        assert!(verdict(&both).clean);
        assert!(verdict(&[answer(30), answer(31)]).clean, "half a capture");
    }

    #[test]
    fn one_message_id_of_two_members_is_told_as_a_split_only_if_both_led_then() {
        let [one, other] = [ike(true, 36, 0, 4, 30), ike(true, 37, 0, 4, 50)];
        let kinds_of = |places, frames: &[(u64, u16, &Vec<u8>)]| {
            let mut audit = Audit::new(places);
            for (at, tap, frame) in frames {
                audit.observe(TapId(*tap), Duration::from_millis(*at), frame);
            }
            let verdict = judge(&audit.report(), &Expectations::default());
            assert!(!verdict.clean, "it is a fault even so");
            let told = verdict.notes.iter().any(|note| note.contains("a split"));
            (verdict.faults[0].kind, told)
        };
        let numbers: Vec<_> = (1..6).map(|number| esp(7, number)).collect();
        // Both send in turn.
        let split: Vec<(u64, u16, &Vec<u8>)> = vec![
            (0, 0, &numbers[0]),
            (100, 1, &numbers[1]),
            (110, 0, &one),
            (120, 1, &other),
            (130, 0, &numbers[2]),
        ];
        let together = |frames: &[_]| kinds_of(Places::OneForAll, frames);
        assert_eq!(together(&split), ("two-requests-of-a-split", true));
        // The winner does not know afterwards what the loser had used.
        let mut later = split.clone();
        (later[3].1, later[4].1) = (0, 1);
        later[2].1 = 1;
        later.push((9_000, 0, &other));
        later[3].2 = &numbers[3];
        assert_eq!(together(&later), ("two-requests-of-a-split", true));
        // A successor that takes over after a failover has to know it.
        let failover: Vec<(u64, u16, &Vec<u8>)> = vec![
            (0, 0, &numbers[0]),
            (110, 0, &one),
            (200, 1, &numbers[1]),
            (300, 1, &other),
        ];
        assert_eq!(together(&failover), ("two-requests", false));
        // One member that contradicts itself is no split, and places of one line show none.
        let mut alone = split.clone();
        alone[3].1 = 0;
        assert_eq!(together(&alone).0, "two-requests");
        assert_eq!(kinds_of(Places::EachTap, &split), ("two-requests", false));
    }

    #[test]
    fn rfc6311_section_5_1_synchronisations_are_counted_against_failovers() {
        let frames = [
            ike(true, 37, 0, 0, 30),
            ike(true, 37, 0, 0, 31),
            ike(true, 37, 0, 0, 32),
        ];
        let of = |failovers| {
            let expect = Expectations {
                failovers,
                ..Expectations::default()
            };
            judge(&audit(&frames), &expect)
        };
        assert_eq!(kinds(&of(Some(1))), [("too-many-synchronisations", 1)]);
        assert!(of(Some(2)).clean && of(None).clean);
        // Of an IKE SA that was rekeyed into being the initiator has an ordinary request 0, too.
        let failovers = Some(0);
        let expect = || Expectations {
            failovers,
            ..Expectations::default()
        };
        let first = ike(true, 37, 0x08, 0, 30);
        let unsure = judge(&audit(std::slice::from_ref(&first)), &expect());
        assert!(unsure.clean && !unsure.conclusive, "{unsure}");
        let began = [ike(true, 34, 0x08, 0, 200), first];
        let verdict = judge(&audit(&began), &expect());
        assert_eq!(kinds(&verdict), [("too-many-synchronisations", 1)]);
        assert!(!of(None).conclusive, "{}", of(None));
        assert_eq!(of(None).synchronisations, 3);
    }

    #[test]
    fn s5_numbers_beyond_the_ledger_are_named() {
        let of = |ledger: &str| {
            let expect = Expectations {
                permits: Permits::parse(ledger).unwrap(),
                ..Expectations::default()
            };
            judge(&audit(&[esp(7, 1), esp(7, 90)]), &expect)
        };
        assert!(of("7 1 64\n7 65 192\n").clean);
        assert_eq!(kinds(&of("7 1 89\n")), [("beyond-the-grant", 1)]);
        let small = of("7 1 40\n7 41 100\n");
        assert_eq!(kinds(&small), [("skipped-more-than-a-lease", 1)]);
        // Whoever knows that grants are missing accuses nobody, and acquits nobody either.
        for ledger in [
            "7 1 89\nlost 1\n",
            "7 1 40\nlost 1\n7 41 100\n",
            "7 1 100\nlost 2\n",
        ] {
            let verdict = of(ledger);
            assert!(verdict.clean && !verdict.conclusive, "{ledger}: {verdict}");
        }
        assert!(
            of("7 1 89\nlost 1\n")
                .to_string()
                .contains("beyond-the-grant")
        );
    }
}
