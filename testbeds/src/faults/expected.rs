//! What has to come of each fault, and what it may cost at most: in the timers that the members are
//! configured with, so that it is the same promise on a slow machine and on a fast one. What the
//! machine made members wait for a core is added where it is judged.

use std::time::Duration;

use super::kinds::Fault;
use super::{BEYOND, Wish};

/// Heartbeats beyond those that are to be missed: one was on its way when the other member died, and
/// who waits looks at each of its own.
const HEARTBEATS_BEYOND: u32 = 2;
/// From the decision to the first ESP packet. The decision itself comes a heartbeat after the last one
/// that is to be missed at most, since who waits looks at each of its own: 50 ms at the default timers.
const SWIFT: Duration = Duration::from_millis(10);
/// What workers have to come to an end before the other member leads (`BARRIER` of the sync protocol),
/// and how often a member looks whether its links are up.
const BARRIER: Duration = Duration::from_millis(100);
const LINKS: Duration = Duration::from_millis(10);
/// A worker is asked for a sign of life every 20 ms, and is stuck after 200 without.
const STUCK: Duration = Duration::from_millis(220);
/// A next hop is asked every 250 ms, and has died with the fifth question that is not answered.
const NEXT_HOP: Duration = Duration::from_millis(1_500);
/// After a takeover inbound numbers up to the high water count as seen. It reaches four heartbeats
/// ahead, 50 ms at least; after so long, and a margin, an SA of which packets are refused is replaced.
const HIGH_WATER_HEARTBEATS: u32 = 4;
const HIGH_WATER: Duration = Duration::from_millis(50);
const MARGIN: Duration = Duration::from_millis(50);
/// However slow a tunnel is, it reaches so many packets ahead, and is raised when half of that is left.
const HIGH_WATER_LEAST: f64 = 8.0;
/// A standby's word is waited for during so many takeovers, and so long at least.
const VOUCH_TAKEOVERS: u32 = 3;
const VOUCH: Duration = Duration::from_millis(50);
/// What one of two leaders replaced, the other one finds by its silence, two seconds; and where both
/// used a Message ID the next request may have to be repeated, which happens after so long again.
const STALE: Duration = Duration::from_secs(4);
/// For CREATE_CHILD_SA of every tunnel at once: two engines and charon share two cores.
const REKEY: Duration = Duration::from_millis(50);
const REKEY_EACH: Duration = Duration::from_millis(5);

/// What has to come of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    pub takeover: Takeover,
    pub cost: Cost,
    /// A silence of a member that makes it look dead. If the machine keeps a thread from running for
    /// half of it, both may lead, and no time is one that hitless took.
    pub silence: Duration,
    /// It shows by silence: the one who takes over has missed heartbeats of this length, so many, and
    /// not more than so many more.
    pub missed: Option<(Duration, u32)>,
    /// Both lead for longer than a takeover takes. Where they are not to, one does not use Message IDs
    /// that the other one used.
    pub split: bool,
}

/// Whether another member takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takeover {
    /// In this time, and what the machine makes it wait.
    Within(Duration),
    /// Of somebody else, who is only measured; or of two that lead at once: whose ESP is seen is a
    /// question of what the switches learnt last.
    AtAnyTime,
    /// Heartbeats may be lost, so many in a row that another one leads; or not.
    Perhaps,
    Never,
}

/// What hosts may feel of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// None may wait for longer than `longest`, and none is lost but inbound ones, for `refused`.
    Delay {
        longest: Duration,
        refused: Duration,
    },
    /// Traffic may be away for so long each way, and what was sent meanwhile is lost.
    Outage {
        inbound: Duration,
        outbound: Duration,
    },
    /// Of somebody else.
    Anything,
}

impl Cost {
    /// How long nothing at all may arrive, inbound and outbound.
    pub fn outage(self) -> Option<[Duration; 2]> {
        match self {
            Cost::Delay { longest, refused } => Some([longest + refused, longest]),
            Cost::Outage { inbound, outbound } => Some([inbound, outbound]),
            Cost::Anything => None,
        }
    }

    /// The longest time in which something may be felt.
    pub fn longest(self) -> Duration {
        let [inbound, outbound] = self.outage().unwrap_or_default();
        inbound.max(outbound)
    }

    /// How long everything that is sent may be lost, both ways together.
    pub fn loss(self) -> Option<Duration> {
        match self {
            Cost::Delay { refused, .. } => Some(refused),
            Cost::Outage { inbound, outbound } => Some(inbound + outbound),
            Cost::Anything => None,
        }
    }
}

/// How many heartbeats are missed at most where `missed` are to be.
pub fn most_missed(missed: u32) -> u32 {
    missed + HEARTBEATS_BEYOND
}

impl Fault {
    /// What has to come of it.
    pub fn expected(self, wish: &Wish) -> Expected {
        let heartbeat = Duration::from_millis(u64::from(wish.heartbeat_ms));
        let silence = heartbeat * wish.missed;
        // One that is silent is replaced; one that is asked to hand over does that in the meantime.
        let dead = heartbeat * most_missed(wish.missed) + BEYOND;
        let replaced = heartbeat * (wish.missed + 1) + SWIFT;
        let handed = BARRIER + heartbeat * HEARTBEATS_BEYOND + BEYOND;
        let blackout = blackout(wish, heartbeat);
        let lost = |after: Duration, blackout: Duration| Cost::Outage {
            inbound: after + blackout,
            outbound: after,
        };
        let none = Duration::ZERO;
        let delay = |longest: Duration| Cost::Delay {
            longest,
            refused: none,
        };
        let (takeover, cost) = match self {
            Fault::Kill
            | Fault::Zombie
            | Fault::DiskFull
            | Fault::SyncSize
            | Fault::SyncToStandby => (Takeover::Within(replaced), lost(dead, blackout)),
            // A few false takeovers at worst, one after the other, and what was lost is sent again.
            Fault::SyncLoss => (Takeover::Perhaps, lost(dead * 2 + STALE, blackout * 2)),
            // What it held is not handed over: the worker does not answer.
            Fault::StuckWorker => (
                Takeover::Within(STUCK + handed),
                lost(STUCK + handed, blackout),
            ),
            // Both lead until it is over. Then one of them does, and knows nothing of what the other
            // one has received meanwhile, nor of what it has replaced.
            Fault::SyncCut => (Takeover::AtAnyTime, lost(dead * 2 + STALE, blackout * 2)),
            Fault::Switchover | Fault::Restarts => (Takeover::Within(handed), delay(handed)),
            // Its word is waited for until it counts as gone.
            Fault::StandbyDown | Fault::SyncToActive => {
                let (longest, refused) = (dead, starved(wish, heartbeat));
                (Takeover::Never, Cost::Delay { longest, refused })
            }
            Fault::ClockStep => (Takeover::Never, delay(dead)),
            Fault::ProtectedDown | Fault::OutsideDown => {
                (Takeover::Within(LINKS + handed), lost(LINKS + handed, none))
            }
            Fault::NextHop => (
                Takeover::Within(NEXT_HOP + handed),
                lost(NEXT_HOP + handed, none),
            ),
        };
        let silent = matches!(
            self,
            Fault::Kill
                | Fault::Zombie
                | Fault::SyncToStandby
                | Fault::SyncCut
                | Fault::SyncSize
                | Fault::DiskFull
        );
        Expected {
            takeover,
            cost,
            silence,
            missed: silent.then_some((heartbeat, wish.missed)),
            split: self == Fault::SyncCut,
        }
    }
}

/// How long inbound packets are refused after a takeover that is not planned: until each tunnel has a
/// Child SA in the place of that whose numbers are below the high water, and sends the next packet.
fn blackout(wish: &Wish, heartbeat: Duration) -> Duration {
    let noticed = (heartbeat * HIGH_WATER_HEARTBEATS).max(HIGH_WATER) + MARGIN;
    let pause = Duration::from_secs(1) * u32::from(wish.busy()) / wish.rate.max(1);
    noticed + REKEY + REKEY_EACH * u32::from(wish.busy()) + pause * 2
}

/// How long a tunnel's inbound packets are refused where nobody acknowledges a higher high water: from
/// when the least that is left of it is used up until the Child SA has been replaced. That begins when
/// the standby's word is not waited for any more, after three takeovers.
fn starved(wish: &Wish, heartbeat: Duration) -> Duration {
    let spoken_for = (heartbeat * wish.missed * VOUCH_TAKEOVERS).max(VOUCH);
    let rate = f64::from(wish.rate) / f64::from(wish.busy().max(1));
    let reach = (heartbeat * HIGH_WATER_HEARTBEATS).max(HIGH_WATER);
    let least = (rate * reach.as_secs_f64()).max(HIGH_WATER_LEAST) / 2.0;
    let left = match rate > 0.0 {
        true => Duration::from_secs_f64(least / rate),
        false => Duration::MAX,
    };
    (spoken_for + heartbeat + REKEY).saturating_sub(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(heartbeat_ms: u32, missed: u32) -> Wish {
        Wish {
            tunnels: 40,
            rate: 400,
            heartbeat_ms,
            missed,
            ..Wish::default()
        }
    }

    #[test]
    fn a_takeover_has_the_time_that_the_timers_give_it() {
        let within = |fault: Fault, wish: &Wish| match fault.expected(wish).takeover {
            Takeover::Within(limit) => Some(limit.as_millis()),
            _ => None,
        };
        let (default, patient) = (wish(10, 3), wish(50, 4));
        assert_eq!(within(Fault::Kill, &default), Some(50));
        assert_eq!(within(Fault::Kill, &patient), Some(260));
        assert_eq!(within(Fault::Switchover, &default), Some(140));
        assert_eq!(within(Fault::NextHop, &default), Some(1_640));
        assert_eq!(within(Fault::StandbyDown, &default), None);
    }

    #[test]
    fn what_nobody_dies_of_loses_nothing() {
        for fault in Fault::ALL {
            let lossless = matches!(
                fault,
                Fault::Switchover
                    | Fault::Restarts
                    | Fault::StandbyDown
                    | Fault::SyncToActive
                    | Fault::ClockStep
            );
            let cost = fault.expected(&wish(10, 3)).cost;
            let loss = cost.loss();
            assert_eq!(loss == Some(Duration::ZERO), lossless, "{}", fault.name());
            assert!(
                loss.is_some() && cost.outage().is_some(),
                "{}",
                fault.name()
            );
        }
    }

    #[test]
    fn a_standby_that_dies_costs_busy_tunnels_what_their_high_water_does_not_last() {
        let refused = |wish: &Wish| {
            let cost = Fault::StandbyDown.expected(wish).cost;
            cost.loss().unwrap().as_millis()
        };
        // Ten packets a second: what is left lasts for 400 ms, its word is waited for 90 or 600.
        assert_eq!(refused(&wish(10, 3)), 0);
        assert_eq!(refused(&wish(50, 4)), 600 + 50 + 50 - 400);
        // A thousand: 25 ms are left at least.
        let busy = Wish {
            rate: 40_000,
            ..wish(10, 3)
        };
        assert_eq!(refused(&busy), 90 + 10 + 50 - 25);
    }

    #[test]
    fn a_death_costs_its_notice_and_inbound_the_high_water_too() {
        let cost = Fault::Kill.expected(&wish(50, 4)).cost;
        let [inbound, outbound] = cost.outage().unwrap().map(|time| time.as_millis());
        // 250 until it is noticed, 250 for 40 exchanges, and two pauses of 100.
        assert_eq!((outbound, inbound), (320, 320 + 250 + 250 + 200));
        assert_eq!(cost.loss().unwrap().as_millis(), inbound + outbound);
    }
}
