//! A real exchange between two strongSwan 5.9.8 gateways, read and written again.
//!
//! The capture holds IKE_SA_INIT, IKE_AUTH with a pre-shared key, a rekey of the Child SA and its
//! deletion. Its keys come as Wireshark's tables, with SK_e but without SK_p: AUTH is proved in
//! `ike::auth` against an independent computation instead.

use hitless::ike::crypto::{IvSource, SkKeys};
use hitless::ike::message::{Delete, Exchange, Header, NotifyKind, Parsed, Payload, emit, parse};
use hitless::ike::proposal::{
    Ask, Encryption, EspProposal, Identification, IkeProposal, accepted, accepted_esp, select,
    select_esp,
};
use hitless_sa::{Entropy, IkeSpi, Spi};

const CAPTURE: &[u8] = include_bytes!("vectors/strongswan-5.9.8/strongswan-5.9.8.pcap");
const IKE_TABLE: &str = include_str!("vectors/strongswan-5.9.8/ikev2_decryption_table");
const ESP_TABLE: &str = include_str!("vectors/strongswan-5.9.8/esp_sa");

/// Frames of a little-endian pcap file of Ethernet: a 24-octet header, then records.
fn frames(file: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(
        (word(0), word(20)),
        (0xa1b2_c3d4, 1),
        "little-endian Ethernet"
    );
    let mut frames = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let captured = word(at + 8) as usize;
        frames.push(&file[at + 16..at + 16 + captured]);
        at += 16 + captured;
    }
    frames
}

/// IKE messages of the capture: IPv4, UDP, port 500, or 4500 behind the non-ESP marker.
fn ike_messages() -> Vec<&'static [u8]> {
    let mut messages = Vec::new();
    for frame in frames(CAPTURE) {
        let ip = &frame[14..];
        let udp = &ip[usize::from(ip[0] & 15) * 4..];
        assert_eq!((ip[0] >> 4, ip[9]), (4, 17));
        let port = u16::from_be_bytes([udp[0], udp[1]]);
        let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        match (port, &udp[8..length]) {
            (4500, [0, 0, 0, 0, message @ ..]) | (500, message) => messages.push(message),
            _ => {}
        }
    }
    messages
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
        .collect()
}

/// Keys of the initiator's messages, then of the responder's.
fn sk_keys() -> [SkKeys; 2] {
    let fields: Vec<&str> = IKE_TABLE.trim().split(',').collect();
    [fields[2], fields[3]]
        .map(|sk_e| SkKeys::new(Encryption::Aes128Gcm16, None, &hex(sk_e), &[]).unwrap())
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) {
        panic!("AES-GCM draws nothing");
    }
}

fn opened(message: &[u8]) -> (Header, Vec<Payload>) {
    match parse(message).unwrap() {
        Parsed::Clear { header, payloads } => (header, payloads),
        Parsed::Protected { header, datagram } => {
            let keys = &sk_keys()[usize::from(!header.initiator)];
            (header, keys.open(datagram).unwrap())
        }
        Parsed::Fragment { .. } => panic!("no fragments were negotiated"),
    }
}

fn proposals(payloads: &[Payload]) -> Vec<hitless::ike::message::Proposal> {
    let found = payloads.iter().find_map(|payload| match payload {
        Payload::SecurityAssociation(proposals) => Some(proposals.clone()),
        _ => None,
    });
    found.expect("an SA payload")
}

fn notifies(payloads: &[Payload]) -> Vec<NotifyKind> {
    let kind = |payload: &Payload| match payload {
        Payload::Notify(notify) => Some(notify.kind),
        _ => None,
    };
    payloads.iter().filter_map(kind).collect()
}

#[test]
fn every_message_is_written_again_octet_for_octet() {
    let messages = ike_messages();
    assert_eq!(messages.len(), 8);
    for message in messages {
        let (header, payloads) = opened(message);
        let again = match parse(message).unwrap() {
            Parsed::Clear { .. } => emit(&header, &payloads),
            Parsed::Protected { .. } => {
                let iv = IvSource {
                    unique: message[32..40].try_into().unwrap(),
                    entropy: &mut NoEntropy,
                };
                sk_keys()[usize::from(!header.initiator)].seal(&header, &payloads, iv)
            }
            Parsed::Fragment { .. } => panic!("no fragments were negotiated"),
        };
        assert_eq!(again, message, "{header:?} {payloads:#?}");
    }
}

#[test]
fn the_other_direction_and_any_changed_bit_do_not_open() {
    for message in &ike_messages()[2..] {
        let (header, _) = opened(message);
        assert!(
            sk_keys()[usize::from(header.initiator)]
                .open(message)
                .is_err()
        );
        let keys = &sk_keys()[usize::from(!header.initiator)];
        for bit in 0..message.len() * 8 {
            let mut changed = message.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = keys.open(&changed).unwrap_err();
            assert_eq!(error.notify(), None, "bit {bit}: {error}");
        }
    }
}

#[test]
fn no_truncation_or_changed_bit_of_a_clear_message_panics() {
    for message in &ike_messages()[..2] {
        for length in 0..message.len() {
            assert!(parse(&message[..length]).is_err());
        }
        for bit in 0..message.len() * 8 {
            let mut changed = message.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Parsed::Clear { header, payloads }) = parse(&changed) {
                let again = emit(&header, &payloads);
                let expected = Ok(Parsed::Clear { header, payloads });
                assert_eq!(parse(&again), expected, "bit {bit}");
            }
        }
    }
}

#[test]
fn ike_sa_init_negotiates_what_strongswan_chose() {
    let messages = ike_messages();
    let (request, offered) = opened(messages[0]);
    let (response, chosen) = opened(messages[1]);
    assert_eq!(request.exchange, Exchange::IkeSaInit);
    assert_eq!(request.responder_spi, IkeSpi(0));
    assert!(request.initiator && !request.response);
    assert!(!response.initiator && response.response);
    assert_eq!(response.responder_spi, IkeSpi(0x4d69_6e57_a1e9_c95a));

    let ours: [IkeProposal; 2] = [
        "aes256-sha512-ecp384".parse().unwrap(),
        "aes128gcm16-prfsha256-x25519".parse().unwrap(),
    ];
    let (offered, chosen_list) = (proposals(&offered), proposals(&chosen));
    assert_eq!(select(&ours, &offered).unwrap().1, ours[1]);
    assert_eq!(accepted(&ours[1..], &chosen_list).unwrap().1, ours[1]);
    assert!(select(&ours[..1], &offered).is_none());
    let kinds = notifies(&chosen);
    assert!(
        kinds.contains(&NotifyKind::NAT_DETECTION_SOURCE_IP),
        "{kinds:?}"
    );
    assert!(
        kinds.contains(&NotifyKind::CHILDLESS_IKEV2_SUPPORTED),
        "{kinds:?}"
    );
}

#[test]
fn ike_auth_carries_identities_selectors_and_the_spis_of_the_esp_table() {
    let messages = ike_messages();
    for message in &messages[2..4] {
        let (header, payloads) = opened(message);
        assert_eq!(header.exchange, Exchange::IkeAuth);
        let esp: EspProposal = "aes128gcm16".parse().unwrap();
        let offered = proposals(&payloads);
        let both = [esp, EspProposal { esn: true, ..esp }];
        let (proposal, _) = select_esp(&both, &offered, Ask::First).unwrap();
        let spi = proposal.esp_spi().unwrap();
        assert!(ESP_TABLE.contains(&format!("0x{spi}")), "{spi}");
        for payload in &payloads {
            match payload {
                Payload::IdInitiator(body) | Payload::IdResponder(body) => {
                    assert_ne!(body.id, Identification::Any);
                    assert_eq!(body.id.to_body(), body.raw);
                    let text = body.id.to_string();
                    assert_eq!(text.parse(), Ok(body.id.clone()), "{text}");
                }
                Payload::Auth { method, data } => assert_eq!((*method, data.len()), (2, 32)),
                Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
                    assert_eq!(selectors.len(), 1);
                    assert!(selectors[0].prefix_length().is_some());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_child_is_rekeyed_and_the_old_one_deleted() {
    let messages = ike_messages();
    let (header, request) = opened(messages[4]);
    assert_eq!(header.exchange, Exchange::CreateChildSa);
    let rekeyed = request.iter().find_map(|payload| match payload {
        Payload::Notify(notify) if notify.kind == NotifyKind::REKEY_SA => notify.esp_spi(),
        _ => None,
    });
    assert!(ESP_TABLE.contains(&format!("0x{}", rekeyed.unwrap())));

    let (_, response) = opened(messages[5]);
    let chosen = proposals(&response);
    let with_x25519 = proposals(&request)
        .iter()
        .any(|p| p.transforms.iter().any(|t| (t.kind, t.id) == (4, 31)));
    let word = if with_x25519 {
        "aes128gcm16-x25519"
    } else {
        "aes128gcm16"
    };
    let ours: EspProposal = word.parse().unwrap();
    let both = [ours, EspProposal { esn: true, ..ours }];
    let agreed = select_esp(&both, &chosen, Ask::Create).unwrap().1;
    assert_eq!(
        accepted_esp(&[agreed], &chosen, Ask::Create).unwrap().1,
        agreed
    );

    let mut deleted: Vec<Spi> = Vec::new();
    for message in &messages[6..] {
        let (header, payloads) = opened(message);
        assert_eq!(header.exchange, Exchange::Informational);
        match payloads.as_slice() {
            [Payload::Delete(Delete::Esp(spis))] => deleted.extend(spis),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(deleted.len(), 2);
    for spi in &deleted {
        assert!(ESP_TABLE.contains(&format!("0x{spi}")));
    }
    assert!(deleted.contains(&rekeyed.unwrap()));
}
