//! The XDP program on an interface, shared by the ports of its queues.
//!
//! An interface has one program, however many of its queues have ports. Ports hold the attachment
//! together; when the last one goes, or the process dies, the kernel detaches the program by itself
//! and the interface's MAC filter is as it was.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::bpf::{Insertion, Link, Program};
use super::error::{AfXdpError, Step};
use super::program::{self, Maps};
use super::socket::is;
use super::{AfXdpMode, AfXdpSettings, LARGEST_MTU};
use crate::port::interface::{Interface, MacFilter};

/// Receive queues that can have a port.
const QUEUES: u32 = 256;
/// Addresses of each family that neighbours may be answered for.
const ADDRESSES: u32 = 1024;
/// Flags of BPF_LINK_CREATE for XDP.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The XDP program on an interface. See [`AfXdpPort::attachment`](super::AfXdpPort::attachment).
#[derive(Debug)]
pub struct Attachment {
    interface: Interface,
    native: bool,
    jumbo: bool,
    zero_copy: bool,
    ring_size: u32,
    maps: Maps,
    _link: Link,
    filter: MacFilter,
}

impl Attachment {
    /// Loads the program and attaches it. From then on frames that are ours no longer reach the
    /// kernel, and are dropped until a port is open on their queue.
    pub fn open(settings: &AfXdpSettings) -> Result<Attachment, AfXdpError> {
        let interface = Interface::find(&settings.interface)?;
        check(&interface, settings)?;
        let name = &interface.name;
        let failed = |step| move |error| AfXdpError::system(name, step, error);
        let maps = Maps::new(QUEUES, ADDRESSES).map_err(failed(Step::CreateMap))?;
        let jumbo = interface.mtu > LARGEST_MTU;
        let program =
            program::load(settings.mac, &maps, jumbo).map_err(failed(Step::LoadProgram))?;
        let filter =
            MacFilter::add(interface.index, settings.mac).map_err(failed(Step::FilterMac))?;
        for address in &settings.addresses {
            maps.add(*address).map_err(failed(Step::UpdateMap))?;
            filter.hear(*address).map_err(failed(Step::FilterMac))?;
        }
        let (link, native) = attach(&program, &interface, settings.mode)?;
        Ok(Attachment {
            native,
            jumbo,
            zero_copy: settings.zero_copy,
            ring_size: settings.ring_size,
            maps,
            _link: link,
            filter,
            interface,
        })
    }

    /// The interface.
    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Entries in each ring of each port.
    pub(super) fn ring_size(&self) -> u32 {
        self.ring_size
    }

    /// Whether the driver runs the program (native mode), or the kernel does after it (generic).
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// Whether frames may be longer than a frame of a pool.
    pub fn is_jumbo(&self) -> bool {
        self.jumbo
    }

    /// Whether the driver is to write into our frames, if it can.
    pub(super) fn wants_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Takes ARP and neighbour solicitations about this address from now on.
    pub fn add_address(&self, address: IpAddr) -> Result<(), AfXdpError> {
        self.filter
            .hear(address)
            .and_then(|()| self.maps.add(address))
            .map_err(|error| self.failed(error))
    }

    /// Leaves them to the kernel from now on.
    pub fn remove_address(&self, address: IpAddr) -> Result<(), AfXdpError> {
        match self.maps.remove(address) {
            Err(error) if !is(&error, libc::ENOENT) => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// Sends what is ours on a queue to this socket, for as long as the result lives.
    pub(super) fn direct(
        self: &Arc<Attachment>,
        queue: u32,
        socket: RawFd,
    ) -> Result<Direction, AfXdpError> {
        let inserted =
            self.maps
                .sockets
                .insert(&queue.to_ne_bytes(), socket.to_ne_bytes(), Insertion::New);
        match inserted {
            Ok(()) => Ok(Direction {
                attachment: Arc::clone(self),
                queue,
            }),
            Err(error) => {
                let interface = self.interface.name.clone();
                Err(match error.raw_os_error() {
                    Some(libc::EEXIST) => AfXdpError::QueueInUse { interface, queue },
                    Some(libc::E2BIG) => AfXdpError::NoSuchQueue { interface, queue },
                    _ => self.failed(error),
                })
            }
        }
    }

    fn failed(&self, error: io::Error) -> AfXdpError {
        AfXdpError::system(&self.interface.name, Step::UpdateMap, error)
    }
}

/// A queue's entry in the program's table of sockets. Once it is dropped, frames that are ours on
/// the queue are dropped too.
#[derive(Debug)]
pub struct Direction {
    attachment: Arc<Attachment>,
    queue: u32,
}

impl Drop for Direction {
    fn drop(&mut self) {
        // It fails only if the entry is gone, which is what is wanted.
        let _ = self
            .attachment
            .maps
            .sockets
            .remove(&self.queue.to_ne_bytes());
    }
}

/// What can be refused before the kernel is asked.
fn check(interface: &Interface, settings: &AfXdpSettings) -> Result<(), AfXdpError> {
    let name = || interface.name.clone();
    interface.check_mac(settings.mac)?;
    let size = settings.ring_size;
    if !size.is_power_of_two() || !(64..=32768).contains(&size) {
        return Err(AfXdpError::RingSize {
            interface: name(),
            size,
        });
    }
    Ok(())
}

/// Attaches the program in the mode that is wanted and possible.
fn attach(
    program: &Program,
    interface: &Interface,
    mode: AfXdpMode,
) -> Result<(Link, bool), AfXdpError> {
    if mode != AfXdpMode::Skb {
        let error = match program.attach(interface.index, XDP_FLAGS_DRV_MODE) {
            Ok(link) => return Ok((link, true)),
            Err(error) => error,
        };
        let hopeless = match error.raw_os_error() {
            Some(number) => {
                [libc::EPERM, libc::EBUSY, libc::EEXIST, libc::ENODEV].contains(&number)
            }
            None => false,
        };
        if hopeless {
            return Err(refused(interface, error));
        }
        if mode == AfXdpMode::Native {
            return Err(AfXdpError::NativeUnsupported {
                interface: interface.name.clone(),
                source: error,
            });
        }
    }
    match program.attach(interface.index, XDP_FLAGS_SKB_MODE) {
        Ok(link) => Ok((link, false)),
        Err(error) => Err(refused(interface, error)),
    }
}

fn refused(interface: &Interface, error: io::Error) -> AfXdpError {
    if is(&error, libc::EBUSY) || is(&error, libc::EEXIST) {
        return AfXdpError::AnotherProgram {
            interface: interface.name.clone(),
        };
    }
    AfXdpError::system(&interface.name, Step::Attach, error)
}
