//! How long SAs live, in time, octets and packets: when they are replaced, and when they end though
//! nothing has replaced them. Every member draws the margin of chance once, when the SA is made;
//! the limits that result are the SA's, and fail over with it.

use std::time::Duration;

use hitless_sa::{Instant, SaId};

use crate::ike::auth::Authenticated;
use crate::ike::child::ChildState;
use crate::ike::engine::Engine;
use crate::ike::established::IkeSa;
use crate::ike::output::Event;
use crate::ike::settings::{Child, Connection};
use crate::ike::tasks::Task;
use crate::ike::turn::Turn;

/// `life_time`, `rand_time`, `rekey_bytes` and their kin, of a child.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lifetimes {
    /// The end, replaced or not; none for never.
    pub life_time: Option<Duration>,
    /// Up to so much sooner than `rekey_time`; none for a tenth of that.
    pub rand_time: Option<Duration>,
    pub bytes: Volume,
    pub packets: Volume,
}

/// Octets or packets of either direction; zero for any number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Volume {
    pub rekey: u64,
    pub life: u64,
    pub rand: u64,
}

/// What one Child SA may carry: after drawing lots.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::ike) struct Limits {
    pub bytes: Limit,
    pub packets: Limit,
}

/// Zero for none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::ike) struct Limit {
    pub rekey: u64,
    pub life: u64,
}

impl Limit {
    fn draw(volume: Volume, turn: &mut Turn<'_>) -> Limit {
        let less = match volume.rand {
            0 => 0,
            most => turn.entropy.u64() % most.saturating_add(1),
        };
        let rekey = match volume.rekey {
            0 => 0,
            // At once is sooner than never.
            rekey => rekey.saturating_sub(less).max(1),
        };
        Limit {
            rekey,
            life: volume.life,
        }
    }

    fn to_replace(self, used: u64) -> bool {
        self.rekey != 0 && used >= self.rekey
    }

    fn to_end(self, used: u64) -> bool {
        self.life != 0 && used >= self.life
    }
}

impl Limits {
    pub fn draw(child: &Child, turn: &mut Turn<'_>) -> Limits {
        Limits {
            bytes: Limit::draw(child.lifetimes.bytes, turn),
            packets: Limit::draw(child.lifetimes.packets, turn),
        }
    }

    fn to_replace(self, bytes: u64, packets: u64) -> bool {
        self.bytes.to_replace(bytes) || self.packets.to_replace(packets)
    }

    fn to_end(self, bytes: u64, packets: u64) -> bool {
        self.bytes.to_end(bytes) || self.packets.to_end(packets)
    }
}

/// When a Child SA is to be replaced.
pub(in crate::ike) fn child_rekey_at(child: &Child, turn: &mut Turn<'_>) -> Option<Instant> {
    rekey_at(child.rekey_time, child.lifetimes.rand_time, turn)
}

/// When a Child SA ends.
pub(in crate::ike) fn child_life_at(child: &Child, turn: &Turn<'_>) -> Option<Instant> {
    child.lifetimes.life_time.map(|time| turn.now + time)
}

/// When an IKE SA is to be rekeyed.
pub(in crate::ike) fn ike_rekey_at(
    connection: &Connection,
    turn: &mut Turn<'_>,
) -> Option<Instant> {
    rekey_at(connection.rekey_time, connection.session.rand_time, turn)
}

fn rekey_at(time: Duration, rand: Option<Duration>, turn: &mut Turn<'_>) -> Option<Instant> {
    let Some(rand) = rand else {
        return turn.lifetime(time);
    };
    let most = u64::try_from(rand.min(time).as_nanos()).unwrap_or(u64::MAX);
    let less = turn.entropy.u64() % most.saturating_add(1);
    (!time.is_zero()).then(|| turn.now + (time - Duration::from_nanos(less)))
}

/// When an IKE SA ends that was neither rekeyed nor replaced: `over_time` after the sooner of both.
pub(in crate::ike) fn ike_life_at(connection: &Connection, now: Instant) -> Option<Instant> {
    let times = [connection.rekey_time, connection.auth.reauth_time];
    let due = times.into_iter().filter(|time| !time.is_zero()).min()?;
    connection.session.over_time.map(|over| now + due + over)
}

impl IkeSa {
    /// How the peer proved who it is. No IKE SA outlives the certificate that its peer showed, whoever
    /// rekeys it and whoever leads it.
    pub fn rest_on(&mut self, authenticated: Authenticated, turn: &Turn<'_>) {
        self.authenticated = authenticated;
        let ends = [self.session.life_at, self.authenticated.expires_at(turn)];
        self.session.life_at = ends.into_iter().flatten().min();
    }

    /// Ends what has lived too long.
    pub fn end_of_life(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        // A successor that is being made has a life of its own.
        if self.life_at().is_some_and(|at| at <= now) {
            self.session.life_at = None;
            let expires_at = self.authenticated.expires_at(turn);
            if expires_at.is_some_and(|at| at <= now) {
                turn.events.push(Event::AuthenticationFailed {
                    peer: self.path.remote,
                    reason: format!("the certificate of {} has expired", self.remote_id),
                });
            }
            self.schedule(now, Task::DeleteIke);
            turn.dirty = true;
        }
        let mut ended = Vec::new();
        for child in &mut self.children {
            if child.life_at.is_some_and(|at| at <= now) {
                child.life_at = None;
                ended.push(child.sa.id);
            }
        }
        for id in ended {
            turn.dirty = true;
            self.end_child(now, id);
        }
    }

    /// When it is to end if it has no successor by then; not while one is being asked for, for the
    /// peer's answer decides.
    pub fn life_at(&self) -> Option<Instant> {
        self.session.life_at.filter(|_| !self.is_rekeying())
    }

    fn end_child(&mut self, now: Instant, id: SaId) {
        if self
            .child(id)
            .is_none_or(|c| c.state == ChildState::Deleting)
        {
            return;
        }
        self.queue.retain(|s| s.task != Task::RekeyChild(id));
        self.schedule(now, Task::DeleteChild(id));
    }

    /// What a Child SA has carried so far, in the direction that carried more.
    fn carried(&mut self, now: Instant, id: SaId, bytes: u64, packets: u64) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        let (limits, state) = (child.limits, child.state);
        if limits.to_end(bytes, packets) {
            child.limits = Limits::default();
            self.end_child(now, id);
        } else if limits.to_replace(bytes, packets) {
            child.limits.bytes.rekey = 0;
            child.limits.packets.rekey = 0;
            if state == ChildState::Installed {
                self.schedule(now, Task::RekeyChild(id));
            }
        }
    }
}

impl Engine {
    /// Whether a Child SA has carried so much that `Input::Carried` will do something about it.
    pub fn is_spent(&self, sa: SaId, bytes: u64, packets: u64) -> bool {
        let ike = self.ike_of(sa).and_then(|ike| self.sas.get(&ike));
        let limits = ike.and_then(|ike| ike.child(sa)).map(|child| child.limits);
        limits.is_some_and(|l| l.to_replace(bytes, packets) || l.to_end(bytes, packets))
    }

    pub(in crate::ike) fn carried(
        &mut self,
        now: Instant,
        entropy: &mut dyn hitless_sa::Entropy,
        sa: SaId,
        (bytes, packets): (u64, u64),
    ) {
        if self.is_spent(sa, bytes, packets) {
            self.order_of_child(now, entropy, sa, |ike| {
                ike.carried(now, sa, bytes, packets);
            });
        }
    }
}
