//! The outstanding request with its secrets, and what waits for it.

use hitless_sa::{IkeSpi, Instant, Spi};

use super::child::closing;
use super::followup::{followup, followup_record};
use super::record::{CollisionRecord, OfferRecord, PendingRecord, TaskRecord};
use super::{ImportError, after, collect, roads, sa_id, sa_id_record, until};
use crate::ike::child::Closing;
use crate::ike::create::{ChildOffer, Collision};
use crate::ike::crypto::kex::KeyPair;
use crate::ike::proposal::KeyExchangeMethod;
use crate::ike::rekey::{IkeCollision, IkeOffer};
use crate::ike::tasks::{Pending, Scheduled, Task};

pub(super) fn task_record(scheduled: &Scheduled, now: Instant) -> TaskRecord {
    TaskRecord {
        due_in: until(now, scheduled.at),
        ..duty_record(&scheduled.task)
    }
}

fn duty_record(task: &Task) -> TaskRecord {
    let mut record = TaskRecord::default();
    match task {
        Task::CreateChild(name) => {
            record.kind = 1;
            record.child = name.clone();
        }
        Task::RekeyChild(id) => {
            record.kind = 2;
            record.sa = Some(sa_id_record(*id));
        }
        Task::RekeyIke => record.kind = 3,
        Task::DeleteChild(id) => {
            record.kind = 4;
            record.sa = Some(sa_id_record(*id));
        }
        Task::DeleteSpi(spi) => {
            record.kind = 5;
            record.spi = spi.0;
        }
        Task::DeleteIke => record.kind = 6,
        Task::Liveness => record.kind = 7,
        Task::CrashToken => record.kind = 100,
        Task::Redirect(to) => {
            record.kind = 90;
            record.child = to.to_string();
        }
        Task::AskTicket => record.kind = 101,
        Task::Mobike(errand) => record.kind = roads::errand_kind(*errand),
    }
    record
}

pub(super) fn scheduled(record: &TaskRecord, now: Instant) -> Result<Scheduled, ImportError> {
    Ok(Scheduled {
        at: after(now, record.due_in),
        task: task(record)?,
    })
}

fn task(record: &TaskRecord) -> Result<Task, ImportError> {
    let sa = record.sa.as_ref().map(sa_id).transpose()?;
    Ok(match (record.kind, sa) {
        (1, _) => Task::CreateChild(record.child.clone()),
        (2, Some(id)) => Task::RekeyChild(id),
        (3, _) => Task::RekeyIke,
        (4, Some(id)) => Task::DeleteChild(id),
        (5, _) => Task::DeleteSpi(Spi(record.spi)),
        (6, _) => Task::DeleteIke,
        (7, _) => Task::Liveness,
        (100, _) => Task::CrashToken,
        (90, _) => Task::Redirect(super::ike::gateway(&record.child)?),
        (101, _) => Task::AskTicket,
        (60..=62, _) => Task::Mobike(roads::errand(record.kind)?),
        _ => return Err(ImportError::Field("task")),
    })
}

fn offer_record(key: Option<&KeyPair>) -> OfferRecord {
    OfferRecord {
        key_method: key.map(|k| u32::from(k.method().number())),
        key: key.map_or_else(Vec::new, |k| k.export().to_vec()),
        ..OfferRecord::default()
    }
}

pub(super) fn pending_record(pending: &Pending) -> PendingRecord {
    let mut record = PendingRecord::default();
    match pending {
        Pending::CreateChild(offer) => {
            record.kind = 1;
            record.offer = Some(OfferRecord {
                child: offer.child.clone(),
                id: Some(sa_id_record(offer.id)),
                spi: offer.spi.0.into(),
                nonce: offer.nonce.clone(),
                replaces: offer.replaces.map(sa_id_record),
                retries: offer.retries.into(),
                followup: offer.followup.as_ref().map(followup_record),
                terminated: offer.closing == Some(Closing::ForGood),
                again: offer.closing == Some(Closing::Again),
                collision: offer.collision.as_ref().map(|c| CollisionRecord {
                    sa: Some(sa_id_record(c.sa)),
                    ike: 0,
                    lowest: c.lowest.clone(),
                }),
                ..offer_record(offer.key.as_ref())
            });
        }
        Pending::RekeyIke(offer) => {
            record.kind = 2;
            record.offer = Some(OfferRecord {
                spi: offer.spi.0,
                nonce: offer.nonce.clone(),
                retries: offer.retries.into(),
                followup: offer.followup.as_ref().map(followup_record),
                collision: offer.collision.as_ref().map(|c| CollisionRecord {
                    sa: None,
                    ike: c.ike.0,
                    lowest: c.lowest.clone(),
                }),
                ..offer_record(Some(&offer.key))
            });
        }
        Pending::DeleteChildren(ids) => {
            record.kind = 3;
            record.children = ids.iter().copied().map(sa_id_record).collect();
        }
        Pending::DeleteIke => record.kind = 4,
        Pending::Liveness => record.kind = 5,
        // Older versions know of no duty, and lose it only if they take over inexactly.
        Pending::Duty(task) => {
            record.kind = 5;
            record.duty = Some(duty_record(task));
        }
        Pending::Filler => record.kind = 80,
        Pending::Mobike(asked) => roads::asked_record(asked, &mut record),
    }
    record
}

pub(super) fn pending(record: &PendingRecord) -> Result<Pending, ImportError> {
    let offer = || record.offer.as_ref().ok_or(ImportError::Field("offer"));
    Ok(match record.kind {
        1 => Pending::CreateChild(child_offer(offer()?)?),
        2 => Pending::RekeyIke(ike_offer(offer()?)?),
        3 => Pending::DeleteChildren(collect(&record.children, sa_id)?),
        4 => Pending::DeleteIke,
        5 => match &record.duty {
            Some(duty) => Pending::Duty(task(duty)?),
            None => Pending::Liveness,
        },
        80 => Pending::Filler,
        60..=62 => Pending::Mobike(roads::asked(record)?),
        _ => return Err(ImportError::Field("pending")),
    })
}

fn key_pair(record: &OfferRecord) -> Result<Option<KeyPair>, ImportError> {
    let Some(number) = record.key_method else {
        return Ok(None);
    };
    let bad = ImportError::Field("key exchange");
    let method = u16::try_from(number)
        .ok()
        .and_then(KeyExchangeMethod::from_number);
    let method = method.ok_or(bad.clone())?;
    KeyPair::import(method, &record.key)
        .map(Some)
        .map_err(|_| bad)
}

fn child_offer(record: &OfferRecord) -> Result<ChildOffer, ImportError> {
    let collision = |c: &CollisionRecord| {
        let sa = c.sa.as_ref().ok_or(ImportError::Field("collision"))?;
        Ok(Collision {
            sa: sa_id(sa)?,
            lowest: c.lowest.clone(),
        })
    };
    Ok(ChildOffer {
        child: record.child.clone(),
        id: sa_id(record.id.as_ref().ok_or(ImportError::Field("offer"))?)?,
        spi: Spi(u32::try_from(record.spi).map_err(|_| ImportError::Field("spi"))?),
        nonce: record.nonce.clone(),
        key: key_pair(record)?,
        replaces: record.replaces.as_ref().map(sa_id).transpose()?,
        collision: record.collision.as_ref().map(collision).transpose()?,
        retries: u8::try_from(record.retries).unwrap_or(u8::MAX),
        closing: closing(record.terminated, record.again),
        followup: record.followup.as_ref().map(followup).transpose()?,
    })
}

fn ike_offer(record: &OfferRecord) -> Result<IkeOffer, ImportError> {
    Ok(IkeOffer {
        spi: IkeSpi(record.spi),
        nonce: record.nonce.clone(),
        key: key_pair(record)?.ok_or(ImportError::Field("key exchange"))?,
        collision: record.collision.as_ref().map(|c| IkeCollision {
            ike: IkeSpi(c.ike),
            lowest: c.lowest.clone(),
        }),
        retries: u8::try_from(record.retries).unwrap_or(u8::MAX),
        followup: record.followup.as_ref().map(followup).transpose()?,
    })
}
