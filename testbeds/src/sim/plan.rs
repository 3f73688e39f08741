//! What goes wrong in one run: drawn from its seed, or one of the enumerated crash points.

use std::time::Duration;

use hitless::ike::settings::Withheld;
use hitless::lab::{Extras, Family};
use hitless_sa::{Entropy, Lease, SequenceNumber};
use hitless_sync::LeaseSizes;

use super::pki::Login;
use super::{extras, points};

/// Faults of one kind of cable.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Chance in 10,000 that a frame is lost, and that it is delivered twice.
    pub loss: u32,
    pub duplication: u32,
    /// Each frame takes between the two: what leaves later may arrive earlier.
    pub delay: (Duration, Duration),
}

impl Noise {
    pub const NONE: Noise = Noise {
        loss: 0,
        duplication: 0,
        delay: (Duration::from_micros(50), Duration::from_micros(60)),
    };
}

/// What stands still in a frozen process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    All,
    /// The worker goes on: leases run out, nothing is extended.
    Control,
    /// Commands and barriers are not heard.
    Worker,
}

/// Something that happens once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process is gone; its disk stays.
    Crash(u8),
    /// It is gone after so many more datagrams, frames and writes have left it: in the midst of
    /// what it does then.
    CrashAfter(u8, u32),
    /// It starts again, with another incarnation.
    Restart(u8),
    /// The operator stops it.
    ShutDown(u8),
    /// Sync datagrams from the first to the second are lost.
    Deaf {
        from: u8,
        to: u8,
    },
    /// Sync datagrams to and from the member take so much longer.
    Slow(u8, Duration),
    /// Sync datagrams pass again, and in time.
    Healed,
    /// The member's outside cable is pulled, or plugged in again.
    Unplugged(u8),
    Plugged(u8),
    /// A part of the process stands still for so long, then goes on: a zombie.
    Frozen(u8, Part, Duration),
    /// The operator hands over.
    Switchover,
    /// The peer, or whoever leads the cluster, rekeys.
    PeerRekeysChild,
    PeerRekeysIke,
    ClusterRekeysChild,
    ClusterRekeysIke,
    /// So many writes to the member's disk fail.
    DiskFails(u8, u32),
    /// The member's clock goes on from a later time. It is one that cannot go back.
    ClockJumps(u8, Duration),
    /// The NAT in front of the peer starts again, if there is one.
    NatForgets,
    /// The operator of the cluster sends its clients to its other address.
    ClusterRedirects,
    /// The operator of the peer closes all Child SAs, and wants them again.
    PeerClosesChildren,
    PeerOpensChildren,
    /// The peer goes to its other address.
    PeerMoves,
    /// Somebody on the outside sends again what was sent before.
    Replay,
    /// Somebody sends damaged copies of what was sent before, outside and between the members.
    Garbage,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: u8,
    /// Members of the peer. The first is machine 0, the second the one behind the cluster's.
    pub peers: u8,
    /// What the peer knows not of RFC 6311.
    pub withheld: Withheld,
    pub outside: Noise,
    pub sync: Noise,
    /// Every frame on the outside reaches everybody: two members that both believe they lead hear
    /// the same packets.
    pub hub: bool,
    /// Leases so small that they run out.
    pub leases: Option<LeaseSizes>,
    /// Clocks, in millionths.
    pub drift: [i64; 4],
    /// Virtual time and fault, in order.
    pub faults: Vec<(Duration, Fault)>,
    /// When all faults are over.
    pub calm: Duration,
    pub ike_proposal: &'static str,
    pub esp_proposal: &'static str,
    pub takeover: &'static str,
    pub degraded: &'static str,
    /// Packets between two checkpoints, and the longest time.
    pub checkpoint: (u32, &'static str),
    /// Requests that may be outstanding at once in an IKE SA.
    pub window_size: u32,
    /// Retransmissions before a peer counts as dead; `None` as the daemon has it, after 63.5 s.
    pub retransmit_tries: Option<u32>,
    /// Time between two probes.
    pub probe_every: Duration,
    /// What seems well is watched for this long: what was forgotten may come back.
    pub aftermath: Duration,
    /// What the tunnel has beyond the plain one.
    pub extras: Extras,
    pub login: Login,
    /// What a member dies in the midst of, if there is a name for it: for whoever reads the plan.
    pub point: &'static str,
    /// Of the tunnel's ends, and of what it carries.
    pub families: [Family; 2],
}

/// Traffic flows and the standby is admitted before the first fault.
pub const QUIET: Duration = Duration::from_millis(1200);
const STORM: Duration = Duration::from_millis(2500);
const CALM: Duration = Duration::from_millis(200);

const IKE_PROPOSALS: [&str; 2] = [
    "aes128gcm16-prfsha256-x25519",
    "aes128-sha256-prfsha256-x25519",
];
const ESP_PROPOSALS: [&str; 2] = ["aes128gcm16-x25519-esn", "aes256gcm16-x25519"];
const TAKEOVERS: [&str; 5] = ["auto", "exact", "message-id-sync", "probe", "rekey"];

/// Retransmissions of 0.5 s, doubled each time, that end after 15.5 s.
pub const SOON: u32 = 4;

impl Plan {
    /// The plan of a seed.
    pub fn draw(entropy: &mut dyn Entropy) -> Plan {
        let members = pick(entropy, &[2, 2, 2, 3]);
        Plan::among(members, entropy)
    }

    /// The same for so many members.
    pub fn among(members: u8, entropy: &mut dyn Entropy) -> Plan {
        let mut faults = Vec::new();
        for _ in 0..1 + below(entropy, 7) {
            let at = QUIET + STORM.mul_f64(f64::from(entropy.u32()) / f64::from(u32::MAX));
            Episode { at, members }.draw(entropy, &mut faults);
        }
        let drift = below(entropy, 2) == 0;
        let mut plan = Plan::with(members, faults);
        plan.outside = noise(entropy);
        plan.sync = noise(entropy);
        plan.hub = below(entropy, 3) == 0;
        plan.leases = (below(entropy, 2) == 0).then(|| small_leases(entropy));
        if drift {
            plan.drift
                .fill_with(|| i64::from(below(entropy, 10_001)) - 5_000);
        }
        plan.ike_proposal = pick(entropy, &IKE_PROPOSALS);
        plan.esp_proposal = pick(entropy, &ESP_PROPOSALS);
        plan.takeover = match below(entropy, 8) {
            rare @ 1..=4 => TAKEOVERS[rare as usize],
            _ => TAKEOVERS[0],
        };
        plan.degraded = pick(entropy, &["rekey", "rekey", "rekey", "strict"]);
        plan.probe_every = Duration::from_micros(u64::from(500 + below(entropy, 4000)));
        // Most of the time nothing happens but that: the same in a quarter of the time.
        let patient = below(entropy, 8) == 0;
        plan.retransmit_tries = (!patient).then_some(SOON);
        if below(entropy, 4) == 0 {
            plan.aftermath = Duration::from_secs(if patient { 40 } else { 20 });
        }
        plan.window_size = pick(entropy, &[1, 1, 1, 5]);
        match below(entropy, 12) {
            0 => plan.make_peer_a_cluster(entropy),
            // A peer that knows one half of RFC 6311, or nothing of it.
            known @ 1..=3 => {
                plan.withheld = Withheld {
                    message_id_sync: known != 2,
                    replay_counter_sync: known != 1,
                };
            }
            _ => {}
        }
        extras::draw(entropy, &mut plan);
        plan
    }

    /// The peer fails over as well: in the same moment, or soon after (RFC 6311 appendix A.4).
    fn make_peer_a_cluster(&mut self, entropy: &mut dyn Entropy) {
        self.peers = 2;
        let second = self.members + 1;
        for _ in 0..1 + below(entropy, 3) {
            let at = QUIET + STORM.mul_f64(f64::from(entropy.u32()) / f64::from(u32::MAX));
            let span = Duration::from_millis(u64::from(50 + below(entropy, 800)));
            let victim = pick(entropy, &[0, 0, second]);
            let ours = 1 + below(entropy, u32::from(self.members)) as u8;
            let later = Duration::from_millis(pick(entropy, &[0, 0, 20, 60]));
            self.faults.extend([
                (at, Fault::Crash(victim)),
                (at + later, Fault::Crash(ours)),
                (at + span, Fault::Restart(victim)),
                (at + later + span, Fault::Restart(ours)),
            ]);
        }
        self.faults.sort_by_key(|(at, _)| *at);
        let last = self.faults.last().map_or(QUIET, |(at, _)| *at);
        self.calm = last + CALM;
    }

    /// More that goes wrong.
    pub fn add_faults(&mut self, faults: impl IntoIterator<Item = (Duration, Fault)>) {
        self.faults.extend(faults);
        self.faults.sort_by_key(|(at, _)| *at);
        let last = self.faults.last().map_or(QUIET, |(at, _)| *at);
        self.calm = self.calm.max(last + CALM);
    }

    /// Which member of the peer that machine is; `None` if it is one of the cluster's.
    pub fn peer(&self, who: u8) -> Option<u8> {
        match who {
            0 => Some(0),
            _ => who.checked_sub(self.members).filter(|number| *number > 0),
        }
    }

    /// Two members on good cables, and these faults.
    pub fn with(members: u8, mut faults: Vec<(Duration, Fault)>) -> Plan {
        faults.sort_by_key(|(at, _)| *at);
        let last = faults.iter().map(|(at, _)| *at).max().unwrap_or(QUIET);
        Plan {
            members,
            peers: 1,
            withheld: Withheld::default(),
            outside: Noise::NONE,
            sync: Noise::NONE,
            hub: false,
            leases: None,
            drift: [0; 4],
            faults,
            calm: last + CALM,
            ike_proposal: IKE_PROPOSALS[0],
            esp_proposal: ESP_PROPOSALS[0],
            takeover: TAKEOVERS[0],
            degraded: "rekey",
            checkpoint: (1000, "50ms"),
            window_size: 1,
            retransmit_tries: None,
            probe_every: Duration::from_millis(2),
            aftermath: Duration::ZERO,
            extras: Extras::default(),
            login: Login::Psk,
            point: "",
            families: [Family::V4; 2],
        }
    }

    /// One crash after each single output of each exchange, of either member, for each way to take
    /// over and both kinds of IKE cipher, and then of those of features; `None` behind the last of them.
    pub fn crash_point(index: u64) -> Option<Plan> {
        if let Some(of_features) = index.checked_sub(CRASH_POINTS) {
            return points::plan(of_features);
        }
        let mut digits = index;
        let mut digit = |radix: usize| {
            let digit = digits % radix as u64;
            digits /= radix as u64;
            digit as usize
        };
        let takeover = TAKEOVERS[digit(TAKEOVERS.len())];
        let ike_proposal = IKE_PROPOSALS[digit(IKE_PROPOSALS.len())];
        let not_last = digit(2) as u8;
        let Moment {
            members,
            window_size,
            events,
        } = MOMENTS[digit(MOMENTS.len())];
        // One of the last two: with three of them, the one that takes over, or its successor.
        let victim = members - not_last;
        let outputs = digits;
        if outputs >= OUTPUTS {
            return None;
        }
        let at = match events {
            // The tunnel itself is being made.
            [Fault::Healed] => points::MAKING,
            _ => QUIET,
        };
        let later = at + Duration::from_millis(500);
        let mut faults = vec![(at, Fault::CrashAfter(victim, outputs as u32))];
        faults.extend(events.iter().map(|event| (at, *event)));
        faults.extend((1..=members).map(|member| (later, Fault::Restart(member))));
        let leases = (events == [Fault::Plugged(0)]).then(|| lease_sizes(4, 16));
        Some(Plan {
            takeover,
            ike_proposal,
            leases,
            window_size,
            retransmit_tries: Some(SOON),
            ..Plan::with(members, faults)
        })
    }
}

/// What a member dies in the midst of.
#[derive(Clone, Copy)]
struct Moment {
    members: u8,
    window_size: u32,
    events: &'static [Fault],
}

const fn moment(events: &'static [Fault]) -> Moment {
    Moment {
        members: 2,
        window_size: 1,
        events,
    }
}

const MOMENTS: [Moment; 11] = [
    moment(&[Fault::Healed]),
    // Nothing but traffic, with leases so small that they are extended all the time.
    moment(&[Fault::Plugged(0)]),
    moment(&[Fault::PeerRekeysChild]),
    moment(&[Fault::PeerRekeysIke]),
    moment(&[Fault::ClusterRekeysChild]),
    moment(&[Fault::ClusterRekeysIke]),
    moment(&[Fault::Switchover]),
    moment(&[Fault::Crash(1)]),
    moment(&[Fault::ShutDown(1)]),
    // Several requests under way, in both directions.
    Moment {
        members: 2,
        window_size: 5,
        events: &[
            Fault::ClusterRekeysChild,
            Fault::PeerRekeysChild,
            Fault::ClusterRekeysIke,
        ],
    },
    // A second takeover in the midst of a first.
    Moment {
        members: 3,
        window_size: 1,
        events: &[Fault::Crash(1)],
    },
];
/// No exchange has as many outputs of one member, heartbeats included.
const OUTPUTS: u64 = 60;
/// How many there are, without those of features.
const CRASH_POINTS: u64 =
    (TAKEOVERS.len() * IKE_PROPOSALS.len() * 2 * MOMENTS.len()) as u64 * OUTPUTS;

/// How many there are with those of features.
pub fn crash_points() -> u64 {
    CRASH_POINTS + points::count()
}

/// How many writes fail: the last is a disk that stays full.
const WRITES: [u32; 4] = [1, 2, 4, u32::MAX];

pub fn below(entropy: &mut dyn Entropy, bound: u32) -> u32 {
    entropy.u32() % bound
}

pub fn pick<T: Copy>(entropy: &mut dyn Entropy, from: &[T]) -> T {
    from[entropy.u32() as usize % from.len()]
}

fn noise(entropy: &mut dyn Entropy) -> Noise {
    let shortest = Duration::from_micros(50);
    let longest = Duration::from_micros(pick(entropy, &[60, 300, 2_000, 8_000]));
    Noise {
        loss: pick(entropy, &[0, 0, 10, 100, 1_000]),
        duplication: pick(entropy, &[0, 100, 1_000]),
        delay: (shortest, longest),
    }
}

fn small_leases(entropy: &mut dyn Entropy) -> LeaseSizes {
    let (small, large) = pick(entropy, &[(4, 16), (16, 64), (64, 1024)]);
    lease_sizes(small, large)
}

pub fn lease_sizes(small: u64, large: u64) -> LeaseSizes {
    let lease = |grant, high_water| Lease {
        grant: SequenceNumber(grant),
        high_water: SequenceNumber(high_water),
    };
    LeaseSizes {
        first: lease(small, small),
        outbound: (small, large),
        outbound_short: (small, large),
        inbound: (small, large),
        ..LeaseSizes::default()
    }
}

/// One thing that goes wrong, with its end.
struct Episode {
    at: Duration,
    members: u8,
}

impl Episode {
    fn draw(&self, entropy: &mut dyn Entropy, faults: &mut Vec<(Duration, Fault)>) {
        let at = self.at;
        let member = 1 + below(entropy, u32::from(self.members)) as u8;
        let other =
            1 + (member - 1 + 1 + below(entropy, u32::from(self.members) - 1) as u8) % self.members;
        let span = Duration::from_millis(u64::from(below(entropy, 800)));
        let rekeys = [
            Fault::PeerRekeysChild,
            Fault::ClusterRekeysChild,
            Fault::PeerRekeysIke,
            Fault::ClusterRekeysIke,
        ];
        let deaf = |from, to| (at, Fault::Deaf { from, to });
        let cut = [deaf(member, other), deaf(other, member)];
        let healed = (at + span, Fault::Healed);
        let restarted = (at + span, Fault::Restart(member));
        match below(entropy, 27) {
            0..=2 => faults.extend([(at, Fault::Crash(member)), restarted]),
            3 => {
                // Both, in turn.
                faults.extend([(at, Fault::Crash(member)), restarted]);
                let then = at + span + Duration::from_millis(u64::from(below(entropy, 900)));
                faults.extend([
                    (then, Fault::Crash(other)),
                    (then + span, Fault::Restart(other)),
                ]);
            }
            4 => faults.extend([(at, Fault::ShutDown(member)), restarted]),
            5..=6 => faults.extend(cut.into_iter().chain([healed])),
            7 => faults.extend([cut[0], healed]),
            8 => {
                // A split brain that rekeys, and of which one side dies.
                faults.extend(cut);
                faults.push((at + span / 2, pick(entropy, &rekeys)));
                faults.extend([(at + span, Fault::Crash(member)), healed]);
                faults.push((at + span * 2, Fault::Restart(member)));
            }
            9 => {
                faults.push((at, Fault::Unplugged(member)));
                faults.push((at + span, Fault::Plugged(member)));
            }
            10..=12 => {
                let part = pick(entropy, &[Part::All, Part::Control, Part::Worker]);
                let length = pick(entropy, &[span / 8, span / 2, span * 2]);
                faults.push((at, Fault::Frozen(member, part, length)));
            }
            13 => faults.push((at, Fault::Switchover)),
            rest => self.draw_in_exchange(rest, (member, other, span), rekeys, entropy, faults),
        }
    }

    /// The rest of the episodes: in the midst of an exchange, on failing disks, replays.
    fn draw_in_exchange(
        &self,
        kind: u32,
        (member, other, span): (u8, u8, Duration),
        rekeys: [Fault; 4],
        entropy: &mut dyn Entropy,
        faults: &mut Vec<(Duration, Fault)>,
    ) {
        let at = self.at;
        let restarted = (at + span, Fault::Restart(member));
        match kind {
            14..=16 => {
                // Right into an exchange.
                let event = pick(
                    entropy,
                    &[
                        rekeys[0],
                        rekeys[1],
                        rekeys[2],
                        rekeys[3],
                        Fault::Switchover,
                    ],
                );
                faults.push((at, event));
                faults.push((at, Fault::CrashAfter(member, below(entropy, 60))));
                faults.push((at + span, Fault::Restart(member)));
            }
            17 => {
                // Both sides at once, and again while that goes on.
                let again = Duration::from_micros(u64::from(below(entropy, 5000)));
                faults.push((at, pick(entropy, &rekeys)));
                faults.push((at, pick(entropy, &rekeys)));
                faults.push((at + again, pick(entropy, &rekeys)));
            }
            18 => {
                faults.push((at, Fault::DiskFails(other, pick(entropy, &WRITES))));
                faults.extend([(at, Fault::Crash(member)), restarted]);
            }
            19 => {
                faults.push((at, Fault::DiskFails(member, pick(entropy, &WRITES))));
                faults.push((at, Fault::Switchover));
            }
            20 => faults.push((at, Fault::ClockJumps(member, span * 4))),
            23 => {
                // One after another, in quick succession.
                let pause = Duration::from_millis(u64::from(below(entropy, 200)));
                for number in 0..self.members {
                    let victim = 1 + (member - 1 + number) % self.members;
                    let dies = at + pause * u32::from(number);
                    let returns = dies + span + pause;
                    faults.push((dies, Fault::Crash(victim)));
                    faults.push((returns, Fault::Restart(victim)));
                }
            }
            24 => {
                let delay = Duration::from_millis(pick(entropy, &[15, 60, 200]));
                faults.push((at, Fault::Slow(member, delay)));
                faults.push((at + span, Fault::Healed));
                if below(entropy, 2) == 0 {
                    faults.push((at + span / 2, Fault::Crash(other)));
                    faults.push((at + span * 2, Fault::Restart(other)));
                }
            }
            25..=26 => faults.extend([(at, Fault::Garbage), (at + span, Fault::Garbage)]),
            _ => faults.extend([(at, Fault::Replay), (at + span, Fault::Replay)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_points_come_to_an_end_and_cover_every_policy() {
        let all: Vec<Plan> = (0..).map_while(Plan::crash_point).collect();
        assert_eq!(all.len() as u64, crash_points());
        assert!(all.iter().any(|plan| plan.members == 3));
        assert!(all.iter().any(|plan| plan.window_size > 1));
        for takeover in TAKEOVERS {
            assert!(all.iter().any(|plan| plan.takeover == takeover));
        }
    }
}
