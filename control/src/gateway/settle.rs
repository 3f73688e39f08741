//! What one part of the gateway says to the others.

use hitless_dataplane::command::Command;
use hitless_sa::{Entropy, IkeSpi, Instant, Lease, SaId, SequenceNumber};
use hitless_sync::{Event as SyncEvent, Input as SyncInput, Output as SyncOutput, Usage};

use super::link::LinkOutput;
use super::{Event, Gateway, Output};
use crate::ike::{self, Input, Output as IkeOutput, Transmit};

impl Gateway {
    /// Carries outputs between the parts until all are silent, then publishes what changed.
    pub(super) fn settle(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.carry(now, entropy);
        self.tend_policies(now);
        self.settled(now);
    }

    /// Carries outputs between the parts until all are silent.
    pub(super) fn carry(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        loop {
            self.beat();
            if let Some(output) = self.engine.poll_output() {
                self.ike_output(now, entropy, output);
            } else if let Some(output) = self.node.poll_output() {
                self.sync_output(now, entropy, output);
            } else if let Some(output) = self.link.as_mut().and_then(|link| link.poll_output()) {
                self.link_output(now, entropy, output);
            } else if let Some(sa) = self.rightless.pop() {
                self.tell_ike(now, entropy, Input::RekeyChild(sa));
            } else {
                break;
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
            } => self.retransmit(ike, version, &transmit),
            IkeOutput::Commit(commit) => self.commit(now, entropy, commit),
            IkeOutput::Event(ike::Event::Keys(lines)) => {
                self.outputs.push_back(Output::KeyLog(lines));
            }
            IkeOutput::Event(event) => {
                let told = self.counts.ike(now, &event);
                if let ike::Event::ReplayCounterSync {
                    children,
                    delta,
                    esn,
                    ..
                } = &event
                {
                    let usage = self.leap(children, *delta, *esn);
                    self.node.handle(now, entropy, SyncInput::Usage(usage));
                }
                self.log_ike_keys(&event);
                if told {
                    self.tell(Event::Ike(event));
                }
            }
        }
    }

    fn sync_output(&mut self, now: Instant, entropy: &mut dyn Entropy, output: SyncOutput) {
        match output {
            SyncOutput::Datagram { to, payload } => {
                if let Some(link) = &mut self.link {
                    link.send(to, &payload);
                    if self.settings.tuning().sync_in_clear
                        && let Some(address) = link.address(to)
                    {
                        let copy = Output::SyncTransmit(address, payload.to_vec());
                        self.outputs.push_back(copy);
                    }
                }
            }
            SyncOutput::Persist(durable) => self.outputs.push_back(Output::Persist(durable)),
            SyncOutput::Lead {
                epoch,
                base,
                objects,
                left,
            } => self.lead(now, entropy, epoch, base, objects, left),
            SyncOutput::Inherited(object) => self.inherit_named(*object),
            SyncOutput::StepDown { reason } => self.step_down(now, reason),
            SyncOutput::Drain => self.start_drain(now),
            SyncOutput::Freeze => self.freeze(now, entropy),
            SyncOutput::Resume => self.resume_leading(now, entropy),
            SyncOutput::Retrieve { from, spi } => self.answer_for(now, entropy, from, spi),
            SyncOutput::Retrieved {
                object,
                version,
                body,
                ..
            } => self.adopt(now, entropy, IkeSpi(object.0), version, &body),
            SyncOutput::Late { packets, .. } => self.take_late(now, entropy, packets),
            SyncOutput::Lease { sa, lease } => self.raise(sa, lease),
            SyncOutput::Committed {
                object,
                version,
                leases,
            } => self.release(IkeSpi(object.0), version, &leases),
            SyncOutput::Discard { object, version } => {
                self.discard(now, entropy, IkeSpi(object.0), version);
            }
            SyncOutput::Store {
                object,
                version,
                body,
            } => {
                self.store(now, IkeSpi(object.0), version, &body);
            }
            SyncOutput::Forget { object } => self.forget(IkeSpi(object.0)),
            SyncOutput::Degraded { on, .. } => self.tell(Event::Degraded { on }),
            SyncOutput::RekeyNow { sa, reason } => {
                self.tell(Event::Spent { sa, reason });
                self.tell_ike(now, entropy, Input::RekeyChild(sa));
            }
            SyncOutput::Event(event) => {
                // A member that joins may have led beside us: switches learn again where we are.
                if let SyncEvent::SessionOpened { .. } = &event
                    && self.dataplane.leading()
                {
                    self.joined = Some(now);
                    self.dataplane.broadcast(|| Command::Announce);
                }
                if self.counts.sync(now, &event) && !self.stops_later(&event) {
                    self.tell(Event::Sync(event));
                }
            }
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
                self.tell(Event::Link(event));
            }
        }
    }

    pub(super) fn raise(&mut self, sa: SaId, lease: Lease) {
        if let Some(carried) = self.children.get(sa) {
            let before = carried.cell.limit();
            carried.cell.raise(lease);
            self.enter_grant(sa, before, None);
        }
    }

    /// The peer is a cluster that took over and asked for a leap (RFC 6311 section 5.2, R29). An IKE SA
    /// that waited for its turn after a takeover is gone on with and asked in one: its Child SAs are
    /// installed behind this, once their record is committed, and leap then.
    ///
    /// Returns where they stand then. The sync protocol hears it before it sends the record that the
    /// answer waits for, so that the record grants numbers above the leap: a standby that knew of the
    /// answer alone would go on below it, and the peer would drop all that as replays.
    fn leap(&mut self, children: &[SaId], delta: u64, esn: bool) -> Vec<Usage> {
        let mut usage = Vec::with_capacity(children.len());
        for sa in children {
            if let Some(carried) = self.children.get_mut(*sa) {
                carried.cell.leap(delta);
                usage.extend(carried.usage());
                continue;
            }
            let leap = self.leaps.entry(*sa).or_default();
            *leap = leap.saturating_add(delta);
            let first = self.inherited.get(sa).map_or(1, |sa| sa.first.0);
            usage.push(Usage {
                sa: *sa,
                cursor: SequenceNumber(first.saturating_add(*leap)),
                inbound_top: SequenceNumber(0),
                esn,
            });
        }
        usage
    }

    pub(super) fn transmit(&mut self, transmit: &Transmit) {
        match super::punt::udp_packet(transmit) {
            Some(packet) => self.dataplane.inject(packet),
            None => self.counts.unsendable += 1,
        }
    }
}
