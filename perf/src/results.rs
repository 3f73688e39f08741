//! What is printed: a table for people, one object for tools.

use std::fmt;

use serde::Serialize;

/// A whole run. The keys are stable; others may be added.
#[derive(Serialize)]
pub struct Report {
    pub cpu: String,
    pub engine: &'static str,
    pub rounds: usize,
    pub results: Vec<Line>,
}

/// One packet size in one direction.
#[derive(Serialize)]
pub struct Line {
    /// Octets of the inner packet, or "imix": 64, 576 and 1500 octets at 7 : 4 : 1.
    pub size: Size,
    pub direction: &'static str,
    /// Million packets a second.
    pub mpps: f64,
    /// Inner packets, gigabits a second.
    pub gbps: f64,
    /// Median over the rounds, port to port.
    pub ns_per_packet: f64,
    /// aws-lc-rs alone on the same octets in the same rounds, median.
    pub aead_ns: f64,
    /// `ns_per_packet / aead_ns`, median of each round's ratio.
    pub ratio_to_aead: f64,
}

/// A size or a mix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Size {
    Octets(usize),
    Mix(&'static str),
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Octets(octets) => f.pad(&octets.to_string()),
            Size::Mix(name) => f.pad(name),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, one core, ESP tunnel AES_GCM_16-128, engine {}",
            self.cpu, self.engine
        )?;
        writeln!(
            f,
            "{:>6}  {:<9} {:>8} {:>9} {:>10} {:>9} {:>9}",
            "octets", "direction", "Mpps", "Gbit/s", "ns/packet", "AEAD ns", "ratio"
        )?;
        for line in &self.results {
            writeln!(
                f,
                "{:>6}  {:<9} {:>8.2} {:>9.2} {:>10.1} {:>9.1} {:>9.2}",
                line.size,
                line.direction,
                line.mpps,
                line.gbps,
                line.ns_per_packet,
                line.aead_ns,
                line.ratio_to_aead
            )?;
        }
        write!(
            f,
            "AEAD ns: aws-lc-rs alone on the same octets, timed in the same rounds."
        )
    }
}
