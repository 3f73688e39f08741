//! tshark as a judge of our IKE. It reads what was captured with the key logs of the gateways, and
//! every IKE SA that either end has listed as established must be in them, with each message readable
//! and each checksum right: one that is missing is no message to leave out, but a fault.
//!
//! tshark 4.0 (Debian 12) knows no ChaCha20-Poly1305 for IKE: such IKE SAs, by what their ends say of
//! the cipher, are left out and counted. IKE_INTERMEDIATE (RFC 9242) has keys of its own, and tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::capture::Capture;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::process::Program;
use crate::scenario::Report;
use crate::strongswan::StrongSwan;

/// What the gateway calls the tables (`control.key_log`), in its own directory of them.
pub const TABLE: &str = "ikev2_decryption_table";
/// The profile that tshark takes by itself, in its home.
const PROFILE: &str = ".config/wireshark";
/// The cipher that tshark lacks, as either end writes it.
const UNKNOWN: &str = "chacha20";

/// IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, IKE_FOLLOWUP_KE: what the keys of an IKE SA protect.
const PROTECTED: [u8; 4] = [35, 36, 37, 44];
/// Those that nobody begins who is not authenticated (RFC 7296 section 1.3, RFC 9370 section 2.2.4).
const LATE: [u8; 2] = [36, 44];

/// IKE SAs that were listed as established, by both SPIs, with their cipher.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listed(BTreeMap<String, String>);

impl Listed {
    pub fn note(&mut self, initiator_spi: &str, responder_spi: &str, cipher: &str) {
        let spis = format!("{initiator_spi},{responder_spi}").to_lowercase();
        self.0.insert(spis, cipher.to_lowercase());
    }

    /// What several ends have listed.
    pub fn of<'a>(ends: impl IntoIterator<Item = &'a Listed>) -> Listed {
        let all = ends.into_iter().flat_map(|end| end.0.clone());
        Listed(all.collect())
    }

    /// Those whose messages tshark can read.
    fn readable(&self) -> impl Iterator<Item = &str> {
        let known = self
            .0
            .iter()
            .filter(|(_, cipher)| !cipher.contains(UNKNOWN));
        known.map(|(spis, _)| spis.as_str())
    }
}

/// What must be found in a message that tshark has opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A notification of this type.
    Notify(u16),
    /// A configuration payload of this type (RFC 7296 section 3.15).
    Configuration(u8),
    /// An EAP message of this code (RFC 3748 section 4).
    Eap(u8),
}

/// A message as tshark has read it.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    pub time: Duration,
    pub spis: String,
    pub exchange: u8,
    pub id: u32,
    /// Its SK payload, or its fragment of one, is open.
    pub open: bool,
    /// Put together of fragments here.
    pub whole: bool,
    notifications: Vec<u16>,
    configuration: Vec<u8>,
    eap: Vec<u8>,
    /// It found a checksum wrong.
    pub bad: bool,
}

impl Message {
    fn holds(&self, content: Content) -> bool {
        self.open
            && match content {
                Content::Notify(kind) => self.notifications.contains(&kind),
                Content::Configuration(kind) => self.configuration.contains(&kind),
                Content::Eap(code) => self.eap.contains(&code),
            }
    }
}

/// tshark with a home of its own, where it finds the keys.
#[derive(Debug)]
pub struct Tshark {
    home: PathBuf,
    /// The SPIs of the lines.
    known: BTreeSet<String>,
}

const FIELDS: [&str; 10] = [
    "frame.time_epoch",
    "isakmp.ispi",
    "isakmp.rspi",
    "isakmp.exchangetype",
    "isakmp.messageid",
    "isakmp.enc.decrypted",
    "isakmp.notify.msgtype",
    "isakmp.cfg.type",
    "eap.code",
    "isakmp.fragments",
];

impl Tshark {
    /// Makes a home at `home`, with the lines of these tables together; a table that is not there has
    /// none.
    pub fn new(home: PathBuf, tables: &[PathBuf]) -> Result<Self, LabError> {
        let texts = tables
            .iter()
            .map(|table| match std::fs::read_to_string(table) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                read => read.map_err(LabError::io(table.display().to_string())),
            });
        let text = texts.collect::<Result<Vec<String>, LabError>>()?.concat();
        let lines: BTreeSet<&str> = text.lines().collect();
        let profile = home.join(PROFILE);
        let joined: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        std::fs::create_dir_all(&profile)
            .and_then(|()| std::fs::write(profile.join(TABLE), joined))
            .map_err(LabError::io("making a home for tshark"))?;
        let known = lines.iter().filter_map(|line| line.get(..33));
        Ok(Self {
            known: known.map(str::to_lowercase).collect(),
            home,
        })
    }

    /// With all that the two members have logged whose directories are in this one.
    pub fn of_cluster(directory: &Path) -> Result<Self, LabError> {
        let tables = [1, 2].map(|n| gateway::key_table(&directory.join(format!("m{n}")), TABLE));
        Self::new(directory.join("tshark"), &tables)
    }

    /// The IKE messages of these captures.
    pub fn read(&self, captures: &[PathBuf]) -> Result<Vec<Message>, LabError> {
        let mut messages = Vec::new();
        for capture in captures {
            // An ICMP error quotes messages, cut.
            let only = "isakmp and not icmp and not icmpv6";
            let mut words = vec!["-Y", only, "-T", "fields"];
            words.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
            words.extend(["-e", "_ws.expert.message"]);
            for line in self.run(capture, &words)?.lines() {
                let message = Message::parse(line);
                messages.push(message.ok_or_else(|| LabError::Unreadable {
                    what: "a line of tshark's".to_owned(),
                    detail: line.to_owned(),
                })?);
            }
        }
        Ok(messages)
    }

    fn run(&self, capture: &Path, words: &[&str]) -> Result<String, LabError> {
        let capture = capture.display().to_string();
        let first = ["tshark", "-r", &capture, "-n"];
        let words = first.iter().chain(words).copied();
        Program::new(words).env("HOME", &self.home).run()
    }

    /// Judges what was captured against what was listed: none missing, all open, none damaged, and
    /// each of `contents` seen.
    pub fn judge(
        &self,
        report: &mut Report,
        listed: &Listed,
        messages: &[Message],
        contents: &[(&str, Content)],
    ) {
        let missing: Vec<&str> = listed
            .readable()
            .filter(|spis| !self.known.contains(*spis))
            .collect();
        let late = messages.iter().filter(|m| LATE.contains(&m.exchange));
        let strangers: BTreeSet<&str> = late
            .map(|message| message.spis.as_str())
            .filter(|spis| !listed.0.contains_key(*spis) && !self.known.contains(*spis))
            .collect();
        let wanted = listed.readable().count();
        let detail = format!(
            "{} IKE SAs listed, {wanted} of them with a cipher that tshark knows; not in the key \
             log: {missing:?}; rekeyed on the wire and in no list: {strangers:?}",
            listed.0.len()
        );
        let all = wanted > 0 && missing.is_empty() && strangers.is_empty();
        report.check("tshark-knows-every-ike-sa", all, detail);

        let ours: Vec<&Message> = messages
            .iter()
            .filter(|m| PROTECTED.contains(&m.exchange) && self.known.contains(&m.spis))
            .collect();
        let open = ours.iter().filter(|message| message.open);
        let read: BTreeSet<&str> = open.clone().map(|message| message.spis.as_str()).collect();
        let dark: Vec<String> = ours
            .iter()
            .filter(|message| !message.open)
            .map(|m| format!("{} exchange {} #{}", m.spis, m.exchange, m.id))
            .collect();
        let silent = listed.readable().filter(|spis| !read.contains(spis));
        let detail = format!(
            "{} messages of {} IKE SAs, {} not: {:?}; {} IKE SAs said nothing",
            open.count(),
            read.len(),
            dark.len(),
            dark.first(),
            silent.count()
        );
        let opened = !read.is_empty() && dark.is_empty();
        report.check("tshark-decrypts", opened, detail);

        // Messages of other exchanges have other keys.
        let bad = ours.iter().filter(|message| message.bad).count();
        let detail = format!("{bad} wrong checksums");
        report.check("tshark-verifies", bad == 0, detail);
        for (name, content) in contents {
            let found = messages.iter().filter(|m| m.holds(*content)).count();
            let detail = format!("{found} messages with {content:?}");
            report.check(name, found > 0, detail);
        }
    }
}

/// Judges the captures of a scenario with two members, all in its directory.
pub fn judge_cluster(
    report: &mut Report,
    directory: &Path,
    captures: &[&str],
    listed: &[Listed],
    contents: &[(&str, Content)],
) -> Result<(), LabError> {
    let tshark = Tshark::of_cluster(directory)?;
    let captures: Vec<PathBuf> = captures.iter().map(|file| directory.join(file)).collect();
    let messages = tshark.read(&captures)?;
    tshark.judge(report, &Listed::of(listed), &messages, contents);
    Ok(())
}

/// The end of a scenario with two members and one charon: all that was captured outside.
pub fn conclude(
    mut report: Report,
    directory: &Path,
    ends: (&[Member; 2], &StrongSwan),
    wire: Capture,
    contents: &[(&str, Content)],
) -> Result<Report, LabError> {
    let ([first, second], peer) = ends;
    peer.list_sas()?;
    drop(wire.stop()?);
    let listed = [first.listed(), second.listed(), peer.listed()];
    judge_cluster(&mut report, directory, &["outside.pcap"], &listed, contents)?;
    Ok(report.conclude())
}

impl Message {
    /// A line of [`FIELDS`] and of what experts say.
    fn parse(line: &str) -> Option<Message> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [
            time,
            initiator,
            responder,
            exchange,
            id,
            opened,
            notifications,
            cfg,
            eap,
            whole,
            experts,
        ] = columns.as_slice()
        else {
            return None;
        };
        fn numbers<T: std::str::FromStr>(list: &str) -> Vec<T> {
            let words = list.split(',');
            words.filter_map(|word| word.parse().ok()).collect()
        }
        let id = id.strip_prefix("0x").unwrap_or(id);
        Some(Message {
            time: Duration::try_from_secs_f64(time.parse().ok()?).ok()?,
            spis: format!("{initiator},{responder}"),
            exchange: exchange.parse().ok()?,
            id: u32::from_str_radix(id, 16).ok()?,
            open: !opened.is_empty(),
            whole: !whole.is_empty(),
            notifications: numbers(notifications),
            configuration: numbers(cfg),
            eap: numbers(eap),
            bad: experts.to_lowercase().contains("checksum"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00000000000000a1,00000000000000b1";
    const B: &str = "00000000000000a2,00000000000000b2";
    const C: &str = "00000000000000a3,00000000000000b3";

    fn line(spis: &str, exchange: u8, opened: &str, notifications: &str) -> String {
        let spis = spis.replace(',', "\t");
        format!("17.5\t{spis}\t{exchange}\t0x00000001\t{opened}\t{notifications}\t2\t3\t\t")
    }

    /// The checks that fail, with a key log of `known`.
    fn failed(known: &[&str], listed: &[(&str, &str)], lines: &[String]) -> Vec<String> {
        let mut ends = Listed::default();
        for (spis, cipher) in listed {
            let (initiator, responder) = spis.split_once(',').expect("two");
            ends.note(initiator, responder, cipher);
        }
        let messages: Option<Vec<Message>> = lines.iter().map(|l| Message::parse(l)).collect();
        let tshark = Tshark {
            home: PathBuf::new(),
            known: known.iter().map(|spis| (*spis).to_owned()).collect(),
        };
        let mut report = Report::new("made-up", "one");
        let wanted = [("sync", Content::Notify(16422))];
        tshark.judge(&mut report, &ends, &messages.expect("readable"), &wanted);
        let failed = report.checks.iter().filter(|check| !check.passed);
        failed.map(|check| check.name.clone()).collect()
    }

    #[test]
    fn what_a_key_log_leaves_out_fails_and_chacha20_does_not() {
        let auth = line(A, 35, "00", "16388,16422");
        let rekeyed = line(B, 36, "", "");
        let gcm = [(A, "AES_GCM_16-128")];
        let both = [(A, "AES_GCM_16-128"), (B, "AES_GCM_16")];
        let one_of_chacha = [(A, "AES_CBC"), (B, "CHACHA20_POLY1305/PRF")];
        let none: [&str; 0] = [];
        assert_eq!(failed(&[A], &gcm, std::slice::from_ref(&auth)), none);
        let two = [auth.clone(), rekeyed];
        assert_eq!(failed(&[A], &one_of_chacha, &two), none);
        // A log that misses the rekeyed IKE SA, listed or not.
        let missing = ["tshark-knows-every-ike-sa"];
        assert_eq!(failed(&[A], &both, &two), missing);
        assert_eq!(failed(&[A], &gcm, &two), missing);
        // It is there, and does not open the message.
        assert_eq!(failed(&[A, B], &both, &two), ["tshark-decrypts"]);
        // A peer that was refused had an IKE SA that nobody has keys of.
        let refused = [auth, line(C, 35, "", ""), line(C, 37, "", "")];
        assert_eq!(failed(&[A], &gcm, &refused), none);
    }

    #[test]
    fn content_counts_in_open_messages_alone_and_a_wrong_checksum_fails() {
        let gcm = [(A, "AES_GCM_16-128")];
        let open = line(A, 35, "00", "");
        let dark = line(B, 37, "", "16422");
        assert_eq!(failed(&[A], &gcm, &[open, dark]), ["sync"]);
        let wrong = "IKEv2 Integrity Checksum Data is incorrect";
        let intermediate = line(A, 43, "00", "16422") + wrong;
        let none: [&str; 0] = [];
        assert_eq!(
            failed(&[A], &gcm, &[line(A, 35, "00", ""), intermediate]),
            none
        );
        let damaged = line(A, 37, "00", "16422") + wrong;
        assert_eq!(failed(&[A], &gcm, &[damaged]), ["tshark-verifies"]);
        assert_eq!(Message::parse("17.5\ta1\tb1\t35"), None);
    }
}
