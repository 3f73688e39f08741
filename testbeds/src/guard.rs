//! A second process that removes the namespaces of a run that could not do so itself, because it
//! got SIGKILL or crashed. It hears of that by a pipe that only the run holds: the kernel closes it,
//! however the run ends.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::netns;

/// What a run says when it has removed everything itself.
const DONE: u8 = b'.';
/// From the end of the pipe to the end of the process, which the kernel is already at.
const DEATH: Duration = Duration::from_secs(10);
/// A program that the run had just started may still make a namespace after its death.
const LATE_COMERS: Duration = Duration::from_secs(1);

/// The guard of this process; ends when this is dropped, which must be after the namespaces.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Starts it: this executable, whose subcommand `guard` calls [`watch`].
    pub fn start() -> Result<Self, LabError> {
        let what = "starting the guard of the namespaces";
        let own = std::env::current_exe().map_err(LabError::io(what))?;
        // A session of its own: whoever kills the run by terminal or group does not reach it.
        let mut command = Command::new("setsid");
        command.arg(own).arg("guard");
        command.arg(std::process::id().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().map_err(LabError::io(what))?;
        Ok(Self { child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            // An error means that it has ended already.
            let _: io::Result<()> = pipe.write_all(&[DONE]);
        }
        let _: io::Result<ExitStatus> = self.child.wait();
    }
}

/// Waits for the end of `runner`, whose pipe is the standard input, and removes what it left.
pub fn watch(runner: u32) -> Result<(), LabError> {
    let mut said = Vec::new();
    let read = io::stdin().read_to_end(&mut said);
    read.map_err(LabError::io("listening to the run"))?;
    if said == [DONE] {
        return Ok(());
    }
    let what = format!("the end of process {runner}");
    clock::until(&what, DEATH, || {
        Ok((!netns::is_running(runner)).then_some(()))
    })?;
    let mut last = clock::now();
    while clock::now().duration_since(last) < LATE_COMERS {
        for name in netns::remove_of(runner)? {
            eprintln!("removed {name}: its run was killed");
            last = clock::now();
        }
        clock::pass(LATE_COMERS / 10)?;
    }
    Ok(())
}
