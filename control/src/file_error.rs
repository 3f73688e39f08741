//! What the system said of a file: the file and what was to be done with it stand beside it.

use std::error::Error;
use std::fmt;
use std::io;
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
