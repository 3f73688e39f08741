//! What most scenarios play on: a cluster of two members and one charon on the network of
//! [`Topology`], and a capture of what passes between them outside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::capture::{Capture, Direction};
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::scenario::{Bench, Report};
use crate::strongswan::StrongSwan;
use crate::topology::{OUTSIDE, Topology};
use crate::tshark::{self, Content};

const READY: Duration = Duration::from_secs(10);

pub struct Stage<'a> {
    pub bench: &'a Bench,
    pub report: Report,
    pub directory: PathBuf,
    /// Processes before namespaces: fields are dropped in this order.
    pub members: [Member; 2],
    /// Which of them leads.
    pub active: usize,
    pub peer: StrongSwan,
    wire: Capture,
    pub lab: Topology,
}

impl<'a> Stage<'a> {
    /// Starts the members, where network and peer are there, and waits until one of them leads and the
    /// other one could. `text` gives a member's file.
    pub fn start(
        bench: &'a Bench,
        report: Report,
        directory: &Path,
        (lab, peer): (Topology, StrongSwan),
        text: impl Fn(usize, &Path) -> String,
    ) -> Result<Self, LabError> {
        let wire = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "outside", directory)?;
        let mut members = gateway::start_pair(&lab, directory, text)?;
        let active = gateway::wait_for_roles(&mut members, READY)?;
        Ok(Self {
            bench,
            report,
            directory: directory.to_owned(),
            members,
            active,
            peer,
            wire,
            lab,
        })
    }

    /// The IKE SAs of a connection that are up at the active member.
    pub fn ours(&self, connection: &str) -> Result<Vec<Value>, LabError> {
        self.members[self.active].established(connection)
    }

    /// The active member dies; waits until the other one leads. Gives the moment of death.
    pub fn active_dies(&mut self) -> Result<Duration, LabError> {
        let died = self.active;
        self.members[died].keep_status("before")?;
        let moment = self.members[died].kill()?;
        self.active = 1 - died;
        self.members[self.active].wait_until_active(READY)?;
        Ok(moment)
    }

    /// What has passed outside so far, as a capture.
    pub fn so_far(&self) -> Result<Vec<u8>, LabError> {
        self.wire.so_far()
    }

    /// What both members kept and what passed outside is read by tshark with their key logs; these
    /// messages must be in it.
    pub fn conclude(self, contents: &[(&str, Content)]) -> Result<Report, LabError> {
        let ends = (&self.members, &self.peer);
        tshark::conclude(self.report, &self.directory, ends, self.wire, contents)
    }
}
