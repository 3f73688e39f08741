//! What would be lost if the active died now: the truth behind `hitless cluster status`.
//!
//! The leader reckons from what its standbys have acknowledged, a standby from what it has
//! recorded: the same leases that a takeover would go by, so the prediction is a bound and no guess.

use std::collections::BTreeMap;
use std::ops::Bound;

use hitless_sa::SaId;

use crate::fitness::{Drill, Flaw};
use crate::leading::{Leading, LedSa};
use crate::node::State;
use crate::session::Session;
use crate::store::{Recorded, Store};
use crate::{Node, ObjectId};

/// SAs that are named one by one at most.
const NAMED: usize = 64;

/// Why a standby could not carry an SA on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unserved {
    /// No member could take over now: none has the right, or who has it is silent, does not answer, is
    /// ill or has not tried its copies.
    NoStandby,
    /// The record that announces the SA is on its way to some standby.
    Unrecorded,
    /// Its keys may only be replaced: nobody holds a right to them.
    NoRight,
    /// The record is of an earlier session: its lease may be overtaken.
    Stale,
    /// Something is wrong with a standby's copy of it.
    Drill(Flaw),
}

impl Unserved {
    /// For an operator.
    pub fn reason(self) -> &'static str {
        match self {
            Unserved::NoStandby => "no member could take over now",
            Unserved::Unrecorded => "its record is not acknowledged yet",
            Unserved::NoRight => "nobody has a right to its keys; it is being replaced",
            Unserved::Drill(flaw) => flaw.reason(),
            Unserved::Stale => "its record is of an earlier session; it would be replaced",
        }
    }
}

/// All SAs of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassRisk {
    pub sas: usize,
    /// Outbound numbers that a takeover would leave out, of the SA with the most. They cost
    /// nothing but number space.
    pub greatest_skip: u64,
    /// Inbound packets that a strict takeover might refuse, of the SA with the most...
    pub greatest_blackout: u64,
    /// ... and of all together.
    pub packets_at_risk: u64,
    /// What IPSEC_REPLAY_COUNTER_SYNC would ask the peer for, `H - c` (RFC 6311 section 5.2), of the
    /// SA with the most: `c` is the newest checkpoint.
    pub greatest_delta: u64,
    /// Numbers that the active may still use without another acknowledgement, of the SA with the
    /// fewest.
    pub least_remaining: Option<u64>,
}

/// What a takeover now would mean.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Risk {
    /// Members that could take over.
    pub standbys: usize,
    /// With extended sequence numbers, and with 32-bit ones.
    pub extended: ClassRisk,
    pub short: ClassRisk,
    /// SAs that some standby could not carry on, and the first of them with the reason.
    pub unserved: usize,
    pub named: Vec<(SaId, Unserved)>,
    /// Objects whose newest state some standby has not acknowledged: what waits is held back.
    pub behind: usize,
    /// Message IDs would be exact.
    pub exact: bool,
}

/// One SA, as a takeover would find it.
struct Fate {
    esn: bool,
    skip: u64,
    blackout: u64,
    delta: u64,
    remaining: Option<u64>,
}

impl Risk {
    fn add(&mut self, sa: SaId, fate: Result<Fate, Unserved>) {
        let fate = match fate {
            Ok(fate) => fate,
            Err(why) => {
                self.unserved += 1;
                if self.named.len() < NAMED {
                    self.named.push((sa, why));
                }
                return;
            }
        };
        let class = if fate.esn {
            &mut self.extended
        } else {
            &mut self.short
        };
        class.sas += 1;
        class.greatest_skip = class.greatest_skip.max(fate.skip);
        class.greatest_blackout = class.greatest_blackout.max(fate.blackout);
        class.greatest_delta = class.greatest_delta.max(fate.delta);
        class.packets_at_risk = class.packets_at_risk.saturating_add(fate.blackout);
        class.least_remaining = match (class.least_remaining, fate.remaining) {
            (Some(least), Some(one)) => Some(least.min(one)),
            (least, one) => least.or(one),
        };
    }
}

/// A reckoning under way: of tens of thousands of SAs it takes longer than heartbeats should wait.
#[derive(Default)]
pub struct Reckoning {
    risk: Risk,
    objects: Option<ObjectId>,
    sas: Option<SaId>,
}

impl Reckoning {
    /// What it came to, so far.
    pub fn risk(self) -> Risk {
        self.risk
    }
}

impl Node {
    /// What would be lost if the active died now, as far as this member knows.
    pub fn risk(&self) -> Risk {
        let mut reckoning = Reckoning::default();
        self.reckon(&mut reckoning, usize::MAX);
        reckoning.risk
    }

    /// Goes on with a reckoning by so many objects and SAs at most; false when it is over. Nothing else
    /// may happen to the node in between but a beat.
    pub fn reckon(&self, reckoning: &mut Reckoning, most: usize) -> bool {
        let (store, session) = match &self.state {
            State::Leading(leading) => {
                let able: Vec<&Session> = self.able(self.now, leading).map(|(_, s)| s).collect();
                return led(reckoning, most, leading, &able);
            }
            State::Following(following) => {
                let risk = &mut reckoning.risk;
                risk.standbys = usize::from(
                    following.admitted && self.carries() && self.disk_fails().is_none(),
                );
                risk.exact = following.vouched(self.now, &self.settings);
                (&self.store, following.session)
            }
            State::TakingOver(_) | State::Out(_) => (&self.store, 0),
        };
        recorded(reckoning, most, store, (session, &self.drill))
    }
}

/// So many entries behind the last one.
fn behind<K: Copy + Ord, V>(
    all: &BTreeMap<K, V>,
    last: Option<K>,
    most: usize,
) -> impl Iterator<Item = (K, &V)> {
    let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
    let behind = all.range((behind, Bound::Unbounded));
    behind.take(most).map(|(key, value)| (*key, value))
}

fn led(reckoning: &mut Reckoning, most: usize, leading: &Leading, able: &[&Session]) -> bool {
    let risk = &mut reckoning.risk;
    let mut left = most;
    // What is held waits for those too that could not take over now.
    let sessions = leading.sessions.values();
    let bound: Vec<&Session> = sessions.filter(|s| s.bound.is_some()).collect();
    for (object, led) in behind(&leading.objects, reckoning.objects, left) {
        reckoning.objects = Some(object);
        left -= 1;
        let known = bound.iter().all(|session| session.has(object, led.version));
        risk.behind += usize::from(!known);
    }
    for (sa, led) in behind(&leading.sas, reckoning.sas, left) {
        reckoning.sas = Some(sa);
        left -= 1;
        risk.add(sa, fate(able, sa, led));
    }
    if left == 0 {
        return true;
    }
    risk.standbys = able.len();
    risk.exact = !able.is_empty() && able.iter().all(|session| !session.unvouched);
    // Those that a standby has and did not name.
    let more = able.iter().map(|session| session.broken.more).max();
    risk.unserved = risk.unserved.saturating_add(more.unwrap_or(0));
    // Nor has any been offered what this member has inherited and not gone on with yet.
    let (_, inherited) = leading.estate.len();
    risk.unserved = risk.unserved.saturating_add(inherited);
    false
}

/// The standby with the highest record would skip the most.
fn fate(able: &[&Session], sa: SaId, led: &LedSa) -> Result<Fate, Unserved> {
    if !led.right {
        return Err(Unserved::NoRight);
    }
    if able.is_empty() {
        return Err(Unserved::NoStandby);
    }
    let mut fate = Fate {
        esn: led.esn,
        skip: 0,
        blackout: 0,
        delta: 0,
        remaining: Some((led.limit.grant.0 + 1).saturating_sub(led.cursor)),
    };
    for session in able {
        if let Some(flaw) = session.broken.flaw(sa) {
            return Err(Unserved::Drill(flaw));
        }
        let acked = session.shares.get(&sa).copied().unwrap_or_default();
        if acked == Default::default() {
            return Err(Unserved::Unrecorded);
        }
        // What was offered may be recorded although its acknowledgement is on its way.
        let lease = acked.max(led.offered);
        let skip = (lease.grant.0 + 1).saturating_sub(led.cursor);
        fate.skip = fate.skip.max(skip);
        let blackout = lease.high_water.0.saturating_sub(led.top);
        fate.blackout = fate.blackout.max(blackout);
        let seen = led.checkpoint.unwrap_or_default().inbound_top.0;
        fate.delta = fate.delta.max(lease.high_water.0.saturating_sub(seen));
    }
    Ok(fate)
}

fn recorded(
    reckoning: &mut Reckoning,
    most: usize,
    store: &Store,
    (session, drill): (u64, &Drill),
) -> bool {
    let mut left = most;
    for (sa, recorded) in behind(&store.sas, reckoning.sas, left) {
        reckoning.sas = Some(sa);
        left -= 1;
        let fate = match drill.broken.get(&sa) {
            Some(flaw) => Err(Unserved::Drill(*flaw)),
            None => remembered(recorded, session),
        };
        reckoning.risk.add(sa, fate);
    }
    left == 0
}

fn remembered(recorded: &Recorded, session: u64) -> Result<Fate, Unserved> {
    if recorded.no_right {
        return Err(Unserved::NoRight);
    }
    if recorded.session != session {
        return Err(Unserved::Stale);
    }
    let checkpoint = recorded.checkpoint.unwrap_or_default();
    let next = checkpoint.outbound_next.0.max(1);
    let delta = recorded
        .lease
        .high_water
        .0
        .saturating_sub(checkpoint.inbound_top.0);
    Ok(Fate {
        esn: recorded.esn,
        skip: (recorded.lease.grant.0 + 1).saturating_sub(next),
        blackout: delta,
        delta,
        remaining: None,
    })
}
