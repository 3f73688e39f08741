//! The interop matrix: peer, feature and the gateway's role, with what the scenarios have shown of
//! each, or the reason why it is not shown. `testbeds/matrix.toml` is the list; what was run is read
//! from the output of `hitless-testbeds run` and of other commands that print checks.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The list, as it is in the tree.
pub const LIST: &str = include_str!("../matrix.toml");

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct List {
    pub peer: Vec<Peer>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub name: String,
    pub feature: Vec<Feature>,
}

/// One feature. A role has checks, `scenario::check`, or the reason why it has none.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    pub name: String,
    /// With the gateway as initiator.
    #[serde(default)]
    pub initiator: Cell,
    #[serde(default)]
    pub responder: Cell,
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub enum Cell {
    Checks(Vec<String>),
    Reason(String),
}

impl Default for Cell {
    fn default() -> Cell {
        Cell::Checks(Vec::new())
    }
}

/// What the outputs say: scenario, then check, then whether it passed and what it said.
#[derive(Default, Debug)]
pub struct Results(BTreeMap<String, BTreeMap<String, (bool, String)>>);

/// One line of the matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    pub peer: String,
    pub feature: String,
    pub role: &'static str,
    /// `pass`, `FAIL`, `not run`, or `-` with a reason.
    pub result: &'static str,
    pub detail: String,
}

/// The matrix, and whether nothing in it failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Matrix {
    pub passed: bool,
    pub rows: Vec<Row>,
}

/// The list.
///
/// # Errors
/// If it is no TOML, or not of this form.
pub fn list() -> Result<List, toml::de::Error> {
    toml::from_str(LIST)
}

impl Results {
    /// Reads an output: `scenario: PASSED`, and below it `  ok   check: detail`.
    pub fn read(&mut self, output: &str) {
        let mut scenario = None;
        for line in output.lines() {
            if let Some((name, "PASSED" | "FAILED")) = line.rsplit_once(": ") {
                scenario = Some(name.to_owned());
                self.0.entry(name.to_owned()).or_default();
                continue;
            }
            let marked = line
                .strip_prefix("  ok   ")
                .map(|rest| (true, rest))
                .or_else(|| line.strip_prefix("  FAIL ").map(|rest| (false, rest)));
            let (Some(scenario), Some((passed, rest))) = (&scenario, marked) else {
                continue;
            };
            let (check, detail) = rest.split_once(": ").unwrap_or((rest, ""));
            let checks = self.0.entry(scenario.clone()).or_default();
            checks.insert(check.to_owned(), (passed, detail.to_owned()));
        }
    }

    fn look(&self, cell: &Cell) -> (&'static str, String) {
        let checks = match cell {
            Cell::Reason(reason) => return ("-", reason.clone()),
            Cell::Checks(checks) => checks,
        };
        let mut missing = Vec::new();
        for path in checks {
            let (scenario, check) = path.split_once("::").unwrap_or((path, ""));
            let found = self.0.get(scenario).and_then(|checks| checks.get(check));
            match found {
                Some((true, said)) if said.starts_with("left out: ") => {
                    return ("-", said.trim_start_matches("left out: ").to_owned());
                }
                Some((true, _)) => {}
                Some((false, said)) => return ("FAIL", format!("{path}: {said}")),
                None => missing.push(path.as_str()),
            }
        }
        match missing.is_empty() {
            true => ("pass", checks.join(", ")),
            false => ("not run", missing.join(", ")),
        }
    }
}

/// The matrix of these results. What was not run fails only if `complete`.
pub fn matrix(list: &List, results: &Results, complete: bool) -> Matrix {
    let mut rows = Vec::new();
    for peer in &list.peer {
        for feature in &peer.feature {
            let roles = [
                ("initiator", &feature.initiator),
                ("responder", &feature.responder),
            ];
            for (role, cell) in roles {
                if matches!(cell, Cell::Checks(checks) if checks.is_empty()) {
                    continue;
                }
                let (result, detail) = results.look(cell);
                rows.push(Row {
                    peer: peer.name.clone(),
                    feature: feature.name.clone(),
                    role,
                    result,
                    detail,
                });
            }
        }
    }
    let bad = |row: &Row| row.result == "FAIL" || complete && row.result == "not run";
    Matrix {
        passed: !rows.is_empty() && !rows.iter().any(bad),
        rows,
    }
}

/// Checks of the list that no scenario of the tree could print: the scenario has to be known, and
/// the last word of the check has to be in its sources.
pub fn faults(list: &List, top: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let cells = list.peer.iter().flat_map(|peer| &peer.feature);
    for cell in cells.flat_map(|feature| [&feature.initiator, &feature.responder]) {
        let Cell::Checks(checks) = cell else { continue };
        for path in checks {
            let scenario = path.split("::").next().unwrap_or_default();
            let folder = top
                .join("testbeds/src/scenarios")
                .join(scenario.replace('-', "_"));
            if !folder.is_dir() && !path.starts_with("mangle::") {
                faults.push(format!("{path}: there is no such scenario"));
            }
        }
    }
    faults
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.passed { "PASSED" } else { "FAILED" };
        writeln!(f, "matrix: {verdict}")?;
        let mut peer = "";
        for row in &self.rows {
            if row.peer != peer {
                peer = &row.peer;
                writeln!(f, "  {peer}")?;
            }
            let Row {
                feature,
                role,
                result,
                detail,
                ..
            } = row;
            let line = format!("  {feature:<44} {role:<10} {result:<8} {detail}");
            writeln!(f, "  {}", line.trim_end())?;
        }
        let count = |result: &str| self.rows.iter().filter(|row| row.result == result).count();
        write!(
            f,
            "  {} pass, {} failed, {} not run, {} with a reason why not",
            count("pass"),
            count("FAIL"),
            count("not run"),
            count("-")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "ike: PASSED\n  ok   psk/in-x: fine\n  FAIL psk/out-x: 3 of 4\n  \
                          ok   psk/new: left out: too old\n";

    fn only(cell: &str, complete: bool) -> Matrix {
        let text =
            format!("[[peer]]\nname = \"p\"\n[[peer.feature]]\nname = \"f\"\nresponder = {cell}\n");
        let mut results = Results::default();
        results.read(OUTPUT);
        matrix(&toml::from_str(&text).expect("a list"), &results, complete)
    }

    #[test]
    fn a_cell_passes_only_if_all_of_its_checks_ran_and_passed() {
        for (cell, complete, result, passed) in [
            ("[\"ike::psk/in-x\"]", true, "pass", true),
            (
                "[\"ike::psk/in-x\", \"ike::psk/out-x\"]",
                false,
                "FAIL",
                false,
            ),
            (
                "[\"ike::psk/in-x\", \"ike::psk/none\"]",
                false,
                "not run",
                true,
            ),
            ("[\"other::psk/in-x\"]", true, "not run", false),
            ("[\"ike::psk/new\"]", true, "-", true),
            ("\"no kernel\"", true, "-", true),
        ] {
            let matrix = only(cell, complete);
            assert_eq!(matrix.rows[0].result, result, "{matrix}");
            assert_eq!(matrix.passed, passed, "{matrix}");
        }
    }

    #[test]
    fn the_matrix_names_scenarios_that_exist() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let top = own.parent().expect("the member is in a folder");
        let list = list().expect("readable");
        assert_eq!(faults(&list, top), Vec::<String>::new());
    }
}
