//! What an SA pair occupies: resident memory of the process before and after many are installed.

use std::error::Error;
use std::fs;

use crate::results::MemoryLine;
use hitless_bench::{Bench, Direction, Setup, parts};

const PAIRS: u32 = 20_000;

/// Octets of a pair in a worker, its cell and its policy included.
pub fn measure(plain: Setup) -> Result<Vec<MemoryLine>, Box<dyn Error>> {
    let setup = Setup {
        sas: PAIRS,
        ..plain
    };
    let few = Bench::new(plain, Direction::Encrypt, 0, &parts(&plain))?;
    let before = resident()?;
    let parts = parts(&setup);
    let many = Bench::new(setup, Direction::Encrypt, 0, &parts)?;
    let after = resident()?;
    drop((few, many));
    Ok(vec![MemoryLine {
        sas: PAIRS,
        bytes_per_pair: after.saturating_sub(before) / u64::from(PAIRS),
    }])
}

/// Octets of this process in memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    const PAGE: u64 = 4096;
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages
        .split(' ')
        .nth(1)
        .ok_or("statm has no second field")?
        .parse()?;
    Ok(pages * PAGE)
}
