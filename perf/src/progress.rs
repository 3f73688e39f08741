//! A bar on the terminal while something long runs. Nothing when the output is for a program.

use std::io::{self, IsTerminal, Write};

use crate::clock::Moment;

const WIDTH: usize = 24;

/// How far a run of known length has come.
pub struct Progress {
    shown: bool,
    name: &'static str,
    done: usize,
    all: usize,
    began: Moment,
}

impl Progress {
    /// Of `all` steps.
    pub fn new(name: &'static str, all: usize) -> Progress {
        Progress {
            shown: io::stderr().is_terminal(),
            name,
            done: 0,
            all,
            began: Moment::now(),
        }
    }

    /// One step begins.
    pub fn step(&mut self, what: &str) {
        if self.shown {
            let filled = (self.done * WIDTH).checked_div(self.all).unwrap_or(WIDTH);
            let bar = "#".repeat(filled.min(WIDTH));
            // With stderr gone there is nobody to tell.
            let _ = write!(
                io::stderr(),
                "\r\x1b[K{:<8} [{bar:<WIDTH$}] {}/{}{} {what}",
                self.name,
                self.done,
                self.all,
                self.left(),
            );
        }
        self.done += 1;
    }

    /// The time that the rest will take if it goes on like this.
    fn left(&self) -> String {
        let rest = self.all.saturating_sub(self.done) as f64;
        match self.done {
            0 => String::new(),
            done => {
                let seconds = self.began.elapsed().as_secs_f64() / done as f64 * rest;
                format!(", {seconds:.0} s left:")
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
