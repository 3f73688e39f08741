//! Why an AF_XDP port could not be opened: what failed, where, and what to do about it.

use std::fmt;
use std::io;

use crate::port::OpenError;

/// A step of opening a port, or of changing it later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Making the BPF maps.
    CreateMap,
    /// Loading the XDP program.
    LoadProgram,
    /// Attaching the XDP program.
    Attach,
    /// Adding the virtual MAC address to the interface's filter.
    FilterMac,
    /// Making the AF_XDP socket.
    OpenSocket,
    /// Registering the pool's memory.
    RegisterMemory,
    /// Making and mapping the rings.
    MakeRings,
    /// Binding the socket to its queue.
    Bind,
    /// Changing which queues or addresses are ours.
    UpdateMap,
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Step::CreateMap => "create a BPF map",
            Step::LoadProgram => "load the XDP program",
            Step::Attach => "attach the XDP program",
            Step::FilterMac => "add the virtual MAC address to the interface's filter",
            Step::OpenSocket => "create an AF_XDP socket",
            Step::RegisterMemory => "register packet memory with the kernel",
            Step::MakeRings => "make the socket's rings",
            Step::Bind => "bind the socket to its queue",
            Step::UpdateMap => "change a BPF map",
        }
    }

    fn capability(self) -> &'static str {
        match self {
            Step::CreateMap | Step::LoadProgram | Step::UpdateMap => "CAP_BPF and CAP_NET_ADMIN",
            Step::Attach => "CAP_NET_ADMIN",
            _ => "CAP_NET_RAW",
        }
    }
}

/// Why an AF_XDP port could not be opened or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AfXdpError {
    /// What any port of an interface is refused for.
    Open(OpenError),
    /// The interface has no such receive queue.
    NoSuchQueue { interface: String, queue: u32 },
    /// Another socket receives from the queue.
    QueueInUse { interface: String, queue: u32 },
    /// Another XDP program is attached.
    AnotherProgram { interface: String },
    /// The driver cannot run the program, and generic mode was not allowed.
    NativeUnsupported {
        interface: String,
        source: io::Error,
    },
    /// The pool is too small for a port.
    PoolTooSmall {
        interface: String,
        frames: usize,
        least: usize,
    },
    /// The ring size is not a power of two that the kernel takes.
    RingSize { interface: String, size: u32 },
    /// More locked memory than the process may have.
    LockedMemory { interface: String, octets: usize },
    /// The process lacks a capability.
    Capability { interface: String, step: Step },
    /// The kernel has no AF_XDP, or none that is recent enough.
    Kernel { interface: String, step: Step },
    /// Anything else that the system refused.
    System {
        interface: String,
        step: Step,
        source: io::Error,
    },
}

impl AfXdpError {
    /// What an error number means in general; steps look first for what it means to them.
    pub(super) fn system(interface: &str, step: Step, source: io::Error) -> AfXdpError {
        let interface = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM) => AfXdpError::Capability { interface, step },
            Some(libc::ENODEV | libc::ENXIO) => OpenError::NoSuchInterface { interface }.into(),
            Some(libc::EAFNOSUPPORT | libc::ENOSYS) => AfXdpError::Kernel { interface, step },
            _ => AfXdpError::System {
                interface,
                step,
                source,
            },
        }
    }
}

impl From<OpenError> for AfXdpError {
    fn from(error: OpenError) -> AfXdpError {
        AfXdpError::Open(error)
    }
}

impl fmt::Display for AfXdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AfXdpError::Open(error) => error.fmt(f),
            AfXdpError::NoSuchQueue { interface, queue } => write!(
                f,
                "interface {interface} has no receive queue {queue}: see `ethtool -l {interface}`"
            ),
            AfXdpError::QueueInUse { interface, queue } => write!(
                f,
                "another AF_XDP socket has queue {queue} of {interface}: stop the process that \
                 holds it, or choose another queue"
            ),
            AfXdpError::AnotherProgram { interface } => write!(
                f,
                "another XDP program is attached to {interface}: stop what attached it, or \
                 `ip link set {interface} xdp off`"
            ),
            AfXdpError::NativeUnsupported { interface, source } => write!(
                f,
                "the driver of {interface} cannot run the XDP program ({source}): use mode auto \
                 or skb; a veth needs as many receive queues as its peer has transmit queues"
            ),
            AfXdpError::PoolTooSmall {
                interface,
                frames,
                least,
            } => write!(
                f,
                "a pool of {frames} packet buffers is too small for a port on {interface}: give \
                 it {least} or more, free when the port is opened"
            ),
            AfXdpError::RingSize { interface, size } => write!(
                f,
                "ring size {size} on {interface} is not a power of two from 64 to 32768"
            ),
            AfXdpError::LockedMemory { interface, octets } => write!(
                f,
                "the port on {interface} must lock {octets} octets of memory: grant CAP_IPC_LOCK \
                 or raise `ulimit -l`"
            ),
            AfXdpError::Capability { interface, step } => write!(
                f,
                "not permitted to {} on {interface}: grant {} or run as root",
                step.text(),
                step.capability()
            ),
            AfXdpError::Kernel { interface, step } => write!(
                f,
                "this kernel cannot {} on {interface}: AF_XDP needs CONFIG_XDP_SOCKETS, \
                 CONFIG_BPF_SYSCALL and Linux 5.9 or later",
                step.text()
            ),
            AfXdpError::System {
                interface,
                step,
                source,
            } => write!(f, "cannot {} on {interface}: {source}", step.text()),
        }
    }
}

impl std::error::Error for AfXdpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AfXdpError::NativeUnsupported { source, .. } | AfXdpError::System { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}
