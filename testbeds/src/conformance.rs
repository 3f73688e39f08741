//! The table of the checklist: every behaviour that an ESP dataplane owes, the RFC section that says
//! so, the tests that show it, and whether they passed in this run. `testbeds/conformance.toml` is
//! the list; what was run is read from the output of `cargo test` and of Python's unittest.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The list, as it is in the tree.
pub const LIST: &str = include_str!("../conformance.toml");

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Checklist {
    pub section: Vec<Section>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Section {
    pub name: String,
    #[serde(rename = "box")]
    pub boxes: Vec<Entry>,
}

/// One behaviour.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub behaviour: String,
    pub rfc: String,
    /// `path/of/file.rs::function`, `path/of/file.py::method`, or `path/of/scenario::name`.
    #[serde(default)]
    pub tests: Vec<String>,
    /// What is not shown yet.
    pub open: Option<String>,
    /// Why it is not for us.
    pub out_of_scope: Option<String>,
}

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    Passed,
    Failed,
    NotRun,
}

/// The list.
///
/// # Errors
/// If it is no TOML, or not of this form.
pub fn checklist() -> Result<Checklist, toml::de::Error> {
    toml::from_str(LIST)
}

/// The tests that ended one way or the other, by the last part of their names.
#[derive(Default, Debug)]
pub struct Results {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl Results {
    /// Reads the output of a test runner: `test a::b ... ok` of Rust, `b (a.B.b) ... ok` of Python
    /// and `name: PASSED` of a scenario.
    pub fn read(&mut self, output: &str) {
        for line in output.lines() {
            if let Some((name, ending)) = line.rsplit_once(": ")
                && matches!(ending, "PASSED" | "FAILED")
            {
                self.note(name, ending == "PASSED");
            }
            let Some((test, ending)) = line.split_once(" ... ") else {
                continue;
            };
            let name = match test.strip_prefix("test ") {
                Some(path) => path.split(" - ").next().unwrap_or(path),
                None => test.split(' ').next().unwrap_or(test),
            };
            let name = name.rsplit("::").next().unwrap_or(name);
            self.note(name, ending.starts_with("ok"));
        }
    }

    fn note(&mut self, name: &str, passed: bool) {
        let list = if passed {
            &mut self.passed
        } else {
            &mut self.failed
        };
        list.insert(name.to_owned());
    }

    /// How a test of the list ended.
    pub fn ending(&self, test: &str) -> Ending {
        let name = test.rsplit("::").next().unwrap_or(test);
        match (self.failed.contains(name), self.passed.contains(name)) {
            (true, _) => Ending::Failed,
            (false, true) => Ending::Passed,
            (false, false) => Ending::NotRun,
        }
    }
}

/// What became of a behaviour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    Shown,
    Failed,
    /// Something is not shown yet.
    Open,
    /// Its tests were not run.
    NotRun,
    OutOfScope,
}

/// One behaviour, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    pub section: String,
    pub behaviour: String,
    pub rfc: String,
    pub mark: Mark,
    pub tests: Vec<(String, Ending)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_scope: Option<String>,
}

/// The table, and whether nothing in it failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Table {
    pub passed: bool,
    pub rows: Vec<Row>,
}

/// Boxes whose tests were not run fail only if `complete` says that everything was run.
pub fn table(list: &Checklist, results: &Results, complete: bool) -> Table {
    let mut rows = Vec::new();
    for section in &list.section {
        for entry in &section.boxes {
            let ending = |test: &String| (test.clone(), results.ending(test));
            let tests: Vec<_> = entry.tests.iter().map(ending).collect();
            rows.push(Row {
                section: section.name.clone(),
                behaviour: entry.behaviour.clone(),
                rfc: entry.rfc.clone(),
                mark: mark(entry, &tests, complete),
                tests,
                open: entry.open.clone(),
                out_of_scope: entry.out_of_scope.clone(),
            });
        }
    }
    Table {
        passed: rows.iter().all(|row| row.mark != Mark::Failed),
        rows,
    }
}

fn mark(entry: &Entry, tests: &[(String, Ending)], complete: bool) -> Mark {
    let any = |wanted| tests.iter().any(|(_, ending)| *ending == wanted);
    let not_run = any(Ending::NotRun);
    if entry.out_of_scope.is_some() {
        Mark::OutOfScope
    } else if any(Ending::Failed) || (not_run && complete) {
        Mark::Failed
    } else if tests.is_empty() || entry.open.is_some() {
        Mark::Open
    } else if not_run {
        Mark::NotRun
    } else {
        Mark::Shown
    }
}

impl Row {
    fn lines(&self) -> Vec<String> {
        let mark = match self.mark {
            Mark::OutOfScope => "-   ",
            Mark::Failed => "FAIL",
            Mark::Open => "OPEN",
            Mark::NotRun => "?   ",
            Mark::Shown => "ok  ",
        };
        let mut lines = vec![format!("  {mark} [{}] {}", self.rfc, self.behaviour)];
        for (test, ending) in &self.tests {
            let note = match ending {
                Ending::Passed => "pass",
                Ending::Failed => "FAIL",
                Ending::NotRun => "not run",
            };
            lines.push(format!("         {note}  {test}"));
        }
        let remarks = [("open", &self.open), ("out of scope", &self.out_of_scope)];
        for (what, remark) in remarks {
            lines.extend(remark.iter().map(|text| format!("         {what}: {text}")));
        }
        lines
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "PASSED" } else { "FAILED" };
        writeln!(f, "conformance: {verdict}")?;
        let mut section = None;
        for row in &self.rows {
            if section != Some(&row.section) {
                section = Some(&row.section);
                writeln!(f, "  {}", row.section)?;
            }
            for line in row.lines() {
                writeln!(f, "{line}")?;
            }
        }
        let count = |mark| self.rows.iter().filter(|row| row.mark == mark).count();
        write!(
            f,
            "  {} shown, {} open, {} out of scope",
            count(Mark::Shown),
            count(Mark::Open),
            count(Mark::OutOfScope)
        )
    }
}

/// What is wrong with the list itself: tests that the tree does not have, boxes without either.
pub fn faults(list: &Checklist, top: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for entry in list.section.iter().flat_map(|section| &section.boxes) {
        let reasons = entry.open.is_some() || entry.out_of_scope.is_some();
        if entry.tests.is_empty() && !reasons {
            faults.push(format!("{}: no test and no reason", entry.behaviour));
        }
        for test in &entry.tests {
            let Some((file, name)) = test.split_once("::") else {
                faults.push(format!("{test}: not `file::test`"));
                continue;
            };
            let text = std::fs::read_to_string(top.join(file)).unwrap_or_default();
            let forms = [
                format!("fn {name}("),
                format!("def {name}("),
                format!("\"{name}\""),
            ];
            if !forms.iter().any(|form| text.contains(form.as_str())) {
                faults.push(format!("{test}: there is no such test"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests
test replay::edges ... ok
test replay::gone ... FAILED
test src/lib.rs - doc (line 1) ... ok
test_runts (test_replay.Replay.test_runts) ... ok
test_broken (test_replay.Replay.test_broken) ... FAIL
transfer-strongswan: PASSED
";

    fn list(tests: &str) -> Checklist {
        let text = format!(
            "[[section]]\nname = \"s\"\n[[section.box]]\nbehaviour = \"b\"\nrfc = \"r\"\ntests = [{tests}]"
        );
        toml::from_str(&text).expect("a list")
    }

    #[test]
    fn the_outputs_of_all_runners_are_read() {
        let mut results = Results::default();
        results.read(OUTPUT);
        for (test, ending) in [
            ("a/replay.rs::edges", Ending::Passed),
            ("a/replay.rs::gone", Ending::Failed),
            ("t.py::test_runts", Ending::Passed),
            ("t.py::test_broken", Ending::Failed),
            ("s.rs::transfer-strongswan", Ending::Passed),
            ("s.rs::edge", Ending::NotRun),
        ] {
            assert_eq!(results.ending(test), ending, "{test}");
        }
    }

    #[test]
    fn a_box_is_shown_only_by_tests_that_ran_and_passed() {
        let mut results = Results::default();
        results.read(OUTPUT);
        for (tests, complete, mark, sound) in [
            ("\"x::edges\"", true, "ok  ", true),
            ("\"x::edges\", \"x::gone\"", false, "FAIL", false),
            ("\"x::edges\", \"x::never\"", false, "?   ", true),
            ("\"x::edges\", \"x::never\"", true, "FAIL", false),
            ("", true, "OPEN", true),
        ] {
            let table = table(&list(tests), &results, complete);
            let text = table.to_string();
            assert!(text.contains(&format!("{mark} [r] b")), "{text}");
            assert_eq!(table.passed, sound, "{text}");
        }
    }

    #[test]
    fn the_list_names_tests_that_exist() {
        let list = checklist().expect("readable");
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let top = own.parent().expect("the member is in a folder");
        assert_eq!(faults(&list, top), Vec::<String>::new());
        assert!(!faults(&self::list("\"Cargo.toml::nothing\""), top).is_empty());
    }
}
