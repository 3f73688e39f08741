//! Every suite with every engine: published vectors, each engine against the others, and damage.

mod vectors;
mod wycheproof;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use chacha20poly1305::ChaCha20Poly1305;
use proptest::prelude::*;

use super::*;

/// The engines that this machine can run.
fn engines() -> impl Iterator<Item = Engine> {
    Engine::all().filter(|engine| engine.is_available())
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// Key material in which no octet is like its neighbours.
fn material(suite: EspSuite, seed: u8) -> KeyMaterial {
    let octets = (0..suite.key_material_length()).map(|at| (at as u8).wrapping_mul(37) ^ seed);
    KeyMaterial::new(&octets.collect::<Vec<_>>())
}

fn key(engine: Engine, suite: EspSuite, seed: u8) -> EspKey {
    EspKey::new(engine, suite, &material(suite, seed)).unwrap()
}

/// A burst of one.
fn seal_one(key: &EspKey, esp: &mut [u8], high: Option<u32>) -> bool {
    let mut verdict = false;
    let ok = &mut verdict;
    seal_burst([Job { key, esp, high, ok }].into_iter());
    verdict
}

fn open_one(key: &EspKey, esp: &mut [u8], high: Option<u32>) -> bool {
    let mut verdict = false;
    let ok = &mut verdict;
    open_burst([Job { key, esp, high, ok }].into_iter());
    verdict
}

/// The RustCrypto ciphers as they come, without anything of ours: encrypts in place and returns the
/// tag.
fn oracle(suite: EspSuite, seed: u8, iv: [u8; 8], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
    fn run<A: KeyInit + AeadInOut<NonceSize = U12>>(
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; 16] {
        let nonce = nonce.try_into().unwrap();
        let key = A::new_from_slice(key).unwrap();
        let tag = key.encrypt_inout_detached(nonce, aad, text.into()).unwrap();
        tag.as_slice().try_into().unwrap()
    }
    let material = material(suite, seed);
    let parts = material.parts(suite).unwrap();
    let nonce = [parts.salt, &iv].concat();
    match (suite.transform(), parts.key.len()) {
        (Transform::ChaCha20Poly1305 | Transform::ChaCha20Poly1305ImplicitIv, _) => {
            run::<ChaCha20Poly1305>(parts.key, &nonce, aad, text)
        }
        (_, 16) => run::<Aes128Gcm>(parts.key, &nonce, aad, text),
        (_, 24) => run::<AesGcm<aes::Aes192, U12>>(parts.key, &nonce, aad, text),
        _ => run::<Aes256Gcm>(parts.key, &nonce, aad, text),
    }
}

/// An ESP packet to seal: header, IV as the key makes it, text, room for the ICV.
fn packet(key: &EspKey, number: u64, text: &[u8]) -> Vec<u8> {
    let mut iv = vec![0; key.suite().iv_length()];
    key.write_iv(SequenceNumber(number), &mut iv);
    let low = number as u32;
    let icv = vec![0; key.suite().icv_length()];
    [&[1, 2, 3, 4], &low.to_be_bytes()[..], &iv, text, &icv].concat()
}

/// What the RFCs make of it, computed by the oracle. Not for AES-CBC.
fn sealed_by_oracle(suite: EspSuite, seed: u8, number: u64, esn: bool, text: &[u8]) -> Vec<u8> {
    let iv = number.to_be_bytes();
    let header = [1, 2, 3, 4];
    let (low, whole) = ((number as u32).to_be_bytes(), iv);
    let counted: &[u8] = if esn { &whole } else { &low };
    let aad = [&header[..], counted].concat();
    let mut text = text.to_vec();
    let wire_iv = &iv[..suite.iv_length()];
    let icv = match suite.transform() {
        Transform::AesGmac => {
            let aad = [&aad[..], &iv, &text].concat();
            oracle(suite, seed, iv, &aad, &mut [])
        }
        _ => oracle(suite, seed, iv, &aad, &mut text),
    };
    [&header[..], &low, wire_iv, &text, &icv].concat()
}

fn is_cbc(suite: EspSuite) -> bool {
    suite.integrity_key_length() > 0
}

/// Whole blocks where the suite needs them.
fn fit(suite: EspSuite, length: usize) -> usize {
    match is_cbc(suite) {
        true => length.next_multiple_of(16),
        false => length,
    }
}

#[test]
fn every_engine_gives_the_octets_of_the_rfcs_at_every_length() {
    let plain: Vec<u8> = (0..=2000u32).map(|i| (i * 7) as u8).collect();
    for &suite in EspSuite::ALL.iter().filter(|suite| !is_cbc(**suite)) {
        let keys: Vec<_> = engines()
            .map(|engine| (engine, key(engine, suite, 9)))
            .collect();
        for length in (0..300).chain((300..=2000).step_by(61)) {
            let (number, esn) = (0x1_0000_0000 + length as u64, length % 2 == 0);
            let number = if esn { number } else { number & 0xffff_ffff };
            let high = esn.then_some((number >> 32) as u32);
            let expected = sealed_by_oracle(suite, 9, number, esn, &plain[..length]);
            for (engine, key) in &keys {
                let mut esp = packet(key, number, &plain[..length]);
                assert!(seal_one(key, &mut esp, high));
                assert_eq!(esp, expected, "{suite:?} {engine:?} {length}");
                assert!(open_one(key, &mut esp, high));
                let start = 8 + suite.iv_length();
                assert_eq!(esp[start..start + length], plain[..length]);
            }
        }
    }
}

/// Zero octets, and 1 to 8 AES blocks, one more and one less: where kernels have their edges.
#[test]
fn every_suite_and_engine_opens_what_another_sealed_around_the_edges_of_blocks() {
    let lengths = (1..=8).flat_map(|blocks| [16 * blocks - 1, 16 * blocks, 16 * blocks + 1]);
    let lengths: Vec<usize> = std::iter::once(0).chain(lengths).collect();
    for &suite in EspSuite::ALL {
        for (sealer, opener) in engines().flat_map(|one| engines().map(move |two| (one, two))) {
            let (sealer, opener) = (key(sealer, suite, 3), key(opener, suite, 3));
            for &length in &lengths {
                let text: Vec<u8> = (0..fit(suite, length)).map(|at| at as u8).collect();
                for high in [None, Some(0), Some(7)] {
                    let number = u64::from(high.unwrap_or(0)) << 32 | 0xffff_fff0;
                    let mut esp = packet(&sealer, number, &text);
                    assert!(seal_one(&sealer, &mut esp, high));
                    assert!(open_one(&opener, &mut esp, high));
                    let start = 8 + suite.iv_length();
                    assert_eq!(esp[start..start + text.len()], text);
                }
            }
        }
    }
}

#[test]
fn a_burst_of_all_suites_engines_and_lengths_is_judged_packet_by_packet() {
    let keys: Vec<_> = EspSuite::ALL
        .iter()
        .flat_map(|&suite| engines().map(move |engine| key(engine, suite, 5)))
        .collect();
    let length = |index: usize| fit(keys[index % keys.len()].suite(), index * 53 % 1500);
    let mut packets: Vec<Vec<u8>> = (0..200)
        .map(|index| {
            let key = &keys[index % keys.len()];
            packet(key, index as u64, &vec![index as u8; length(index)])
        })
        .collect();
    let clear = packets.clone();
    let run = |packets: &mut [Vec<u8>], seal: bool| -> Vec<bool> {
        let mut verdicts = vec![false; packets.len()];
        let each = packets.iter_mut().zip(&mut verdicts).enumerate();
        let jobs = each.map(|(index, (esp, ok))| Job {
            key: &keys[index % keys.len()],
            esp,
            high: (index % 3 == 0).then_some(0),
            ok,
        });
        match seal {
            true => seal_burst(jobs),
            false => open_burst(jobs),
        }
        verdicts
    };
    assert!(run(&mut packets, true).iter().all(|&ok| ok));
    for index in (0..packets.len()).step_by(7) {
        let at = index * 31 % packets[index].len();
        packets[index][at] ^= 0x10;
    }
    let verdicts = run(&mut packets, false);
    for (index, (ok, esp)) in verdicts.into_iter().zip(&packets).enumerate() {
        assert_eq!(ok, index % 7 != 0, "{index}");
        let end = esp.len() - keys[index % keys.len()].suite().icv_length();
        if ok {
            assert_eq!(esp[..end], clear[index][..end]);
        }
    }
}

/// Whatever is damaged does not verify, and gives no plaintext away where it was encrypted.
#[test]
fn one_flipped_bit_anywhere_does_not_verify_with_any_suite_or_engine() {
    for &suite in EspSuite::ALL {
        for engine in engines() {
            let key = key(engine, suite, 4);
            let text: Vec<u8> = (0x40..0x70).collect();
            let mut sealed = packet(&key, 0x5_0000_0006, &text);
            assert!(seal_one(&key, &mut sealed, Some(5)));
            for bit in 0..sealed.len() * 8 {
                let mut esp = sealed.clone();
                esp[bit / 8] ^= 1 << (bit % 8);
                let received = esp.clone();
                assert!(
                    !open_one(&key, &mut esp, Some(5)),
                    "{suite:?} {engine:?} {bit}"
                );
                let start = 8 + suite.iv_length();
                let (now, before) = (&esp[start..start + 48], &received[start..start + 48]);
                assert!(now == before || now.iter().all(|&octet| octet == 0));
            }
            for length in 0..sealed.len() {
                assert!(!open_one(&key, &mut sealed[..length].to_vec(), Some(5)));
            }
            assert!(open_one(&key, &mut sealed, Some(5)));
        }
    }
}

#[test]
fn what_is_too_short_to_be_esp_is_neither_sealed_nor_opened() {
    for &suite in EspSuite::ALL {
        for engine in engines() {
            let key = key(engine, suite, 1);
            for length in 0..8 + suite.iv_length() + suite.icv_length() {
                assert!(
                    !seal_one(&key, &mut vec![0; length], None),
                    "{suite:?} {length}"
                );
                assert!(!open_one(&key, &mut vec![0; length], Some(0)));
            }
        }
    }
}

/// RFC 3602 section 3: the IV "MUST be chosen at random", that is, nobody may predict it; and S1 and
/// S2: no two numbers share one, whoever makes it.
#[test]
fn rfc3602_section_3_ivs_of_cbc_follow_from_the_number_and_the_key_and_never_repeat() {
    let suite = EspSuite::Aes128CbcHmacSha256;
    let iv = |seed, number| {
        let mut iv = [0; 16];
        key(Engine::default(), suite, seed).write_iv(SequenceNumber(number), &mut iv);
        iv
    };
    let numbers: Vec<u64> = (0..2000).chain((0..2000).map(|n| n << 32 | 1)).collect();
    let mut ivs: Vec<_> = numbers.iter().map(|&number| iv(1, number)).collect();
    // Another member with the same key makes the same IV, so that numbers decide alone.
    assert_eq!(iv(1, 77), ivs[77]);
    assert_ne!(iv(2, 77), ivs[77]);
    // Another program can compute it: HKDF-Expand, then one block of AES (the former is
    // HMAC(key, label | 1), RFC 5869 section 2.3).
    let material = material(suite, 1);
    let parts = material.parts(suite).unwrap();
    let hmac_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, parts.key);
    let label = [&b"hitless ESP AES-CBC IV"[..], &[1]].concat();
    let iv_key = aws_lc_rs::hmac::sign(&hmac_key, &label);
    let mut block = [0u8; 16];
    block[15] = 77;
    let mut block = block.into();
    let cipher = <aes::Aes128 as KeyInit>::new_from_slice(&iv_key.as_ref()[..16]).unwrap();
    aes::cipher::BlockCipherEncrypt::encrypt_block(&cipher, &mut block);
    assert_eq!(<[u8; 16]>::from(block), ivs[77]);
    // No IV looks like its number, and neighbours differ in about half of their bits.
    for pair in ivs[..2000].windows(2) {
        let bits = u128::from_be_bytes(pair[0]) ^ u128::from_be_bytes(pair[1]);
        assert!((24..=104).contains(&bits.count_ones()));
    }
    ivs.sort_unstable();
    ivs.dedup();
    let mut distinct = numbers;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(ivs.len(), distinct.len());
}

/// S2, for every suite: the nonce of a combined mode is the number, all 64 bits of it.
#[test]
fn gcm_iv_uniqueness_no_two_numbers_share_an_iv_or_a_keystream() {
    for &suite in EspSuite::ALL {
        let key = key(Engine::default(), suite, 6);
        let mut seen = std::collections::BTreeSet::new();
        for number in [
            1,
            2,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0001,
            u64::MAX >> 1,
        ] {
            let mut iv = vec![0; suite.iv_length()];
            key.write_iv(SequenceNumber(number), &mut iv);
            if suite.iv_length() == 8 {
                assert_eq!(iv, number.to_be_bytes());
            }
            let mut esp = packet(&key, number, &[0; 32]);
            let start = 8 + suite.iv_length();
            assert!(seal_one(&key, &mut esp, Some((number >> 32) as u32)));
            let keystream = match suite.transform() {
                Transform::AesGmac => esp[start + 32..].to_vec(),
                _ => esp[start..start + 16].to_vec(),
            };
            assert!(seen.insert(keystream), "{suite:?} {number}");
        }
    }
}

proptest! {
    #[test]
    fn what_one_engine_seals_the_others_open_octet_for_octet(
        suite in proptest::sample::select(EspSuite::ALL),
        seed: u8,
        number: u64,
        esn: bool,
        plain in proptest::collection::vec(any::<u8>(), 0..=2000),
        damage: (usize, u8),
    ) {
        let high = esn.then_some((number >> 32) as u32);
        let number = if esn { number } else { number & 0xffff_ffff };
        let text = &plain[..plain.len() / 16 * 16];
        let text = if is_cbc(suite) { text } else { &plain };
        let sealed: Vec<_> = engines()
            .map(|engine| {
                let key = key(engine, suite, seed);
                let mut esp = packet(&key, number, text);
                assert!(seal_one(&key, &mut esp, high));
                esp
            })
            .collect();
        for (opener, sealed) in engines().flat_map(|e| sealed.iter().map(move |s| (e, s))) {
            let opener = key(opener, suite, seed);
            let mut esp = sealed.clone();
            esp[damage.0 % sealed.len()] ^= 1 << (damage.1 % 8);
            prop_assert!(!open_one(&opener, &mut esp, high));
            let mut esp = sealed.clone();
            prop_assert!(open_one(&opener, &mut esp, high));
            let start = 8 + suite.iv_length();
            prop_assert_eq!(&esp[start..start + text.len()], text);
        }
        for pair in sealed.windows(2) {
            prop_assert_eq!(&pair[0], &pair[1]);
        }
    }
}

#[test]
fn refuses_key_material_of_another_length() {
    for &suite in EspSuite::ALL {
        let right = suite.key_material_length();
        for engine in engines() {
            for octets in [0, 4, 16, right - 1, right + 1, right + 32] {
                if octets == right {
                    continue;
                }
                let material = KeyMaterial::new(&vec![0; octets]);
                assert_eq!(
                    EspKey::new(engine, suite, &material).err(),
                    Some(KeyError::Length { suite, octets })
                );
            }
        }
    }
}

#[test]
fn engines_are_found_by_name_and_keys_are_not_printed() {
    for engine in Engine::all() {
        assert_eq!(engine.name().parse(), Ok(engine));
    }
    for engine in engines() {
        assert_eq!(engine.checked(), Ok(engine));
        for &suite in EspSuite::ALL {
            assert_eq!(
                format!("{:?}", key(engine, suite, 0x5a)),
                "EspKey(redacted)"
            );
        }
    }
    assert_eq!("burst".parse(), Ok(Engine::burst()));
    assert!("openssl".parse::<Engine>().is_err());
}

#[test]
fn the_default_engine_is_the_burst_kernel_where_there_is_one_and_no_other_is_forced() {
    let default = Engine::default();
    assert!(default.is_available());
    match Engine::burst().is_available() {
        true => assert_eq!(default, Engine::burst()),
        false => assert_eq!(default, Engine::AwsLc),
    }
    let none = Engine::Burst(hitless_gcm::Tier::None);
    assert_eq!(none.checked(), Err(EngineError::Unavailable(none)));
    let suite = EspSuite::Aes128Gcm16;
    let refused = EspKey::new(none, suite, &material(suite, 1)).err();
    assert_eq!(refused, Some(KeyError::Engine(none)));
}
