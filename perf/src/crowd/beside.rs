//! The same initiators to our daemon and to strongSwan's, each with one core and a namespace of its
//! own, one after the other. `testbeds/responder` makes them.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use super::sockets::{Sockets, Task};
use crate::machine::Machine;
use crate::progress::Progress;

const SCRIPT: &str = include_str!("../../../testbeds/responder");
const CHARON: &str = "/usr/sbin/charon-systemd";
pub const PACKAGES: &str = "charon-systemd strongswan-swanctl libcharon-extra-plugins";

/// Both, on this machine.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Beside {
    pub machine: Machine,
    pub hitless: Sockets,
    pub strongswan: Sockets,
    /// IKE SAs that hitless answers in a second of its core, over those that charon does.
    pub ratio: f64,
    /// The same by the clock on the wall, both ends working.
    pub ratio_by_the_clock: f64,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, load, .. } = &self.machine;
        writeln!(f, "{cpu}, load {load:.1}, one core for each end")?;
        write!(f, "{}{}", self.hitless, self.strongswan)?;
        writeln!(
            f,
            "hitless answers {:.2} times as many for a second on its core, {:.2} times by the clock",
            self.ratio, self.ratio_by_the_clock
        )
    }
}

/// Plays with one, then with the other.
pub fn run(task: &Task) -> Result<Beside, Box<dyn Error>> {
    let mut progress = Progress::new("crowd", 2);
    progress.step("hitless");
    let hitless = play("hitless", task, "hitless run, af_xdp")?;
    progress.step("strongSwan");
    let strongswan = play("strongswan", task, &format!("strongSwan {}", version()))?;
    let per_core = |of: &Sockets| of.per_core_second.unwrap_or(f64::NAN);
    Ok(Beside {
        machine: Machine::here(),
        ratio: per_core(&hitless) / per_core(&strongswan),
        ratio_by_the_clock: hitless.per_second / strongswan.per_second,
        hitless,
        strongswan,
    })
}

/// Debian's version of charon.
fn version() -> String {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Version}", "charon-systemd"]);
    let said = query.output().map(|output| output.stdout);
    String::from_utf8_lossy(&said.unwrap_or_default()).into_owned()
}

fn play(kind: &str, task: &Task, named: &str) -> Result<Sockets, Box<dyn Error>> {
    if kind == "strongswan" && !Path::new(CHARON).exists() {
        return Err(format!("no {CHARON}: apt-get install {PACKAGES}").into());
    }
    let own = std::env::current_exe()?;
    let [ours, theirs] = two_cores(task);
    let mut command = Command::new("bash");
    command.args(["-c", SCRIPT, "responder", kind, "--"]);
    // The process is known when the gateway runs.
    let inner = "exec \"$0\" crowd \"$@\" --pid \"$RESPONDER\"";
    command.args(["bash", "-c", inner]).arg(&own);
    command.args(["--against", "192.0.2.1", "--from", "192.0.2.101", "--json"]);
    command.args(["--sas", &task.sas.to_string(), "--pin", &ours]);
    let milliseconds = |time: std::time::Duration| format!("{}ms", time.as_millis());
    command.args(["--dpd", &milliseconds(task.dpd)]);
    command.args(["--hold", &milliseconds(task.hold)]);
    command.env("CORE", theirs).stderr(Stdio::piped());
    crate::machine::name_hitless(&mut command, &own);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{named}: {}", said.trim()).into());
    }
    let mut sockets: Sockets = serde_json::from_slice(&output.stdout)?;
    named.clone_into(&mut sockets.responder);
    Ok(sockets)
}

/// One for the initiators, one for the gateway; the same if there is only one.
fn two_cores(task: &Task) -> [String; 2] {
    let known = task.pin.cores().numbers();
    let nth = |index: usize| known.get(index).or(known.first()).copied().unwrap_or(0);
    [nth(1).to_string(), nth(0).to_string()]
}
