//! `hitless-testbeds matrix` and `conformance`: the tables of what other runs have printed.

use std::path::PathBuf;

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::{conformance, matrix};

use super::{json, print};

/// Print peer x feature x role, from what `run` has printed.
#[derive(Args)]
#[command(after_help = "Example: hitless-testbeds matrix OUTPUT...")]
pub struct Matrix {
    /// Outputs of `hitless-testbeds run`.
    outputs: Vec<PathBuf>,
    /// A check that was not run is a failure.
    #[arg(long)]
    complete: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Print the table of the checklist, from what test runners have printed.
#[derive(Args)]
#[command(
    after_help = "Example: cargo test --workspace > tests; hitless-testbeds conformance tests"
)]
pub struct Conformance {
    /// Outputs of `cargo test`, of `python3 -m unittest -v` and of `hitless-testbeds run`.
    #[arg(required = true)]
    outputs: Vec<PathBuf>,
    /// A test that was not run is a failure.
    #[arg(long)]
    complete: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Matrix {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let list = matrix::list().map_err(|error| LabError::Unreadable {
            what: "testbeds/matrix.toml".to_owned(),
            detail: error.to_string(),
        })?;
        let mut results = matrix::Results::default();
        for path in &self.outputs {
            let shown = path.display().to_string();
            let output = std::fs::read(path).map_err(LabError::io(shown))?;
            results.read(&String::from_utf8_lossy(&output));
        }
        let matrix = matrix::matrix(&list, &results, self.complete);
        match self.json {
            true => print(&json(&matrix, "the matrix")?)?,
            false => print(&matrix.to_string())?,
        }
        Ok(matrix.passed)
    }
}

impl Conformance {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let list = conformance::checklist().map_err(|error| LabError::Unreadable {
            what: "testbeds/conformance.toml".to_owned(),
            detail: error.to_string(),
        })?;
        let mut results = conformance::Results::default();
        for path in &self.outputs {
            let shown = path.display().to_string();
            let output = std::fs::read(path).map_err(LabError::io(shown))?;
            results.read(&String::from_utf8_lossy(&output));
        }
        let table = conformance::table(&list, &results, self.complete);
        match self.json {
            true => print(&json(&table, "the table")?)?,
            false => print(&table.to_string())?,
        }
        Ok(table.passed)
    }
}
