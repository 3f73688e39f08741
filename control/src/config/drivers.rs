//! How a port receives and sends: `driver` in `[ports.NAME]`, with the keys that each driver has.

use hitless_dataplane::port::af_xdp::AfXdpMode;
use hitless_dataplane::port::pcap::Pace;
use toml::de::DeValue;

use super::document::{Located, Section};
use super::model::{AfXdpConfig, Driver, PcapConfig};
use super::report::Refusal;
use super::value::{self, quoted};

/// IFNAMSIZ without its zero.
const LONGEST_INTERFACE: usize = 15;
/// Largest MTU that a packet has room for.
const LARGEST_MTU: u64 = 9216;

/// Keys that only some drivers have, and what to do about them under another.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    (
        "interface",
        "the drivers `memory` and `pcap` have no interface; leave it out",
    ),
    (
        "queue",
        "only the driver `af_xdp` has numbered queues; leave it out",
    ),
    (
        "queues",
        "only the driver `af_xdp` has numbered queues; leave it out",
    ),
    ("mode", "only the driver `af_xdp` has modes; leave it out"),
    (
        "zero_copy",
        "only the driver `af_xdp` has zero copy; leave it out",
    ),
    (
        "ring_size",
        "only the driver `af_xdp` has rings; leave it out",
    ),
    (
        "mtu",
        "only the drivers `tap` and `pcap` take it from here; for others `ip link set IF mtu N`",
    ),
    ("read", "only the driver `pcap` reads files; leave it out"),
    ("write", "only the driver `pcap` writes files; leave it out"),
    ("pace", "only the driver `pcap` has a pace; leave it out"),
];

/// The kinds of drivers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    AfXdp,
    AfPacket,
    Tap,
    Pcap,
    Memory,
}

/// A driver with the name of its interface.
pub(super) struct Found {
    pub driver: Driver,
    pub interface: Located<String>,
    /// Receive queues, one for each worker in turn.
    pub queues: Vec<u32>,
}

/// Reads what concerns the driver. `name` is the port's.
pub(super) fn read(section: &Section<'_>, name: &str, workers: Option<usize>) -> Option<Found> {
    let kind = section.or(
        "driver",
        Kind::AfXdp,
        value::word(&[
            ("af_xdp", Kind::AfXdp),
            ("af_packet", Kind::AfPacket),
            ("tap", Kind::Tap),
            ("pcap", Kind::Pcap),
            ("memory", Kind::Memory),
        ]),
    );
    // No two cables in memory, and no two captures, are one: there the port's own name serves.
    let interface = match kind {
        Kind::Pcap | Kind::Memory => Some(Located {
            value: name.to_owned(),
            span: section.span.clone(),
        }),
        Kind::AfXdp | Kind::AfPacket | Kind::Tap => {
            section.required("interface", "interface = \"eth0\"", interface)
        }
    };
    let mut queues = workers.map(|count| (0..count as u32).collect());
    let driver = match kind {
        Kind::Memory => Driver::Memory,
        Kind::AfPacket => Driver::AfPacket,
        Kind::Tap => Driver::Tap {
            mtu: mtu(section).map(|mtu| mtu.value as usize),
        },
        Kind::Pcap => Driver::Pcap(pcap(section, workers)?),
        Kind::AfXdp => {
            queues = numbered_queues(section, workers);
            Driver::AfXdp(af_xdp(section))
        }
    };
    Some(Found {
        driver,
        interface: interface?,
        queues: queues?,
    })
}

fn mtu(section: &Section<'_>) -> Option<Located<u64>> {
    section.optional("mtu", value::integer(576, LARGEST_MTU))
}

fn af_xdp(section: &Section<'_>) -> AfXdpConfig {
    let default = AfXdpConfig::default();
    let mode = section.or(
        "mode",
        default.mode,
        value::word(&[
            ("auto", AfXdpMode::Auto),
            ("native", AfXdpMode::Native),
            ("skb", AfXdpMode::Skb),
        ]),
    );
    let zero_copy = section.or("zero_copy", default.zero_copy, value::boolean);
    if zero_copy && mode == AfXdpMode::Skb {
        section.refuse(
            "zero_copy",
            Refusal::new(
                format!("{}: not with mode = \"skb\"", section.name("zero_copy")),
                "only a driver that runs the program itself has zero copy: mode = \"auto\"",
            ),
        );
    }
    let ring_size = section.or("ring_size", u64::from(default.ring_size), ring_size);
    AfXdpConfig {
        mode,
        zero_copy,
        ring_size: ring_size as u32,
    }
}

fn ring_size(value: &DeValue<'_>) -> Result<u64, Refusal> {
    let size = value::integer(64, 32_768)(value)?;
    match size.is_power_of_two() {
        true => Ok(size),
        false => Err(Refusal::new(
            format!("{size} is not a power of two"),
            format!("write {}", size.next_power_of_two()),
        )),
    }
}

fn pcap(section: &Section<'_>, workers: Option<usize>) -> Option<PcapConfig> {
    if workers.is_some_and(|workers| workers > 1) {
        section.refuse(
            "driver",
            Refusal::new(
                format!("{}: a capture has one queue", section.name("driver")),
                "set dataplane.workers = 1",
            ),
        );
        return None;
    }
    let read = section.optional("read", value::absolute_path);
    let write = section.optional("write", value::absolute_path);
    let pace = section.or(
        "pace",
        Pace::Fast,
        value::word(&[("fast", Pace::Fast), ("recorded", Pace::Recorded)]),
    );
    Some(PcapConfig {
        read: read.map(|path| path.value),
        write: write.map(|path| path.value),
        pace,
        mtu: mtu(section).map_or(1500, |mtu| mtu.value as usize),
    })
}

fn interface(value: &DeValue<'_>) -> Result<String, Refusal> {
    let name = value::text(value)?;
    let legal = name.len() <= LONGEST_INTERFACE
        && name != "."
        && name != ".."
        && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/');
    if legal {
        return Ok(name);
    }
    Err(Refusal::new(
        format!("{} cannot be an interface", quoted(&name)),
        "give a name that `ip link` shows, such as \"eth0\"",
    ))
}

/// `queue = 0` or `queues = [0, 1]`: one for each worker; counted from 0 if absent.
fn numbered_queues(section: &Section<'_>, workers: Option<usize>) -> Option<Vec<u32>> {
    let number = value::integer(0, 1023);
    let single = section.given("queue", &number);
    let many = section.given_list("queues", &number);
    let (key, given) = match (single.ok()?, many.ok()?) {
        (Some(_), Some(_)) => {
            section.refuse(
                "queue",
                Refusal::new(
                    format!("{}: both `queue` and `queues`", section.path),
                    "keep one of them",
                ),
            );
            return None;
        }
        (Some(one), None) => ("queue", vec![one.value as u32]),
        (None, Some(many)) => ("queues", many.iter().map(|q| q.value as u32).collect()),
        (None, None) => return Some((0..workers? as u32).collect()),
    };
    let workers = workers?;
    let mut distinct = given.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if given.len() != workers || distinct.len() != workers {
        section.refuse(
            key,
            Refusal::new(
                format!(
                    "{}: {} for {workers} worker(s)",
                    section.name(key),
                    given.len()
                ),
                "give each worker one queue of its own, or change dataplane.workers",
            ),
        );
    }
    Some(given)
}
