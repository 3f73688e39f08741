//! The file of `control.grant_log`: a line for each grant, bounded by a second file that takes the
//! older half.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::DaemonError;
use crate::gateway::Granted;

/// A file that has reached this is renamed to `NAME.1`, which it replaces.
const LARGEST: u64 = 16 << 20;

/// The open ledger.
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    length: u64,
    failed: bool,
}

impl LedgerFile {
    /// Opens the file of the configuration, if it names one, to append to it.
    pub fn configured(path: Option<&Path>) -> Result<Option<LedgerFile>, DaemonError> {
        let open = |path: &Path| {
            LedgerFile::open(path).map_err(|error| DaemonError::GrantLog {
                path: path.to_owned(),
                error,
            })
        };
        path.map(open).transpose()
    }

    fn open(path: &Path) -> io::Result<LedgerFile> {
        let file = OpenOptions::new()
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
            file,
            failed: false,
        })
    }

    /// Appends a line. What cannot be written is told of once: an audit's figures are no reason to
    /// stop.
    pub fn write(&mut self, granted: &Granted) {
        self.write_within(granted, LARGEST);
    }

    fn write_within(&mut self, granted: &Granted, largest: u64) {
        let line = format!("{granted}\n");
        let written = self
            .rotate(line.len(), largest)
            .and_then(|()| self.file.write_all(line.as_bytes()));
        match written {
            Ok(()) => self.length += line.len() as u64,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::error!("cannot write grants to {}: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self, more: usize, largest: u64) -> io::Result<()> {
        if self.length + more as u64 <= largest {
            return Ok(());
        }
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        *self = LedgerFile {
            failed: self.failed,
            ..LedgerFile::open(&self.path)?
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Permits;
    use hitless_sa::{SequenceNumber, Spi};

    fn granted(first: u64, last: u64) -> Granted {
        Granted {
            spi: Spi(0xc001_cafe),
            first: SequenceNumber(first),
            last: SequenceNumber(last),
        }
    }

    #[test]
    fn the_audit_reads_what_is_written_and_two_files_are_the_bound() {
        let directory = std::env::temp_dir().join(format!("hitless-grants-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("grants");
        let mut ledger = LedgerFile::configured(Some(&path)).unwrap().unwrap();
        for number in 0..20 {
            ledger.write_within(&granted(number * 10 + 1, number * 10 + 10), 100);
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
        let mut ledger = LedgerFile::configured(Some(&path)).unwrap().unwrap();
        ledger.write(&granted(201, 300));
        let appended = std::fs::read_to_string(&path).unwrap();
        assert!(appended.starts_with(&text) && appended.ends_with("c001cafe 201 300\n"));
        assert!(LedgerFile::open(&directory).is_err(), "a directory");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
