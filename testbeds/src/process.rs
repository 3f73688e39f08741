//! Other programs: run to their end, or kept running with their output in a file. Each is ended by
//! its handle when that is dropped, and by the kernel should the testbed itself be killed.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::netns::Namespace;
use crate::syscall;

/// No program that is waited for may take longer, in seconds; a build may.
const RUN_LIMIT: &str = "20";
const BUILD_LIMIT: &str = "1800";

/// How to start a program.
#[derive(Clone, Debug)]
pub struct Program {
    words: Vec<String>,
    environment: Vec<(String, String)>,
    namespace: Option<String>,
}

impl Program {
    pub fn new<I, S>(words: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            words: words.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            namespace: None,
        }
    }

    /// Runs inside a network namespace.
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.name().to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().display().to_string();
        self.environment.push((name.to_owned(), value));
        self
    }

    fn command(&self, before: &[&str]) -> Command {
        let mut words: Vec<&str> = before.to_vec();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace]);
        }
        words.extend(self.words.iter().map(String::as_str));
        let mut command = Command::new(words.first().copied().unwrap_or_default());
        command.args(words.iter().skip(1)).stdin(Stdio::null());
        // Programs are read by this one: their words must not depend on who runs it.
        command.env("LC_ALL", "C");
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Runs to the end and gives the standard output; an error if it fails.
    pub fn run(&self) -> Result<String, LabError> {
        self.run_within(RUN_LIMIT)
    }

    /// The same for a program that may take minutes.
    pub fn run_for_long(&self) -> Result<String, LabError> {
        self.run_within(BUILD_LIMIT)
    }

    /// Runs to the end, and gives the exit status and the standard output whatever it is.
    pub fn judge(&self) -> Result<(Option<i32>, String), LabError> {
        let output = self.output_within(RUN_LIMIT)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), said))
    }

    fn output_within(&self, limit: &str) -> Result<Output, LabError> {
        self.command(&["timeout", "-k", "1", limit])
            .output()
            .map_err(LabError::io(self.words.join(" ")))
    }

    fn run_within(&self, limit: &str) -> Result<String, LabError> {
        let shown = self.words.join(" ");
        let output = self.output_within(limit)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        Err(LabError::Failed {
            command: shown,
            output: format!("{} ({})", said.trim(), output.status),
        })
    }

    /// Starts it; what it prints goes to `<directory>/<name>.log`.
    pub fn spawn(&self, name: &str, directory: &Path) -> Result<Process, LabError> {
        let log = directory.join(format!("{name}.log"));
        let what = || format!("starting {name}");
        let file = File::create(&log).map_err(LabError::io(what()))?;
        let errors = file.try_clone().map_err(LabError::io(what()))?;
        // Each word before the program replaces itself by the next, so the child's id is the
        // program's.
        let child = self
            .command(&["setpriv", "--pdeathsig", "KILL"])
            .stdout(file)
            .stderr(errors)
            // A Ctrl-C at the terminal is for this program alone, which ends the others in order.
            .process_group(0)
            .spawn()
            .map_err(LabError::io(what()))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log,
        })
    }
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its process id, as long as it is not waited for.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An error if it has ended.
    pub fn check_running(&mut self) -> Result<(), LabError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(LabError::Ended {
                process: self.name.clone(),
                log: self.log.clone(),
            }),
        }
    }

    /// Waits until its output holds `text`.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<(), LabError> {
        let what = format!("{} saying {text:?}", self.name);
        clock::until(&what, limit, || {
            let found = self.log().contains(text);
            if !found {
                self.check_running()?;
            }
            Ok(found.then_some(()))
        })
    }

    /// SIGKILL, as a power cut would have it; gives the moment.
    ///
    /// A machine that dies takes its memory with it. Here the kernel gives it back page by page, as
    /// work of the dead process and with its priority, on the cores that the survivor needs just
    /// then: gigabytes are tens of milliseconds. That work is made to stand back.
    pub fn kill(&mut self) -> Result<Duration, LabError> {
        self.check_running()?;
        let what = format!("killing {}", self.name);
        syscall::stand_back(&self.child).map_err(LabError::io(what.clone()))?;
        let moment = clock::wall();
        self.child.kill().map_err(LabError::io(what.clone()))?;
        self.child.wait().map_err(LabError::io(what))?;
        Ok(moment)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<(), LabError> {
        let what = format!("a signal to {}", self.name);
        syscall::signal(&self.child, signal).map_err(LabError::io(what))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        let what = || format!("the end of {}", self.name);
        self.child.try_wait().map_err(LabError::io(what()))
    }

    /// Asks it to end with `signal` and waits.
    pub fn end(&mut self, signal: i32, limit: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("the end of {}", self.name);
        self.check_running()?;
        syscall::signal(&self.child, signal).map_err(LabError::io(what.clone()))?;
        clock::until(&what, limit, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended by itself, which is what is wanted.
        let _: io::Result<()> = self.child.kill();
        let _: io::Result<ExitStatus> = self.child.wait();
    }
}

/// An error that names the package if `program` is not installed.
pub fn require(program: &str, package: &'static str) -> Result<(), LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(system);
    if Path::new(program).is_file() || places.any(|place| place.join(program).is_file()) {
        return Ok(());
    }
    Err(LabError::Missing {
        program: program.to_owned(),
        package,
    })
}
