//! From a peer's certificate to one of our trust anchors (RFC 5280 section 6), by `rustls-webpki`:
//! signatures, validity, basic and name constraints, path lengths, CRLs. What it leaves out is checked
//! here: key usage, the anchor's validity, and how many ways there may be, for it tries all of them:
//! nine authorities of one name that lead nowhere cost it half a million readings, and whoever agrees on
//! keys may send them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeId, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::certificate::Certificate;
use super::crl::{self, RevocationList};
use super::path::CertificationPath;
use super::verdicts::{self, Verdicts};
use crate::ike::work;

/// `remote.revocation`, swanctl's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Revocation {
    /// A certificate that no CRL of ours speaks of is good; an old CRL counts.
    #[default]
    Relaxed,
    /// As `Relaxed`, but each certificate of the chain that names a CRL must be found good in a fresh one.
    IfUri,
    /// Every certificate of the chain must be found good in a fresh CRL.
    Strict,
}

/// Whom we believe.
#[derive(Debug)]
pub struct Trust {
    anchors: Vec<Anchor>,
    /// Replaced while everything else stays: lists expire, configurations do not.
    crls: Mutex<Lists>,
    revocation: Revocation,
}

/// Revocation lists, and what they found good.
#[derive(Default, Debug)]
struct Lists {
    lists: Vec<RevocationList>,
    verdicts: Verdicts,
}

#[derive(Clone, Debug)]
struct Anchor {
    certificate: Certificate,
    anchor: TrustAnchor<'static>,
}

/// A certificate that was verified, with those between it and the anchor, its issuer first.
pub struct Verified {
    pub certificate: Certificate,
    pub issuers: Vec<CertificateDer<'static>>,
    /// The hash of the anchor's key, as in CERTREQ.
    pub anchor: [u8; 20],
}

impl Verified {
    /// The certificates in DER.
    pub fn path(&self) -> Vec<Vec<u8>> {
        let path = std::iter::once(self.certificate.der()).chain(&self.issuers);
        path.map(|der| der.to_vec()).collect()
    }
}

/// Why a chain was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChainError {
    /// No path to an anchor, or none that is good.
    Path(Error),
    /// The peer's own certificate is not for signatures.
    KeyUsage,
    /// More authorities of one name than any renewal or cross-signing needs.
    Namesakes,
}

impl ChainError {
    const UNREADABLE: ChainError = ChainError::Path(Error::BadDer);
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            ChainError::Path(error) => error,
            ChainError::KeyUsage => {
                return write!(f, "certificate not for signatures (key usage)");
            }
            ChainError::Namesakes => {
                return write!(
                    f,
                    "more than {NAMESAKES} certificates of authorities of one name"
                );
            }
        };
        match error {
            Error::CertExpired { not_after, .. } => {
                write!(
                    f,
                    "certificate expired {} s after 1970",
                    not_after.as_secs()
                )
            }
            Error::CertNotValidYet { .. } => write!(f, "certificate not valid yet"),
            Error::CertRevoked => write!(f, "certificate revoked"),
            Error::CrlExpired { .. } => write!(f, "the CRL is too old: fetch a fresh one"),
            Error::UnknownIssuer => write!(f, "no chain to a trusted certification authority"),
            Error::UnknownRevocationStatus => {
                write!(f, "no CRL speaks of the certificate, and one is demanded")
            }
            Error::CaUsedAsEndEntity => {
                write!(f, "certificate of a certification authority, not of a peer")
            }
            Error::RequiredEkuNotFoundContext(_) => {
                write!(
                    f,
                    "certificate for other uses than IKE (extended key usage)"
                )
            }
            Error::EndEntityUsedAsCa => {
                write!(f, "issued by who may not issue certificates")
            }
            Error::BadDer => write!(f, "unreadable certificate"),
            other => write!(f, "certificate refused ({other:?})"),
        }
    }
}

impl Trust {
    pub fn new(revocation: Revocation) -> Trust {
        Trust {
            anchors: Vec::new(),
            crls: Mutex::default(),
            revocation,
        }
    }

    /// Believes what this certificate's key has signed.
    pub fn add_anchor(&mut self, certificate: Certificate) -> Result<(), ChainError> {
        let anchor =
            webpki::anchor_from_trusted_cert(certificate.der()).map_err(ChainError::Path)?;
        let anchor = anchor.to_owned();
        self.anchors.push(Anchor {
            certificate,
            anchor,
        });
        Ok(())
    }

    /// Puts fresh lists in the place of all that were there.
    pub fn replace_crls(&self, lists: Vec<RevocationList>) {
        let mut crls = self.crls();
        crls.lists = lists;
        crls.verdicts.renew();
    }

    fn crls(&self) -> MutexGuard<'_, Lists> {
        self.crls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn anchors(&self) -> impl Iterator<Item = &Certificate> {
        self.anchors.iter().map(|anchor| &anchor.certificate)
    }

    /// Whether the anchors are the same and revocation is looked at alike.
    pub fn is_as_good_as(&self, other: &Trust) -> bool {
        let ours: BTreeSet<&[u8]> = self.anchors().map(|anchor| &**anchor.der()).collect();
        let theirs: BTreeSet<&[u8]> = other.anchors().map(|anchor| &**anchor.der()).collect();
        self.revocation == other.revocation && ours == theirs
    }

    /// Verifies a chain, the peer's own certificate first; gives what of it leads to an anchor.
    /// `time` is the wall clock. What was good a moment ago is good without a look.
    pub fn verify(&self, chain: &[&[u8]], time: Duration) -> Result<Arc<Verified>, ChainError> {
        work::count(READING);
        let name = verdicts::name(chain);
        let (lists, generation) = {
            let crls = self.crls();
            if let Some(known) = name.and_then(|name| crls.verdicts.find(&name, time)) {
                return Ok(known);
            }
            (crls.lists.clone(), crls.verdicts.generation)
        };
        let verified = self.verify_by(&lists, chain, time, self.revocation);
        let verified = verified.map(Arc::new);
        if let Err(ChainError::Path(Error::MaximumSignatureChecksExceeded)) = verified {
            work::count(a_path(MOST_SIGNATURES));
        }
        let verified = verified?;
        if let Some(name) = name {
            let until = self.expires(&verified, &lists, time);
            let mut crls = self.crls();
            crls.verdicts
                .keep(name, generation, time, until, verified.clone());
        }
        Ok(verified)
    }

    /// Whether a path that was good leads to an anchor still, and no list revokes any of it. It ends no
    /// IKE SA that something of it has expired since, or that a list is missing or too old: how
    /// long an IKE SA lasts on a proof is decided when it is made.
    pub fn still_believes(
        &self,
        path: &CertificationPath,
        time: Duration,
    ) -> Result<(), ChainError> {
        work::count(READING);
        let known = |key| self.anchors().any(|anchor| anchor.authority() == key);
        let anchored = path.anchor().map(known);
        let lists = {
            let crls = self.crls();
            if anchored == Some(true) && !path.may_be_revoked_by(&crls.lists) {
                return Ok(());
            }
            crls.lists.clone()
        };
        let chain = path.certificates();
        match self.verify_by(&lists, &chain, time, Revocation::Relaxed) {
            Err(error @ ChainError::Path(Error::CertRevoked)) => Err(error),
            Err(ChainError::Path(Error::CertExpired { .. })) if anchored.is_none() => Ok(()),
            Err(error) if anchored != Some(true) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn verify_by(
        &self,
        lists: &[RevocationList],
        chain: &[&[u8]],
        time: Duration,
        revocation: Revocation,
    ) -> Result<Verified, ChainError> {
        let (first, others) = chain.split_first().ok_or(ChainError::UNREADABLE)?;
        let certificate = Certificate::parse(first).map_err(|_| ChainError::UNREADABLE)?;
        if !certificate.may_sign() {
            return Err(ChainError::KeyUsage);
        }
        let others = authorities(others)?;
        let anchors: Vec<_> = self
            .anchors_at(time)
            .map(|anchor| anchor.anchor.clone())
            .collect();
        let strict = revocation == Revocation::Strict;
        let by_uri = revocation == Revocation::IfUri;
        // Of several lists of one authority the first counts.
        let mut ordered: Vec<&RevocationList> = lists.iter().collect();
        ordered.sort_by_key(|list| Reverse(list.next_update));
        let lists: Vec<&CertRevocationList<'_>> = ordered.iter().map(|l| &*l.list).collect();
        work::count(a_path(chain.len()));
        let path = Path {
            certificate: &certificate,
            others: &others,
            anchors: &anchors,
            time,
        };
        let (issuers, anchor) =
            path.build(options(&lists, strict, RevocationCheckDepth::Chain)?)?;
        if by_uri && certificate.has_crl_uri {
            path.build(options(&lists, true, RevocationCheckDepth::EndEntity)?)?;
        }
        for issuer in read(&issuers).filter(|issuer| by_uri && issuer.has_crl_uri) {
            crl::has_fresh(&ordered, &issuer, time).map_err(ChainError::Path)?;
        }
        let anchor = self.anchors_at(time).nth(anchor);
        Ok(Verified {
            certificate,
            issuers,
            anchor: anchor.map_or_else(Default::default, |a| a.certificate.authority()),
        })
    }

    fn is_by_uri(&self, certificate: &Certificate) -> bool {
        self.revocation == Revocation::IfUri && certificate.has_crl_uri
    }

    fn anchors_at(&self, time: Duration) -> impl Iterator<Item = &Anchor> {
        let seconds = time.as_secs();
        let good = move |anchor: &&Anchor| {
            anchor.certificate.is_valid_at(seconds) && anchor.certificate.may_certify()
        };
        self.anchors.iter().filter(good)
    }

    /// When the first of all that a path may rest on expires, in seconds since 1970.
    fn expires(&self, verified: &Verified, lists: &[RevocationList], time: Duration) -> u64 {
        let issuers = read(&verified.issuers).map(|issuer| issuer.not_after());
        let anchors = self.anchors_at(time).map(|a| a.certificate.not_after());
        let fresh = self.revocation == Revocation::Strict
            || self.is_by_uri(&verified.certificate)
            || read(&verified.issuers).any(|issuer| self.is_by_uri(&issuer));
        // A list is too old from then on.
        let lists = lists.iter().filter(|_| fresh);
        let lists = lists.map(|list| list.next_update.unwrap_or(0).saturating_sub(1));
        let others = issuers.chain(anchors).chain(lists);
        others.fold(verified.certificate.not_after(), u64::min)
    }
}

/// What may lie between a holder and an anchor, without what cannot be read or is there twice. With two of
/// a name there are some dozens of ways at most.
fn authorities<'a>(others: &[&'a [u8]]) -> Result<Vec<CertificateDer<'a>>, ChainError> {
    let mut kept: Vec<(&[u8], Certificate)> = Vec::with_capacity(others.len());
    for der in others {
        let Ok(read) = Certificate::parse(der) else {
            continue;
        };
        if kept.iter().any(|(there, _)| there == der) {
            continue;
        }
        let named = |(_, there): &&(&[u8], Certificate)| there.subject() == read.subject();
        if kept.iter().filter(named).count() >= NAMESAKES {
            return Err(ChainError::Namesakes);
        }
        kept.push((der, read));
    }
    Ok(kept.into_iter().map(|(der, _)| der.into()).collect())
}

/// The authorities of a path; each was read before.
fn read(issuers: &[CertificateDer<'static>]) -> impl Iterator<Item = Certificate> {
    let read = issuers.iter().map(|issuer| Certificate::parse(issuer));
    read.filter_map(Result::ok)
}

/// Microseconds of a look at a chain whose verdict is known (`work.rs`).
const READING: u32 = 10;
/// Certificates of authorities of one name: an old and a new key, or one that two others have signed.
const NAMESAKES: usize = 2;
/// What `webpki` does before it gives a chain up.
const MOST_SIGNATURES: usize = 100;

/// Microseconds that a path takes (`work.rs`): reading and a signature for each certificate.
fn a_path(certificates: usize) -> u32 {
    let certificates = u32::try_from(certificates).unwrap_or(u32::MAX);
    certificates.saturating_mul(200)
}

/// How CRLs count; `None`: there are none, and none is demanded.
fn options<'a>(
    lists: &'a [&'a CertRevocationList<'a>],
    demanded: bool,
    depth: RevocationCheckDepth,
) -> Result<Option<RevocationOptions<'a>>, ChainError> {
    let Ok(builder) = RevocationOptionsBuilder::new(lists) else {
        return match demanded {
            true => Err(ChainError::Path(Error::UnknownRevocationStatus)),
            false => Ok(None),
        };
    };
    let (status, expiration) = match demanded {
        true => (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce),
        false => (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore),
    };
    let builder = builder
        .with_depth(depth)
        .with_status_policy(status)
        .with_expiration_policy(expiration);
    Ok(Some(builder.build()))
}

/// What a path is built from.
struct Path<'a> {
    certificate: &'a Certificate,
    others: &'a [CertificateDer<'a>],
    anchors: &'a [TrustAnchor<'a>],
    time: Duration,
}

impl Path<'_> {
    /// The authorities between the holder and an anchor, and which of the anchors.
    fn build(
        &self,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<(Vec<CertificateDer<'static>>, usize), ChainError> {
        let holder = EndEntityCert::try_from(self.certificate.der()).map_err(ChainError::Path)?;
        let built = holder.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            self.anchors,
            self.others,
            UnixTime::since_unix_epoch(self.time),
            IkePurpose,
            revocation,
            Some(&issuers_may_certify),
        );
        let built = built.map_err(ChainError::Path)?;
        let issuers = built.intermediate_certificates();
        let issuers = issuers.map(|issuer| issuer.der().into_owned()).collect();
        let anchor = self.anchors.iter().position(|a| a == built.anchor());
        Ok((issuers, anchor.ok_or(ChainError::UNREADABLE)?))
    }
}

fn issuers_may_certify(path: &VerifiedPath<'_>) -> Result<(), Error> {
    for issuer in path.intermediate_certificates() {
        let certificate = Certificate::parse(&issuer.der()).map_err(|_| Error::BadDer)?;
        if !certificate.may_certify() {
            return Err(Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

/// RFC 4945 section 5.1.3.12: without extended key usage any use is meant; with it, IKE's purpose
/// or any; and those that public and corporate authorities put in its place.
struct IkePurpose;

/// id-kp-ipsecIKE.
const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];

const PURPOSES: [KeyPurposeId<'static>; 5] = [
    KeyPurposeId::new(IPSEC_IKE),
    // anyExtendedKeyUsage
    KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]),
    // id-kp-serverAuth, id-kp-clientAuth
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    // id-kp-ikeIntermediate, of older systems
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 8, 2, 2]),
];

impl ExtendedKeyUsageValidator for IkePurpose {
    fn validate(&self, present: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut none = true;
        for purpose in present {
            let purpose = purpose?;
            if PURPOSES.contains(&purpose) {
                return Ok(());
            }
            none = false;
        }
        if none {
            return Ok(());
        }
        Err(Error::RequiredEkuNotFoundContext(
            RequiredEkuNotFoundContext {
                required: KeyUsage::required_if_present(IPSEC_IKE),
                present: Vec::new(),
            },
        ))
    }
}
