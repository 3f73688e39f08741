//! The packet socket: many frames a system call, each with a word from the kernel about its
//! checksum.
#![expect(unsafe_code, reason = "socket calls that take pointers")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{AfPacketSettings, filter};
use crate::port::BURST;
use crate::port::interface::{Interface, open_socket};

/// Socket option: do not show me what this host sends.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Octets that the kernel keeps for us at most.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;

/// `struct virtio_net_hdr`, in the machine's octet order: in front of every frame, both ways.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Header {
    flags: u8,
    merged: u8,
    header_length: u16,
    segment: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

const HEADER: usize = size_of::<Header>();
/// A flag: the checksum is to be completed.
const NEEDS_CHECKSUM: u8 = 1;

/// A frame that has been received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Landed {
    pub length: usize,
    /// Cut, or merged from several.
    pub refused: bool,
    /// Where a checksum starts that is to be completed, and its field behind that.
    pub checksum: Option<(usize, usize)>,
}

/// Why the kernel did not take a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Because of the frame itself.
    Frame,
    /// It takes none now.
    Full,
}

/// The step that failed, and how.
type Failure = (&'static str, io::Error);

/// The socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A socket on the interface, which gets frames that are ours and no others.
    pub fn open(interface: &Interface, settings: &AfPacketSettings) -> Result<Socket, Failure> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        // Protocol 0: no frame comes before the filter is in place.
        let socket =
            open_socket(libc::AF_PACKET, kind).map_err(|error| ("make a packet socket", error))?;
        let packet = libc::SOL_PACKET;
        let options = [
            (
                packet,
                PACKET_IGNORE_OUTGOING,
                1,
                "leave out outgoing frames",
            ),
            (
                packet,
                libc::PACKET_VNET_HDR,
                1,
                "ask for the state of checksums",
            ),
            (
                packet,
                libc::PACKET_QDISC_BYPASS,
                1,
                "pass the queueing discipline by",
            ),
        ];
        for (level, option, value, what) in options {
            set(&socket, level, option, &value).map_err(|error| (what, error))?;
        }
        // Beyond the system's limit it takes CAP_NET_ADMIN; less is slower, not wrong.
        let _ = set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            &RECEIVE_BUFFER,
        );
        attach_filter(&socket, &mut filter::program(settings.mac))
            .map_err(|error| ("attach the filter", error))?;
        bind(&socket, interface.index).map_err(|error| ("bind the packet socket", error))?;
        if settings.queues > 1 {
            // One group for each interface and process, by hash of the flow.
            let group = (interface.index ^ std::process::id()) & 0xffff;
            let fanout = group as libc::c_int | (libc::PACKET_FANOUT_HASH as libc::c_int) << 16;
            set(&socket, packet, libc::PACKET_FANOUT, &fanout)
                .map_err(|error| ("share the interface among several ports", error))?;
        }
        Ok(Socket(socket))
    }

    /// Receives frames that wait, into `frames` and, what does not fit there, into equal parts of
    /// `overflow`. Returns how many.
    pub fn receive(
        &self,
        frames: &mut [&mut [u8]],
        overflow: &mut [u8],
        landed: &mut [Landed; BURST],
    ) -> usize {
        let mut headers = [Header::default(); BURST];
        // SAFETY: `iovec` and `mmsghdr` are plain data, for which all zeros is a valid value.
        let mut slices: [[libc::iovec; 3]; BURST] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
        let size = overflow.len() / BURST;
        let mut spill = overflow.chunks_exact_mut(size.max(1));
        let mut count = 0;
        for (((frame, header), parts), message) in frames
            .iter_mut()
            .zip(&mut headers)
            .zip(&mut slices)
            .zip(&mut messages)
        {
            parts[0] = slice(std::ptr::from_mut(header).cast(), HEADER);
            parts[1] = slice(frame.as_mut_ptr(), frame.len());
            parts[2] = match spill.next() {
                Some(rest) => slice(rest.as_mut_ptr(), rest.len()),
                None => slice(std::ptr::null_mut(), 0),
            };
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len();
            count += 1;
        }
        // SAFETY: the first `count` messages each have three slices, which are writable for their
        // lengths, do not overlap, and like the messages outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).unwrap_or(0);
        for ((message, header), landed) in messages.iter().zip(&headers).zip(landed).take(received)
        {
            let length = (message.msg_len as usize).checked_sub(HEADER);
            let cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let unfinished = header.flags & NEEDS_CHECKSUM != 0;
            let places = (header.checksum_start.into(), header.checksum_offset.into());
            *landed = Landed {
                length: length.unwrap_or(0),
                refused: cut || length.is_none() || header.merged != 0,
                checksum: unfinished.then_some(places),
            };
        }
        received
    }

    /// Sends frames, in order. Returns how many were taken, and why no more.
    pub fn send(&self, frames: &[&[u8]]) -> (usize, Option<Refusal>) {
        let header = Header::default();
        // SAFETY: `iovec` and `mmsghdr` are plain data, for which all zeros is a valid value.
        let mut slices: [[libc::iovec; 2]; BURST] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        for ((frame, parts), message) in frames.iter().zip(&mut slices).zip(&mut messages) {
            parts[0] = slice(std::ptr::from_ref(&header).cast_mut().cast(), HEADER);
            parts[1] = slice(frame.as_ptr().cast_mut(), frame.len());
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len();
            count += 1;
        }
        let mut attempt = || {
            // SAFETY: the first `count` messages each have two slices, which are readable for their
            // lengths (the kernel only reads what it sends), and like the messages outlive the call.
            let sent = unsafe {
                libc::sendmmsg(
                    self.0.as_raw_fd(),
                    messages.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                )
            };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error().raw_os_error())
        };
        let result = match attempt() {
            // A link that was down and is up again says so once.
            Err(Some(libc::ENETDOWN)) => attempt(),
            result => result,
        };
        match result {
            Ok(sent) => (sent, None),
            Err(Some(libc::EMSGSIZE | libc::EINVAL)) => (0, Some(Refusal::Frame)),
            Err(_) => (0, Some(Refusal::Full)),
        }
    }

    /// Frames that the kernel dropped since the last call because nobody fetched them in time.
    pub fn dropped(&self) -> u64 {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the value is writable for the length given, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        match result {
            0 => u64::from(statistics.tp_drops),
            _ => 0,
        }
    }

    /// The descriptor: readable when frames wait.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn slice(start: *mut u8, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: start.cast(),
        iov_len: length,
    }
}

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is readable for its own size and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result)
}

fn attach_filter(socket: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program points to as many instructions as it says; both outlive the call, and the
    // kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result)
}

fn bind(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data, for which all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as libc::c_int;
    // SAFETY: the address is a whole `sockaddr_ll`, which outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(result)
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
