//! The certification path by which a peer was believed (RFC 5280 section 6.1): kept beside the IKE SA,
//! so that whoever leads it ends it when a list revokes any of it, or its anchor is believed no more.

use std::sync::Arc;

use webpki::EndEntityCert;

use super::chain::Verified;
use super::crl::RevocationList;
use super::grounds::Grounds;

/// Octets of a path that is kept: it is in each record of the IKE SA. A longer one counts again at the
/// next IKE_AUTH.
const LONGEST: usize = 8 << 10;

/// The peer's certificate and those that led to the anchor, in DER, and which anchor.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificationPath {
    certificates: Vec<Vec<u8>>,
    /// The hash of its key as in CERTREQ (RFC 7296 section 3.7); a ticket does not say it.
    anchor: Option<[u8; 20]>,
}

impl std::fmt::Debug for CertificationPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificationPath({})", self.certificates.len())
    }
}

/// The record of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::ike) struct CertificationPathRecord {
    /// None where the grounds for a ticket have the same.
    #[prost(bytes = "vec", repeated, tag = "1")]
    certificates: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "2")]
    anchor: Vec<u8>,
}

impl CertificationPath {
    /// What to keep of one that was verified.
    pub(super) fn of(verified: &Verified) -> Option<Arc<CertificationPath>> {
        let certificates = verified.path();
        let length: usize = certificates.iter().map(Vec::len).sum();
        let path = CertificationPath {
            certificates,
            anchor: Some(verified.anchor),
        };
        (length <= LONGEST).then(|| Arc::new(path))
    }

    /// That of a peer that comes back with a ticket.
    pub(in crate::ike) fn of_grounds(
        grounds: Option<&Arc<Grounds>>,
    ) -> Option<Arc<CertificationPath>> {
        let path = CertificationPath {
            certificates: grounds?.chain()?.to_vec(),
            anchor: None,
        };
        Some(Arc::new(path))
    }

    pub(super) fn to_record(&self, grounds: Option<&Arc<Grounds>>) -> CertificationPathRecord {
        let held = grounds.and_then(|grounds| grounds.chain());
        let certificates = match held == Some(self.certificates.as_slice()) {
            true => Vec::new(),
            false => self.certificates.clone(),
        };
        CertificationPathRecord {
            certificates,
            anchor: self.anchor.map_or_else(Vec::new, Vec::from),
        }
    }

    /// `None` if it makes no sense: then it counts again at the next IKE_AUTH.
    pub(super) fn from_record(
        record: &CertificationPathRecord,
        grounds: Option<&Arc<Grounds>>,
    ) -> Option<Arc<CertificationPath>> {
        let certificates = match record.certificates.is_empty() {
            true => grounds?.chain()?.to_vec(),
            false => record.certificates.clone(),
        };
        let anchor = record.anchor.as_slice().try_into().ok();
        Some(Arc::new(CertificationPath {
            certificates,
            anchor,
        }))
    }

    pub(super) fn certificates(&self) -> Vec<&[u8]> {
        self.certificates.iter().map(Vec::as_slice).collect()
    }

    pub(super) fn anchor(&self) -> Option<[u8; 20]> {
        self.anchor
    }

    /// Whether one of its serial numbers is in a list, perhaps of another authority, whose signature
    /// nobody has verified: costs no signature, and where it says no the answer is no.
    pub(super) fn may_be_revoked_by(&self, lists: &[RevocationList]) -> bool {
        let listed = |der: &Vec<u8>| {
            let der = der.as_slice().into();
            let Ok(certificate) = EndEntityCert::try_from(&der) else {
                return true;
            };
            let serial = certificate.serial();
            let mut found = lists.iter().map(|list| list.list.find_serial(serial));
            found.any(|found| !matches!(found, Ok(None)))
        };
        !lists.is_empty() && self.certificates.iter().any(listed)
    }
}
