//! The epoch file: what a member must still know after a crash (`lease-holes` R1).
//!
//! ```text
//!  STATE_DIR/lock    locked as long as the process lives: one identity, one process
//!  STATE_DIR/epoch   replaced as a whole: write epoch.new, fsync, rename, fsync the directory
//! ```
//!
//! A takeover waits for this write and for nothing else on disk: a member that led, forgot it and
//! joins would free its predecessor to use the same numbers (R13). So it must not need room on the
//! disk, which may be full: the old file becomes the next `epoch.new` and is written in place.
//!
//! The file is text with a checksum, bound to the cluster's name and the member's number. A
//! damaged file is refused and never repaired: forgetting an epoch could repeat a sequence number.
//! A lost or rolled-back file is a new identity: remove the old member number from the cluster and
//! take one that was never used.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use hitless_sa::{Epoch, Incarnation, MemberId};
use hitless_sync::Durable;

use crate::file_error::{self, FileError};

const HEADER: &str = "hitless epoch file 1";
/// A file of ours has a few hundred octets.
const LARGEST_FILE: u64 = 4096;
/// Incarnations select a part of the SK payloads' IV space and have 24 bits there (R17).
const LAST_INCARNATION: u32 = (1 << 24) - 1;

/// Whose file it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: String,
    pub member: MemberId,
}

/// Why durable state cannot be used. Each is a reason not to start, or not to go on.
#[derive(Debug)]
pub enum DurableError {
    /// Another process has this identity.
    Locked { path: PathBuf },
    /// The file is not what was written.
    Damaged { path: PathBuf, why: &'static str },
    /// The file is another member's.
    Foreign { path: PathBuf, owner: String },
    /// This identity has been started too often.
    Exhausted { path: PathBuf },
    /// What is to be written contradicts what was written before.
    Lowered { path: PathBuf },
    /// The system refused.
    File(FileError),
}

impl fmt::Display for DurableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurableError::Locked { path } => write!(
                f,
                "{} is locked: another hitless runs with this identity; stop it, or give each process its own cluster.state_dir",
                path.display()
            ),
            DurableError::Damaged { path, why } => write!(
                f,
                "{} is damaged ({why}); restore nothing: remove this member from the cluster, delete the file, and join with a member number that was never used",
                path.display()
            ),
            DurableError::Foreign { path, owner } => write!(
                f,
                "{} belongs to {owner}; check cluster.id, cluster.name and cluster.state_dir",
                path.display()
            ),
            DurableError::Exhausted { path } => write!(
                f,
                "{}: this member has started {LAST_INCARNATION} times; give it a member number that was never used",
                path.display()
            ),
            DurableError::Lowered { path } => write!(
                f,
                "{}: refused to forget an epoch or an incarnation",
                path.display()
            ),
            DurableError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DurableError {}

impl From<FileError> for DurableError {
    fn from(error: FileError) -> DurableError {
        DurableError::File(error)
    }
}

/// The durable state of one member, locked for this process.
#[derive(Debug)]
pub struct DurableFile {
    directory: PathBuf,
    identity: Identity,
    state: Durable,
    /// Holds the lock until it is dropped.
    _lock: File,
}

impl DurableFile {
    /// Locks the state of `identity` in `directory`, and starts its next incarnation: that is on
    /// disk when this returns, so messages may leave.
    pub fn open(directory: &Path, identity: Identity) -> Result<DurableFile, DurableError> {
        create_directory(directory)?;
        let path = directory.join("lock");
        let lock = file_error::lock(&path)?.ok_or(DurableError::Locked { path })?;
        let path = directory.join("epoch");
        let mut state = read(&path, &identity)?.unwrap_or_default();
        if state.incarnation.0 >= LAST_INCARNATION {
            return Err(DurableError::Exhausted { path });
        }
        state.incarnation = Incarnation(state.incarnation.0 + 1);
        let file = DurableFile {
            directory: directory.to_owned(),
            identity,
            state,
            _lock: lock,
        };
        file.replace(&state)?;
        Ok(file)
    }

    /// What is on disk.
    pub fn state(&self) -> Durable {
        self.state
    }

    /// Writes `state`; it is on disk when this returns `Ok`. After an error nobody knows, and the
    /// step that needed it must not be taken.
    pub fn store(&mut self, state: Durable) -> Result<(), DurableError> {
        // A vote may be forsworn (R10), so `promised` may fall; the others never.
        if state.incarnation != self.state.incarnation || state.led < self.state.led {
            return Err(DurableError::Lowered {
                path: self.directory.join("epoch"),
            });
        }
        self.replace(&state)?;
        self.state = state;
        Ok(())
    }

    fn replace(&self, state: &Durable) -> Result<(), DurableError> {
        let temporary = self.directory.join("epoch.new");
        let path = self.directory.join("epoch");
        let text = encode(&self.identity, state);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&temporary)
            .map_err(FileError::at(&temporary, "open"))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.set_len(text.len() as u64))
            .and_then(|()| file.sync_all())
            .map_err(FileError::at(&temporary, "write"))?;
        // Kept by a second name over the rename. A file system without hard links, or a crash in
        // between, costs no more than the room of the next write.
        let old = self.directory.join("epoch.old");
        let _ = std::fs::remove_file(&old);
        let kept = std::fs::hard_link(&path, &old).is_ok();
        std::fs::rename(&temporary, &path).map_err(FileError::at(&path, "replace"))?;
        if kept {
            let _ = std::fs::rename(&old, &temporary);
        }
        Ok(sync_directory(&self.directory)?)
    }
}

fn create_directory(directory: &Path) -> Result<(), DurableError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(FileError::at(directory, "create"))?;
    match directory.parent() {
        Some(parent) if parent != Path::new("") => Ok(sync_directory(parent)?),
        _ => Ok(()),
    }
}

fn sync_directory(directory: &Path) -> Result<(), FileError> {
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(FileError::at(directory, "write"))
}

fn read(path: &Path, identity: &Identity) -> Result<Option<Durable>, DurableError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(FileError::at(path, "open")(e).into()),
    };
    let mut octets = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut octets)
        .map_err(FileError::at(path, "read"))?;
    let (owner, state) = decode(&octets).map_err(|why| DurableError::Damaged {
        path: path.to_owned(),
        why,
    })?;
    if owner != *identity {
        return Err(DurableError::Foreign {
            path: path.to_owned(),
            owner: format!(
                "member {} of cluster {}",
                owner.member,
                owner.cluster.escape_debug()
            ),
        });
    }
    Ok(Some(state))
}

fn encode(identity: &Identity, state: &Durable) -> String {
    let epoch = |epoch: Option<Epoch>| epoch.map_or_else(|| "-".to_owned(), |e| e.to_string());
    let body = format!(
        "{HEADER}\ncluster {}\nmember {}\nincarnation {}\npromised {}\nled {}\n",
        identity.cluster.escape_default(),
        identity.member,
        state.incarnation,
        epoch(state.promised),
        epoch(state.led),
    );
    let sum = checksum(body.as_bytes());
    format!("{body}checksum {sum}\n")
}

fn checksum(octets: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, octets);
    hash.as_ref().iter().map(|o| format!("{o:02x}")).collect()
}

fn decode(octets: &[u8]) -> Result<(Identity, Durable), &'static str> {
    let text = std::str::from_utf8(octets).map_err(|_| "not text")?;
    let (body, sum) = text.rsplit_once("checksum ").ok_or("no checksum")?;
    if sum.strip_suffix('\n') != Some(checksum(body.as_bytes()).as_str()) {
        return Err("the checksum does not match");
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEADER) {
        return Err("of another version");
    }
    let mut field = |name: &str| {
        lines
            .next()
            .and_then(|line| line.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or("a line is missing")
    };
    let cluster = unescape(field("cluster")?).ok_or("the cluster's name is unreadable")?;
    let member = field("member")?.parse().map_err(|_| "no member number")?;
    let incarnation = field("incarnation")?
        .parse()
        .map_err(|_| "no incarnation")?;
    let promised = epoch(field("promised")?)?;
    let led = epoch(field("led")?)?;
    let identity = Identity {
        cluster,
        member: MemberId(member),
    };
    let state = Durable {
        incarnation: Incarnation(incarnation),
        promised,
        led,
    };
    Ok((identity, state))
}

/// `counter.leader.incarnation`, or `-`.
fn epoch(text: &str) -> Result<Option<Epoch>, &'static str> {
    const WHY: &str = "an epoch is unreadable";
    if text == "-" {
        return Ok(None);
    }
    let mut parts = text.splitn(3, '.');
    let mut part = || parts.next().ok_or(WHY);
    Ok(Some(Epoch {
        counter: part()?.parse().map_err(|_| WHY)?,
        leader: MemberId(part()?.parse().map_err(|_| WHY)?),
        incarnation: Incarnation(part()?.parse().map_err(|_| WHY)?),
    }))
}

/// Reverses `str::escape_default`.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        out.push(match rest.next()? {
            't' => '\t',
            'r' => '\r',
            'n' => '\n',
            'u' => {
                let code: String = rest.by_ref().take_while(|c| *c != '}').collect();
                char::from_u32(u32::from_str_radix(code.strip_prefix('{')?, 16).ok()?)?
            }
            quoted => quoted,
        });
    }
    Some(out)
}
