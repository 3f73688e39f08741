//! Virtual addresses, and where peers are or may be.

use std::net::IpAddr;

use super::record::InternalRecord;
use super::{ImportError, collect};
use crate::ike::virtual_ip::Internal;

pub(super) fn internal_record(addresses: &Internal) -> Option<InternalRecord> {
    let record = InternalRecord {
        given: texts(&addresses.given),
        taken: texts(&addresses.taken),
        dns: texts(&addresses.dns),
    };
    (record != InternalRecord::default()).then_some(record)
}

pub(super) fn internal(record: Option<&InternalRecord>) -> Result<Internal, ImportError> {
    let Some(record) = record else {
        return Ok(Internal::default());
    };
    Ok(Internal {
        given: addresses(&record.given)?,
        taken: addresses(&record.taken)?,
        dns: addresses(&record.dns)?,
    })
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, ImportError> {
    collect(texts, |text| {
        text.parse().map_err(|_| ImportError::Field("address"))
    })
}
