//! The lane from the inner packet to ESP (RFC 4301 section 5.1, RFC 4303 section 3.3). A packet of a flow
//! whose SA is known needs no policy search, no route and no neighbour: its headers are ready.

use hitless_sa::Instant;
use smallvec::SmallVec;

use super::flows::{Key, Protected};
use super::record::{self, Dressed, Way};
use super::{Express, Place, Rest, Sight, egress};
use crate::aead::{self, EspKey, Job};
use crate::cell::Block;
use crate::esp;
use crate::flow::Flow;
use crate::pool::Packet;
use crate::port::{BURST, Burst};
use crate::prefetch::prefetch;
use crate::spd::Direction;
use crate::verdict::DropReason;
use crate::wire::ethernet;
use crate::worker::Worker;

/// What is known of a packet so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Note {
    key: Key,
    /// Octets of the inner packet.
    length: u16,
    place: Place,
    flow: Option<Protected>,
    /// Which of the burst's SAs it goes by.
    run: u8,
    /// Where ESP begins in the frame that leaves.
    esp: u8,
    high: Option<u32>,
    refused: Option<DropReason>,
    sealed: bool,
}

impl Note {
    /// Of a plain packet, the one at this place in its burst.
    #[inline]
    pub(super) fn look(&mut self, frame: &[u8], sight: &Sight, at: u8) {
        let pair = sight.pair;
        // Nothing of an earlier packet stays, least of all that it was sealed (S6).
        *self = Note {
            key: Key::of_frame(frame, sight.v6).unwrap_or_default(),
            length: sight.length,
            place: Place { at, pair },
            ..Note::default()
        };
    }
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

type Runs = SmallVec<[Run; BURST]>;

impl Worker {
    /// Takes what it can of packets of which there is a note each; the rest goes the plain way as it
    /// came.
    pub(super) fn express_outbound(&mut self, now: Instant, packets: &mut Burst, rest: &mut Rest) {
        self.find_flows(packets.len());
        let mut runs = Runs::new();
        if !self.choose_all(now, packets, &mut runs, rest) {
            self.give_up_some(packets, rest);
        }
        if runs.is_empty() {
            return;
        }
        self.draw(&mut runs);
        self.dress_all(packets, &mut runs);
        self.seal_all_dressed(packets, &runs);
        self.leave(now, packets, &mut runs);
    }

    /// What is known of each packet's flow. Everything that packets need is asked for in steps.
    fn find_flows(&mut self, packets: usize) {
        let id = self.id();
        let Worker {
            express, sad, spd, ..
        } = self;
        let Express {
            flows,
            records,
            notes,
            ..
        } = express;
        let Some(notes) = notes.get_mut(..packets) else {
            return;
        };
        let mut places = [0u32; BURST];
        let mut last = Key::default();
        let mut place = flows.place(&last);
        for (note, to) in notes.iter().zip(&mut places) {
            if note.key != last {
                last = note.key;
                place = flows.place(&last);
                flows.prefetch(place);
            }
            *to = place as u32;
        }
        // Those that differ from the one before.
        let mut heads: SmallVec<[(Protected, u16); BURST]> = SmallVec::new();
        let (mut last, mut found) = (Key::default(), None);
        for (note, place) in notes.iter_mut().zip(places) {
            if note.key != last {
                last = note.key;
                found = flows.find(&last, place as usize).copied();
                if let Some(flow) = found {
                    if let Some(record) = records.get(flow.slot as usize) {
                        prefetch(record);
                    }
                    sad.prefetch_slot(flow.slot);
                    spd.prefetch_count(id, flow.policy as usize, 0);
                    heads.push((flow, note.length));
                }
            }
            note.flow = found;
        }
        if heads.len() > 1 {
            self.prefetch_sas(&heads);
        }
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

    /// Which packets the lane takes: those of known flows that fit. Nothing has happened to the others,
    /// whose notes say that they are refused. Whether it takes all.
    fn choose_all(
        &mut self,
        now: Instant,
        packets: &Burst,
        runs: &mut Runs,
        rest: &mut Rest,
    ) -> bool {
        // Where among the runs an SA is, for those that take turns in a burst.
        let mut seen = [u8::MAX; 64];
        let mut all = true;
        let mut current = usize::MAX;
        for (at, packet) in packets.iter().enumerate() {
            let Some(note) = self.express.notes.get(at).copied() else {
                return false;
            };
            if let Some(flow) = note.flow.filter(|_| !rest.wants(note.place)) {
                let is = |run: &Run| run.slot == flow.slot;
                if !runs.get(current).is_some_and(is) {
                    let hint = &mut seen[flow.slot as usize % 64];
                    current = usize::from(*hint);
                    if !runs.get(current).is_some_and(is)
                        && let Some(run) = self.begin(now, &flow)
                    {
                        current = runs.len();
                        *hint = current as u8;
                        runs.push(run);
                    }
                }
                if let Some(run) = runs.get_mut(current).filter(|run| is(run))
                    && usize::from(note.length) <= run.fits
                    && has_room(packet, note.length)
                {
                    if run.policy != flow.policy {
                        self.tell_policy(run);
                        run.policy = flow.policy;
                    }
                    run.wanted += 1;
                    run.untold = (run.untold.0 + 1, run.untold.1 + u32::from(note.length));
                    self.express.notes[at % BURST].run = current as u8;
                    continue;
                }
            }
            all = false;
            rest.mark(note.place);
            self.express.notes[at % BURST].refused = Some(DropReason::NoSa);
        }
        all
    }

    /// Parts those that are refused from the others, whose notes go with them.
    #[cold]
    fn give_up_some(&mut self, packets: &mut Burst, rest: &mut Rest) {
        let mut chosen = Burst::new();
        let notes = *self.express.notes;
        for (packet, note) in packets.drain(..).zip(notes) {
            if note.refused.is_some() {
                rest.take(packet, note.place);
            } else {
                self.express.notes[chosen.len() % BURST] = note;
                chosen.push(packet);
            }
        }
        packets.append(&mut chosen);
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
    fn dress_all(&mut self, packets: &mut Burst, runs: &mut Runs) {
        let mut identification = self.take_identifications(packets.len());
        let Worker {
            frames, express, ..
        } = self;
        let Express { records, notes, .. } = express;
        for (packet, note) in packets.iter_mut().zip(notes.iter_mut()) {
            identification = identification.wrapping_add(1);
            let Some(run) = runs.get_mut(usize::from(note.run)) else {
                continue;
            };
            let Some(number) = run.numbers.as_mut().and_then(Iterator::next) else {
                note.refused = Some(DropReason::LeaseExhausted);
                continue;
            };
            // RFC 4303 section 3.3.3: the number must not cycle.
            if !run.esn && number.high() != 0 {
                note.refused = Some(DropReason::SequenceOverflow);
                continue;
            }
            note.high = esp::high(number, run.esn);
            let at = packet.headroom() + ethernet::HEADER;
            let record = records.get(run.slot as usize);
            let frame = frames.pool.frame_mut(packet);
            let dressed = record.zip(frame).and_then(|(record, frame)| {
                let inner = (at, usize::from(note.length));
                record.dress(frame, inner, number, identification as u16)
            });
            match dressed {
                Some(Dressed { start, length, esp })
                    if frames.pool.set_range(packet, start, length) =>
                {
                    note.esp = esp as u8;
                }
                _ => note.refused = Some(DropReason::TooBig),
            }
        }
    }

    /// Encrypts, and writes the ICV (RFC 4303 section 3.3.2).
    fn seal_all_dressed(&mut self, packets: &mut Burst, runs: &Runs) {
        let Worker {
            sad,
            frames,
            express,
            ..
        } = self;
        let with_notes = packets.iter_mut().zip(express.notes.iter_mut());
        let each = frames.pool.each_bytes_mut(with_notes);
        // The key of the packet before.
        let mut last: Option<(u8, &EspKey)> = None;
        aead::seal_burst(each.filter_map(|(frame, note)| {
            if note.refused.is_some() {
                return None;
            }
            let key = match last {
                Some((run, key)) if run == note.run => key,
                _ => sad.sealing_key(runs.get(usize::from(note.run))?.slot)?,
            };
            last = Some((note.run, key));
            let esp = frame.get_mut(usize::from(note.esp)..)?;
            Some(Job {
                key,
                esp,
                high: note.high,
                ok: &mut note.sealed,
            })
        }));
    }

    /// Sends what was sealed and nothing else (S6), and counts it.
    fn leave(&mut self, now: Instant, packets: &mut Burst, runs: &mut Runs) {
        let mut all = true;
        for (note, _) in self.express.notes.iter().zip(packets.iter()) {
            all &= note.sealed;
            if let Some(run) = runs.get_mut(usize::from(note.run)).filter(|_| note.sealed) {
                run.sealed = (run.sealed.0 + 1, run.sealed.1 + u32::from(note.length));
            }
        }
        match runs.as_slice() {
            [run, others @ ..] if all && others.iter().all(|other| other.port == run.port) => {
                self.links.queue_all(&mut self.frames, run.port, packets);
            }
            _ => self.leave_apart(packets, runs),
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

    /// Each packet to the port of its SA, or back to the pool.
    #[cold]
    fn leave_apart(&mut self, packets: &mut Burst, runs: &Runs) {
        let notes = *self.express.notes;
        for (packet, note) in packets.drain(..).zip(notes) {
            match runs.get(usize::from(note.run)) {
                Some(run) if note.sealed => self.links.queue(&mut self.frames, run.port, packet),
                Some(run) => self.refuse_sealing(run.slot, packet, note.refused),
                None => self.frames.drop(packet, DropReason::NoSa),
            }
        }
    }

    /// Drops a packet for which there was no number, or that could not be sealed.
    fn refuse_sealing(&mut self, slot: u32, packet: Packet, refused: Option<DropReason>) {
        let frozen = self
            .sad
            .outbound_mut(slot)
            .is_some_and(|sa| sa.cell.frozen());
        let reason = match refused {
            Some(DropReason::LeaseExhausted) if frozen => DropReason::NotActive,
            Some(reason) => reason,
            None => DropReason::NoSa,
        };
        self.drop_outbound(slot, packet, reason);
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

/// Whether a frame has room for all that goes around an inner packet of so many octets.
#[inline]
fn has_room(packet: &Packet, octets: u16) -> bool {
    let inner = ethernet::HEADER + usize::from(octets);
    packet.headroom() + ethernet::HEADER >= record::IN_FRONT
        && packet.tailroom() + packet.len() >= inner + record::BEHIND
        && !packet.is_run()
}
