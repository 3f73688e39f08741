//! The `hitless` command from outside: output, errors, exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

fn hitless(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hitless"))
        .args(arguments)
        .env_remove("HITLESS_SOCKET")
        .env_remove("HITLESS_LOG")
        .output()
        .unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn example() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/gateway.toml");
    path.display().to_string()
}

#[test]
fn help_lists_the_commands_and_the_exit_codes() {
    let output = hitless(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in [
        "run",
        "demo",
        "status",
        "list-sas",
        "show",
        "trace",
        "capture",
        "switchover",
        "config",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let help = text(&hitless(&["status", "--help"]).stdout);
    for word in ["--json", "--socket", "HITLESS_SOCKET", "Example"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_on_stderr() {
    for arguments in [
        &["fly"] as &[&str],
        &[],
        &["demo", "--seed", "x"],
        &["status", "--colour"],
    ] {
        let output = hitless(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn without_a_daemon_every_client_command_says_so() {
    for command in ["status", "list-sas", "switchover"] {
        let output = hitless(&[command, "--socket", "/nonexistent/h.sock"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let error = text(&output.stderr);
        assert!(
            error.starts_with("error: no hitless daemon answers on /nonexistent/h.sock"),
            "{error}"
        );
        assert!(output.stdout.is_empty());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_hitless"))
        .arg("status")
        .env("HITLESS_SOCKET", "/nonexistent/other.sock")
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("/nonexistent/other.sock"));
}

#[test]
fn config_check_accepts_the_example() {
    let output = hitless(&["config", "check", &example()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("good; member 1 of cluster hq, 2 ports, 1 connection\n"));
    let output = hitless(&["config", "check", "--json", &example()]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["problems"], serde_json::json!([]));
}

#[test]
fn config_check_says_what_this_host_lacks() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("lacks-{}.toml", std::process::id()));
    let text = hitless::config::EXAMPLE
        .replace("\"/var/lib/hitless\"", "\"/nonexistent/state\"")
        .replace("\"eth1\"", "\"nosuch0\"");
    std::fs::write(&path, text).unwrap();
    let output = hitless(&["config", "check", &path.display().to_string()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    for part in [
        "warning: cluster.state_dir: /nonexistent/state does not exist on this host",
        "warning: ports.inside: this host has no interface \"nosuch0\"",
    ] {
        assert!(
            text_of(&output).contains(part),
            "{part}: {}",
            text_of(&output)
        );
    }
}

fn text_of(output: &Output) -> String {
    text(&output.stdout)
}

#[test]
fn config_example_prints_the_example() {
    let output = hitless(&["config", "example"]);
    assert_eq!(
        text(&output.stdout),
        std::fs::read_to_string(example()).unwrap()
    );
}

#[test]
fn a_wrong_configuration_is_exit_code_2_for_check_and_for_run() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("command-{}.toml", std::process::id()));
    let wrong = hitless::config::EXAMPLE.replace("missed = 3", "mised = 3");
    std::fs::write(&path, wrong).unwrap();
    let file = path.display().to_string();
    let check = hitless(&["config", "check", &file]);
    let run = hitless(&["run", "--config", &file]);
    let json = hitless(&["config", "check", "--json", &file]);
    std::fs::remove_file(&path).unwrap();
    for output in [&check, &run] {
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        assert!(error.contains("unknown key `cluster.mised`"), "{error}");
        assert!(error.contains("did you mean `missed`?"), "{error}");
        assert!(!error.contains('\u{1b}'), "no colours into a pipe");
    }
    assert_eq!(json.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["problems"][0]["column"], 1);
    assert_eq!(report["problems"][0]["help"], "did you mean `missed`?");
}
