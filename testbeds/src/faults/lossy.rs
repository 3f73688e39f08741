//! A sync link that loses some datagrams: a part of them at random, or those above a size. What is lost
//! is sent to the loopback device, which refuses frames that are for another Ethernet address: that
//! works with kernels that have neither netem nor a filter that drops.

use crate::error::LabError;
use crate::process::Program;
use crate::topology::{SYNC_INTERFACE, Topology};

/// IP and UDP, then the type, key and number of a sync datagram; what follows is ciphertext, so any of
/// its octets is as good as dice.
const CIPHERTEXT: &str = "64";
/// An eighth and a sixteenth of all values: about a fifth.
const A_FIFTH: &[[&str; 2]] = &[["0x00", "0xe0"], ["0x20", "0xf0"]];
/// Total lengths of IP packets from 768 on. Members fill a datagram up to 1,200 octets of UDP payload,
/// and the SAs of this bed do not need longer ones.
const LONG: &[[&str; 2]] = &[
    ["0x0300", "0xff00"],
    ["0x0400", "0xfc00"],
    ["0x0800", "0xf800"],
];

/// Which of them are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lossy {
    Fifth,
    Long,
}

impl Lossy {
    /// From now on they are, both ways.
    pub fn begin(self, lab: &Topology) -> Result<(), LabError> {
        let (size, at, matches) = match self {
            Lossy::Fifth => ("u8", CIPHERTEXT, A_FIFTH),
            Lossy::Long => ("u16", "2", LONG),
        };
        for member in 0..2 {
            tc(
                lab,
                member,
                &["qdisc", "add", "dev", SYNC_INTERFACE, "clsact"],
            )?;
            for [value, mask] in matches {
                tc(
                    lab,
                    member,
                    &[
                        "filter",
                        "add",
                        "dev",
                        SYNC_INTERFACE,
                        "egress",
                        "protocol",
                        "ip",
                        "u32",
                        "match",
                        size,
                        value,
                        mask,
                        "at",
                        at,
                        "action",
                        "mirred",
                        "egress",
                        "redirect",
                        "dev",
                        "lo",
                    ],
                )?;
            }
        }
        Ok(())
    }

    /// How many were: a loss of nothing is none.
    pub fn lost(lab: &Topology) -> Result<u64, LabError> {
        let show = ["-s", "filter", "show", "dev", SYNC_INTERFACE, "egress"];
        let lost = |member| tc(lab, member, &show).map(|shown| packets(&shown));
        Ok(lost(0)? + lost(1)?)
    }

    /// Nothing is lost any more.
    pub fn end(lab: &Topology) -> Result<(), LabError> {
        for member in 0..2 {
            tc(
                lab,
                member,
                &["qdisc", "del", "dev", SYNC_INTERFACE, "clsact"],
            )?;
        }
        Ok(())
    }
}

fn tc(lab: &Topology, member: usize, words: &[&str]) -> Result<String, LabError> {
    let command = std::iter::once("tc").chain(words.iter().copied());
    Program::new(command).inside(&lab.members[member]).run()
}

/// The sum of what it says of each filter: `Sent 1240 bytes 7 pkt (dropped 0, ...`.
fn packets(shown: &str) -> u64 {
    let lines = shown
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Sent "));
    let counts = lines.filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_filters_have_taken_is_summed() {
        let shown = "filter protocol ip pref 1 u32\n \tSent 1240 bytes 7 pkt (dropped 0, x)\n\
                     x\n  Sent 90 bytes 2 pkt (dropped 0, x)\n";
        assert_eq!(packets(shown), 9);
        assert_eq!(packets("Sent x"), 0);
    }

    /// Every total length from 768 on matches, and none below.
    #[test]
    fn long_is_what_is_longer() {
        let hex = |word: &str| u16::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
        for length in 0..2_000_u16 {
            let is = LONG
                .iter()
                .any(|[value, mask]| length & hex(mask) == hex(value));
            assert_eq!(is, length >= 768, "{length}");
        }
    }
}
