//! `hitless-perf report`: everything that was measured on one page that needs nothing else.

mod faults;
mod mangle;
mod page;
mod strips;
mod svg;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::results::Results;

/// Options of `hitless-perf report`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Results that `all --json` printed; measured now unless given
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "hitless-perf.html")]
    pub output: PathBuf,
    /// Where `hitless-testbeds faults --plots DIR` wrote, for a plot of each failover
    #[arg(long, value_name = "DIR")]
    pub faults: Option<PathBuf>,
    /// What `hitless-testbeds mangle --json` printed, for a table of it
    #[arg(long, value_name = "FILE")]
    pub mangle: Option<PathBuf>,
    /// Write each plot into this directory, too
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}

/// Reads results that were kept.
pub fn read(path: &PathBuf) -> Result<Results, Box<dyn Error>> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    Ok(serde_json::from_str(&text).map_err(|error| failed(&error))?)
}

fn unwritten(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Writes the page, and the plots if they are wanted by themselves.
pub fn write(options: &Options, results: &Results) -> Result<(), Box<dyn Error>> {
    let mut plots = page::plots(results);
    if let Some(directory) = &options.faults {
        plots.push(faults::plot(directory)?);
    }
    if let Some(directory) = &options.svg {
        fs::create_dir_all(directory).map_err(|error| unwritten(directory, &error))?;
        for plot in &plots {
            let file = directory.join(format!("{}.svg", plot.name));
            fs::write(&file, &plot.svg).map_err(|error| unwritten(&file, &error))?;
        }
    }
    let sections = options.mangle.as_deref().map(mangle::section).transpose()?;
    let page = page::render(results, &plots, sections.as_deref().unwrap_or_default());
    fs::write(&options.output, page).map_err(|error| unwritten(&options.output, &error))?;
    crate::print::note(format_args!("wrote {}", options.output.display()));
    Ok(())
}
