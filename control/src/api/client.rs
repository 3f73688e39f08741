//! The asking side: one connection, one request, one reply.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Reply, Request};

/// A daemon that does not answer for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A hundred thousand SAs fit.
const LONGEST_REPLY: u64 = 1 << 28;

/// Why there is no reply.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens.
    NoDaemon { socket: PathBuf, source: io::Error },
    /// Somebody listens, and we may not speak.
    Forbidden { socket: PathBuf },
    /// It stopped in the middle.
    Broken { socket: PathBuf, source: io::Error },
    /// What it said is no reply.
    Nonsense { socket: PathBuf, why: String },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoDaemon { socket, source } => write!(
                f,
                "no hitless daemon answers on {} ({source}); start one with `hitless run`, or name its socket with --socket or HITLESS_SOCKET",
                socket.display()
            ),
            ClientError::Forbidden { socket } => write!(
                f,
                "not allowed to use {}; run as the daemon's user, as a member of its group, or as root",
                socket.display()
            ),
            ClientError::Broken { socket, source } => write!(
                f,
                "the daemon on {} did not answer: {source}; look at its log",
                socket.display()
            ),
            ClientError::Nonsense { socket, why } => write!(
                f,
                "what answers on {} is not this version of hitless: {why}",
                socket.display()
            ),
        }
    }
}

impl std::error::Error for ClientError {}

/// Asks the daemon on `socket`.
pub fn call(socket: &Path, request: &Request) -> Result<Reply, ClientError> {
    call_and_wait(socket, request, Duration::ZERO)
}

/// Asks for something that takes so long before it is answered.
pub fn call_and_wait(
    socket: &Path,
    request: &Request,
    work: Duration,
) -> Result<Reply, ClientError> {
    let socket = socket.to_owned();
    let stream = UnixStream::connect(&socket).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden {
            socket: socket.clone(),
        },
        _ => ClientError::NoDaemon {
            socket: socket.clone(),
            source,
        },
    })?;
    let line =
        exchange(stream, request, PATIENCE + work).map_err(|source| ClientError::Broken {
            socket: socket.clone(),
            source,
        })?;
    serde_json::from_slice(&line).map_err(|e| ClientError::Nonsense {
        socket,
        why: e.to_string(),
    })
}

fn exchange(mut stream: UnixStream, request: &Request, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = Vec::new();
    BufReader::new(stream.take(LONGEST_REPLY)).read_until(b'\n', &mut reply)?;
    if reply.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(reply)
}
