//! A VPP of the user's: `testbeds/vpp` starts it with two packet generators and a tunnel, and hands it
//! the packets of our own measurement; this reads the clocks of each node in its `show runtime`.
//! Debian packages no VPP: it is made after VPP's documentation and sources, and tried on a stand-in.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use hitless_bench::Direction;

use super::secgw::{self, Directory};
use super::{PerSize, SIZES};

const SCRIPT: &str = include_str!("../../../testbeds/vpp");
/// The node that makes packets, which is no part of the path; those that drop them are called `-tx`.
const GENERATOR: &str = "pg-input";
/// More than this share of packets dropped, and a figure is none.
const DROPPED: f64 = 0.01;

/// What VPP takes.
pub struct Measured {
    pub version: String,
    pub lines: Vec<(Direction, PerSize)>,
}

/// Nanoseconds a packet at each size, in each direction.
pub fn measure(vpp: &Path, core: usize, mhz: f64) -> Result<Measured, Box<dyn Error>> {
    let directory = Directory::new("vpp")?;
    let script = directory.file("vpp.sh");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new("bash");
    command.arg(&script).arg(vpp).arg(core.to_string());
    for direction in Direction::BOTH {
        for size in SIZES {
            let capture = directory.file(&format!("{}.pcap", name(direction, size)));
            secgw::write(&capture, direction, size, secgw::Layer::Ip)?;
            command.arg(capture);
        }
    }
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.trim().trim_start_matches("vpp: ").into());
    }
    read(&String::from_utf8_lossy(&output.stdout), mhz)
}

fn name(direction: Direction, size: usize) -> String {
    format!("{}-{size}", direction.name())
}

/// Reads what the script prints.
fn read(text: &str, mhz: f64) -> Result<Measured, Box<dyn Error>> {
    let mut version = "unknown".to_owned();
    let mut mhz = mhz;
    let mut captures: BTreeMap<&str, Vec<Node>> = BTreeMap::new();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("version ") {
            version = rest.split(' ').nth(1).unwrap_or(rest).to_owned();
        } else if let Some(said) = line.strip_prefix("Base frequency:") {
            // Its clocks are those of the time stamp counter.
            mhz = gigahertz(said).map_or(mhz, |ghz| ghz * 1e3);
        } else if let Some(name) = line.strip_prefix("capture ") {
            current = name;
        } else if let Some(node) = Node::read(line) {
            captures.entry(current).or_default().push(node);
        }
    }
    if mhz.is_nan() || mhz <= 0.0 {
        return Err("neither VPP nor /proc/cpuinfo says how fast the clock ticks".into());
    }
    let mut lines = Vec::new();
    for direction in Direction::BOTH {
        let mut each = [f64::NAN; SIZES.len()];
        for (ns, size) in each.iter_mut().zip(SIZES) {
            let name = name(direction, size);
            let nodes = captures.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            let clocks =
                clocks_per_packet(nodes, direction).map_err(|what| format!("{name}: {what}"))?;
            *ns = clocks * 1e3 / mhz;
        }
        lines.push((direction, each));
    }
    Ok(Measured { version, lines })
}

/// Of `2.60 GHz`.
fn gigahertz(said: &str) -> Option<f64> {
    let ghz: f64 = said.trim().strip_suffix("GHz")?.trim().parse().ok()?;
    (ghz > 0.0).then_some(ghz)
}

/// A line of `show runtime`: name, state, calls, vectors, suspends, clocks, vectors a call.
struct Node {
    name: String,
    packets: f64,
    clocks: f64,
}

impl Node {
    /// Nothing if it is no such line. The state may be two words (`event wait`).
    fn read(line: &str) -> Option<Node> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [
            name,
            states @ ..,
            calls,
            vectors,
            suspends,
            clocks,
            per_call,
        ] = words.as_slice()
        else {
            return None;
        };
        let number = |word: &str| word.parse::<f64>().ok().filter(|number| number.is_finite());
        let (_, _, _) = (number(calls)?, number(suspends)?, number(per_call)?);
        (!states.is_empty()).then_some(Node {
            name: (*name).to_owned(),
            packets: number(vectors)?,
            clocks: number(clocks)?,
        })
    }
}

/// Clocks of all nodes but the generator's own, over the packets that it made.
fn clocks_per_packet(nodes: &[Node], direction: Direction) -> Result<f64, String> {
    let packets = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        let such = nodes.iter().filter(|node| wanted(&node.name));
        // Not sum(), which makes -0 of nothing.
        such.fold(0.0, |sum, node| sum + node.packets)
    };
    let made = packets(&|name| name == GENERATOR);
    if made <= 0.0 {
        return Err("its generator made no packets".into());
    }
    let dropped = packets(&|name| name == "error-drop");
    if dropped > made * DROPPED {
        return Err(format!("VPP dropped {dropped:.0} of {made:.0} packets"));
    }
    let (cipher, way_out) = match direction {
        Direction::Encrypt => ("esp4-encrypt", "pg1-tx"),
        Direction::Decrypt => ("esp4-decrypt", "pg0-tx"),
    };
    for (node, seen) in [
        (cipher, packets(&|name| name.starts_with(cipher))),
        (way_out, packets(&|name| name == way_out)),
    ] {
        if seen < made * (1.0 - DROPPED) {
            return Err(format!("{seen:.0} of {made:.0} packets came to {node}"));
        }
    }
    let path = nodes
        .iter()
        .filter(|node| node.name != GENERATOR && !node.name.ends_with("-tx"));
    Ok(path.map(|node| node.packets * node.clocks).sum::<f64>() / made)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As VPP's `show runtime` lays it out, with a process that only waits.
    const RUNTIME: &str = "\
Time 3.0, 10 sec internal node vector rate 256.00 loops/sec 41132.53
  vector rates in 1.0533e7, out 1.0533e7, drop 0.0000e0, punt 0.0000e0
             Name                 State         Calls          Vectors        Suspends         Clocks       Vectors/Call
api-rx-from-ring                any wait                 0               0              12          1.23e4            0.00
adj-midchain-tx                  active               1000          256000               0          8.00e0          256.00
esp4-CRYPT-tun                   active               1000          256000               0          1.50e2          256.00
ip4-input                        active               1000          256000               0          1.00e1          256.00
ip4-lookup                       active               2000          512000               0          1.60e1          256.00
pg-input                        polling               1000          256000               0          5.00e1          256.00
pgN-output                       active               1000          256000               0          5.00e0          256.00
pgN-tx                           active               1000          256000               0          2.00e1          256.00
errors
   Count                  Node                              Reason               Severity
    256000             esp4-CRYPT-tun             ESP pkts received                 info
";

    fn printed() -> String {
        let mut text = "version vpp v26.06-release built by root\n\
            Base frequency:           2.00 GHz\n"
            .to_owned();
        for (direction, way_out) in [(Direction::Encrypt, "pg1"), (Direction::Decrypt, "pg0")] {
            for size in SIZES {
                text += &format!("capture {}\n", name(direction, size));
                text += &RUNTIME
                    .replace("CRYPT", direction.name())
                    .replace("pgN", way_out);
            }
        }
        text
    }

    #[test]
    fn the_clocks_of_vpps_nodes_are_summed_for_each_packet() {
        let measured = read(&printed(), 2600.0).unwrap();
        assert_eq!(measured.version, "v26.06-release");
        // 150 + 10 + 2 * 16 + 5: not the generator's, not what only drops them; at 2 GHz.
        for (_, each) in &measured.lines {
            assert_eq!(*each, [98.5; SIZES.len()]);
        }
        let unsaid = printed().replace("Base frequency", "Base");
        assert_eq!(read(&unsaid, 1000.0).unwrap().lines[0].1[0], 197.0);
    }

    #[test]
    fn a_vpp_that_does_not_protect_or_drops_packets_gives_no_figure() {
        let fails = |text: &str| match read(text, 2600.0) {
            Ok(_) => panic!("read"),
            Err(error) => error.to_string(),
        };
        let clear = printed().replace("esp4-", "ip4-");
        assert!(fails(&clear).contains("0 of 256000 packets came to esp4-encrypt"));
        let elsewhere = printed().replace("pg0-tx", "pg7-tx");
        assert!(fails(&elsewhere).contains("decrypt-64: 0 of 256000 packets came to pg0-tx"));
        let dropping = printed().replace(
            "api-rx-from-ring                any wait                 0               0",
            "error-drop active 10 25600",
        );
        assert!(fails(&dropping).contains("dropped 25600"));
        assert!(fails("").contains("encrypt-64: its generator made no packets"));
        let whole = printed();
        for end in (0..whole.len() - 200).step_by(97) {
            // Cut short anywhere before the last table: an error, never a panic.
            let cut = whole.get(..end.min(whole.len() / 2)).unwrap();
            assert!(read(cut, 2600.0).is_err());
        }
    }
}
