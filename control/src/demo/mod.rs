//! `hitless demo`: a cluster loses its active member, in one process and with no privilege.
//!
//! ```text
//!  world.rs    the network and the configurations      member.rs   a gateway on two threads
//!  story.rs    what happens, step by step              result.rs   what the capture says about it
//! ```
//!
//! The gateways are the daemon's own code on memory ports; the hosts and the audit of the captured
//! wire share nothing with them. No promise is taken from a gateway's own counters.

mod member;
mod result;
mod story;
mod world;

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use crate::audit::pcap::PcapWriter;
use crate::cli::DemoOptions;
use crate::lab::Captured;

pub use result::DemoResult;

/// Runs the demo and prints its result; the exit status says whether every promise held.
pub fn run(options: &DemoOptions) -> io::Result<ExitCode> {
    let progress = !options.json || io::stderr().is_terminal();
    if let Some(directory) = &options.pcap {
        // Before the demo, so that a place that cannot be had costs no time.
        let failed = |error| io::Error::other(format!("--pcap {}: {error}", directory.display()));
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let story = story::tell(options.seed, progress)?;
    if let Some(directory) = &options.pcap {
        let (outside, protected) = (&story.world.outside, &story.world.protected);
        keep(&directory.join("outside.pcap"), outside.capture())?;
        keep(&directory.join("protected.pcap"), protected.capture())?;
    }
    let result = DemoResult::of(&story);
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&result)?)?;
    } else {
        writeln!(out, "{result}")?;
        if let Some(directory) = &options.pcap {
            writeln!(out, "captures: {}", directory.display())?;
        }
    }
    Ok(if result.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the demo for a measurement, saying nothing: the verdict, and when each probe arrived, in
/// microseconds after the crash.
pub fn measure(seed: u64) -> io::Result<(DemoResult, Vec<i64>)> {
    let story = story::tell(seed, false)?;
    let hosts = [&story.world.a, &story.world.b];
    let received = hosts.iter().flat_map(|host| host.received());
    let after = |at: hitless_sa::Instant| match at >= story.crash {
        true => at.since(story.crash).as_micros() as i64,
        false => -(story.crash.since(at).as_micros() as i64),
    };
    let arrivals = received.map(|probe| after(probe.at)).collect();
    Ok((DemoResult::of(&story), arrivals))
}

fn keep(path: &std::path::Path, capture: &[Captured]) -> io::Result<()> {
    let mut writer = PcapWriter::new(BufWriter::new(fs::File::create(path)?))?;
    for captured in capture {
        writer.write(
            std::time::Duration::from_nanos(captured.at.0),
            &captured.frame,
        )?;
    }
    writer.finish()?;
    Ok(())
}
