//! What leases, checkpoints and the rings that carry them cost on the packet path: workers that are
//! alike but for them, by turns in each round, so that the machine's moods hit all. Beside them runs
//! what the control thread does of it, on a core of its own: each millisecond it looks at the cells,
//! extends their leases and collects checkpoints.
//!
//! What a worker without any of it still does is draw from a lease and ask its high water, only that
//! neither ever ends: a gateway without leases counts its numbers too. What that draw costs above plain
//! counting is measured by itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use hitless_bench::{Bench, Direction, IN_FLIGHT, Part, Setup, parts};
use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::checkpoint::Collector;
use hitless_sa::{Lease, SequenceNumber};

use super::{SIZES, each};
use crate::clock::{had, median, time};
use crate::machine::Cores;
use crate::results::OverheadLine;

/// What a worker has of it.
#[derive(Clone, Copy)]
struct Kind {
    of: &'static str,
    /// Leases that end and are extended.
    leases: bool,
    checkpoints: bool,
}

const KINDS: [Kind; 5] = [
    kind("none", false, false),
    kind("nothing", false, false),
    kind("leases", true, false),
    kind("checkpoints and their ring", false, true),
    kind("everything", true, true),
];

const fn kind(of: &'static str, leases: bool, checkpoints: bool) -> Kind {
    Kind {
        of,
        leases,
        checkpoints,
    }
}

/// Loads of a worker in a round, so that a round has a checkpoint; one more goes before, into caches
/// that another worker has left.
const LOADS: usize = 40;
/// The same of what is counted.
const COUNTED_LOADS: usize = 80;
const WARM_UP: usize = 20;
/// So many times all workers are made anew: where memory happens to lie is luck.
const SETS: usize = 6;
/// How often the control thread looks.
const SCAN: Duration = Duration::from_millis(1);
/// Numbers of a lease: some 200 ms of the fastest worker's. Extended when half is used.
const LEASE: u64 = 1 << 21;
/// What a load may use at most.
const ENOUGH: u64 = 2 * IN_FLIGHT as u64;

/// All kinds at every size in both directions, then draws alone.
pub fn measure(
    plain: Setup,
    rounds: usize,
    cores: &Cores,
) -> Result<Vec<OverheadLine>, Box<dyn Error>> {
    let mut lines = Vec::new();
    for size in SIZES {
        for direction in Direction::BOTH {
            lines.extend(beside_none(plain, size, direction, rounds, cores)?);
        }
    }
    let packet = lines.first().map_or(f64::NAN, |line| line.without_ns);
    lines.push(draw_alone(&plain, packet, 32));
    lines.push(draw_alone(&plain, packet, 1));
    Ok(lines)
}

/// A worker and the cells that it draws from.
struct Subject {
    bench: Bench,
    cells: Vec<Arc<Cell>>,
}

impl Subject {
    fn new(plain: Setup, kind: Kind, direction: Direction) -> Result<Subject, Box<dyn Error>> {
        let setup = Setup {
            checkpoints: kind.checkpoints,
            ..plain
        };
        let mut parts = parts(&setup);
        let mut cells = Vec::new();
        if kind.leases {
            for part in &mut parts {
                lease(part);
                cells.push(Arc::clone(&part.cell));
            }
        }
        Ok(Subject {
            bench: Bench::new(setup, direction, 0, &parts)?,
            cells,
        })
    }

    /// One load, once the leases have room for it: what the worker had of a core for it, for half of
    /// the rounds or more may be disturbed on a busy machine.
    fn load(&mut self, lengths: &[usize]) -> Result<Duration, Box<dyn Error>> {
        while self.cells.iter().any(|cell| left(cell) < ENOUGH) {
            thread::yield_now();
        }
        self.bench.load(lengths)?;
        let (sent, begun) = (self.bench.sent(), had());
        self.bench.run();
        let took = had().saturating_sub(begun);
        self.bench.expect(sent, lengths.len())?;
        Ok(took)
    }

    /// Nanoseconds of a packet.
    fn visit(&mut self, lengths: &[usize]) -> Result<f64, Box<dyn Error>> {
        self.load(lengths)?;
        let mut sum = Duration::ZERO;
        for _ in 0..LOADS {
            sum += self.load(lengths)?;
        }
        Ok(each(sum, lengths) / LOADS as f64)
    }
}

/// Gives an SA a lease as a gateway has it.
fn lease(part: &mut Part) {
    let end = SequenceNumber(LEASE);
    let lease = Lease {
        grant: end,
        high_water: end,
    };
    part.cell = Arc::new(Cell::new(SequenceNumber(1), lease));
}

/// Numbers that may still be sent, or received, whichever are fewer.
fn left(cell: &Cell) -> u64 {
    let inbound = cell.high_water().0.saturating_sub(cell.inbound_top().0);
    cell.remaining().min(inbound)
}

/// What a standby has acknowledged in time.
fn extend(cell: &Cell) {
    if left(cell) < LEASE / 2 {
        cell.raise(Lease {
            grant: SequenceNumber(cell.cursor().0 + LEASE),
            high_water: SequenceNumber(cell.inbound_top().0 + LEASE),
        });
    }
}

/// The control thread, until the other end is gone.
fn attend(cells: &[Arc<Cell>], mut collectors: Vec<Collector>, end: &Receiver<()>) {
    while end.recv_timeout(SCAN) == Err(RecvTimeoutError::Timeout) {
        cells.iter().for_each(|cell| extend(cell));
        for collector in &mut collectors {
            collector.drain(|_, checkpoint| {
                black_box(checkpoint);
            });
        }
    }
}

/// What was measured of one kind in each round.
#[derive(Default)]
struct Measured {
    ns: Vec<f64>,
    percents: Vec<f64>,
}

fn beside_none(
    plain: Setup,
    size: usize,
    direction: Direction,
    rounds: usize,
    cores: &Cores,
) -> Result<Vec<OverheadLine>, Box<dyn Error>> {
    let lengths = [size; IN_FLIGHT];
    let mut measured: [Measured; KINDS.len()] = Default::default();
    for set in 0..SETS {
        let mut subjects: [Option<Subject>; KINDS.len()] = Default::default();
        for n in 0..KINDS.len() {
            let index = (n + set) % KINDS.len();
            subjects[index] = Some(Subject::new(plain, KINDS[index], direction)?);
        }
        let mut subjects: Vec<Subject> = subjects.into_iter().flatten().collect();
        let collectors = subjects.iter_mut().map(|it| it.bench.take_checkpoints());
        let collectors: Vec<Collector> = collectors.collect();
        let cells: Vec<_> = subjects.iter().flat_map(|it| it.cells.clone()).collect();
        let (alive, end) = channel();
        thread::scope(|scope| {
            let cells = &cells;
            scope.spawn(move || {
                cores.take(1);
                attend(cells, collectors, &end);
            });
            let done = rounds_of(
                &mut subjects,
                &lengths,
                rounds.div_ceil(SETS),
                &mut measured,
            );
            drop(alive);
            done
        })?;
    }
    let [none, others @ ..] = &mut measured;
    let without = median(&mut none.ns);
    let lines = KINDS[1..].iter().zip(others);
    let lines = lines.map(|(kind, of)| line(kind.of, size, direction, of, without));
    Ok(lines.collect())
}

fn rounds_of(
    subjects: &mut [Subject],
    lengths: &[usize],
    rounds: usize,
    measured: &mut [Measured],
) -> Result<(), Box<dyn Error>> {
    for subject in &mut *subjects {
        for _ in 0..WARM_UP {
            subject.load(lengths)?;
        }
        // Checkpoints come at the pace of a worker that is never idle.
        let took = subject.load(lengths)?;
        subject.bench.set_tick(took);
    }
    let mut ns = vec![0.0; subjects.len()];
    for round in 0..rounds {
        // Who goes first takes turns, too.
        for n in 0..subjects.len() {
            let index = (n + round) % subjects.len();
            ns[index] = subjects[index].visit(lengths)?;
        }
        for (measured, each) in measured.iter_mut().zip(&ns) {
            measured.ns.push(*each);
            measured.percents.push((each / ns[0] - 1.0) * 100.0);
        }
    }
    Ok(())
}

fn line(
    of: &str,
    size: usize,
    direction: Direction,
    measured: &mut Measured,
    without: f64,
) -> OverheadLine {
    let percent = median(&mut measured.percents);
    // In order now. The ranks around the median that it lies between in 95 % of all samples.
    let at = |rank: f64| {
        let last = measured.percents.len().saturating_sub(1);
        let index = (rank.max(0.0) as usize).min(last);
        measured.percents.get(index).copied().unwrap_or(f64::NAN)
    };
    let count = measured.percents.len() as f64;
    let (middle, reach) = (count / 2.0, 0.98 * count.sqrt());
    OverheadLine {
        of: of.to_owned(),
        size,
        direction: direction.name().to_owned(),
        with_ns: median(&mut measured.ns),
        without_ns: without,
        percent,
        sure: Some((at(middle - reach), at(middle + reach))),
        half: Some((at(count / 4.0), at(count * 3.0 / 4.0))),
        instructions: None,
    }
}

/// Drawing the numbers of so many packets from a lease, above plain counting, for each of them.
fn draw_alone(plain: &Setup, packet_ns: f64, burst: u32) -> OverheadLine {
    const DRAWS: u32 = 100_000;
    let parts = parts(plain);
    let cells = || parts.iter().cycle().take(DRAWS as usize);
    let drawing = time(|| {
        for part in cells() {
            black_box(part.cell.draw(burst).len());
        }
    });
    let mut next = 1u64;
    let counting = time(|| {
        for _ in cells() {
            next = black_box(next + u64::from(burst));
        }
    });
    let more = drawing.as_secs_f64() - counting.as_secs_f64();
    let ns = more * 1e9 / f64::from(DRAWS * burst);
    OverheadLine {
        of: format!("a draw for {burst} packets alone"),
        size: SIZES[0],
        direction: Direction::Encrypt.name().to_owned(),
        with_ns: packet_ns,
        without_ns: packet_ns - ns,
        percent: ns / (packet_ns - ns) * 100.0,
        sure: None,
        half: None,
        instructions: None,
    }
}

/// Counts the instructions of every line under callgrind, which knows no AVX-512: with AES-NI.
pub fn count_all(lines: &mut [OverheadLine]) -> Result<(), Box<dyn Error>> {
    let mut none = BTreeMap::new();
    for line in lines.iter_mut().filter(|line| line.sure.is_some()) {
        let case = |of: &str| format!("{of}/{}/{}", line.size, line.direction);
        let without = case(KINDS[0].of);
        let without = match none.get(&without) {
            Some(counted) => *counted,
            None => {
                let counted = counted_by_valgrind(&without)?;
                none.insert(without, counted);
                counted
            }
        };
        line.instructions = Some((counted_by_valgrind(&case(&line.of))?, without));
    }
    Ok(())
}

/// Instructions of a packet.
fn counted_by_valgrind(case: &str) -> Result<f64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*overhead::counted*")
        .arg(std::env::current_exe()?)
        .args(["count-overhead", case])
        .env("HITLESS_AEAD", "burst-aesni")
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse::<f64>().ok())
        .filter(|count| *count > 0.0 && output.status.success());
    let packets = (COUNTED_LOADS * IN_FLIGHT) as f64;
    let collected = collected.ok_or_else(|| format!("valgrind counted nothing:\n{said}"))?;
    Ok(collected / packets)
}

/// Callgrind counts inside this function alone.
#[inline(never)]
fn counted(bench: &mut Bench) {
    bench.run();
}

/// One case, `everything/64/encrypt`, to be counted.
pub fn count(case: &str) -> Result<(), Box<dyn Error>> {
    let mut words = case.split('/');
    let unknown = || format!("no case {case:?}");
    let kind = words
        .next()
        .and_then(|of| KINDS.iter().find(|kind| kind.of == of));
    let size = words.next().and_then(|size| size.parse().ok());
    let direction = words.next().and_then(|name| {
        let mut both = Direction::BOTH.into_iter();
        both.find(|direction| direction.name() == name)
    });
    let plain = Setup::plain(Engine::from_environment()?.unwrap_or_default());
    let mut subject = Subject::new(
        plain,
        *kind.ok_or_else(unknown)?,
        direction.ok_or_else(unknown)?,
    )?;
    let lengths = [size.ok_or_else(unknown)?; IN_FLIGHT];
    subject.bench.set_tick(Duration::from_micros(25));
    for load in 0..WARM_UP + COUNTED_LOADS {
        subject.cells.iter().for_each(|cell| extend(cell));
        subject.bench.load(&lengths)?;
        let before = subject.bench.sent();
        match load < WARM_UP {
            true => subject.bench.run(),
            false => counted(&mut subject.bench),
        }
        subject.bench.expect(before, IN_FLIGHT)?;
    }
    Ok(())
}
