//! The house rules that a machine can check: what the tree holds, how long things are, who depends
//! on whom, and which words must not be left behind. Every violation is listed, not the first.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;

/// Functions that may be longer, each with the reason: (file, function, reason).
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    (
        "dataplane/src/port/af_xdp/error.rs",
        "fmt",
        "a table: one message with its advice for each error",
    ),
    (
        "control/tests/report.rs",
        "gateway",
        "a whole answer of the daemon, field by field",
    ),
];

/// What the top level may hold, besides names that start with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "dataplane",
    "control",
    "sync",
    "perf",
    "testbeds",
];

/// Names that say nothing about what a file holds.
const EMPTY_NAMES: &[&str] = &["utils.rs", "util.rs", "common.rs", "helpers.rs", "types.rs"];

/// Words that must not stay in Rust source, with what to do instead. They are put together here so
/// that this file does not hold them.
const BANNED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it"),
    (concat!("unimpl", "emented!("), "finish it"),
    (concat!("db", "g!("), "remove it"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("X", "XX"), "fix it"),
    (concat!("HA", "CK"), "do it properly"),
    (concat!("#[ig", "nore"), "run it, or remove it"),
    (
        concat!("#[al", "low("),
        "use #[expect(lint, reason = \"...\")]",
    ),
    (
        concat!("#![al", "low("),
        "use #![expect(lint, reason = \"...\")]",
    ),
    (concat!("thread::sl", "eep"), "wait for an event"),
    (concat!("/wo", "rk/"), "a path of one machine"),
];

/// Which of our own packages each package may use. What is missing here may use none.
const MAY_USE: &[(&str, &[&str])] = &[
    ("hitless-sa", &[]),
    ("hitless-gcm", &[]),
    ("hitless-dataplane", &["hitless-sa", "hitless-gcm"]),
    ("hitless-sync", &["hitless-sa"]),
    (
        "hitless",
        &["hitless-sa", "hitless-dataplane", "hitless-sync"],
    ),
    (
        "hitless-dataplane-fuzz",
        &["hitless-sa", "hitless-dataplane"],
    ),
    ("hitless-sync-fuzz", &["hitless-sa", "hitless-sync"]),
    ("hitless-fuzz", &["hitless-sa", "hitless"]),
    (
        "hitless-perf",
        &[
            "hitless-sa",
            "hitless-gcm",
            "hitless-dataplane",
            "hitless-sync",
            "hitless-bench",
            "hitless",
        ],
    ),
    (
        "hitless-bench",
        &["hitless-sa", "hitless-gcm", "hitless-dataplane"],
    ),
    (
        "hitless-testbeds",
        &["hitless-sa", "hitless-dataplane", "hitless-sync", "hitless"],
    ),
];

/// One file of the tree.
struct Source {
    /// Relative to the top, with slashes.
    name: String,
    text: String,
}

fn top() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("the member is in a folder").to_owned()
}

/// Every file with this extension, built and hidden folders left out.
fn sources(extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&top(), extension, &mut found);
    assert!(
        !found.is_empty(),
        "no .{extension} file below {}",
        top().display()
    );
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || is_built(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let relative = path.strip_prefix(top()).expect("below the top");
            found.push(Source {
                name: relative.to_string_lossy().into_owned(),
                text: fs::read_to_string(&path).expect("UTF-8"),
            });
        }
    }
}

/// As `.gitignore` has it.
fn is_built(name: &str) -> bool {
    name == "target" || name.starts_with("target-")
}

fn assert_none(what: &str, violations: &[String]) {
    let list = violations.join("\n  ");
    assert!(violations.is_empty(), "{what}:\n  {list}");
}

/// Lines of a file, with their numbers from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

#[test]
fn files_are_not_too_long() {
    let long: Vec<String> = sources("rs")
        .iter()
        .map(|source| (source.text.lines().count(), &source.name))
        .filter(|(lines, _)| *lines > FILE_LINES)
        .map(|(lines, name)| format!("{name}: {lines} lines"))
        .collect();
    assert_none(&format!("more than {FILE_LINES} lines"), &long);
}

/// Functions of a formatted file: name, first line, length. A function ends at the first closing
/// brace with the indentation of its beginning.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(name) = function_name(code) else {
            continue;
        };
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let body = lines.iter().skip(start);
        let length = body.take_while(|line| **line != end).count() + 1;
        let declared_only = lines[start..]
            .iter()
            .map(|line| line.trim_end())
            .find_map(|line| line.chars().last().filter(|c| ['{', ';', '}'].contains(c)))
            .is_some_and(|last| last != '{');
        if !declared_only && start + length <= lines.len() {
            found.push((name.to_owned(), start + 1, length));
        }
    }
    found
}

fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    loop {
        if let Some(after) = rest.strip_prefix("fn ") {
            return after.split(['(', '<']).next();
        }
        let (word, after) = rest.split_once(' ')?;
        let qualifier = word.starts_with("pub")
            || ["const", "async", "unsafe", "extern", "\"C\""].contains(&word);
        if !qualifier {
            return None;
        }
        rest = after;
    }
}

#[test]
fn functions_are_not_too_long() {
    let mut long = Vec::new();
    for source in sources("rs") {
        for (name, line, length) in functions(&source.text) {
            let excused = LONG_FUNCTIONS
                .iter()
                .any(|(file, function, _)| *file == source.name && *function == name);
            if length > FUNCTION_LINES && !excused {
                long.push(format!("{}:{line}: {name} has {length} lines", source.name));
            }
        }
    }
    assert_none(
        &format!("functions of more than {FUNCTION_LINES} lines"),
        &long,
    );
}

#[test]
fn functions_are_found() {
    let text = "pub fn a() {\n    x\n}\n\n    pub(super) const fn b<T>(\n        c: T,\n    ) {\n    }\n\
                trait T {\n    fn d();\n    fn e(\n        x: u8,\n    ) -> u8;\n}\nfn f() {}\n";
    let found = functions(text);
    let names: Vec<_> = found
        .iter()
        .map(|(name, _, length)| (name.as_str(), *length))
        .collect();
    assert_eq!(names, [("a", 3), ("b", 4)]);
}

#[test]
fn every_file_says_what_lives_there() {
    let silent: Vec<String> = sources("rs")
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.name.clone())
        .collect();
    assert_none("files that do not open with `//! ...`", &silent);
}

#[test]
fn names_say_something() {
    let empty: Vec<String> = sources("rs")
        .into_iter()
        .map(|source| source.name)
        .filter(|name| EMPTY_NAMES.contains(&name.rsplit('/').next().unwrap_or_default()))
        .collect();
    assert_none("files named for nothing in particular", &empty);
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let mut left = Vec::new();
    for source in sources("rs") {
        for (number, line) in numbered(&source.text) {
            for (word, instead) in BANNED.iter().filter(|(word, _)| line.contains(word)) {
                left.push(format!("{}:{number}: {word}: {instead}", source.name));
            }
        }
    }
    assert_none("words that must not stay", &left);
}

/// Whether a line of code opens something unsafe. Lint names and comments do not.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
        .iter()
        .any(|form| code.contains(&format!(" {form}")) || code.starts_with(form))
}

#[test]
fn unsafe_code_is_announced_and_argued() {
    let mut wrong = Vec::new();
    for source in sources("rs")
        .iter()
        .filter(|s| s.name != "testbeds/tests/tidy.rs")
    {
        let lines: Vec<&str> = source.text.lines().collect();
        let head = lines.iter().take_while(|line| {
            line.starts_with("//!")
                || line.starts_with("#!")
                || line.starts_with(' ')
                || line.starts_with(')')
                || line.is_empty()
        });
        let head: Vec<&str> = head.copied().collect();
        let head = head.join("\n");
        let announced = head.contains("#![expect(")
            && head.contains("unsafe_code")
            && head.contains("reason =");
        for (i, line) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line)) {
            if !announced {
                wrong.push(format!(
                    "{}:{}: not announced by #![expect(unsafe_code, reason)]",
                    source.name,
                    i + 1
                ));
            }
            let block = line.contains("unsafe {") || line.contains("unsafe impl");
            if block && !is_argued(&lines[..i]) {
                wrong.push(format!("{}:{}: no // SAFETY: above", source.name, i + 1));
            }
        }
    }
    assert_none("unsafe code", &wrong);
}

/// Whether the comment above ends here holds the argument. The statement that the block is part of
/// may begin some lines above it.
fn is_argued(above: &[&str]) -> bool {
    let statement = above.iter().rev().take_while(|line| {
        let code = line.trim();
        !code.is_empty() && !code.ends_with(';') && !code.ends_with('}')
    });
    statement
        .take(20)
        .any(|line| line.trim_start().starts_with("// SAFETY:"))
}

#[test]
fn unsafe_code_is_recognised() {
    assert!(is_unsafe("    unsafe { f() }") && is_unsafe("unsafe impl Send for X {}"));
    assert!(is_unsafe("let x = unsafe { f() };") && is_unsafe("pub unsafe fn f() {"));
    assert!(!is_unsafe("#![expect(unsafe_code)]") && !is_unsafe("// not unsafe { at all"));
    assert!(is_argued(&["// SAFETY: because"]));
    assert!(is_argued(&["// SAFETY: because", "// it is so", "let x ="]));
    assert!(!is_argued(&["// SAFETY: of another", "f();"]));
}

/// The packages and which of ours each one names, in any of its sections of dependencies.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut packages = BTreeMap::new();
    for manifest in sources("toml")
        .iter()
        .filter(|s| s.name.ends_with("Cargo.toml"))
    {
        let (mut section, mut package, mut uses) = ("", None, Vec::new());
        for line in manifest.text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
                // [dependencies.hitless-sync] names one in its title.
                if let Some((kind, name)) = section.rsplit_once('.')
                    && kind.ends_with("dependencies")
                    && name.starts_with("hitless")
                {
                    uses.push(name.to_owned());
                }
                continue;
            }
            let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if section == "package" && key == "name" {
                package = line.split('"').nth(1).map(str::to_owned);
            }
            if section.ends_with("dependencies") && key.starts_with("hitless") {
                uses.push(key.to_owned());
            }
        }
        if let Some(package) = package {
            packages.insert(package, uses);
        }
    }
    packages
}

#[test]
fn dependencies_point_one_way() {
    let packages = dependencies();
    for (package, _) in MAY_USE {
        assert!(
            packages.contains_key(*package),
            "{package} is gone: amend this test"
        );
    }
    let mut wrong = Vec::new();
    for (package, uses) in &packages {
        let allowed = MAY_USE.iter().find(|(name, _)| name == package);
        let allowed = allowed.map(|(_, allowed)| *allowed).unwrap_or_default();
        let refused = uses.iter().filter(|name| !allowed.contains(&name.as_str()));
        wrong.extend(refused.map(|name| format!("{package} must not use {name}")));
    }
    assert_none("dependencies that point the wrong way", &wrong);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("the workspace");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .expect("the section");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let mute: Vec<String> = lines
        .filter(|line| line.contains('=') && !line.starts_with('#') && !line.starts_with("hitless"))
        .filter(|line| {
            line.split_once(" # ")
                .is_none_or(|(_, reason)| reason.len() < 8)
        })
        .map(str::to_owned)
        .collect();
    assert_none("dependencies without a reason beside them", &mute);
}

#[test]
fn the_top_level_holds_what_the_layout_names() {
    let strangers: Vec<String> = fs::read_dir(top())
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !is_built(name))
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert_none("strangers at the top level", &strangers);
}

/// Every rule of RFC 6311 (R1 to R46) and every hole in it (H1 to H8) has a test that says so in its
/// name, beside `rfc6311`.
#[test]
fn every_rule_of_rfc6311_has_a_test_named_after_it() {
    let mut named = std::collections::BTreeSet::new();
    for source in sources("rs") {
        let mut lines = source.text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line != "#[test]" {
                continue;
            }
            let name = lines.find_map(|line| line.strip_prefix("fn "));
            let words: Vec<&str> = name.unwrap_or_default().split(['_', '(']).collect();
            if words.contains(&"rfc6311") {
                named.extend(words.iter().map(|word| word.to_string()));
            }
        }
    }
    let rules = (1..=46).map(|n| format!("r{n}"));
    let all = rules.chain((1..=8).map(|n| format!("h{n}")));
    let missing: Vec<String> = all.filter(|r| !named.contains(r)).collect();
    assert!(missing.is_empty(), "no test is named after {missing:?}");
}
