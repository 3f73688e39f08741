//! Captures: tcpdump in a namespace, listening before the first packet of interest and ended so
//! that nothing is left in a buffer. A capture that lost frames is an error: an audit that did not
//! see everything proves nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::netns::Namespace;
use crate::process::{Process, Program};

const READY: Duration = Duration::from_secs(5);
const FLUSH: Duration = Duration::from_secs(5);
/// Frames in flight reach the capture within this.
const SETTLE: Duration = Duration::from_millis(100);

/// Which frames of an interface are captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Both,
    /// Only what arrives at the interface; on a switch's port: what the station there sent.
    In,
    /// Only what leaves by the interface; on a switch's port: what the station there was sent.
    Out,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures whole frames at `interface` into `<directory>/<name>.pcap`.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        direction: Direction,
        name: &str,
        directory: &Path,
    ) -> Result<Self, LabError> {
        let file = directory.join(format!("{name}.pcap"));
        let shown = file.display().to_string();
        let direction = match direction {
            Direction::Both => "inout",
            Direction::In => "in",
            Direction::Out => "out",
        };
        let mut tcpdump = Program::new([
            "tcpdump",
            "-n",
            "-p",
            "-s",
            "0",
            "-B",
            "16384",
            "--immediate-mode",
            "-U",
            "--time-stamp-precision=nano",
            "-Z",
            "root",
            "-Q",
            direction,
            "-i",
            interface,
            "-w",
            &shown,
        ])
        .inside(namespace)
        .spawn(&format!("tcpdump-{name}"), directory)?;
        tcpdump.wait_for_output("listening on", READY)?;
        Ok(Self { tcpdump, file })
    }

    /// What is in the file now; the last record may be half written.
    pub fn so_far(&self) -> Result<Vec<u8>, LabError> {
        std::fs::read(&self.file).map_err(LabError::io(self.file.display().to_string()))
    }

    /// Ends the capture and gives the file's content.
    pub fn stop(mut self) -> Result<Vec<u8>, LabError> {
        clock::pass(SETTLE)?;
        self.tcpdump.end(libc::SIGINT, FLUSH)?;
        let said = self.tcpdump.log();
        if !said
            .lines()
            .any(|line| line == "0 packets dropped by kernel")
        {
            return Err(LabError::Unreadable {
                what: format!("the capture {}", self.file.display()),
                detail: format!("it is not complete: {}", said.trim()),
            });
        }
        self.so_far()
    }
}
