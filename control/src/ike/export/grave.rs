//! What is left of an IKE SA that the peer deleted.

use hitless_sa::{IkeSpi, Instant};
use prost::Message;
use zeroize::Zeroizing;

use super::record::{GraveRecord, IkeRecord, TransmitRecord};
use super::{FORMAT, ImportError, after, collect, until};
use crate::ike::graves::{Grave, LIFE};
use crate::ike::output::{Record, Transmit};

/// The record that takes the place of the IKE SA's own.
pub(in crate::ike) fn export(spi: IkeSpi, grave: &Grave, now: Instant) -> Record {
    let record = IkeRecord {
        format: FORMAT,
        local_spi: spi.0,
        grave: Some(GraveRecord {
            request: grave.request.clone(),
            responses: grave.responses.iter().map(transmit_record).collect(),
            levelled_in: until(now, grave.until),
        }),
        ..IkeRecord::default()
    };
    Record {
        body: Zeroizing::new(record.encode_to_vec()),
        children: Vec::new(),
    }
}

/// The grave of a record.
pub(super) fn grave(
    record: &GraveRecord,
    version: u64,
    now: Instant,
) -> Result<Grave, ImportError> {
    let responses = collect(&record.responses, transmit)?;
    Ok(Grave {
        request: record.request.clone(),
        version,
        responses,
        // No member keeps one for longer, whatever another one says.
        until: after(now, record.levelled_in).min(now + LIFE),
    })
}

fn transmit_record(transmit: &Transmit) -> TransmitRecord {
    TransmitRecord {
        local: transmit.local.to_string(),
        remote: transmit.remote.to_string(),
        payload: transmit.payload.clone(),
    }
}

fn transmit(record: &TransmitRecord) -> Result<Transmit, ImportError> {
    let address = |text: &str| text.parse().map_err(|_| ImportError::Field("grave"));
    Ok(Transmit {
        local: address(&record.local)?,
        remote: address(&record.remote)?,
        payload: record.payload.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_grave_is_imported_as_it_was_exported() {
        let now = Instant(9_000_000_000);
        let response = Transmit {
            local: "192.0.2.1:500".parse().unwrap(),
            remote: "[2001:db8::1]:4500".parse().unwrap(),
            payload: vec![1, 2, 3],
        };
        let mut kept = Grave::new(now, b"request", 4, vec![response]);
        let record = export(IkeSpi(7), &kept, now + Duration::from_secs(1));
        let decoded = IkeRecord::decode(&record.body[..]).unwrap();
        // Clocks of members are never compared.
        let there = Instant(77_000_000_000);
        let copy = grave(decoded.grave.as_ref().unwrap(), 4, there).unwrap();
        kept.until = there + (LIFE - Duration::from_secs(1));
        assert_eq!(copy, kept);
        for length in 0..record.body.len() {
            if let Ok(cut) = IkeRecord::decode(&record.body[..length]) {
                let _ = cut.grave.map(|cut| grave(&cut, 4, there));
            }
        }
    }
}
