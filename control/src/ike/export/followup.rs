//! What several key exchanges make (RFC 9370): on both sides the messages of CREATE_CHILD_SA and
//! the secrets so far.

use std::collections::VecDeque;

use hitless_sa::{IkeSpi, Instant, Spi};
use zeroize::Zeroizing;

use super::record::{FollowupRecord, HalfMadeRecord};
use super::{ImportError, after, sa_id, sa_id_record, until};
use crate::ike::crypto::kex::KeyPair;
use crate::ike::followup::{Chain, Followup, HalfMade, What};
use crate::ike::message::PayloadKind;
use crate::ike::proposal::KeyExchangeMethod;

fn method(number: u32) -> Result<KeyExchangeMethod, ImportError> {
    let number = u16::try_from(number).ok();
    number
        .and_then(KeyExchangeMethod::from_number)
        .ok_or(ImportError::Field("key exchange"))
}

fn methods(numbers: &[u32]) -> Result<VecDeque<KeyExchangeMethod>, ImportError> {
    numbers.iter().copied().map(method).collect()
}

fn numbers(methods: &VecDeque<KeyExchangeMethod>) -> Vec<u32> {
    methods.iter().map(|m| m.number().into()).collect()
}

fn chain(first: u32, octets: &[u8]) -> Result<Chain, ImportError> {
    let first = u8::try_from(first).map_err(|_| ImportError::Field("payloads"))?;
    Ok(Chain {
        first: PayloadKind(first),
        octets: octets.to_vec(),
    })
}

pub(super) fn followup_record(followup: &Followup) -> FollowupRecord {
    FollowupRecord {
        first: followup.response.first.0.into(),
        response: followup.response.octets.clone(),
        done: followup.done.to_vec(),
        remaining: numbers(&followup.remaining),
        key_method: followup.key.method().number().into(),
        key: followup.key.export().to_vec(),
        link: followup.link.clone(),
    }
}

pub(super) fn followup(record: &FollowupRecord) -> Result<Followup, ImportError> {
    Ok(Followup {
        response: chain(record.first, &record.response)?,
        done: Zeroizing::new(record.done.clone()),
        remaining: methods(&record.remaining)?,
        key: KeyPair::import(method(record.key_method)?, &record.key)
            .map_err(|_| ImportError::Field("key exchange"))?,
        link: record.link.clone(),
    })
}

pub(super) fn half_made_record(half: &HalfMade, now: Instant) -> HalfMadeRecord {
    let (id, spi, replaced) = match half.what {
        What::Child { id, spi, replaced } => (Some(id), spi.0.into(), replaced),
        What::Ike { spi } => (None, spi.0, None),
    };
    HalfMadeRecord {
        id: id.map(sa_id_record),
        spi,
        replaced: replaced.map(sa_id_record),
        first: half.request.first.0.into(),
        request: half.request.octets.clone(),
        nonce: half.nonce.clone(),
        shared: half.shared.to_vec(),
        done: half.done.to_vec(),
        remaining: numbers(&half.remaining),
        link: half.link.clone(),
        until: until(now, half.until),
    }
}

pub(super) fn half_made(record: &HalfMadeRecord, now: Instant) -> Result<HalfMade, ImportError> {
    let what = match &record.id {
        Some(id) => What::Child {
            id: sa_id(id)?,
            spi: Spi(u32::try_from(record.spi).map_err(|_| ImportError::Field("spi"))?),
            replaced: record.replaced.as_ref().map(sa_id).transpose()?,
        },
        None => What::Ike {
            spi: IkeSpi(record.spi),
        },
    };
    Ok(HalfMade {
        what,
        request: chain(record.first, &record.request)?,
        nonce: record.nonce.clone(),
        shared: Zeroizing::new(record.shared.clone()),
        done: Zeroizing::new(record.done.clone()),
        remaining: methods(&record.remaining)?,
        link: record.link.clone(),
        until: after(now, record.until),
    })
}
