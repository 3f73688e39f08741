//! Proposals in text: strongSwan's keywords, and its names in `list-sas`.

use std::fmt;
use std::str::FromStr;

use hitless_sa::{EspSuite, Transform};

use super::{Additional, Encryption, EspProposal, IkeProposal, Integrity, KeyExchangeMethod, Prf};

/// Why a proposal in text was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProposalError {
    Unknown(String),
    /// Two words for one kind of algorithm.
    Repeated(String),
    Missing(&'static str),
    /// AEAD ciphers carry their own integrity (RFC 5282 section 8).
    NeedlessIntegrity,
    /// In a proposal for ESP.
    NotForEsp(String),
    /// In a proposal for IKE.
    NotForIke(String),
    /// One method for two key exchanges of a proposal (RFC 9370 section 2.2.1).
    RepeatedMethod(String),
    /// `ke1_...` without a first key exchange.
    NoFirstExchange,
}

impl fmt::Display for ProposalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposalError::Unknown(word) => write!(
                f,
                "unknown algorithm `{word}`; known are aes128gcm16, aes192gcm16, aes256gcm16, aes128, aes192, aes256, \
                 chacha20poly1305, sha256, sha384, sha512, prfsha256, prfsha384, prfsha512, x25519, \
                 ecp256, ecp384, ecp521, modp2048, modp3072, modp4096, mlkem768, and these with \
                 ke1_ to ke7_ in front; for ESP also aes128gmac, aes192gmac, \
                 aes256gmac, aes128gcm16iiv, aes192gcm16iiv, aes256gcm16iiv, \
                 chacha20poly1305iiv, esn, noesn"
            ),
            ProposalError::Repeated(word) => write!(
                f,
                "`{word}` is a second choice of its kind; write one proposal for each choice"
            ),
            ProposalError::Missing(kind) => write!(f, "no {kind}; a proposal needs one"),
            ProposalError::NeedlessIntegrity => write!(
                f,
                "this cipher has its own integrity; leave the integrity algorithm out"
            ),
            ProposalError::NotForEsp(word) => write!(
                f,
                "`{word}` is not offered for ESP; use a cipher with its own integrity, such as \
                 aes128gcm16, or aes128-sha256, and optionally a key exchange and esn"
            ),
            ProposalError::RepeatedMethod(word) => write!(
                f,
                "`{word}` occurs twice; the key exchanges of a proposal must differ"
            ),
            ProposalError::NoFirstExchange => write!(
                f,
                "additional key exchanges follow a first one: x25519-ke1_mlkem768, for example"
            ),
            ProposalError::NotForIke(word) => write!(
                f,
                "`{word}` is not offered for IKE; use aes128gcm16-prfsha256-x25519, for example"
            ),
        }
    }
}

impl std::error::Error for ProposalError {}

/// Whether a proposal for IKE or ESP may have this word.
pub fn is_keyword(word: &str) -> bool {
    let parsed = Words::parse(word, esp_cipher);
    !word.contains('-') && !matches!(parsed, Err(ProposalError::Unknown(_)))
}

/// The words of one proposal, at most one of each kind.
struct Words<C> {
    encryption: Option<C>,
    integrity: Option<Integrity>,
    prf: Option<Prf>,
    key_exchange: Option<KeyExchangeMethod>,
    additional: Additional,
    esn: Option<bool>,
}

impl<C> Words<C> {
    /// What names a cipher differs between IKE and ESP.
    fn parse(text: &str, cipher: fn(&str) -> Option<C>) -> Result<Words<C>, ProposalError> {
        let mut words = Words {
            encryption: None,
            integrity: None,
            prf: None,
            key_exchange: None,
            additional: Additional::NONE,
            esn: None,
        };
        for word in text.trim().split('-') {
            let fresh = if let Some(encryption) = cipher(word) {
                words.encryption.replace(encryption).is_none()
            } else if let Some(integrity) = Integrity::from_keyword(word) {
                words.integrity.replace(integrity).is_none()
            } else if let Some(prf) = Prf::from_keyword(word) {
                words.prf.replace(prf).is_none()
            } else if let Some(method) = KeyExchangeMethod::from_keyword(word) {
                words.key_exchange.replace(method).is_none()
            } else if let Some((place, method)) = words.additional.place(word) {
                place.replace(method).is_none()
            } else {
                let esn = match word {
                    "esn" => true,
                    "noesn" => false,
                    _ if esp_cipher(word).is_some() => {
                        return Err(ProposalError::NotForIke(word.to_owned()));
                    }
                    _ => return Err(ProposalError::Unknown(word.to_owned())),
                };
                words.esn.replace(esn).is_none()
            };
            if !fresh {
                return Err(ProposalError::Repeated(word.to_owned()));
            }
        }
        words.check_methods()?;
        Ok(words)
    }

    /// RFC 9370 section 2.2.1: "the responder MUST select distinct key exchange methods".
    fn check_methods(&self) -> Result<(), ProposalError> {
        if self.key_exchange.is_none() && !self.additional.is_empty() {
            return Err(ProposalError::NoFirstExchange);
        }
        let mut seen: Vec<KeyExchangeMethod> = Vec::new();
        for method in self
            .key_exchange
            .into_iter()
            .chain(self.additional.methods())
        {
            if seen.contains(&method) {
                return Err(ProposalError::RepeatedMethod(method.keyword().to_owned()));
            }
            seen.push(method);
        }
        Ok(())
    }
}

impl Additional {
    /// The place and the method that `ke1_mlkem768` names.
    fn place(&mut self, word: &str) -> Option<(&mut Option<KeyExchangeMethod>, KeyExchangeMethod)> {
        let (number, method) = word.strip_prefix("ke")?.split_once('_')?;
        let [digit @ b'1'..=b'7'] = number.as_bytes() else {
            return None;
        };
        let method = KeyExchangeMethod::from_keyword(method)?;
        let place = self.0.get_mut(usize::from(digit - b'1'))?;
        Some((place, method))
    }
}

impl fmt::Display for Additional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.numbered()
            .try_for_each(|(n, method)| write!(f, "-ke{n}_{}", method.keyword()))
    }
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    /// `aes128gcm16-prfsha256-x25519`, `aes128-sha256-x25519` (the PRF follows the integrity).
    fn from_str(text: &str) -> Result<IkeProposal, ProposalError> {
        let words = Words::parse(text, Encryption::from_keyword)?;
        if words.esn.is_some() {
            return Err(ProposalError::Unknown("esn".to_owned()));
        }
        let encryption = words
            .encryption
            .ok_or(ProposalError::Missing("encryption algorithm"))?;
        match (encryption.is_aead(), words.integrity) {
            (true, Some(_)) => return Err(ProposalError::NeedlessIntegrity),
            (false, None) => return Err(ProposalError::Missing("integrity algorithm")),
            _ => {}
        }
        Ok(IkeProposal {
            encryption,
            integrity: words.integrity,
            prf: words
                .prf
                .or(words.integrity.map(Integrity::prf))
                .ok_or(ProposalError::Missing("PRF, such as prfsha256"))?,
            key_exchange: words
                .key_exchange
                .ok_or(ProposalError::Missing("key exchange, such as x25519"))?,
            additional: words.additional,
        })
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    /// `aes128gcm16`, `aes128gcm16-x25519-esn`, `aes128-sha256`. Like strongSwan, 32-bit sequence
    /// numbers unless `esn` is said.
    fn from_str(text: &str) -> Result<EspProposal, ProposalError> {
        let words = Words::parse(text, esp_cipher)?;
        let cipher = words
            .encryption
            .ok_or(ProposalError::Missing("encryption algorithm"))?;
        let suite = match (cipher.integrity_key_length() > 0, words.integrity) {
            (false, Some(_)) => return Err(ProposalError::NeedlessIntegrity),
            (true, None) => return Err(ProposalError::Missing("integrity algorithm")),
            (true, Some(integrity)) => EspSuite::new(integrity.with_cbc(), cipher.key_length()),
            (false, None) => Some(cipher),
        };
        let suite = suite.ok_or(ProposalError::Missing("cipher with such a key"))?;
        if let Some(prf) = words.prf {
            return Err(ProposalError::NotForEsp(prf.keyword().to_owned()));
        }
        Ok(EspProposal {
            suite,
            key_exchange: words.key_exchange,
            additional: words.additional,
            esn: words.esn.unwrap_or(false),
        })
    }
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encryption.keyword())?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{}", integrity.keyword())?;
        }
        write!(f, "-{}-{}", self.prf.keyword(), self.key_exchange.keyword())?;
        write!(f, "{}", self.additional)
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.suite.keyword())?;
        if let Some(method) = self.key_exchange {
            write!(f, "-{}{}", method.keyword(), self.additional)?;
        }
        f.write_str(if self.esn { "-esn" } else { "-noesn" })
    }
}

impl IkeProposal {
    /// As strongSwan prints it: `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519`.
    pub fn name(&self) -> String {
        let mut name = self.encryption.name().to_owned();
        if let Some(integrity) = self.integrity {
            name.push('/');
            name.push_str(integrity.name());
        }
        name = format!("{name}/{}/{}", self.prf.name(), self.key_exchange.name());
        for (n, method) in self.additional.numbered() {
            name.push_str(&format!("/KE{n}_{}", method.name()));
        }
        name
    }
}

/// The suite that a cipher's keyword begins; of AES-CBC it is the key's length alone that counts, until
/// the integrity is known.
fn esp_cipher(word: &str) -> Option<EspSuite> {
    let (transform, key_length) = match word {
        "aes128gcm16" | "aes128gcm128" | "aes128gcm" => (Transform::AesGcm16, 16),
        "aes192gcm16" | "aes192gcm128" | "aes192gcm" => (Transform::AesGcm16, 24),
        "aes256gcm16" | "aes256gcm128" | "aes256gcm" => (Transform::AesGcm16, 32),
        "chacha20poly1305" => (Transform::ChaCha20Poly1305, 32),
        "aes128gmac" => (Transform::AesGmac, 16),
        "aes192gmac" => (Transform::AesGmac, 24),
        "aes256gmac" => (Transform::AesGmac, 32),
        "aes128" | "aes" => (Transform::AesCbcHmacSha256, 16),
        "aes192" => (Transform::AesCbcHmacSha256, 24),
        "aes256" => (Transform::AesCbcHmacSha256, 32),
        "aes128gcm16iiv" => (Transform::AesGcm16ImplicitIv, 16),
        "aes192gcm16iiv" => (Transform::AesGcm16ImplicitIv, 24),
        "aes256gcm16iiv" => (Transform::AesGcm16ImplicitIv, 32),
        "chacha20poly1305iiv" => (Transform::ChaCha20Poly1305ImplicitIv, 32),
        _ => return None,
    };
    EspSuite::new(transform, key_length)
}

impl Encryption {
    fn from_keyword(word: &str) -> Option<Encryption> {
        Some(match word {
            "aes128gcm16" | "aes128gcm128" | "aes128gcm" => Encryption::Aes128Gcm16,
            "aes192gcm16" | "aes192gcm128" | "aes192gcm" => Encryption::Aes192Gcm16,
            "aes256gcm16" | "aes256gcm128" | "aes256gcm" => Encryption::Aes256Gcm16,
            "chacha20poly1305" => Encryption::ChaCha20Poly1305,
            "aes128" | "aes" => Encryption::Aes128Cbc,
            "aes192" => Encryption::Aes192Cbc,
            "aes256" => Encryption::Aes256Cbc,
            _ => return None,
        })
    }

    pub const fn keyword(self) -> &'static str {
        match self {
            Encryption::Aes128Gcm16 => "aes128gcm16",
            Encryption::Aes192Gcm16 => "aes192gcm16",
            Encryption::Aes256Gcm16 => "aes256gcm16",
            Encryption::ChaCha20Poly1305 => "chacha20poly1305",
            Encryption::Aes128Cbc => "aes128",
            Encryption::Aes192Cbc => "aes192",
            Encryption::Aes256Cbc => "aes256",
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Encryption::Aes128Gcm16 => "AES_GCM_16-128",
            Encryption::Aes192Gcm16 => "AES_GCM_16-192",
            Encryption::Aes256Gcm16 => "AES_GCM_16-256",
            Encryption::ChaCha20Poly1305 => "CHACHA20_POLY1305",
            Encryption::Aes128Cbc => "AES_CBC-128",
            Encryption::Aes192Cbc => "AES_CBC-192",
            Encryption::Aes256Cbc => "AES_CBC-256",
        }
    }

    pub const fn is_aead(self) -> bool {
        matches!(
            self,
            Encryption::Aes128Gcm16
                | Encryption::Aes192Gcm16
                | Encryption::Aes256Gcm16
                | Encryption::ChaCha20Poly1305
        )
    }
}

impl Integrity {
    fn from_keyword(word: &str) -> Option<Integrity> {
        Some(match word {
            "sha256" | "sha2_256" => Integrity::HmacSha256_128,
            "sha384" | "sha2_384" => Integrity::HmacSha384_192,
            "sha512" | "sha2_512" => Integrity::HmacSha512_256,
            _ => return None,
        })
    }

    pub const fn keyword(self) -> &'static str {
        match self {
            Integrity::HmacSha256_128 => "sha256",
            Integrity::HmacSha384_192 => "sha384",
            Integrity::HmacSha512_256 => "sha512",
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Integrity::HmacSha256_128 => "HMAC_SHA2_256_128",
            Integrity::HmacSha384_192 => "HMAC_SHA2_384_192",
            Integrity::HmacSha512_256 => "HMAC_SHA2_512_256",
        }
    }

    /// The ESP transform of AES-CBC with it.
    const fn with_cbc(self) -> Transform {
        match self {
            Integrity::HmacSha256_128 => Transform::AesCbcHmacSha256,
            Integrity::HmacSha384_192 => Transform::AesCbcHmacSha384,
            Integrity::HmacSha512_256 => Transform::AesCbcHmacSha512,
        }
    }

    /// The PRF over the same hash function.
    pub const fn prf(self) -> Prf {
        match self {
            Integrity::HmacSha256_128 => Prf::HmacSha256,
            Integrity::HmacSha384_192 => Prf::HmacSha384,
            Integrity::HmacSha512_256 => Prf::HmacSha512,
        }
    }
}

impl Prf {
    fn from_keyword(word: &str) -> Option<Prf> {
        Some(match word {
            "prfsha256" => Prf::HmacSha256,
            "prfsha384" => Prf::HmacSha384,
            "prfsha512" => Prf::HmacSha512,
            _ => return None,
        })
    }

    pub const fn keyword(self) -> &'static str {
        match self {
            Prf::HmacSha256 => "prfsha256",
            Prf::HmacSha384 => "prfsha384",
            Prf::HmacSha512 => "prfsha512",
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Prf::HmacSha256 => "PRF_HMAC_SHA2_256",
            Prf::HmacSha384 => "PRF_HMAC_SHA2_384",
            Prf::HmacSha512 => "PRF_HMAC_SHA2_512",
        }
    }
}

impl KeyExchangeMethod {
    fn from_keyword(word: &str) -> Option<KeyExchangeMethod> {
        Some(match word {
            "x25519" | "curve25519" => KeyExchangeMethod::X25519,
            "ecp256" => KeyExchangeMethod::Ecp256,
            "ecp384" => KeyExchangeMethod::Ecp384,
            "ecp521" => KeyExchangeMethod::Ecp521,
            "modp2048" => KeyExchangeMethod::Modp2048,
            "modp3072" => KeyExchangeMethod::Modp3072,
            "modp4096" => KeyExchangeMethod::Modp4096,
            "mlkem768" => KeyExchangeMethod::MlKem768,
            _ => return None,
        })
    }

    pub const fn keyword(self) -> &'static str {
        match self {
            KeyExchangeMethod::X25519 => "x25519",
            KeyExchangeMethod::Ecp256 => "ecp256",
            KeyExchangeMethod::Ecp384 => "ecp384",
            KeyExchangeMethod::Ecp521 => "ecp521",
            KeyExchangeMethod::Modp2048 => "modp2048",
            KeyExchangeMethod::Modp3072 => "modp3072",
            KeyExchangeMethod::Modp4096 => "modp4096",
            KeyExchangeMethod::MlKem768 => "mlkem768",
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            KeyExchangeMethod::X25519 => "CURVE_25519",
            KeyExchangeMethod::Ecp256 => "ECP_256",
            KeyExchangeMethod::Ecp384 => "ECP_384",
            KeyExchangeMethod::Ecp521 => "ECP_521",
            KeyExchangeMethod::Modp2048 => "MODP_2048",
            KeyExchangeMethod::Modp3072 => "MODP_3072",
            KeyExchangeMethod::Modp4096 => "MODP_4096",
            KeyExchangeMethod::MlKem768 => "ML_KEM_768",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ike_proposals_print_and_parse() {
        for (text, printed, name) in [
            (
                "aes192gcm-prfsha384-x25519",
                "aes192gcm16-prfsha384-x25519",
                "AES_GCM_16-192/PRF_HMAC_SHA2_384/CURVE_25519",
            ),
            (
                "aes192-sha256-ecp256",
                "aes192-sha256-prfsha256-ecp256",
                "AES_CBC-192/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256",
            ),
            (
                "aes128gcm16-prfsha256-x25519",
                "aes128gcm16-prfsha256-x25519",
                "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519",
            ),
            (
                "aes256gcm128-prfsha512-ecp384",
                "aes256gcm16-prfsha512-ecp384",
                "AES_GCM_16-256/PRF_HMAC_SHA2_512/ECP_384",
            ),
            (
                "aes128-sha256-curve25519",
                "aes128-sha256-prfsha256-x25519",
                "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519",
            ),
            (
                " ecp256-sha2_384-aes256 ",
                "aes256-sha384-prfsha384-ecp256",
                "AES_CBC-256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/ECP_256",
            ),
            (
                "chacha20poly1305-prfsha256-modp2048-ke1_mlkem768",
                "chacha20poly1305-prfsha256-modp2048-ke1_mlkem768",
                "CHACHA20_POLY1305/PRF_HMAC_SHA2_256/MODP_2048/KE1_ML_KEM_768",
            ),
            (
                "aes128-sha512-prfsha256-ecp256",
                "aes128-sha512-prfsha256-ecp256",
                "AES_CBC-128/HMAC_SHA2_512_256/PRF_HMAC_SHA2_256/ECP_256",
            ),
        ] {
            let proposal: IkeProposal = text.parse().unwrap();
            assert_eq!(proposal.to_string(), printed);
            assert_eq!(proposal.name(), name);
            assert_eq!(printed.parse(), Ok(proposal));
        }
    }

    #[test]
    fn esp_proposals_print_and_parse() {
        for (text, printed) in [
            ("aes128gcm16", "aes128gcm16-noesn"),
            ("aes256gcm16-esn", "aes256gcm16-esn"),
            ("aes128gcm16-x25519-esn", "aes128gcm16-x25519-esn"),
            ("noesn-ecp256-aes128gcm", "aes128gcm16-ecp256-noesn"),
            ("aes192gcm-esn", "aes192gcm16-esn"),
            ("chacha20poly1305-x25519", "chacha20poly1305-x25519-noesn"),
            ("aes256gmac", "aes256gmac-noesn"),
            ("aes-sha256", "aes128-sha256-noesn"),
            ("sha2_256-aes192-esn", "aes192-sha256-esn"),
            ("aes256-sha256-x25519-esn", "aes256-sha256-x25519-esn"),
            ("sha384-aes-esn", "aes128-sha384-esn"),
            ("aes256-sha2_512-modp2048", "aes256-sha512-modp2048-noesn"),
            (
                "aes128gcm16-x25519-ke1_mlkem768-esn",
                "aes128gcm16-x25519-ke1_mlkem768-esn",
            ),
            ("aes128gcm16iiv-esn", "aes128gcm16iiv-esn"),
            ("chacha20poly1305iiv", "chacha20poly1305iiv-noesn"),
        ] {
            let proposal: EspProposal = text.parse().unwrap();
            assert_eq!(proposal.to_string(), printed);
            assert_eq!(printed.parse(), Ok(proposal));
        }
    }

    #[test]
    fn every_suite_is_found_by_its_keyword() {
        for &suite in EspSuite::ALL {
            let proposal: EspProposal = suite.keyword().parse().unwrap();
            assert_eq!(proposal.suite, suite);
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let ike = |text: &str| text.parse::<IkeProposal>().unwrap_err().to_string();
        let esp = |text: &str| text.parse::<EspProposal>().unwrap_err().to_string();
        for (error, part) in [
            (ike(""), "unknown algorithm ``"),
            (ike("3des-sha1-modp1024"), "unknown algorithm `3des`"),
            (ike("aes128gcm16-prfsha256-x25519-"), "unknown algorithm ``"),
            (ike("aes128gcm16-x25519"), "no PRF"),
            (ike("aes128gcm16-prfsha256"), "no key exchange"),
            (ike("prfsha256-x25519"), "no encryption"),
            (ike("aes128-prfsha256-x25519"), "no integrity"),
            (ike("aes128gcm16-sha256-x25519"), "its own integrity"),
            (
                ike("aes128gcm16-aes256gcm16-prfsha256-x25519"),
                "`aes256gcm16` is a second",
            ),
            (
                ike("aes128gcm16-prfsha256-x25519-esn"),
                "unknown algorithm `esn`",
            ),
            (esp("aes128"), "no integrity"),
            (esp("aes128-prfsha512"), "no integrity"),
            (
                esp("aes128-sha512-prfsha512"),
                "`prfsha512` is not offered for ESP",
            ),
            (esp("null-sha256"), "unknown algorithm `null`"),
            (esp("chacha20poly1305-sha256"), "its own integrity"),
            (ike("aes128gmac-prfsha256-x25519"), "not offered for IKE"),
            (
                ike("aes128gcm16-prfsha256-x25519-ke1_x25519"),
                "`x25519` occurs twice",
            ),
            (
                ike("aes128gcm16-prfsha256-x25519-ke1_ecp256-ke1_ecp384"),
                "`ke1_ecp384` is a second",
            ),
            (
                ike("aes128gcm16-prfsha256-x25519-ke8_ecp256"),
                "unknown algorithm `ke8_ecp256`",
            ),
            (esp("aes128gcm16-ke1_mlkem768"), "follow a first one"),
            (esp("aes128gcm16-sha256"), "its own integrity"),
            (
                esp("aes128gcm16-prfsha256"),
                "`prfsha256` is not offered for ESP",
            ),
            (esp("aes128gcm16-esn-noesn"), "`noesn` is a second"),
            (esp("x25519"), "no encryption"),
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
