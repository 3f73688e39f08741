//! What one part of the gateway says to the others.

use std::sync::Arc;

use hitless_dataplane::command::Command;
use hitless_sa::{Entropy, Epoch, IkeSpi, Instant, Lease, SaId};
use hitless_sync::{
    Input as SyncInput, ObjectId, Output as SyncOutput, StepDown, TakeoverObject, TakeoverSa,
};
use std::collections::BTreeMap;

use super::link::LinkOutput;
use super::{Event, Gateway, Held, Output, Waiting};
use crate::ike::{self, Commit, Input, Output as IkeOutput, Resume, Transmit, takeover};

impl Gateway {
    /// Carries outputs between the parts until all are silent.
    pub(super) fn settle(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        loop {
            if let Some(output) = self.engine.poll_output() {
                self.ike_output(now, entropy, output);
            } else if let Some(output) = self.node.poll_output() {
                self.sync_output(now, entropy, output);
            } else if let Some(output) = self.link.as_mut().and_then(|link| link.poll_output()) {
                self.link_output(now, entropy, output);
            } else {
                return;
            }
        }
    }

    fn ike_output(&mut self, now: Instant, entropy: &mut dyn Entropy, output: IkeOutput) {
        match output {
            IkeOutput::Transmit(transmit) => self.transmit(&transmit),
            IkeOutput::Retransmit {
                ike,
                version,
                transmit,
            } => {
                // What the standby does not hold yet may not leave, not even as a repetition.
                let held = self
                    .held
                    .get(&ike)
                    .and_then(|waiting| waiting.outputs.front());
                if held.is_none_or(|held| version < held.version) {
                    self.transmit(&transmit);
                }
            }
            IkeOutput::Commit(commit) => self.commit(now, entropy, commit),
            IkeOutput::Event(event) => {
                match &event {
                    ike::Event::ReplayCounterSync {
                        children, delta, ..
                    } => {
                        self.leap(children, *delta);
                    }
                    ike::Event::Dropped { .. } => self.ike_dropped += 1,
                    _ => {}
                }
                self.outputs.push_back(Output::Event(Event::Ike(event)));
            }
        }
    }

    /// Output commit: the record goes to the standby, the messages and SAs wait.
    fn commit(&mut self, now: Instant, entropy: &mut dyn Entropy, commit: Commit) {
        let (body, children) = match commit.record {
            Some(record) => (Some(record.body), record.children),
            None => (None, Vec::new()),
        };
        let held = Held {
            version: commit.version,
            changes: commit.changes,
            transmits: commit.transmits,
            since: now,
        };
        let object = ObjectId(commit.ike.0);
        let node = &self.node;
        let waiting = self.held.entry(commit.ike).or_insert_with(|| Waiting {
            released: node.body(object).cloned(),
            ..Waiting::default()
        });
        waiting.outputs.push_back(held);
        let input = SyncInput::Commit {
            object,
            version: commit.version,
            body,
            children,
        };
        self.node.handle(now, entropy, input);
    }

    fn sync_output(&mut self, now: Instant, entropy: &mut dyn Entropy, output: SyncOutput) {
        match output {
            SyncOutput::Datagram { to, payload } => {
                if let Some(link) = &mut self.link {
                    link.send(to, &payload);
                }
            }
            SyncOutput::Persist(durable) => self.outputs.push_back(Output::Persist(durable)),
            SyncOutput::Lead {
                epoch,
                base,
                objects,
            } => {
                self.lead(now, entropy, epoch, base, objects);
            }
            SyncOutput::StepDown { reason } => self.step_down(reason),
            SyncOutput::Drain => self.start_drain(),
            SyncOutput::Lease { sa, lease } => self.raise(sa, lease),
            SyncOutput::Committed {
                object,
                version,
                leases,
            } => {
                self.release(IkeSpi(object.0), version, &leases);
            }
            SyncOutput::Discard { object, version } => {
                self.discard(now, entropy, IkeSpi(object.0), version);
            }
            SyncOutput::Store {
                object,
                version,
                body,
            } => {
                let ike = IkeSpi(object.0);
                if let Err(error) = self.engine.store(now, ike, version, &body) {
                    tracing::error!(%ike, version, %error, "a replicated IKE SA cannot be read");
                }
            }
            SyncOutput::Forget { object } => self.engine.forget(IkeSpi(object.0)),
            SyncOutput::Degraded { on, .. } => {
                self.outputs
                    .push_back(Output::Event(Event::Degraded { on }));
            }
            SyncOutput::RekeyNow { sa, .. } => {
                self.engine.handle(now, entropy, Input::RekeyChild(sa));
            }
            SyncOutput::Event(event) => self.outputs.push_back(Output::Event(Event::Sync(event))),
        }
    }

    fn link_output(&mut self, now: Instant, entropy: &mut dyn Entropy, output: LinkOutput) {
        match output {
            LinkOutput::Transmit(to, datagram) => {
                self.outputs.push_back(Output::SyncTransmit(to, datagram));
            }
            LinkOutput::Received(from, payload) => {
                let input = SyncInput::Datagram {
                    from,
                    payload: &payload,
                };
                self.node.handle(now, entropy, input);
            }
            LinkOutput::Event(event) => {
                self.outputs.push_back(Output::Event(Event::Link(event)));
            }
        }
    }

    /// The standby holds the record: SAs first, so that they are there when the peer uses them,
    /// then the messages, in the order of their versions.
    fn release(&mut self, ike: IkeSpi, version: u64, leases: &[(SaId, Lease)]) {
        let Some(waiting) = self.held.get_mut(&ike) else {
            return;
        };
        let mut ready = Vec::new();
        while waiting
            .outputs
            .front()
            .is_some_and(|held| held.version <= version)
        {
            ready.extend(waiting.outputs.pop_front());
        }
        if waiting.outputs.is_empty() {
            self.held.remove(&ike);
        }
        let leases: BTreeMap<SaId, Lease> = leases.iter().copied().collect();
        for held in ready {
            for change in held.changes {
                self.apply(change, &leases);
            }
            for transmit in &held.transmits {
                self.transmit(transmit);
            }
        }
        for (sa, lease) in leases {
            self.raise(sa, lease);
        }
    }

    /// Nothing that waits for this version may ever leave: IKE goes back to what has left.
    fn discard(&mut self, now: Instant, entropy: &mut dyn Entropy, ike: IkeSpi, version: u64) {
        let Some(waiting) = self.held.remove(&ike) else {
            return;
        };
        let newest = waiting
            .outputs
            .back()
            .map_or(version, |held| held.version.max(version));
        let released = waiting.released.as_ref().map(|body| body.as_slice());
        if let Err(error) = self.engine.roll_back(now, entropy, ike, newest, released) {
            tracing::error!(%ike, %error, "an IKE SA cannot be taken back to its last state");
        }
    }

    fn raise(&mut self, sa: SaId, lease: Lease) {
        if let Some(carried) = self.children.get(sa) {
            carried.cell.raise(lease);
        }
    }

    /// The peer is a cluster that took over and asked for a leap (RFC 6311 section 5.2, R29).
    fn leap(&mut self, children: &[SaId], delta: u64) {
        for sa in children {
            if let Some(carried) = self.children.get(*sa) {
                carried.cell.leap(delta);
            }
        }
    }

    fn lead(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        epoch: Epoch,
        base: Option<Epoch>,
        objects: Vec<TakeoverObject>,
    ) {
        let mut resume = BTreeMap::new();
        let mut plan = BTreeMap::new();
        let mut replace = Vec::new();
        self.skip = 0;
        for object in &objects {
            let delta = object.children.iter().map(|sa| sa.delta).max();
            resume.insert(IkeSpi(object.object.0), (object.exact, delta));
            for sa in &object.children {
                // Without an exact record the predecessor may have replaced or deleted it.
                if sa.rekey_only || !object.exact {
                    replace.push(sa.sa);
                }
                if !sa.rekey_only {
                    self.skip = self.skip.max(sa.skip);
                    self.inherited.insert(sa.sa, TakeoverSa::clone(sa));
                }
            }
        }
        self.dataplane.set_leading(true);
        self.dataplane.broadcast(|| Command::Announce);
        for (ike, (exact, delta)) in resume {
            let facts = self.engine.facts(ike).unwrap_or_default();
            let wish = self
                .engine
                .connection(ike)
                .map(|c| c.takeover)
                .unwrap_or_default();
            plan.insert(ike, takeover::resume(wish, exact, facts, delta));
        }
        self.engine.lead(now, entropy, &mut |ike| {
            plan.get(&ike).copied().unwrap_or(Resume::Probe)
        });
        let sas = self.inherited.len();
        let inherits = base.is_some();
        let exact = objects.iter().all(|object| object.exact);
        let event = Event::Leads {
            epoch,
            inherits,
            sas,
            skip: self.skip,
            exact,
        };
        self.outputs.push_back(Output::Event(event));
        for sa in replace {
            self.engine.handle(now, entropy, Input::RekeyChild(sa));
        }
    }

    fn step_down(&mut self, reason: StepDown) {
        self.dataplane.set_leading(false);
        self.drain = None;
        self.held.clear();
        self.inherited.clear();
        self.engine.step_down();
        for sa in self.children.clear() {
            self.dataplane.broadcast(|| Command::Remove(sa));
        }
        self.publish_policies();
        self.outputs
            .push_back(Output::Event(Event::SteppedDown { reason }));
    }

    fn transmit(&mut self, transmit: &Transmit) {
        if let Some(packet) = super::punt::udp_packet(transmit) {
            self.dataplane.inject(&packet);
        }
    }

    /// Gives the workers the policies of the SAs that are up.
    pub(super) fn publish_policies(&mut self) {
        let policies = Arc::new(self.children.policies(self.settings.policies()));
        self.dataplane
            .broadcast(|| Command::Policies(Arc::clone(&policies)));
    }
}
