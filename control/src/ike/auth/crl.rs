//! A CRL, and of which authorities it speaks (RFC 5280 sections 5.2.5 and 6.3.3): `rustls-webpki` looks
//! serial numbers up, and says of a whole path alone whether each status is known.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use webpki::{CertRevocationList, Error, OwnedCertRevocationList};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};

use super::certificate::Certificate;
use super::chain::ChainError;
use super::dn::DistinguishedName;

/// id-ce-issuingDistributionPoint.
const ISSUING_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");

/// A CRL, whose signature is verified when a chain needs it.
#[derive(Clone)]
pub struct RevocationList {
    pub(super) list: Arc<CertRevocationList<'static>>,
    /// Seconds since 1970, if it says so.
    pub(super) next_update: Option<u64>,
    issuer: Option<DistinguishedName>,
    scope: Scope,
}

/// Of which certificates of its issuer that are authorities a list speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Scope {
    All,
    /// Of those that name one of these places.
    At(Vec<String>),
}

impl RevocationList {
    pub fn from_der(der: &[u8]) -> Result<RevocationList, ChainError> {
        let list = OwnedCertRevocationList::from_der(der);
        let list = list.map_err(ChainError::Path)?;
        let read = CertificateList::<Rfc5280>::from_der(der).ok();
        let read = read.map(|read| read.tbs_cert_list);
        let next_update = read.as_ref().and_then(|read| read.next_update);
        let issuer = read.as_ref().and_then(|read| read.issuer.to_der().ok());
        Ok(RevocationList {
            list: Arc::new(list.into()),
            next_update: next_update.map(|time| time.to_unix_duration().as_secs()),
            issuer: issuer.and_then(|issuer| DistinguishedName::from_der(&issuer)),
            scope: read.map_or_else(|| Scope::At(Vec::new()), |read| scope(&read)),
        })
    }

    fn speaks_of(&self, authority: &Certificate) -> bool {
        let same = self.issuer.is_some() && self.issuer.as_ref() == authority.issuer();
        same && match &self.scope {
            Scope::All => true,
            Scope::At(places) => places.iter().any(|at| authority.crl_uris.contains(at)),
        }
    }

    /// Whether it speaks of an authority, and is not too old for that.
    fn vouches_for(&self, authority: &Certificate, time: Duration) -> Option<Result<(), Error>> {
        let next_update = Duration::from_secs(self.next_update.unwrap_or(0));
        let expired = Error::CrlExpired {
            time: UnixTime::since_unix_epoch(time),
            next_update: UnixTime::since_unix_epoch(next_update),
        };
        let verdict = if time < next_update {
            Ok(())
        } else {
            Err(expired)
        };
        self.speaks_of(authority).then_some(verdict)
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevocationList")
    }
}

/// Whether one of the lists, the one that is good for longest first, is a fresh one of an authority.
pub(super) fn has_fresh(
    lists: &[&RevocationList],
    authority: &Certificate,
    time: Duration,
) -> Result<(), Error> {
    let mut verdicts = lists
        .iter()
        .filter_map(|list| list.vouches_for(authority, time));
    verdicts
        .next()
        .unwrap_or(Err(Error::UnknownRevocationStatus))
}

fn scope(list: &TbsCertList<Rfc5280>) -> Scope {
    let mut extensions = list.crl_extensions.iter().flatten();
    let Some(extension) = extensions.find(|extension| extension.extn_id == ISSUING_POINT) else {
        return Scope::All;
    };
    let point = IssuingDistributionPoint::from_der(extension.extn_value.as_bytes()).ok();
    let whole = point.filter(|point| {
        let of_authorities =
            !point.only_contains_user_certs && !point.only_contains_attribute_certs;
        of_authorities && !point.indirect_crl && point.only_some_reasons.is_none()
    });
    Scope::At(whole.map_or_else(Vec::new, |point| uris(point.distribution_point.as_ref())))
}

/// Where a list is to be had.
pub(super) fn uris(name: Option<&DistributionPointName>) -> Vec<String> {
    let Some(DistributionPointName::FullName(names)) = name else {
        return Vec::new();
    };
    let uri = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}
