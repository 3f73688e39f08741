//! A ledger from outside: which sequence numbers each SA was granted. One line a grant, `#` begins
//! a comment:
//!
//! ```text
//! # SPI     first  last
//! c001cafe  1      4096
//! c001cafe  4097   8192
//! ```

use std::collections::BTreeMap;
use std::fmt;

/// Grants by SPI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permits(BTreeMap<u32, Vec<(u64, u64)>>);

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
             numbers, the first not above the last",
            self.line, self.text
        )
    }
}

impl std::error::Error for PermitError {}

impl Permits {
    /// Reads a ledger.
    pub fn parse(text: &str) -> Result<Permits, PermitError> {
        let mut permits = Permits::default();
        for (index, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = content.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let (spi, grant) = grant(&words).ok_or_else(|| PermitError {
                line: index + 1,
                text: line.to_owned(),
            })?;
            permits.0.entry(spi).or_default().push(grant);
        }
        Ok(permits)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last number that the SA was granted; `None` if the ledger does not know it.
    pub fn last(&self, spi: u32) -> Option<u64> {
        self.0.get(&spi)?.iter().map(|grant| grant.1).max()
    }

    /// No takeover skips more than one whole grant, and the first number after it.
    pub fn greatest_gap(&self, spi: u32) -> Option<u64> {
        let sizes = self
            .0
            .get(&spi)?
            .iter()
            .map(|(first, last)| last - first + 2);
        sizes.max()
    }
}

fn grant(words: &[&str]) -> Option<(u32, (u64, u64))> {
    let [spi, first, last] = words else {
        return None;
    };
    let spi = spi.strip_prefix("0x").unwrap_or(spi);
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let grant = (first <= last && last < u64::MAX - 1).then_some((first, last))?;
    Some((u32::from_str_radix(spi, 16).ok()?, grant))
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
    fn what_is_no_grant_is_named_by_its_line() {
        for wrong in [
            "c001cafe 1",
            "xyz 1 2",
            "7 2 1",
            "7 1 2 3",
            "7 -1 2",
            "7 0 18446744073709551615",
        ] {
            let error = Permits::parse(&format!("7 1 2\n{wrong}\n")).expect_err(wrong);
            assert_eq!((error.line, error.text.as_str()), (2, wrong));
            assert!(error.to_string().contains("SPI first last"));
        }
    }
}
