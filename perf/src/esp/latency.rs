//! How long a packet takes from its arrival to its departure, at shares of what the worker can do.
//!
//! Packets arrive when they are due, whether the worker is ready or not: one that is late waits, and
//! its waiting counts (no coordinated omission). On a shared machine the worker is stopped now and
//! then for milliseconds, which says nothing about it: where the clock leaps by more than any turn
//! takes, the leap is taken out, and told.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::{BURST, Burst, Port, PortCounters};

use crate::clock::Moment;
use crate::results::LatencyLine;
use hitless_bench::feed::MTU;
use hitless_bench::{Bench, Direction, Setup, parts};

/// Packets of a run, and those of them at its start that warm caches up and are not counted.
const PACKETS: usize = 60_000;
const WARM_UP: usize = 10_000;
/// Turns without packets that come before, in which the worker takes its tables.
const EMPTY_TURNS: usize = 256;
const SIZES: [usize; 2] = [64, 1400];
const LOADS: [u32; 3] = [10, 50, 90];
/// What a histogram can hold, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// A worker that does not look at the clock for so long was not running.
const LEAP: Duration = Duration::from_micros(150);

/// A clock that stands still while the machine runs something else.
struct Clock {
    start: Moment,
    last: Duration,
    taken: Duration,
}

impl Clock {
    fn new() -> Clock {
        Clock {
            start: Moment::now(),
            last: Duration::ZERO,
            taken: Duration::ZERO,
        }
    }

    /// Since the start.
    fn now(&mut self) -> Duration {
        let now = self.start.elapsed();
        let step = now.saturating_sub(self.last);
        if step > LEAP {
            self.taken += step;
        }
        self.last = now;
        now.saturating_sub(self.taken)
    }
}

/// What both ends of the worker share with the measurement.
struct Run {
    clock: Clock,
    /// Between two arrivals; nothing if the next packet is always there.
    gap_ns: f64,
    frames: Vec<Vec<u8>>,
    arrived: usize,
    left: usize,
    /// When the last packet left that is not counted.
    warm: Duration,
    /// When those that are inside had arrived, in nanoseconds after the start.
    inside: VecDeque<u64>,
    histogram: Histogram<u64>,
}

type Shared = Arc<Mutex<Run>>;

fn with<T>(run: &Shared, act: impl FnOnce(&mut Run) -> T) -> T {
    act(&mut run.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Arrivals(Shared);
struct Departures(Shared);

impl Port for Arrivals {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        with(&self.0, |run| {
            let now = run.clock.now().as_nanos() as u64;
            while burst.len() < BURST {
                let due = match run.gap_ns {
                    0.0 => now,
                    gap => (run.arrived as f64 * gap) as u64,
                };
                let Some(frame) = run.frames.get(run.arrived).filter(|_| due <= now) else {
                    return;
                };
                let Some(packet) = pool.copy_in(frame) else {
                    return;
                };
                burst.push(packet);
                run.arrived += 1;
                run.inside.push_back(due);
            }
        });
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        burst.drain(..).for_each(|packet| pool.free(packet));
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

impl Port for Departures {
    fn receive(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        with(&self.0, |run| {
            let since = run.clock.now();
            let now = since.as_nanos() as u64;
            for packet in burst.drain(..) {
                pool.free(packet);
                run.left += 1;
                // One SA, one way: packets leave in the order in which they came.
                let arrived = run.inside.pop_front();
                if run.left <= WARM_UP {
                    run.warm = since;
                } else if let Some(arrived) = arrived {
                    run.histogram
                        .saturating_record(now.saturating_sub(arrived).max(1));
                }
            }
        });
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

/// Every size at every load.
pub fn measure(plain: Setup, direction: Direction) -> Result<Vec<LatencyLine>, Box<dyn Error>> {
    let mut lines = Vec::new();
    for size in SIZES {
        let capacity = run(plain, direction, size, 0.0)?.rate;
        for load in LOADS {
            let rate = capacity * f64::from(load) / 100.0;
            let outcome = run(plain, direction, size, 1e9 / rate)?;
            let histogram = &outcome.histogram;
            let quantile = |q| histogram.value_at_quantile(q);
            lines.push(LatencyLine {
                direction: direction.name().to_owned(),
                size,
                load_percent: load,
                mpps: rate / 1e6,
                p50_ns: quantile(0.5),
                p99_ns: quantile(0.99),
                p999_ns: quantile(0.999),
                max_ns: histogram.max(),
                taken_ms: outcome.taken.as_secs_f64() * 1e3,
                curve: curve(histogram),
            });
        }
    }
    Ok(lines)
}

/// Quantiles for a plot.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let quantiles = [
        0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999,
    ];
    quantiles
        .map(|q| (q, histogram.value_at_quantile(q)))
        .to_vec()
}

/// What a run came to.
struct Outcome {
    /// Packets a second.
    rate: f64,
    histogram: Histogram<u64>,
    /// How long the machine ran something else.
    taken: Duration,
}

/// Sends all packets with a gap between them.
fn run(
    setup: Setup,
    direction: Direction,
    size: usize,
    gap_ns: f64,
) -> Result<Outcome, Box<dyn Error>> {
    let shared = Arc::new(Mutex::new(Run {
        clock: Clock::new(),
        gap_ns,
        frames: Vec::new(),
        arrived: 0,
        left: 0,
        warm: Duration::ZERO,
        inside: VecDeque::with_capacity(PACKETS),
        histogram: Histogram::new_with_max(LONGEST, 3)?,
    }));
    let (from, to) = (
        Arrivals(Arc::clone(&shared)),
        Departures(Arc::clone(&shared)),
    );
    let (from, to) = (Box::new(from), Box::new(to));
    let mut bench = Bench::between(setup, direction, 0, &parts(&setup), from, to)?;
    let frames: Result<Vec<_>, _> = (0..PACKETS).map(|_| bench.frame(size)).collect();
    let frames = frames?;
    for _ in 0..EMPTY_TURNS {
        bench.turn();
    }
    bench.serve();
    with(&shared, |run| {
        run.clock = Clock::new();
        run.frames = frames;
    });
    let started = Moment::now();
    let patience = Duration::from_secs(30);
    loop {
        for _ in 0..256 {
            bench.turn();
        }
        bench.serve();
        if with(&shared, |run| run.left == PACKETS) {
            break;
        }
        if started.elapsed() > patience {
            return Err(format!("packets got lost: {:?}", bench.drops()).into());
        }
    }
    Ok(with(&shared, |run| Outcome {
        rate: (PACKETS - WARM_UP) as f64 / (run.clock.now() - run.warm).as_secs_f64(),
        histogram: run.histogram.clone(),
        taken: run.clock.taken,
    }))
}
