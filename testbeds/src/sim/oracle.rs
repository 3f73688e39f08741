//! What must hold, judged from outside: the frames that left the members, and what the hosts got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use hitless::audit::{Audit, Exchange, IkeEvent, TapId};
use hitless::gateway::Event;
use hitless::lab::{Host, Probe};
use hitless_sa::Instant;

/// All members form one cut through the network: a packet that two of them send is one repeated.
const CLUSTER: TapId = TapId(0);
const PEER: TapId = TapId(1);

/// A member began to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reign {
    at: Duration,
    who: TapId,
    /// On what another one had recorded, and that is all there was.
    exact: bool,
}

/// Watches one run.
#[derive(Default)]
pub struct Oracle {
    /// S1 and S2 over the whole cluster.
    audit: Audit,
    /// IKE by member, for S4.
    by_member: Audit,
    reigns: Vec<Reign>,
}

impl Oracle {
    /// A frame has left a gateway (0 is the peer) on the outside.
    pub fn sent(&mut self, now: Instant, who: u8, frame: &[u8]) {
        let at = Duration::from_nanos(now.0);
        self.audit
            .observe(if who == 0 { PEER } else { CLUSTER }, at, frame);
        if who != 0 {
            self.by_member.observe(TapId(u16::from(who)), at, frame);
        }
    }

    /// A gateway said something. Only who leads since when is taken from it.
    pub fn said(&mut self, now: Instant, who: u8, event: &Event) {
        if let Event::Leads {
            inherits, exact, ..
        } = event
        {
            self.reigns.push(Reign {
                at: Duration::from_nanos(now.0),
                who: TapId(u16::from(who)),
                exact: *inherits && *exact,
            });
        }
    }

    /// Everything that was broken.
    pub fn verdict(&self, hosts: [&Host; 2]) -> Vec<String> {
        let mut broken = Vec::new();
        let report = self.audit.clone().report();
        for repeated in &report.repeated {
            broken.push(format!(
                "S1: a sequence number was sent twice: {repeated:?}"
            ));
        }
        if report.repeated_sequence_numbers() as usize > report.repeated.len() {
            broken.push(format!(
                "S1: {} numbers repeated",
                report.repeated_sequence_numbers()
            ));
        }
        for repeated in &report.repeated_ivs {
            broken.push(format!("S2: an IV was used twice: {repeated:?}"));
        }
        let leaked = report.leaked(|a| matches!(a, IpAddr::V4(a) if a.octets()[0] == 10));
        if leaked > 0 {
            broken.push(format!("S6: {leaked} packets in clear on the outside"));
        }
        for (name, host) in [("a", hosts[0]), ("b", hosts[1])] {
            let again = delivered_twice(host.received());
            if !again.is_empty() {
                broken.push(format!("S3: delivered twice to host {name}: {again:?}"));
            }
            if host.altered() > 0 {
                broken.push(format!(
                    "{} packets arrived altered at host {name}",
                    host.altered()
                ));
            }
        }
        broken.extend(self.output_commit());
        broken
    }

    /// S4: what an active member has sent its exact successors send again with the same octets or
    /// not at all.
    fn output_commit(&self) -> Vec<String> {
        let report = self.by_member.clone().report();
        let mut versions: BTreeMap<MessageKey, Vec<&IkeEvent>> = BTreeMap::new();
        for event in report.ike.iter().filter(|event| is_numbered(event)) {
            versions.entry(key(event)).or_default().push(event);
        }
        let mut broken = Vec::new();
        for events in versions.values() {
            for (index, later) in events.iter().enumerate() {
                let differs = |earlier: &&&IkeEvent| {
                    earlier.digest != later.digest && self.bound(earlier, later)
                };
                if let Some(earlier) = events[..index].iter().find(differs) {
                    broken.push(format!(
                        "S4: one message, two versions: {earlier:?}, {later:?}"
                    ));
                }
            }
        }
        broken
    }

    /// Whether the later sender had to know what the earlier one sent. Whoever was deposed without
    /// knowing it binds nobody and is bound by nobody: the leases keep it harmless to S1 and S3, and
    /// for Message IDs there is RFC 6311.
    fn bound(&self, earlier: &IkeEvent, later: &IkeEvent) -> bool {
        let (Some(before), Some(after)) = (self.reign(earlier), self.reign(later)) else {
            return false;
        };
        self.reigns[before + 1..=after]
            .iter()
            .all(|reign| reign.exact)
    }

    /// The reign in which this was sent, unless it was over.
    fn reign(&self, event: &IkeEvent) -> Option<usize> {
        let last = self
            .reigns
            .iter()
            .rposition(|reign| reign.at <= event.time)?;
        (self.reigns[last].who == event.tap).then_some(last)
    }
}

/// What names an IKE message; two of another exchange type with one Message ID are two versions.
type MessageKey = (u64, u64, u32, bool, bool);

fn key(event: &IkeEvent) -> MessageKey {
    (
        event.initiator_spi,
        event.responder_spi,
        event.message_id,
        event.response,
        event.initiator,
    )
}

/// Not a Message ID synchronisation, which is made anew each time (RFC 6311 section 5.1), and not
/// before the IKE SA is there.
fn is_numbered(event: &IkeEvent) -> bool {
    let synchronises = event.exchange == Exchange::Informational && event.message_id == 0;
    event.exchange != Exchange::IkeSaInit && !synchronises
}

fn delivered_twice(received: &[Probe]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    received
        .iter()
        .map(|probe| probe.number)
        .filter(|number| !seen.insert(*number))
        .collect()
}
