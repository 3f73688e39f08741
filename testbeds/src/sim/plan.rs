//! What goes wrong in one run, drawn from its seed.

use std::time::Duration;

use hitless_sa::Entropy;

/// Faults of one kind of cable.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Chance in 10,000 that a frame is lost, and that it is delivered twice.
    pub loss: u32,
    pub duplication: u32,
    /// Each frame takes between the two: what leaves later may arrive earlier.
    pub delay: (Duration, Duration),
}

/// Something that happens once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process is gone; its disk stays.
    Crash(u8),
    /// It starts again, with another incarnation.
    Restart(u8),
    /// Sync datagrams from the first to the second are lost.
    Deaf {
        from: u8,
        to: u8,
    },
    /// Sync datagrams pass again.
    Healed,
    /// The member's outside cable is pulled, or plugged in again.
    Unplugged(u8),
    Plugged(u8),
    /// The process stands still for so long, then goes on: a zombie.
    Frozen(u8, Duration),
    /// The operator hands over.
    Switchover,
    /// The peer, or whoever leads the cluster, rekeys.
    PeerRekeysChild,
    PeerRekeysIke,
    ClusterRekeysChild,
    ClusterRekeysIke,
    /// The next write to the member's disk fails.
    DiskFails(u8),
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub outside: Noise,
    pub sync: Noise,
    /// Virtual time and fault, in order.
    pub faults: Vec<(Duration, Fault)>,
    /// When all faults are over.
    pub calm: Duration,
    pub ike_proposal: &'static str,
    pub esp_proposal: &'static str,
    pub takeover: &'static str,
    /// Time between two probes.
    pub probe_every: Duration,
}

/// Traffic flows and the standby is admitted before the first fault.
const QUIET: Duration = Duration::from_millis(1200);
const STORM: Duration = Duration::from_millis(2500);

impl Plan {
    /// The plan of a seed.
    pub fn draw(entropy: &mut dyn Entropy) -> Plan {
        let mut faults = Vec::new();
        for _ in 0..1 + entropy.u32() % 5 {
            let at = QUIET + STORM.mul_f64(f64::from(entropy.u32()) / f64::from(u32::MAX));
            episode(entropy, at, &mut faults);
        }
        faults.sort_by_key(|(at, _)| *at);
        let calm = faults.iter().map(|(at, _)| *at).max().unwrap_or(QUIET);
        Plan {
            outside: noise(entropy),
            sync: noise(entropy),
            faults,
            calm: calm + Duration::from_millis(200),
            ike_proposal: pick(
                entropy,
                &[
                    "aes128gcm16-prfsha256-x25519",
                    "aes128-sha256-prfsha256-x25519",
                ],
            ),
            esp_proposal: pick(entropy, &["aes128gcm16-x25519-esn", "aes256gcm16-x25519"]),
            takeover: pick(
                entropy,
                &["auto", "auto", "message-id-sync", "probe", "rekey"],
            ),
            probe_every: Duration::from_micros(u64::from(500 + entropy.u32() % 4000)),
        }
    }
}

fn pick<T: Copy>(entropy: &mut dyn Entropy, from: &[T]) -> T {
    from[entropy.u32() as usize % from.len()]
}

fn noise(entropy: &mut dyn Entropy) -> Noise {
    let shortest = Duration::from_micros(50);
    let longest = Duration::from_micros(pick(entropy, &[60, 300, 2_000]));
    Noise {
        loss: pick(entropy, &[0, 0, 10, 100, 1_000]),
        duplication: pick(entropy, &[0, 100]),
        delay: (shortest, longest),
    }
}

/// One thing that goes wrong, with its end.
fn episode(entropy: &mut dyn Entropy, at: Duration, faults: &mut Vec<(Duration, Fault)>) {
    let member = 1 + (entropy.u32() % 2) as u8;
    let other = 3 - member;
    let span = Duration::from_millis(u64::from(entropy.u32() % 800));
    match entropy.u32() % 12 {
        0..=3 => {
            faults.push((at, Fault::Crash(member)));
            faults.push((at + span, Fault::Restart(member)));
        }
        4 => {
            faults.push((
                at,
                Fault::Deaf {
                    from: member,
                    to: other,
                },
            ));
            faults.push((
                at,
                Fault::Deaf {
                    from: other,
                    to: member,
                },
            ));
            faults.push((at + span, Fault::Healed));
        }
        5 => {
            faults.push((
                at,
                Fault::Deaf {
                    from: member,
                    to: other,
                },
            ));
            faults.push((at + span, Fault::Healed));
        }
        6 => {
            faults.push((at, Fault::Unplugged(member)));
            faults.push((at + span, Fault::Plugged(member)));
        }
        7 => faults.push((at, Fault::Frozen(member, span / 4))),
        8 => faults.push((at, Fault::Switchover)),
        9 => {
            faults.push((
                at,
                pick(
                    entropy,
                    &[Fault::PeerRekeysChild, Fault::ClusterRekeysChild],
                ),
            ));
            // Right into the exchange.
            let into = Duration::from_micros(u64::from(entropy.u32() % 6000));
            faults.push((at + into, Fault::Crash(member)));
            faults.push((at + into + span, Fault::Restart(member)));
        }
        10 => {
            faults.push((
                at,
                pick(entropy, &[Fault::PeerRekeysIke, Fault::ClusterRekeysIke]),
            ));
            let into = Duration::from_micros(u64::from(entropy.u32() % 6000));
            faults.push((at + into, Fault::Crash(member)));
            faults.push((at + into + span, Fault::Restart(member)));
        }
        _ => {
            faults.push((at, Fault::DiskFails(other)));
            faults.push((at, Fault::Crash(member)));
            faults.push((at + span, Fault::Restart(member)));
        }
    }
}
