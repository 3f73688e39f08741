//! Keys of IKE SAs and Child SAs (RFC 7296 sections 2.14, 2.17 and 2.18).

use std::fmt;

use hitless_sa::{EspSuite, IkeSpi, KeyMaterial};
use zeroize::Zeroizing;

use super::crypto::prf::{prf, prf_plus};
use super::crypto::{KeyLengthError, SkKeys};
use super::proposal::{IkeProposal, Integrity, Prf};

/// The seven secrets of an IKE SA. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct IkeKeys {
    proposal: IkeProposal,
    /// SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr.
    octets: Zeroizing<Vec<u8>>,
}

/// What enters the derivation beside the shared secret.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub initiator_nonce: &'a [u8],
    pub responder_nonce: &'a [u8],
    pub initiator_spi: IkeSpi,
    pub responder_spi: IkeSpi,
}

/// A role in an IKE SA: the original initiator's, or the responder's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Initiator,
    Responder,
}

impl Side {
    /// The side of who initiated, if `initiator`.
    pub const fn of_initiator(initiator: bool) -> Side {
        if initiator {
            Side::Initiator
        } else {
            Side::Responder
        }
    }

    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Initiator => Side::Responder,
            Side::Responder => Side::Initiator,
        }
    }
}

impl IkeKeys {
    /// The keys of a first IKE SA: SKEYSEED = prf(Ni | Nr, g^ir) (RFC 7296 section 2.14).
    pub fn derive(proposal: &IkeProposal, inputs: &Inputs<'_>, shared: &[u8]) -> IkeKeys {
        let mut nonces = inputs.initiator_nonce.to_vec();
        nonces.extend(inputs.responder_nonce);
        let seed = prf(proposal.prf, &nonces, &[shared]);
        IkeKeys::expand(proposal, inputs, &seed)
    }

    /// The keys of the IKE SA that replaces this one: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni |
    /// Nr) with the old PRF, all the rest with the new (RFC 7296 section 2.18). With additional key
    /// exchanges their secrets follow the nonces: | SK(1) | ... | SK(n) (RFC 9370 section 2.2.4).
    pub fn rekey(
        &self,
        proposal: &IkeProposal,
        inputs: &Inputs<'_>,
        shared: &[u8],
        additional: &[u8],
    ) -> IkeKeys {
        let (ni, nr) = (inputs.initiator_nonce, inputs.responder_nonce);
        let seed = prf(
            self.proposal.prf,
            self.sk_d(),
            &[shared, ni, nr, additional],
        );
        IkeKeys::expand(proposal, inputs, &seed)
    }

    /// The keys after an additional key exchange in IKE_INTERMEDIATE: SKEYSEED(n) = prf(SK_d(n-1),
    /// SK(n) | Ni | Nr) (RFC 9370 section 2.2.2), which is how a rekeying derives them.
    pub fn follow(&self, inputs: &Inputs<'_>, shared: &[u8]) -> IkeKeys {
        self.rekey(&self.proposal, inputs, shared, &[])
    }

    /// The keys of a resumed IKE SA: SKEYSEED = prf(SK_d (old), "Resumption" | Ni | Nr), with the
    /// PRF that was negotiated then (RFC 5723 section 5.1).
    pub fn resume(proposal: &IkeProposal, inputs: &Inputs<'_>, sk_d: &[u8]) -> IkeKeys {
        let (ni, nr) = (inputs.initiator_nonce, inputs.responder_nonce);
        let seed = prf(proposal.prf, sk_d, &[b"Resumption", ni, nr]);
        IkeKeys::expand(proposal, inputs, &seed)
    }

    /// The same keys after a PPK was mixed in: SK_d, SK_pi and SK_pr become prf+(PPK, SK_d) and so
    /// on; what protects messages stays (RFC 8784 section 3).
    #[must_use]
    pub fn with_ppk(&self, ppk: &[u8]) -> IkeKeys {
        let mut octets = Zeroizing::new(Vec::with_capacity(self.octets.len()));
        for index in 0..lengths(&self.proposal).len() {
            let part = self.part(index);
            match index {
                0 | 5 | 6 => {
                    octets.extend_from_slice(&prf_plus(
                        self.proposal.prf,
                        ppk,
                        &[part],
                        part.len(),
                    ));
                }
                _ => octets.extend_from_slice(part),
            }
        }
        IkeKeys {
            proposal: self.proposal,
            octets,
        }
    }

    fn expand(proposal: &IkeProposal, inputs: &Inputs<'_>, seed: &[u8]) -> IkeKeys {
        let octets = prf_plus(
            proposal.prf,
            seed,
            &[
                inputs.initiator_nonce,
                inputs.responder_nonce,
                &inputs.initiator_spi.0.to_be_bytes(),
                &inputs.responder_spi.0.to_be_bytes(),
            ],
            total_length(proposal),
        );
        IkeKeys {
            proposal: *proposal,
            octets,
        }
    }

    /// All secrets, for replication only.
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        self.octets.clone()
    }

    /// The keys that were exported, for the same proposal.
    pub fn import(proposal: &IkeProposal, octets: &[u8]) -> Result<IkeKeys, KeyLengthError> {
        let expected = total_length(proposal);
        if octets.len() != expected {
            return Err(KeyLengthError {
                expected,
                actual: octets.len(),
            });
        }
        Ok(IkeKeys {
            proposal: *proposal,
            octets: Zeroizing::new(octets.to_vec()),
        })
    }

    pub fn proposal(&self) -> &IkeProposal {
        &self.proposal
    }

    /// SK_d, from which other keys derive.
    pub fn sk_d(&self) -> &[u8] {
        self.part(0)
    }

    /// SK_pi or SK_pr, which AUTH uses.
    pub fn sk_p(&self, side: Side) -> &[u8] {
        self.part(match side {
            Side::Initiator => 5,
            Side::Responder => 6,
        })
    }

    /// SK_ei or SK_er, with its salt.
    pub fn sk_e(&self, sender: Side) -> &[u8] {
        self.part(match sender {
            Side::Initiator => 3,
            Side::Responder => 4,
        })
    }

    /// SK_ai or SK_ar; empty for an AEAD.
    pub fn sk_a(&self, sender: Side) -> &[u8] {
        self.part(match sender {
            Side::Initiator => 1,
            Side::Responder => 2,
        })
    }

    /// What protects the messages that `sender` sends.
    pub fn sk_keys(&self, sender: Side) -> Result<SkKeys, KeyLengthError> {
        SkKeys::new(
            self.proposal.encryption,
            self.proposal.integrity,
            self.sk_e(sender),
            self.sk_a(sender),
        )
    }

    /// Keys of a Child SA: see [`child_keys`].
    pub fn child_keys(
        &self,
        shared: Option<&[u8]>,
        nonces: (&[u8], &[u8]),
        additional: &[u8],
        suite: EspSuite,
    ) -> (KeyMaterial, KeyMaterial) {
        let prf = self.proposal.prf;
        child_keys(prf, self.sk_d(), shared, nonces, additional, suite)
    }

    fn part(&self, index: usize) -> &[u8] {
        let lengths = lengths(&self.proposal);
        let start: usize = lengths.iter().take(index).sum();
        let length = lengths.get(index).copied().unwrap_or(0);
        self.octets.get(start..start + length).unwrap_or_default()
    }
}

impl fmt::Debug for IkeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeKeys({}, redacted)", self.proposal)
    }
}

/// Lengths of the seven secrets, in the order in which they are taken (RFC 7296 section 2.14).
fn lengths(proposal: &IkeProposal) -> [usize; 7] {
    let prf = proposal.prf.length();
    let integrity = proposal.integrity.map_or(0, Integrity::key_length);
    let encryption = proposal.encryption.key_material_length();
    [prf, integrity, integrity, encryption, encryption, prf, prf]
}

fn total_length(proposal: &IkeProposal) -> usize {
    lengths(proposal).iter().sum()
}

/// KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr), cut into the keys for packets from the initiator
/// of this exchange to its responder, then for the other direction (RFC 7296 section 2.17). The
/// secrets of additional key exchanges follow: | SK(1) | ... | SK(n) (RFC 9370 section 2.2.4).
pub fn child_keys(
    prf: Prf,
    sk_d: &[u8],
    shared: Option<&[u8]>,
    (initiator_nonce, responder_nonce): (&[u8], &[u8]),
    additional: &[u8],
    suite: EspSuite,
) -> (KeyMaterial, KeyMaterial) {
    let length = suite.key_material_length();
    let shared = shared.unwrap_or_default();
    let seed = [shared, initiator_nonce, responder_nonce, additional];
    let octets = prf_plus(prf, sk_d, &seed, 2 * length);
    let (to_responder, to_initiator) = octets.split_at(length);
    (
        KeyMaterial::new(to_responder),
        KeyMaterial::new(to_initiator),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::crypto::IvSource;
    use crate::ike::message::{Exchange, Header};
    use crate::ike::octets;
    use hitless_sa::{Entropy, MessageId};

    // All expected octets were computed with Python's `hmac` from the formulas in the RFC.
    const FIRST: &str = "512635d78e52c311d7ca0b71c4b8a61a69948e0918900c7998b4a6318fbd3bcc8533e4fbbdcf\
         fa1e32119f7e4234b67a2b888915e715a22202e31ea484d9380944cb6c2b18c01083d62e246f\
         9523ab8bb89339a68e1a8d8a74b1ac3ade8b89db194bde5e7d6df18502ee078bcc9d6cbb2283\
         60ecf287282fbf678da4f5f0f72fa6cbeb7f0d2c32ec";

    fn nonces() -> (Vec<u8>, Vec<u8>) {
        ((0..32).collect(), (100..132).collect())
    }

    fn inputs<'a>(ni: &'a [u8], nr: &'a [u8]) -> Inputs<'a> {
        Inputs {
            initiator_nonce: ni,
            responder_nonce: nr,
            initiator_spi: IkeSpi(0x0102030405060708),
            responder_spi: IkeSpi(0x1112131415161718),
        }
    }

    fn first() -> IkeKeys {
        let (ni, nr) = nonces();
        let proposal = "aes128gcm16-prfsha256-x25519".parse().unwrap();
        IkeKeys::derive(&proposal, &inputs(&ni, &nr), &[0x5a; 32])
    }

    /// RFC 7296 section 2.14, RFC 5282 section 7.1: no SK_a with an AEAD cipher.
    #[test]
    fn keys_of_a_first_ike_sa() {
        let (keys, expected) = (first(), octets(FIRST));
        assert_eq!(*keys.export(), expected);
        assert_eq!(keys.sk_d(), &expected[..32]);
        assert_eq!(keys.part(3), &expected[32..52]);
        assert_eq!(keys.part(4), &expected[52..72]);
        assert_eq!(keys.sk_p(Side::Initiator), &expected[72..104]);
        assert_eq!(keys.sk_p(Side::Responder), &expected[104..]);
        assert!(keys.part(1).is_empty() && keys.part(2).is_empty());
    }

    /// RFC 7296 section 2.18: the old PRF makes SKEYSEED, the new one the keys.
    #[test]
    fn keys_of_a_rekeyed_ike_sa_with_another_prf() {
        let expected = octets(
            "832109d6f37d107450c9633e8c78ce71b712305f2170c8914ae6e0163b7060ce05c3108cfe01\
             5e3218dd7ad66b9ee4ea62157cde4aaf0c672de1a22b983ecc3069183e1d074ef5821fd6242d\
             ff56d798b5a1d8e1c43e594d353818b9903ab7a3e540b39b6edcd86427939c6bb5a8b6f4e047\
             aafe100012f77d2615ff1456a4f4fa0adb62094dda182293ab89a478a976b346bb23221898a5\
             b29fa6a5108ab33449b5fda75769db7ff2a1966223ec2c8759ee1a6b094b2b15bb7eab722aa0\
             34186a2fd0ac0af50030f8ab204cedd22f2f02c0adc5f0a1c7b19ed63d5b1fcfd0b9eec58622\
             79fe167b93c31c2e838fc580",
        );
        let (ni, nr) = nonces();
        let proposal = "aes128-sha256-prfsha384-ecp256".parse().unwrap();
        let swapped = Inputs {
            initiator_spi: IkeSpi(0x1112131415161718),
            responder_spi: IkeSpi(0x0102030405060708),
            ..inputs(&ni, &nr)
        };
        let keys = first().rekey(&proposal, &swapped, &[0x5a; 32], &[]);
        assert_eq!(*keys.export(), expected);
        assert_eq!(keys.part(1), &expected[48..80]);
        assert_eq!(keys.part(2), &expected[80..112]);
        assert_eq!(keys.part(3), &expected[112..128]);
        assert_eq!(keys.part(4), &expected[128..144]);
        assert_eq!(keys.sk_p(Side::Responder), &expected[192..]);
    }

    /// RFC 7296 section 2.17: initiator to responder first; a new shared secret goes in front.
    #[test]
    fn keys_of_child_sas() {
        let (ni, nr) = nonces();
        let (out, back) = first().child_keys(None, (&ni, &nr), &[], EspSuite::Aes128Gcm16);
        let expected = octets(
            "0261c52703b9f146daebe8ac89521ec9055bd5bf8f0b4903a0c86a99da858af0f3edea393f8fcfa9",
        );
        assert_eq!([out.expose(), back.expose()].concat(), expected);
        assert_eq!(out.expose().len(), 20);
        // In each direction "the encryption key (if any) MUST be taken from the first bits and the
        // integrity key (if any) MUST be taken from the remaining bits".
        let suite = EspSuite::Aes128CbcHmacSha256;
        let (out, back) = first().child_keys(None, (&ni, &nr), &[], suite);
        let parts = out.parts(suite).unwrap();
        assert_eq!(*parts.key, expected[..16]);
        assert_eq!(parts.integrity[..24], expected[16..]);
        assert_eq!((out.expose().len(), back.expose().len()), (48, 48));

        let shared = [0x5a; 32];
        let (out, back) = first().child_keys(Some(&shared), (&ni, &nr), &[], EspSuite::Aes256Gcm16);
        let expected = octets(
            "6b5ac4c286d1eb410e7e4908a559ecf487d03f07332a2c6273c323deb9eb38e1a1d853447b15\
             de597ac8cb924208d6ad70369e01f6aa6631bc30faefde81719cf36fd30e13c75b73",
        );
        assert_eq!([out.expose(), back.expose()].concat(), expected);
        assert_eq!(out.expose().len(), 36);
    }

    #[test]
    fn exported_keys_come_back_whole_or_not_at_all() {
        let keys = first();
        let proposal = *keys.proposal();
        assert_eq!(IkeKeys::import(&proposal, &keys.export()), Ok(keys.clone()));
        for length in 0..keys.export().len() {
            assert!(IkeKeys::import(&proposal, &keys.export()[..length]).is_err());
        }
        let other = "aes256gcm16-prfsha256-x25519".parse().unwrap();
        assert!(IkeKeys::import(&other, &keys.export()).is_err());
    }

    /// SK_ei and SK_ai protect what the original initiator sends, SK_er and SK_ar the rest.
    #[test]
    fn each_side_seals_with_its_own_keys() {
        let (ni, nr) = nonces();
        for words in ["aes256gcm16-prfsha256-x25519", "aes256-sha512-x25519"] {
            let proposal = words.parse().unwrap();
            let keys = IkeKeys::derive(&proposal, &inputs(&ni, &nr), &[0x5a; 32]);
            let parts = |a, e| {
                let (sk_a, sk_e) = (keys.part(a), keys.part(e));
                SkKeys::new(proposal.encryption, proposal.integrity, sk_e, sk_a).unwrap()
            };
            let sealing = [
                keys.sk_keys(Side::Initiator).unwrap(),
                keys.sk_keys(Side::Responder).unwrap(),
            ];
            let opening = [parts(1, 3), parts(2, 4)];
            for (a, sealing) in sealing.iter().enumerate() {
                let message = sealing.seal(&HEADER, &[], iv(&mut Zeros));
                for (b, opening) in opening.iter().enumerate() {
                    assert_eq!(opening.open(&message).is_ok(), a == b);
                }
            }
        }
    }

    struct Zeros;

    impl Entropy for Zeros {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    fn iv(entropy: &mut Zeros) -> IvSource<'_> {
        IvSource {
            unique: [0; 8],
            entropy,
        }
    }

    const HEADER: Header = Header {
        initiator_spi: IkeSpi(1),
        responder_spi: IkeSpi(2),
        exchange: Exchange::Informational,
        initiator: true,
        response: false,
        message_id: MessageId(0),
    };

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(
            format!("{:?}", first()),
            "IkeKeys(aes128gcm16-prfsha256-x25519, redacted)"
        );
        let sealing = first().sk_keys(Side::Initiator).unwrap();
        assert_eq!(format!("{sealing:?}"), "SkKeys(redacted)");
    }
}
