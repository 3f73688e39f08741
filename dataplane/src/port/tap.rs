//! A port over a TAP: a network interface whose far end is this process. It works wherever there is
//! `/dev/net/tun`, also in a container without a NIC, and any program can talk to it.
//!
//! The interface is made if it does not exist, and goes with the last port on it; one that somebody
//! made to stay (`ip tuntap add mode tap`) is used and stays. A system call a packet: some 0.7
//! million packets a second each way. The kernel fills all checksums in, as we never promise it to do
//! so ourselves, and hands over no merged frames.
//!
//! Needs `CAP_NET_ADMIN` to make an interface, nothing for one that belongs to our user.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::interface::{self, Interface};
use super::{BURST, Burst, OpenError, Port, PortCounters, check_mtu, landing};
use crate::pool::{Packet, Pool};
use crate::wire::ethernet;

const DEVICE: &str = "/dev/net/tun";

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapSettings {
    /// Name of the interface.
    pub interface: String,
    /// Its MTU; as it is, or as the kernel makes it (1,500), if not given.
    pub mtu: Option<usize>,
    /// Whether several ports share the interface, each with a queue of its own.
    pub several: bool,
}

/// One queue of a TAP.
#[derive(Debug)]
pub struct TapPort {
    file: File,
    mtu: usize,
    /// What of a received frame does not fit a frame of the pool.
    overflow: Vec<u8>,
    counters: PortCounters,
}

impl TapPort {
    /// Opens the interface, which is made if need be, and brings it up.
    pub fn open(settings: &TapSettings, pool: &Pool) -> Result<TapPort, OpenError> {
        let name = settings.interface.as_str();
        interface::check_name(name)?;
        let failed = |what, advice| move |source| OpenError::system(name, what, advice, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(failed(
                "open /dev/net/tun",
                "load the module `tun`, or give the container the device",
            ))?;
        let mut request = interface::request(name);
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if settings.several {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        interface::control(&file, libc::TUNSETIFF, &mut request).map_err(failed(
            "make or open the TAP",
            "another process has it, or it is no TAP of this kind: a TAP for several workers is \
             made with `ip tuntap add mode tap multi_queue`",
        ))?;
        if let Some(mtu) = settings.mtu {
            interface::set_mtu(name, mtu).map_err(failed("set the MTU", "give a smaller one"))?;
        }
        interface::bring_up(name).map_err(failed("bring the interface up", ""))?;
        let mtu = Interface::find(name)?.mtu;
        check_mtu(name, mtu, pool)?;
        Ok(TapPort {
            file,
            mtu,
            overflow: vec![0; landing::overflow(mtu)],
            counters: PortCounters::default(),
        })
    }

    /// The next frame that waits; `None` if none does.
    fn read(&mut self, pool: &mut Pool) -> Option<Result<Packet, Lost>> {
        let Some(mut packet) = landing::prepare(pool) else {
            // The kernel keeps it until there is room.
            return None;
        };
        let mut slices = [
            IoSliceMut::new(pool.bytes_mut(&mut packet)),
            IoSliceMut::new(&mut self.overflow),
        ];
        let Ok(length) = self.file.read_vectored(&mut slices) else {
            pool.free(packet);
            return None;
        };
        let packet = landing::land(pool, packet, &self.overflow, length);
        Some(packet.ok_or(Lost))
    }
}

/// A frame that was read but for which there was no run.
struct Lost;

impl Port for TapPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while burst.len() < BURST {
            match self.read(pool) {
                Some(Ok(packet)) => burst.push(packet),
                Some(Err(Lost)) => self.counters.no_buffer += 1,
                None => return,
            }
        }
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for packet in burst.drain(..) {
            let fits = (ethernet::HEADER..=self.mtu + ethernet::HEADER).contains(&packet.len());
            match fits.then(|| self.file.write(pool.bytes(&packet))) {
                Some(Ok(_)) => {}
                // The interface is down (EIO), or the kernel is out of memory.
                Some(Err(error)) if error.kind() != ErrorKind::InvalidInput => {
                    self.counters.transmit_full += 1;
                }
                Some(Err(_)) | None => self.counters.malformed += 1,
            }
            pool.free(packet);
        }
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn wake_descriptor(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}
