//! ESP in tunnel mode, port to port: what each packet costs, beside the bare cipher of aws-lc-rs in
//! the same rounds. Timings on shared machines drift, so read the ratio.

mod bare;
mod latency;
mod memory;
mod overhead;
mod workers;

use std::error::Error;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hitless_bench::cipher::BurstCipher;
use hitless_bench::{Bench, Direction, IN_FLIGHT, Setup, parts};
use hitless_dataplane::aead::Engine;
use hitless_sa::EspSuite;

use crate::clock::{median, time};
use crate::machine::Pin;
use crate::print::note;
use crate::progress::Progress;
use crate::results::{EspLine, EspResults, Size};
use bare::Bare;
pub use overhead::count;

/// Simple IMIX: octets and share.
pub const IMIX: [(usize, usize); 3] = [(64, 7), (576, 4), (1500, 1)];
/// Sizes of the curve over packet sizes, and of everything else.
const CURVE: [usize; 6] = [64, 128, 256, 512, 1024, 1400];
const SIZES: [usize; 3] = [64, 512, 1400];
/// Rounds at least that warm caches and branch predictors up.
const WARM_UP: usize = 20;
/// Packets of each SA while it warms up, about: the first one of a flow takes the plain way, and what
/// that costs is another figure.
const WARM_UP_EACH: usize = 8;

/// Options of `hitless-perf esp`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Rounds of 256 packets for each figure
    #[arg(long, default_value_t = 300, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub rounds: usize,
    /// Only these experiments
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub only: Vec<Experiment>,
    /// Of the overhead count instructions too; needs valgrind
    #[arg(long)]
    pub instructions: bool,
    #[command(flatten)]
    pub pin: Pin,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Experiment {
    /// 64 to 1400 octets and IMIX, AES-128
    Sizes,
    /// AES-256, ESN, UDP encapsulation
    Variants,
    /// 1, 1,000 and 100,000 SAs in random order
    Sas,
    /// 1, 100 and 10,000 policies, with flows that are remembered and flows that are not
    Policies,
    /// 1 and 2 workers; one SA on 2 workers
    Workers,
    /// What leases, checkpoints and rings cost, together and each: rounds with and without them in turn
    Overhead,
    /// From arrival to departure at 10, 50 and 90 % of capacity
    Latency,
    /// Octets of an SA pair
    Memory,
}

impl Options {
    fn wants(&self, experiment: Experiment) -> bool {
        self.only.is_empty() || self.only.contains(&experiment)
    }
}

/// One figure to take.
struct Figure {
    experiment: &'static str,
    label: &'static str,
    setup: Setup,
    size: Size,
}

/// Measures what is asked for.
pub fn run(options: &Options) -> Result<EspResults, Box<dyn Error>> {
    let cores = options.pin.cores();
    if !cores.take(0) {
        note("not pinned to a core; figures will be noisier");
    }
    let engine = Engine::from_environment()?.unwrap_or_default();
    let figures = plan(options, Setup::plain(engine));
    let mut progress = Progress::new("esp", figures.len() * 2 + 12);
    let mut results = EspResults {
        engine: engine.name().to_owned(),
        rounds: options.rounds,
        ..EspResults::default()
    };
    // First, while the process is small: freed memory would be taken again unseen.
    if options.wants(Experiment::Memory) {
        progress.step("memory");
        results.memory = memory::measure(Setup::plain(engine))?;
    }
    for figure in &figures {
        let lengths = figure.size.lengths();
        for direction in Direction::BOTH {
            let what = format!("{} {} {}", figure.label, figure.size, direction.name());
            progress.step(&what);
            let line = measure(figure, &lengths, direction, options.rounds)?;
            results.lines.push(line);
        }
    }
    let plain = Setup::plain(engine);
    if options.wants(Experiment::Workers) {
        for size in SIZES {
            progress.step("workers");
            let lines = workers::measure(&plain, size, options.rounds, &cores)?;
            results.lines.extend(lines);
        }
    }
    if options.wants(Experiment::Overhead) {
        progress.step("overhead");
        results.overhead = overhead::measure(plain, options.rounds, &cores)?;
        if options.instructions {
            overhead::count_all(&mut results.overhead)?;
        }
    }
    if options.wants(Experiment::Latency) {
        for direction in Direction::BOTH {
            progress.step("latency");
            results.latency.extend(latency::measure(plain, direction)?);
        }
    }
    Ok(results)
}

/// Whether a size is this many octets.
pub fn is_size(size: &Size, octets: usize) -> bool {
    *size == Size::Octets(octets)
}

/// One SA with AES-128 at these sizes, both directions.
pub fn whole_path(sizes: &[usize], rounds: usize) -> Result<Vec<EspLine>, Box<dyn Error>> {
    let setup = Setup::plain(Engine::from_environment()?.unwrap_or_default());
    let mut lines = Vec::new();
    for size in sizes {
        let size = Size::Octets(*size);
        let lengths = size.lengths();
        let figure = Figure {
            experiment: "sizes",
            label: "aes128",
            setup,
            size,
        };
        for direction in Direction::BOTH {
            lines.push(measure(&figure, &lengths, direction, rounds)?);
        }
    }
    Ok(lines)
}

/// The figures that come from a single worker, in rounds beside the bare cipher.
fn plan(options: &Options, plain: Setup) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |experiment, label, setup, size| {
        figures.push(Figure {
            experiment,
            label,
            setup,
            size,
        });
    };
    if options.wants(Experiment::Sizes) {
        for size in CURVE {
            add("sizes", "aes128", plain, Size::Octets(size));
        }
        add("sizes", "aes128", plain, Size::Mix("imix".to_owned()));
    }
    if options.wants(Experiment::Variants) {
        let mut aes256 = plain;
        aes256.suite = EspSuite::Aes256Gcm16;
        let mut esn = plain;
        esn.esn = true;
        let mut udp = plain;
        udp.udp = true;
        for (label, setup) in [("aes256", aes256), ("esn", esn), ("udp", udp)] {
            for size in SIZES {
                add("variants", label, setup, Size::Octets(size));
            }
        }
    }
    if options.wants(Experiment::Sas) {
        for (label, sas) in [("1 SA", 1), ("1,000 SAs", 1000), ("100,000 SAs", 100_000)] {
            for size in [64, 512] {
                add("sas", label, Setup { sas, ..plain }, Size::Octets(size));
            }
        }
    }
    if options.wants(Experiment::Policies) {
        for policies in [0, 99, 9_999] {
            for (label, flows) in [("flow remembered", 1), ("flow new", 50_000)] {
                let setup = Setup {
                    policies,
                    flows,
                    ..plain
                };
                add("policies", label, setup, Size::Octets(64));
            }
        }
    }
    figures
}

impl Size {
    /// The lengths of the packets in flight.
    pub fn lengths(&self) -> Vec<usize> {
        match self {
            Size::Octets(size) => vec![*size; IN_FLIGHT],
            Size::Mix(_) => imix(IN_FLIGHT),
        }
    }
}

/// Lengths in the proportions of IMIX, mixed evenly.
pub fn imix(count: usize) -> Vec<usize> {
    let cycle = IMIX
        .iter()
        .flat_map(|(size, share)| std::iter::repeat_n(*size, *share));
    let mut cycle: Vec<usize> = cycle.collect();
    // Every fifth of twelve visits each once and keeps equal sizes apart.
    cycle = (0..cycle.len())
        .map(|i| cycle[i * 5 % cycle.len()])
        .collect();
    cycle.into_iter().cycle().take(count).collect()
}

/// What ESP encrypts: the inner packet, padding to four octets, the trailer.
fn texts(lengths: &[usize]) -> Vec<usize> {
    let text = |length: &usize| (length + 2).next_multiple_of(4);
    lengths.iter().map(text).collect()
}

/// The bare cipher on what ESP encrypts.
fn bare(setup: &Setup, lengths: &[usize]) -> Result<Bare, Box<dyn Error>> {
    let bare = Bare::new(setup.suite, setup.esn, &texts(lengths));
    Ok(bare.map_err(|_| "aws-lc-rs refused the benchmark's key")?)
}

fn bare_round(bare: &mut Bare, direction: Direction) -> Result<Duration, Box<dyn Error>> {
    let alone = match direction {
        Direction::Encrypt => bare.seal(),
        Direction::Decrypt => bare.open(),
    };
    Ok(alone.map_err(|_| "aws-lc-rs failed")?)
}

/// Time to seal or open every packet once.
fn burst_round(burst: &mut BurstCipher, direction: Direction) -> Result<Duration, Box<dyn Error>> {
    let mut good = true;
    let elapsed = match direction {
        Direction::Encrypt => time(|| good = burst.seal()),
        Direction::Decrypt => {
            burst.seal();
            time(|| good = burst.open())
        }
    };
    match good {
        true => Ok(elapsed),
        false => Err("the burst cipher refused what it had sealed".into()),
    }
}

/// Times the worker until all that was loaded has left.
fn drain(bench: &mut Bench, loaded: usize) -> Result<Duration, Box<dyn Error>> {
    let before = bench.sent();
    let elapsed = time(|| bench.run());
    bench.expect(before, loaded)?;
    Ok(elapsed)
}

fn measure(
    figure: &Figure,
    lengths: &[usize],
    direction: Direction,
    rounds: usize,
) -> Result<EspLine, Box<dyn Error>> {
    let setup = figure.setup;
    let mut bench = Bench::new(setup, direction, 0, &parts(&setup))?;
    let mut bare = bare(&setup, lengths)?;
    let mut burst = BurstCipher::new(setup.suite, setup.esn, &texts(lengths));
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bursts, mut bounds) = (Vec::new(), Vec::new());
    let warm_up = WARM_UP.max(WARM_UP_EACH * setup.sas as usize / lengths.len().max(1));
    for _ in WARM_UP..warm_up {
        bench.load(lengths)?;
        drain(&mut bench, lengths.len())?;
    }
    for round in 0..WARM_UP + rounds {
        bench.load(lengths)?;
        let elapsed = drain(&mut bench, lengths.len())?;
        let alone = bare_round(&mut bare, direction)?;
        if let Some(burst) = &mut burst {
            bursts.push(each(burst_round(burst, direction)?, lengths));
            let mut done = false;
            let bound = time(|| done = burst.bound());
            bounds.extend(done.then(|| each(bound, lengths)));
        }
        if round >= WARM_UP {
            ours.push(each(elapsed, lengths));
            theirs.push(each(alone, lengths));
            ratios.push(elapsed.as_secs_f64() / alone.as_secs_f64());
        }
    }
    let ns = median(&mut ours);
    Ok(EspLine {
        experiment: figure.experiment.to_owned(),
        label: figure.label.to_owned(),
        size: figure.size.clone(),
        direction: direction.name().to_owned(),
        sas: setup.sas,
        policies: setup.policies + setup.sas,
        workers: 1,
        mpps: 1e3 / ns,
        gbps: mean(lengths) * 8.0 / ns,
        ns_per_packet: ns,
        bare_ns: median(&mut theirs),
        ratio_to_bare: median(&mut ratios),
        burst_ns: (!bursts.is_empty()).then(|| median(&mut bursts)),
        bound_ns: (!bounds.is_empty()).then(|| median(&mut bounds)),
    })
}

/// Nanoseconds of each packet.
fn each(elapsed: Duration, lengths: &[usize]) -> f64 {
    elapsed.as_secs_f64() * 1e9 / lengths.len() as f64
}

fn mean(lengths: &[usize]) -> f64 {
    lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
}
