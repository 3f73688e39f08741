//! The file of `control.grant_log`: a line for each grant, bounded by a second file that takes the
//! older half. A thread of its own writes it (`aside.rs`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::DaemonError;
use super::appended::End;
use crate::aside::{Aside, Sink};
use crate::audit::Permits;
use crate::gateway::Granted;

/// A file that has reached this is renamed to `NAME.1`, which it replaces.
const LARGEST: u64 = 16 << 20;
/// Grants that wait to be written at most.
const ROOM: usize = 65_536;

/// The open ledger.
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    length: u64,
    end: End,
}

impl LedgerFile {
    /// Opens the file of the configuration, if it names one, to append to it.
    pub fn configured(path: Option<&Path>) -> Result<Option<Aside<Granted>>, DaemonError> {
        let open = |path: &Path| {
            let opened = LedgerFile::open(path).map_err(|error| DaemonError::GrantLog {
                path: path.to_owned(),
                error,
            });
            opened.map(|ledger| Aside::start("grants", ROOM, ledger))
        };
        path.map(open).transpose()
    }

    fn open(path: &Path) -> io::Result<LedgerFile> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(LedgerFile {
            path: path.to_owned(),
            length: metadata.len(),
            end: End::of(&mut file)?,
            file,
        })
    }

    fn write_within(&mut self, line: &str, largest: u64) {
        let written = match self.rotate(line.len(), largest) {
            Ok(()) => self.end.append(&mut self.file, line, Permits::lost_line),
            Err(error) => Err(self.end.fail(line, error)),
        };
        match written {
            Ok(octets) => self.length += octets,
            Err(error) => {
                self.length = self.file.metadata().map_or(self.length, |m| m.len());
                if let Some(error) = error {
                    let path = self.path.display();
                    tracing::error!("cannot write grants to {path}: {error}");
                }
            }
        }
    }

    fn rotate(&mut self, more: usize, largest: u64) -> io::Result<()> {
        if self.length + more as u64 <= largest {
            return Ok(());
        }
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        match std::fs::rename(&self.path, older) {
            // It was renamed before, and no new one could be made.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let end = std::mem::take(&mut self.end);
        match LedgerFile::open(&self.path) {
            Ok(opened) => *self = LedgerFile { end, ..opened },
            Err(error) => {
                self.end = end;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// What cannot be written is told of once, and in the file itself when it can be written again: an
/// audit's figures are no reason to stop.
impl Sink<Granted> for LedgerFile {
    fn take(&mut self, granted: Granted) {
        self.write_within(&format!("{granted}\n"), LARGEST);
    }

    fn lost(&mut self, count: u64) {
        self.end.lose(count);
        self.write_within("", LARGEST);
    }

    fn flush(&mut self) {
        if !self.end.is_whole() {
            self.write_within("", LARGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hitless_sa::{SequenceNumber, Spi};

    fn granted(first: u64, last: u64) -> Granted {
        Granted {
            spi: Spi(0xc001_cafe),
            first: SequenceNumber(first),
            last: SequenceNumber(last),
            left_out_from: None,
        }
    }

    #[test]
    fn the_audit_reads_what_is_written_and_two_files_are_the_bound() {
        let directory = std::env::temp_dir().join(format!("hitless-grants-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("grants");
        let mut ledger = LedgerFile::open(&path).unwrap();
        for number in 0..20 {
            let granted = granted(number * 10 + 1, number * 10 + 10);
            ledger.write_within(&format!("{granted}\n"), 100);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let permits = Permits::parse(&text).unwrap();
        assert_eq!(permits.last(0xc001_cafe), Some(200));
        assert_eq!(permits.greatest_gap(0xc001_cafe), Some(11));
        let older = std::fs::read_to_string(directory.join("grants.1")).unwrap();
        assert!(text.len() <= 100 && older.len() <= 100, "{text}{older}");
        assert!(Permits::parse(&older).is_ok());
        let mut names = std::fs::read_dir(&directory).unwrap();
        assert!(names.by_ref().count() == 2);
        // Appended to after a restart.
        drop(ledger);
        let ledger = LedgerFile::configured(Some(&path)).unwrap().unwrap();
        ledger.put(granted(201, 300));
        ledger.flush();
        let appended = std::fs::read_to_string(&path).unwrap();
        assert!(appended.starts_with(&text) && appended.ends_with("c001cafe 201 300\n"));
        assert!(LedgerFile::open(&directory).is_err(), "a directory");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// A file that a full disk left with half a line, and a queue that had no room.
    #[test]
    fn the_audit_reads_a_ledger_with_half_a_line_and_knows_that_it_lacks_grants() {
        let name = format!("hitless-torn-grants-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "c001cafe 1 100\nc001cafe 101").unwrap();
        let mut ledger = LedgerFile::open(&path).unwrap();
        ledger.take(granted(201, 300));
        ledger.lost(4);
        ledger.take(granted(701, 800));
        let text = std::fs::read_to_string(&path).unwrap();
        let permits = Permits::parse(&text).expect("readable");
        assert_eq!((permits.last(0xc001_cafe), permits.lost()), (Some(800), 5));
        std::fs::remove_file(&path).unwrap();
    }
}
