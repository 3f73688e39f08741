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
use serde::de::DeserializeOwned;

use crate::results::Results;
use page::Plot;

/// Options of `hitless-perf report`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Results that `hitless-perf all --json` printed; measured now unless given
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["only", "rounds", "pin", "instructions", "trials", "tunnels"])]
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
pub fn read(path: &Path) -> Result<Results, Box<dyn Error>> {
    Ok(parsed(path, "--input", "hitless-perf all --json")?)
}

/// Reads a file that a command has written; who cannot read it says which command that is.
fn parsed<T: DeserializeOwned>(path: &Path, option: &str, command: &str) -> Result<T, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "{option} {}: {error}; it takes what `{command}` writes",
            path.display()
        )
    };
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}

/// What the page shows besides what is measured.
pub struct Besides {
    faults: Vec<Plot>,
    mangle: String,
}

/// Reads what others have written, and sees that the page can be: before minutes of measuring.
pub fn prepare(options: &Options) -> Result<Besides, Box<dyn Error>> {
    let faults = options.faults.as_deref().map(faults::plots).transpose()?;
    let mangle = options.mangle.as_deref().map(mangle::section).transpose()?;
    if let Some(directory) = &options.svg {
        fs::create_dir_all(directory).map_err(|error| unwritten(directory, &error))?;
    }
    let there = options.output.exists();
    let opened = fs::File::options()
        .append(true)
        .create(true)
        .open(&options.output);
    drop(opened.map_err(|error| unwritten(&options.output, &error))?);
    if !there {
        fs::remove_file(&options.output).map_err(|error| unwritten(&options.output, &error))?;
    }
    Ok(Besides {
        faults: faults.unwrap_or_default(),
        mangle: mangle.unwrap_or_default(),
    })
}

fn unwritten(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Writes the page, and the plots if they are wanted by themselves.
pub fn write(options: &Options, besides: Besides, results: &Results) -> Result<(), Box<dyn Error>> {
    let mut plots = page::plots(results);
    plots.extend(besides.faults);
    if let Some(directory) = &options.svg {
        for plot in &plots {
            let file = directory.join(format!("{}.svg", plot.name));
            fs::write(&file, &plot.svg).map_err(|error| unwritten(&file, &error))?;
        }
    }
    let page = page::render(results, &plots, &besides.mangle);
    fs::write(&options.output, page).map_err(|error| unwritten(&options.output, &error))?;
    crate::print::note(format_args!("wrote {}", options.output.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_names_the_option_the_file_and_the_command_that_writes_it() {
        let error = read(Path::new("/nonexistent")).err().unwrap().to_string();
        for part in ["--input /nonexistent", "`hitless-perf all --json`"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_page_that_cannot_be_written_is_refused_before_anything_is_measured() {
        let directory = std::env::temp_dir().join(format!("hitless-report-{}", std::process::id()));
        let options = |output: PathBuf| Options {
            input: None,
            output,
            faults: None,
            mangle: None,
            svg: None,
        };
        let nowhere = directory.join("page.html");
        let refused = prepare(&options(nowhere.clone())).err().unwrap();
        assert!(refused.to_string().contains("page.html"), "{refused}");
        fs::create_dir(&directory).unwrap();
        assert!(prepare(&options(nowhere.clone())).is_ok());
        assert!(!nowhere.exists(), "nothing is left of the attempt");
        fs::write(&nowhere, "before").unwrap();
        assert!(prepare(&options(nowhere.clone())).is_ok());
        assert_eq!(fs::read_to_string(&nowhere).unwrap(), "before");
        fs::remove_dir_all(&directory).unwrap();
    }
}
