//! What is fuzzed in the control plane: IKE messages, decrypted payloads, an engine before a hostile
//! peer, EAP, configuration, captures, certificates. The same functions run over the committed corpus as an ordinary test
//! (`testbeds/tests/fuzz_corpus.rs`).

mod differential;
mod established;

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hitless::audit::{Audit, TapId};
use hitless::config::Config;
use hitless::ike::auth::{
    Certificate, DistinguishedName, Revocation, RevocationList, Trust, verify_signature,
};
use hitless::ike::crypto::{Opened, SkKeys};
use hitless::ike::fragments::{MAX_FRAGMENTS, Reassembly};
use hitless::ike::message::{
    Exchange, FragmentPlace, Header, MAX_MESSAGE_LENGTH, Parsed, PayloadKind, emit, parse,
};
use hitless::ike::proposal::Encryption;

pub use established::{Reached, run as hostile_peer};

/// What handles the octets of one input.
pub type Target = fn(&[u8]);

/// Every target with its name, which is that of its folder in the corpus.
pub const ALL: &[(&str, Target)] = &[
    ("ike_message", ike_message),
    ("ike_differential", ike_differential),
    ("ike_payloads", ike_payloads),
    ("ike_fragments", ike_fragments),
    ("ike_established", ike_established),
    ("eap", eap),
    ("configuration", configuration),
    ("capture", capture),
    ("certificates", certificates),
];

/// AES-128 key, then salt.
const KEY: [u8; 20] = [7; 20];

/// A datagram; what parses is emitted and parses to the same.
pub fn ike_message(octets: &[u8]) {
    if let Ok(Parsed::Clear { header, payloads }) = parse(octets) {
        let again = emit(&header, &payloads);
        assert_eq!(parse(&again), Ok(Parsed::Clear { header, payloads }));
    }
}

/// A datagram: what we accept of it the other parser reads alike.
pub fn ike_differential(octets: &[u8]) {
    if let Some((ours, theirs)) = differential::readings(octets) {
        assert_eq!(Some(ours), theirs);
    }
}

/// What a peer says that has the right keys.
pub fn ike_established(octets: &[u8]) {
    let _ = hostile_peer(octets);
}

/// An EAP packet, in every place where one is read.
pub fn eap(octets: &[u8]) {
    assert!(hitless::ike::eap::is_consistent(octets));
}

/// What a peer with the right keys may put into an SK payload: the type of the first payload, then
/// the payloads, padding and its length (RFC 7296 section 3.14, RFC 5282).
pub fn ike_payloads(octets: &[u8]) {
    let Some((first, text)) = octets.split_first() else {
        return;
    };
    let text = text.get(..60_000).unwrap_or(text);
    let Ok(keys) = SkKeys::new(Encryption::Aes128Gcm16, None, &KEY, &[]) else {
        panic!("no keys");
    };
    let sealed = 4 + 8 + text.len() + 16;
    let mut datagram = vec![0x11; 16];
    datagram.extend([46, 0x20, 37, 0x08]);
    datagram.extend(5u32.to_be_bytes());
    datagram.extend(((28 + sealed) as u32).to_be_bytes());
    datagram.extend([*first, 0]);
    datagram.extend((sealed as u16).to_be_bytes());
    let (iv, mut body) = ([3; 8], text.to_vec());
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&KEY[16..]);
    nonce[4..].copy_from_slice(&iv);
    let Ok(key) = UnboundKey::new(&AES_128_GCM, &KEY[..16]).map(LessSafeKey::new) else {
        panic!("no key");
    };
    let nonce = Nonce::assume_unique_for_key(nonce);
    if key
        .seal_in_place_append_tag(nonce, Aad::from(&datagram), &mut body)
        .is_err()
    {
        panic!("not sealed");
    }
    datagram.extend(iv);
    datagram.extend(body);
    let _ = keys.open(&datagram);
}

/// Authentic fragments in any order, eight octets each: flags and Message ID, number, total,
/// length, content, and seconds since the one before (RFC 7383). Beside a plain model: what comes
/// out is what went in, in order, and what waits is bounded.
pub fn ike_fragments(octets: &[u8]) {
    let mut reassembly = Reassembly::default();
    let mut now = hitless_sa::Instant(0);
    let mut sent: std::collections::BTreeMap<_, Vec<u8>> = std::collections::BTreeMap::new();
    for step in octets.chunks_exact(8) {
        let [flags, number, high, total, length, more, content, seconds] =
            [0, 1, 2, 3, 4, 5, 6, 7].map(|index| step[index]);
        now += std::time::Duration::from_secs(seconds.into());
        reassembly.expire(now);
        let header = Header {
            initiator_spi: hitless_sa::IkeSpi(1),
            responder_spi: hitless_sa::IkeSpi(2),
            exchange: if flags & 2 == 0 {
                Exchange::Informational
            } else {
                Exchange::CreateChildSa
            },
            initiator: true,
            response: flags & 1 != 0,
            message_id: hitless_sa::MessageId(u32::from(flags >> 6)),
        };
        let total = u16::from(high & 1) << 8 | u16::from(total);
        let place = FragmentPlace {
            number: number.into(),
            total,
        };
        // What the parser has made sure of (RFC 7383 section 2.5).
        if place.number == 0 || place.number > total || reassembly.wants(&header, place).is_err() {
            continue;
        }
        assert!(total <= MAX_FRAGMENTS);
        let part = vec![content; usize::from(length) << (more & 8)];
        let key = (header.response, header.message_id.0, total, place.number);
        let opened = Opened {
            place: Some(place),
            first: PayloadKind(content),
            content: part.clone().into(),
        };
        if let Ok(Some(whole)) = reassembly.add(now, &header, place, step, opened) {
            sent.insert(key, part);
            let (response, id) = (header.response, header.message_id.0);
            let parts = (1..=total).map(|number| &sent[&(response, id, total, number)]);
            let wanted: Vec<u8> = parts.flatten().copied().collect();
            assert!(*whole.content == wanted && wanted.len() <= MAX_MESSAGE_LENGTH);
        } else {
            sent.insert(key, part);
        }
        let waits = reassembly.deadline();
        assert!(waits.is_none_or(|at| at.since(now).as_secs() <= 30));
    }
}

/// A configuration file: accepted, or refused with places in it.
pub fn configuration(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Err(error) = Config::parse("fuzz.toml", text, Path::new("/nonexistent")) {
        assert!(error.count() > 0 && !error.render(false).is_empty());
    }
}

/// A capture for the audit of the wire.
pub fn capture(octets: &[u8]) {
    let mut audit = Audit::default();
    let _ = audit.observe_pcap(TapId(0), octets);
    let report = audit.report();
    assert!(report.esp_packets() <= report.frames);
}

/// The certificates of an IKE_AUTH message, each behind its length in two octets, then AUTH data of
/// a digital signature. The last certificate is an anchor too, and what is a CRL counts as one.
pub fn certificates(octets: &[u8]) {
    let (mut chain, mut rest) = (Vec::new(), octets);
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((certificate, behind)) = behind.split_at_checked(length) else {
            break;
        };
        chain.push(certificate);
        rest = behind;
    }
    let mut trust = Trust::new(Revocation::Relaxed);
    let mut lists = Vec::new();
    for der in &chain {
        if let Ok(list) = RevocationList::from_der(der) {
            lists.push(list);
        }
        let Ok(certificate) = Certificate::parse(der) else {
            continue;
        };
        for id in certificate.identities() {
            let _ = (certificate.confirms(&id), id.to_string());
        }
        if let Some(name) = certificate.subject() {
            assert_eq!(DistinguishedName::from_der(name.der()).as_ref(), Some(name));
        }
        for method in [1, 9, 10, 14] {
            let _ = verify_signature(&certificate, method, rest, b"message");
        }
    }
    if let Some(anchor) = chain.last().and_then(|der| Certificate::parse(der).ok()) {
        let _ = trust.add_anchor(anchor);
    }
    trust.replace_crls(lists);
    // 2026-06-01.
    let _ = trust.verify(&chain, Duration::from_secs(1_780_315_200));
}
