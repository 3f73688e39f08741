//! A port over AF_XDP: frames come from a network interface straight into the worker's pool.
//!
//! ```text
//!   NIC queue -> XDP program -> ours?  -> receive ring -> worker -> transmit ring -> NIC
//!  (program.rs)       |                     (ring.rs)
//!                     +-> not ours -> the host kernel, untouched
//! ```
//!
//! The layer is our own, on `libc` alone: no libbpf, no clang. Reading order: `program.rs` (what is
//! ours), `assembler.rs` and `bpf.rs` (how the kernel gets to know), `socket.rs` and `ring.rs` (how
//! frames travel), `ledger.rs` (who holds which frame), `attachment.rs` (what ports of one interface
//! share), this file (the port).
//!
//! # Who owns a frame
//! A frame is owned by its [`Packet`], by the pool's free list or by one port's rings, and the
//! port's ledger says which frames its rings hold. The kernel writes only to frames in a fill ring,
//! reads only frames in a transmit ring, and no `Packet` names either. When a port is dropped the
//! kernel may go on for a moment, so the frames its rings held are *not* given back: they stay out
//! of use until the pool goes. **Drop the ports of a worker before its pool**, as a matter of order
//! only: the kernel has pinned the pages, so even the other order cannot let it write to memory
//! that serves another purpose.
//!
//! # Needs
//! `CAP_NET_RAW` for sockets, `CAP_BPF` and `CAP_NET_ADMIN` for the program, `CAP_IPC_LOCK` if the
//! pool exceeds `RLIMIT_MEMLOCK`; none of them after the port is open. Linux 5.9.
//!
//! # Traps that the operator should know
//! * Offloads that merge frames make frames that fit no buffer, and the kernel drops those:
//!   `ethtool -K IF gro off lro off` in generic mode.
//! * The kernel at the far end of a veth leaves UDP and TCP checksums to hardware that is not
//!   there; frames forwarded as they are would be refused later: `ethtool -K PEER tx off`.
//! * A virtual function must be trusted (`ip link set PF vf N trust on`) for its MAC filter to take
//!   effect; a switch may need to be told that a port has two addresses.
//! * A NIC that strips VLAN tags makes tagged frames look untagged: `ethtool -K IF rxvlan off`.

mod assembler;
mod attachment;
mod bpf;
mod error;
mod interface;
mod ledger;
mod program;
mod ring;
mod socket;

use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::sync::Arc;

pub use attachment::Attachment;
use attachment::Direction;
pub use error::{AfXdpError, Step};
use ledger::{Ledger, Received};
use ring::Descriptor;
use socket::{Kick, Socket};

use super::{BURST, Burst, MacAddress, Port, PortCounters};
use crate::pool::{FRAME_SIZE, HEADROOM, Packet, Pool};

/// Octets of an Ethernet header.
const ETHERNET_HEADER: usize = 14;
/// Octets of a VLAN tag, which a received frame may have on top.
const VLAN_TAG: usize = 4;
/// The largest MTU whose frames fit a buffer behind XDP's head room.
const LARGEST_MTU: usize = FRAME_SIZE - HEADROOM - ETHERNET_HEADER - VLAN_TAG;
/// Free frames that the fill ring leaves to the datapath.
const RESERVE: usize = 2 * BURST;
/// Frames that a pool must have for a port's share to be a burst.
const LEAST_FRAMES: usize = 4 * BURST;
/// Calls to the kernel for one burst at most: a frame that the kernel refuses costs one call.
const KICKS: usize = 2 * BURST;
/// Calls in a row that move nothing before the rest is left for later.
const FUTILE_KICKS: usize = 3;
/// Bursts between two looks at the kernel's own counters.
const STATISTICS_PERIOD: u32 = 1024;

/// How the XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AfXdpMode {
    /// In the driver if it can, in the kernel behind it otherwise.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel, behind the driver (generic mode): works with any driver.
    Skb,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct AfXdpSettings {
    /// Name of the interface.
    pub interface: String,
    /// Receive queue. Further queues of the same interface are opened with [`AfXdpPort::join`].
    pub queue: u32,
    /// How to attach.
    pub mode: AfXdpMode,
    /// The cluster's virtual MAC address: every frame to it is ours. Not the interface's own.
    pub mac: MacAddress,
    /// The cluster's addresses: ARP about them is ours.
    pub addresses: Vec<Ipv4Addr>,
    /// Entries in each ring, a power of two. The rings of a port also never hold more than a
    /// quarter of the pool to receive, and a quarter to send.
    pub ring_size: u32,
}

impl AfXdpSettings {
    /// Queue 0 of an interface, with the usual ring size.
    pub fn new(interface: impl Into<String>, mac: MacAddress) -> AfXdpSettings {
        AfXdpSettings {
            interface: interface.into(),
            queue: 0,
            mode: AfXdpMode::Auto,
            mac,
            addresses: Vec::new(),
            ring_size: 2048,
        }
    }
}

/// One queue of an interface.
pub struct AfXdpPort {
    /// Taken away first when the port is dropped, so that nothing more goes to the socket.
    direction: Option<Direction>,
    socket: Socket,
    attachment: Arc<Attachment>,
    queue: u32,
    ledger: Ledger,
    /// Frames that the receive side holds at most, and the transmit side too.
    share: usize,
    /// Where the registered memory starts: the pool's mark.
    memory: usize,
    counters: PortCounters,
    /// What the kernel counted, when it was last asked.
    kernel: PortCounters,
    bursts: u32,
}

impl AfXdpPort {
    /// Attaches the program to the interface and opens a port on its queue.
    pub fn open(settings: &AfXdpSettings, pool: &mut Pool) -> Result<AfXdpPort, AfXdpError> {
        let attachment = Arc::new(Attachment::open(settings)?);
        AfXdpPort::join(&attachment, settings.queue, pool)
    }

    /// Opens a port on another queue of an interface that has the program already.
    pub fn join(
        attachment: &Arc<Attachment>,
        queue: u32,
        pool: &mut Pool,
    ) -> Result<AfXdpPort, AfXdpError> {
        let interface = attachment.interface();
        let share = (pool.frames() / 4).min(attachment.ring_size() as usize);
        if pool.frames() < LEAST_FRAMES || pool.available() < RESERVE + BURST {
            return Err(AfXdpError::PoolTooSmall {
                interface: interface.name.clone(),
                frames: pool.frames(),
                least: LEAST_FRAMES,
            });
        }
        let socket = Socket::new(pool.memory(), attachment.ring_size()).map_err(
            |(step, error)| match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::ENOMEM) if step == Step::RegisterMemory => {
                    AfXdpError::LockedMemory {
                        interface: interface.name.clone(),
                        octets: pool.memory().length(),
                    }
                }
                _ => AfXdpError::system(&interface.name, step, error),
            },
        )?;
        let mut port = AfXdpPort {
            direction: None,
            socket,
            attachment: Arc::clone(attachment),
            queue,
            ledger: Ledger::new(pool.frames()),
            share,
            memory: pool.memory().base() as usize,
            counters: PortCounters::default(),
            kernel: PortCounters::default(),
            bursts: 0,
        };
        // Some drivers want frames to receive into before they start.
        port.refill(pool);
        if let Err(error) = port.start() {
            // Never bound, so the kernel never had these frames.
            for frame in port.ledger.unfill() {
                let packet = pool.reclaim(frame, 0, 0);
                pool.free(packet);
            }
            return Err(error);
        }
        Ok(port)
    }

    /// Starts the socket. Binding comes last: until it succeeds the kernel has no frame of ours.
    fn start(&mut self) -> Result<(), AfXdpError> {
        let queue = self.queue;
        let direction = self.attachment.direct(queue, self.socket.descriptor())?;
        let interface = self.attachment.interface();
        let bound = self.socket.bind(interface.index, queue);
        bound.map_err(|error| {
            let interface = interface.name.clone();
            match error.raw_os_error() {
                Some(libc::EBUSY) => AfXdpError::QueueInUse { interface, queue },
                Some(libc::EINVAL) => AfXdpError::NoSuchQueue { interface, queue },
                _ => AfXdpError::system(&interface, Step::Bind, error),
            }
        })?;
        self.direction = Some(direction);
        Ok(())
    }

    /// The program on the interface: to open further queues, and to change addresses while running,
    /// from any thread.
    pub fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    /// The receive queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Frames from one pool only may come and go: the kernel writes to the registered memory, and
    /// frame numbers of another pool would name frames there that packets own.
    fn check(&self, pool: &Pool) {
        assert_eq!(
            pool.memory().base() as usize,
            self.memory,
            "a port was used with another pool"
        );
    }

    /// Gives free frames to the kernel, but leaves enough for the datapath.
    fn refill(&mut self, pool: &mut Pool) {
        let spare = pool.available().saturating_sub(RESERVE);
        let wanted = self.share.saturating_sub(self.ledger.receiving());
        let mut given = false;
        for _ in 0..wanted.min(spare) {
            let Some(packet) = pool.allocate() else { break };
            let address = packet.address() as u64;
            if !self.socket.fill.push(address) {
                pool.free(packet);
                break;
            }
            self.ledger.fill(packet.into_frame());
            given = true;
        }
        if given {
            self.socket.fill.publish();
        }
        if self.socket.fill.needs_wakeup() {
            self.socket.wake_receive();
        }
    }

    /// Takes back the frames that have been sent.
    fn reap(&mut self, pool: &mut Pool) {
        let mut taken = false;
        while let Some(address) = self.socket.completion.pop() {
            taken = true;
            match self.ledger.completed(address) {
                Some(frame) => {
                    let packet = pool.reclaim(frame, 0, 0);
                    pool.free(packet);
                }
                None => self.counters.malformed += 1,
            }
        }
        if taken {
            self.socket.completion.release();
        }
    }

    /// Has the kernel send what is queued. Copy mode needs a call for every burst; a call ends at
    /// its budget (`EAGAIN`) or at a frame that the interface refuses (`EBUSY`, frame consumed).
    fn kick(&mut self, pool: &mut Pool) {
        let mut futile = 0;
        for _ in 0..KICKS {
            let before = self.socket.transmit.pending();
            if before == 0 || !self.socket.transmit.needs_wakeup() {
                break;
            }
            let kick = self.socket.kick();
            self.reap(pool);
            if kick != Kick::Again {
                break;
            }
            let moved = self.socket.transmit.pending() != before;
            futile = if moved { 0 } else { futile + 1 };
            if futile > FUTILE_KICKS {
                break;
            }
        }
    }

    /// Queues one packet, or frees and counts it.
    fn submit(&mut self, pool: &mut Pool, packet: Packet) {
        let longest = self.mtu() + ETHERNET_HEADER;
        if packet.len() < ETHERNET_HEADER || packet.len() > longest {
            // The kernel would refuse it, and everything behind it would wait.
            self.counters.malformed += 1;
            return pool.free(packet);
        }
        let descriptor = Descriptor {
            address: packet.address() as u64,
            length: packet.len() as u32,
            options: 0,
        };
        if self.ledger.transmitting() >= self.share || !self.socket.transmit.push(descriptor) {
            self.counters.transmit_full += 1;
            return pool.free(packet);
        }
        self.ledger.transmit(packet.into_frame());
    }

    /// Asks the kernel now and then what it dropped: a call that costs little, but not nothing.
    fn look_at_statistics(&mut self) {
        self.bursts = self.bursts.wrapping_add(1);
        if self.bursts.is_multiple_of(STATISTICS_PERIOD) {
            self.refresh_counters();
        }
    }

    /// Brings [`Port::counters`] up to date with the kernel, which otherwise happens once in a
    /// thousand bursts.
    pub fn refresh_counters(&mut self) {
        let Ok(kernel) = self.socket.statistics() else {
            return;
        };
        // The kernel counts a frame that found the fill ring empty as dropped, too.
        let too_long = kernel
            .rx_dropped
            .saturating_sub(kernel.rx_fill_ring_empty_descs);
        self.kernel = PortCounters {
            transmit_full: 0,
            no_buffer: kernel.rx_fill_ring_empty_descs + kernel.rx_ring_full,
            malformed: too_long + kernel.rx_invalid_descs + kernel.tx_invalid_descs,
        };
    }
}

impl Port for AfXdpPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        self.look_at_statistics();
        while burst.len() < BURST {
            let Some(descriptor) = self.socket.receive.pop() else {
                break;
            };
            match self.ledger.received(descriptor) {
                Received::Packet(place) => {
                    burst.push(pool.reclaim(place.frame, place.offset, place.length));
                }
                Received::Empty(frame) => {
                    self.counters.malformed += 1;
                    let packet = pool.reclaim(frame, 0, 0);
                    pool.free(packet);
                }
                Received::Unknown => self.counters.malformed += 1,
            }
        }
        self.socket.receive.release();
        self.refill(pool);
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        self.reap(pool);
        for packet in burst.drain(..) {
            self.submit(pool, packet);
        }
        self.socket.transmit.publish();
        self.kick(pool);
    }

    fn poll(&mut self, pool: &mut Pool) {
        self.check(pool);
        self.reap(pool);
        self.kick(pool);
        self.refill(pool);
    }

    fn frames_held(&self) -> usize {
        self.ledger.receiving() + self.ledger.transmitting()
    }

    fn mtu(&self) -> usize {
        self.attachment.interface().mtu
    }

    fn counters(&self) -> PortCounters {
        PortCounters {
            transmit_full: self.counters.transmit_full + self.kernel.transmit_full,
            no_buffer: self.counters.no_buffer + self.kernel.no_buffer,
            malformed: self.counters.malformed + self.kernel.malformed,
        }
    }

    fn wake_descriptor(&self) -> Option<RawFd> {
        Some(self.socket.descriptor())
    }
}
