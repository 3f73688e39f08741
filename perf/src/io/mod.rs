//! `hitless-perf io`: a worker with ESP beside a loop that only forwards, over the same kernel ports.
//! Packets are laid ready in the port, then the time to take and send them on is measured: in turn
//! for both, so that the machine's moods hit both. All of it runs in a network namespace without a
//! name, which is gone when the process is.
//!
//! ```text
//!  generator -> veth or TAP -> port | worker or bare loop | port -> veth or TAP -> nobody
//! ```

mod lane;

use std::error::Error;
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use hitless_bench::{Direction, Setup};
use hitless_dataplane::aead::Engine;

use crate::clock::median;
use crate::machine::Pin;
use crate::progress::Progress;
use crate::results::IoLine;
use lane::{Frames, Lane};

/// Packets that are laid ready at a time.
const WINDOW: usize = 256;
const WARM_UP: usize = 10;

/// Options of `hitless-perf io`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Rounds of 256 packets for each figure
    #[arg(long, default_value_t = 200, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub rounds: usize,
    /// Only these drivers
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DRIVERS")]
    pub drivers: Vec<Driver>,
    /// Octets of the inner packets
    #[arg(long, value_delimiter = ',', value_name = "SIZES", default_values_t = [64, 1400],
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(64..=1500))]
    pub sizes: Vec<usize>,
    #[command(flatten)]
    pub pin: Pin,
    /// This process is the one inside the namespace.
    #[arg(long, hide = true)]
    pub inside: bool,
}

impl Options {
    /// As for everything else that is measured.
    pub fn like(esp: &crate::esp::Options) -> Options {
        Options {
            rounds: esp.rounds,
            drivers: Vec::new(),
            sizes: vec![64, 1400],
            pin: esp.pin.clone(),
            inside: false,
        }
    }
}

/// Over what packets come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Driver {
    #[value(name = "af_xdp")]
    AfXdp,
    #[value(name = "af_packet")]
    AfPacket,
    Tap,
}

impl Driver {
    /// What it is measured over.
    fn name(self) -> &'static str {
        match self {
            Driver::AfXdp => "af_xdp over veth",
            Driver::AfPacket => "af_packet over veth",
            Driver::Tap => "tap",
        }
    }
}

/// All figures, taken in a namespace of their own.
pub fn run(options: &Options) -> Result<Vec<IoLine>, Box<dyn Error>> {
    if options.inside {
        return measure(options);
    }
    let own = std::env::current_exe()?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(own).arg("io");
    command.args([
        "--inside",
        "--json",
        "--rounds",
        &options.rounds.to_string(),
    ]);
    let list = |numbers: &[usize]| {
        numbers
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    command.args(["--sizes", &list(&options.sizes)]);
    if !options.pin.pin.is_empty() {
        command.args(["--pin", &list(&options.pin.pin)]);
    }
    for driver in &options.drivers {
        let value = driver
            .to_possible_value()
            .ok_or("a driver without a name")?;
        command.args(["--drivers", value.get_name()]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("unshare: {error}; it is in Debian's package util-linux"))?;
    if !output.status.success() {
        return Err("nothing measured; a network namespace and its ports need root".into());
    }
    let results: crate::results::Results = serde_json::from_slice(&output.stdout)?;
    Ok(results.io.unwrap_or_default())
}

fn measure(options: &Options) -> Result<Vec<IoLine>, Box<dyn Error>> {
    options.pin.cores().take(0);
    let drivers = match options.drivers.as_slice() {
        [] => &[Driver::AfXdp, Driver::AfPacket, Driver::Tap],
        chosen => chosen,
    };
    lane::quiet();
    let mut progress = Progress::new("io", drivers.len() * options.sizes.len() * 2);
    let mut lines = Vec::new();
    for driver in drivers {
        for size in &options.sizes {
            for direction in Direction::BOTH {
                progress.step(&format!("{} {size} {}", driver.name(), direction.name()));
                lines.push(side_by_side(*driver, *size, direction, options.rounds)?);
            }
        }
    }
    Ok(lines)
}

fn side_by_side(
    driver: Driver,
    size: usize,
    direction: Direction,
    rounds: usize,
) -> Result<IoLine, Box<dyn Error>> {
    let engine = Engine::from_environment()?.unwrap_or_default();
    let mut hitless = Lane::hitless(driver, Setup::plain(engine), direction)?;
    let mut bare = Lane::bare(driver)?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + rounds {
        let frames: Frames = hitless.frames(size, WINDOW)?;
        // Who goes first takes turns.
        let (with, without) = match round % 2 {
            0 => {
                let with = hitless.round(&frames)?;
                (with, bare.round(&frames)?)
            }
            _ => {
                let without = bare.round(&frames)?;
                (hitless.round(&frames)?, without)
            }
        };
        if round >= WARM_UP {
            ours.push(with);
            theirs.push(without);
            ratios.push(with / without);
        }
    }
    let ns = median(&mut ours);
    let bare_ns = median(&mut theirs);
    Ok(IoLine {
        driver: driver.name().to_owned(),
        mode: hitless.mode(),
        size,
        direction: direction.name().to_owned(),
        ns_per_packet: ns,
        mpps: 1e3 / ns,
        bare_ns,
        bare_mpps: 1e3 / bare_ns,
        ratio_to_bare: median(&mut ratios),
        lost: hitless.lost() + bare.lost(),
    })
}
