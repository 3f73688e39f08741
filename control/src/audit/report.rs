//! The audit itself: frames go in, tap by tap, and a [`Report`] comes out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::exchanges::{Exchange, IkeEvent, Journal};
use super::ledger::{EspKey, Ledger, RepeatedIv, RepeatedNumber, Stream};
use super::pcap::{PcapError, PcapReader};
use super::wire::{self, Flow, Frame};

/// A place where frames were captured. One packet passes a tap once; if it is seen there twice it
/// was sent twice. Taps that together form a cut through the network, such as the ports of all
/// members, may share an id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TapId(pub u16);

/// Collects frames.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    ledger: Ledger,
    journal: Journal,
    frames: u64,
    cut: u64,
    fragments: u64,
    malformed: BTreeMap<&'static str, u64>,
    flows: BTreeMap<Flow, u64>,
}

impl Audit {
    /// Enters one frame; `time` counts from the Unix epoch, or from any other fixed moment.
    pub fn observe(&mut self, tap: TapId, time: Duration, frame: &[u8]) {
        self.frames += 1;
        match wire::decode(frame) {
            Frame::Esp(esp) => self.ledger.enter(tap, time, &esp),
            Frame::Ike(ike) => self.journal.enter(tap, time, &ike),
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

    fn count_flow(&mut self, flow: Flow) {
        *self.flows.entry(flow).or_default() += 1;
    }

    /// Enters a whole capture file. What precedes an error has been entered.
    pub fn observe_pcap(&mut self, tap: TapId, file: &[u8]) -> Result<(), PcapError> {
        for record in PcapReader::new(file)? {
            let record = record?;
            self.cut += u64::from(record.original_length as usize > record.frame.len());
            self.observe(tap, record.time, record.frame);
        }
        Ok(())
    }

    /// What it amounts to.
    pub fn report(self) -> Report {
        let mut ike = self.journal.events;
        // Taps are entered one after the other; readers want one story.
        ike.sort_by_key(|event| event.time);
        Report {
            frames: self.frames,
            cut: self.cut,
            fragments: self.fragments,
            malformed: self.malformed,
            flows: self.flows,
            streams: self.ledger.streams,
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
    /// IP fragments, which the audit cannot look into.
    pub fragments: u64,
    /// Frames that could not be decoded, by layer.
    pub malformed: BTreeMap<&'static str, u64>,
    /// IP packets that are neither ESP nor IKE: on an outside wire, anything between protected
    /// addresses here is a leak.
    pub flows: BTreeMap<Flow, u64>,
    pub streams: BTreeMap<(EspKey, TapId), Stream>,
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
