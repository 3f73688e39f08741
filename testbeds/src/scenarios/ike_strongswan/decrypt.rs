//! tshark reads what was captured, with the daemon's own key log. Its table has one line for an IKE SA,
//! whose keys change with each additional key exchange (RFC 9370): each IKE_INTERMEDIATE exchange is
//! read with the table of its own, in a profile of its own.

use std::path::Path;

use super::Trial;
use crate::error::LabError;
use crate::process::Program;

/// The directory of the key log, which is the profile that tshark takes by itself.
const PROFILE: &str = ".config/wireshark";
const TABLE: &str = "ikev2_decryption_table";

/// What tshark could do with the messages of those IKE SAs that a table has keys for.
struct Read {
    readable: usize,
    dark: usize,
    /// It found a checksum wrong.
    bad: String,
}

impl Trial {
    /// Every message after IKE_SA_INIT but those of ChaCha20-Poly1305, fragments too.
    pub fn decrypted(&mut self, variant: &str) -> Result<(), LabError> {
        let read = self.read(Path::new(PROFILE), None, "exchangetype in {35,36,37,44}")?;
        let (readable, dark) = (read.readable, read.dark);
        let detail = format!("{readable} messages, {dark} not");
        self.report
            .check("tshark-decrypts", readable > 20 && dark == 0, detail);
        self.report
            .check("tshark-verifies", read.bad.is_empty(), read.bad.trim());
        if variant == "psk" {
            let whole = self.tshark(&["-Y", "isakmp.fragments"])?.lines().count();
            let detail = format!("{whole} messages put together of fragments");
            self.report.check("tshark-reassembles", whole > 0, detail);
            return Ok(());
        }
        for exchange in 1..=2 {
            let profile = format!("intermediate-{exchange}");
            let place = Path::new(PROFILE).join("profiles").join(&profile);
            let (from, to) = (self.directory.join(PROFILE), self.directory.join(&place));
            std::fs::create_dir_all(&to)
                .and_then(|()| {
                    std::fs::copy(from.join(format!("{TABLE}.{profile}")), to.join(TABLE))
                })
                .map_err(LabError::io("making a profile for tshark"))?;
            let filter = format!("exchangetype == 43 && isakmp.messageid == {exchange}");
            let read = self.read(&place, Some(&profile), &filter)?;
            let (readable, dark) = (read.readable, read.dark);
            let detail = format!("{readable} messages, {dark} not {}", read.bad.trim());
            let passed = readable > 0 && dark == 0 && read.bad.is_empty();
            let name = format!("tshark-decrypts-{profile}");
            self.report.check(&name, passed, detail);
        }
        Ok(())
    }

    fn read(&self, place: &Path, profile: Option<&str>, filter: &str) -> Result<Read, LabError> {
        let filter = format!("isakmp.{filter}");
        let mut words = profile.map_or(Vec::new(), |profile| vec!["-C", profile]);
        let checksums = "isakmp and _ws.expert.message contains \"checksum\"";
        let bad = self.tshark(&[&words[..], &["-Y", checksums]].concat())?;
        words.extend(["-Y", &filter, "-T", "fields", "-e", "isakmp.ispi"]);
        words.extend(["-e", "isakmp.enc.iv", "-e", "isakmp.enc.decrypted"]);
        words.extend(["-e", "isakmp.nextpayload"]);
        let said = self.tshark(&words)?;
        let table = std::fs::read_to_string(self.directory.join(place).join(TABLE))
            .map_err(LabError::io("reading the key log"))?;
        let known = |spi: &str| table.lines().any(|line| line.starts_with(spi));
        let rows = said
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let ours = rows.filter(|row| row.first().is_some_and(|spi| known(spi)));
        let clear = |row: &Vec<&str>| row.get(2).is_some_and(|content| !content.is_empty());
        let (readable, dark): (Vec<_>, Vec<_>) = ours.partition(clear);
        Ok(Read {
            readable: readable.len(),
            dark: dark.len(),
            bad,
        })
    }

    fn tshark(&self, words: &[&str]) -> Result<String, LabError> {
        let capture = self.directory.join("outside.pcap").display().to_string();
        let first = ["tshark", "-r", &capture, "-n"];
        let words = first.iter().chain(words).copied();
        Program::new(words).env("HOME", &self.directory).run()
    }
}
