//! What was measured: tables for people, one object for tools. The keys are stable; others may be
//! added.

mod tables;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Everything of one run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub esp: Option<EspResults>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub io: Option<Vec<IoLine>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lookup: Option<Vec<LookupLine>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ike: Option<Vec<RateLine>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sync: Option<Vec<RateLine>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failover: Option<Vec<FailoverLine>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub crowd: Option<Vec<CrowdLine>>,
}

impl Results {
    /// Nothing yet, on this machine.
    pub fn here() -> Results {
        Results {
            machine: Machine::here(),
            esp: None,
            io: None,
            lookup: None,
            ike: None,
            sync: None,
            failover: None,
            crowd: None,
        }
    }
}

/// `hitless-perf esp`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EspResults {
    pub engine: String,
    pub rounds: usize,
    pub lines: Vec<EspLine>,
    pub overhead: Vec<OverheadLine>,
    pub latency: Vec<LatencyLine>,
    pub memory: Vec<MemoryLine>,
}

/// One setup, packet size and direction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EspLine {
    pub experiment: String,
    pub label: String,
    /// Octets of the inner packet, or "imix": 64, 576 and 1500 octets at 7 : 4 : 1.
    pub size: Size,
    pub direction: String,
    pub sas: u32,
    pub policies: u32,
    pub workers: usize,
    /// Million packets a second, of all workers.
    pub mpps: f64,
    /// Inner packets, gigabits a second, of all workers.
    pub gbps: f64,
    /// Of one worker: median over the rounds, port to port.
    pub ns_per_packet: f64,
    /// aws-lc-rs alone on the same octets in the same rounds, median.
    pub bare_ns: f64,
    /// `ns_per_packet / bare_ns`, median of each round's ratio.
    pub ratio_to_bare: f64,
    /// The burst cipher alone on the same octets, where the CPU has the instructions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst_ns: Option<f64>,
    /// The instructions of AES-GCM alone, none waiting for another, where the CPU has the best.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bound_ns: Option<f64>,
}

/// A worker beside a loop that only forwards, over a port of the kernel's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IoLine {
    pub driver: String,
    /// How frames travel, where there are several ways.
    pub mode: String,
    /// Octets of the inner packet.
    pub size: usize,
    pub direction: String,
    pub ns_per_packet: f64,
    pub mpps: f64,
    /// The loop that only forwards, in the same rounds.
    pub bare_ns: f64,
    pub bare_mpps: f64,
    /// `ns_per_packet / bare_ns`, median of each round's ratio.
    pub ratio_to_bare: f64,
    /// Packets that the kernel lost between generator and port, of both.
    pub lost: u64,
}

/// What something that can be switched off costs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OverheadLine {
    pub of: String,
    pub size: usize,
    pub direction: String,
    /// Of a packet, median over the rounds, with it and without.
    pub with_ns: f64,
    pub without_ns: f64,
    /// Median of each round's ratio, less 100.
    pub percent: f64,
    /// Where that median lies, with 95 % confidence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sure: Option<(f64, f64)>,
    /// Half of the rounds lie between these.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub half: Option<(f64, f64)>,
    /// Instructions of a packet with it and without, under valgrind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instructions: Option<(f64, f64)>,
}

/// From arrival to departure at one load.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LatencyLine {
    pub direction: String,
    pub size: usize,
    pub load_percent: u32,
    pub mpps: f64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
    /// Milliseconds that the machine gave to something else meanwhile, left out above.
    #[serde(default)]
    pub taken_ms: f64,
    /// Quantile and nanoseconds.
    pub curve: Vec<(f64, u64)>,
}

/// What SAs occupy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemoryLine {
    pub sas: u32,
    pub bytes_per_pair: u64,
}

/// One look-up in a table of so many entries.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LookupLine {
    pub table: String,
    pub entries: usize,
    pub ns: f64,
    /// Making the table, in milliseconds.
    pub build_ms: f64,
}

/// How often something can be done on one core.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RateLine {
    pub what: String,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// One takeover.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FailoverLine {
    pub seed: u64,
    pub outage_ms: f64,
    pub takeover_ms: f64,
    pub packets_lost: u64,
    pub packets_sent: u64,
    pub repeated_sequence_numbers: u64,
    pub replays_accepted: u64,
    /// Packets that arrived in each millisecond around the crash: milliseconds after it, and how many.
    pub timeline: Vec<(i64, u64)>,
}

/// One takeover of very many tunnels; milliseconds after the active's death.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CrowdLine {
    pub tunnels: u64,
    pub lead_ms: f64,
    pub first_packet_ms: f64,
    /// The last one of the tunnels that packets came for all the time.
    pub last_busy_ms: f64,
    /// Every tunnel is installed.
    pub all_ms: f64,
    /// What the control thread did at one go, heartbeats waiting.
    pub longest_turn_ms: f64,
}

/// A size or a mix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Octets(usize),
    Mix(String),
}
