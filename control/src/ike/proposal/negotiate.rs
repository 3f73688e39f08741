//! Proposals on the wire and the choice among them (RFC 7296 sections 2.7 and 3.3).
//!
//! We offer each of ours as one proposal with one transform of each kind, so that a choice is
//! always one of ours. A peer may offer many transforms of a kind in one proposal.

use std::collections::BTreeSet;

use hitless_sa::{self as sa, EspSuite, IkeSpi, Spi};

use super::{Additional, Encryption, EspProposal, IkeProposal, Integrity, KeyExchangeMethod, Prf};
use crate::ike::message::{Proposal, Protocol, Transform};
use crate::ike::work;

// Transform types (RFC 7296 section 3.3.2).
const ENCRYPTION: u8 = 1;
const PRF: u8 = 2;
const INTEGRITY: u8 = 3;
const KEY_EXCHANGE: u8 = 4;
const EXTENDED_SEQUENCE_NUMBERS: u8 = 5;
/// Additional Key Exchange 1; those up to 7 follow (RFC 9370 section 2.2.1).
const ADDITIONAL_KEY_EXCHANGE_1: u8 = 6;
const ADDITIONAL_KEY_EXCHANGE_7: u8 = 12;

const AES_CBC: u16 = 12;
const AES_GCM_16: u16 = 20;
const NULL_AUTH_AES_GMAC: u16 = 21;
const CHACHA20_POLY1305: u16 = 28;
const AES_GCM_16_IIV: u16 = 30;
const CHACHA20_POLY1305_IIV: u16 = 31;
const HMAC_SHA2_256_128: u16 = 12;
const HMAC_SHA2_384_192: u16 = 13;
const HMAC_SHA2_512_256: u16 = 14;
const NONE: u16 = 0;

/// So many transforms of a peer are held against one of our proposals in a microsecond.
const TRANSFORMS: usize = 128;

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
            KeyExchangeMethod::Modp2048 => 14,
            KeyExchangeMethod::Modp3072 => 15,
            KeyExchangeMethod::Modp4096 => 16,
            KeyExchangeMethod::Ecp256 => 19,
            KeyExchangeMethod::Ecp384 => 20,
            KeyExchangeMethod::Ecp521 => 21,
            KeyExchangeMethod::X25519 => 31,
            KeyExchangeMethod::MlKem768 => 36,
        }
    }

    pub const fn from_number(number: u16) -> Option<KeyExchangeMethod> {
        Some(match number {
            14 => KeyExchangeMethod::Modp2048,
            15 => KeyExchangeMethod::Modp3072,
            16 => KeyExchangeMethod::Modp4096,
            19 => KeyExchangeMethod::Ecp256,
            20 => KeyExchangeMethod::Ecp384,
            21 => KeyExchangeMethod::Ecp521,
            36 => KeyExchangeMethod::MlKem768,
            31 => KeyExchangeMethod::X25519,
            _ => return None,
        })
    }
}

impl IkeProposal {
    pub fn to_transforms(&self) -> Vec<Transform> {
        let (cipher, bits) = match self.encryption {
            Encryption::Aes128Gcm16 => (AES_GCM_16, Some(128)),
            Encryption::Aes192Gcm16 => (AES_GCM_16, Some(192)),
            Encryption::Aes256Gcm16 => (AES_GCM_16, Some(256)),
            // RFC 7634 section 4: "the Key Length attribute MUST NOT be sent".
            Encryption::ChaCha20Poly1305 => (CHACHA20_POLY1305, None),
            Encryption::Aes128Cbc => (AES_CBC, Some(128)),
            Encryption::Aes192Cbc => (AES_CBC, Some(192)),
            Encryption::Aes256Cbc => (AES_CBC, Some(256)),
        };
        let prf = match self.prf {
            Prf::HmacSha256 => 5,
            Prf::HmacSha384 => 6,
            Prf::HmacSha512 => 7,
        };
        let integrity = self.integrity.map(|integrity| match integrity {
            Integrity::HmacSha256_128 => HMAC_SHA2_256_128,
            Integrity::HmacSha384_192 => HMAC_SHA2_384_192,
            Integrity::HmacSha512_256 => HMAC_SHA2_512_256,
        });
        let mut transforms = vec![Transform::new(ENCRYPTION, cipher, bits)];
        transforms.extend(integrity.map(|id| Transform::new(INTEGRITY, id, None)));
        transforms.push(Transform::new(PRF, prf, None));
        transforms.push(Transform::new(
            KEY_EXCHANGE,
            self.key_exchange.number(),
            None,
        ));
        transforms.extend(additional_transforms(self.additional));
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
        let mut transforms = suite_transforms(self.suite);
        if let (Ask::Create, Some(method)) = (ask, self.key_exchange) {
            transforms.push(Transform::new(KEY_EXCHANGE, method.number(), None));
            transforms.extend(additional_transforms(self.additional));
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

    /// Whether a peer that asks lets us choose it. A key exchange has no place in IKE_AUTH and nothing
    /// to say there: whoever proposes one all the same is taken at the other transforms.
    fn is_asked_for(&self, theirs: &Proposal, ask: Ask) -> bool {
        if ask == Ask::Create {
            return self.is_in(theirs, ask);
        }
        let mut others = theirs.clone();
        others.transforms.retain(|t| !is_key_exchange(t.kind));
        self.is_in(&others, ask)
    }
}

/// Encryption, and integrity where the cipher has none of its own. A cipher with keys of one length
/// only says no length (RFC 7296 section 3.3.5, RFC 7634 section 4).
fn suite_transforms(suite: EspSuite) -> Vec<Transform> {
    let bits = u16::try_from(suite.key_length() * 8).ok();
    let (cipher, bits, integrity) = match suite.transform() {
        sa::Transform::AesGcm16 => (AES_GCM_16, bits, None),
        sa::Transform::ChaCha20Poly1305 => (CHACHA20_POLY1305, None, None),
        sa::Transform::AesGmac => (NULL_AUTH_AES_GMAC, bits, None),
        sa::Transform::AesCbcHmacSha256 => (AES_CBC, bits, Some(HMAC_SHA2_256_128)),
        sa::Transform::AesCbcHmacSha384 => (AES_CBC, bits, Some(HMAC_SHA2_384_192)),
        sa::Transform::AesCbcHmacSha512 => (AES_CBC, bits, Some(HMAC_SHA2_512_256)),
        sa::Transform::AesGcm16ImplicitIv => (AES_GCM_16_IIV, bits, None),
        sa::Transform::ChaCha20Poly1305ImplicitIv => (CHACHA20_POLY1305_IIV, None, None),
    };
    let mut transforms = vec![Transform::new(ENCRYPTION, cipher, bits)];
    transforms.extend(integrity.map(|id| Transform::new(INTEGRITY, id, None)));
    transforms
}

/// Transform types 6 to 12 (RFC 9370 section 2.2.1).
fn additional_transforms(additional: Additional) -> impl Iterator<Item = Transform> {
    let transforms: Vec<Transform> = additional
        .numbered()
        .map(|(n, method)| Transform::new(ADDITIONAL_KEY_EXCHANGE_1 - 1 + n, method.number(), None))
        .collect();
    transforms.into_iter()
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
    count_work(ours.len(), theirs);
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
    count_work(ours.len(), theirs);
    ours.iter().find_map(|own| {
        let fits = |proposal: &&Proposal| own.is_asked_for(proposal, ask);
        Some((theirs.iter().find(fits)?, *own))
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
    let own = ours.iter().find(|own| own.is_in(chosen, ask))?;
    let offered = EspProposal::offer(ours, spi, ask);
    let mut offered = offered.iter();
    offered
        .any(|offer| offer.number == chosen.number && own.is_in(offer, ask))
        .then_some((chosen, *own))
}

/// A response holds one proposal with one transform of each kind (RFC 7296 section 3.3.1).
fn single_choice(reply: &[Proposal]) -> Option<&Proposal> {
    let [chosen] = reply else { return None };
    let mut kinds = BTreeSet::new();
    let distinct = chosen.transforms.iter().all(|t| kinds.insert(t.kind));
    distinct.then_some(chosen)
}

/// Transform types 4, and 6 to 12 (RFC 9370 section 2.2.1).
const fn is_key_exchange(kind: u8) -> bool {
    matches!(
        kind,
        KEY_EXCHANGE | ADDITIONAL_KEY_EXCHANGE_1..=ADDITIONAL_KEY_EXCHANGE_7
    )
}

/// Whether a proposal lets us choose exactly `wanted`. Of what a peer offers each transform is looked at
/// a few times at most, however many there are.
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
    if !offers_all {
        return false;
    }
    let refusable = refusable(theirs);
    theirs
        .transforms
        .iter()
        .all(|t| refusable & kind_bit(t.kind) != 0 || wanted.iter().any(|own| own.kind == t.kind))
}

/// The kinds that we need not take, a bit for each. A kind that we do not want must be refusable: RFC
/// 7296 section 3.3.3 allows NONE for integrity (with AEAD) and key exchange, RFC 9370 section 2.2.1 for
/// additional ones. An unknown kind makes the whole proposal unacceptable (section 3.3.6).
fn refusable(theirs: &Proposal) -> u16 {
    let none = theirs.transforms.iter().filter(|t| t.id == NONE);
    none.fold(0, |kinds, t| kinds | kind_bit(t.kind))
}

/// None for a kind that can never be refused.
fn kind_bit(kind: u8) -> u16 {
    match kind == INTEGRITY || is_key_exchange(kind) {
        true => 1 << kind,
        false => 0,
    }
}

/// What it takes to find one of so many in what a peer offers.
fn count_work(ours: usize, theirs: &[Proposal]) {
    let transforms: usize = theirs.iter().map(|theirs| theirs.transforms.len()).sum();
    let looks = ours.saturating_mul(transforms);
    work::count(u32::try_from(looks / TRANSFORMS).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::work::Share;

    fn ike(text: &str) -> IkeProposal {
        text.parse().unwrap()
    }

    fn esp(text: &str) -> EspProposal {
        text.parse().unwrap()
    }

    const GCM: &str = "aes128gcm16-prfsha256-x25519";
    const CBC: &str = "aes256-sha512-prfsha384-ecp384";
    const SPI: Spi = Spi(0xc0de_0001);

    fn every_ike_proposal() -> Vec<IkeProposal> {
        let mut all = Vec::new();
        for cipher in [
            "aes128gcm16",
            "aes192gcm16",
            "aes256gcm16",
            "chacha20poly1305",
            "aes128-sha256",
            "aes192-sha256",
            "aes256-sha384",
            "aes128-sha512",
        ] {
            for prf in ["prfsha256", "prfsha384", "prfsha512"] {
                for method in [
                    "x25519",
                    "ecp256",
                    "ecp384",
                    "modp2048",
                    "x25519-ke1_mlkem768",
                ] {
                    all.push(ike(&format!("{cipher}-{prf}-{method}")));
                }
            }
        }
        all
    }

    #[test]
    fn each_choice_is_found_among_all_and_only_itself() {
        let all = every_ike_proposal();
        let offered = IkeProposal::offer(&all, None);
        for (index, own) in all.iter().enumerate() {
            let (proposal, chosen) = select(&[*own], &offered).unwrap();
            assert_eq!((usize::from(proposal.number), chosen), (index + 1, *own));
        }
        for (method, number) in [
            ("modp2048", 14),
            ("modp3072", 15),
            ("modp4096", 16),
            ("ecp256", 19),
            ("ecp384", 20),
            ("ecp521", 21),
            ("x25519", 31),
            ("mlkem768", 36),
        ] {
            let method = ike(&format!("aes128gcm16-prfsha256-{method}")).key_exchange;
            assert_eq!(method.number(), number);
            assert_eq!(KeyExchangeMethod::from_number(number), Some(method));
        }
        assert_eq!(KeyExchangeMethod::from_number(2), None);
    }

    /// RFC 7296 section 3.3: many transforms of a kind in one proposal; our order decides.
    #[test]
    fn a_peer_may_offer_many_transforms_in_one_proposal() {
        let all = every_ike_proposal();
        let mut merged = all[0].to_proposal(1, None);
        for own in all
            .iter()
            .filter(|own| own.integrity.is_none() && own.additional.is_empty())
        {
            merged.transforms.extend(own.to_transforms());
        }
        let (_, chosen) = select(&[ike(CBC), ike(GCM)], &[merged.clone()]).unwrap();
        assert_eq!(chosen, ike(GCM));
        let ours = [ike("aes256gcm16-prfsha512-ecp384"), ike(GCM)];
        assert_eq!(select(&ours, &[merged]).unwrap().1, ours[0]);
    }

    /// RFC 5282 section 8 and RFC 7296 section 3.3.3: NONE is the only integrity beside AEAD.
    #[test]
    fn aead_goes_with_integrity_none_or_absent() {
        let ours = [ike(GCM)];
        let mut offer = ours[0].to_proposal(1, None);
        offer.transforms.push(Transform::new(INTEGRITY, 12, None));
        assert!(select(&ours, std::slice::from_ref(&offer)).is_none());
        offer.transforms.push(Transform::new(INTEGRITY, NONE, None));
        assert!(select(&ours, &[offer]).is_some());
    }

    /// RFC 9370 section 2.2.1: additional key exchanges are chosen as they were offered.
    #[test]
    fn rfc9370_section_2_2_1_additional_key_exchanges_have_transform_types_of_their_own() {
        let hybrid = ike("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke3_ecp384");
        let wire: Vec<(u8, u16)> = hybrid
            .to_transforms()
            .iter()
            .map(|t| (t.kind, t.id))
            .collect();
        assert_eq!(wire[wire.len() - 3..], [(4, 31), (6, 36), (8, 20)]);
        assert_eq!(
            hybrid.to_string(),
            "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke3_ecp384"
        );
        let plain = ike(GCM);
        let mut offer = hybrid.to_proposal(1, None);
        assert!(select(&[plain], &[offer.clone()]).is_none());
        offer.transforms.push(Transform::new(6, NONE, None));
        assert!(
            select(&[plain], &[offer.clone()]).is_none(),
            "8 is not optional"
        );
        offer.transforms.push(Transform::new(8, NONE, None));
        assert!(select(&[plain], &[offer.clone()]).is_some());
        assert_eq!(select(&[hybrid, plain], &[offer]).unwrap().1, hybrid);
        let offer = plain.to_proposal(1, None);
        assert!(select(&[hybrid], &[offer]).is_none());
    }

    /// RFC 7296 section 3.3.6, also of a kind with NONE, and with the number of a known one in its low bits.
    #[test]
    fn rfc7296_section_3_3_6_no_kind_is_refused_but_those_that_may_be() {
        for kind in 0..=u8::MAX {
            let mut offer = ike(GCM).to_proposal(1, None);
            let mut refused = |id| {
                offer.transforms.push(Transform::new(kind, id, None));
                select(&[ike(GCM)], std::slice::from_ref(&offer)).is_none()
            };
            let wanted = matches!(kind, ENCRYPTION | PRF | KEY_EXCHANGE);
            let refusable = matches!(kind, INTEGRITY | 6..=12);
            assert_eq!(refused(9), !wanted, "{kind}");
            assert_eq!(refused(NONE), !wanted && !refusable, "{kind}");
        }
    }

    #[test]
    fn whoever_offers_much_is_much_work() {
        let mut offer = esp("aes128gcm16").to_proposal(1, SPI, Ask::Create);
        let unknown = (1000..1250).map(|id| Transform::new(ENCRYPTION, id, None));
        offer.transforms.extend(unknown);
        let theirs = vec![offer; 30];
        let ours = ["aes256gcm16-ecp256", "aes256gcm16-ecp384"].map(esp);
        let share = Share::new(1);
        assert!(select_esp(&ours, &theirs[..1], Ask::Create).is_none());
        let little = share.used();
        assert!(select_esp(&ours, &theirs, Ask::Create).is_none());
        assert!((1..10).contains(&little) && share.used() > 25 * little);
        let share = Share::new(1);
        let theirs: Vec<_> = theirs
            .into_iter()
            .map(|theirs| Proposal {
                spi: Vec::new(),
                protocol: Protocol::Ike,
                ..theirs
            })
            .collect();
        assert!(select(&[ike(GCM)], &theirs).is_none());
        assert!(share.is_spent());
    }

    /// RFC 7296 section 3.3.6.
    #[test]
    fn what_is_unknown_is_not_chosen() {
        let ours = [ike(GCM)];
        let good = ours[0].to_proposal(1, None);
        let mut kind = good.clone();
        kind.transforms.push(Transform::new(6, 35, None));
        assert!(select(&ours, &[kind]).is_none());
        let mut attribute = good.clone();
        attribute.transforms[0].unknown_attributes = vec![0x80, 17, 0, 1];
        assert!(select(&ours, std::slice::from_ref(&attribute)).is_none());
        let known = attribute.transforms[0].clone();
        attribute
            .transforms
            .push(Transform::new(known.kind, known.id, known.key_length));
        assert!(select(&ours, &[attribute]).is_some());
        for (index, transform) in good.transforms.iter().enumerate() {
            let mut missing = good.clone();
            missing.transforms.remove(index);
            assert!(select(&ours, &[missing]).is_none(), "{transform:?}");
        }
        let mut no_length = good.clone();
        no_length.transforms[0].key_length = None;
        let mut other_protocol = good;
        other_protocol.protocol = Protocol::Esp;
        assert!(select(&ours, &[no_length, other_protocol]).is_none());
    }

    /// The numbers of the IANA registry, and strongSwan's order: encryption, integrity, ESN.
    #[test]
    fn esp_suites_on_the_wire() {
        let wire = |text: &str| -> Vec<(u8, u16, Option<u16>)> {
            let transforms = esp(text).to_transforms(Ask::First);
            let wire = transforms.iter().map(|t| (t.kind, t.id, t.key_length));
            wire.collect()
        };
        let esn = (EXTENDED_SEQUENCE_NUMBERS, 1, None);
        for (text, id, bits) in [
            ("aes128gcm16-esn", 20, Some(128)),
            ("aes192gcm16-esn", 20, Some(192)),
            ("aes256gcm16-esn", 20, Some(256)),
            ("chacha20poly1305-esn", 28, None),
            ("aes128gmac-esn", 21, Some(128)),
            ("aes256gmac-esn", 21, Some(256)),
            ("aes128gcm16iiv-esn", 30, Some(128)),
            ("chacha20poly1305iiv-esn", 31, None),
        ] {
            assert_eq!(wire(text), [(ENCRYPTION, id, bits), esn], "{text}");
        }
        for (text, bits, integrity) in [
            ("aes128-sha256-esn", 128, 12),
            ("aes256-sha256-esn", 256, 12),
            ("aes128-sha384-esn", 128, 13),
            ("aes256-sha512-esn", 256, 14),
        ] {
            let cipher = (ENCRYPTION, 12, Some(bits));
            assert_eq!(wire(text), [cipher, (INTEGRITY, integrity, None), esn]);
        }
        // A cipher with its own integrity beside one without: the second needs an integrity.
        let mut none = esp("aes128-sha256").to_proposal(1, SPI, Ask::First);
        none.transforms.retain(|t| t.kind != INTEGRITY);
        assert!(select_esp(&[esp("aes128-sha256")], &[none], Ask::First).is_none());
    }

    /// RFC 7296 section 2.7.
    #[test]
    fn a_responder_may_accept_one_of_our_proposals_and_nothing_else() {
        let ours = [ike(CBC), ike(GCM)];
        let good = ours[1].to_proposal(2, None);
        assert_eq!(
            accepted(&ours, std::slice::from_ref(&good)).unwrap().1,
            ours[1]
        );
        assert!(accepted(&ours, &[]).is_none());
        assert!(accepted(&ours, &[good.clone(), good.clone()]).is_none());
        assert!(accepted(&ours[..1], std::slice::from_ref(&good)).is_none());
        for number in [0, 1, 3] {
            let wrong = Proposal {
                number,
                ..good.clone()
            };
            assert!(accepted(&ours, &[wrong]).is_none(), "{number}");
        }
        let mut two = good.clone();
        two.transforms.push(good.transforms[0].clone());
        assert!(accepted(&ours, &[two]).is_none());
        let mut rekey = good;
        rekey.spi = vec![1; 8];
        assert_eq!(
            accepted(&ours, &[rekey]).unwrap().0.ike_spi(),
            Some(IkeSpi(0x0101010101010101))
        );
    }

    #[test]
    fn a_responder_must_name_our_number_for_a_child_as_well() {
        let ours = [esp("aes256gcm16"), esp("aes128gcm16")];
        for (number, fits) in [(0, false), (1, false), (2, true), (3, false)] {
            let reply = [ours[1].to_proposal(number, SPI, Ask::First)];
            let accepted = accepted_esp(&ours, &reply, Ask::First);
            assert_eq!(
                accepted.map(|(_, own)| own),
                fits.then_some(ours[1]),
                "{number}"
            );
        }
    }

    /// RFC 7296 section 3.3.2, transform type 5: with both values offered ours decides.
    #[test]
    fn extended_sequence_numbers() {
        let (with, without) = (esp("aes128gcm16-esn"), esp("aes128gcm16"));
        let mut both = with.to_proposal(1, SPI, Ask::First);
        both.transforms
            .push(Transform::new(EXTENDED_SEQUENCE_NUMBERS, 0, None));
        let both = [both];
        assert_eq!(
            select_esp(&[with, without], &both, Ask::First).unwrap().1,
            with
        );
        assert_eq!(
            select_esp(&[without, with], &both, Ask::First).unwrap().1,
            without
        );
        let only = [with.to_proposal(1, SPI, Ask::First)];
        assert!(select_esp(&[without], &only, Ask::First).is_none());
        let mut old = without.to_proposal(1, SPI, Ask::First);
        old.transforms
            .retain(|t| t.kind != EXTENDED_SEQUENCE_NUMBERS);
        assert!(select_esp(&[with], &[old.clone()], Ask::First).is_none());
        assert_eq!(
            select_esp(&[with, without], &[old], Ask::First).unwrap().1,
            without
        );
    }

    /// RFC 7296 section 1.2: no key exchange for the first Child SA.
    #[test]
    fn key_exchange_of_a_child_counts_in_create_child_sa_only() {
        let (pfs, plain) = (esp("aes128gcm16-x25519"), esp("aes128gcm16"));
        let first = EspProposal::offer(&[pfs, plain], SPI, Ask::First);
        assert_eq!(first.len(), 1);
        assert!(first[0].transforms.iter().all(|t| t.kind != KEY_EXCHANGE));
        assert_eq!(
            accepted_esp(&[pfs, plain], &first, Ask::First).unwrap().1,
            pfs
        );

        let create = EspProposal::offer(&[pfs, plain], SPI, Ask::Create);
        assert_eq!(create.len(), 2);
        assert_eq!(
            select_esp(&[plain], &create, Ask::Create).unwrap().0.number,
            2
        );
        assert_eq!(
            select_esp(&[pfs], &create, Ask::Create).unwrap().0.number,
            1
        );
        assert!(select_esp(&[pfs], &create[1..], Ask::Create).is_none());
        assert!(select_esp(&[plain], &create[..1], Ask::Create).is_none());
        let mut optional = create[0].clone();
        optional
            .transforms
            .push(Transform::new(KEY_EXCHANGE, NONE, None));
        assert!(select_esp(&[plain], &[optional], Ask::Create).is_some());
    }

    /// RFC 7296 section 1.2 forbids it; some say it all the same, and others overlook it.
    #[test]
    fn rfc7296_section_1_2_a_key_exchange_in_ike_auth_is_overlooked_in_a_request() {
        let hybrid = esp("aes128gcm16-x25519-ke1_mlkem768");
        let asked = [hybrid.to_proposal(1, SPI, Ask::Create)];
        for ours in [hybrid, esp("aes128gcm16"), esp("aes128gcm16-ecp384")] {
            let chosen = select_esp(&[ours], &asked, Ask::First);
            let (theirs, chosen) = chosen.expect("the other transforms fit");
            assert_eq!((theirs, chosen), (&asked[0], ours));
            let reply = chosen.to_proposal(theirs.number, SPI, Ask::First);
            assert!(reply.transforms.iter().all(|t| !is_key_exchange(t.kind)));
            // A responder that chooses one was not offered it.
            assert!(accepted_esp(&[ours], &asked, Ask::First).is_none());
        }
        assert!(select_esp(&[esp("aes256gcm16")], &asked, Ask::First).is_none());
        assert!(select_esp(&[esp("aes128gcm16")], &asked, Ask::Create).is_none());
    }

    /// RFC 4303 section 2.1: SPIs 0 to 255 are reserved.
    #[test]
    fn reserved_spis_are_not_accepted() {
        let ours = [esp("aes128gcm16")];
        for (spi, fits) in [(0, false), (255, false), (256, true), (u32::MAX, true)] {
            let offer = [ours[0].to_proposal(1, Spi(spi), Ask::First)];
            assert_eq!(
                select_esp(&ours, &offer, Ask::First).is_some(),
                fits,
                "{spi}"
            );
        }
    }
}
