//! The audit itself: frames go in, tap by tap, and a [`Report`] comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::exchanges::{Exchange, IkeEvent, Journal};
use super::ledger::{EspKey, Ledger, RepeatedIv, RepeatedNumber, Stream, Use};
use super::pcap::{PcapError, PcapReader};
use super::tenures::{Split, Tenures};
use super::wire::{self, Flow, Frame};

/// A place where frames were captured. One packet passes a tap once; if it is seen there twice it
/// was sent twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TapId(pub u16);

/// What it means that one packet is seen at two taps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Places {
    /// The taps lie one behind the other: it is the same packet.
    #[default]
    EachTap,
    /// The taps together are a cut through the network, such as the ports of all members: it was
    /// sent twice.
    OneForAll,
}

/// Collects frames, in the order of the wire.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    tenures: Tenures,
    taps: BTreeSet<TapId>,
    ledger: Ledger,
    journal: Journal,
    frames: u64,
    cut: u64,
    passed_over: u64,
    fragments: u64,
    malformed: BTreeMap<&'static str, u64>,
    flows: BTreeMap<Flow, u64>,
}

impl Audit {
    pub fn new(places: Places) -> Audit {
        let mut audit = Audit::default();
        audit.ledger.places = places;
        audit.journal.places = places;
        audit
    }

    /// Enters one frame; `time` counts from the Unix epoch, or from any other fixed moment.
    pub fn observe(&mut self, tap: TapId, time: Duration, frame: &[u8]) {
        self.frames += 1;
        match wire::decode(frame) {
            Frame::Esp(esp) => {
                self.tenure(esp.source, tap, time);
                self.ledger.enter(tap, time, &esp);
            }
            Frame::Ike(ike) => {
                let tenure = self.tenure(ike.source, tap, time);
                self.journal.enter(tap, tenure, time, &ike);
            }
            Frame::Echo(echo) => {
                let (source, destination) = (echo.source, echo.destination);
                self.count_flow(Flow {
                    source,
                    destination,
                    protocol: 1,
                });
            }
            Frame::Ip(flow) => self.count_flow(flow),
            Frame::Fragment => self.fragments += 1,
            Frame::Malformed(what) => *self.malformed.entry(what).or_default() += 1,
            Frame::Keepalive | Frame::NotIp => {}
        }
    }

    fn tenure(&mut self, source: IpAddr, tap: TapId, time: Duration) -> u64 {
        self.taps.insert(tap);
        self.tenures.note(source, tap, time)
    }

    fn count_flow(&mut self, flow: Flow) {
        *self.flows.entry(flow).or_default() += 1;
    }

    /// Enters a whole capture file. What precedes an error has been entered.
    pub fn observe_pcap(&mut self, tap: TapId, file: &[u8]) -> Result<(), PcapError> {
        self.observe_pcaps(&[(tap, file)])
            .map_err(|(_, error)| error)
    }

    /// Enters whole capture files, merged by time: the first tap that has one of two packets of one
    /// moment comes first, and what one file holds stays in its order. An error comes with the
    /// index of its file; what precedes it has been entered.
    pub fn observe_pcaps(&mut self, files: &[(TapId, &[u8])]) -> Result<(), (usize, PcapError)> {
        let mut readers = Vec::with_capacity(files.len());
        for (index, (tap, file)) in files.iter().enumerate() {
            let mut reader = PcapReader::new(file).map_err(|error| (index, error))?;
            let next = reader.next().transpose().map_err(|error| (index, error))?;
            readers.push((index, *tap, reader, next));
        }
        while let Some((index, tap, reader, next)) = readers
            .iter_mut()
            .filter(|(.., next)| next.is_some())
            .min_by_key(|(.., next)| next.as_ref().map(|record| record.time))
        {
            if let Some(record) = next.take() {
                self.cut += u64::from(record.original_length as usize > record.frame.len());
                self.observe(*tap, record.time, record.frame);
            }
            *next = reader.next().transpose().map_err(|error| (*index, error))?;
        }
        let others = readers.iter().map(|(_, _, reader, _)| reader.passed_over());
        self.passed_over += others.sum::<u64>();
        Ok(())
    }

    /// What it amounts to.
    pub fn report(self) -> Report {
        let mut ike = self.journal.events;
        // Whoever enters taps one after the other wants one story as well.
        ike.sort_by_key(|event| event.time);
        Report {
            frames: self.frames,
            cut: self.cut,
            passed_over: self.passed_over,
            fragments: self.fragments,
            malformed: self.malformed,
            flows: self.flows,
            places: self.ledger.places,
            taps: self.taps.len(),
            splits: self.tenures.into_splits(),
            streams: self.ledger.streams,
            sent: self.ledger.sent,
            used: self.ledger.used,
            repeated: self.ledger.repeated,
            repeated_identical: self.ledger.repeated_identical,
            repeated_distinct: self.ledger.repeated_distinct,
            repeated_ivs: self.ledger.repeated_ivs,
            repeated_iv_count: self.ledger.repeated_iv_count,
            ike,
            ike_not_kept: self.journal.not_kept,
        }
    }
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Report {
    pub frames: u64,
    /// Frames of which the capture holds only a part: such an audit proves less than it says.
    pub cut: u64,
    /// Packets of other links than Ethernet: those in clear, in a file of `hitless capture`.
    pub passed_over: u64,
    /// IP fragments, which the audit cannot look into.
    pub fragments: u64,
    /// Frames that could not be decoded, by layer.
    pub malformed: BTreeMap<&'static str, u64>,
    /// IP packets that are neither ESP nor IKE: on an outside wire, anything between protected
    /// addresses here is a leak.
    pub flows: BTreeMap<Flow, u64>,
    pub(super) places: Places,
    /// At how many taps IKE or ESP was seen.
    pub(super) taps: usize,
    /// Of addresses that were sent from at two taps at once; it means something only where the taps
    /// are one place.
    pub(super) splits: BTreeMap<IpAddr, Vec<Split>>,
    /// What each tap saw.
    pub streams: BTreeMap<(EspKey, TapId), Stream>,
    /// What was sent, wherever it was seen: without the copies at other taps.
    pub sent: BTreeMap<EspKey, Stream>,
    pub(super) used: BTreeMap<(EspKey, u64), Use>,
    /// The first of them in detail.
    pub repeated: Vec<RepeatedNumber>,
    pub repeated_identical: u64,
    pub repeated_distinct: u64,
    /// The first of them in detail.
    pub repeated_ivs: Vec<RepeatedIv>,
    pub repeated_iv_count: u64,
    /// In order of time.
    pub ike: Vec<IkeEvent>,
    pub ike_not_kept: u64,
}

impl Report {
    /// Repeated (destination, SPI, number), identical or not: what S1 forbids.
    pub fn repeated_sequence_numbers(&self) -> u64 {
        self.repeated_identical + self.repeated_distinct
    }

    /// The numbers that an SA used, and the taps at which they were seen.
    pub(super) fn used(&self, key: EspKey) -> impl Iterator<Item = (u64, &[(TapId, u32)])> {
        let used = self.used.range((key, 0)..=(key, u64::MAX));
        used.map(|((_, number), used)| (*number, used.seen.as_slice()))
    }

    /// ESP packets seen, over all taps.
    pub fn esp_packets(&self) -> u64 {
        self.streams.values().map(|stream| stream.packets).sum()
    }

    /// Messages of one exchange type at or after `time`, requests and responses.
    pub fn count_after(&self, exchange: Exchange, time: Duration) -> usize {
        let later = self.ike.iter().filter(|event| event.time >= time);
        later.filter(|event| event.exchange == exchange).count()
    }

    /// INFORMATIONAL messages with Message ID 0 at or after `time`: a Message ID sync (RFC 6311
    /// section 5.1), or the original responder's very first request. `length` tells them apart.
    pub fn message_id_zero(&self, time: Duration) -> impl Iterator<Item = &IkeEvent> {
        self.ike.iter().filter(move |event| {
            event.exchange == Exchange::Informational && event.message_id == 0 && event.time >= time
        })
    }

    /// Requests of one type from `source` at or after `time`, each with its first response.
    pub fn exchanges_from(
        &self,
        source: IpAddr,
        exchange: Exchange,
        time: Duration,
    ) -> Vec<(IkeEvent, Option<IkeEvent>)> {
        let requests = self.ike.iter().filter(|event| {
            event.source == source
                && event.exchange == exchange
                && !event.response
                && event.time >= time
        });
        requests
            .map(|request| {
                let answer = self.ike.iter().find(|event| event.answers(request));
                (*request, answer.copied())
            })
            .collect()
    }

    /// IP packets that are neither ESP nor IKE with an end that `protected` says must not show.
    pub fn leaked(&self, protected: impl Fn(IpAddr) -> bool) -> u64 {
        let leaks = self
            .flows
            .iter()
            .filter(|(flow, _)| protected(flow.source) || protected(flow.destination));
        leaks.map(|(_, packets)| packets).sum()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
