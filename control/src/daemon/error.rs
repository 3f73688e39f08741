//! Why a daemon does not start: what, where, and what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use hitless_dataplane::aead::{Engine, EngineError};
use hitless_dataplane::port::OpenError;
use hitless_dataplane::port::af_xdp::AfXdpError;

use crate::api::ServerError;
use crate::durable::DurableError;

/// What a member that is not root must be given, all at once: nobody wants to hear of them one by
/// one.
const CAPABILITIES: &str = "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK";

/// A reason not to start.
#[derive(Debug)]
pub enum DaemonError {
    /// The control socket, most often because a daemon runs already.
    Control(ServerError),
    /// The epoch file.
    Durable(DurableError),
    SyncSocket {
        address: SocketAddr,
        error: io::Error,
    },
    Port {
        name: String,
        error: PortError,
    },
    /// The file of control.grant_log.
    GrantLog {
        path: PathBuf,
        error: io::Error,
    },
    /// The file of control.key_log.
    KeyLog {
        path: PathBuf,
        error: io::Error,
    },
    Memory(io::Error),
    Thread(io::Error),
    Signals(io::Error),
    /// The engine for ESP.
    Aead(EngineError),
}

/// Why a port cannot be opened.
#[derive(Debug)]
pub enum PortError {
    AfXdp(AfXdpError),
    Other(OpenError),
    /// The driver `memory` in a daemon.
    Memory,
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortError::AfXdp(error) => error.fmt(f),
            PortError::Other(error) => error.fmt(f),
            PortError::Memory => write!(
                f,
                "the driver `memory` connects gateways of one process; take `af_xdp`, \
                 `af_packet` or `tap` here"
            ),
        }
    }
}

impl From<AfXdpError> for PortError {
    fn from(error: AfXdpError) -> PortError {
        PortError::AfXdp(error)
    }
}

impl From<OpenError> for PortError {
    fn from(error: OpenError) -> PortError {
        PortError::Other(error)
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Control(error) => {
                let denied = match error {
                    ServerError::File(error) => error.is_denied(),
                    ServerError::Taken { .. } | ServerError::NotASocket { .. } => false,
                };
                let fix = "; run as root, or choose another control.socket";
                write!(f, "{error}{}", if denied { fix } else { "" })
            }
            DaemonError::Durable(error) => {
                let denied = matches!(error, DurableError::File(error) if error.is_denied());
                let fix = "; run as root, or choose another cluster.state_dir";
                write!(f, "{error}{}", if denied { fix } else { "" })
            }
            DaemonError::SyncSocket { address, error } => {
                let fix = match error.kind() {
                    io::ErrorKind::AddrInUse => "another daemon has it; stop that one first",
                    io::ErrorKind::AddrNotAvailable => {
                        "the host has no such address; give it to an interface, or change \
                         cluster.sync_listen"
                    }
                    _ => "check cluster.sync_listen and cluster.members",
                };
                write!(f, "sync socket {address}: {error}; {fix}")
            }
            DaemonError::Port { name, error } => {
                write!(f, "ports.{name}: {error}")?;
                match error {
                    PortError::AfXdp(
                        AfXdpError::Capability { .. } | AfXdpError::LockedMemory { .. },
                    ) => write!(f, "; in all, a member needs {CAPABILITIES}"),
                    _ => Ok(()),
                }
            }
            DaemonError::GrantLog { path, error } => write!(
                f,
                "control.grant_log {}: {error}; name a file in a directory that exists, or remove \
                 the key",
                path.display()
            ),
            DaemonError::KeyLog { path, error } => write!(
                f,
                "control.key_log {}: {error}; name a file in a directory that only its owner can \
                 write to, or remove the key",
                path.display()
            ),
            DaemonError::Memory(error) => {
                write!(
                    f,
                    "packet buffers: {error}; the machine may have too little memory"
                )
            }
            DaemonError::Thread(error) => write!(f, "cannot start a thread: {error}"),
            DaemonError::Signals(error) => write!(f, "cannot listen for signals: {error}"),
            DaemonError::Aead(error) => {
                write!(f, "dataplane.aead or {}: {error}", Engine::VARIABLE)
            }
        }
    }
}

impl std::error::Error for DaemonError {}

impl From<ServerError> for DaemonError {
    fn from(error: ServerError) -> DaemonError {
        DaemonError::Control(error)
    }
}

impl From<DurableError> for DaemonError {
    fn from(error: DurableError) -> DaemonError {
        DaemonError::Durable(error)
    }
}
