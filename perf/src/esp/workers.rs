//! Several workers, each on a core of its own: with SAs of their own, and all on one fat SA.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{WARM_UP, bare, bare_round, drain, each, median};
use crate::machine::Cores;
use crate::results::{EspLine, Size};
use hitless_bench::{Bench, Direction, IN_FLIGHT, Part, Setup, fat_parts, parts};

/// Everybody waits for everybody, without sleeping: a round takes some microseconds only.
struct Gate {
    arrived: AtomicUsize,
    workers: usize,
}

impl Gate {
    fn pass(&self, round: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.arrived.load(Ordering::Acquire) < (round + 1) * self.workers {
            spins += 1;
            // On a busy machine the other one may not be running at all.
            if spins.is_multiple_of(1000) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// One worker and two with SAs of their own; two on one SA.
pub fn measure(
    plain: &Setup,
    size: usize,
    rounds: usize,
    cores: &Cores,
) -> Result<Vec<EspLine>, Box<dyn Error>> {
    let mut lines = Vec::new();
    for direction in Direction::BOTH {
        for (workers, fat) in [(1, false), (2, false), (2, true)] {
            let kind = Kind {
                direction,
                workers,
                fat,
            };
            if cores.len() >= workers {
                lines.push(together(plain, size, rounds, cores, kind)?);
            }
        }
    }
    Ok(lines)
}

#[derive(Clone, Copy)]
struct Kind {
    direction: Direction,
    workers: usize,
    /// All on one SA.
    fat: bool,
}

fn together(
    plain: &Setup,
    size: usize,
    rounds: usize,
    cores: &Cores,
    kind: Kind,
) -> Result<EspLine, Box<dyn Error>> {
    let gate = Gate {
        arrived: AtomicUsize::new(0),
        workers: kind.workers,
    };
    let shared = fat_parts(kind.workers);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..kind.workers)
            .map(|id| {
                let (gate, shared) = (&gate, &shared);
                scope.spawn(move || {
                    cores.take(id);
                    let own = match shared.get(id).filter(|_| kind.fat) {
                        Some(part) => vec![part.clone()],
                        None => parts(plain),
                    };
                    one(plain, size, rounds, kind.direction, id, &own, gate)
                        .map_err(|error| error.to_string())
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.collect()
    });
    let mut mpps = 0.0;
    let (mut ns_sum, mut bare_sum) = (0.0, 0.0);
    for result in results {
        let (ns, bare) = result.map_err(|_| "a worker panicked")??;
        mpps += 1e3 / ns;
        (ns_sum, bare_sum) = (ns_sum + ns, bare_sum + bare);
    }
    let workers = kind.workers as f64;
    Ok(EspLine {
        experiment: "workers".to_owned(),
        label: if kind.fat { "one SA" } else { "an SA each" }.to_owned(),
        size: Size::Octets(size),
        direction: kind.direction.name().to_owned(),
        sas: if kind.fat { 1 } else { kind.workers as u32 },
        policies: 1,
        workers: kind.workers,
        mpps,
        gbps: mpps * size as f64 * 8.0 / 1e3,
        ns_per_packet: ns_sum / workers,
        bare_ns: bare_sum / workers,
        ratio_to_bare: ns_sum / bare_sum,
        burst_ns: None,
        bound_ns: None,
    })
}

/// One worker's nanoseconds a packet, and those of the bare cipher beside it.
fn one(
    setup: &Setup,
    size: usize,
    rounds: usize,
    direction: Direction,
    id: usize,
    parts: &[Part],
    gate: &Gate,
) -> Result<(f64, f64), Box<dyn Error>> {
    let lengths = vec![size; IN_FLIGHT];
    let mut bench = Bench::new(*setup, direction, id, parts);
    let mut bare = bare(setup, &lengths)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut failed = None;
    for round in 0..WARM_UP + rounds {
        // Also after a failure: the others wait at the gate.
        let loaded = match &mut bench {
            Ok(bench) => bench.load(&lengths),
            Err(_) => Ok(()),
        };
        gate.pass(round);
        let measured = match &mut bench {
            Ok(bench) => loaded.and_then(|()| drain(bench, lengths.len())),
            Err(error) => Err(error.to_string().into()),
        };
        match measured {
            Ok(elapsed) if round >= WARM_UP => ours.push(each(elapsed, &lengths)),
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
        let alone = bare_round(&mut bare, direction)?;
        theirs.push(each(alone, &lengths));
    }
    match failed {
        Some(error) => Err(error),
        None => Ok((median(&mut ours), median(&mut theirs))),
    }
}
