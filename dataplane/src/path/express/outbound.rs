//! The lane from the inner packet to ESP (RFC 4301 section 5.1, RFC 4303 section 3.3). A packet of a flow
//! whose SA is known needs no policy search, no route and no neighbour: its headers are ready.

use hitless_sa::{Instant, SequenceNumber};
use smallvec::SmallVec;

use super::flows::{Key, Protected};
use super::record::{self, Dressed};
use super::{Express, Place, Rest, Sight, egress};
use crate::aead::{self, Together};
use crate::cell::Block;
use crate::esp;
use crate::flow::Flow;
use crate::pool::Packet;
use crate::port::{BURST, Burst};
use crate::spd::Direction;
use crate::verdict::DropReason;
use crate::wire::ethernet;
use crate::worker::Worker;

/// What is known of a packet so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Note {
    key: Key,
    /// Whether it is of the same flow as the packet before.
    same: bool,
    /// Octets of the inner packet.
    length: u16,
    place: Place,
    /// Which of the burst's SAs it goes by.
    run: u8,
    refused: Option<DropReason>,
    /// Where the frame begins that leaves, and how long it is.
    start: u16,
    dressed: u16,
}

impl Note {
    /// Of a plain packet, the one at this place in its burst, with the key of the one before.
    #[inline]
    pub(super) fn look(&mut self, frame: &[u8], sight: &Sight, at: u8, last: &mut Key) {
        let key = Key::of_frame(frame, sight.v6).unwrap_or_default();
        let pair = sight.pair;
        // Nothing of an earlier packet stays.
        *self = Note {
            key,
            same: key == *last,
            length: sight.length,
            place: Place { at, pair },
            ..Note::default()
        };
        *last = key;
    }
}

/// What one SA has to do with a burst.
struct Run {
    slot: u32,
    stamp: u32,
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

/// What is sealed is a bit for each packet of a burst.
const _: () = assert!(BURST <= u32::BITS as usize);

type Runs = SmallVec<[Run; BURST]>;
/// What is known of a flow, and the length of its packet.
type Found = SmallVec<[(Option<Protected>, u16); BURST]>;

impl Run {
    /// The next number, if there is one.
    #[inline]
    fn number(&mut self) -> Result<SequenceNumber, DropReason> {
        let number = self.numbers.as_mut().and_then(Iterator::next);
        match number {
            None => Err(DropReason::LeaseExhausted),
            // RFC 4303 section 3.3.3: it must not cycle.
            Some(number) if !self.esn && number.high() != 0 => Err(DropReason::SequenceOverflow),
            Some(number) => Ok(number),
        }
    }

    /// The half of a number that only the ICV knows.
    #[inline]
    fn high(&self, number: SequenceNumber) -> Option<u32> {
        esp::high(number, self.esn)
    }
}

impl Worker {
    /// Takes what it can of packets of which there is a note each; the rest goes the plain way as it
    /// came.
    pub(super) fn express_outbound(&mut self, now: Instant, packets: &mut Burst, rest: &mut Rest) {
        let found = self.find_flows(packets.len());
        let mut runs = Runs::new();
        if !self.choose_all(now, packets, &found, &mut runs, rest) {
            self.give_up_some(packets, rest);
        }
        if runs.is_empty() {
            return;
        }
        self.draw(&mut runs);
        let sealed = self.seal_lane(packets, &mut runs);
        self.leave(now, packets, &mut runs, sealed);
    }

    /// What is known of the flows of packets that are not of the same flow as the one before.
    /// Everything that they need is asked for in steps.
    fn find_flows(&self, packets: usize) -> Found {
        let Express { flows, notes, .. } = &self.express;
        let notes = notes.get(..packets).unwrap_or_default();
        let first = || notes.iter().filter(|note| !note.same);
        let mut found = Found::new();
        let mut places: SmallVec<[u32; BURST]> = SmallVec::new();
        for note in first() {
            let place = flows.place(&note.key);
            flows.prefetch(place);
            places.push(place as u32);
        }
        for (note, place) in first().zip(&places) {
            let flow = flows.find(&note.key, *place as usize).copied();
            if let Some(flow) = flow {
                self.express.prefetch_record(flow.slot);
                self.prefetch_use(flow.slot);
                self.spd.prefetch_count(self.id(), flow.policy as usize, 0);
            }
            found.push((flow, note.length));
        }
        if found.len() > 1 {
            self.prefetch_sas(&found);
        }
        found
    }

    fn prefetch_sas(&self, found: &Found) {
        for (flow, length) in found {
            let Some(flow) = flow else { continue };
            self.spd.prefetch_count(self.id(), flow.policy as usize, 1);
            let record = self.express.record(flow.slot);
            if let Some(hold) = record.and_then(|record| record.hold.as_ref()) {
                hold.cell.prefetch_sending();
                hold.counters.prefetch();
                if let Some(key) = &hold.key {
                    aead::prefetch_kernel(key, usize::from(*length));
                }
            }
        }
    }

    /// Which packets the lane takes: those of known flows that fit. Nothing has happened to the others,
    /// whose notes say that they are refused. Whether it takes all.
    fn choose_all(
        &mut self,
        now: Instant,
        packets: &Burst,
        found: &Found,
        runs: &mut Runs,
        rest: &mut Rest,
    ) -> bool {
        // Where among the runs an SA is, for those that take turns in a burst.
        let mut seen = [u8::MAX; 64];
        let mut found = found.iter();
        let mut all = true;
        let mut current = usize::MAX;
        for (at, packet) in packets.iter().enumerate() {
            let at = at % BURST;
            if !self.express.notes[at].same {
                let flow = found.next().and_then(|(flow, _)| flow.as_ref());
                current = match flow {
                    Some(flow) => self.run_of(now, flow, runs, &mut seen),
                    None => usize::MAX,
                };
            }
            let note = &mut self.express.notes[at];
            match runs.get_mut(current) {
                Some(run)
                    if usize::from(note.length) <= run.fits
                        && has_room(packet, note.length)
                        && !rest.wants(note.place) =>
                {
                    run.wanted += 1;
                    run.untold = (run.untold.0 + 1, run.untold.1 + u32::from(note.length));
                    note.run = current as u8;
                }
                _ => {
                    all = false;
                    rest.mark(note.place);
                    note.refused = Some(DropReason::NoSa);
                }
            }
        }
        all
    }

    /// Which of the runs a flow's packets belong to; none if that is no index of one.
    fn run_of(
        &mut self,
        now: Instant,
        flow: &Protected,
        runs: &mut Runs,
        seen: &mut [u8; 64],
    ) -> usize {
        let hint = &mut seen[flow.slot as usize % 64];
        let known = usize::from(*hint);
        if let Some(run) = runs.get_mut(known).filter(|run| run.slot == flow.slot) {
            if run.stamp != flow.stamp {
                return usize::MAX;
            }
            if run.policy != flow.policy {
                self.tell_policy(run);
                run.policy = flow.policy;
            }
            return known;
        }
        match self.begin(now, flow) {
            Some(run) => {
                *hint = runs.len() as u8;
                runs.push(run);
                runs.len() - 1
            }
            None => usize::MAX,
        }
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
        let fresh = record.state == state && now < record.until;
        if !fresh && !self.write_record(now, flow.slot) {
            return None;
        }
        let record = self.express.record(flow.slot)?;
        let way = record.way();
        // Errors from the way may have told of a narrower link (RFC 4301 section 8.2).
        let path = record.hold.as_ref()?.cell.path_mtu();
        let fits = match path.limit(usize::MAX, now) {
            usize::MAX => way.fits,
            path => way
                .fits
                .min(self.sad.outbound_mut(flow.slot)?.inner_mtu(path)),
        };
        let record = self.express.record(flow.slot)?;
        Some(Run {
            slot: flow.slot,
            stamp: flow.stamp,
            policy: flow.policy,
            untold: (0, 0),
            wanted: 0,
            sealed: (0, 0),
            fits,
            port: way.port,
            esn: record.esn,
            numbers: None,
        })
    }

    /// Writes down anew how packets of an SA leave. False if that is not known.
    #[cold]
    fn write_record(&mut self, now: Instant, slot: u32) -> bool {
        let remote = self.sad.outbound_mut(slot).map(|sa| sa.remote);
        let egress = remote
            .and_then(egress::key)
            .and_then(|remote| self.egress_until(now, remote));
        let state = self.egress_state();
        let record = self.express.records.get_mut(slot as usize);
        match (self.sad.outbound_mut(slot), egress, record) {
            (Some(sa), Some((egress, until)), Some(record)) => {
                record.fill(sa, &egress, (state, until))
            }
            _ => false,
        }
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
            if let Some(hold) = self.express.hold(run.slot) {
                let block = hold.cell.draw(run.wanted);
                if block.len() < run.wanted as usize {
                    self.frames.counters.count_lease_stall();
                }
                run.numbers = Some(block);
            }
        }
    }

    /// A number, all headers, encryption and ICV for each packet (RFC 4303 section 3.3). Says which of
    /// those that are not refused are sealed, the first in the lowest bit.
    fn seal_lane(&mut self, packets: &mut Burst, runs: &mut Runs) -> u32 {
        let mut identification = self.take_identifications(packets.len());
        let Worker {
            sad,
            frames,
            express,
            ..
        } = self;
        let Express { records, notes, .. } = express;
        let with_notes = packets.iter_mut().zip(notes.iter_mut());
        let each = frames.pool.each_frame_mut(with_notes);
        let mut together = Together::new();
        for (frame, start, note) in each {
            identification = identification.wrapping_add(1);
            // Until it is with the others: what has no bit in the answer must not leave.
            note.refused = Some(DropReason::NoSa);
            let Some(run) = runs.get_mut(usize::from(note.run)) else {
                continue;
            };
            let Some(record) = records.get(run.slot as usize) else {
                continue;
            };
            let number = match run.number() {
                Ok(number) => number,
                Err(reason) => {
                    note.refused = Some(reason);
                    continue;
                }
            };
            let inner = (start + ethernet::HEADER, usize::from(note.length));
            let Some(dressed) = record.dress(frame, inner, number, identification as u16) else {
                note.refused = Some(DropReason::TooBig);
                continue;
            };
            let Dressed { start, length, esp } = dressed;
            let Some(esp) = frame.get_mut(esp..start + length) else {
                continue;
            };
            (note.start, note.dressed) = (start as u16, length as u16);
            let kernel = record.hold.as_ref().and_then(|hold| hold.key.as_ref());
            if let Some(key) = kernel {
                note.refused = None;
                together.push_for_kernel(key, esp, run.high(number));
            } else if let Some(key) = sad.sealing_key(run.slot) {
                note.refused = None;
                together.push(key, esp, run.high(number));
            }
        }
        together.seal()
    }

    /// Sends what was sealed and nothing else (S6), and counts it.
    fn leave(&mut self, now: Instant, packets: &mut Burst, runs: &mut Runs, mut sealed: u32) {
        let mut all = true;
        let Worker {
            frames, express, ..
        } = self;
        for (packet, note) in packets.iter_mut().zip(express.notes.iter_mut()) {
            if note.refused.is_none() {
                let (start, length) = (usize::from(note.start), usize::from(note.dressed));
                let good = sealed & 1 != 0 && frames.pool.set_range(packet, start, length);
                sealed >>= 1;
                if let Some(run) = runs.get_mut(usize::from(note.run)).filter(|_| good) {
                    run.sealed = (run.sealed.0 + 1, run.sealed.1 + u32::from(note.length));
                    continue;
                }
                note.refused = Some(DropReason::NoSa);
            }
            all = false;
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
                if let Some(record) = self.express.record(run.slot) {
                    if let Some(hold) = &record.hold {
                        hold.counters.count_packets(both.0, both.1);
                    }
                    if record.keeps_alive
                        && let Some(sa) = self.sad.outbound_mut(run.slot)
                    {
                        sa.last_use = now;
                    }
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
                Some(run) => match note.refused {
                    None => self.links.queue(&mut self.frames, run.port, packet),
                    Some(reason) => self.refuse_sealing(run.slot, packet, reason),
                },
                None => self.frames.drop(packet, DropReason::NoSa),
            }
        }
    }

    /// Drops a packet for which there was no number, or that could not be sealed.
    fn refuse_sealing(&mut self, slot: u32, packet: Packet, reason: DropReason) {
        let frozen = self
            .sad
            .outbound_mut(slot)
            .is_some_and(|sa| sa.cell.frozen());
        let reason = match reason {
            DropReason::LeaseExhausted if frozen => DropReason::NotActive,
            reason => reason,
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
