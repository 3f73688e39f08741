//! `hitless-bench CASE`: what `testbeds/instructions` counts under callgrind. Without a case it lists
//! them: how many packets each counts, and its name.

use std::error::Error;
use std::process::ExitCode;

use hitless_bench::cipher::BurstCipher;
use hitless_bench::{Bench, Direction, IN_FLIGHT, Setup, parts};
use hitless_dataplane::aead::Engine;

/// Loads of [`IN_FLIGHT`] packets before the one that counts, and packets of each SA: caches of flows
/// and windows are as in the middle of a run.
const WARM_UP: usize = 4;
const WARM_UP_EACH: usize = 8;

/// Callgrind counts inside this function alone (`--toggle-collect`).
#[inline(never)]
fn counted(mut work: impl FnMut()) {
    work();
}

fn main() -> ExitCode {
    let asked = std::env::args().nth(1);
    match run(asked.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hitless-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: Option<&str>) -> Result<(), Box<dyn Error>> {
    let plain = Setup::plain(Engine::from_environment()?.unwrap_or_default());
    let many = Setup { sas: 1000, ..plain };
    let (esn, udp) = (Setup { esn: true, ..plain }, Setup { udp: true, ..plain });
    let mut found = false;
    let mut wanted = |name: &str| match asked {
        Some(asked) => {
            found |= asked == name;
            asked == name
        }
        None => {
            println!("{IN_FLIGHT} {name}");
            false
        }
    };
    for direction in Direction::BOTH {
        let name = direction.name();
        for (label, setup, size) in [
            ("64", plain, 64),
            ("1400", plain, 1400),
            ("64-esn", esn, 64),
            ("64-udp", udp, 64),
            ("64-1000-sas", many, 64),
        ] {
            if wanted(&format!("{name}-{label}")) {
                path(setup, direction, size)?;
            }
        }
        for size in [64, 1400] {
            if wanted(&format!("{name}-{size}-cipher-alone")) {
                cipher(&plain, direction, size)?;
            }
        }
    }
    match asked {
        Some(asked) if !found => {
            Err(format!("no case {asked:?}; without one they are listed").into())
        }
        _ => Ok(()),
    }
}

/// The whole path, port to port.
fn path(setup: Setup, direction: Direction, size: usize) -> Result<(), Box<dyn Error>> {
    let mut bench = Bench::new(setup, direction, 0, &parts(&setup))?;
    let lengths = [size; IN_FLIGHT];
    let warm_up = WARM_UP.max(WARM_UP_EACH * setup.sas as usize / IN_FLIGHT);
    for round in 0..=warm_up {
        bench.load(&lengths)?;
        let before = bench.sent();
        match round == warm_up {
            true => counted(|| bench.run()),
            false => bench.run(),
        }
        bench.expect(before, IN_FLIGHT)?;
    }
    Ok(())
}

/// The cipher on what ESP encrypts of such packets, and nothing else.
fn cipher(setup: &Setup, direction: Direction, size: usize) -> Result<(), Box<dyn Error>> {
    let text = (size + 2).next_multiple_of(4);
    let cipher = BurstCipher::new(setup.suite, setup.esn, &[text; IN_FLIGHT]);
    let mut cipher = cipher.ok_or("this CPU has no AES-NI")?;
    let mut good = true;
    match direction {
        Direction::Encrypt => counted(|| good &= cipher.seal()),
        Direction::Decrypt => {
            good &= cipher.seal();
            counted(|| good &= cipher.open());
        }
    }
    match good {
        true => Ok(()),
        false => Err("the cipher refused what it had sealed".into()),
    }
}
