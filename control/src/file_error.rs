//! What the system said of a file: the file and what was to be done with it stand beside it. And
//! the lock of whoever must be alone.

use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Something could not be done with a file or a directory.
#[derive(Debug)]
pub struct FileError {
    pub path: PathBuf,
    /// A verb: `open`.
    pub action: &'static str,
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub fn at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError {
            path,
            action,
            source,
        }
    }

    /// Whether the system does not allow it to this user.
    pub fn is_denied(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// Locks the file, which is made if need be, as long as it is open; `None` if another has it.
pub fn lock(path: &Path) -> Result<Option<File>, FileError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(FileError::at(path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(FileError::at(path, "lock")(source)),
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileError { action, source, .. } = self;
        write!(f, "cannot {action} {}: {source}", self.path.display())
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
