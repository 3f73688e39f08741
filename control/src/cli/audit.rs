//! `hitless audit`: what captures say of any gateway's sequence numbers and Message IDs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{Failure, Outcome, print, print_json};
use crate::audit::{Audit as Taps, Expectations, Permits, Places, TapId, judge};

/// Nothing wrong was seen, but not all could be judged.
const INCONCLUSIVE: u8 = 3;

/// Look for repeated numbers and IVs in captures of any gateway
#[derive(Args, Debug)]
#[command(
    long_about = "Look for repeated numbers and IVs in captures of any gateway, with AES-GCM or \
        another cipher with an explicit IV of 8 octets.\n\n\
        Faults are: a sequence number or an IV used twice with one SPI, a number far behind the \
        highest or too far ahead of it, two requests or two responses with one Message ID, more \
        than one synchronisation of an IKE SA for one failover, and what the ledger does not \
        permit. No key is needed, and nothing is decrypted.\n\n\
        The files are read as one story, in order of time. Each is a place of its own: a packet \
        may be seen once in each. With --together they are one place, such as the ports of all \
        members of a cluster: whatever is in two of them was sent twice, and with each failover \
        the file changes in which an address sends. If it changes to and fro, both members led: \
        two requests with one Message ID are then told as two-requests-of-a-split, for neither \
        member could know of the other's, and numbers of one far below those of the other as \
        went-back-of-a-split; a repeated number has no such excuse.\n\n\
        A ledger is what `control.grant_log` writes; beside FILE the older FILE.1 is read if it is \
        there. An address that sent on an SA of the ledger must have been granted all that it \
        sent. A ledger that says that grants were lost (a full disk) accuses nobody: exit code 3.",
    after_help = "Exit codes: 0 clean, 1 not clean, 2 a file cannot be read, 3 nothing wrong was \
        seen but not all could be judged (no ESP, cut frames and the like: see the notes)\n\n\
        Examples:\n  hitless audit before-and-after-failover.pcap\n  \
        hitless audit --together member1.pcap member2.pcap --failovers 1 --json\n  \
        hitless audit outside.pcap --ledger grants.txt    (a line for each grant: SPI first last)\n  \
        hitless audit --together m1.pcap m2.pcap --member-ledger m1.grants --member-ledger m2.grants"
)]
pub struct Audit {
    /// Captures, pcap or pcapng, of the network towards the peers
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The files are one place: nothing may be in two of them
    #[arg(long)]
    together: bool,
    /// Which numbers each SA was granted: lines of SPI, first and last; several are one
    #[arg(long, value_name = "FILE")]
    ledger: Vec<PathBuf>,
    /// Which numbers the member was granted whose port a capture is; one for each, in their order
    #[arg(long, value_name = "FILE", requires = "together")]
    member_ledger: Vec<PathBuf>,
    /// How often the gateway failed over: so often may an IKE SA be synchronised [default: as the
    /// captures of all members show]
    #[arg(long, value_name = "N")]
    failovers: Option<u64>,
    /// The greatest step ahead that is no fault
    #[arg(long, value_name = "N", default_value_t = Expectations::default().greatest_skip)]
    greatest_skip: u64,
    /// The greatest step back that is mere reordering
    #[arg(long, value_name = "N", default_value_t = Expectations::default().reordering)]
    reordering: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub fn execute(&self) -> Outcome {
        let mut files = Vec::new();
        for (index, file) in (0..).zip(&self.files) {
            let bytes = fs::read(file).map_err(|e| unreadable(file, &e))?;
            files.push((TapId(index), bytes));
        }
        let mut taps = Taps::new(match self.together {
            true => Places::OneForAll,
            false => Places::EachTap,
        });
        let slices: Vec<_> = files.iter().map(|(tap, b)| (*tap, b.as_slice())).collect();
        taps.observe_pcaps(&slices)
            .map_err(|(index, e)| match self.files.get(index) {
                Some(file) => unreadable(file, &e),
                None => Failure::usage(e),
            })?;
        let (permits, members) = self.permits()?;
        let expectations = Expectations {
            greatest_skip: self.greatest_skip,
            reordering: self.reordering,
            failovers: self.failovers,
            permits,
            members,
        };
        let verdict = judge(&taps.report(), &expectations);
        match self.json {
            true => print_json(&verdict)?,
            false => print(&verdict.to_string())?,
        };
        Ok(match (verdict.clean, verdict.conclusive) {
            (true, true) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(1),
            (true, false) => ExitCode::from(INCONCLUSIVE),
        })
    }

    /// What was granted to anybody, and what to each member.
    fn permits(&self) -> Result<(Permits, BTreeMap<TapId, Permits>), Failure> {
        let (captures, ledgers) = (self.files.len(), self.member_ledger.len());
        if ledgers > 0 && ledgers != captures {
            return Err(Failure::usage(format!(
                "{captures} captures, but {ledgers} ledgers of members; give --member-ledger once \
                 for each capture, in the same order"
            )));
        }
        let mut all = Permits::default();
        for file in &self.ledger {
            all.add(&ledger(file)?);
        }
        let mut members = BTreeMap::new();
        for (index, file) in (0..).zip(&self.member_ledger) {
            let own = ledger(file)?;
            all.add(&own);
            members.insert(TapId(index), own);
        }
        if all.is_empty() && !(self.ledger.is_empty() && members.is_empty()) {
            return Err(Failure::usage(
                "the ledger holds no grant; is `control.grant_log` of the members that sent set?",
            ));
        }
        Ok((all, members))
    }
}

/// A ledger, with the older half that the daemon has put aside.
fn ledger(file: &Path) -> Result<Permits, Failure> {
    let mut permits = lines(file)?;
    let mut older = file.to_owned().into_os_string();
    older.push(".1");
    let older = PathBuf::from(older);
    if older.exists() {
        permits.add(&lines(&older)?);
    }
    Ok(permits)
}

fn lines(file: &Path) -> Result<Permits, Failure> {
    let text = fs::read_to_string(file).map_err(|e| unreadable(file, &e))?;
    let shown = file.display();
    Permits::parse(&text).map_err(|e| Failure::usage(format!("{shown}, {e}")))
}

fn unreadable(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {why}", file.display()))
}
