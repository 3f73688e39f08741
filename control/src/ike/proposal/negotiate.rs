//! Proposals on the wire and the choice among them (RFC 7296 sections 2.7 and 3.3).
//!
//! We offer each of ours as one proposal with one transform of each kind, so that a choice is
//! always one of ours. A peer may offer many transforms of a kind in one proposal.

use hitless_sa::{EspSuite, IkeSpi, Spi};

use super::{Encryption, EspProposal, IkeProposal, Integrity, KeyExchangeMethod, Prf};
use crate::ike::message::{Proposal, Protocol, Transform};

// Transform types (RFC 7296 section 3.3.2).
const ENCRYPTION: u8 = 1;
const PRF: u8 = 2;
const INTEGRITY: u8 = 3;
const KEY_EXCHANGE: u8 = 4;
const EXTENDED_SEQUENCE_NUMBERS: u8 = 5;

const AES_CBC: u16 = 12;
const AES_GCM_16: u16 = 20;
const NONE: u16 = 0;

/// Which exchange negotiates a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// IKE_AUTH: no key exchange of its own (RFC 7296 section 1.2: the SA payload "cannot contain
    /// Transform Type 4 with any value other than NONE").
    First,
    /// CREATE_CHILD_SA.
    Create,
}

impl KeyExchangeMethod {
    /// The number in KE payloads, transforms and INVALID_KE_PAYLOAD.
    pub const fn number(self) -> u16 {
        match self {
            KeyExchangeMethod::Ecp256 => 19,
            KeyExchangeMethod::Ecp384 => 20,
            KeyExchangeMethod::X25519 => 31,
        }
    }

    pub const fn from_number(number: u16) -> Option<KeyExchangeMethod> {
        Some(match number {
            19 => KeyExchangeMethod::Ecp256,
            20 => KeyExchangeMethod::Ecp384,
            31 => KeyExchangeMethod::X25519,
            _ => return None,
        })
    }
}

impl IkeProposal {
    pub fn to_transforms(&self) -> Vec<Transform> {
        let (cipher, bits) = match self.encryption {
            Encryption::Aes128Gcm16 => (AES_GCM_16, 128),
            Encryption::Aes256Gcm16 => (AES_GCM_16, 256),
            Encryption::Aes128Cbc => (AES_CBC, 128),
            Encryption::Aes256Cbc => (AES_CBC, 256),
        };
        let prf = match self.prf {
            Prf::HmacSha256 => 5,
            Prf::HmacSha384 => 6,
            Prf::HmacSha512 => 7,
        };
        let integrity = self.integrity.map(|integrity| match integrity {
            Integrity::HmacSha256_128 => 12,
            Integrity::HmacSha384_192 => 13,
            Integrity::HmacSha512_256 => 14,
        });
        let mut transforms = vec![Transform::new(ENCRYPTION, cipher, Some(bits))];
        transforms.extend(integrity.map(|id| Transform::new(INTEGRITY, id, None)));
        transforms.push(Transform::new(PRF, prf, None));
        transforms.push(Transform::new(
            KEY_EXCHANGE,
            self.key_exchange.number(),
            None,
        ));
        transforms
    }

    /// One proposal of an SA payload. The SPI is given in a rekey only.
    pub fn to_proposal(&self, number: u8, spi: Option<IkeSpi>) -> Proposal {
        Proposal {
            number,
            protocol: Protocol::Ike,
            spi: spi.map_or_else(Vec::new, |spi| spi.0.to_be_bytes().to_vec()),
            transforms: self.to_transforms(),
        }
    }

    /// The SA payload's proposals, numbered from one.
    pub fn offer(ours: &[IkeProposal], spi: Option<IkeSpi>) -> Vec<Proposal> {
        numbered(ours, |number, proposal| proposal.to_proposal(number, spi))
    }

    fn is_in(&self, theirs: &Proposal) -> bool {
        theirs.protocol == Protocol::Ike && includes(theirs, &self.to_transforms())
    }
}

impl EspProposal {
    pub fn to_transforms(&self, ask: Ask) -> Vec<Transform> {
        let bits = match self.suite {
            EspSuite::Aes128Gcm16 => 128,
            EspSuite::Aes256Gcm16 => 256,
        };
        let mut transforms = vec![Transform::new(ENCRYPTION, AES_GCM_16, Some(bits))];
        if let (Ask::Create, Some(method)) = (ask, self.key_exchange) {
            transforms.push(Transform::new(KEY_EXCHANGE, method.number(), None));
        }
        transforms.push(Transform::new(
            EXTENDED_SEQUENCE_NUMBERS,
            self.esn.into(),
            None,
        ));
        transforms
    }

    /// One proposal of an SA payload.
    pub fn to_proposal(&self, number: u8, spi: Spi, ask: Ask) -> Proposal {
        Proposal {
            number,
            protocol: Protocol::Esp,
            spi: spi.0.to_be_bytes().to_vec(),
            transforms: self.to_transforms(ask),
        }
    }

    /// The SA payload's proposals, numbered from one. What differs only in the key exchange is
    /// the same in IKE_AUTH, and offered once.
    pub fn offer(ours: &[EspProposal], spi: Spi, ask: Ask) -> Vec<Proposal> {
        let mut distinct: Vec<EspProposal> = Vec::new();
        for proposal in ours {
            let transforms = proposal.to_transforms(ask);
            if !distinct.iter().any(|d| d.to_transforms(ask) == transforms) {
                distinct.push(*proposal);
            }
        }
        numbered(&distinct, |number, proposal| {
            proposal.to_proposal(number, spi, ask)
        })
    }

    fn is_in(&self, theirs: &Proposal, ask: Ask) -> bool {
        // 0 to 255 are reserved (RFC 4303 section 2.1).
        theirs.esp_spi().is_some_and(|spi| spi.0 > 255)
            && includes(theirs, &self.to_transforms(ask))
    }
}

fn numbered<T>(ours: &[T], emit: impl Fn(u8, &T) -> Proposal) -> Vec<Proposal> {
    (1..=u8::MAX)
        .zip(ours)
        .map(|(number, proposal)| emit(number, proposal))
        .collect()
}

/// As responder: the first of ours that is among theirs, with the proposal that holds it.
pub fn select<'a>(
    ours: &[IkeProposal],
    theirs: &'a [Proposal],
) -> Option<(&'a Proposal, IkeProposal)> {
    ours.iter().find_map(|own| {
        let proposal = theirs.iter().find(|proposal| own.is_in(proposal))?;
        Some((proposal, *own))
    })
}

/// As responder, for a Child SA.
pub fn select_esp<'a>(
    ours: &[EspProposal],
    theirs: &'a [Proposal],
    ask: Ask,
) -> Option<(&'a Proposal, EspProposal)> {
    ours.iter().find_map(|own| {
        let proposal = theirs.iter().find(|proposal| own.is_in(proposal, ask))?;
        Some((proposal, *own))
    })
}

/// As initiator: what the responder accepted, if it is one of what we offered, and no more
/// (RFC 7296 section 2.7: "the initiator MUST verify that the accepted offer is consistent with
/// one of its proposals").
pub fn accepted<'a>(
    ours: &[IkeProposal],
    reply: &'a [Proposal],
) -> Option<(&'a Proposal, IkeProposal)> {
    let chosen = single_choice(reply)?;
    select(ours, reply).filter(|(_, own)| {
        IkeProposal::offer(ours, None)
            .iter()
            .any(|offer| offer.number == chosen.number && own.is_in(offer))
    })
}

/// As initiator, for a Child SA.
pub fn accepted_esp<'a>(
    ours: &[EspProposal],
    reply: &'a [Proposal],
    ask: Ask,
) -> Option<(&'a Proposal, EspProposal)> {
    let chosen = single_choice(reply)?;
    let spi = chosen.esp_spi()?;
    select_esp(ours, reply, ask).filter(|(_, own)| {
        EspProposal::offer(ours, spi, ask)
            .iter()
            .any(|offer| offer.number == chosen.number && own.is_in(offer, ask))
    })
}

/// A response holds one proposal with one transform of each kind (RFC 7296 section 3.3.1).
fn single_choice(reply: &[Proposal]) -> Option<&Proposal> {
    let [chosen] = reply else { return None };
    let distinct = chosen
        .transforms
        .iter()
        .enumerate()
        .all(|(index, transform)| {
            let mut earlier = chosen.transforms.iter().take(index);
            earlier.all(|other| other.kind != transform.kind)
        });
    distinct.then_some(chosen)
}

/// Whether a proposal lets us choose exactly `wanted`.
fn includes(theirs: &Proposal, wanted: &[Transform]) -> bool {
    let offers_all = wanted.iter().all(|own| {
        let mut of_kind = theirs
            .transforms
            .iter()
            .filter(|t| t.kind == own.kind)
            .peekable();
        // Without ESN transform, an old peer means 32-bit numbers (RFC 7296 section 3.3.3 demands
        // it of ESP, RFC 4306 did as well, and some leave it out all the same).
        let default = own.kind == EXTENDED_SEQUENCE_NUMBERS && own.id == NONE;
        (default && of_kind.peek().is_none()) || of_kind.any(|t| t == own)
    });
    // A kind that we do not want must be refusable: RFC 7296 section 3.3.3 allows NONE for
    // integrity (with AEAD) and key exchange. An unknown kind makes the whole proposal
    // unacceptable (section 3.3.6).
    let refuses_rest = theirs.transforms.iter().all(|t| {
        let wanted_kind = wanted.iter().any(|own| own.kind == t.kind);
        let refusable = matches!(t.kind, INTEGRITY | KEY_EXCHANGE)
            && theirs
                .transforms
                .iter()
                .any(|other| other.kind == t.kind && other.id == NONE);
        wanted_kind || refusable
    });
    offers_all && refuses_rest
}
