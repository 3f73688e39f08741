//! Traces and captures, as an operator asks for them: one of each at a time, made here, filled by
//! the workers, ended when they are full, when the operator says so, or when nobody reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hitless_dataplane::command::Command;
use hitless_dataplane::pool::RUN_FRAMES;
use hitless_dataplane::spd::Action;
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::watch::capture::{self, Captured, Captures, Choice, Place};
use hitless_dataplane::watch::trace::{self, Filter, Note, SaFilter, Stage, Traces};
use hitless_dataplane::watch::{Seen, look};
use hitless_sa::{Instant, SaId, Spi};

use super::Gateway;
use super::children::Carried;
use super::show::is_called;
use crate::api::{
    CaptureDirection, CaptureReport, CaptureSide, CapturedPacket, LinkType, TraceReport, TraceStep,
    TracedPacket, WatchFilter,
};

/// A capture that nobody reads for so long is over: its reader has gone.
const UNREAD: Duration = Duration::from_secs(5);
/// Packets in one answer.
const PACKETS_AN_ANSWER: usize = 1024;

/// What is being watched.
#[derive(Default)]
pub(super) struct Watching {
    trace: Option<TraceSession>,
    capture: Option<CaptureSession>,
    captures: u64,
}

struct TraceSession {
    wanted: u32,
    workers: Vec<Traces>,
    notes: BTreeMap<(usize, u32), Vec<Note>>,
    /// The workers still look for packets.
    running: bool,
}

struct CaptureSession {
    id: u64,
    left: u64,
    workers: Vec<Captures>,
    read: Instant,
    /// How SPIs are called, as far as they have been looked up.
    names: BTreeMap<Spi, String>,
}

impl Gateway {
    /// Follows the next packets of each worker, in place of an earlier trace.
    pub fn trace_add(&mut self, packets: u32, filter: &WatchFilter) -> Result<(), String> {
        if packets == 0 || packets > trace::MOST {
            return Err(format!("trace 1 to {} packets", trace::MOST));
        }
        let filter = Filter {
            port: self.watched_port(filter)?,
            sa: self.watched_sa(filter)?.map(|(_, filter)| filter),
        };
        let memory = &self.settings.config().dataplane;
        let configured = memory.frames as usize + memory.jumbo_packets as usize;
        let frames: Vec<usize> = self
            .dataplane
            .counters()
            .map(|counters| counters.frames().total)
            .collect();
        let mut workers = Vec::new();
        for (worker, frames) in frames.into_iter().enumerate() {
            // A packet may be in a run of frames, whose number is then higher. A worker that has
            // not told how many it has yet has those of the configuration.
            let frames = frames.max(configured) * RUN_FRAMES;
            let (tracer, traces) = trace::trace(packets, filter.clone(), frames);
            self.dataplane.send(worker, Command::Trace(Some(tracer)));
            workers.push(traces);
        }
        self.watching.trace = Some(TraceSession {
            wanted: packets,
            workers,
            notes: BTreeMap::new(),
            running: true,
        });
        Ok(())
    }

    /// What the trace has seen so far.
    pub fn trace_show(&mut self) -> TraceReport {
        self.take_notes();
        let Some(session) = &self.watching.trace else {
            return TraceReport::default();
        };
        let packets = session.notes.iter();
        let packets = packets.map(|((worker, packet), notes)| TracedPacket {
            worker: *worker as u64,
            packet: *packet,
            ended: notes.last().is_some_and(|note| note.stage.is_last()),
            steps: self.steps(notes),
        });
        TraceReport {
            wanted_packets: session.wanted,
            lost_steps: session.workers.iter().map(Traces::lost).sum(),
            packets: packets.collect(),
        }
    }

    /// Ends the trace and forgets it.
    pub fn trace_clear(&mut self) {
        if self.watching.trace.take().is_some() {
            self.dataplane.broadcast(|| Command::Trace(None));
        }
    }

    /// Begins a capture of at most so many packets; its number is for reading it.
    pub fn capture_start(
        &mut self,
        now: Instant,
        side: CaptureSide,
        packets: u64,
        filter: &WatchFilter,
    ) -> Result<u64, String> {
        if self.watching.capture.is_some() {
            return Err("a capture runs already; one at a time".to_owned());
        }
        let choice = Choice {
            outer: side != CaptureSide::BeforeEsp,
            inner: side != CaptureSide::AfterEsp,
            port: self.watched_port(filter)?,
            sa: self.watched_sa(filter)?,
        };
        let mut workers = Vec::new();
        for worker in 0..self.dataplane.len() {
            let (tap, captures) = capture::capture(packets, choice.clone());
            self.dataplane.send(worker, Command::Capture(Some(tap)));
            workers.push(captures);
        }
        self.watching.captures += 1;
        let id = self.watching.captures;
        self.watching.capture = Some(CaptureSession {
            id,
            left: packets,
            workers,
            read: now,
            names: BTreeMap::new(),
        });
        Ok(id)
    }

    /// What has been captured since the last time.
    pub fn capture_read(&mut self, now: Instant, id: u64) -> Result<CaptureReport, String> {
        let session = self.watching.capture.take_if(|session| session.id == id);
        let Some(mut session) = session else {
            return Err("that capture is over".to_owned());
        };
        session.read = now;
        let mut report = CaptureReport::default();
        let mut taken = Vec::new();
        for worker in &mut session.workers {
            while taken.len() < PACKETS_AN_ANSWER && session.left > 0 {
                let Some(captured) = worker.next_packet() else {
                    break;
                };
                session.left -= 1;
                taken.push(captured);
            }
        }
        // Each worker has an order of its own; a reader wants one.
        taken.sort_by_key(|captured| captured.at);
        for captured in &taken {
            report
                .packets
                .push(self.captured(&mut session.names, captured));
        }
        report.lost_packets = session.workers.iter().map(Captures::lost).sum();
        report.done = session.left == 0;
        self.watching.capture = Some(session);
        if report.done {
            self.capture_stop(id);
        }
        Ok(report)
    }

    /// Ends a capture.
    pub fn capture_stop(&mut self, id: u64) {
        let session = self.watching.capture.take_if(|session| session.id == id);
        if session.is_some() {
            self.dataplane.broadcast(|| Command::Capture(None));
        }
    }

    /// Ends what is full or forgotten, so that the workers are quick again.
    pub(super) fn tend_watching(&mut self, now: Instant) {
        if let Some(capture) = &self.watching.capture
            && now.since(capture.read) >= UNREAD
        {
            self.capture_stop(capture.id);
        }
        if self.watching.trace.as_ref().is_some_and(|t| t.running) {
            self.take_notes();
        }
    }

    fn take_notes(&mut self) {
        let Some(session) = &mut self.watching.trace else {
            return;
        };
        for (worker, traces) in session.workers.iter_mut().enumerate() {
            while let Some(note) = traces.next_note() {
                session
                    .notes
                    .entry((worker, note.packet))
                    .or_default()
                    .push(note);
            }
        }
        let notes = session.notes.values();
        let ended = notes.filter(|notes| notes.last().is_some_and(|n| n.stage.is_last()));
        let all = session.wanted as usize * session.workers.len();
        if session.running && ended.count() >= all {
            session.running = false;
            self.dataplane.broadcast(|| Command::Trace(None));
        }
    }

    fn watched_port(&self, filter: &WatchFilter) -> Result<Option<usize>, String> {
        let Some(name) = &filter.port else {
            return Ok(None);
        };
        let ports = &self.settings.config().ports;
        let found = ports.iter().position(|port| port.name == *name);
        let known = || {
            ports
                .iter()
                .map(|port| port.name.as_str())
                .collect::<Vec<_>>()
        };
        let missing = || format!("there is no port {name:?}; there is {}", known().join(", "));
        found.map(Some).ok_or_else(missing)
    }

    fn watched_sa(&self, filter: &WatchFilter) -> Result<Option<(SaId, SaFilter)>, String> {
        let Some(which) = &filter.sa else {
            return Ok(None);
        };
        let mut found = self.children.iter().filter(|c| is_called(c, which));
        match (found.next(), found.next()) {
            (Some(carried), None) => {
                let child = &carried.child;
                let filter = SaFilter {
                    inbound_spi: child.inbound_spi,
                    outbound_spi: child.outbound_spi,
                    local_ts: child.local_ts.as_slice().into(),
                    remote_ts: child.remote_ts.as_slice().into(),
                };
                Ok(Some((child.id, filter)))
            }
            (Some(_), Some(_)) => Err(format!(
                "more than one Child SA is called {which:?}; name one by its SPI, which `hitless \
                 show sa` prints"
            )),
            (None, _) => Err(format!(
                "no Child SA is called {which:?}; see `hitless show sa`"
            )),
        }
    }

    fn port_name(&self, port: usize) -> &str {
        let ports = &self.settings.config().ports;
        ports.get(port).map_or("?", |port| port.name.as_str())
    }

    fn steps(&self, notes: &[Note]) -> Vec<TraceStep> {
        let begin = notes.first().map_or(Instant(0), |note| note.at);
        let steps = notes.iter().map(|note| {
            let (stage, text) = self.step(note.stage);
            TraceStep {
                after_microseconds: note.at.since(begin).as_nanos() as f64 / 1000.0,
                stage: stage.to_owned(),
                text,
            }
        });
        steps.collect()
    }

    fn step(&self, stage: Stage) -> (&'static str, String) {
        match stage {
            Stage::Received { port, length } => (
                "receive",
                format!("port {}, {length} octets", self.port_name(port)),
            ),
            Stage::Esp { spi, low } => ("classify", format!("ESP, spi {spi}, number ...{low}")),
            Stage::Flow(flow) => (
                "classify",
                format!(
                    "{} === {}, protocol {}",
                    flow.source, flow.destination, flow.protocol
                ),
            ),
            Stage::Policy(None) => ("spd", "no policy: discard".to_owned()),
            Stage::Policy(Some(found)) => {
                let action = match found.action {
                    Action::Protect(Some(sa)) => format!("PROTECT by {}", self.called(sa)),
                    Action::Protect(None) => "PROTECT, no SA is up".to_owned(),
                    Action::Bypass => "BYPASS".to_owned(),
                    Action::Discard => "DISCARD".to_owned(),
                };
                ("spd", format!("policy {}: {action}", found.policy))
            }
            Stage::InboundSa(sa) => ("sad", self.called(sa)),
            Stage::OutboundSa(sa) => ("sa", self.called(sa)),
            Stage::Fresh(number) => ("replay", format!("number {number}, not seen yet")),
            Stage::Drawn(number) => ("lease", format!("number {number} drawn")),
            Stage::Verified => ("aead", "ICV good, decrypted".to_owned()),
            Stage::Admitted => (
                "admit",
                "below high water, marked, selectors match".to_owned(),
            ),
            Stage::Sealed => ("aead", "encrypted".to_owned()),
            Stage::Way { port, next_hop } => (
                "route",
                format!("port {}, next hop {next_hop}", self.port_name(port)),
            ),
            Stage::Parked => ("park", "waits for the high water".to_owned()),
            Stage::Held => ("neighbour", "waits for the next hop's address".to_owned()),
            Stage::Punted => ("punt", "to the control thread".to_owned()),
            Stage::Sent { port, length } => (
                "send",
                format!("port {}, {length} octets", self.port_name(port)),
            ),
            Stage::Dropped(reason) => ("drop", dropped(reason)),
        }
    }

    fn captured(&self, names: &mut BTreeMap<Spi, String>, captured: &Captured) -> CapturedPacket {
        let octets = captured.octets();
        let (interface, link, direction) = match captured.place {
            Place::Received { port } => {
                let port = self.port_name(port).to_owned();
                (port, LinkType::Ethernet, CaptureDirection::In)
            }
            Place::Sent { port } => {
                let port = self.port_name(port).to_owned();
                (port, LinkType::Ethernet, CaptureDirection::Out)
            }
            Place::Opened => ("inner".to_owned(), LinkType::Ip, CaptureDirection::In),
            Place::Sealing => ("inner".to_owned(), LinkType::Ip, CaptureDirection::Out),
            Place::Dropped(_) => (
                "dropped".to_owned(),
                link_type(octets),
                CaptureDirection::Unknown,
            ),
        };
        let mut comments = Vec::new();
        if let Place::Dropped(reason) = captured.place {
            comments.push(format!("dropped: {}", dropped(reason)));
        }
        match captured.sa {
            Some((sa, number)) => comments.push(format!("{}, number {number}", self.called(sa))),
            None if link != LinkType::Other => {
                if let Seen::Esp(spi, low) = look(octets, link == LinkType::Ethernet) {
                    let name = names.entry(spi).or_insert_with(|| self.spi_name(spi));
                    comments.push(format!("{name}, low half of the number {low}"));
                }
            }
            None => {}
        }
        CapturedPacket {
            at_nanoseconds: captured.at.0,
            interface,
            link,
            direction,
            comment: comments.join("; "),
            length_bytes: captured.length as u64,
            octets: hexadecimal(octets),
        }
    }

    fn spi_name(&self, spi: Spi) -> String {
        let of = |carried: &&Carried| {
            let child = &carried.child;
            child.inbound_spi == spi || child.outbound_spi == spi
        };
        match self.children.iter().find(of) {
            Some(carried) => self.called(carried.child.id),
            None => format!("no SA has SPI {spi}"),
        }
    }
}

fn dropped(reason: DropReason) -> String {
    match reason.xfrm_name() {
        "" => reason.name().to_owned(),
        xfrm => format!("{} ({xfrm})", reason.name()),
    }
}

/// What a packet that was dropped on its way begins with, as far as that can be told.
fn link_type(octets: &[u8]) -> LinkType {
    let whole = match octets {
        [first, _, l0, l1, ..] if first >> 4 == 4 && first & 15 >= 5 => {
            usize::from(u16::from_be_bytes([*l0, *l1])) <= octets.len()
        }
        [first, _, _, _, l0, l1, ..] if first >> 4 == 6 => {
            usize::from(u16::from_be_bytes([*l0, *l1])) + 40 <= octets.len()
        }
        _ => false,
    };
    match octets.get(12..14) {
        _ if whole => LinkType::Ip,
        Some([0x08, 0x00 | 0x06] | [0x86, 0xdd]) => LinkType::Ethernet,
        _ => LinkType::Other,
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() * 2);
    for octet in octets {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}
