//! Network namespaces, cables between them and switches in them. Whatever is made here is removed
//! when its handle is dropped. Names carry the id of the process that made them, so that what a
//! killed run left behind is recognised and removed, by its guard or by the next run.

use std::path::PathBuf;

use crate::error::LabError;
use crate::process::Program;

const PREFIX: &str = "hitless";

/// A network namespace of this process.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `hitless-<process id>-<label>`, with loopback up. IPv6 is off: its chatter is not
    /// what scenarios look at, unless they ask for it.
    pub fn new(label: &str) -> Result<Self, LabError> {
        let name = format!("{PREFIX}-{}-{label}", std::process::id());
        Program::new(["ip", "netns", "add", &name]).run()?;
        let namespace = Self { name };
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Switches IPv6 on, before there are cables. Addresses can be used at once: nobody here has one
    /// twice, and a second of silence at each of them would be in every figure (RFC 4862 section 5.4).
    pub fn allow_ipv6(&self) -> Result<(), LabError> {
        for (setting, value) in [("accept_dad", "0"), ("disable_ipv6", "0")] {
            for of in ["all", "default"] {
                self.sysctl(&format!("net.ipv6.conf.{of}.{setting}"), value)?;
            }
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// `ip <words>` inside.
    pub fn ip(&self, words: &[&str]) -> Result<String, LabError> {
        let command = ["ip", "-n", &self.name];
        Program::new(command.iter().chain(words).copied()).run()
    }

    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        let setting = format!("{name}={value}");
        let program = Program::new(["sysctl", "-q", "-w", &setting]);
        program.inside(self).run().map(drop)
    }

    pub fn address(&self, interface: &str, address: &str) -> Result<(), LabError> {
        self.ip(&["addr", "add", address, "dev", interface])
            .map(drop)
    }

    /// A switch with these ports, forwarding at once.
    pub fn switch(&self, name: &str, ports: &[&str]) -> Result<(), LabError> {
        self.ip(&[
            "link",
            "add",
            name,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        for port in ports {
            self.ip(&["link", "set", port, "master", name])?;
        }
        self.ip(&["link", "set", name, "up"]).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next run tries again.
        let _: Result<String, LabError> = Program::new(["ip", "netns", "del", &self.name]).run();
    }
}

/// A cable between two namespaces, both ends up.
pub fn cable(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<(), LabError> {
    let ((a, a_end), (b, b_end)) = (a, b);
    Program::new([
        "ip",
        "link",
        "add",
        a_end,
        "netns",
        a.name(),
        "type",
        "veth",
        "peer",
        "name",
        b_end,
        "netns",
        b.name(),
    ])
    .run()?;
    for (namespace, end) in [(a, a_end), (b, b_end)] {
        // The kernel leaves checksums to the "hardware" of a veth, and AF_XDP would then see
        // packets with half a checksum in them, or several packets glued into one.
        let offload = Program::new([
            "ethtool", "-K", end, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
        ]);
        offload.inside(namespace).run()?;
        namespace.ip(&["link", "set", end, "up"])?;
    }
    Ok(())
}

/// Removes namespaces whose process is gone; gives their names.
pub fn remove_leftovers() -> Result<Vec<String>, LabError> {
    remove(|maker| !is_running(maker))
}

/// Removes the namespaces that this process made; gives their names.
pub fn remove_of(process: u32) -> Result<Vec<String>, LabError> {
    remove(|maker| maker == process)
}

fn remove(which: impl Fn(u32) -> bool) -> Result<Vec<String>, LabError> {
    let mut removed = Vec::new();
    for name in list()? {
        if !maker(&name).is_some_and(&which) {
            continue;
        }
        let deleted = Program::new(["ip", "netns", "del", &name]).run();
        // A guard and the next run may be at it at once: gone is gone.
        match deleted {
            Ok(_) => removed.push(name),
            Err(error) if list()?.contains(&name) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(removed)
}

fn list() -> Result<Vec<String>, LabError> {
    let listed = Program::new(["ip", "netns", "list"]).run()?;
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    Ok(listed.lines().filter_map(first).collect())
}

/// The process that made a namespace of this name, if it is one of ours.
fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('-')?;
    rest.split_once('-')?.0.parse().ok()
}

/// Not gone, and not a zombie, which nobody has waited for yet.
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // proc_pid_stat(5): the state follows the name, which is in brackets and may hold anything.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    !state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_ours_have_a_maker() {
        assert_eq!(maker("hitless-4711-peer"), Some(4711));
        for name in [
            "hitless-peer",
            "hitless",
            "other-4711-x",
            "hitless4711-x",
            "hitless-47x1-a",
        ] {
            assert_eq!(maker(name), None, "{name}");
        }
    }

    #[test]
    fn this_process_is_running() {
        assert!(is_running(std::process::id()));
    }
}
