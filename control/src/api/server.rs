//! The answering side: polled, never blocking, bounded in everything that a client decides.
//!
//! A client has one request under way at a time: the next line is read once the last reply has
//! left, so a client that asks and does not read costs one reply and no more.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::{LONGEST_LINE, Reply, Request};
use crate::file_error::{self, FileError};

/// Clients at a time. One more takes the place of the one that has been idle longest.
pub const MOST_CLIENTS: usize = 16;

/// Names a client; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u64);

/// Why the socket could not be opened.
#[derive(Debug)]
pub enum ServerError {
    /// Another daemon answers there.
    Taken {
        socket: PathBuf,
    },
    /// Something that is no socket has the name.
    NotASocket {
        socket: PathBuf,
    },
    File(FileError),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Taken { socket } => write!(
                f,
                "another hitless daemon answers on {}; stop it, or give this one another control.socket",
                socket.display()
            ),
            ServerError::NotASocket { socket } => write!(
                f,
                "{} exists and is no socket; move it away, or choose another control.socket",
                socket.display()
            ),
            ServerError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<FileError> for ServerError {
    fn from(error: FileError) -> ServerError {
        ServerError::File(error)
    }
}

/// The listening socket and its clients.
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    clients: BTreeMap<ClientId, Client>,
    next: u64,
    /// Counts polls; tells which client was idle longest.
    turn: u64,
    /// Held as long as the daemon lives.
    _lock: File,
}

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// A request was given out and its reply is not here yet.
    asked: bool,
    /// It will send no more.
    ended: bool,
    last_active: u64,
}

impl Server {
    /// Listens on `socket`, for this user and group only. A socket that a dead daemon left behind
    /// is replaced; that of a living one is not.
    pub fn bind(socket: &Path) -> Result<Server, ServerError> {
        if let Some(directory) = socket.parent()
            && !directory.is_dir()
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(directory)
                .map_err(FileError::at(directory, "create"))?;
        }
        let lock = file_error::lock(&suffixed(socket, ".lock"))?;
        let lock = lock.ok_or_else(|| ServerError::Taken {
            socket: socket.to_owned(),
        })?;
        match std::fs::symlink_metadata(socket) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket {
                    socket: socket.to_owned(),
                });
            }
            // Whoever listens without our lock is alive all the same.
            Ok(_) if UnixStream::connect(socket).is_ok() => {
                return Err(ServerError::Taken {
                    socket: socket.to_owned(),
                });
            }
            Ok(_) | Err(_) => {}
        }
        // Bound under another name and renamed once its mode is right: nobody ever finds it open
        // to all, and the stale one is replaced in one step.
        let new = suffixed(socket, ".new");
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(FileError::at(socket, "listen on"))?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o660))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| std::fs::rename(&new, socket))
            .map_err(FileError::at(socket, "set up"))?;
        Ok(Server {
            listener,
            socket: socket.to_owned(),
            clients: BTreeMap::new(),
            next: 0,
            turn: 0,
            _lock: lock,
        })
    }

    /// Accepts, reads and writes what can be without waiting, and gives the requests that came.
    /// What cannot be understood is answered here.
    pub fn poll(&mut self) -> Vec<(ClientId, Request)> {
        self.turn += 1;
        self.accept();
        let mut requests = Vec::new();
        let turn = self.turn;
        self.clients.retain(|id, client| {
            let alive = client.poll(turn, |request| requests.push((*id, request)));
            alive.is_ok()
        });
        requests
    }

    /// Answers a request. A client that has gone meanwhile does not mind.
    pub fn reply(&mut self, id: ClientId, reply: &Reply) {
        self.reply_amid(id, reply, &mut || {});
    }

    /// The same of a reply that may be very long: `each` runs before each piece of it is written.
    pub fn reply_amid(&mut self, id: ClientId, reply: &Reply, each: &mut dyn FnMut()) {
        if let Some(client) = self.clients.get_mut(&id)
            && client.asked
        {
            client.answer(reply, each);
            if client.flush().is_err() {
                self.clients.remove(&id);
            }
        }
    }

    /// Octets that a client has not taken yet; nothing if it has gone.
    pub fn unread(&self, id: ClientId) -> Option<usize> {
        let client = self.clients.get(&id)?;
        Some(client.output.len() - client.written)
    }

    /// Gives a client a part of the text of a reply; the last one ends it.
    pub fn reply_part(&mut self, id: ClientId, text: &[u8], last: bool) {
        if let Some(client) = self.clients.get_mut(&id)
            && client.asked
        {
            client.output.extend_from_slice(text);
            if last {
                client.output.push(b'\n');
                client.asked = false;
            }
            if client.flush().is_err() {
                self.clients.remove(&id);
            }
        }
    }

    /// Descriptors to poll(2) before the next [`Server::poll`], with what each waits for: writing
    /// (`true`) or reading.
    pub fn descriptors(&self) -> impl Iterator<Item = (RawFd, bool)> {
        let clients = self.clients.values().filter_map(|client| {
            if client.written < client.output.len() {
                Some((client.stream.as_raw_fd(), true))
            } else {
                // While it waits for a reply, nothing it sends is read.
                (!client.asked).then_some((client.stream.as_raw_fd(), false))
            }
        });
        std::iter::once((self.listener.as_raw_fd(), false)).chain(clients)
    }

    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    fn accept(&mut self) {
        // Bounded, so that a flood of connections cannot hold the control thread.
        for _ in 0..MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client::new(stream, self.turn);
            if self.clients.len() >= MOST_CLIENTS && !self.evict() {
                client.refuse("too many clients; try again");
                let _ = client.flush();
                continue;
            }
            self.clients.insert(ClientId(self.next), client);
            self.next += 1;
        }
    }

    /// Parts with the client that has been idle longest, if any is idle.
    fn evict(&mut self) -> bool {
        let idle = self
            .clients
            .iter()
            .filter(|(_, client)| !client.asked && client.written == client.output.len())
            .min_by_key(|(id, client)| (client.last_active, **id))
            .map(|(id, _)| *id);
        idle.is_some_and(|id| self.clients.remove(&id).is_some())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ours: the lock says so.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Client {
    fn new(stream: UnixStream, turn: u64) -> Client {
        Client {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            asked: false,
            ended: false,
            last_active: turn,
        }
    }

    /// Moves what can be moved. An error is the end of this client.
    fn poll(&mut self, turn: u64, mut request: impl FnMut(Request)) -> io::Result<()> {
        self.flush()?;
        if self.asked || self.written < self.output.len() {
            return Ok(());
        }
        self.read()?;
        if let Some(end) = self.input.iter().position(|octet| *octet == b'\n') {
            self.last_active = turn;
            let line: Vec<u8> = self.input.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(understood) => {
                    self.asked = true;
                    request(understood);
                }
                Err(e) => {
                    self.refuse(&format!(
                        "not understood ({e}); write one JSON object a line, such as {{\"request\":\"status\"}}"
                    ));
                    self.flush()?;
                }
            }
        } else if self.input.len() >= LONGEST_LINE {
            self.refuse(&format!("a request has at most {LONGEST_LINE} octets"));
            let _ = self.flush();
            return Err(io::ErrorKind::InvalidData.into());
        } else if self.ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads until there is a line, nothing more, or too much.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while !self.ended && self.input.len() < LONGEST_LINE && !self.input.contains(&b'\n') {
            let room = buffer.len().min(LONGEST_LINE - self.input.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &str) {
        let refused = Reply::Refused {
            reason: reason.to_owned(),
        };
        self.answer(&refused, &mut || {});
    }

    fn answer(&mut self, reply: &Reply, each: &mut dyn FnMut()) {
        self.asked = false;
        let mut pieces = Pieces {
            output: Vec::new(),
            told: 0,
            each,
        };
        // Our own types always have a JSON form; if one ever has not, the client hears of it.
        self.output = match serde_json::to_writer(&mut pieces, reply) {
            Ok(()) => pieces.output,
            Err(_) => br#"{"reply":"refused","reason":"no JSON form"}"#.to_vec(),
        };
        self.output.push(b'\n');
        self.written = 0;
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.written..).filter(|r| !r.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output = Vec::new();
        self.written = 0;
        Ok(())
    }
}

/// A long reply is written a piece at a time.
const PIECE: usize = 16 * 1024;

struct Pieces<'a> {
    output: Vec<u8>,
    /// So long was the output when the piece began.
    told: usize,
    each: &'a mut dyn FnMut(),
}

impl Write for Pieces<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.output.len() >= self.told + PIECE {
            self.told = self.output.len();
            (self.each)();
        }
        self.output.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
