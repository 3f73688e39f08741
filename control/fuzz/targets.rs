//! What is fuzzed in the control plane: IKE messages, decrypted payloads, configuration, captures.
//! The same functions run over the committed corpus as an ordinary test
//! (`testbeds/tests/fuzz_corpus.rs`).

use std::path::Path;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hitless::audit::{Audit, TapId};
use hitless::config::Config;
use hitless::ike::crypto::SkKeys;
use hitless::ike::message::{Parsed, emit, parse};
use hitless::ike::proposal::Encryption;

/// What handles the octets of one input.
pub type Target = fn(&[u8]);

/// Every target with its name, which is that of its folder in the corpus.
pub const ALL: &[(&str, Target)] = &[
    ("ike_message", ike_message),
    ("ike_payloads", ike_payloads),
    ("configuration", configuration),
    ("capture", capture),
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
