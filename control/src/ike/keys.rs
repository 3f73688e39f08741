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
    /// Nr) with the old PRF, all the rest with the new (RFC 7296 section 2.18).
    pub fn rekey(&self, proposal: &IkeProposal, inputs: &Inputs<'_>, shared: &[u8]) -> IkeKeys {
        let seed = prf(
            self.proposal.prf,
            self.sk_d(),
            &[shared, inputs.initiator_nonce, inputs.responder_nonce],
        );
        IkeKeys::expand(proposal, inputs, &seed)
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

    /// What protects the messages that `sender` sends.
    pub fn sk_keys(&self, sender: Side) -> Result<SkKeys, KeyLengthError> {
        let (sk_a, sk_e) = match sender {
            Side::Initiator => (self.part(1), self.part(3)),
            Side::Responder => (self.part(2), self.part(4)),
        };
        SkKeys::new(
            self.proposal.encryption,
            self.proposal.integrity,
            sk_e,
            sk_a,
        )
    }

    /// Keys of a Child SA: see [`child_keys`].
    pub fn child_keys(
        &self,
        shared: Option<&[u8]>,
        initiator_nonce: &[u8],
        responder_nonce: &[u8],
        suite: EspSuite,
    ) -> (KeyMaterial, KeyMaterial) {
        let prf = self.proposal.prf;
        child_keys(
            prf,
            self.sk_d(),
            shared,
            initiator_nonce,
            responder_nonce,
            suite,
        )
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
/// of this exchange to its responder, then for the other direction (RFC 7296 section 2.17).
pub fn child_keys(
    prf: Prf,
    sk_d: &[u8],
    shared: Option<&[u8]>,
    initiator_nonce: &[u8],
    responder_nonce: &[u8],
    suite: EspSuite,
) -> (KeyMaterial, KeyMaterial) {
    let length = suite.key_material_length();
    let seed = [shared.unwrap_or_default(), initiator_nonce, responder_nonce];
    let octets = prf_plus(prf, sk_d, &seed, 2 * length);
    let (to_responder, to_initiator) = octets.split_at(length);
    (
        KeyMaterial::new(to_responder),
        KeyMaterial::new(to_initiator),
    )
}
