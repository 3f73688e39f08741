//! A stream of pings, and what its log says.

use std::path::Path;
use std::time::Duration;

use crate::error::LabError;
use crate::netns::Namespace;
use crate::process::{Process, Program};

const END: Duration = Duration::from_secs(5);

/// A running stream.
#[derive(Debug)]
pub struct Ping {
    process: Process,
}

impl Ping {
    /// Pings `target` every `interval`.
    pub fn start(
        namespace: &Namespace,
        target: &str,
        interval: Duration,
        name: &str,
        directory: &Path,
    ) -> Result<Self, LabError> {
        let interval = format!("{:.3}", interval.as_secs_f64());
        let process = Program::new(["ping", "-n", "-D", "-i", &interval, target])
            .inside(namespace)
            .spawn(name, directory)?;
        Ok(Self { process })
    }

    /// Waits for the first answer.
    pub fn wait_for_answer(&mut self, limit: Duration) -> Result<(), LabError> {
        self.process.wait_for_output(" bytes from ", limit)
    }

    /// Ends it and reads its log.
    pub fn stop(mut self) -> Result<PingLog, LabError> {
        self.process.end(libc::SIGINT, END)?;
        let log = self.process.log();
        PingLog::parse(&log).ok_or_else(|| LabError::Unreadable {
            what: format!("ping's log {}", self.process.log_path().display()),
            detail: "no statistics in it".to_owned(),
        })
    }
}

/// What became of a stream of pings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PingLog {
    pub transmitted: u64,
    pub received: u64,
    /// Answers that came more than once.
    pub duplicates: u64,
    /// When each answer came, since the Unix epoch.
    pub answers: Vec<Duration>,
}

impl PingLog {
    fn parse(log: &str) -> Option<Self> {
        let summary = log.lines().find(|l| l.contains(" packets transmitted, "))?;
        let mut parts = summary.split(", ");
        let number = |part: Option<&str>| {
            part?
                .trim_start_matches('+')
                .split(' ')
                .next()?
                .parse()
                .ok()
        };
        let transmitted = number(parts.next())?;
        let received = number(parts.next())?;
        let lines = || log.lines().filter(|line| line.contains(" bytes from "));
        Some(Self {
            transmitted,
            received,
            duplicates: lines().filter(|line| line.contains("(DUP!)")).count() as u64,
            answers: lines().filter_map(stamp).collect(),
        })
    }

    /// Pings without an answer.
    pub fn lost(&self) -> u64 {
        self.transmitted.saturating_sub(self.received)
    }

    /// The longest time between two answers of which the second came after `moment`; `None` if no
    /// answer came after it.
    pub fn longest_gap_after(&self, moment: Duration) -> Option<Duration> {
        let pairs = self.answers.windows(2).filter(|pair| pair[1] > moment);
        pairs.map(|pair| pair[1].saturating_sub(pair[0])).max()
    }
}

/// The time in `[1732190000.123456] 64 bytes from ...`.
fn stamp(line: &str) -> Option<Duration> {
    let text = line.strip_prefix('[')?.split_once(']')?.0;
    let (seconds, fraction) = text.split_once('.')?;
    let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros))
}

/// Whether a host is reached from an address; the first packets may be lost to ARP.
pub fn flows(from: &Namespace, source: &str, target: &str) -> bool {
    let ping = Program::new([
        "ping", "-n", "-c", "10", "-i", "0.1", "-W", "1", "-I", source, target,
    ]);
    let said = ping.inside(from).run().unwrap_or_default();
    let received = |count: &str| said.contains(&format!(" {count} received"));
    ["8", "9", "10"].into_iter().any(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "PING 10.2.0.2 (10.2.0.2) 56(84) bytes of data.
[1732190000.100000] 64 bytes from 10.2.0.2: icmp_seq=1 ttl=62 time=0.612 ms
[1732190000.120000] 64 bytes from 10.2.0.2: icmp_seq=2 ttl=62 time=0.5 ms
[1732190000.120100] 64 bytes from 10.2.0.2: icmp_seq=2 ttl=62 time=0.6 ms (DUP!)
[1732190000.900000] 64 bytes from 10.2.0.2: icmp_seq=40 ttl=62 time=0.5 ms

--- 10.2.0.2 ping statistics ---
40 packets transmitted, 3 received, +1 duplicates, 92.5% packet loss, time 790ms
rtt min/avg/max/mdev = 0.5/0.5/0.612/0.05 ms
";

    #[test]
    fn a_log_is_read() {
        let log = PingLog::parse(LOG).expect("readable");
        assert_eq!((log.transmitted, log.received), (40, 3));
        assert_eq!((log.lost(), log.duplicates), (37, 1));
        let gap = |after| log.longest_gap_after(Duration::new(1_732_190_000, after));
        assert_eq!(gap(120_000_000), Some(Duration::from_micros(779_900)));
        assert_eq!(gap(0), gap(120_000_000));
        assert_eq!(gap(900_000_000), None);
    }

    #[test]
    fn a_log_without_statistics_is_no_log() {
        assert_eq!(PingLog::parse("PING 10.2.0.2\n"), None);
        assert_eq!(PingLog::parse("x packets transmitted, y received"), None);
    }

    #[test]
    fn errors_between_the_numbers_do_not_confuse() {
        let log = "9 packets transmitted, 7 received, +2 errors, 22% packet loss, time 1ms";
        let log = PingLog::parse(log).expect("readable");
        assert_eq!((log.lost(), log.duplicates), (2, 0));
    }
}
