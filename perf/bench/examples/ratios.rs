//! What many SAs cost, by turns in one process: nanoseconds of a packet with so many SAs in random
//! order, and the ratio to a single one. Median and least of many short rounds.
//!
//! `cargo run --release -p hitless-bench --example ratios -- [octets] [rounds] [SAs...]`

use std::error::Error;
use std::time::Instant;

use hitless_bench::{Bench, Direction, IN_FLIGHT, Setup, parts};
use hitless_dataplane::aead::Engine;

/// Packets of each SA before it counts.
const WARM_UP: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args().skip(1).map(|word| word.parse());
    let arguments: Vec<usize> = arguments.collect::<Result<_, _>>()?;
    let (size, rounds, sas) = match arguments.as_slice() {
        [size, rounds, sas @ ..] if !sas.is_empty() => (*size, *rounds, sas),
        _ => (64, 400, [1, 1000].as_slice()),
    };
    let plain = Setup::plain(Engine::from_environment()?.unwrap_or_default());
    let lengths = [size; IN_FLIGHT];
    let flows = std::env::var("FLOWS").map_or(Ok(1), |flows| flows.parse())?;
    let only = std::env::var("DIRECTION").ok();
    for direction in Direction::BOTH {
        if only.as_deref().is_some_and(|only| only != direction.name()) {
            continue;
        }
        let mut benches = Vec::new();
        for sas in sas {
            let setup = Setup {
                sas: *sas as u32,
                flows,
                ..plain
            };
            let mut bench = Bench::new(setup, direction, 0, &parts(&setup))?;
            for _ in 0..4 + WARM_UP * sas / IN_FLIGHT {
                round(&mut bench, &lengths)?;
            }
            benches.push((bench, Vec::new()));
        }
        for _ in 0..rounds {
            for (bench, times) in &mut benches {
                // What the others left in the caches is not what is measured.
                round(bench, &lengths)?;
                times.push(round(bench, &lengths)?);
            }
        }
        let mut one = None;
        for (sas, (_, times)) in sas.iter().zip(&mut benches) {
            times.sort_by(f64::total_cmp);
            let least = times.first().copied().unwrap_or(0.0);
            let median = times.get(times.len() / 2).copied().unwrap_or(0.0);
            let (first, middle) = *one.get_or_insert((least, median));
            println!(
                "{} {size} B {sas:>7} SAs: median {median:6.1} ns ({:.2}), least {least:6.1} ns ({:.2})",
                direction.name(),
                median / middle,
                least / first,
            );
        }
    }
    Ok(())
}

fn round(bench: &mut Bench, lengths: &[usize]) -> Result<f64, Box<dyn Error>> {
    bench.load(lengths)?;
    let before = bench.sent();
    #[expect(
        clippy::disallowed_methods,
        reason = "measuring time is what this program is for"
    )]
    let begun = Instant::now();
    bench.run();
    let elapsed = begun.elapsed();
    bench.expect(before, lengths.len())?;
    Ok(elapsed.as_secs_f64() * 1e9 / lengths.len() as f64)
}
