//! Where and with what it was measured, and on which cores.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The machine and the software, for the report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Instruction sets that decide how fast AES-GCM can be.
    pub features: Vec<String>,
    pub kernel: String,
    /// When, in UTC; empty if the machine does not say.
    #[serde(default)]
    pub date: String,
    #[serde(default)]
    pub mhz: f64,
    pub version: String,
    pub load: f64,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_once(": "))
                .map_or("unknown", |(_, value)| value)
                .to_owned()
        };
        let wanted = ["aes", "vaes", "vpclmulqdq", "avx2", "avx512f"];
        let flags = field("flags");
        let has = |name: &&str| flags.split_whitespace().any(|flag| flag == *name);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cpu: field("model name"),
            cores: core_affinity::get_core_ids().map_or(1, |cores| cores.len()),
            features: wanted
                .iter()
                .filter(|f| has(f))
                .map(|f| (*f).to_owned())
                .collect(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            date: date(),
            mhz: field("cpu MHz").parse().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            load: load
                .split_whitespace()
                .next()
                .and_then(|first| first.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }
}

/// As date(1) says it.
fn date() -> String {
    let output = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// The cores to measure on.
#[derive(Args, Clone, Default, Debug)]
pub struct Pin {
    /// Cores to run on, such as 0,1; the last ones unless given
    #[arg(long, value_name = "CORES", value_delimiter = ',', value_parser = core)]
    pub pin: Vec<usize>,
}

/// A core that this process may run on; the command line is read before any thread is pinned.
fn core(text: &str) -> Result<usize, String> {
    let known = core_affinity::get_core_ids().unwrap_or_default();
    let is_known = |id: &usize| known.iter().any(|core| core.id == *id);
    text.parse().ok().filter(is_known).ok_or_else(|| {
        let known: Vec<String> = known.iter().map(|core| core.id.to_string()).collect();
        format!(
            "there is no such core for us; there are {}",
            known.join(", ")
        )
    })
}

impl Pin {
    /// The cores in the order in which workers take them. To be asked before any thread is pinned:
    /// a pinned one sees no core but its own.
    pub fn cores(&self) -> Cores {
        let known = core_affinity::get_core_ids().unwrap_or_default();
        let wanted = |id: &usize| known.iter().copied().find(|core| core.id == *id);
        Cores(match self.pin.as_slice() {
            [] => known.into_iter().rev().collect(),
            chosen => chosen.iter().filter_map(wanted).collect(),
        })
    }
}

/// Cores for workers.
#[derive(Clone, Debug)]
pub struct Cores(Vec<core_affinity::CoreId>);

impl Cores {
    /// How many workers can have one each.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of the first.
    pub fn first(&self) -> usize {
        self.0.first().map_or(0, |core| core.id)
    }

    /// The numbers of all.
    pub fn numbers(&self) -> Vec<usize> {
        self.0.iter().map(|core| core.id).collect()
    }

    /// Pins this thread as worker `index`; false if it runs anywhere.
    pub fn take(&self, index: usize) -> bool {
        let core = self.0.get(index);
        core.is_some_and(|core| core_affinity::set_for_current(*core))
    }
}

/// Tells a script of `testbeds` which `hitless` to run, unless the user has: the one beside `own`.
pub fn name_hitless(command: &mut Command, own: &Path) {
    let beside = own.parent().map(|folder| folder.join("hitless"));
    if std::env::var_os("HITLESS").is_none()
        && let Some(hitless) = beside.filter(|hitless| hitless.is_file())
    {
        command.env("HITLESS", hitless);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_refused_with_those_that_are() {
        let known = core_affinity::get_core_ids().unwrap();
        assert_eq!(core(&known[0].id.to_string()), Ok(known[0].id));
        for wrong in ["4096", "-1", "", "x"] {
            let said = core(wrong).unwrap_err();
            assert!(said.contains(&known[0].id.to_string()), "{said}");
        }
    }
}
