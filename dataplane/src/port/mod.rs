//! Where packets come from and go to.

pub mod af_packet;
pub mod af_xdp;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod error;
pub mod fault;
mod interface;
mod landing;
pub mod memory;
pub mod pcap;
pub mod tap;

use smallvec::SmallVec;

pub use error::OpenError;

use crate::pool::{FRAME_SIZE, HEADROOM, LARGEST_FRAME, Packet, Pool};
use crate::wire::ethernet;

/// Packets handled in one go.
pub const BURST: usize = 32;

/// Up to [`BURST`] packets, inline.
pub type Burst = SmallVec<[Packet; BURST]>;

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// Octets of an Ethernet header with one VLAN tag.
const LINK_HEADER: usize = ethernet::HEADER + 4;
/// The largest MTU whose frames fit a frame of the pool behind the head room.
const LARGEST_MTU: usize = FRAME_SIZE - HEADROOM - LINK_HEADER;
/// The largest MTU whose frames fit a run.
const LARGEST_JUMBO_MTU: usize = LARGEST_FRAME - LINK_HEADER;

/// Whether a pool has room for the frames of an interface.
fn check_mtu(interface: &str, mtu: usize, pool: &Pool) -> Result<(), OpenError> {
    let interface = || interface.to_owned();
    if mtu > LARGEST_JUMBO_MTU {
        return Err(OpenError::MtuTooLarge {
            interface: interface(),
            mtu,
            limit: LARGEST_JUMBO_MTU,
        });
    }
    if mtu > LARGEST_MTU && !pool.takes_jumbo() {
        return Err(OpenError::NoRuns {
            interface: interface(),
            mtu,
            limit: LARGEST_MTU,
        });
    }
    Ok(())
}

/// One queue of a network port, owned by one worker. Virtual calls are made once a burst.
pub trait Port: Send {
    /// Receives up to [`BURST`] whole Ethernet frames into `burst`, in packets of `pool`.
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Sends all of `burst` and leaves it empty. What the port has no room for is freed and
    /// counted in [`PortCounters::transmit_full`].
    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Housekeeping when there is nothing to send: reaps completions, kicks leftovers.
    fn poll(&mut self, _pool: &mut Pool) {}

    /// Frames of the pool that this port's rings hold now.
    fn frames_held(&self) -> usize {
        0
    }

    /// How frames travel, in a word or two for people; nothing if there is but one way.
    fn mode(&self) -> &'static str {
        ""
    }

    /// Closes the port and gives its frames back to the pool. Returns how many stay out of use for
    /// as long as the pool lives, because a driver may still read or write them.
    fn close(self: Box<Self>, _pool: &mut Pool) -> usize {
        self.frames_held()
    }

    /// Largest Ethernet payload.
    fn mtu(&self) -> usize;

    /// What this port dropped by itself.
    fn counters(&self) -> PortCounters;

    /// A descriptor that becomes readable when packets wait, for sleeping when idle.
    fn wake_descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

/// Drops that happen in a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// Frames freed because the transmit ring was full.
    pub transmit_full: u64,
    /// Frames lost because the pool had no free packet.
    pub no_buffer: u64,
    /// Frames refused: too long, or a descriptor from the kernel that names no frame of ours.
    pub malformed: u64,
}

impl PortCounters {
    /// All of them.
    pub fn dropped(&self) -> u64 {
        self.transmit_full + self.no_buffer + self.malformed
    }
}
