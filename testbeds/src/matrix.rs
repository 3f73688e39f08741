//! The interop matrix: peer, feature and the gateway's role, with what the scenarios have shown of
//! each, or the reason why it is not shown. `testbeds/matrix.toml` is the list; what was run is read
//! from the output of `hitless-testbeds run` and of other commands that print checks.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the suites of `testbeds/scapy` are in the list.
const SUITES: &str = "scapy";

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

/// What the outputs say: scenario, then check, then whether it passed and what it said; and scenario,
/// then variant, then why it was skipped. The tests of the suites in Python are the checks of `scapy`.
#[derive(Default, Debug)]
pub struct Results {
    checks: BTreeMap<String, BTreeMap<String, (bool, String)>>,
    skipped: BTreeMap<String, BTreeMap<String, String>>,
}

/// One line of the matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    pub peer: String,
    pub feature: String,
    pub role: &'static str,
    /// `pass`, `FAIL`, `not run`, `skipped`, or `-` with a reason.
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
    /// Reads an output: `scenario: PASSED`, and below it `  ok   check: detail` or
    /// `  skip variant: reason`; and `test (suite.Class.test) ... ok` of Python's unittest.
    pub fn read(&mut self, output: &str) {
        let mut scenario = None;
        for line in output.lines() {
            if let Some((name, "PASSED" | "FAILED" | "SKIPPED")) = line.rsplit_once(": ") {
                scenario = Some(name.to_owned());
                continue;
            }
            if let Some((test, ending)) = line.split_once(") ... ")
                && let Some((name, _)) = test.split_once(" (")
                && name.starts_with("test_")
            {
                let said = (ending.starts_with("ok"), ending.to_owned());
                let tests = self.checks.entry(SUITES.to_owned()).or_default();
                tests.insert(name.to_owned(), said);
                continue;
            }
            let skipped = line
                .strip_prefix("  skip ")
                .and_then(|l| l.split_once(": "));
            if let (Some(scenario), Some((variant, why))) = (&scenario, skipped) {
                let variants = self.skipped.entry(scenario.clone()).or_default();
                variants.insert(variant.to_owned(), why.to_owned());
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
            let checks = self.checks.entry(scenario.clone()).or_default();
            checks.insert(check.to_owned(), (passed, detail.to_owned()));
        }
    }

    fn look(&self, cell: &Cell) -> (&'static str, String) {
        let checks = match cell {
            Cell::Reason(reason) => return ("-", reason.clone()),
            Cell::Checks(checks) => checks,
        };
        let (mut missing, mut skipped) = (Vec::new(), None);
        for path in checks {
            let (scenario, check) = path.split_once("::").unwrap_or((path, ""));
            let found = self.checks.get(scenario).and_then(|all| all.get(check));
            let variant = check.split('/').next().unwrap_or_default();
            let why = self.skipped.get(scenario).and_then(|all| all.get(variant));
            match (found, why) {
                (Some((true, _)), _) => {}
                (Some((false, said)), _) => return ("FAIL", format!("{path}: {said}")),
                (None, Some(why)) => skipped = Some(why.clone()),
                (None, None) => missing.push(path.as_str()),
            }
        }
        match (missing.is_empty(), skipped) {
            (false, _) => ("not run", missing.join(", ")),
            (true, Some(why)) => ("skipped", why),
            (true, None) => ("pass", checks.join(", ")),
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
    let absent = |row: &Row| matches!(row.result, "not run" | "skipped");
    let bad = |row: &Row| row.result == "FAIL" || complete && absent(row);
    Matrix {
        passed: !rows.is_empty() && !rows.iter().any(bad),
        rows,
    }
}

/// What is wrong with the list: a feature without a word on one of the roles, checks of a scenario that
/// the tree does not have, and reasons that name a file which is not there.
pub fn faults(list: &List, top: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let suites = std::fs::read_dir(top.join("testbeds/scapy"));
    let suites = suites.into_iter().flatten().flatten();
    let tests: String = suites
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .collect();
    let cells = list.peer.iter().flat_map(|peer| &peer.feature);
    for cell in cells.flat_map(|feature| [&feature.initiator, &feature.responder]) {
        let checks = match cell {
            Cell::Checks(checks) => checks,
            Cell::Reason(reason) => {
                let words = reason.split([' ', ',', ')']);
                let named = words.filter(|word| word.contains('/') && word.ends_with(".rs"));
                let gone = named.filter(|file| !top.join(file).is_file());
                faults.extend(gone.map(|file| format!("{reason}: there is no {file}")));
                continue;
            }
        };
        if checks.is_empty() {
            faults.push("a feature says nothing of one of the roles".to_owned());
        }
        for path in checks {
            let (scenario, check) = path.split_once("::").unwrap_or((path, ""));
            if scenario == SUITES {
                if !tests.contains(&format!("def {check}(self)")) {
                    faults.push(format!("{path}: there is no such test"));
                }
                continue;
            }
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
            "  {} pass, {} failed, {} not run, {} skipped, {} with a reason why not",
            count("pass"),
            count("FAIL"),
            count("not run"),
            count("skipped"),
            count("-")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "ike: PASSED\n  ok   psk/in-x: fine\n  FAIL psk/out-x: 3 of 4\n  \
                          skip new: too old\nold: SKIPPED\n  skip kem: too old\n\
                          test_a (test_ike.A.test_a) ... ok\ntest_b (t.B.test_b) ... FAIL\n";

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
            ("[\"ike::new/x\"]", false, "skipped", true),
            ("[\"old::kem/x\"]", true, "skipped", false),
            (
                "[\"ike::psk/in-x\", \"old::kem/x\"]",
                false,
                "skipped",
                true,
            ),
            ("[\"scapy::test_a\"]", true, "pass", true),
            (
                "[\"scapy::test_a\", \"scapy::test_b\"]",
                true,
                "FAIL",
                false,
            ),
            ("[\"scapy::test_c\"]", true, "not run", false),
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
