//! Key exchange: X25519 (RFC 8031) and ECP groups 19 and 20 (RFC 5903).
//!
//! A pending exchange is part of what is replicated, hence a private key that can be exported.

use std::fmt;

use aws_lc_rs::agreement::{self, Algorithm, PrivateKey, UnparsedPublicKey};
use hitless_sa::Entropy;
use zeroize::Zeroizing;

use crate::ike::proposal::KeyExchangeMethod;

/// An ephemeral private key and its public value. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct KeyPair {
    method: KeyExchangeMethod,
    private: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

/// Why a key exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KexError {
    /// The peer's value has the wrong length for the method.
    PublicLength {
        method: KeyExchangeMethod,
        octets: usize,
    },
    /// The peer's value is no point of the curve, or of low order (RFC 7748 section 6.1).
    InvalidPublic(KeyExchangeMethod),
    /// The octets are no private key of the method.
    InvalidPrivate(KeyExchangeMethod),
    /// The source of randomness yields no private key however often it is asked.
    NoEntropy,
}

impl fmt::Display for KexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KexError::PublicLength { method, octets } => {
                write!(
                    f,
                    "a public value of {octets} octets does not fit {}",
                    method.name()
                )
            }
            KexError::InvalidPublic(method) => {
                write!(f, "the public value is no valid point of {}", method.name())
            }
            KexError::InvalidPrivate(method) => {
                write!(f, "the octets are no private key of {}", method.name())
            }
            KexError::NoEntropy => write!(f, "randomness yields no private key"),
        }
    }
}

impl std::error::Error for KexError {}

impl KeyExchangeMethod {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            KeyExchangeMethod::X25519 => &agreement::X25519,
            KeyExchangeMethod::Ecp256 => &agreement::ECDH_P256,
            KeyExchangeMethod::Ecp384 => &agreement::ECDH_P384,
        }
    }

    /// Octets of a private key, and of one coordinate of a public value.
    const fn scalar_length(self) -> usize {
        match self {
            KeyExchangeMethod::X25519 | KeyExchangeMethod::Ecp256 => 32,
            KeyExchangeMethod::Ecp384 => 48,
        }
    }

    /// Octets of Key Exchange Data: a u coordinate, or x and y (RFC 5903 section 7).
    pub const fn public_length(self) -> usize {
        match self {
            KeyExchangeMethod::X25519 => 32,
            KeyExchangeMethod::Ecp256 => 64,
            KeyExchangeMethod::Ecp384 => 96,
        }
    }
}

/// Octet that marks an uncompressed point in SEC 1, which IKE leaves out.
const UNCOMPRESSED: u8 = 4;

impl KeyPair {
    /// Draws private keys until one is valid: for the ECP groups nearly always the first.
    pub fn generate(
        method: KeyExchangeMethod,
        entropy: &mut dyn Entropy,
    ) -> Result<KeyPair, KexError> {
        let mut private = Zeroizing::new(vec![0; method.scalar_length()]);
        for _ in 0..64 {
            entropy.fill(&mut private);
            if let Ok(pair) = KeyPair::import(method, &private) {
                return Ok(pair);
            }
        }
        Err(KexError::NoEntropy)
    }

    /// The key pair that was exported.
    pub fn import(method: KeyExchangeMethod, private: &[u8]) -> Result<KeyPair, KexError> {
        let invalid = KexError::InvalidPrivate(method);
        let key = PrivateKey::from_private_key(method.algorithm(), private).map_err(|_| invalid)?;
        let public = key.compute_public_key().map_err(|_| invalid)?;
        let public = match method {
            KeyExchangeMethod::X25519 => public.as_ref(),
            _ => public
                .as_ref()
                .strip_prefix(&[UNCOMPRESSED])
                .ok_or(invalid)?,
        };
        Ok(KeyPair {
            method,
            private: Zeroizing::new(private.to_vec()),
            public: public.to_vec(),
        })
    }

    /// The private key, for replication only.
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        self.private.clone()
    }

    pub fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    /// Key Exchange Data to send.
    pub fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    /// g^ir from the peer's Key Exchange Data. For the ECP groups it is the x coordinate
    /// (RFC 5903 section 7).
    pub fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KexError> {
        let method = self.method;
        if peer.len() != method.public_length() {
            return Err(KexError::PublicLength {
                method,
                octets: peer.len(),
            });
        }
        let mut point = Vec::with_capacity(1 + peer.len());
        if method != KeyExchangeMethod::X25519 {
            point.push(UNCOMPRESSED);
        }
        point.extend(peer);
        let private = PrivateKey::from_private_key(method.algorithm(), &self.private)
            .map_err(|_| KexError::InvalidPrivate(method))?;
        agreement::agree(
            &private,
            UnparsedPublicKey::new(method.algorithm(), point),
            KexError::InvalidPublic(method),
            |shared| Ok(Zeroizing::new(shared.to_vec())),
        )
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, redacted)", self.method.keyword())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::octets;

    const METHODS: [KeyExchangeMethod; 3] = [
        KeyExchangeMethod::X25519,
        KeyExchangeMethod::Ecp256,
        KeyExchangeMethod::Ecp384,
    ];

    /// Private key and public value of both sides, and the shared secret.
    struct Vector {
        method: KeyExchangeMethod,
        private: [&'static str; 2],
        public: [&'static str; 2],
        shared: &'static str,
    }

    fn vectors() -> [Vector; 3] {
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
            assert_eq!(pair.export().as_slice(), &[7; 48][..method.scalar_length()]);
            let endless = KeyPair::generate(method, &mut Script(vec![vec![0xff; 48]]));
            assert_eq!(endless.unwrap_err(), KexError::NoEntropy);
        }
    }

    #[test]
    fn an_exported_pair_agrees_as_the_original_does() {
        for method in METHODS {
            let ours = KeyPair::generate(method, &mut Script(vec![vec![3; 48]])).unwrap();
            let theirs = KeyPair::generate(method, &mut Script(vec![vec![5; 48]])).unwrap();
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
        for method in METHODS {
            for length in [0, 1, 31, 33, 47, 49, 64] {
                assert!(KeyPair::import(method, &vec![1; length]).is_err());
            }
        }
    }

    /// RFC 7748 section 6.1, RFC 6989 section 2.3: low order, off the curve, wrong length.
    #[test]
    fn refuses_public_values_that_are_no_valid_point() {
        for method in METHODS {
            let pair = KeyPair::generate(method, &mut Script(vec![vec![3; 48]])).unwrap();
            let length = method.public_length();
            let zero = pair.agree(&vec![0; length]).unwrap_err();
            assert_eq!(zero, KexError::InvalidPublic(method));
            for octets in [0, 1, length - 1, length + 1, 255] {
                assert_eq!(
                    pair.agree(&vec![1; octets]).unwrap_err(),
                    KexError::PublicLength { method, octets }
                );
            }
            if method != KeyExchangeMethod::X25519 {
                let mut off = pair.public();
                *off.last_mut().unwrap() ^= 1;
                assert_eq!(
                    pair.agree(&off).unwrap_err(),
                    KexError::InvalidPublic(method)
                );
            }
        }
    }
}
