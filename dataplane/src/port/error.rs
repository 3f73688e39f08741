//! Why a port could not be opened: what failed, where, and what to do about it. AF_XDP has more to
//! say, in its own `error.rs`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::pcap::PcapError;

/// Why a port could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a name that an interface can have.
    InterfaceName { interface: String },
    /// No interface has this name.
    NoSuchInterface { interface: String },
    /// The interface does not carry Ethernet frames.
    NotEthernet { interface: String },
    /// The interface's MTU is larger than any packet may be.
    MtuTooLarge {
        interface: String,
        mtu: usize,
        limit: usize,
    },
    /// The interface's MTU is larger than a packet buffer, and the pool has no runs of buffers.
    NoRuns {
        interface: String,
        mtu: usize,
        limit: usize,
    },
    /// The cluster's MAC address is a group address or all zeros.
    MacNotUnicast { interface: String },
    /// The cluster's MAC address is the interface's own.
    MacOfInterface { interface: String },
    /// The system refused.
    System {
        interface: String,
        what: &'static str,
        advice: &'static str,
        source: io::Error,
    },
    /// A capture that cannot be read.
    Capture { path: PathBuf, source: PcapError },
    /// A captured frame that the capture has cut.
    Cut {
        path: PathBuf,
        number: usize,
        kept: usize,
        original: u32,
    },
    /// A file that cannot be read or written.
    File {
        path: PathBuf,
        what: &'static str,
        source: io::Error,
    },
}

impl OpenError {
    /// What the system refused, with what to do about it unless the error number says so itself.
    pub(super) fn system(
        interface: &str,
        what: &'static str,
        advice: &'static str,
        source: io::Error,
    ) -> OpenError {
        let advice = match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => {
                return OpenError::NoSuchInterface {
                    interface: interface.to_owned(),
                };
            }
            Some(libc::EPERM | libc::EACCES) => {
                "grant CAP_NET_RAW and CAP_NET_ADMIN, or run as root"
            }
            _ => advice,
        };
        OpenError::System {
            interface: interface.to_owned(),
            what,
            advice,
            source,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InterfaceName { interface } => write!(
                f,
                "{interface:?} is no interface name: use 1 to 15 octets without '/' or space"
            ),
            OpenError::NoSuchInterface { interface } => write!(
                f,
                "interface {interface} does not exist in this network namespace: see `ip link`"
            ),
            OpenError::NotEthernet { interface } => write!(
                f,
                "interface {interface} is not Ethernet: ports need Ethernet frames"
            ),
            OpenError::MtuTooLarge {
                interface,
                mtu,
                limit,
            } => write!(
                f,
                "interface {interface} has MTU {mtu}, packets have {limit} octets at most: \
                 `ip link set {interface} mtu {limit}` or less"
            ),
            OpenError::NoRuns {
                interface,
                mtu,
                limit,
            } => write!(
                f,
                "interface {interface} has MTU {mtu}, single packet buffers hold {limit}: make \
                 room for jumbo packets (dataplane.jumbo_packets = 1024), or \
                 `ip link set {interface} mtu {limit}` or less"
            ),
            OpenError::MacNotUnicast { interface } => write!(
                f,
                "the virtual MAC address on {interface} must be a unicast address, such as \
                 02:00:5e:00:01:01"
            ),
            OpenError::MacOfInterface { interface } => write!(
                f,
                "the virtual MAC address on {interface} is the interface's own, so the kernel \
                 would route in clear what this process left behind: choose another, such as \
                 02:00:5e:00:01:01"
            ),
            OpenError::System {
                interface,
                what,
                advice,
                source,
            } => match *advice {
                "" => write!(f, "{interface}: cannot {what}: {source}"),
                advice => write!(f, "{interface}: cannot {what}: {source}; {advice}"),
            },
            OpenError::Capture { path, source } => write!(f, "{}: {source}", path.display()),
            OpenError::Cut {
                path,
                number,
                kept,
                original,
            } => write!(
                f,
                "{}: frame {number} has {kept} of its {original} octets: capture whole frames \
                 (`tcpdump -s 0`)",
                path.display()
            ),
            OpenError::File { path, what, source } => {
                write!(f, "cannot {what} {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::System { source, .. } | OpenError::File { source, .. } => Some(source),
            OpenError::Capture { source, .. } => Some(source),
            _ => None,
        }
    }
}
