//! Sealing and opening, and what must not open.

use super::*;
use crate::ike::message::{Delete, Exchange, Fault, Notify, NotifyKind};
use crate::ike::octets;
use hitless_sa::{IkeSpi, MessageId};
use proptest::prelude::*;

struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        for (index, octet) in out.iter_mut().enumerate() {
            *octet = self.0.wrapping_add(index as u8);
        }
    }
}

const HEADER: Header = Header {
    initiator_spi: IkeSpi(0x0102030405060708),
    responder_spi: IkeSpi(0x1112131415161718),
    exchange: Exchange::Informational,
    initiator: true,
    response: false,
    message_id: MessageId(5),
};

fn every_cipher() -> Vec<SkKeys> {
    let octets: Vec<u8> = (0..200).collect();
    let mut all = Vec::new();
    for encryption in [
        Encryption::Aes128Gcm16,
        Encryption::Aes192Gcm16,
        Encryption::Aes256Gcm16,
        Encryption::ChaCha20Poly1305,
        Encryption::Aes128Cbc,
        Encryption::Aes192Cbc,
        Encryption::Aes256Cbc,
    ] {
        let integrities: &[Option<Integrity>] = match encryption.is_aead() {
            true => &[None],
            false => &[
                Some(Integrity::HmacSha256_128),
                Some(Integrity::HmacSha384_192),
                Some(Integrity::HmacSha512_256),
            ],
        };
        for integrity in integrities {
            let sk_e = &octets[..encryption.key_material_length()];
            let sk_a = &octets[32..32 + integrity.map_or(0, Integrity::key_length)];
            all.push(SkKeys::new(encryption, *integrity, sk_e, sk_a).unwrap());
        }
    }
    all
}

fn cbc() -> SkKeys {
    let octets: Vec<u8> = (0..64).collect();
    let integrity = Some(Integrity::HmacSha256_128);
    SkKeys::new(
        Encryption::Aes128Cbc,
        integrity,
        &octets[..16],
        &octets[32..],
    )
    .unwrap()
}

fn seal(keys: &SkKeys, payloads: &[Payload], blocks: u8) -> Vec<u8> {
    let mut entropy = Fixed(0xf0);
    let iv = IvSource {
        unique: [9; 8],
        entropy: &mut entropy,
    };
    keys.seal_padded(&HEADER, payloads, iv, blocks)
}

/// Computed with Python's `hmac` and the `openssl enc` command.
#[test]
fn aes_cbc_with_hmac_sha256_is_what_openssl_computes() {
    let expected = octets(
        "010203040506070811121314151617182e20250800000005000000502a000034f0f1f2f3f4f5\
         f6f7f8f9fafbfcfdfeff6534bc4bb019cc6b167a066fb4c9725abf97c3d78012c200b4241075\
         cef3b38c",
    );
    let payloads = [Payload::Delete(Delete::Ike)];
    assert_eq!(seal(&cbc(), &payloads, 0), expected);
    assert_eq!(cbc().open(&expected).unwrap(), payloads);
}

/// RFC 7296 section 3.14: "the recipient MUST accept any length that results in proper
/// alignment", and padding of any content.
#[test]
fn a_peer_may_pad_more_than_needed_and_with_anything() {
    let padded = octets(
        "010203040506070811121314151617182e20250800000005000000602a000044f0f1f2f3f4f5\
         f6f7f8f9fafbfcfdfeff2cc957605f31125dda47a7944b35a420db5a5f6bf916f67b901cf73f\
         925bb3dba3c6ad93b202f18c48e9e6d5c3f372ba",
    );
    assert_eq!(cbc().open(&padded).unwrap(), [Payload::Delete(Delete::Ike)]);
    for keys in every_cipher() {
        let payloads = [Payload::notify(NotifyKind::INITIAL_CONTACT, b"x")];
        for blocks in 0..=14 {
            assert_eq!(
                keys.open(&seal(&keys, &payloads, blocks)).unwrap(),
                payloads
            );
        }
    }
}

#[test]
fn authentic_padding_longer_than_the_content_is_a_syntax_error() {
    let bad = octets(
        "010203040506070811121314151617182e20250800000005000000502a000034f0f1f2f3f4f5\
         f6f7f8f9fafbfcfdfeffbfde27f1ab4cea571125c44347260b7c189645fc2f0c05866a054d11\
         d70f0217",
    );
    let error = cbc().open(&bad).unwrap_err();
    assert_eq!(error, MessageError::Padding);
    assert_eq!(error.notify(), Some(NotifyKind::INVALID_SYNTAX));
}

/// RFC 3602 section 4, case 1.
#[test]
fn aes_cbc_vector_of_rfc3602() {
    let key = octets("06a9214036b8a15b512e03d534120006");
    let iv = octets("3dafba429d9eb430b422da802c9fac41");
    let key = CbcKey::Aes128(Zeroizing::new(key.try_into().unwrap()));
    let mut block = b"Single block msg".to_vec();
    let iv: [u8; 16] = iv.try_into().unwrap();
    key.encrypt(&iv, &mut block);
    assert_eq!(block, octets("e353779c1079aeb82708942dbe77181a"));
    key.decrypt(&iv, &mut block);
    assert_eq!(block, b"Single block msg");
}

#[test]
fn padding_is_minimal() {
    for length in 0..40usize {
        let payloads = [Payload::VendorId(vec![1; length])];
        let body = |keys: &SkKeys| seal(keys, &payloads, 0).len() - 32;
        let content = 4 + length;
        let gcm = &every_cipher()[0];
        assert_eq!(body(gcm), 8 + content + 1 + 16);
        assert_eq!(body(&cbc()), 16 + (content + 1).next_multiple_of(16) + 16);
    }
}

/// RFC 7296 section 1.4: an INFORMATIONAL without payloads checks liveness.
#[test]
fn an_empty_message_opens_to_no_payloads() {
    for keys in every_cipher() {
        assert_eq!(keys.open(&seal(&keys, &[], 0)).unwrap(), []);
    }
}

#[test]
fn every_bit_counts_and_every_truncation_is_seen() {
    let payloads = [Payload::notify(NotifyKind::COOKIE, b"some data")];
    for keys in every_cipher() {
        let good = seal(&keys, &payloads, 0);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = keys.open(&bad).unwrap_err();
            assert_eq!(error.notify(), None, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(keys.open(&good[..length]), Err(MessageError::NotProtected));
            assert_eq!(
                keys.open(&shortened(&good, length)).unwrap_err().notify(),
                None
            );
        }
    }
}

/// Cut to `length` octets, with both lengths made right again.
fn shortened(datagram: &[u8], length: usize) -> Vec<u8> {
    let mut cut = datagram[..length].to_vec();
    if let Some(field) = cut.get_mut(24..28) {
        field.copy_from_slice(&(length as u32).to_be_bytes());
    }
    if let Some(field) = cut.get_mut(30..32) {
        field.copy_from_slice(&(length as u16 - 28).to_be_bytes());
    }
    cut
}

#[test]
fn other_keys_do_not_open() {
    let ciphers = every_cipher();
    for (a, sealing) in ciphers.iter().enumerate() {
        let message = seal(sealing, &[], 3);
        for (b, opening) in ciphers.iter().enumerate() {
            assert_eq!(opening.open(&message).is_ok(), a == b, "{a} {b}");
        }
    }
}

#[test]
fn authentic_but_malformed_content_may_be_answered() {
    let unknown = |kind, critical| Payload::Unknown {
        kind: PayloadKind(kind),
        critical,
        body: vec![1, 2, 3],
    };
    for keys in every_cipher() {
        let skipped = [unknown(200, false), Payload::Delete(Delete::Ike)];
        assert_eq!(keys.open(&seal(&keys, &skipped, 0)).unwrap(), skipped);
        let error = keys
            .open(&seal(&keys, &[unknown(200, true)], 0))
            .unwrap_err();
        assert_eq!(error, MessageError::UnsupportedCritical(PayloadKind(200)));
        assert_eq!(
            error.notify(),
            Some(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD)
        );
        let error = keys
            .open(&seal(&keys, &[unknown(46, false)], 0))
            .unwrap_err();
        let (kind, fault) = (PayloadKind::SK, Fault::Misplaced);
        assert_eq!(error, MessageError::Payload { kind, fault });
        let error = keys
            .open(&seal(&keys, &[unknown(40, false)], 0))
            .unwrap_err();
        let (kind, fault) = (PayloadKind::NONCE, Fault::NonceLength(3));
        assert_eq!(error, MessageError::Payload { kind, fault });
    }
}

/// There is always a pad length octet (RFC 7296 section 3.14), even if the ICV is right.
#[test]
fn nothing_encrypted_is_too_short() {
    let message = |body_length: usize| {
        let mut out = Vec::new();
        emit_header(&mut out, &HEADER, PayloadKind::SK, 32 + body_length);
        out.extend([0, 0, 0, 4 + body_length as u8]);
        out
    };
    let key: Vec<u8> = (0..20).collect();
    let keys = SkKeys::new(Encryption::Aes128Gcm16, None, &key, &[]).unwrap();
    let Cipher::Aead { key, salt } = &keys.0 else {
        panic!("AES-GCM");
    };
    let mut gcm = message(24);
    seal_aead(&mut gcm, key, salt, [1; 8], &mut []);
    let too_short = Err(MessageError::Protection(SkFault::TooShort(24)));
    assert_eq!(keys.open(&gcm), too_short);

    let keys = cbc();
    let Cipher::Cbc { mac, .. } = &keys.0 else {
        panic!("AES-CBC");
    };
    let mut cbc = message(32);
    cbc.extend([2; 16]);
    let icv = hmac::sign(mac, &cbc);
    cbc.extend(&icv.as_ref()[..16]);
    let too_short = Err(MessageError::Protection(SkFault::TooShort(32)));
    assert_eq!(keys.open(&cbc), too_short);
}

#[test]
fn keys_of_the_wrong_length_are_refused() {
    for encryption in [Encryption::Aes128Gcm16, Encryption::Aes256Gcm16] {
        for length in 0..64 {
            let keys = SkKeys::new(encryption, None, &vec![0; length], &[]);
            assert_eq!(keys.is_ok(), length == encryption.key_material_length());
        }
    }
    let integrity = Some(Integrity::HmacSha512_256);
    for encryption in [Encryption::Aes128Cbc, Encryption::Aes256Cbc] {
        for length in 0..80 {
            let keys = SkKeys::new(encryption, integrity, &vec![0; length], &[0; 64]);
            assert_eq!(keys.is_ok(), length == encryption.key_material_length());
            let sk_e = vec![0; encryption.key_material_length()];
            let keys = SkKeys::new(encryption, integrity, &sk_e, &vec![0; length]);
            assert_eq!(keys.is_ok(), length == 64);
        }
    }
}

#[test]
fn iv_spaces_of_members_and_incarnations_are_disjoint_and_end() {
    let mut ivs = IvCounter::new(MemberId(3), Incarnation(0x0a0b0c)).unwrap();
    let ike = IkeSpi(7);
    assert_eq!(ivs.draw(ike), Some([3, 0x0a, 0x0b, 0x0c, 0, 0, 0, 0]));
    assert_eq!(ivs.draw(ike), Some([3, 0x0a, 0x0b, 0x0c, 0, 0, 0, 1]));
    ivs.next.insert(ike, u64::from(u32::MAX));
    let last = [3, 0x0a, 0x0b, 0x0c, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(ivs.draw(ike), Some(last));
    assert_eq!(ivs.draw(ike), None);
    assert_eq!(ivs.draw(ike), None);
    // Another IKE SA has another key, and values of its own.
    let other = ivs.draw(IkeSpi(8));
    assert_eq!(other, Some([3, 0x0a, 0x0b, 0x0c, 0, 0, 0, 0]));
    assert!(IvCounter::new(MemberId(255), Incarnation((1 << 24) - 1)).is_some());
    assert!(IvCounter::new(MemberId(1), Incarnation(1 << 24)).is_none());
}

/// As many as come and go: whoever is forgotten goes on above what it had, and whoever says much takes
/// nobody along.
#[test]
fn no_iv_of_an_ike_sa_comes_again_however_many_there_are() {
    let mut ivs = IvCounter::new(MemberId(3), Incarnation(1)).unwrap();
    let drawn = |ivs: &mut IvCounter, ike: u64| {
        let octets = ivs.draw(IkeSpi(ike)).expect("there are more");
        u64::from_be_bytes(octets) & u64::from(u32::MAX)
    };
    let chatty = 1 << 40;
    ivs.next.insert(IkeSpi(chatty), u64::from(u32::MAX));
    let mut last = drawn(&mut ivs, 1);
    for round in 0..3u64 {
        for _ in 0..5 {
            let next = drawn(&mut ivs, 1);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        for other in 0..REMEMBERED as u64 {
            drawn(&mut ivs, (round + 2) << 32 | other);
        }
        assert!(ivs.next.len() <= REMEMBERED);
    }
    assert!(ivs.floor < 100 && last >= 15);
    assert!(ivs.draw(IkeSpi(chatty)).is_some());
    assert_eq!(ivs.draw(IkeSpi(chatty)), None);
}

proptest! {
    #[test]
    fn what_is_sealed_opens(data in proptest::collection::vec(any::<u8>(), 0..600), blocks in 0u8..15) {
        let payloads = [Payload::Notify(Notify::new(NotifyKind::COOKIE, &data))];
        for keys in every_cipher() {
            prop_assert_eq!(keys.open(&seal(&keys, &payloads, blocks)).unwrap(), &payloads);
        }
    }

    #[test]
    fn nothing_else_opens(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut datagram = Vec::new();
        emit_header(&mut datagram, &HEADER, PayloadKind::SK, 32 + body.len());
        datagram.extend([0, 0]);
        datagram.extend((4 + body.len() as u16).to_be_bytes());
        datagram.extend(&body);
        for keys in every_cipher() {
            prop_assert!(matches!(keys.open(&datagram), Err(MessageError::Protection(_))));
        }
    }
}

/// RFC 7634 appendix B: the vector of an IKE message, which ends with its tag.
#[test]
fn rfc7634_appendix_b_ike_message() {
    let sk_e = octets("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3");
    let keys = SkKeys::new(Encryption::ChaCha20Poly1305, None, &sk_e, &[]).unwrap();
    let datagram = octets(
        "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029\
         1011121314151617\
         610394701f8d017f7c12924889\
         6b71bfe25236efd7cdc67066906315b2",
    );
    let payloads = keys.open(&datagram).unwrap();
    assert_eq!(
        payloads,
        vec![Payload::Notify(Notify {
            protocol: 0,
            spi: Vec::new(),
            kind: NotifyKind::SET_WINDOW_SIZE,
            data: vec![0, 0, 0, 10],
        })]
    );
}
