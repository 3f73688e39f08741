//! The files that Wireshark reads keys from: ours alone, appended to by a thread of its own (`aside.rs`),
//! never through a link.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::DaemonError;
use super::appended::End;
use crate::aside::{Aside, Sink};
use crate::keylog::{KeyLines, KeyTable};

/// Lines that wait to be written at most.
const ROOM: usize = 16_384;

/// The files that Wireshark reads from a profile, side by side. Those for IKE_INTERMEDIATE are made
/// when there is something to write: few need them.
pub struct KeyFiles {
    esp: KeyFile,
    ike: KeyFile,
    /// By the exchange's Message ID; `None` if it could not be made.
    intermediate: BTreeMap<u8, Option<KeyFile>>,
}

/// Wireshark passes over it.
fn lost_line(count: u64) -> String {
    format!("# {count} were lost here\n")
}

impl KeyFiles {
    /// Opens the file of ESP keys at `path`, and that of IKE keys beside it.
    pub fn open(path: &Path) -> Result<Aside<KeyLines>, DaemonError> {
        let open = |path: PathBuf| {
            KeyFile::open(&path).map_err(|error| DaemonError::KeyLog { path, error })
        };
        let files = KeyFiles {
            esp: open(path.to_owned())?,
            ike: open(path.with_file_name(KeyTable::Ike.file()))?,
            intermediate: BTreeMap::new(),
        };
        Ok(Aside::start("keys", ROOM, files))
    }
}

impl Sink<KeyLines> for KeyFiles {
    /// Appends to the file that the lines are for.
    fn take(&mut self, lines: KeyLines) {
        match lines.table() {
            KeyTable::Esp => self.esp.write(lines.expose()),
            KeyTable::Ike => self.ike.write(lines.expose()),
            KeyTable::Intermediate(exchange) => {
                let path = self.esp.path.with_file_name(lines.table().file());
                let file = self.intermediate.entry(exchange);
                if let Some(file) = file.or_insert_with(|| made(&path)) {
                    file.write(lines.expose());
                }
            }
        }
    }

    /// Whichever they were for.
    fn lost(&mut self, count: u64) {
        for file in [&mut self.esp, &mut self.ike] {
            file.end.lose(count);
            file.write("");
        }
    }
}

/// The file, or none, which is told of once.
fn made(path: &Path) -> Option<KeyFile> {
    let opened = KeyFile::open(path);
    let refused = opened.as_ref().err();
    if let Some(error) = refused {
        tracing::error!("cannot write keys to {}: {error}", path.display());
    }
    opened.ok()
}

/// The open file.
struct KeyFile {
    path: PathBuf,
    file: File,
    end: End,
}

impl KeyFile {
    /// Opens the file, or makes it with mode 0600.
    ///
    /// # Errors
    /// If it cannot be opened, is no regular file, has another name somewhere, or if anybody but
    /// its owner may read or write it.
    fn open(path: &Path) -> io::Result<KeyFile> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let metadata = file.metadata()?;
        let wrong = if !metadata.is_file() {
            "it is no regular file"
        } else if metadata.nlink() != 1 {
            "it has another name (a hard link)"
        } else if metadata.mode() & 0o077 != 0 {
            "others than its owner may read it: chmod 600"
        } else {
            return Ok(KeyFile {
                path: path.to_owned(),
                end: End::of(&mut file)?,
                file,
            });
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, wrong))
    }

    /// What cannot be written is told of once: keys for a reader are no reason to stop.
    fn write(&mut self, lines: &str) {
        let written = self.end.append(&mut self.file, lines, lost_line);
        if let Err(Some(error)) = written {
            tracing::error!("cannot write keys to {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn the_file_is_the_owner_s_alone_and_no_link_is_followed() {
        let directory = std::env::temp_dir().join(format!("hitless-keys-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let path = directory.join("esp_sa");
        drop(KeyFile::open(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(KeyFile::open(&path).is_ok(), "appended to after a restart");
        let link = directory.join("link");
        symlink(&path, &link).unwrap();
        assert!(KeyFile::open(&link).is_err(), "a symbolic link");
        let hard = directory.join("hard");
        fs::hard_link(&path, &hard).unwrap();
        assert!(KeyFile::open(&path).is_err(), "a hard link");
        fs::remove_file(&hard).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyFile::open(&path).err().map(|error| error.to_string());
        assert!(error.is_some_and(|e| e.contains("chmod 600")));
        assert!(KeyFile::open(&directory).is_err(), "a directory");
        fs::remove_dir_all(&directory).unwrap();
    }
}
