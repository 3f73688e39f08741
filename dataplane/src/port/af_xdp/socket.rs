//! An AF_XDP socket: the pool's memory registered with the kernel (its UMEM), and four rings.
//!
//! Each socket registers the memory by itself, so that the ports of one worker share its pool
//! without sharing anything else: no order of opening or closing matters between them. The kernel
//! pins the pages, so it can never write to memory that has been given to somebody else, even when
//! the pool is unmapped before the socket is gone.
#![expect(unsafe_code, reason = "socket calls that take pointers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::error::Step;
use super::ring::{Consumer, Descriptor, Layout, Producer};
use crate::memory::Memory;
use crate::pool::FRAME_SIZE;

/// Socket option that lets one call send more than 32 frames (Linux 6.17).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Milliseconds to wait before each further attempt to bind: one second in all.
const BIND_WAITS: [libc::c_int; 8] = [1, 4, 15, 40, 100, 200, 300, 340];

/// The step that failed, and how.
pub type Failure = (Step, io::Error);

/// What to bind to, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    pub interface: u32,
    pub queue: u32,
    /// The driver writes into our frames itself.
    pub zero_copy: bool,
    /// A packet may come and go in several frames.
    pub jumbo: bool,
}

/// What came of asking the kernel to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kick {
    /// All that was queued is on its way.
    Done,
    /// Some was sent or refused; ask again.
    Again,
    /// No use to ask again now: no memory, or the interface is down.
    Stopped,
}

/// The socket with its rings.
pub struct Socket {
    /// Free frames, to receive into.
    pub fill: Producer<u64>,
    /// Frames that have been sent.
    pub completion: Consumer<u64>,
    /// Packets received.
    pub receive: Consumer<Descriptor>,
    /// Packets to send.
    pub transmit: Producer<Descriptor>,
    descriptor: OwnedFd,
}

impl Socket {
    /// A socket over this memory, not bound yet: the kernel touches none of it before
    /// [`Socket::bind`].
    pub fn new(memory: &Memory, ring_size: u32) -> Result<Socket, Failure> {
        // SAFETY: no pointers; the result is checked.
        let descriptor =
            unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if descriptor < 0 {
            return Err((Step::OpenSocket, io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let registration = libc::xdp_umem_reg {
            addr: memory.base() as u64,
            len: memory.length() as u64,
            chunk_size: FRAME_SIZE as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&descriptor, libc::XDP_UMEM_REG, &registration)
            .map_err(|error| (Step::RegisterMemory, error))?;
        Socket::with_rings(descriptor, ring_size).map_err(|error| (Step::MakeRings, error))
    }

    fn with_rings(descriptor: OwnedFd, size: u32) -> io::Result<Socket> {
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            set(&descriptor, ring, &size)?;
        }
        // An older kernel refuses this: then it takes several calls to send a long queue.
        let _ = set(&descriptor, XDP_MAX_TX_SKB_BUDGET, &size);
        // SAFETY: `xdp_mmap_offsets` is plain data, for which all zeros is a valid value.
        let zero: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        let offsets = get(&descriptor, libc::XDP_MMAP_OFFSETS, zero)?;
        let fd = descriptor.as_fd();
        Ok(Socket {
            fill: Producer::map(
                fd,
                libc::XDP_UMEM_PGOFF_FILL_RING as i64,
                layout(&offsets.fr),
                size,
            )?,
            completion: Consumer::map(
                fd,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
                layout(&offsets.cr),
                size,
            )?,
            receive: Consumer::map(fd, libc::XDP_PGOFF_RX_RING, layout(&offsets.rx), size)?,
            transmit: Producer::map(fd, libc::XDP_PGOFF_TX_RING, layout(&offsets.tx), size)?,
            descriptor,
        })
    }

    /// Binds to a queue. The kernel tears a closed socket down in its own time, so `EBUSY` is
    /// waited out for a second.
    pub fn bind(&self, wish: &Binding) -> io::Result<()> {
        let mut flags = libc::XDP_USE_NEED_WAKEUP;
        flags |= match wish.zero_copy {
            true => libc::XDP_ZEROCOPY,
            false => libc::XDP_COPY,
        };
        if wish.jumbo {
            flags |= libc::XDP_USE_SG;
        }
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: wish.interface,
            sxdp_queue_id: wish.queue,
            sxdp_shared_umem_fd: 0,
        };
        let mut waits = BIND_WAITS.iter();
        loop {
            // SAFETY: the address is a whole `sockaddr_xdp`, which outlives the call.
            let result = unsafe {
                libc::bind(
                    self.descriptor.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            let wait = waits.next().filter(|_| is(&error, libc::EBUSY));
            let Some(&wait) = wait else {
                return Err(error);
            };
            pause(wait);
        }
    }

    /// Asks the kernel to send what is in the transmit ring.
    pub fn kick(&self) -> Kick {
        // SAFETY: no data and no address, so no pointer is followed.
        let result = unsafe {
            libc::sendto(
                self.descriptor.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        if result >= 0 {
            return Kick::Done;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Kick::Again,
            _ => Kick::Stopped,
        }
    }

    /// Tells the kernel that the fill ring has frames again.
    pub fn wake_receive(&self) {
        // SAFETY: no room for data and none for an address, so no pointer is followed. The result
        // does not matter: the next burst asks again.
        unsafe {
            libc::recvfrom(
                self.descriptor.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// The kernel's counters for this socket.
    pub fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        // SAFETY: `xdp_statistics` is plain data, for which all zeros is a valid value.
        let zero: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        get(&self.descriptor, libc::XDP_STATISTICS, zero)
    }

    /// The descriptor: readable when packets wait.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// Waits: on opening and closing only, never between bursts.
pub fn pause(milliseconds: libc::c_int) {
    // SAFETY: no descriptors, so no pointer is followed.
    unsafe { libc::poll(std::ptr::null_mut(), 0, milliseconds) };
}

/// Whether the error has this number.
pub fn is(error: &io::Error, number: libc::c_int) -> bool {
    error.raw_os_error() == Some(number)
}

fn layout(offsets: &libc::xdp_ring_offset) -> Layout {
    Layout {
        producer: offsets.producer,
        consumer: offsets.consumer,
        flags: offsets.flags,
        entries: offsets.desc,
    }
}

/// Values of socket options: plain data.
trait Plain: Copy {}
impl Plain for u32 {}
impl Plain for libc::xdp_umem_reg {}
impl Plain for libc::xdp_mmap_offsets {}
impl Plain for libc::xdp_statistics {}

fn set<T: Plain>(descriptor: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value is readable for its own size and outlives the call. Of the addresses that
    // a value may hold only `xdp_umem_reg` has one: the pool's mapping, which the kernel pins.
    let result = unsafe {
        libc::setsockopt(
            descriptor.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn get<T: Plain>(descriptor: &OwnedFd, option: libc::c_int, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is writable for the length given, and both outlive the call; any octets
    // are a valid `T`.
    let result = unsafe {
        libc::getsockopt(
            descriptor.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<T>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(value)
}
