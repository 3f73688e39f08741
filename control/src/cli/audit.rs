//! `hitless audit`: what captures say of any gateway's sequence numbers and Message IDs.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, Outcome, print, print_json};
use crate::audit::{Audit as Taps, Expectations, Permits, TapId, judge};

/// Look for repeated numbers and IVs in captures of any gateway
#[derive(Args, Debug)]
#[command(
    long_about = "Look for repeated numbers and IVs in captures of any gateway, with AES-GCM or \
        another cipher with an explicit IV of 8 octets.\n\n\
        Faults are: a sequence number or an IV used twice with one SPI, a number far behind the \
        highest or too far ahead of it, two requests or two responses with one Message ID, and what \
        the ledger does not permit. No key is needed, and nothing is decrypted.\n\n\
        Each file is a place of its own: a packet may be seen once in each. With --together the \
        files are one place, such as the ports of all members of a cluster: whatever is in two of \
        them was sent twice.",
    after_help = "Exit codes: 0 clean, 1 not clean, 2 a file cannot be read\n\n\
        Examples:\n  hitless audit before-and-after-failover.pcap\n  \
        hitless audit --together member1.pcap member2.pcap --failovers 1 --json\n  \
        hitless audit outside.pcap --ledger grants.txt    (a line for each grant: SPI first last)"
)]
pub struct Audit {
    /// Captures, pcap or pcapng, of the network towards the peers
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The files are one place: nothing may be in two of them
    #[arg(long)]
    together: bool,
    /// Which numbers each SA was granted: lines of SPI, first and last
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// How often the gateway failed over: so often may an IKE SA be synchronised
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
        let mut taps = Taps::default();
        for (index, file) in (0..).zip(&self.files) {
            let shown = file.display();
            let bytes = fs::read(file).map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
            let tap = TapId(if self.together { 0 } else { index });
            taps.observe_pcap(tap, &bytes)
                .map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
        }
        let expectations = Expectations {
            greatest_skip: self.greatest_skip,
            reordering: self.reordering,
            failovers: self.failovers,
            permits: self.permits()?,
        };
        let verdict = judge(&taps.report(), &expectations);
        match self.json {
            true => print_json(&verdict)?,
            false => print(&verdict.to_string())?,
        };
        Ok(match verdict.clean {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(1),
        })
    }

    fn permits(&self) -> Result<Permits, Failure> {
        let Some(file) = &self.ledger else {
            return Ok(Permits::default());
        };
        let shown = file.display();
        let text = fs::read_to_string(file).map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
        Permits::parse(&text).map_err(|e| Failure::usage(format!("{shown}, {e}")))
    }
}
