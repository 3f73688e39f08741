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

/// A member began to lead on what another one had recorded.
#[derive(Clone, Copy, Debug)]
struct Takeover {
    at: Instant,
    who: u8,
    exact: bool,
}

/// Watches one run.
#[derive(Default)]
pub struct Oracle {
    /// S1 and S2 over the whole cluster.
    audit: Audit,
    /// IKE by member, for S4.
    by_member: Audit,
    takeovers: Vec<Takeover>,
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
            inherits: true,
            exact,
            ..
        } = event
        {
            self.takeovers.push(Takeover {
                at: now,
                who,
                exact: *exact,
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

    /// S4: after an exact takeover an IKE message that the predecessor had sent is sent again with
    /// the same octets or not at all; and one member never sends two versions of one message.
    fn output_commit(&self) -> Vec<String> {
        let report = self.by_member.clone().report();
        let mut first: BTreeMap<MessageKey, Vec<&IkeEvent>> = BTreeMap::new();
        for event in report
            .ike
            .iter()
            .filter(|event| event.exchange != Exchange::IkeSaInit)
        {
            // A Message ID synchronisation is made anew each time (RFC 6311 section 5.1).
            if event.exchange == Exchange::Informational && event.message_id == 0 {
                continue;
            }
            first.entry(key(event)).or_default().push(event);
        }
        let mut broken = Vec::new();
        for events in first.values() {
            for pair in events.windows(2) {
                let [earlier, later] = [pair[0], pair[1]];
                if earlier.digest != later.digest && self.bound(earlier, later) {
                    broken.push(format!(
                        "S4: one message, two versions: {earlier:?}, {later:?}"
                    ));
                }
            }
        }
        broken
    }

    /// Whether the later sender had to know what the earlier one sent.
    fn bound(&self, earlier: &IkeEvent, later: &IkeEvent) -> bool {
        if earlier.tap == later.tap {
            return !self.lost_its_past(earlier, later);
        }
        let led = self.takeovers.iter().rfind(|takeover| {
            TapId(u16::from(takeover.who)) == later.tap
                && Duration::from_nanos(takeover.at.0) <= later.time
        });
        led.is_some_and(|t| t.exact && earlier.time < Duration::from_nanos(t.at.0))
    }

    /// The member took over in between, inexactly: it may not know what it sent in an earlier life.
    fn lost_its_past(&self, earlier: &IkeEvent, later: &IkeEvent) -> bool {
        self.takeovers.iter().any(|takeover| {
            let at = Duration::from_nanos(takeover.at.0);
            earlier.time < at && at <= later.time && !takeover.exact
        })
    }
}

/// What names an IKE message.
type MessageKey = (u64, u64, u32, bool, bool, Exchange);

fn key(event: &IkeEvent) -> MessageKey {
    (
        event.initiator_spi,
        event.responder_spi,
        event.message_id,
        event.response,
        event.initiator,
        event.exchange,
    )
}

fn delivered_twice(received: &[Probe]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    received
        .iter()
        .map(|probe| probe.number)
        .filter(|number| !seen.insert(*number))
        .collect()
}
