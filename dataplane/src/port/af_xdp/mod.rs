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
//! reads only frames in a transmit ring, and no `Packet` names either. [`Port::close`] gives back
//! every frame that the kernel is done with for certain. When a port is merely dropped the kernel
//! may go on for a moment, so the frames its rings held are *not* given back: they stay out of use
//! until the pool goes. **Drop the ports of a worker before its pool**, as a matter of order
//! only: the kernel has pinned the pages, so even the other order cannot let it write to memory
//! that serves another purpose.
//!
//! # How frames are copied
//! Zero copy, where the driver itself writes into our frames, is used if it is asked for and the
//! driver can: some drivers' zero copy has corrupted memory, so nobody gets it unasked. Otherwise
//! the kernel copies, from the driver (`native`) or behind it (`skb`). [`Port::mode`] tells which.
//!
//! # Jumbo frames
//! An interface whose MTU is above 1,774 gets a program for frames in several buffers
//! (`BPF_F_XDP_HAS_FRAGS`, `XDP_USE_SG`, Linux 6.6), and the pool must have runs: what comes in
//! several buffers is gathered into a run, and a run is sent as several descriptors.
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
mod chain;
mod error;
mod ledger;
mod program;
mod ring;
mod settings;
mod socket;

use std::os::fd::RawFd;
use std::sync::Arc;

pub use attachment::Attachment;
use attachment::Direction;
use chain::{Chain, Gathered};
pub use error::{AfXdpError, Step};
use ledger::{Completed, Ledger, Received};
use ring::Descriptor;
pub use settings::{AfXdpMode, AfXdpSettings};
use socket::{Binding, Kick, Socket};

use super::{BURST, Burst, LARGEST_MTU, Port, PortCounters};
use crate::pool::{Packet, Pool};
use crate::wire::ethernet;

/// Free frames that the fill ring leaves to the datapath.
const RESERVE: usize = 2 * BURST;
/// Frames that a pool must have for a port's share to be a burst.
const LEAST_FRAMES: usize = 4 * BURST;
/// Calls to the kernel for one burst at most: a frame that the kernel refuses costs one call.
const KICKS: usize = 2 * BURST;
/// Calls in a row that move nothing before the rest is left for later.
const FUTILE_KICKS: usize = 3;
/// Milliseconds that closing a port waits at most for frames that are being sent.
const FAREWELL: usize = 100;
/// Bursts between two looks at the kernel's own counters.
const STATISTICS_PERIOD: u32 = 1024;

/// One queue of an interface.
pub struct AfXdpPort {
    /// Taken away first when the port is dropped, so that nothing more goes to the socket.
    direction: Option<Direction>,
    socket: Socket,
    attachment: Arc<Attachment>,
    queue: u32,
    zero_copy: bool,
    ledger: Ledger,
    chain: Chain,
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
        if pool.frames() < LEAST_FRAMES || pool.available_frames() < RESERVE + BURST {
            return Err(AfXdpError::PoolTooSmall {
                interface: interface.name.clone(),
                frames: pool.frames(),
                least: LEAST_FRAMES,
            });
        }
        super::check_mtu(&interface.name, interface.mtu, pool)?;
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
            zero_copy: false,
            ledger: Ledger::new(pool),
            chain: Chain::default(),
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
            unfill(&mut port.ledger, pool);
            return Err(error);
        }
        Ok(port)
    }

    /// Starts the socket. Binding comes last: until it succeeds the kernel has no frame of ours.
    fn start(&mut self) -> Result<(), AfXdpError> {
        let queue = self.queue;
        let direction = self.attachment.direct(queue, self.socket.descriptor())?;
        let interface = self.attachment.interface();
        let wish = Binding {
            interface: interface.index,
            queue,
            // Only a driver that runs the program itself can write into our frames.
            zero_copy: self.attachment.wants_zero_copy() && self.attachment.is_native(),
            jumbo: self.attachment.is_jumbo(),
        };
        let copying = Binding {
            zero_copy: false,
            ..wish
        };
        let bound = match self.socket.bind(&wish) {
            Ok(()) => Ok(wish.zero_copy),
            Err(error) if wish.zero_copy && !socket::is(&error, libc::EBUSY) => {
                self.socket.bind(&copying).map(|()| false)
            }
            Err(error) => Err(error),
        };
        self.zero_copy = bound.map_err(|error| {
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
        let spare = pool.available_frames().saturating_sub(RESERVE);
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
                Completed::Packet(frame) => {
                    let packet = pool.reclaim(frame, 0, 0);
                    pool.free(packet);
                }
                Completed::Part => {}
                Completed::Unknown => self.counters.malformed += 1,
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
        let longest = self.mtu() + ethernet::HEADER;
        if packet.len() < ethernet::HEADER || packet.len() > longest {
            // The kernel would refuse it, and everything behind it would wait.
            self.counters.malformed += 1;
            return pool.free(packet);
        }
        let parts = ledger::parts(&packet);
        let room = self.socket.transmit.room() as usize >= parts.len();
        if !room || self.ledger.transmitting() >= self.share {
            self.counters.transmit_full += 1;
            return pool.free(packet);
        }
        for part in &parts {
            let pushed = self.socket.transmit.push(*part);
            debug_assert!(pushed, "there was room");
        }
        self.ledger.transmit(packet, &parts);
    }

    /// Takes a descriptor of the receive ring.
    fn accept(&mut self, pool: &mut Pool, descriptor: Descriptor) -> Option<Packet> {
        let continues = descriptor.options & libc::XDP_PKT_CONTD != 0;
        let part = match self.ledger.received(descriptor) {
            Received::Packet(place) => Some(pool.reclaim(place.frame, place.offset, place.length)),
            Received::Empty(frame) => {
                let packet = pool.reclaim(frame, 0, 0);
                pool.free(packet);
                None
            }
            Received::Unknown => None,
        };
        if !continues && !self.chain.is_open() {
            self.counters.malformed += u64::from(part.is_none());
            return part;
        }
        match self.chain.take(pool, part, continues) {
            Gathered::Packet(packet) => return Some(packet),
            Gathered::More => {}
            Gathered::NoBuffer => self.counters.no_buffer += 1,
            Gathered::Malformed => self.counters.malformed += 1,
        }
        None
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

/// Takes back all frames of the receive side, which the kernel has not yet, or no longer.
fn unfill(ledger: &mut Ledger, pool: &mut Pool) {
    for frame in ledger.unfill() {
        let packet = pool.reclaim(frame, 0, 0);
        pool.free(packet);
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
            if let Some(packet) = self.accept(pool, descriptor) {
                burst.push(packet);
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
        self.ledger.receiving() + self.ledger.transmitting() + self.chain.held()
    }

    fn mode(&self) -> &'static str {
        match (self.zero_copy, self.attachment.is_native()) {
            (true, _) => "zero-copy",
            (false, true) => "native",
            (false, false) => "skb",
        }
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> usize {
        self.check(pool);
        // 1. Nothing more comes to the socket.
        self.direction = None;
        // 2. What is being sent, for a moment.
        for _ in 0..FAREWELL {
            self.reap(pool);
            self.kick(pool);
            if self.ledger.transmitting() == 0 {
                break;
            }
            socket::pause(1);
        }
        // 3. When `close` returns in copy mode no processor writes through the socket any more: the
        //    kernel has waited for all that might (`synchronize_net`). A driver that has our frames
        //    gives them up in its own time, which nobody tells us.
        self.chain.clear(pool);
        let AfXdpPort {
            socket,
            mut ledger,
            zero_copy,
            ..
        } = *self;
        drop(socket);
        if !zero_copy {
            unfill(&mut ledger, pool);
        }
        ledger.receiving() + ledger.transmitting()
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
