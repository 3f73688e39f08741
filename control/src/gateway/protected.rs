//! What the configuration protects, and the policies that come of it and of the SAs that are up. Those
//! of very many SAs are made beside the control thread, so nothing in here asks anything of the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use hitless_dataplane::flow::Flow;
use hitless_dataplane::spd::{Action, Policy};
use hitless_sa::{ChildSa, SaId, TrafficSelector};

use crate::config::Config;
use crate::ike::settings::Child;

/// What a configured child protects.
pub struct Protected {
    connection: String,
    child: String,
    policies: Vec<Policy>,
}

impl Protected {
    /// Every pair of its selectors, with no SA yet.
    fn new(connection: &str, child: &Child) -> Protected {
        Protected {
            connection: connection.to_owned(),
            child: child.name.clone(),
            policies: pairs(&child.local_ts, &child.remote_ts, Action::Protect(None)).collect(),
        }
    }

    /// Connection and child.
    pub fn name(&self) -> (String, String) {
        (self.connection.clone(), self.child.clone())
    }

    /// Whether outbound packets of a flow are its to protect.
    pub fn covers(&self, flow: &Flow) -> bool {
        self.policies.iter().any(|policy| {
            flow.source_within(&policy.local) && flow.destination_within(&policy.remote)
        })
    }
}

/// What must never leave or arrive in clear, in the order of the file.
pub struct Protection {
    all: Vec<Protected>,
    /// The place of each, by connection and child.
    places: BTreeMap<String, BTreeMap<String, usize>>,
    policies: usize,
}

/// The SAs that traffic leaves by, or will: each with the place of its child in the file.
#[derive(Default)]
pub struct Sending {
    sas: Vec<(usize, Arc<ChildSa>)>,
    policies: usize,
    /// Those that are not carried yet.
    pub foreseen: Vec<SaId>,
    /// One of them has a worker of its own (RFC 9611).
    pub resource: bool,
}

impl Protection {
    pub fn of(config: &Config) -> Protection {
        let connections = config.connections.iter();
        Protection::new(connections.flat_map(|connection| {
            let children = connection.children.iter();
            children.map(|child| Protected::new(&connection.name, child))
        }))
    }

    fn new(all: impl Iterator<Item = Protected>) -> Protection {
        let all: Vec<Protected> = all.collect();
        let mut places: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (place, protected) in all.iter().enumerate() {
            let children = places.entry(protected.connection.clone()).or_default();
            children.insert(protected.child.clone(), place);
        }
        Protection {
            policies: all.iter().map(|protected| protected.policies.len()).sum(),
            places,
            all,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Protected> {
        self.all.iter()
    }

    /// An SA that is up; one whose child is not in the file any more leads nowhere.
    pub fn sends(
        &self,
        sending: &mut Sending,
        (connection, child): (&str, &str),
        sa: &Arc<ChildSa>,
    ) {
        let place = self.places.get(connection).and_then(|c| c.get(child));
        if let Some(place) = place {
            sending.policies += sa.local_ts.len() * sa.remote_ts.len();
            sending.sas.push((*place, Arc::clone(sa)));
        }
    }

    /// The same of one that is not carried yet.
    pub fn will_send(&self, sending: &mut Sending, names: (&str, &str), sa: &Arc<ChildSa>) {
        sending.foreseen.push(sa.id);
        sending.resource |= sa.options.resource.is_some();
        self.sends(sending, names, sa);
    }

    /// About how many policies come of it, for one worker.
    pub fn count(&self, sending: &Sending) -> usize {
        self.policies + sending.policies
    }

    /// The policies of so many workers: of each child its SAs that are up, then what it protects even
    /// while none is, so that it never leaves in clear. Of the SAs that have a worker each (RFC 9611) its
    /// own comes first for each worker.
    pub fn policies(&self, mut sending: Sending, workers: u16) -> Vec<Vec<Policy>> {
        if sending.foreseen.is_empty() {
            sending.sas.sort_by_key(|(place, _)| *place);
        } else {
            sending.sas.sort_by_key(|(place, sa)| (*place, sa.id));
        }
        let of = |worker| self.policies_of(&sending, worker);
        (0..workers).map(of).collect()
    }

    fn policies_of(&self, sending: &Sending, worker: u16) -> Vec<Policy> {
        let mut policies = Vec::with_capacity(self.count(sending));
        let mut rest = sending.sas.as_slice();
        for (place, protected) in self.all.iter().enumerate() {
            let (own, later) = rest.split_at(rest.partition_point(|(of, _)| *of <= place));
            rest = later;
            let mut own: Vec<&ChildSa> = own.iter().map(|(_, sa)| &**sa).collect();
            if own.iter().any(|sa| sa.options.resource.is_some()) {
                let count = own.len();
                own.rotate_left(usize::from(worker) % count);
                own.sort_by_key(|sa| sa.options.resource != Some(worker));
            }
            for sa in own {
                let action = Action::Protect(Some(sa.id));
                policies.extend(pairs(&sa.local_ts, &sa.remote_ts, action));
            }
            policies.extend(protected.policies.iter().cloned());
        }
        policies
    }
}

fn pairs(
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
    action: Action,
) -> impl Iterator<Item = Policy> {
    let pairs = local
        .iter()
        .flat_map(move |local| remote.iter().map(move |remote| (*local, *remote)));
    // A child may carry both families; no packet has one of each.
    let pairs = pairs.filter(|(local, remote)| local.start.is_ipv4() == remote.start.is_ipv4());
    pairs.map(move |(local, remote)| Policy {
        local,
        remote,
        action,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Children of one connection that protect nothing while none of their SAs is up.
    pub fn protection(connection: &str, children: &[&str]) -> Protection {
        Protection::new(children.iter().map(|child| Protected {
            connection: connection.to_owned(),
            child: (*child).to_owned(),
            policies: Vec::new(),
        }))
    }
}
