//! A port over DPDK, behind the cargo feature `dpdk`: poll-mode drivers in this process.
//!
//! ```text
//!  device -> rte_eth_rx_burst -> mbuf -> copy -> packet of the pool -> worker
//!  device <- rte_eth_tx_burst <- mbuf <- copy <- packet of the pool <-+
//! ```
//!
//! Frames are copied at the port, so no frame of the pool is ever DPDK's, and no mbuf is ever on the
//! path. DPDK is reached through a C shim of its inline functions (`shim.c`), which also proves at
//! compile time that our view of an mbuf is its own (`ffi.rs`).
//!
//! EAL is started once for a process. It needs huge pages, or `--no-huge` (slower: more misses of the
//! TLB); `--no-huge` and `--in-memory` exclude each other.

mod ffi;

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{BURST, Burst, LARGEST_JUMBO_MTU, LINK_HEADER, Port, PortCounters};
use crate::pool::{Packet, Pool};
use crate::wire::ethernet;
pub use ffi::{Device, Eal, start};
use ffi::{Mbuf, Mempool, register_thread};

/// Why a device could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DpdkError {
    /// EAL did not start.
    Eal { text: String },
    /// EAL was started before, with other arguments.
    StartedOtherwise { given: String },
    /// No memory for mbufs.
    Mempool { name: String, text: String },
    /// The device.
    Device {
        name: String,
        what: &'static str,
        text: String,
    },
    /// The MTU is larger than any packet may be, or larger than a frame of a pool without runs.
    Mtu {
        name: String,
        mtu: usize,
        limit: usize,
    },
}

impl fmt::Display for DpdkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DpdkError::Eal { text } => write!(
                f,
                "EAL does not start: {text}; reserve huge pages (`sysctl vm.nr_hugepages=512`) or \
                 give --no-huge, and see what it printed"
            ),
            DpdkError::StartedOtherwise { given } => write!(
                f,
                "EAL was started with `{given}`: it starts once for a process, name all devices \
                 then"
            ),
            DpdkError::Mempool { name, text } => {
                write!(f, "no mbufs for {name}: {text}; give EAL more memory (-m)")
            }
            DpdkError::Device { name, what, text } => write!(
                f,
                "cannot {what} the device {name}: {text}; give it to EAL with --vdev or --allow"
            ),
            DpdkError::Mtu { name, mtu, limit } => write!(
                f,
                "device {name}: MTU {mtu}, but packets have {limit} octets at most here; choose a \
                 smaller one, or a pool with runs"
            ),
        }
    }
}

impl std::error::Error for DpdkError {}

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DpdkSettings {
    /// The device's name, as EAL has it: `net_tap0`, `0000:03:00.0`.
    pub device: String,
    /// Ports that share it, each with a queue of its own.
    pub queues: u16,
    /// Descriptors of each queue.
    pub ring_size: u16,
    /// Its MTU; as it is if not given.
    pub mtu: Option<usize>,
    /// Mbufs of the device.
    pub mbufs: u32,
}

impl DpdkSettings {
    /// One queue of a device, with the usual sizes.
    pub fn new(device: impl Into<String>) -> DpdkSettings {
        DpdkSettings {
            device: device.into(),
            queues: 1,
            ring_size: 512,
            mtu: None,
            mbufs: 4095,
        }
    }
}

/// Opens a device with all its queues: one port for each worker, in turn.
pub fn open(eal: Eal, settings: &DpdkSettings, pool: &Pool) -> Result<Vec<DpdkPort>, DpdkError> {
    let name = settings.device.as_str();
    let most = LARGEST_JUMBO_MTU.min(pool.largest_packet() - LINK_HEADER);
    let check = |mtu: usize| match mtu <= most {
        true => Ok(()),
        false => Err(DpdkError::Mtu {
            name: name.to_owned(),
            mtu,
            limit: most,
        }),
    };
    check(settings.mtu.unwrap_or(0))?;
    // One mbuf holds any frame of this MTU; at least what drivers expect of one.
    let octets = (settings.mtu.unwrap_or(0) + LINK_HEADER).max(2048);
    let mempool = Mempool::new(eal, &format!("hitless_{name}"), settings.mbufs, octets)?;
    let device = Device::start(
        eal,
        name,
        settings.queues,
        settings.ring_size,
        settings.mtu,
        mempool,
    )?;
    check(device.mtu())?;
    let port = |queue| DpdkPort {
        device: Arc::clone(&device),
        queue,
        registered: false,
        counters: PortCounters::default(),
    };
    Ok((0..settings.queues).map(port).collect())
}

/// One queue of a device.
#[derive(Debug)]
pub struct DpdkPort {
    device: Arc<Device>,
    queue: u16,
    /// Whether the thread that uses the port is known to DPDK.
    registered: bool,
    counters: PortCounters,
}

impl DpdkPort {
    /// Mbufs that are neither in a queue of the device nor on their way.
    pub fn mbufs_available(&self) -> usize {
        self.device.pool().available()
    }

    fn register(&mut self) {
        if !self.registered {
            self.registered = true;
            register_thread(self.device.eal());
        }
    }

    /// A copy of a packet for the device, unless it is too long or no mbuf is free.
    fn copy_out(&mut self, octets: &[u8]) -> Option<Mbuf> {
        let longest = self.device.mtu() + ethernet::HEADER;
        if !(ethernet::HEADER..=longest).contains(&octets.len()) {
            self.counters.malformed += 1;
            return None;
        }
        let Some(mut mbuf) = self.device.pool().allocate() else {
            self.counters.transmit_full += 1;
            return None;
        };
        if !mbuf.fill(octets) {
            self.counters.malformed += 1;
            return None;
        }
        Some(mbuf)
    }
}

/// A copy of an mbuf, whose segments become one slice.
fn copy_in(pool: &mut Pool, mbuf: &Mbuf) -> Option<Packet> {
    let length = mbuf.len();
    let mut packet = pool.allocate_for(length)?;
    let mut whole = pool.append(&mut packet, length);
    let mut rest = pool.bytes_mut(&mut packet);
    for part in mbuf.parts() {
        match std::mem::take(&mut rest).split_at_mut_checked(part.len()) {
            Some((target, behind)) => {
                target.copy_from_slice(part);
                rest = behind;
            }
            None => whole = false,
        }
    }
    whole &= rest.is_empty();
    if !whole {
        pool.free(packet);
        return None;
    }
    Some(packet)
}

impl Port for DpdkPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.register();
        let (largest, counters) = (pool.largest_packet(), &mut self.counters);
        let room = BURST - burst.len();
        self.device
            .receive(self.queue, room, |mbuf| match copy_in(pool, &mbuf) {
                Some(packet) => burst.push(packet),
                None if mbuf.len() > largest => counters.malformed += 1,
                None => counters.no_buffer += 1,
            });
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.register();
        let mut mbufs: SmallVec<[Mbuf; BURST]> = SmallVec::new();
        for packet in burst.drain(..) {
            mbufs.extend(self.copy_out(pool.bytes(&packet)));
            pool.free(packet);
        }
        let count = mbufs.len();
        let sent = self.device.transmit(self.queue, mbufs.into_iter());
        self.counters.transmit_full += (count - sent) as u64;
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
