//! A ledger from outside: which sequence numbers each SA was granted. One line a grant, `#` begins
//! a comment:
//!
//! ```text
//! # SPI     first  last
//! c001cafe  1      4096
//! c001cafe  4097   8192
//! c001cafe  8193   12288  5000
//! lost      3
//! ```
//!
//! A fourth number is of a member that took over: from there on its predecessor may have sent, so that
//! what lies between that and its own first one may be left out.
//!
//! Where a disk took half a line, or some grants could not be written, the daemon says how many are
//! missing: what such a ledger does not permit proves nothing.

use std::collections::BTreeMap;
use std::fmt;

/// The line of grants that are missing.
const LOST: &str = "lost";

/// Grants by SPI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permits {
    granted: BTreeMap<u32, Granted>,
    /// Grants that are known to be missing.
    lost: u64,
}

/// What one SA was granted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Granted {
    /// First to last, in order and apart from each other.
    intervals: Vec<(u64, u64)>,
    /// The largest grant.
    size: u64,
}

impl Granted {
    /// What may be left out begins at `from`.
    fn add_line(&mut self, (first, last): (u64, u64), from: u64) {
        let size = last - from;
        self.add((first, last));
        self.size = self.size.max(size);
    }

    fn add(&mut self, (mut first, mut last): (u64, u64)) {
        self.size = self.size.max(last - first);
        // Those that touch it become one with it.
        let begin = self
            .intervals
            .partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = self
            .intervals
            .partition_point(|(start, _)| *start <= last.saturating_add(1));
        for (start, end) in self.intervals.drain(begin..end.max(begin)) {
            (first, last) = (first.min(start), last.max(end));
        }
        self.intervals.insert(begin, (first, last));
    }
}

/// A line that is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PermitError {
    pub line: usize,
    pub text: String,
}

impl fmt::Display for PermitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: {:?} is no grant; write `SPI first last`: eight hexadecimal digits and two \
             numbers, the first not above the last (and after a takeover the one from which on numbers \
             may be left out)",
            self.line, self.text
        )
    }
}

impl std::error::Error for PermitError {}

impl Permits {
    /// Reads a ledger.
    pub fn parse(text: &str) -> Result<Permits, PermitError> {
        let mut permits = Permits::default();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let words = words(line);
            if let Some(count) = lost(&words) {
                permits.lost = permits.lost.saturating_add(count);
            } else if let Some((spi, grant, from)) = grant(&words) {
                let granted = permits.granted.entry(spi).or_default();
                granted.add_line(grant, from);
            } else {
                // Half a line is one of those that the next line says were lost, or the last one so
                // far of a disk that is full.
                let last = lines.peek().is_none() && !text.ends_with('\n');
                permits.lost += u64::from(last && !words.is_empty());
                let half = last || lines.peek().is_some_and(|(_, next)| says_lost(next));
                if !(words.is_empty() || half) {
                    return Err(PermitError {
                        line: index + 1,
                        text: line.to_owned(),
                    });
                }
            }
        }
        Ok(permits)
    }

    /// What the daemon writes in place of grants that are missing.
    pub fn lost_line(count: u64) -> String {
        format!("{LOST} {count}\n")
    }

    /// How many grants are known to be missing.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    pub fn is_empty(&self) -> bool {
        self.granted.is_empty()
    }

    /// What another ledger has granted is granted too.
    pub fn add(&mut self, other: &Permits) {
        self.lost = self.lost.saturating_add(other.lost);
        for (spi, granted) in &other.granted {
            let ours = self.granted.entry(*spi).or_default();
            // Intervals that were joined are no larger grants.
            let size = ours.size.max(granted.size);
            for interval in &granted.intervals {
                ours.add(*interval);
            }
            ours.size = size;
        }
    }

    /// The last number that the SA was granted; `None` if the ledger does not know it.
    pub fn last(&self, spi: u32) -> Option<u64> {
        self.granted
            .get(&spi)?
            .intervals
            .last()
            .map(|grant| grant.1)
    }

    /// Whether the SA was granted this number.
    pub fn holds(&self, spi: u32, number: u64) -> bool {
        self.granted.get(&spi).is_some_and(|granted| {
            let index = granted.intervals.partition_point(|(_, end)| *end < number);
            let interval = granted.intervals.get(index);
            interval.is_some_and(|(start, _)| *start <= number)
        })
    }

    /// No takeover skips more than one whole grant, and the first number after it.
    pub fn greatest_gap(&self, spi: u32) -> Option<u64> {
        Some(self.granted.get(&spi)?.size.saturating_add(2))
    }
}

/// A line without its comment.
fn words(line: &str) -> Vec<&str> {
    let content = line.split('#').next().unwrap_or_default();
    content.split_whitespace().collect()
}

fn lost(words: &[&str]) -> Option<u64> {
    match words {
        [LOST, count] => count.parse().ok(),
        _ => None,
    }
}

fn says_lost(line: &str) -> bool {
    lost(&words(line)).is_some()
}

/// A grant, and from where on numbers may be left out.
fn grant(words: &[&str]) -> Option<(u32, (u64, u64), u64)> {
    let (spi, first, last, from) = match words {
        [spi, first, last] => (spi, first, last, first),
        [spi, first, last, from] => (spi, first, last, from),
        _ => return None,
    };
    let spi = spi.strip_prefix("0x").unwrap_or(spi);
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let from: u64 = from.parse().ok()?;
    let grant = (from <= first && first <= last).then_some((first, last))?;
    Some((u32::from_str_radix(spi, 16).ok()?, grant, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_read() {
        let text = "# SPI first last\nc001cafe 1 4096\n\n0xc001cafe 4097 8192 # more\n7 1 9\n";
        let permits = Permits::parse(text).expect("readable");
        assert_eq!(
            (permits.last(0xc001_cafe), permits.last(7)),
            (Some(8192), Some(9))
        );
        assert_eq!(permits.greatest_gap(7), Some(10));
        assert_eq!((permits.last(8), permits.greatest_gap(8)), (None, None));
        assert!(Permits::parse("# nothing\n").expect("readable").is_empty());
    }

    #[test]
    fn who_took_over_may_leave_numbers_out_and_use_none_of_them() {
        let permits = Permits::parse("7 129 256 60\n").unwrap();
        assert!(permits.holds(7, 129) && !permits.holds(7, 128) && !permits.holds(7, 60));
        assert_eq!(permits.greatest_gap(7), Some(256 - 60 + 2));
        assert!(Permits::parse("7 1 2 3 4\n").is_err() && Permits::parse("7 1 2 x\n").is_err());
    }

    #[test]
    fn grants_that_touch_are_one_interval_and_what_lies_between_others_is_not_granted() {
        let mut permits = Permits::parse("7 1 10\n7 11 20\n7 41 50\n7 31 40\n").unwrap();
        for (number, held) in [
            (0, false),
            (1, true),
            (20, true),
            (21, false),
            (31, true),
            (51, false),
        ] {
            assert_eq!(permits.holds(7, number), held, "{number}");
        }
        assert!(!permits.holds(8, 1));
        assert_eq!(permits.greatest_gap(7), Some(11));
        permits.add(&Permits::parse("7 15 35\n8 0 18446744073709551615\n").unwrap());
        assert!(permits.holds(7, 25) && permits.holds(8, u64::MAX));
        assert_eq!(permits.greatest_gap(7), Some(22));
        assert_eq!(permits.greatest_gap(8), Some(u64::MAX));
    }

    #[test]
    fn half_a_line_is_one_of_those_that_were_lost_if_the_next_line_says_so() {
        for half in ["c001c", "7 11", "7 11 2", "lost", "los"] {
            let text = format!("7 1 10\n{half}\nlost 2\n7 31 40\nlost 1\n");
            let mut permits = Permits::parse(&text).expect(half);
            assert_eq!((permits.last(7), permits.lost()), (Some(40), 3), "{half}");
            permits.add(&Permits::parse("lost 4\n").unwrap());
            assert_eq!(permits.lost(), 7);
        }
        let last = Permits::parse("7 1 10\n7 11").unwrap();
        assert_eq!((last.last(7), last.lost()), (Some(10), 1));
        assert!(Permits::parse("7 11\n7 31 40\nlost 2\n").is_err());
        let written = Permits::parse(&Permits::lost_line(9)).unwrap();
        assert_eq!(written.lost(), 9);
    }

    #[test]
    fn what_is_no_grant_is_named_by_its_line() {
        for wrong in [
            "c001cafe 1",
            "xyz 1 2",
            "7 2 1",
            "7 1 2 3",
            "7 -1 2",
            "7 0 18446744073709551616",
            "lost",
            "lost some",
        ] {
            let error = Permits::parse(&format!("7 1 2\n{wrong}\n")).expect_err(wrong);
            assert_eq!((error.line, error.text.as_str()), (2, wrong));
            assert!(error.to_string().contains("SPI first last"));
        }
    }
}
