//! The policies of the workers: of which SAs, when they are given anew, and where they are made.
//!
//! A database takes as long to make as there are SAs. So a standby makes it while it stands by, of the
//! SAs that it would carry, and a takeover finds it with the workers; and of very many SAs it is made
//! beside the control thread, which has heartbeats to send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hitless_dataplane::command::Command;
use hitless_dataplane::flow::Flow;
use hitless_dataplane::spd::Spd;
use hitless_sa::{IkeSpi, Instant, SaId, TrafficSelector};

use super::Gateway;
use super::protected::{Protection, Sending};

/// SAs for which one pause is meant.
const MANY: usize = 1024;
/// From one publication to the next, for every [`MANY`] SAs: on a leader, where a packet that waits
/// for one ends the pause, and on a standby, which is in no hurry. Handshakes come by the hundreds in
/// that time.
const PAUSE_OF_A_LEADER: Duration = Duration::from_millis(10);
const PAUSE_OF_A_STANDBY: Duration = Duration::from_millis(20);
/// A part of [`Builder::worth`] is looked at as often as it changes, and on the control thread: more of
/// them take it milliseconds, which a standby that is given a copy does not have for each datagram.
const PARTS: usize = 8;

/// The databases of all workers, or one for each.
type Made = Vec<Arc<Spd>>;

/// Makes them.
pub type Job = Box<dyn FnOnce() -> Made + Send>;

/// Where databases of very many policies are made.
pub trait Builder: Send {
    /// Begins. Nothing else is begun before this is done.
    fn start(&mut self, job: Job);
    /// What has been made since; nothing in it if that failed.
    fn take(&mut self) -> Option<Made>;
    /// As many SAs make the next wait longer. It is for more policies than one of [`PARTS`] of that.
    fn worth(&self) -> usize {
        MANY
    }
}

/// On the control thread: for whoever wants to see the same again each time.
#[derive(Default)]
pub struct AtOnce(Option<Made>);

impl Builder for AtOnce {
    fn start(&mut self, job: Job) {
        self.0 = Some(job());
    }

    fn take(&mut self) -> Option<Made> {
        self.0.take()
    }
}

/// On a thread of its own.
#[derive(Default)]
pub struct Beside(Option<JoinHandle<Made>>);

impl Builder for Beside {
    fn start(&mut self, job: Job) {
        let name = "policies".to_owned();
        self.0 = thread::Builder::new().name(name).spawn(job).ok();
    }

    fn take(&mut self) -> Option<Made> {
        match self.0.take() {
            Some(thread) if !thread.is_finished() => {
                self.0 = Some(thread);
                None
            }
            Some(thread) => Some(thread.join().unwrap_or_default()),
            None => Some(Made::default()),
        }
    }
}

/// When the workers are given the policies.
pub(super) struct Publication {
    /// Inherited IKE SAs that wait.
    pub left: usize,
    /// The next publication waits for no pause.
    pub urgent: bool,
    last: Instant,
    builder: Box<dyn Builder>,
    making: bool,
    /// SAs that the policies lead to and that were not carried when those were made, in order, and
    /// how many of them have been carried since.
    foreseen: Vec<SaId>,
    carried: usize,
    /// Publications that were begun, and the last that the workers have.
    begun: u64,
    given: u64,
    /// SAs that send, and did not when the last publication was begun.
    fresh: Vec<SaId>,
    /// SAs that others send for, each with the publication that does not lead to them any more.
    succeeded: BTreeMap<SaId, u64>,
}

impl Default for Publication {
    fn default() -> Publication {
        Publication {
            left: 0,
            urgent: false,
            last: Instant::default(),
            builder: Box::new(AtOnce::default()),
            making: false,
            foreseen: Vec::new(),
            carried: 0,
            begun: 0,
            given: 0,
            fresh: Vec::new(),
            succeeded: BTreeMap::new(),
        }
    }
}

impl Publication {
    /// An SA is carried from now on: whether the policies lead to it already.
    pub fn foresaw(&mut self, sa: SaId) -> bool {
        let foreseen = self.foreseen.binary_search(&sa).is_ok();
        self.carried += usize::from(foreseen);
        foreseen
    }

    /// An SA does not come: whether the policies lead to it in vain. Said once of each.
    pub fn never_comes(&mut self, sa: SaId) -> bool {
        let place = self.foreseen.binary_search(&sa);
        place.is_ok_and(|place| self.foreseen.remove(place) == sa)
    }

    /// Another SA sends for this one until there are policies that know of it.
    pub fn succeeded(&mut self, sa: SaId) {
        self.succeeded.insert(sa, self.begun + 1);
    }
}

/// Selectors of the SAs that an IKE SA of another member sends on.
pub(super) type Shown = Vec<(SaId, Vec<TrafficSelector>, Vec<TrafficSelector>)>;

impl Gateway {
    /// Very many policies are made there from now on.
    pub fn set_builder(&mut self, builder: Box<dyn Builder>) {
        self.publication.builder = builder;
        self.policies_changed |= std::mem::take(&mut self.publication.making);
    }

    /// What the policies of a copy come from.
    pub(super) fn shown(&self, ike: IkeSpi) -> Shown {
        let children = self.engine.sending_children(ike);
        let shown = children.map(|sa| (sa.id, sa.local_ts.clone(), sa.remote_ts.clone()));
        shown.collect()
    }

    /// The publication with everything that changed until now.
    pub fn publication(&self) -> u64 {
        self.publication.begun + u64::from(self.policies_changed)
    }

    /// Whether the workers have it.
    pub fn has_published(&self, publication: u64) -> bool {
        self.publication.given >= publication
    }

    /// An SA sends from now on that the policies do not lead to. Those that packets have asked for
    /// are waited for.
    pub(super) fn begins_to_send(&mut self, sa: SaId) {
        self.policies_changed = true;
        self.publication.fresh.push(sa);
        let carried = self.children.get(sa);
        let name = carried.map(|carried| (carried.connection.clone(), carried.name.clone()));
        self.publication.urgent |= name.is_some_and(|name| self.asked.contains_key(&name));
    }

    /// A packet of this flow had no SA: if there is one since, its policies are next.
    pub(super) fn hurry_policies_for(&mut self, flow: &Flow) {
        if self.publication.urgent {
            return;
        }
        let fresh = self.publication.fresh.iter();
        let mut fresh = fresh.filter_map(|sa| self.children.get(*sa));
        self.publication.urgent = fresh.any(|carried| {
            let sa = &carried.child;
            let (mut local, mut remote) = (sa.local_ts.iter(), sa.remote_ts.iter());
            local.any(|ts| flow.source_within(ts)) && remote.any(|ts| flow.destination_within(ts))
        });
    }

    /// Whether everything that changed is with the workers.
    pub(super) fn published(&self) -> bool {
        !self.policies_changed && !self.publication.making
    }

    /// Gives the workers the policies of the SAs that are up, if that is due.
    pub(super) fn tend_policies(&mut self, now: Instant) {
        if self.publication.making
            && let Some(made) = self.publication.builder.take()
        {
            self.publication.making = false;
            self.policies_changed |= made.is_empty();
            self.give_policies(made);
        }
        // Once for all that changed: a takeover installs thousands of SAs at a time.
        if self.policies_changed && !self.publication.making && self.publication_due(now) {
            self.publish_policies();
        }
    }

    /// Nothing is left to inherit: what was foreseen and did not come leads nowhere.
    pub(super) fn inherited_all(&mut self) {
        let publication = &mut self.publication;
        self.policies_changed |= publication.carried < publication.foreseen.len();
        // The last of them waits for no pause.
        publication.urgent = true;
    }

    /// Most SAs wait for no other one, and come in crowds: with hundreds of them one publication is
    /// for all that came in a while.
    fn publication_due(&mut self, now: Instant) -> bool {
        let sas = self.children.len() + self.publication.foreseen.len();
        let crowds = sas.saturating_mul(PARTS) / self.publication.builder.worth().max(1);
        let crowds = u32::try_from(crowds).unwrap_or(u32::MAX);
        let pause = match self.dataplane.leading() {
            true => PAUSE_OF_A_LEADER,
            false => PAUSE_OF_A_STANDBY,
        };
        let pause = pause.saturating_mul(crowds) / PARTS as u32;
        let paused = now.since(self.publication.last) >= pause;
        let due = self.publication.urgent || paused;
        if due {
            self.publication.last = now;
            self.publication.urgent = false;
        }
        due
    }

    /// Gives the workers the policies of the SAs that are up, and of those that a standby would carry.
    pub(super) fn publish_policies(&mut self) {
        self.policies_changed = false;
        self.publication.begun += 1;
        self.publication.fresh.clear();
        let protection = Arc::clone(self.settings.protection());
        let sending = self.sending(&protection);
        let mut foreseen = sending.foreseen.clone();
        foreseen.sort_unstable();
        let each = self.children.has_resources() || sending.resource;
        let workers = if each { self.dataplane.len() } else { 1 };
        let workers = u16::try_from(workers).unwrap_or(u16::MAX);
        self.beats.look(&mut self.node, self.link.as_mut());
        // One SA may have as many as hundreds.
        let in_all = protection.count(&sending) * usize::from(workers);
        let many = in_all > self.publication.builder.worth() / PARTS;
        (self.publication.foreseen, self.publication.carried) = (foreseen, 0);
        let before = Arc::clone(&self.policies);
        let successors = move |policies: Vec<_>| Arc::new(before.successor(policies));
        let job = move || {
            let policies = protection.policies(sending, workers).into_iter();
            policies.map(successors).collect()
        };
        if many {
            self.publication.making = true;
            self.publication.builder.start(Box::new(job));
        } else {
            self.give_policies(job());
        }
    }

    /// The SAs that send, and those that a standby would carry: all that the control thread has to look
    /// at, and heartbeats do not wait for it.
    fn sending(&mut self, protection: &Protection) -> Sending {
        let (beats, node) = (&mut self.beats, &mut self.node);
        let mut link = self.link.as_mut();
        let mut beat = || beats.look(node, link.as_deref_mut());
        let mut sending = Sending::default();
        for carried in self.children.iter().filter(|carried| carried.send) {
            beat();
            let names = (carried.connection.as_str(), carried.name.as_str());
            protection.sends(&mut sending, names, &carried.child);
        }
        for (connection, name, sa) in self.engine.waiting_children() {
            beat();
            protection.will_send(&mut sending, (connection, name), sa);
        }
        sending
    }

    fn give_policies(&mut self, made: Made) {
        let Some(common) = made.first().cloned() else {
            return;
        };
        if made.len() > 1 {
            for (worker, own) in made.into_iter().enumerate() {
                self.dataplane.send(worker, Command::Policies(own));
            }
        } else {
            self.dataplane
                .broadcast(|| Command::Policies(Arc::clone(&common)));
        }
        self.policies = common;
        // One at a time is made.
        self.publication.given = self.publication.begun;
        let given = self.publication.given;
        let succeeded = &mut self.publication.succeeded;
        // Not if it was succeeded again since these were begun.
        for (old, _) in succeeded.extract_if(.., |_, known| *known <= given) {
            self.dataplane
                .broadcast(|| Command::Succeed { old, new: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hitless_sa::{Incarnation, MemberId};

    fn sa(counter: u32) -> SaId {
        SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter,
        }
    }

    #[test]
    fn an_sa_that_was_foreseen_and_does_not_come_is_told_of_once() {
        let mut publication = Publication {
            foreseen: vec![sa(1), sa(2), sa(4)],
            ..Publication::default()
        };
        assert!(publication.foresaw(sa(1)));
        assert!(!publication.never_comes(sa(3)), "nothing leads to it");
        assert!(publication.never_comes(sa(2)));
        assert!(!publication.never_comes(sa(2)));
        assert!(!publication.foresaw(sa(2)), "policies that come lead to it");
        assert!(publication.foresaw(sa(4)));
    }
}
