//! What tshark reads of the trial: everything with the key logs of both members, and what came after the
//! kill with that of the survivor alone, for the other one's disk is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Plan;
use crate::error::LabError;
use crate::gateway;
use crate::scenario::Report;
use crate::tshark::{Content, Listed, TABLE, Tshark};

/// IKEV2_MESSAGE_ID_SYNC (RFC 6311 section 8.1).
const MESSAGE_ID_SYNC: Content = Content::Notify(16422);

pub struct Heard {
    captures: Vec<PathBuf>,
    listed: Listed,
    both: Tshark,
    survivor: Tshark,
}

impl Heard {
    pub fn new(directory: &Path, survivor: usize, listed: Listed) -> Result<Self, LabError> {
        let own = directory.join(format!("m{}", survivor + 1));
        let table = gateway::key_table(&own, TABLE);
        Ok(Self {
            captures: ["peer-1.pcap", "peer-2.pcap"]
                .map(|file| directory.join(file))
                .to_vec(),
            listed,
            both: Tshark::of_cluster(directory)?,
            survivor: Tshark::new(directory.join("tshark-survivor"), &[table])?,
        })
    }

    pub fn judge(
        &self,
        report: &mut Report,
        plan: &Plan,
        killed: Duration,
    ) -> Result<(), LabError> {
        let sync = [("tshark-sees-the-sync", MESSAGE_ID_SYNC)];
        let contents = if plan.sync_expected { &sync[..] } else { &[] };
        let messages = self.both.read(&self.captures)?;
        self.both.judge(report, &self.listed, &messages, contents);
        let mut later = self.survivor.read(&self.captures)?;
        later.retain(|message| message.time > killed);
        let dark = later.iter().filter(|message| !message.open).count();
        let detail = format!("{} messages after the kill, {dark} dark", later.len());
        let name = "tshark-reads-the-survivor";
        report.check(name, !later.is_empty() && dark == 0, detail);
        Ok(())
    }
}
