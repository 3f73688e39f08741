//! The verdict of the demo, from the captured wire and from what the hosts received.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hdrhistogram::Histogram;
use hitless_sa::Instant;
use serde::Serialize;

use super::story::Story;
use crate::audit::{Audit, Exchange, Report, TapId};
use crate::lab::{CLUSTER, Captured, Host, PEER, Probe};

/// Longer than any probe can take and still count.
const LONGEST_DELAY_US: u64 = 60_000_000;

/// What the demo found. The first eight keys are stable; others may be added.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DemoResult {
    pub scenario: &'static str,
    /// Every promise held.
    pub passed: bool,
    /// Longest silence that a host saw around the crash.
    pub outage_ms: f64,
    /// How long probes took from host to host.
    pub delay_us: Delay,
    /// Probes that never arrived, both directions.
    pub packets_lost: u64,
    /// (destination, SPI, sequence number) seen more than once on the outside wire.
    pub repeated_sequence_numbers: u64,
    /// Probes delivered again when everything from before the crash was replayed.
    pub replays_accepted: u64,
    pub ike_auth_after_failover: u64,
    /// Greatest number of sequence numbers skipped on one SA.
    pub skip: u64,
    pub seed: u64,
    /// Members suspected for nothing before the crash, because the machine was busy: harmless.
    pub takeovers_before_crash: u64,
    /// From the crash until the standby said that it leads.
    pub takeover_ms: f64,
    pub packets_sent: u64,
    pub packets_altered: u64,
    pub packets_replayed: u64,
    pub repeated_ivs: u64,
    /// Clear text of the protected networks on the outside wire.
    pub leaked: u64,
    /// RFC 6311 Message ID synchronisations that the new active needed.
    pub message_id_syncs: u64,
    /// Numbers that the new active asked the peer to skip (RFC 6311 section 5.2).
    pub replay_delta: Option<u64>,
    /// The peer rekeyed the Child SA after the takeover, and traffic went on.
    pub rekeyed_after_failover: bool,
    pub esp: Vec<EspLine>,
    pub ike: Vec<IkeLine>,
}

/// Quantiles of a time in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Delay {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// One ESP SA across the crash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EspLine {
    pub from: &'static str,
    pub spi: String,
    pub highest_before: u64,
    pub first_after: Option<u64>,
    /// Recorded by the standby before the crash: where the new active goes on, less one.
    pub grant: Option<u64>,
    pub skipped: Option<u64>,
}

/// Message IDs of one direction across the crash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IkeLine {
    pub requests_from: &'static str,
    pub last_before: Option<u32>,
    pub first_after: Option<u32>,
}

impl DemoResult {
    /// Judges the story.
    pub fn of(story: &Story) -> DemoResult {
        let capture = story.world.outside.capture();
        let whole = audit(capture);
        let before = audit(capture.iter().filter(|frame| frame.at < story.crash));
        let after = audit(capture.iter().filter(|frame| frame.at >= story.crash));
        let hosts = [&story.world.a, &story.world.b];
        let again = (0..2).map(|host| {
            story.received_after_replay[host] - story.received_before_replay[host]
                + duplicates(&hosts[host].received()[..story.received_before_replay[host]])
        });
        let replays_accepted = again.sum::<usize>() as u64;
        let outage = hosts
            .iter()
            .map(|host| outage(host, story.crash))
            .max()
            .unwrap_or_default();
        let lost = hosts_lost(&story.world.a, &story.world.b);
        let mut result = DemoResult {
            scenario: "demo",
            passed: false,
            outage_ms: milliseconds(outage),
            delay_us: delay(&story.world.a, &story.world.b),
            packets_lost: lost,
            repeated_sequence_numbers: whole.repeated_sequence_numbers(),
            replays_accepted,
            ike_auth_after_failover: new_auths(&before, &after),
            skip: 0,
            seed: story.seed,
            takeovers_before_crash: story.takeovers_before as u64,
            takeover_ms: milliseconds(story.lead.since(story.crash)),
            packets_sent: hosts.iter().map(|host| host.sent().len() as u64).sum(),
            packets_altered: hosts.iter().map(|host| host.altered()).sum(),
            packets_replayed: story.replayed as u64,
            repeated_ivs: whole.repeated_iv_count,
            leaked: whole.leaked(protected),
            message_id_syncs: story.message_id_syncs as u64,
            replay_delta: story.replay_delta,
            rekeyed_after_failover: story.rekeyed,
            esp: esp_lines(&before, &after),
            ike: [("cluster", CLUSTER), ("peer", PEER)]
                .map(|(name, address)| ike_line(name, address, &before, &after))
                .into(),
        };
        let skipped = result.esp.iter().filter_map(|line| line.skipped);
        result.skip = skipped.max().unwrap_or_default();
        result.passed = result.broken().is_empty();
        result
    }

    /// The promises that were not kept, in words.
    pub fn broken(&self) -> Vec<&'static str> {
        let promises = [
            (
                self.repeated_sequence_numbers == 0,
                "a sequence number was sent twice",
            ),
            (self.repeated_ivs == 0, "an IV was used twice"),
            (self.replays_accepted == 0, "a replayed packet was accepted"),
            (self.packets_replayed > 0, "nothing was replayed"),
            (
                self.ike_auth_after_failover == 0,
                "a new IKE_AUTH was needed",
            ),
            (self.packets_altered == 0, "a packet arrived altered"),
            (self.leaked == 0, "clear text leaked"),
            (
                self.esp.iter().any(|line| line.first_after.is_some()),
                "no ESP after the crash",
            ),
            (
                self.rekeyed_after_failover,
                "the tunnel could not be rekeyed after the takeover",
            ),
        ];
        promises
            .iter()
            .filter(|(kept, _)| !kept)
            .map(|(_, broken)| *broken)
            .collect()
    }
}

fn audit<'a>(capture: impl IntoIterator<Item = &'a Captured>) -> Report {
    let mut audit = Audit::default();
    for frame in capture {
        audit.observe(TapId(0), Duration::from_nanos(frame.at.0), &frame.frame);
    }
    audit.report()
}

fn protected(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn duplicates(received: &[Probe]) -> usize {
    let distinct: BTreeSet<u64> = received.iter().map(|probe| probe.number).collect();
    received.len() - distinct.len()
}

fn hosts_lost(a: &Host, b: &Host) -> u64 {
    let lost = |from: &Host, to: &Host| {
        let arrived: BTreeSet<u64> = to.received().iter().map(|probe| probe.number).collect();
        from.sent().len().saturating_sub(arrived.len()) as u64
    };
    lost(a, b) + lost(b, a)
}

/// From host to host, both directions, the crash included.
fn delay(a: &Host, b: &Host) -> Delay {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_DELAY_US, 3).ok();
    for (from, to) in [(a, b), (b, a)] {
        for probe in to.received() {
            let sent = usize::try_from(probe.number)
                .ok()
                .and_then(|n| from.sent().get(n));
            if let (Some(sent), Some(histogram)) = (sent, &mut histogram) {
                histogram.saturating_record(probe.at.since(*sent).as_micros() as u64);
            }
        }
    }
    let at = |quantile| {
        histogram
            .as_ref()
            .map_or(0, |h| h.value_at_quantile(quantile))
    };
    Delay {
        p50: at(0.5),
        p99: at(0.99),
        max: at(1.0),
    }
}

/// The longest time without a probe that ended after the crash, up to a second after it.
fn outage(host: &Host, crash: Instant) -> Duration {
    let end = crash + Duration::from_secs(1);
    let gaps = host
        .received()
        .windows(2)
        .filter(|pair| pair[1].at > crash && pair[0].at < end);
    gaps.map(|pair| pair[1].at.since(pair[0].at))
        .max()
        .unwrap_or_default()
}

/// IKE_AUTH messages that had not been sent before: a cached response that is sent once more,
/// octet for octet, because the request was replayed, is none.
fn new_auths(before: &Report, after: &Report) -> u64 {
    let auths = |report: &Report| {
        let auths = report
            .ike
            .iter()
            .filter(|event| event.exchange == Exchange::IkeAuth);
        auths.map(|event| event.digest).collect::<BTreeSet<u64>>()
    };
    auths(after).difference(&auths(before)).count() as u64
}

fn esp_lines(before: &Report, after: &Report) -> Vec<EspLine> {
    let lines = before.streams.iter().map(|((key, tap), stream)| {
        let next = after.streams.get(&(*key, *tap)).map(|stream| stream.first);
        let from_cluster = stream.source == IpAddr::V4(CLUSTER);
        EspLine {
            from: if from_cluster { "cluster" } else { "peer" },
            spi: format!("{:08x}", key.spi),
            highest_before: stream.highest,
            first_after: next,
            grant: next.filter(|_| from_cluster).map(|next| next - 1),
            skipped: next
                .filter(|_| from_cluster)
                .map(|next| next - 1 - stream.highest),
        }
    });
    lines.collect()
}

fn ike_line(name: &'static str, from: Ipv4Addr, before: &Report, after: &Report) -> IkeLine {
    let requests = |report: &Report| {
        let from_us =
            |event: &&crate::audit::IkeEvent| event.source == IpAddr::V4(from) && !event.response;
        let ids = report
            .ike
            .iter()
            .filter(from_us)
            .map(|event| event.message_id);
        ids.collect::<Vec<u32>>()
    };
    IkeLine {
        requests_from: name,
        last_before: requests(before).last().copied(),
        first_after: requests(after).first().copied(),
    }
}

impl DemoResult {
    /// The counters of both protocols across the crash, a row each.
    fn counters(&self) -> Vec<(String, String)> {
        let known = |number: Option<u64>| number.map_or("none".to_owned(), |n| n.to_string());
        let ike = self.ike.iter().map(|line| {
            let before = known(line.last_before.map(u64::from));
            let after = known(line.first_after.map(u64::from));
            let name = format!("Message ID of requests from the {}", line.requests_from);
            (name, format!("{before} before, {after} after"))
        });
        let esp = self.esp.iter().map(|line| {
            let after = known(line.first_after);
            let mut numbers = format!("{} before, {after} after", line.highest_before);
            if let (Some(grant), Some(skipped)) = (line.grant, line.skipped) {
                numbers += &format!(" (grant {grant}, skip {skipped})");
            }
            (
                format!("ESP numbers {} from the {}", line.spi, line.from),
                numbers,
            )
        });
        ike.chain(esp).collect()
    }

    /// Everything for a person, a row each.
    fn rows(&self) -> Vec<(String, String)> {
        let row = |name: &str, value: String| (name.to_owned(), value);
        let of = |part: u64, whole: u64| format!("{part} of {whole}");
        let delta = self
            .replay_delta
            .map_or("not needed".to_owned(), |d| format!("by {d}"));
        let rekey = if self.rekeyed_after_failover {
            "works"
        } else {
            "failed"
        };
        let delay = self.delay_us;
        let delay = format!("{} us, {} us, {} us", delay.p50, delay.p99, delay.max);
        let mut rows = vec![
            row(
                "outage as the hosts saw it",
                format!("{:.1} ms", self.outage_ms),
            ),
            row("standby led after", format!("{:.1} ms", self.takeover_ms)),
            row(
                "takeovers before the crash",
                self.takeovers_before_crash.to_string(),
            ),
            row("packets lost", of(self.packets_lost, self.packets_sent)),
            row("delay host to host: median, 99 %, greatest", delay),
        ];
        rows.extend(self.counters());
        rows.extend([
            row(
                "repeated (SPI, sequence number) pairs",
                self.repeated_sequence_numbers.to_string(),
            ),
            row(
                "replays accepted",
                of(self.replays_accepted, self.packets_replayed),
            ),
            row(
                "IKE_AUTH exchanges after the crash",
                self.ike_auth_after_failover.to_string(),
            ),
            row(
                "Message ID synchronisations (RFC 6311)",
                self.message_id_syncs.to_string(),
            ),
            row("replay counters synchronised (RFC 6311)", delta),
            row("clear text on the outside wire", self.leaked.to_string()),
            row("rekey by the peer after the takeover", rekey.to_owned()),
        ]);
        rows
    }
}

impl fmt::Display for DemoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (name, value) in self.rows() {
            writeln!(f, "  {name:<42} {value}")?;
        }
        writeln!(f)?;
        match self.broken().as_slice() {
            [] => write!(
                f,
                "The active member died; the standby carried the tunnel on, and every promise held."
            ),
            broken => write!(f, "BROKEN: {} (seed {}).", broken.join("; "), self.seed),
        }
    }
}
