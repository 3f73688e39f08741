//! The lane from the inner packet to ESP (RFC 4301 section 5.1, RFC 4303 section 3.3). A packet of a flow
//! whose SA is known needs no policy search, no route and no neighbour: its headers are ready.

use hitless_sa::{Instant, SequenceNumber};

use super::flows::{Flows, Key, Protected};
use super::record::{self, Dressed, Record};
use super::{Express, Place, Rest, Sight, egress};
use crate::aead::{self, Together};
use crate::esp;
use crate::flow::Flow;
use crate::frames::Frames;
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
    /// Where its flow is looked for.
    bucket: u32,
    found: Protected,
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
    #[inline(always)]
    pub(super) fn look(
        &mut self,
        flows: &Flows,
        frame: &[u8],
        sight: &Sight,
        at: u8,
        last: &mut Key,
    ) {
        let key = Key::of_frame(frame, sight.v6).unwrap_or_default();
        let pair = sight.pair;
        let same = key == *last;
        let bucket = match same {
            true => 0,
            false => flows.ask(&key),
        };
        // Nothing of an earlier packet stays.
        *self = Note {
            key,
            bucket,
            found: Protected::NONE,
            same,
            length: sight.length,
            place: Place { at, pair },
            run: 0,
            refused: None,
            start: 0,
            dressed: 0,
        };
        *last = key;
    }
}

/// What one SA has to do with a burst.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    slot: u32,
    wanted: u32,
    /// What of it is not told to policies yet: that of the first flow, which is told at the end.
    policy: u32,
    matched: u32,
    matched_octets: u32,
    /// The numbers that it got, from the next one to the one behind the last.
    next: u64,
    end: u64,
    /// What of it left.
    packets: u32,
    octets: u32,
    fits: u16,
    port: u16,
    esn: bool,
}

/// What is sealed is a bit for each packet of a burst.
const _: () = assert!(BURST <= u32::BITS as usize);

/// The SAs of a burst: no more than it has packets.
pub(super) struct Runs {
    runs: [Run; BURST],
    count: usize,
}

impl Default for Runs {
    fn default() -> Runs {
        Runs {
            runs: [Run::default(); BURST],
            count: 0,
        }
    }
}

impl Runs {
    /// The run with this index, if it is that of this slot.
    #[inline]
    fn of(&self, index: u8, slot: u32) -> Option<usize> {
        let index = usize::from(index);
        // Both at once: whether an old index is of this burst too is anybody's guess.
        let known = (index < self.count) & (self.runs[index % BURST].slot == slot);
        known.then_some(index)
    }

    #[inline]
    fn push(&mut self, run: Run) -> usize {
        let index = self.count % BURST;
        self.runs[index] = run;
        self.count = index + 1;
        index
    }
}

impl Run {
    /// The next number, if there is one.
    #[inline]
    fn number(&mut self) -> Result<SequenceNumber, DropReason> {
        if self.next >= self.end {
            return Err(DropReason::LeaseExhausted);
        }
        let number = SequenceNumber(self.next);
        self.next += 1;
        match number.high() {
            // RFC 4303 section 3.3.3: it must not cycle.
            1.. if !self.esn => Err(DropReason::SequenceOverflow),
            _ => Ok(number),
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
        self.find_flows(packets.len());
        self.express.runs.count = 0;
        if !self.choose_all(now, packets, rest) {
            self.give_up_some(packets, rest);
        }
        if self.express.runs.count == 0 {
            return;
        }
        let sealed = self.seal_lane(packets);
        self.leave(now, packets, sealed);
    }

    /// What is known of the flows of packets that are not of the same flow as the one before.
    /// Everything that they need is asked for in steps.
    fn find_flows(&mut self, packets: usize) {
        let (spd, schedule) = (&*self.spd, &self.schedule);
        let Express {
            flows,
            notes,
            records,
            ..
        } = &mut self.express;
        let notes = notes.get_mut(..packets).unwrap_or_default();
        let mut differ = 0;
        for note in notes.iter_mut().filter(|note| !note.same) {
            if let Some(flow) = flows.find(&note.key, note.bucket as usize) {
                note.found = *flow;
                if let Some(record) = records.get(flow.slot as usize) {
                    prefetch(record);
                }
                schedule.prefetch(flow.slot);
                spd.prefetch_tally(flow.policy as usize);
            }
            differ += 1;
        }
        // Of one flow everything is at hand since the last burst.
        if differ < 2 {
            return;
        }
        for note in notes.iter().filter(|note| !note.same) {
            let Some(record) = records.get(note.found.slot as usize) else {
                continue;
            };
            if let Some(hold) = &record.hold {
                hold.cell.prefetch_sending();
                if let Some(key) = &hold.key {
                    let text = usize::from(note.length) + record::TRAILER;
                    aead::prefetch_kernel(key, text, record.aes128);
                }
            }
        }
    }

    /// Which packets the lane takes: those of known flows that fit. Nothing has happened to the others,
    /// whose notes say that they are refused. Whether it takes all.
    fn choose_all(&mut self, now: Instant, packets: &Burst, rest: &mut Rest) -> bool {
        let state = self.egress_state();
        let mut all = true;
        let mut current = usize::MAX;
        let (id, mut policy) = (self.id(), 0);
        for (at, packet) in packets.iter().enumerate() {
            let at = at % BURST;
            let note = &self.express.notes[at];
            if !note.same {
                let flow = note.found;
                policy = flow.policy;
                current = self.run_of(now, state, &flow);
            }
            let Express { notes, runs, .. } = &mut self.express;
            let note = &mut notes[at];
            match runs.runs.get_mut(current) {
                Some(run)
                    if note.length <= run.fits
                        && has_room(packet, note.length)
                        && !rest.wants(note.place) =>
                {
                    run.wanted += 1;
                    note.run = current as u8;
                    if run.policy == policy {
                        run.matched += 1;
                        run.matched_octets += u32::from(note.length);
                    } else {
                        let octets = usize::from(note.length);
                        self.spd
                            .count(id, policy as usize, Direction::Outbound, octets);
                    }
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

    /// Which of the runs a flow's packets belong to; no index of one if the lane does not take them.
    #[inline]
    fn run_of(&mut self, now: Instant, state: u64, flow: &Protected) -> usize {
        let Express { records, runs, .. } = &mut self.express;
        match records.get(flow.slot as usize) {
            // Else the SA has changed since the flow was learnt.
            Some(record) if record.stamp == flow.stamp => {
                if let Some(known) = runs.of(record.run, flow.slot) {
                    return known;
                }
                if record.state != state || now >= record.until {
                    return self.begin_anew(now, flow);
                }
            }
            _ => return usize::MAX,
        }
        self.begin(now, flow)
    }

    /// As [`Worker::begin`], where how packets leave has to be written down first.
    #[cold]
    fn begin_anew(&mut self, now: Instant, flow: &Protected) -> usize {
        let slot = flow.slot;
        match self.refresh_record(now, slot) || self.write_record(now, slot) {
            true => self.begin(now, flow),
            false => usize::MAX,
        }
    }

    /// What the SA in a slot can do now.
    #[inline]
    fn begin(&mut self, now: Instant, flow: &Protected) -> usize {
        let slot = flow.slot;
        let Express { records, runs, .. } = &mut self.express;
        let Some(record) = records.get_mut(slot as usize) else {
            return usize::MAX;
        };
        let Some(hold) = &record.hold else {
            return usize::MAX;
        };
        let way = record.way();
        // Errors from the way may have told of a narrower link (RFC 4301 section 8.2).
        let fits = match hold.cell.path_mtu().limit(usize::MAX, now) {
            usize::MAX => way.fits,
            path => match self.sad.outbound_mut(slot) {
                Some(sa) => way.fits.min(sa.inner_mtu(path) as u16),
                None => return usize::MAX,
            },
        };
        let run = runs.push(Run {
            slot,
            policy: flow.policy,
            fits,
            port: way.port,
            esn: record.esn,
            ..Run::default()
        });
        record.run = run as u8;
        run
    }

    /// Believes for longer how packets of an SA leave, if only time has passed. False if there is more
    /// to it.
    fn refresh_record(&mut self, now: Instant, slot: u32) -> bool {
        let state = self.egress_state();
        let record = self.express.record(slot);
        let Some(remote) = record
            .filter(|record| record.state == state)
            .and_then(Record::remote)
        else {
            return false;
        };
        let found = self.egress_until(now, remote);
        // Finding it may have changed what is known.
        let state = self.egress_state();
        let record = self.express.records.get_mut(slot as usize);
        match (found, record) {
            (Some((_, until)), Some(record)) if record.state == state => {
                record.until = until;
                true
            }
            _ => false,
        }
    }

    /// Writes down anew how packets of an SA leave. False if that is not known.
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

    /// Parts those that are refused from the others, whose notes go with them.
    #[cold]
    fn give_up_some(&mut self, packets: &mut Burst, rest: &mut Rest) {
        let mut chosen = Burst::new();
        for (at, packet) in packets.drain(..).enumerate() {
            let note = self.express.notes[at % BURST];
            if note.refused.is_some() {
                rest.take(packet, note.place);
            } else {
                self.express.notes[chosen.len() % BURST] = note;
                chosen.push(packet);
            }
        }
        packets.append(&mut chosen);
    }

    /// A number, all headers, encryption and ICV for each packet (RFC 4303 section 3.3). Says which of
    /// those that are not refused are sealed, the first in the lowest bit.
    fn seal_lane(&mut self, packets: &mut Burst) -> u32 {
        let mut identification = self.take_identifications(packets.len());
        let id = self.id();
        let Worker {
            sad,
            spd,
            frames,
            express,
            ..
        } = self;
        let Express {
            records,
            notes,
            runs,
            ..
        } = express;
        let with_notes = packets.iter_mut().zip(notes.iter_mut());
        let Frames { pool, counters, .. } = frames;
        let each = pool.each_frame_mut(with_notes);
        let mut together = Together::new();
        for (frame, start, note) in each {
            identification = identification.wrapping_add(1);
            // Until it is with the others: what has no bit in the answer must not leave.
            note.refused = Some(DropReason::NoSa);
            let run = &mut runs.runs[usize::from(note.run) % BURST];
            let Some(record) = records.get(run.slot as usize) else {
                continue;
            };
            // One draw for each SA, of what this burst needs and no more (rule R3). It is a locked
            // instruction; here it waits for little.
            if let Some(hold) = record.hold.as_ref().filter(|_| run.wanted > 0) {
                (run.next, run.end) = hold.cell.draw(run.wanted).into_bounds();
                if run.end - run.next < u64::from(run.wanted) {
                    counters.count_lease_stall();
                }
                run.wanted = 0;
                // What is counted at the end, after all that encryption reads.
                hold.counters.prefetch();
                spd.prefetch_share(id, run.policy as usize);
            }
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
    fn leave(&mut self, now: Instant, packets: &mut Burst, mut sealed: u32) {
        let mut all = true;
        let Worker {
            frames, express, ..
        } = self;
        let Express { notes, runs, .. } = express;
        let port = runs.runs[0].port;
        for (packet, note) in packets.iter_mut().zip(notes.iter_mut()) {
            let run = &mut runs.runs[usize::from(note.run) % BURST];
            if note.refused.is_none() {
                let (start, length) = (usize::from(note.start), usize::from(note.dressed));
                let good = sealed & 1 != 0 && frames.pool.set_range(packet, start, length);
                sealed >>= 1;
                if good {
                    run.packets += 1;
                    run.octets += u32::from(note.length);
                    all &= run.port == port;
                    continue;
                }
                note.refused = Some(DropReason::NoSa);
            }
            all = false;
        }
        match all {
            true => self
                .links
                .queue_all(&mut self.frames, usize::from(port), packets),
            false => self.leave_apart(packets),
        }
        self.count_runs(now);
    }

    /// Counts what each SA has sent, and what its policy has matched (RFC 4301 section 4.4.1).
    fn count_runs(&mut self, now: Instant) {
        let (id, mut both) = (self.id(), (0, 0));
        for index in 0..self.express.runs.count {
            let Express { runs, records, .. } = &self.express;
            let Run {
                slot,
                packets,
                octets,
                policy,
                matched,
                matched_octets,
                ..
            } = runs.runs[index % BURST];
            let matched = (matched as usize, matched_octets as usize);
            self.spd
                .count_all(id, policy as usize, Direction::Outbound, matched);
            if packets == 0 {
                continue;
            }
            both.0 += packets as usize;
            both.1 += octets as usize;
            if let Some(record) = records.get(slot as usize) {
                if let Some(hold) = &record.hold {
                    hold.counters
                        .count_packets(packets as usize, octets as usize);
                }
                if record.keeps_alive
                    && let Some(sa) = self.sad.outbound_mut(slot)
                {
                    sa.last_use = now;
                }
            }
            self.note_uses(slot, now, packets);
        }
        self.frames.counters.count_sealed(both.0, both.1);
    }

    /// Each packet to the port of its SA, or back to the pool.
    #[cold]
    fn leave_apart(&mut self, packets: &mut Burst) {
        let notes = *self.express.notes;
        for (packet, note) in packets.drain(..).zip(notes) {
            let Run { slot, port, .. } = self.express.runs.runs[usize::from(note.run) % BURST];
            match note.refused {
                None => self
                    .links
                    .queue(&mut self.frames, usize::from(port), packet),
                Some(reason) => self.refuse_sealing(slot, packet, reason),
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
