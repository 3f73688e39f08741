//! Why a scenario could not be carried out. That it was carried out and found a fault is not an
//! error but a failed check in its report.

use std::path::PathBuf;
use std::time::Duration;

/// What stopped a scenario.
#[derive(Debug)]
pub enum LabError {
    /// SIGINT or SIGTERM arrived.
    Interrupted,
    /// The command line names what does not exist.
    Usage(String),
    /// Not enough privilege to make network namespaces.
    NotRoot,
    /// A program that the scenario needs is not installed.
    Missing {
        program: String,
        package: &'static str,
    },
    /// A program was run and failed.
    Failed { command: String, output: String },
    /// What was waited for did not come.
    Late { what: String, limit: Duration },
    /// A process that must run has ended.
    Ended { process: String, log: PathBuf },
    /// Output that could not be understood.
    Unreadable { what: String, detail: String },
    /// A file or a system call.
    Io {
        what: String,
        source: std::io::Error,
    },
}

impl LabError {
    /// For `map_err`: says what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::Io { what, source }
    }
}

impl std::fmt::Display for LabError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => write!(f, "interrupted"),
            Self::Usage(text) => f.write_str(text),
            Self::NotRoot => write!(f, "network namespaces need root: run this with sudo"),
            Self::Missing { program, package } => write!(
                f,
                "{program} is not installed: apt-get install {package}, or run ./testbeds/test, \
                 which installs what it needs"
            ),
            Self::Failed { command, output } => write!(f, "`{command}` failed: {output}"),
            Self::Late { what, limit } => write!(f, "{what}: not within {limit:?}"),
            Self::Ended { process, log } => {
                write!(f, "{process} has ended; its log is {}", log.display())
            }
            Self::Unreadable { what, detail } => write!(f, "cannot understand {what}: {detail}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for LabError {}
