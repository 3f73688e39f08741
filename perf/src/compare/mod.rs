//! `hitless-perf compare`: what Debian offers beside us, on the same machine and packets. Installs it if
//! need be; what is not to be had is said.
//!
//! ```text
//!  mod.rs       dpdk-test-crypto-perf: the bare cipher of VPP and ipsec-secgw (Intel's ipsec-mb)
//!  secgw.rs     DPDK's ipsec-secgw: a whole packet path      gateways.rs  strongSwan: whole gateways
//!  vpp.rs       a VPP of the user's: a whole packet path
//! ```
//!
//! dpdk-test-crypto-perf times a whole run, so whatever else the machine does counts; each run is short
//! and repeated, and the best one stands.

mod gateways;
mod secgw;
mod vpp;

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::esp;
use crate::machine::{Machine, Pin};
use crate::print::note;
use crate::progress::Progress;
use crate::results::EspLine;
use gateways::GatewayLine;
use hitless_bench::Direction;

const TOOL: &str = "dpdk-test-crypto-perf";
const PACKAGES: [&str; 2] = ["dpdk-dev", "librte-crypto-ipsec-mb23"];
const DRIVERS: [&str; 2] = ["aesni_gcm", "aesni_mb"];
const SIZES: [usize; 3] = [64, 512, 1400];
/// Megabytes and pages of 2 MB that DPDK gets.
const MEGABYTES: usize = 512;
const PAGES: usize = 256;
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Options of `hitless-perf compare`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Do not install Debian's packages; compare with what is there
    #[arg(long)]
    no_install: bool,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    only: Vec<What>,
    /// A VPP of yours: its program or the directory that it is installed in, such as /usr. Run with its
    /// packet generator, IPsec tunnel and `show runtime` (testbeds/vpp has the commands). Made after
    /// VPP's documentation and sources; not yet run against a real VPP, which Debian does not package
    #[arg(long, value_name = "PATH")]
    vpp: Option<PathBuf>,
    /// Runs of dpdk-test-crypto-perf, of which the best counts
    #[arg(long, default_value_t = 5, value_name = "N")]
    runs: usize,
    /// Rounds of 256 packets of ours
    #[arg(long, default_value_t = 300, value_name = "N")]
    rounds: usize,
    #[command(flatten)]
    pin: Pin,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What can be compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum What {
    /// The bare cipher: dpdk-test-crypto-perf with Intel's ipsec-mb
    Cipher,
    /// The packet path: DPDK's ipsec-secgw
    Secgw,
    /// The packet path: the VPP that --vpp names
    Vpp,
    /// Whole gateways: strongSwan with ESP in user space, and Linux that only forwards
    Gateways,
}

impl Options {
    fn wants(&self, what: What) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }
}

/// All figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    pub machine: Machine,
    pub lines: Vec<Line>,
    pub gateways: Vec<GatewayLine>,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

/// One candidate at one size and direction.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    pub what: String,
    pub size: usize,
    pub direction: String,
    pub ns: f64,
    /// The whole path of hitless takes so many times as long.
    pub hitless_ratio: f64,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, load {:.1}, AES-128-GCM, one core",
            self.machine.cpu, self.machine.load
        )?;
        if !self.lines.is_empty() {
            writeln!(
                f,
                "\n{:<40} {:>6} {:<8} {:>9} {:>8}",
                "one core", "octets", "", "ns/packet", "hitless"
            )?;
        }
        for line in &self.lines {
            writeln!(
                f,
                "{:<40} {:>6} {:<8} {:>9.1} {:>7.2}x",
                line.what, line.size, line.direction, line.ns, line.hitless_ratio
            )?;
        }
        if !self.lines.is_empty() {
            writeln!(
                f,
                "hitless: the time of its whole packet path over that of each; below 1 it is faster. A bare\n\
                 cipher encrypts or decrypts and does nothing else; ipsec-secgw's time has 16 to 44 ns of\n\
                 copying in it, by which its source hands packets out; VPP's are the clocks of its nodes from\n\
                 ip4-input on, without those that make and drop packets, and without a replay window."
            )?;
        }
        if !self.gateways.is_empty() {
            writeln!(
                f,
                "\n{:<40} {:>6} {:>10} {:>7} {:>9} {:>9}",
                "two gateways with a tunnel, closed loop",
                "octets",
                "a second",
                "lost",
                "p50 us",
                "hitless"
            )?;
        }
        for line in &self.gateways {
            writeln!(
                f,
                "{:<40} {:>6} {:>10.0} {:>7} {:>9.0} {:>8.2}x",
                line.what, line.size, line.pps, line.lost, line.p50_us, line.hitless_ratio
            )?;
        }
        if !self.gateways.is_empty() {
            writeln!(
                f,
                "hitless: what it carries over what each carries; above 1 it is faster. Both gateways and\n\
                 the generator share the cores of this machine."
            )?;
        }
        for missing in &self.missing {
            writeln!(f, "not measured: {missing}")?;
        }
        Ok(())
    }
}

/// Nanoseconds a packet of each size.
type PerSize = [f64; SIZES.len()];
/// Of whom, which direction.
type Theirs = Vec<(String, &'static str, PerSize)>;

/// Installs, measures, compares.
pub fn run(options: &Options) -> Result<Comparison, Box<dyn Error>> {
    let mut comparison = Comparison {
        machine: Machine::here(),
        lines: Vec::new(),
        gateways: Vec::new(),
        missing: Vec::new(),
    };
    let cores = options.pin.cores();
    // Theirs first: a thread of ours that is pinned would leave them that core only.
    let mut theirs = Theirs::new();
    if options.wants(What::Gateways) {
        whole_gateways(options, &mut comparison);
    }
    if options.wants(What::Secgw) {
        match secgw(options, cores.first()) {
            Ok(found) => theirs.extend(found),
            Err(error) => comparison.missing.push(format!("ipsec-secgw: {error}")),
        }
    }
    if options.wants(What::Cipher) {
        match ciphers(options) {
            Ok(found) => theirs.extend(found),
            Err(error) => comparison.missing.push(format!("{TOOL}: {error}")),
        }
    }
    if options.wants(What::Vpp) {
        match vpp(options, cores.first(), comparison.machine.mhz) {
            Ok(found) => theirs.extend(found),
            Err(error) => comparison.missing.push(format!("VPP: {error}")),
        }
    }
    if [What::Cipher, What::Secgw, What::Vpp]
        .iter()
        .any(|what| options.wants(*what))
    {
        let mut progress = Progress::new("compare", 1);
        progress.step("hitless");
        cores.take(0);
        comparison.lines = beside(&esp::whole_path(&SIZES, options.rounds)?, &theirs);
    }
    Ok(comparison)
}

/// Everybody's figures at each size and direction.
fn beside(ours: &[EspLine], theirs: &Theirs) -> Vec<Line> {
    let mut lines = Vec::new();
    for line in ours {
        let Some(at) = SIZES
            .iter()
            .position(|size| esp::is_size(&line.size, *size))
        else {
            continue;
        };
        let mut add = |what: String, ns: f64| {
            lines.push(Line {
                what,
                size: SIZES[at],
                direction: line.direction.clone(),
                ns,
                hitless_ratio: line.ns_per_packet / ns,
            });
        };
        add("hitless, whole path".to_owned(), line.ns_per_packet);
        for (who, direction, best) in theirs {
            if *direction == line.direction {
                add(who.clone(), best[at]);
            }
        }
        if let Some(ns) = line.burst_ns {
            add("hitless, bare cipher".to_owned(), ns);
        }
        add("aws-lc-rs, bare cipher".to_owned(), line.bare_ns);
    }
    lines
}

fn ciphers(options: &Options) -> Result<Theirs, Box<dyn Error>> {
    if Command::new(TOOL).arg("--version").output().is_err() {
        options.install(&PACKAGES)?;
    }
    let mut progress = Progress::new("cipher", DRIVERS.len() * 2 * options.runs);
    let _pages = HugePages::reserve()?;
    let mut theirs = Theirs::new();
    for driver in DRIVERS {
        for direction in ["encrypt", "decrypt"] {
            let mut best = [f64::INFINITY; SIZES.len()];
            for _ in 0..options.runs {
                progress.step(&format!("{driver} {direction}"));
                for (best, ns) in best.iter_mut().zip(measure(driver, direction)?) {
                    *best = best.min(ns);
                }
            }
            theirs.push((
                format!("DPDK {driver} (ipsec-mb), bare cipher"),
                direction,
                best,
            ));
        }
    }
    Ok(theirs)
}

fn vpp(options: &Options, core: usize, mhz: f64) -> Result<Theirs, Box<dyn Error>> {
    let path = options
        .vpp
        .as_ref()
        .ok_or("Debian has no package of it; name yours with --vpp PATH")?;
    let mut progress = Progress::new("vpp", 1);
    progress.step("VPP, some 40 seconds");
    // Without large pages VPP takes small ones.
    let _pages = HugePages::reserve();
    let measured = vpp::measure(path, core, mhz)?;
    note(format_args!(
        "VPP {}: `--vpp` was made after VPP's documentation; check its figures before you quote them",
        measured.version
    ));
    let who = format!("VPP {}, all nodes", measured.version);
    let lines = measured.lines.into_iter();
    Ok(lines
        .map(|(direction, each)| (who.clone(), direction.name(), each))
        .collect())
}

fn secgw(options: &Options, core: usize) -> Result<Theirs, Box<dyn Error>> {
    if !secgw::is_installed() {
        options.install(&secgw::PACKAGES)?;
    }
    let mut progress = Progress::new("secgw", 1);
    progress.step("ipsec-secgw, some 40 seconds");
    let _pages = HugePages::reserve()?;
    let measured = secgw::measure(core)?;
    let named = |(direction, each): (Direction, _)| {
        (
            "DPDK ipsec-secgw, whole path".to_owned(),
            direction.name(),
            each,
        )
    };
    Ok(measured.into_iter().map(named).collect())
}

fn whole_gateways(options: &Options, comparison: &mut Comparison) {
    let absent = |path: &&str| !std::path::Path::new(path).exists();
    if ["/usr/sbin/charon-systemd", "/usr/sbin/swanctl"]
        .iter()
        .any(absent)
        && let Err(error) = options.install(&gateways::PACKAGES)
    {
        comparison.missing.push(format!("strongSwan: {error}"));
    }
    let mut progress = Progress::new("gateways", gateways::KINDS.len() * gateways::SIZES.len());
    for (kind, what) in gateways::KINDS {
        for size in gateways::SIZES {
            progress.step(&format!("{what} {size}"));
            match gateways::measure(kind, what, size) {
                Ok(line) => comparison.gateways.push(line),
                Err(error) => {
                    comparison
                        .missing
                        .push(format!("gateways, {what}: {error}"));
                    break;
                }
            }
        }
    }
    let ours: Vec<GatewayLine> = comparison
        .gateways
        .iter()
        .take(gateways::SIZES.len())
        .cloned()
        .collect();
    for line in &mut comparison.gateways {
        let of_ours = ours.iter().find(|ours| ours.size == line.size);
        let ours = of_ours.filter(|ours| ours.what == gateways::KINDS[0].1);
        line.hitless_ratio = ours.map_or(f64::NAN, |ours| ours.pps / line.pps);
    }
}

impl Options {
    /// Debian's packages, unless the user wants none.
    fn install(&self, packages: &[&str]) -> Result<(), Box<dyn Error>> {
        if self.no_install {
            return Err(format!("not installed; it is in {}", packages.join(" ")).into());
        }
        note(format_args!("installing {}", packages.join(" ")));
        let status = Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(packages)
            .stdout(std::io::stderr())
            .status()
            .map_err(|error| format!("apt-get: {error}; this needs Debian or Ubuntu"))?;
        match status.success() {
            true => Ok(()),
            false => Err("apt-get failed; run as root, after `apt-get update`".into()),
        }
    }
}

/// Large pages for DPDK, given back when dropped.
struct HugePages {
    before: usize,
}

impl HugePages {
    fn reserve() -> Result<HugePages, Box<dyn Error>> {
        let read = || -> Result<usize, Box<dyn Error>> {
            Ok(fs::read_to_string(HUGE_PAGES)?.trim().parse()?)
        };
        let before = read()?;
        if before < PAGES {
            fs::write(HUGE_PAGES, PAGES.to_string())
                .map_err(|error| format!("{HUGE_PAGES}: {error}; run as root"))?;
        }
        let pages = HugePages { before };
        match read()? >= PAGES {
            true => Ok(pages),
            false => Err(format!("no {PAGES} pages of 2 MB are free; free some memory").into()),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // What cannot be given back now is no harm, and there is nobody to tell.
        let _ = fs::write(HUGE_PAGES, self.before.to_string());
    }
}

/// Nanoseconds a packet of each size.
fn measure(driver: &str, direction: &str) -> Result<[f64; SIZES.len()], Box<dyn Error>> {
    let sizes = SIZES.map(|size| size.to_string()).join(",");
    let output = Command::new(TOOL)
        .args(["--no-pci", "--in-memory", "-m", &MEGABYTES.to_string()])
        .args(["-l", "0,1", "--no-telemetry", "--vdev"])
        .arg(format!("crypto_{driver}0"))
        .args(["--", "--ptest", "throughput", "--devtype"])
        .arg(format!("crypto_{driver}"))
        .args(["--optype", "aead", "--aead-algo", "aes-gcm"])
        .args(["--aead-op", direction, "--aead-key-sz", "16"])
        .args([
            "--aead-iv-sz",
            "12",
            "--aead-aad-sz",
            "8",
            "--digest-sz",
            "16",
        ])
        .args(["--buffer-sz", &sizes, "--burst-sz", "32"])
        .args(["--total-ops", "1000000", "--csv-friendly"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    rates(&text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or("nothing").to_owned();
        format!("{TOOL} printed no figures for crypto_{driver}; it said: {last}").into()
    })
}

/// Reads the lines `lcore,size,burst,enqueued,dequeued,failed,failed,Mops,Gbps,cycles`.
fn rates(text: &str) -> Option<[f64; SIZES.len()]> {
    let mut found = [None; SIZES.len()];
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let (Some(size), Some(mops)) = (fields.get(1), fields.get(7)) else {
            continue;
        };
        let (Ok(size), Ok(mops)) = (size.parse::<usize>(), mops.parse::<f64>()) else {
            continue;
        };
        for (place, wanted) in found.iter_mut().zip(SIZES) {
            if wanted == size && mops > 0.0 {
                *place = Some(1e3 / mops);
            }
        }
    }
    match found {
        [Some(a), Some(b), Some(c)] => Some([a, b, c]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_table_is_read() {
        let text = "EAL: Detected CPU lcores: 2\n\
            #lcore id,Buffer Size(B),Burst Size,Enqueued,Dequeued,Failed Enq,Failed Deq,Ops(Millions),Throughput(Gbps),Cycles/Buf\n\n\
            1,64,32,3000000,3000000,0,0,20.000,10.240,130.0\n\
            1,512,32,3000000,3000000,0,0,10.000,40.960,260.0\n\
            1,1400,32,3000000,3000000,0,0,5.000,56.000,520.0\n";
        assert_eq!(rates(text), Some([50.0, 100.0, 200.0]));
        assert_eq!(rates(&text.replace("1,512", "1,513")), None);
        assert_eq!(rates(""), None);
    }
}
