//! tshark reads what was captured, with the daemon's own key log. Its table has one line for an IKE SA,
//! whose keys change with each additional key exchange (RFC 9370): each IKE_INTERMEDIATE exchange is
//! read with the table of its own, from a home of its own.
//!
//! scapy reads the same capture without keys, and builds each of our messages again.

use serde_json::Value;

use super::Trial;
use crate::error::LabError;
use crate::gateway;
use crate::process::Program;
use crate::topology::CLUSTER_OUTSIDE;
use crate::tshark::{Listed, TABLE, Tshark};

/// IKE_INTERMEDIATE (RFC 9242).
const INTERMEDIATE: u8 = 43;
/// The script is written beside the logs: nothing of the tree need be installed.
const DISSECTOR: &str = include_str!("../../../scapy/ike_dissector.py");
/// Debian's own, which Debian's scapy is for.
const PYTHON: &str = "/usr/bin/python3";

impl Trial {
    /// Every message after IKE_SA_INIT but those of ChaCha20-Poly1305, fragments too.
    pub fn decrypted(&mut self, variant: &str) -> Result<(), LabError> {
        let captures = [self.directory.join("outside.pcap")];
        let tshark = self.tshark("")?;
        let messages = tshark.read(&captures)?;
        let listed = Listed::of(&[self.peer.listed(), self.gateway.listed()]);
        tshark.judge(&mut self.report, &listed, &messages, &[]);
        if variant == "psk" {
            let whole = messages.iter().filter(|m| m.open && m.whole).count();
            let detail = format!("{whole} messages put together of fragments");
            self.report.check("tshark-reassembles", whole > 0, detail);
            return Ok(());
        }
        for exchange in 1..=2 {
            let profile = format!("intermediate-{exchange}");
            let mut messages = self.tshark(&format!(".{profile}"))?.read(&captures)?;
            messages.retain(|m| m.exchange == INTERMEDIATE && m.id == exchange);
            let dark = messages.iter().filter(|message| !message.open).count();
            let bad = messages.iter().filter(|message| message.bad).count();
            let detail = format!("{} messages, {dark} dark, {bad} damaged", messages.len());
            let passed = !messages.is_empty() && dark + bad == 0;
            let name = format!("tshark-decrypts-{profile}");
            self.report.check(&name, passed, detail);
        }
        Ok(())
    }

    /// Each kind of message of ours is known to scapy's dissector, and the same octets come out again.
    pub fn dissected(&mut self) -> Result<(), LabError> {
        let script = self.directory.join("ike_dissector.py");
        std::fs::write(&script, DISSECTOR).map_err(LabError::io("writing the script"))?;
        let capture = self.directory.join("outside.pcap").display().to_string();
        let script = script.display().to_string();
        let said = Program::new([PYTHON, "-B", &script, CLUSTER_OUTSIDE, &capture]).run()?;
        let found: Value = serde_json::from_str(&said).map_err(|error| LabError::Unreadable {
            what: "what scapy found".to_owned(),
            detail: error.to_string(),
        })?;
        for kind in ["init", "clear-notifies", "sk", "skf"] {
            let count = found["counts"][kind].as_u64().unwrap_or_default();
            let detail = format!("{count} messages");
            let name = format!("scapy-rebuilds-{kind}");
            self.report.check(&name, count > 0, detail);
        }
        let wrong = found["wrong"].as_array().map_or(usize::MAX, Vec::len);
        let detail = format!("{wrong} messages, such as {}", found["wrong"][0]);
        self.report.check("scapy-rebuilds-all", wrong == 0, detail);
        Ok(())
    }

    /// tshark with the keys of one kind.
    fn tshark(&self, kind: &str) -> Result<Tshark, LabError> {
        let table = gateway::key_table(&self.directory, &format!("{TABLE}{kind}"));
        Tshark::new(self.directory.join(format!("tshark{kind}")), &[table])
    }
}
