//! What an established IKE SA remembers of its authentication, and its record.

use std::time::Duration;

use hitless_sa::{IkeSpi, Instant};

use super::exchange::Proven;
use super::grounds::{Grounds, GroundsRecord};
use super::path::{CertificationPath, CertificationPathRecord};
use crate::ike::proposal::Identification;

/// Goes with the IKE SA through rekeying and failover.
#[derive(Clone, Default)]
pub(in crate::ike) struct Authenticated {
    pub proven: Proven,
    /// A PPK was mixed in (RFC 8784).
    pub ppk: bool,
    /// We sent the IKE_AUTH request, whoever rekeyed since.
    pub asked: bool,
    /// When a new IKE_AUTH is due: of us if we `asked`, else of the peer.
    pub reauth_at: Option<Instant>,
    /// The IKE SA that this one takes the place of, until its Child SAs are made.
    pub replaces: Option<IkeSpi>,
}

/// Fields 1 to 7 of the record, 100, 150, and 233.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::ike) struct AuthenticatedRecord {
    #[prost(string, tag = "1")]
    pub method: String,
    #[prost(bytes = "vec", tag = "2")]
    pub certificate: Vec<u8>,
    #[prost(uint64, optional, tag = "3")]
    pub not_after: Option<u64>,
    #[prost(bool, tag = "4")]
    pub ppk: bool,
    #[prost(bool, tag = "5")]
    pub asked: bool,
    /// Nanoseconds.
    #[prost(uint64, optional, tag = "6")]
    pub reauth_in: Option<u64>,
    #[prost(fixed64, optional, tag = "7")]
    pub replaces: Option<u64>,
    #[prost(message, optional, tag = "100")]
    pub grounds: Option<GroundsRecord>,
    /// The name of the EAP user.
    #[prost(string, optional, tag = "150")]
    pub user: Option<String>,
    #[prost(message, optional, tag = "233")]
    pub path: Option<CertificationPathRecord>,
}

impl Authenticated {
    pub fn to_record(&self, now: Instant) -> AuthenticatedRecord {
        let nanoseconds = |at: Instant| u64::try_from(at.since(now).as_nanos()).unwrap_or(u64::MAX);
        AuthenticatedRecord {
            method: self.proven.method.clone(),
            certificate: self.proven.certificate.map_or_else(Vec::new, Vec::from),
            not_after: self.proven.not_after,
            ppk: self.ppk,
            asked: self.asked,
            reauth_in: self.reauth_at.map(nanoseconds),
            replaces: self.replaces.map(|spi| spi.0),
            grounds: self
                .proven
                .grounds
                .as_ref()
                .map(|grounds| grounds.to_record()),
            user: self.proven.user.as_ref().map(Identification::to_string),
            path: self.proven.path.as_ref().map(|path| {
                let grounds = self.proven.grounds.as_ref();
                path.to_record(grounds)
            }),
        }
    }

    /// What an older version left out is unknown.
    pub fn from_record(record: Option<&AuthenticatedRecord>, now: Instant) -> Authenticated {
        let Some(record) = record else {
            return Authenticated::default();
        };
        let grounds = record.grounds.as_ref().and_then(Grounds::from_record);
        let path = record.path.as_ref();
        let path = path.and_then(|path| CertificationPath::from_record(path, grounds.as_ref()));
        Authenticated {
            proven: Proven {
                method: record.method.clone(),
                certificate: record.certificate.as_slice().try_into().ok(),
                not_after: record.not_after,
                grounds,
                path,
                user: record.user.clone().map(Identification::Eap),
            },
            ppk: record.ppk,
            asked: record.asked,
            reauth_at: record
                .reauth_in
                .map(|until| now + Duration::from_nanos(until)),
            replaces: record.replaces.map(IkeSpi),
        }
    }
}
