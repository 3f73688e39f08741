//! A bar on the terminal while something long runs. Nothing when the output is for a program.

use std::io::{IsTerminal, Write};

const WIDTH: usize = 30;

/// How far a run of known length has come.
pub struct Progress {
    shown: bool,
    name: &'static str,
    done: usize,
    all: usize,
}

impl Progress {
    /// Of `all` steps.
    pub fn new(name: &'static str, all: usize) -> Progress {
        let shown = std::io::stderr().is_terminal();
        Progress {
            shown,
            name,
            done: 0,
            all,
        }
    }

    /// One step begins.
    pub fn step(&mut self, what: &str) {
        if self.shown {
            let filled = (self.done * WIDTH).checked_div(self.all).unwrap_or(WIDTH);
            let bar = "#".repeat(filled.min(WIDTH));
            eprint!(
                "\r\x1b[K{} [{bar:<WIDTH$}] {}/{} {what}",
                self.name, self.done, self.all
            );
            let _ = std::io::stderr().flush();
        }
        self.done += 1;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
