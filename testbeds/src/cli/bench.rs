//! What runs in namespaces: their programs, their guard and their logs.

use std::os::unix::fs::MetadataExt;

use hitless_testbeds::error::LabError;
use hitless_testbeds::guard::Guard;
use hitless_testbeds::scenario::Bench;
use hitless_testbeds::{clock, netns, strongswan};

/// Runs something in namespaces: a guard removes them whatever happens, and the logs stay if
/// something failed.
pub fn on_a_bench<T>(
    keep: bool,
    run: impl FnOnce(&Bench) -> Result<T, LabError>,
    passed: impl Fn(&T) -> bool,
) -> Result<T, LabError> {
    clock::watch_signals()?;
    require_programs()?;
    let _guard = Guard::start()?;
    let bench = Bench::new()?;
    for name in netns::remove_leftovers()? {
        bench.say(&format!(
            "removed {name}, left behind by a run that was killed"
        ));
    }
    let outcome = run(&bench);
    let interrupted = matches!(outcome, Err(LabError::Interrupted));
    if keep || !interrupted && !outcome.as_ref().is_ok_and(passed) {
        bench.say(&format!(
            "logs and captures: {}",
            bench.directory().display()
        ));
    } else {
        bench.discard()?;
    }
    outcome
}

/// All scenarios need the same programs.
fn require_programs() -> Result<(), LabError> {
    // It belongs to whom this process runs as.
    if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        return Err(LabError::NotRoot);
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("tcpdump", "tcpdump"),
        ("ping", "iputils-ping"),
        ("python3", "python3"),
        ("ethtool", "ethtool"),
        ("sysctl", "procps"),
        ("setpriv", "util-linux"),
        ("setsid", "util-linux"),
    ] {
        hitless_testbeds::process::require(program, package)?;
    }
    strongswan::require()
}
