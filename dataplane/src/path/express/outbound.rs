//! The lane from the inner packet to ESP (RFC 4301 section 5.1, RFC 4303 section 3.3). A packet of a flow
//! whose SA is known needs no policy search, no route and no neighbour: its headers are ready.

use hitless_sa::Instant;
use smallvec::SmallVec;

use super::flows::{Key, Protected};
use super::record::{self, Dressed, Way};
use super::{Leaving, Leavings, Rest, egress};
use crate::aead::{self, Job};
use crate::cell::Block;
use crate::esp;
use crate::flow::Flow;
use crate::pool::Packet;
use crate::port::BURST;
use crate::spd::Direction;
use crate::verdict::DropReason;
use crate::wire::ethernet;
use crate::worker::Worker;

/// A packet of a known flow.
struct Sealing {
    packet: Packet,
    /// Octets of the inner packet.
    length: u16,
    /// Which of the burst's SAs it goes by.
    run: u8,
    /// Where ESP begins in the frame that leaves.
    esp: u8,
    high: Option<u32>,
    refused: Option<DropReason>,
    sealed: bool,
}

/// What one SA has to do with a burst.
struct Run {
    slot: u32,
    /// The policy of its last packet so far.
    policy: u32,
    /// Packets and octets that the policy has not been told of.
    untold: (u32, u32),
    wanted: u32,
    /// What of it left.
    sealed: (u32, u32),
    fits: usize,
    port: usize,
    esn: bool,
    numbers: Option<Block>,
}

type Sealings = SmallVec<[Sealing; BURST]>;
type Runs = SmallVec<[Run; BURST]>;
type Found = SmallVec<[Option<Protected>; BURST]>;

impl Worker {
    /// Takes what it can; the rest goes the plain way as it came.
    pub(super) fn express_outbound(
        &mut self,
        now: Instant,
        leaving: &mut Leavings,
        rest: &mut Rest,
    ) {
        let found = self.known_flows(leaving);
        let mut runs = Runs::new();
        let mut sealings = Sealings::new();
        self.choose(now, leaving, found, &mut runs, &mut sealings, rest);
        self.draw(&mut runs);
        self.dress_all(&mut runs, &mut sealings);
        self.seal_express(&runs, &mut sealings);
        self.leave(now, &mut runs, sealings);
    }

    /// What is known of each packet's flow. Everything that a packet needs is asked for in steps.
    fn known_flows(&self, leaving: &Leavings) -> Found {
        let express = &self.express;
        let mut keys: SmallVec<[(Key, usize); BURST]> = SmallVec::new();
        for Leaving { packet, v6, .. } in leaving {
            let key = Key::of_frame(self.frames.pool.bytes(packet), *v6).unwrap_or_default();
            let place = express.flows.place(&key);
            express.flows.prefetch(place);
            keys.push((key, place));
        }
        let mut found = Found::new();
        // Those that differ from the one before.
        let mut heads: SmallVec<[(Protected, u16); BURST]> = SmallVec::new();
        for ((key, place), leaving) in keys.iter().zip(leaving) {
            let flow = express.flows.find(key, *place).copied();
            if let Some(flow) = flow
                && heads.last().map(|(last, _)| last.slot) != Some(flow.slot)
            {
                express.prefetch_record(flow.slot);
                self.sad.prefetch_slot(flow.slot);
                self.spd.prefetch_count(self.id(), flow.policy as usize, 0);
                heads.push((flow, leaving.length));
            }
            found.push(flow);
        }
        if heads.len() > 1 {
            self.prefetch_sas(&heads);
        }
        found
    }

    fn prefetch_sas(&self, heads: &[(Protected, u16)]) {
        for (flow, _) in heads {
            self.sad.prefetch_outbound(flow.slot);
            self.spd.prefetch_count(self.id(), flow.policy as usize, 1);
        }
        for (flow, length) in heads {
            self.sad.prefetch_sending(flow.slot, usize::from(*length));
            self.spd.prefetch_count(self.id(), flow.policy as usize, 2);
        }
    }

    /// Which packets the lane takes: those of known flows that fit. Nothing has happened to the others.
    fn choose(
        &mut self,
        now: Instant,
        leaving: &mut Leavings,
        found: Found,
        runs: &mut Runs,
        sealings: &mut Sealings,
        rest: &mut Rest,
    ) {
        // Where among the runs an SA is, for those that take turns in a burst.
        let mut seen = [u8::MAX; 64];
        let mut current: Option<usize> = None;
        for (leaving, flow) in leaving.drain(..).zip(found) {
            let Leaving {
                packet,
                length,
                place,
                ..
            } = leaving;
            let Some(flow) = flow.filter(|_| !rest.wants(place)) else {
                rest.take(packet, place);
                continue;
            };
            let is = |run: &Run| run.slot == flow.slot;
            if !current.and_then(|at| runs.get(at)).is_some_and(is) {
                let hint = &mut seen[flow.slot as usize % 64];
                let known = usize::from(*hint);
                current = if runs.get(known).is_some_and(is) {
                    Some(known)
                } else {
                    self.begin(now, &flow).map(|run| {
                        *hint = runs.len() as u8;
                        runs.push(run);
                        runs.len() - 1
                    })
                };
            }
            let run = current.and_then(|at| runs.get_mut(at));
            let octets = usize::from(length);
            let room = packet.headroom() + ethernet::HEADER >= record::IN_FRONT
                && packet.tailroom() + packet.len() >= ethernet::HEADER + octets + record::BEHIND
                && !packet.is_run();
            let Some(run) = run.filter(|run| room && octets <= run.fits) else {
                rest.take(packet, place);
                continue;
            };
            if run.policy != flow.policy {
                self.tell_policy(run);
                run.policy = flow.policy;
            }
            run.wanted += 1;
            run.untold = (run.untold.0 + 1, run.untold.1 + u32::from(length));
            sealings.push(Sealing {
                packet,
                length,
                run: current.unwrap_or_default() as u8,
                esp: 0,
                high: None,
                refused: None,
                sealed: false,
            });
        }
    }

    /// What an SA can do now, unless it has changed since the flow was learnt.
    fn begin(&mut self, now: Instant, flow: &Protected) -> Option<Run> {
        let state = self.egress_state();
        let record = self.express.record(flow.slot)?;
        if record.stamp != flow.stamp {
            return None;
        }
        let mut way = record.way();
        if record.state != state || now >= record.until {
            way = self.write_record(now, flow.slot)?;
        }
        let sa = self.sad.outbound_mut(flow.slot)?;
        // Errors from the way may have told of a narrower link (RFC 4301 section 8.2).
        let path = sa.cell.path_mtu().limit(usize::MAX, now);
        let fits = match path {
            usize::MAX => way.fits,
            path => way.fits.min(sa.inner_mtu(path)),
        };
        Some(Run {
            slot: flow.slot,
            policy: flow.policy,
            untold: (0, 0),
            wanted: 0,
            sealed: (0, 0),
            fits,
            port: way.port,
            esn: sa.esn,
            numbers: None,
        })
    }

    /// Writes down anew how packets of an SA leave.
    #[cold]
    fn write_record(&mut self, now: Instant, slot: u32) -> Option<Way> {
        let remote = egress::key(self.sad.outbound_mut(slot)?.remote);
        let (egress, until) = self.egress(now, remote)?;
        let state = self.egress_state();
        let sa = self.sad.outbound_mut(slot)?;
        let record = self.express.records.get_mut(slot as usize)?;
        record
            .fill(sa, &egress, (state, until))
            .then(|| record.way())
    }

    /// Counts what a policy has handled (RFC 4301 section 4.4.1).
    fn tell_policy(&self, run: &mut Run) {
        let (packets, octets) = std::mem::take(&mut run.untold);
        let both = (packets as usize, octets as usize);
        self.spd
            .count_all(self.id(), run.policy as usize, Direction::Outbound, both);
    }

    /// One draw for each SA, of what this burst needs and no more (rule R3).
    fn draw(&mut self, runs: &mut Runs) {
        for run in runs.iter_mut() {
            self.tell_policy(run);
            if let Some(sa) = self.sad.outbound_mut(run.slot) {
                let block = sa.cell.draw(run.wanted);
                if block.len() < run.wanted as usize {
                    self.frames.counters.count_lease_stall();
                }
                run.numbers = Some(block);
            }
        }
    }

    /// A number and all headers for each packet.
    fn dress_all(&mut self, runs: &mut Runs, sealings: &mut Sealings) {
        for sealing in sealings.iter_mut() {
            let Some(run) = runs.get_mut(usize::from(sealing.run)) else {
                continue;
            };
            let Some(number) = run.numbers.as_mut().and_then(Iterator::next) else {
                sealing.refused = Some(DropReason::LeaseExhausted);
                continue;
            };
            // RFC 4303 section 3.3.3: the number must not cycle.
            if !run.esn && number.high() != 0 {
                sealing.refused = Some(DropReason::SequenceOverflow);
                continue;
            }
            sealing.high = esp::high(number, run.esn);
            let identification = self.next_identification() as u16;
            let Worker {
                frames, express, ..
            } = self;
            let at = sealing.packet.headroom() + ethernet::HEADER;
            let record = express.records.get(run.slot as usize);
            let frame = frames.pool.frame_mut(&mut sealing.packet);
            let dressed = record.zip(frame).and_then(|(record, frame)| {
                let inner = (at, usize::from(sealing.length));
                record.dress(frame, inner, number, identification)
            });
            sealing.refused = match dressed {
                Some(Dressed { start, length, esp })
                    if frames.pool.set_range(&mut sealing.packet, start, length) =>
                {
                    sealing.esp = esp as u8;
                    None
                }
                _ => Some(DropReason::TooBig),
            };
        }
    }

    /// Encrypts, and writes the ICV (RFC 4303 section 3.3.2).
    fn seal_express(&mut self, runs: &Runs, sealings: &mut Sealings) {
        let Worker { sad, frames, .. } = self;
        let packets = sealings.iter_mut().filter_map(|sealing| {
            let Sealing {
                packet,
                run,
                sealed,
                esp,
                high,
                refused: None,
                ..
            } = sealing
            else {
                return None;
            };
            Some((packet, (*run, *esp, *high, sealed)))
        });
        let each = frames.pool.each_bytes_mut(packets);
        aead::seal_burst(each.filter_map(|(frame, (run, esp, high, ok))| {
            let key = sad.sealing_key(runs.get(usize::from(run))?.slot)?;
            let esp = frame.get_mut(usize::from(esp)..)?;
            Some(Job { key, esp, high, ok })
        }));
    }

    /// Sends what was sealed and nothing else (S6), and counts it.
    fn leave(&mut self, now: Instant, runs: &mut Runs, sealings: Sealings) {
        for sealing in sealings {
            let Some(run) = runs.get_mut(usize::from(sealing.run)) else {
                self.frames.drop(sealing.packet, DropReason::NoSa);
                continue;
            };
            if !sealing.sealed {
                self.refuse_sealing(run.slot, sealing);
                continue;
            }
            run.sealed = (run.sealed.0 + 1, run.sealed.1 + u32::from(sealing.length));
            self.links.queue(&mut self.frames, run.port, sealing.packet);
        }
        for run in runs {
            let (packets, octets) = run.sealed;
            if packets > 0 {
                let both = (packets as usize, octets as usize);
                self.frames.counters.count_sealed(both.0, both.1);
                if let Some(sa) = self.sad.outbound_mut(run.slot) {
                    sa.counters.count_packets(both.0, both.1);
                    sa.last_use = now;
                }
                self.note_uses(run.slot, now, packets);
            }
        }
    }

    /// Drops a packet for which there was no number, or that could not be sealed.
    #[cold]
    fn refuse_sealing(&mut self, slot: u32, sealing: Sealing) {
        let frozen = self
            .sad
            .outbound_mut(slot)
            .is_some_and(|sa| sa.cell.frozen());
        let reason = match sealing.refused {
            Some(DropReason::LeaseExhausted) if frozen => DropReason::NotActive,
            Some(reason) => reason,
            None => DropReason::NoSa,
        };
        self.drop_outbound(slot, sealing.packet, reason);
    }

    /// Remembers that a flow which took the plain way goes by the SA in this slot.
    pub(crate) fn learn_flow(&mut self, flow: &Flow, policy: usize, slot: u32) {
        // What starts here does not come from the protected side.
        if self.addresses.contains(flow.source) {
            return;
        }
        let suits = self
            .sad
            .outbound_mut(slot)
            .is_some_and(|sa| record::suits(sa));
        let stamp = self.express.record(slot).map(|record| record.stamp);
        if let (true, Some(stamp), Ok(policy)) = (suits, stamp, u32::try_from(policy)) {
            let found = Protected {
                slot,
                stamp,
                policy,
            };
            self.express.flows.learn(flow, found);
        }
    }
}
