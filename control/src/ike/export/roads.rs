//! Virtual addresses, and where peers are or may be.

use std::net::IpAddr;

use hitless_sa::MessageId;

use super::record::{InternalRecord, MobikeRecord, PathRecord, PendingRecord};
use super::{ImportError, collect};
use crate::ike::mobike::{Asked, Errand, Mobike, Newest};
use crate::ike::nat::{Nat, Path};
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

pub(super) fn mobike_record(mobike: &Mobike) -> MobikeRecord {
    MobikeRecord {
        others: texts(&mobike.others),
        both_ways: mobike.both_ways,
        provisional: mobike.provisional.map(|(path, nat)| path_record(path, nat)),
        update: mobike.newest.update.map(|id| id.0),
        named: mobike.newest.others.map(|id| id.0),
    }
}

pub(super) fn mobike(record: &MobikeRecord) -> Result<Mobike, ImportError> {
    Ok(Mobike {
        others: addresses(&record.others)?,
        both_ways: record.both_ways,
        provisional: record.provisional.as_ref().map(path).transpose()?,
        newest: Newest {
            update: record.update.map(MessageId),
            others: record.named.map(MessageId),
        },
    })
}

fn path_record(path: Path, nat: Nat) -> PathRecord {
    PathRecord {
        local: path.local.to_string(),
        remote: path.remote.to_string(),
        nat_local: nat.local,
        nat_remote: nat.remote,
        nat_forced: nat.forced,
    }
}

fn path(record: &PathRecord) -> Result<(Path, Nat), ImportError> {
    let address = |text: &str| text.parse().map_err(|_| ImportError::Field("address"));
    let path = Path {
        local: address(&record.local)?,
        remote: address(&record.remote)?,
    };
    let nat = Nat {
        local: record.nat_local,
        remote: record.nat_remote,
        forced: record.nat_forced,
    };
    Ok((path, nat))
}

pub(super) fn errand_kind(errand: Errand) -> u32 {
    match errand {
        Errand::Update => 60,
        Errand::Routability => 61,
        Errand::Announce => 62,
    }
}

pub(super) fn errand(kind: u32) -> Result<Errand, ImportError> {
    match kind {
        60 => Ok(Errand::Update),
        61 => Ok(Errand::Routability),
        62 => Ok(Errand::Announce),
        _ => Err(ImportError::Field("task")),
    }
}

pub(super) fn asked_record(asked: &Asked, record: &mut PendingRecord) {
    record.kind = errand_kind(asked.errand());
    let of = match asked {
        Asked::Update(path) | Asked::Routability { path, .. } => Some(*path),
        Asked::Announce => None,
    };
    record.path = of.map(|of| path_record(of, Nat::default()));
    if let Asked::Routability { cookie, copied, .. } = asked {
        record.cookie.clone_from(cookie);
        record.copied = *copied;
    }
}

pub(super) fn asked(record: &PendingRecord) -> Result<Asked, ImportError> {
    let of = || {
        let of = record.path.as_ref().ok_or(ImportError::Field("pending"))?;
        path(of).map(|(of, _)| of)
    };
    Ok(match errand(record.kind)? {
        Errand::Update => Asked::Update(of()?),
        Errand::Announce => Asked::Announce,
        Errand::Routability => Asked::Routability {
            cookie: record.cookie.clone(),
            path: of()?,
            copied: record.copied,
        },
    })
}
