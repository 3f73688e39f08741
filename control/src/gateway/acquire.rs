//! `start_action = "trap"`: the first packet that a policy protects and no SA can carry brings its
//! child up (RFC 4301 section 4.4.1.2: the SPD asks for an SA). The packet itself is dropped, and
//! counted as `no_sa`; whoever sent it sends again.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless_dataplane::flow::Flow;
use hitless_sa::{Entropy, Instant};

use super::{Event, Gateway};
use crate::ike::Input;

/// A child that does not come up is not tried more often than this, however many packets want it.
const PATIENCE: Duration = Duration::from_secs(1);

/// When each trapped child was last asked for, by connection and child.
pub(super) type Asked = BTreeMap<(String, String), Instant>;

impl Gateway {
    /// A worker had a packet that no SA could carry.
    pub(super) fn wanted(&mut self, now: Instant, entropy: &mut dyn Entropy, flow: &Flow) {
        self.hurry_policies_for(flow);
        let Some(sa) = self.protecting(flow) else {
            return self.acquire(now, entropy, flow);
        };
        if self.engine.leads_child(sa) {
            // It is being installed.
            self.go_on_by(now, entropy, sa);
        } else if self.publication.never_comes(sa) {
            // It was foreseen, and nobody has it any more. What else there is for the flow is next.
            self.policies_changed = true;
            self.publication.urgent = true;
        } else {
            self.acquire(now, entropy, flow);
        }
    }

    /// A worker had no SA for this flow.
    fn acquire(&mut self, now: Instant, entropy: &mut dyn Entropy, flow: &Flow) {
        let protected = self.settings.protection().iter();
        let Some(name) = protected
            .filter(|protected| protected.covers(flow))
            .map(|protected| protected.name())
            .next()
        else {
            return;
        };
        let recently = self.asked.get(&name);
        let recently = recently.is_some_and(|at| now.since(*at) < PATIENCE);
        if recently || !self.settings.config().on_demand.contains(&name) {
            return;
        }
        self.asked.insert(name.clone(), now);
        let (connection, child) = name;
        self.tell(Event::Acquired {
            connection: connection.clone(),
            child: child.clone(),
        });
        let child = Some(child);
        self.tell_ike(now, entropy, Input::Initiate { connection, child });
    }
}
