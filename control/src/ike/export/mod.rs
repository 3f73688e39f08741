//! An established IKE SA as a record, and back.
//!
//! The record is prost (protobuf), so that versions of the software can differ by fields. Times are
//! relative to the moment of export or import: clocks of members are never compared. `record.rs`
//! has the encoding, this file its meaning.

mod child;
mod followup;
pub(super) mod grave;
mod ike;
mod pending;
mod record;
mod roads;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{IkeSpi, Incarnation, Instant, MemberId, SaId};
use prost::Message;
use zeroize::Zeroizing;

use self::ike::{from_record, to_record};
use self::record::{IkeRecord, SaIdRecord};
use super::create::ChildOffer;
use super::established::IkeSa;
use super::followup::What;
use super::graves::Grave;
use super::output::Record;
use super::settings::Connection;
use super::tasks::{Pending, Task};
use super::turn::Ids;

/// Raised when a field changes its meaning; new fields do not raise it.
const FORMAT: u32 = 1;

/// Why a record cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImportError {
    /// Not an encoding at all.
    Encoding,
    /// Written by a version that means other things by it.
    Format(u32),
    /// A field is missing or makes no sense.
    Field(&'static str),
    /// The configuration of this member has no such connection.
    UnknownConnection(String),
    /// The record is of this IKE SA and not of the one it was given for.
    OtherIkeSa(IkeSpi),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Encoding => write!(f, "the IKE SA record is damaged"),
            ImportError::Format(format) => {
                write!(f, "IKE SA record of format {format}; update this member")
            }
            ImportError::Field(field) => write!(f, "IKE SA record with a bad `{field}`"),
            ImportError::UnknownConnection(name) => {
                write!(
                    f,
                    "no connection `{name}` here; give all members the same configuration"
                )
            }
            ImportError::OtherIkeSa(spi) => write!(f, "the record is of IKE SA {spi}"),
        }
    }
}

impl std::error::Error for ImportError {}

/// The record of an IKE SA as it is now.
pub(super) fn export(ike: &IkeSa, now: Instant) -> Record {
    let record = Zeroizing::new(to_record(ike, now));
    let mut body = Zeroizing::new(Vec::with_capacity(record.encoded_len()));
    body.extend_from_slice(&Zeroizing::new(record.encode_to_vec()));
    let children = sas(ike);
    Record { body, children }
}

/// The Child SAs that it has, and that are on their way.
fn sas(ike: &IkeSa) -> Vec<SaId> {
    let mut children: Vec<SaId> = ike.children.iter().map(|c| c.sa.id).collect();
    children.extend(offers(ike).map(|offer| offer.id));
    children.extend(ike.half_made.iter().filter_map(|half| match half.what {
        What::Child { id, .. } => Some(id),
        What::Ike { .. } => None,
    }));
    children
}

/// Child SAs that are being asked for.
fn offers(ike: &IkeSa) -> impl Iterator<Item = &ChildOffer> {
    ike.pending.values().filter_map(|pending| match pending {
        Pending::CreateChild(offer) => Some(offer),
        _ => None,
    })
}

/// What a record is of.
pub(super) enum Imported {
    IkeSa(Box<IkeSa>),
    /// It has ended; with its SPI.
    Grave(IkeSpi, Grave),
}

/// What the record of a version says; its SPIs and its running numbers are taken from then on.
pub(super) fn import(
    now: Instant,
    connections: &BTreeMap<String, Arc<Connection>>,
    ids: &mut Ids,
    version: u64,
    body: &[u8],
) -> Result<Imported, ImportError> {
    let imported = read(now, connections, version, body)?;
    let Imported::IkeSa(ike) = &imported else {
        return Ok(imported);
    };
    ids.occupy_numbers(ike.unique, sas(ike).into_iter());
    for child in &ike.children {
        ids.occupy(child.sa.inbound_spi);
    }
    for offer in offers(ike) {
        ids.occupy(offer.spi);
    }
    for scheduled in &ike.queue {
        if let Task::DeleteSpi(spi) = scheduled.task {
            ids.occupy(spi);
        }
    }
    for half in &ike.half_made {
        if let What::Child { spi, .. } = half.what {
            ids.occupy(spi);
        }
    }
    Ok(imported)
}

/// What the record of a version says, to look at.
pub(super) fn read(
    now: Instant,
    connections: &BTreeMap<String, Arc<Connection>>,
    version: u64,
    body: &[u8],
) -> Result<Imported, ImportError> {
    let record = IkeRecord::decode(body).map_err(|_| ImportError::Encoding)?;
    let record = Zeroizing::new(record);
    if record.format != FORMAT {
        return Err(ImportError::Format(record.format));
    }
    if let Some(grave) = &record.grave {
        let grave = grave::grave(grave, version, now)?;
        return Ok(Imported::Grave(IkeSpi(record.local_spi), grave));
    }
    let connection = connections
        .get(&record.connection)
        .ok_or_else(|| ImportError::UnknownConnection(record.connection.clone()))?;
    let mut ike = from_record(&record, connection.clone(), now)?;
    ike.version = version;
    Ok(Imported::IkeSa(Box::new(ike)))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ago(now: Instant, at: Instant) -> u64 {
    nanoseconds(now.since(at))
}

fn until(now: Instant, at: Instant) -> u64 {
    nanoseconds(at.since(now))
}

fn before(now: Instant, ago: u64) -> Instant {
    now.saturating_sub(Duration::from_nanos(ago))
}

fn after(now: Instant, until: u64) -> Instant {
    now + Duration::from_nanos(until)
}

fn collect<A, B>(
    records: &[A],
    convert: impl Fn(&A) -> Result<B, ImportError>,
) -> Result<Vec<B>, ImportError> {
    records.iter().map(convert).collect()
}

fn sa_id_record(id: SaId) -> SaIdRecord {
    SaIdRecord {
        creator: id.creator.0.into(),
        incarnation: id.incarnation.0,
        counter: id.counter,
    }
}

fn sa_id(record: &SaIdRecord) -> Result<SaId, ImportError> {
    Ok(SaId {
        creator: MemberId(u8::try_from(record.creator).map_err(|_| ImportError::Field("SA"))?),
        incarnation: Incarnation(record.incarnation),
        counter: record.counter,
    })
}

#[cfg(test)]
pub(super) mod tests;
