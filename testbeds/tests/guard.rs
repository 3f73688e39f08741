//! A run that gets SIGKILL leaves no namespace behind. Without root, or without the programs that
//! a scenario takes, there is nothing to test and it says so; `testbeds/test` runs it with both.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hitless_testbeds::process::{self, Program};
use hitless_testbeds::{clock, strongswan};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_hitless-testbeds");
const LIMIT: Duration = Duration::from_secs(30);

fn possible() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let installed = ["ip", "tcpdump", "ethtool", "sysctl", "setpriv", "ping"]
        .iter()
        .all(|program| process::require(program, "").is_ok());
    let possible = root && installed && strongswan::require().is_ok();
    if !possible {
        eprintln!("not tested: this takes root, and the packages that testbeds/test installs");
    }
    possible
}

fn namespaces_of(process: u32) -> Vec<String> {
    let prefix = format!("hitless-{process}-");
    let listed = Program::new(["ip", "netns", "list"]).run().expect("a list");
    let names = listed.lines().filter(|line| line.starts_with(&prefix));
    names.map(str::to_owned).collect()
}

/// A run, killed whatever happens to the test.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_killed_run_leaves_no_namespace() {
    if !possible() {
        return;
    }
    let mut command = Command::new(EXECUTABLE);
    command.args(["run", "control-strongswan"]);
    // Not a pipe: nobody reads it.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Run(command.spawn().expect("a run"));
    let id = run.0.id();
    clock::until("the network", LIMIT, || {
        assert!(run.0.try_wait().expect("a child").is_none(), "it ended");
        Ok((namespaces_of(id).len() == 6).then_some(()))
    })
    .expect("built");

    // It stays a zombie until the end of this test, as under a parent that does not wait.
    run.0.kill().expect("killed");
    clock::until("the end of the namespaces", LIMIT, || {
        Ok(namespaces_of(id).is_empty().then_some(()))
    })
    .expect("removed");
    let directory = std::env::temp_dir().join(format!("hitless-testbeds-{id}"));
    // The logs of a killed run are kept for whoever killed it, and that was this test.
    std::fs::remove_dir_all(directory).expect("the logs are removed");
}

#[test]
fn a_guard_ends_with_its_run_and_removes_nothing_of_it() {
    let runner = std::process::id().to_string();
    let mut command = Command::new(EXECUTABLE);
    command.args(["guard", &runner]).stdin(Stdio::piped());
    let mut guard = command.spawn().expect("a guard");
    let mut pipe = guard.stdin.take().expect("its pipe");
    std::io::Write::write_all(&mut pipe, b".").expect("it listens");
    drop(pipe);
    assert!(guard.wait().expect("it ends").success());
}
