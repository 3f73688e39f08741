//! Traces and captures of single packets: plain data, for JSON and for text.

use serde::{Deserialize, Serialize};

/// Which packets are watched; without a word all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchFilter {
    /// One SA, called as for `show sa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sa: Option<String>,
    /// One port, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// Which side of ESP is captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureSide {
    /// Inner packets, in clear.
    BeforeEsp,
    /// Frames on the ports towards the peers.
    AfterEsp,
    Both,
}

/// The traces so far.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TraceReport {
    /// Packets asked for, of each worker.
    pub wanted_packets: u32,
    /// Steps that found no room.
    pub lost_steps: u64,
    pub packets: Vec<TracedPacket>,
}

/// The way of one packet.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TracedPacket {
    pub worker: u64,
    /// From 0, on its worker.
    pub packet: u32,
    /// Whether it has come to an end.
    pub ended: bool,
    pub steps: Vec<TraceStep>,
}

/// One stage of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TraceStep {
    /// Since the packet was received.
    pub after_microseconds: f64,
    /// `receive`, `spd`, `replay`, ...
    pub stage: String,
    pub text: String,
}

/// Packets captured since the last answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CaptureReport {
    pub packets: Vec<CapturedPacket>,
    /// Packets of the whole capture that found no room.
    pub lost_packets: u64,
    /// As many as were asked for have been captured.
    pub done: bool,
}

/// What a captured packet begins with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkType {
    Ethernet,
    Ip,
    /// Neither: ESP without what was in front of it, or something too short.
    Other,
}

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureDirection {
    In,
    Out,
    Unknown,
}

/// One captured packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// On CLOCK_BOOTTIME.
    pub at_nanoseconds: u64,
    /// A port, `inner` or `dropped`.
    pub interface: String,
    pub link: LinkType,
    pub direction: CaptureDirection,
    /// SA, number, reason of a drop.
    pub comment: String,
    /// Octets of the packet; fewer may be here.
    pub length_bytes: u64,
    /// Hexadecimal.
    pub octets: String,
}
