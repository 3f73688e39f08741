//! Damaged configurations: an error, never a panic, and never a secret in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hitless::config::{Config, EXAMPLE};
use proptest::prelude::*;

/// Whatever becomes of the text, a report on it holds neither of the example's secrets.
fn survives(text: &str) {
    if let Err(error) = Config::parse("gateway.toml", text, Path::new("/nonexistent")) {
        for report in [error.to_string(), error.render(true), format!("{error:?}")] {
            assert!(!report.contains("change me"), "{report}");
            assert!(!report.contains("5f2ab0"), "{report}");
        }
        assert!(error.count() > 0);
        assert!(
            error
                .located()
                .all(|(line, column, _, _)| line > 0 && column > 0)
        );
    }
}

#[test]
fn truncation_at_every_length() {
    for length in 0..EXAMPLE.len() {
        survives(&EXAMPLE[..length]);
    }
}

#[test]
fn every_character_lost_or_replaced() {
    for at in 0..EXAMPLE.len() {
        let (before, after) = (&EXAMPLE[..at], &EXAMPLE[at + 1..]);
        survives(&format!("{before}{after}"));
        let others = ["[", "=", "\n", "é", "'", "#", "]", ","];
        for other in ["\"", others[at % others.len()]] {
            survives(&format!("{before}{other}{after}"));
        }
    }
}

#[test]
fn a_deep_nest_is_refused() {
    survives(&"[".repeat(100_000));
    survives(&format!("a = {}", "[".repeat(100_000)));
    survives(&format!("a = {}", "{a=".repeat(100_000)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text(text in "(\\PC|[\\n\\t\"'=\\[\\]{},.#\u{0}\u{1b}]){0,200}") {
        survives(&text);
    }

    #[test]
    fn values_of_any_kind_in_any_place(
        line in 0..EXAMPLE.lines().count(),
        value in prop_oneof![
            Just("1"), Just("-1"), Just("1.5"), Just("true"), Just("\"\""), Just("\"x\""),
            Just("[]"), Just("[[]]"), Just("[1, \"a\", {}]"), Just("{}"), Just("{ a = 1 }"),
            Just("1979-05-27"), Just("99999999999999999999"), Just("0x7fffffffffffffff"),
            Just("nan"), Just("\"\"\"\na\n\"\"\""), Just("'\u{1f600}'"),
        ],
    ) {
        let text: Vec<String> = EXAMPLE
            .lines()
            .enumerate()
            .map(|(at, text)| match text.split_once(" = ") {
                Some((key, _)) if at == line => format!("{key} = {value}"),
                _ => text.to_owned(),
            })
            .collect();
        survives(&text.join("\n"));
    }
}

/// A directory of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("config-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The example with its peer's secret in a file.
    fn with_file(&self, name: &str) -> PathBuf {
        let text = EXAMPLE.replace(
            "secret = \"change me\"",
            &format!("secret_file = \"{name}\""),
        );
        self.write("gateway.toml", text.as_bytes(), 0o600)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_secret_file_is_found_beside_the_configuration() {
    let scratch = Scratch::new("beside");
    scratch.write("peer.psk", b"0x6869\n", 0o600);
    let config = Config::load(&scratch.with_file("peer.psk")).unwrap();
    assert_eq!(*config.secrets[0].secret, b"hi");
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn a_secret_file_that_others_may_touch_is_refused_with_the_command_that_helps() {
    let scratch = Scratch::new("mode");
    for mode in [0o644, 0o640, 0o620, 0o602] {
        let file = scratch.write("peer.psk", b"hush hush", mode);
        let error = Config::load(&scratch.with_file("peer.psk"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("(mode {mode:03o})")), "{error}");
        assert!(
            error.contains(&format!("chmod 600 {}", file.display())),
            "{error}"
        );
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn what_is_no_secret_file_is_refused() {
    let scratch = Scratch::new("strange");
    fs::create_dir(scratch.0.join("directory")).unwrap();
    fs::set_permissions(
        scratch.0.join("directory"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    scratch.write("empty", b"\n", 0o600);
    scratch.write("large", &[b'x'; 5000], 0o600);
    scratch.write("binary", &[0xff; 32], 0o600);
    for (name, why) in [
        ("directory", "is not a file"),
        ("empty", "the secret is empty"),
        ("large", "larger than 4096"),
        ("binary", "UTF-8"),
        ("absent", "cannot read"),
        ("/dev/null", "is not a file"),
    ] {
        let error = Config::load(&scratch.with_file(name))
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
}

#[test]
fn secrets_in_a_readable_configuration_are_warned_of() {
    let scratch = Scratch::new("warn");
    let file = scratch.write("gateway.toml", EXAMPLE.as_bytes(), 0o644);
    let config = Config::load(&file).unwrap();
    assert!(
        config.warnings[0].contains("chmod 600"),
        "{:?}",
        config.warnings
    );
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/hitless.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot read `/nonexistent/hitless.toml`"),
        "{error}"
    );
    assert!(error.contains("hitless config example"), "{error}");
    let error = Config::load(Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("is not a file"), "{error}");
}
