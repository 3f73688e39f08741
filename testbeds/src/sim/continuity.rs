//! What a cluster is for: where one thing goes wrong, every tunnel goes on as it is. Recovery by way
//! of new IKE SAs is life, and no failover.

use std::time::Duration;

use hitless::audit::wire::Ike;
use hitless::gateway::Event;
use hitless::lab::Probe;
use hitless_sa::Instant;

use super::plan::{Fault, Plan, QUIET};

/// Exchanges that make an IKE SA from nothing (RFC 7296 section 1.2).
const FROM_NOTHING: [u8; 2] = [34, 35];
/// In 10,000: what IKE's retransmissions and two missed heartbeats make good.
const MODEST_LOSS: u32 = 10;
/// Nothing may be silent for longer: a takeover, an exchange with a lost message, and the patience
/// of the probes.
const OUTAGE: Duration = Duration::from_millis(1500);

/// Where SAs live for a few dozen packets, their ends by both sides cross a takeover now and then, and who
/// is told TEMPORARY_FAILURE waits for so long before it asks again (RFC 7296 section 2.25).
const SHORT_LIVED: Duration = Duration::from_secs(2);

/// Of the 90 ms for which a copy can be vouched for (R16), a death takes three heartbeats, the last echo
/// one and a round trip, and a vote among more than two members another round trip. A sync cable that
/// is slower than this leaves nothing of it, and then the Message IDs are found out.
const PROMPT: Duration = Duration::from_millis(4);

/// Watches one run in which continuity is promised.
pub struct Continuity {
    since: Instant,
    members: u8,
    /// Message IDs are exact, too.
    exact: bool,
    /// IKE SAs are made anew because somebody wants it.
    reauthenticates: bool,
    outage: Duration,
    found: Vec<String>,
}

impl Continuity {
    /// For a plan that starts at `epoch`, if it asks for no more than what is promised.
    pub fn of(plan: &Plan, epoch: Instant) -> Option<Continuity> {
        let (first, _) = plan.faults.first()?;
        promised(plan).then(|| Continuity {
            since: epoch + *first,
            members: plan.members,
            exact: plan.members == 2 || plan.sync.delay.1 <= PROMPT,
            reauthenticates: plan.extras.reauthentication || redirects(plan),
            outage: match plan.extras.packets.is_some() || plan.extras.octets.is_some() {
                true => OUTAGE + SHORT_LIVED,
                false => OUTAGE,
            },
            found: Vec::new(),
        })
    }

    /// An IKE message has left a gateway.
    pub fn sent(&mut self, now: Instant, who: u8, ike: &Ike<'_>) {
        // An answer may be one to a request that somebody sent again.
        let begins = FROM_NOTHING.contains(&ike.exchange) && !ike.response;
        let begins = begins && !self.reauthenticates;
        if now >= self.since && begins && self.found.is_empty() {
            let exchange = ike.exchange;
            self.complain(format!(
                "machine {who} makes an IKE SA anew, by exchange {exchange}, at {}",
                now.0
            ));
        }
    }

    /// A gateway said something.
    pub fn said(&mut self, now: Instant, who: u8, event: &Event) {
        let Event::Leads { base, exact, .. } = event else {
            return;
        };
        if now < self.since || !(1..=self.members).contains(&who) {
            return;
        }
        if base.is_none() {
            self.complain(format!("machine {who} leads on nothing at {}", now.0));
        } else if self.exact && !exact {
            // S4: it was admitted and heard all that was said.
            self.complain(format!("machine {who} cannot vouch at {}", now.0));
        }
    }

    /// What broke, with what the hosts received until the end.
    pub fn verdict(&self, hosts: [&[Probe]; 2], end: Instant) -> Vec<String> {
        let mut found = self.found.clone();
        let silence = self.silence(hosts, end);
        if silence > self.outage {
            found.push(format!("continuity: silent for {silence:?}"));
        }
        found
    }

    /// The longest time in which a host received nothing.
    pub fn silence(&self, hosts: [&[Probe]; 2], end: Instant) -> Duration {
        let longest = hosts.iter().filter_map(|received| {
            let times = received.iter().map(|probe| probe.at);
            let times = times.filter(|at| *at >= self.since).chain([end]);
            let pauses = times.scan(self.since, |last, at| {
                Some(at.since(std::mem::replace(last, at)))
            });
            pauses.max()
        });
        longest.max().unwrap_or_default()
    }

    fn complain(&mut self, what: String) {
        self.found.push(format!("continuity: {what}"));
    }
}

/// Whether a client is told to make an IKE SA anew, elsewhere: it has the old one until then.
fn redirects(plan: &Plan) -> bool {
    let mut faults = plan.faults.iter();
    faults.any(|(_, fault)| *fault == Fault::ClusterRedirects)
}

/// One death, or one handover, of members that hear each other; whatever rekeys, is repeated, or
/// is damaged meanwhile. A handover to one that has died in the same moment is one blow: nothing has
/// been handed over.
fn promised(plan: &Plan) -> bool {
    let blow = |fault: &Fault| {
        matches!(
            fault,
            Fault::Crash(_) | Fault::CrashAfter(..) | Fault::ShutDown(_) | Fault::Switchover
        )
    };
    // A peer that comes in anew has forgotten its tunnels, and one that closes them wants silence.
    let ends = |fault: &Fault| matches!(fault, Fault::Crash(0) | Fault::PeerClosesChildren);
    let harmless = |fault: &Fault| {
        matches!(
            fault,
            Fault::Restart(_)
                | Fault::Healed
                | Fault::Plugged(_)
                | Fault::PeerRekeysChild
                | Fault::PeerRekeysIke
                | Fault::ClusterRekeysChild
                | Fault::ClusterRekeysIke
                | Fault::ClusterRedirects
                | Fault::PeerMoves
                | Fault::Replay
                | Fault::Garbage
        )
    };
    let faults = || plan.faults.iter().map(|(_, fault)| fault);
    let quiet = plan.faults.iter().all(|(at, _)| *at >= QUIET);
    let modest = |noise: &super::plan::Noise| noise.loss <= MODEST_LOSS;
    quiet
        && plan.peers == 1
        && modest(&plan.sync)
        && modest(&plan.outside)
        && faults().all(|fault| !ends(fault) && (blow(fault) || harmless(fault)))
        && (faults().filter(|fault| blow(fault)).count() <= 1 || in_vain(plan))
}

/// A death, and in the same moment the order to hand over.
fn in_vain(plan: &Plan) -> bool {
    match plan.faults.as_slice() {
        [
            (death, Fault::Crash(_)),
            (order, Fault::Switchover),
            rest @ ..,
        ] => {
            let restarts = |(_, fault): &(Duration, Fault)| matches!(fault, Fault::Restart(_));
            death == order && rest.iter().all(restarts)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use hitless_sa::{Epoch, Incarnation, MemberId};

    use super::*;

    const EPOCH: Instant = Instant(1_000_000_000);

    fn at(ms: u64) -> Instant {
        EPOCH + QUIET + Duration::from_millis(ms)
    }

    fn watch(faults: &[Fault]) -> Option<Continuity> {
        let faults = faults.iter().map(|fault| (QUIET, *fault)).collect();
        Continuity::of(&Plan::with(2, faults), EPOCH)
    }

    fn probes(times: impl IntoIterator<Item = u64>) -> Vec<Probe> {
        let probe = |ms| Probe {
            number: ms,
            at: at(ms),
        };
        times.into_iter().map(probe).collect()
    }

    #[test]
    fn one_blow_is_borne_and_two_may_end_it() {
        use Fault::{Crash, Garbage, PeerRekeysIke, Replay, Restart, Switchover};
        for sound in [
            &[Crash(1), Restart(1)][..],
            &[Switchover, PeerRekeysIke],
            &[Garbage, Replay],
        ] {
            assert!(watch(sound).is_some(), "{sound:?}");
        }
        assert!(watch(&[Crash(2), Switchover, Restart(2)]).is_some());
        assert!(watch(&[Switchover, Crash(2)]).is_none());
        assert!(watch(&[Crash(1), Crash(2)]).is_none());
        assert!(watch(&[Fault::Unplugged(1)]).is_none());
        assert!(watch(&[]).is_none());
    }

    #[test]
    fn an_ike_sa_made_anew_and_a_long_silence_are_noticed() {
        let ike = |exchange| Ike {
            source: [192, 0, 2, 2].into(),
            destination: [192, 0, 2, 1].into(),
            initiator_spi: 1,
            responder_spi: 0,
            exchange,
            initiator: true,
            response: false,
            message_id: 0,
            message: &[],
        };
        let always = probes((0..3000).step_by(20));
        let verdict = |exchange, when, b: &[Probe]| {
            let mut continuity = watch(&[Fault::Crash(1)]).unwrap();
            continuity.sent(when, 0, &ike(exchange));
            continuity.verdict([&always, b], at(3000)).len()
        };
        assert_eq!(verdict(36, at(50), &always), 0);
        assert_eq!(verdict(34, at(50), &always), 1);
        // Before the fault the tunnel has to be made.
        assert_eq!(verdict(34, EPOCH, &always), 0);
        assert_eq!(verdict(36, at(50), &probes((0..1000).step_by(20))), 1);
        let pause = probes((0..1000).chain(2800..3000));
        assert_eq!(verdict(36, at(50), &pause), 1);
    }

    #[test]
    fn s4_a_takeover_that_cannot_vouch_is_noticed() {
        let epoch = |counter| Epoch {
            counter,
            leader: MemberId(2),
            incarnation: Incarnation(1),
        };
        let leads = |base: Option<u64>, exact| Event::Leads {
            epoch: epoch(9),
            base: base.map(epoch),
            sas: 1,
            skip: Some(0),
            exact,
        };
        let said = |event| {
            let mut continuity = watch(&[Fault::Crash(1)]).unwrap();
            continuity.said(at(40), 2, &event);
            continuity.found.len()
        };
        assert_eq!(said(leads(Some(8), true)), 0);
        assert_eq!(said(leads(Some(8), false)), 1);
        assert_eq!(said(leads(None, false)), 1);
    }
}
