//! Key exchange: vectors, other implementations, and hostile values.

use super::*;
use crate::ike::octets;

/// All but the KEM: both sides do the same.
const METHODS: [KeyExchangeMethod; 7] = [
    KeyExchangeMethod::X25519,
    KeyExchangeMethod::Ecp256,
    KeyExchangeMethod::Ecp384,
    KeyExchangeMethod::Ecp521,
    KeyExchangeMethod::Modp2048,
    KeyExchangeMethod::Modp3072,
    KeyExchangeMethod::Modp4096,
];

/// Private key and public value of both sides, and the shared secret.
struct Vector {
    method: KeyExchangeMethod,
    private: [&'static str; 2],
    public: [&'static str; 2],
    shared: &'static str,
}

fn vectors() -> [Vector; 4] {
    let [x25519, ecp256] = published();
    let [ecp384, ecp521] = computed();
    [x25519, ecp256, ecp384, ecp521]
}

fn published() -> [Vector; 2] {
    [
        // RFC 7748 section 6.1.
        Vector {
            method: KeyExchangeMethod::X25519,
            private: [
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            ],
            public: [
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ],
            shared: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        },
        // RFC 5903 section 8.1.
        Vector {
            method: KeyExchangeMethod::Ecp256,
            private: [
                "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
                "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
            ],
            public: [
                "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180\
                 5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63\
                 56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
            ],
            shared: "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
        },
    ]
}

fn computed() -> [Vector; 2] {
    [
        // Computed with Python's `cryptography`.
        Vector {
            method: KeyExchangeMethod::Ecp384,
            private: [
                "111111111111111111111111111111111111111111111111\
                 111111111111111111111111111111111111111111111111",
                "222222222222222222222222222222222222222222222222\
                 222222222222222222222222222222222222222222222222",
            ],
            public: [
                "386e767ea5cb716c9cd620ff7342129c892a6fccefe612140c80bff59e943468019dda16e507\
                 9b0c1d9001d23a624b6dd088d0c3826394194787403e8a7d07e5e22f7e9c0b8e80fa1faff5d2\
                 8b4bb597b267f0b87023ca61fc8454bddefd2e0e",
                "4f2bda7fd2105f8467e21f45223ad58863ffa4c084832d9f6c64ffc47fdd519727ab53cb71f9\
                 c40de24b64acde61f02fc7dce130b612fa5dbcac94573a2354fd005d8e9caefdc5fde4830447\
                 4708bbd82f77e1fd2c630bea236f6f8dccc1678e",
            ],
            shared: "2ac3da23c114b5b1f3aa200cf3c57bebd1b3b880a0e68066ab5d00dda50dcfe6cd0341029234\
             6187a84b1f12d53569c0",
        },
        // Computed with Python's `cryptography`.
        Vector {
            method: KeyExchangeMethod::Ecp521,
            private: [
                "0111111111111111111111111111111111111111111111111111111111111111111111111111\
                 11111111111111111111111111111111111111111111111111111111",
                "0122222222222222222222222222222222222222222222222222222222222222222222222222\
                 22222222222222222222222222222222222222222222222222222222",
            ],
            public: [
                "01f17c0111ebe63872f40a45aeeddec7ca8946aa5b2e798487ddec42f579edf7c5b5d780199b\
                 b7cea72401def9ced4475e538e61bfa6e9cd7bbfafc8e47051a6fad301527f7dbcf2ec7dd744\
                 f72998138bd4907950ae2bf7aaa83810f9b08be6ae4e00ce606dd875a849187e7235735df2a9\
                 256ff662e096cfc19273c208f0f3d93ee1a1",
                "00731edbc438b1e6e4147bef27209a7639f411fcf594a2f07f452964bcf00dd0dda8df2dfa00\
                 945f987825012703d6aceb3dc9ae50699ee43abfa3206a96b1467bef00db3038fc22ce4978d1\
                 e270eb64963badc896efffe75fdcbfa8acc8414dde2cee6a80937a117a53e1a644c65ebeaf35\
                 cfb296eb4916a324c216ed40e91076f4e4ff",
            ],
            shared: "011feb6c7d6b1bbe1d4cb373e65b17993e4f1fe7f8b6ff3ee6f16279efb54de8c8ed08e4832d\
                 e4c5c6d0f7067729164beb87ed72711d5a7ee08a0da98a3c3206d693",
        },
    ]
}

#[test]
fn vectors_of_rfc7748_and_rfc5903() {
    for vector in vectors() {
        let pairs = vector
            .private
            .map(|private| KeyPair::import(vector.method, &octets(private)).unwrap());
        for (pair, public) in pairs.iter().zip(vector.public) {
            assert_eq!(pair.public(), octets(public), "{pair:?}");
            assert_eq!(pair.public().len(), vector.method.public_length());
        }
        let [a, b] = pairs;
        assert_eq!(*a.agree(&b.public()).unwrap(), octets(vector.shared));
        assert_eq!(*b.agree(&a.public()).unwrap(), octets(vector.shared));
    }
}

/// RFC 3526: the exponents are 11.. and 22.., the SHA-256 of both public values and of the shared
/// secret was computed with Python's `pow`.
#[test]
fn rfc3526_groups_compute_what_python_computes() {
    use aws_lc_rs::digest::{SHA256, digest};
    let table = [
        (
            KeyExchangeMethod::Modp2048,
            "a25bbf7837f6962b48eebfa9b3eabb556ca982238c8e7fa94e7af29bbf929012",
            "73b36be73cc74cebfb3011f6514cba6bd74f864934271230bab73876749cb833",
            "f33967491b99ecccbf10d9e8bf48e2317680e6cdaba689e1337fef1127a17369",
        ),
        (
            KeyExchangeMethod::Modp3072,
            "909441dc2905363c92586afef81f6716c8629ee152548dbdf95e2ab74b772e6b",
            "7c2c15415ba692111e73e136acdaf340606fe007800614cd619aff2d4ef3a5ec",
            "ec61897c60cb7eac135e43bf615c57c188bcddebe10c2054285a71781bef382e",
        ),
        (
            KeyExchangeMethod::Modp4096,
            "17b57f0c6eb3f7bee12265404bdc76f9555d495d5d578beb332a193f77166da5",
            "360a8ec056b5dce2b588d4341585b7e9a4efcfc03c6992b10d2861b057da499c",
            "adbda411a0107d591318bc116b296a332d0eb1a63c3fe98e65b5e77d594b5bfa",
        ),
    ];
    for (method, x, y, shared) in table {
        let pair = |octet| KeyPair::import(method, &vec![octet; method.private_length()]).unwrap();
        let (a, b) = (pair(0x11), pair(0x22));
        let is = |octets_of: &[u8], hex: &str| {
            assert_eq!(
                digest(&SHA256, octets_of).as_ref(),
                octets(hex),
                "{method:?}"
            );
        };
        is(&a.public(), x);
        is(&b.public(), y);
        is(&a.agree(&b.public()).unwrap(), shared);
        is(&b.agree(&a.public()).unwrap(), shared);
    }
}

/// RFC 6989 section 2.1: "greater than 1 and less than p - 1".
#[test]
fn rfc6989_section_2_1_modp_values_outside_of_the_group_are_refused() {
    let method = KeyExchangeMethod::Modp2048;
    let pair = KeyPair::import(method, &[7; 32]).unwrap();
    let number = |last: u8| {
        let mut octets = vec![0; 256];
        octets[255] = last;
        octets
    };
    // p ends in FF..FF (RFC 3526 section 3), and p - 1 in FF..FE.
    let mut p = pair.public();
    let prime = octets(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A0879\
         8E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B\
         0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA4836\
         1C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804\
         F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6\
         955817183995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    );
    p.copy_from_slice(&prime);
    let mut below = prime.clone();
    below[255] = 0xfe;
    let mut fits = prime;
    fits[255] = 0xfd;
    for bad in [number(0), number(1), below, p, vec![0xff; 256]] {
        assert_eq!(
            pair.agree(&bad).unwrap_err(),
            KexError::InvalidPublic(method)
        );
    }
    assert!(pair.agree(&number(2)).is_ok() && pair.agree(&fits).is_ok());
    assert!(KeyPair::import(method, &[0; 32]).is_err());
}

/// FIPS 203: what one implementation encapsulates the other decapsulates, and both read each
/// other's keys.
#[test]
fn ml_kem_768_agrees_with_aws_lc() {
    use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
    let method = KeyExchangeMethod::MlKem768;
    let ours = KeyPair::generate(method, &mut Script(vec![(0..64).collect()])).unwrap();
    assert_eq!(ours.public().len(), method.public_length());
    let read = EncapsulationKey::new(&ML_KEM_768, &ours.public()).unwrap();
    let (ciphertext, secret) = read.encapsulate().unwrap();
    let copy = KeyPair::import(method, &ours.export()).unwrap();
    assert_eq!(*copy.agree(ciphertext.as_ref()).unwrap(), secret.as_ref());

    let theirs = DecapsulationKey::generate(&ML_KEM_768).unwrap();
    let public = theirs.encapsulation_key().unwrap().key_bytes().unwrap();
    let mut script = Script(vec![vec![9; 32]]);
    let (data, shared) = respond(method, &mut script, public.as_ref()).unwrap();
    assert_eq!(data.len(), method.response_length());
    let secret = theirs
        .decapsulate(Ciphertext::from(data.as_slice()))
        .unwrap();
    assert_eq!(*shared, secret.as_ref());
}

/// FIPS 203 sections 7.2 and 7.3: lengths, and coefficients that are not reduced.
#[test]
fn fips203_section_7_2_hostile_ml_kem_values_are_refused() {
    let method = KeyExchangeMethod::MlKem768;
    let script = || Script(vec![vec![3; 64]]);
    let pair = KeyPair::generate(method, &mut script()).unwrap();
    for octets in [0, 1, 1087, 1089, 1184] {
        let error = pair.agree(&vec![0; octets]).unwrap_err();
        assert_eq!(error, KexError::PublicLength { method, octets });
    }
    for octets in [0, 1088, 1183, 1185] {
        let error = respond(method, &mut script(), &vec![0; octets]).unwrap_err();
        assert_eq!(error, KexError::PublicLength { method, octets });
    }
    let mut unreduced = pair.public();
    unreduced[..2].fill(0xff);
    let error = respond(method, &mut script(), &unreduced).unwrap_err();
    assert_eq!(error, KexError::InvalidPublic(method));
    // Implicit rejection: another secret, no error.
    let (mut data, shared) = respond(method, &mut script(), &pair.public()).unwrap();
    data[7] ^= 1;
    assert_ne!(pair.agree(&data).unwrap(), shared);
}

struct Script(Vec<Vec<u8>>);

impl Entropy for Script {
    fn fill(&mut self, out: &mut [u8]) {
        let next = if self.0.len() > 1 {
            self.0.remove(0)
        } else {
            self.0[0].clone()
        };
        out.copy_from_slice(&next[..out.len()]);
    }
}

#[test]
fn draws_again_until_an_ecp_scalar_is_valid() {
    for method in [KeyExchangeMethod::Ecp256, KeyExchangeMethod::Ecp384] {
        let mut script = Script(vec![vec![0; 48], vec![0xff; 48], vec![7; 48]]);
        let pair = KeyPair::generate(method, &mut script).unwrap();
        assert_eq!(
            pair.export().as_slice(),
            &[7; 48][..method.private_length()]
        );
        let endless = KeyPair::generate(method, &mut Script(vec![vec![0xff; 48]]));
        assert_eq!(endless.unwrap_err(), KexError::NoEntropy);
    }
}

#[test]
fn an_exported_pair_agrees_as_the_original_does() {
    for method in METHODS {
        let ours = KeyPair::generate(method, &mut Script(vec![vec![3; 66]])).unwrap();
        let theirs = KeyPair::generate(method, &mut Script(vec![vec![5; 66]])).unwrap();
        let copy = KeyPair::import(method, &ours.export()).unwrap();
        let shared = ours.agree(&theirs.public()).unwrap();
        assert_eq!(copy.agree(&theirs.public()).unwrap(), shared);
        assert_eq!(theirs.agree(&copy.public()).unwrap(), shared);
        assert_eq!(
            format!("{ours:?}"),
            format!("KeyPair({}, redacted)", method.keyword())
        );
    }
}

#[test]
fn refuses_private_keys_of_other_lengths() {
    for method in METHODS.into_iter().chain([KeyExchangeMethod::MlKem768]) {
        for length in [0, 1, 31, 33, 47, 49, 63, 65, 67] {
            assert!(KeyPair::import(method, &vec![1; length]).is_err());
        }
    }
}

/// RFC 7748 section 6.1, RFC 6989 section 2.3: low order, off the curve, wrong length.
#[test]
fn refuses_public_values_that_are_no_valid_point() {
    for method in METHODS {
        let pair = KeyPair::generate(method, &mut Script(vec![vec![3; 66]])).unwrap();
        let length = method.public_length();
        let zero = pair.agree(&vec![0; length]).unwrap_err();
        assert_eq!(zero, KexError::InvalidPublic(method));
        for octets in [0, 1, length - 1, length + 1, 251] {
            assert_eq!(
                pair.agree(&vec![1; octets]).unwrap_err(),
                KexError::PublicLength { method, octets }
            );
        }
        if matches!(method.kind(), Kind::Curve(_)) && method != KeyExchangeMethod::X25519 {
            let mut off = pair.public();
            *off.last_mut().unwrap() ^= 1;
            assert_eq!(
                pair.agree(&off).unwrap_err(),
                KexError::InvalidPublic(method)
            );
        }
    }
}

/// Whatever asks for it, a key exchange counts: for the responder twice, but with a KEM.
#[test]
fn every_operation_counts_where_it_is_done() {
    use crate::ike::work::Share;
    let entropy: &mut dyn Entropy = &mut crate::entropy::SeededEntropy::new(5);
    for method in METHODS.into_iter().chain([KeyExchangeMethod::MlKem768]) {
        let cost = u64::from(method.cost());
        let share = Share::new(0);
        let ours = KeyPair::generate(method, entropy).unwrap();
        // Hardly ever a draw is no key.
        assert!(share.used() >= cost, "{method:?}");
        let share = Share::new(0);
        let (public, _) = respond(method, entropy, &ours.public()).unwrap();
        let operations = if method == KeyExchangeMethod::MlKem768 {
            1
        } else {
            2
        };
        assert!(share.used() >= cost * operations, "{method:?}");
        let share = Share::new(0);
        ours.agree(&public).unwrap();
        assert_eq!(share.used(), cost, "{method:?}");
        // What is refused by its length costs nothing.
        let share = Share::new(0);
        respond(method, entropy, &[4]).unwrap_err();
        ours.agree(&[4]).unwrap_err();
        assert_eq!(share.used(), 0, "{method:?}");
    }
}
