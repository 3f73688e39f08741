//! DPDK's ipsec-secgw, the example gateway, as Debian packages its source: from a device that hands
//! out the packets of a capture to one that drops them, on one core. Its time is that of its core, as
//! the kernel counts it, so whatever else the machine does counts little.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hitless_bench::{Bench, Direction, IN_FLIGHT, Setup, parts};
use hitless_dataplane::aead::Engine;
use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::pcap::{Pace, PcapPort, PcapSettings};
use hitless_dataplane::port::{BURST, Burst, Port};
use hitless_dataplane::wire::ethernet;

use super::{MEGABYTES, PerSize, SIZES};

pub const PACKAGES: [&str; 5] = ["dpdk-doc", "libdpdk-dev", "pkg-config", "gcc", "make"];
const SOURCE: &str = "/usr/share/dpdk/examples/ipsec-secgw";
/// It insists on a device that verifies checksums, which none without hardware does.
const INSISTS: &str = ".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,";
/// Seconds of a run that count, after those in which it starts.
const SECONDS: usize = 3;

/// A directory that goes away.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Result<Directory, Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("hitless-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Directory(path))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed stays in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running gateway; it ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether its source is here.
pub fn is_installed() -> bool {
    Path::new(SOURCE).is_dir()
}

/// Nanoseconds a packet at each size, in each direction.
pub fn measure(core: usize) -> Result<Vec<(Direction, PerSize)>, Box<dyn Error>> {
    let directory = Directory::new("secgw")?;
    let program = build(&directory)?;
    let configuration = directory.file("secgw.cfg");
    fs::write(
        &configuration,
        CONFIGURATION.replace("KEY", &vec!["07"; 20].join(":")),
    )?;
    let mut all = Vec::new();
    for direction in Direction::BOTH {
        let mut each = [f64::NAN; SIZES.len()];
        for (ns, size) in each.iter_mut().zip(SIZES) {
            let capture = directory.file("packets.pcap");
            let _ = fs::remove_file(&capture);
            write(&capture, direction, size, Layer::Ethernet)?;
            *ns = run(&program, &configuration, &capture, direction, core)?;
        }
        all.push((direction, each));
    }
    Ok(all)
}

/// The tunnel of the other measurements: `perf/bench` has its addresses, SPI and key.
const CONFIGURATION: &str = "\
sp ipv4 out esp protect 33554432 pri 1 dst 10.128.0.0/16 sport 0:65535 dport 0:65535
sp ipv4 in esp protect 16777216 pri 1 dst 10.1.0.0/16 sport 0:65535 dport 0:65535
sa out 33554432 aead_algo aes-128-gcm aead_key KEY mode ipv4-tunnel src 192.0.2.1 dst 192.0.2.2
sa in 16777216 aead_algo aes-128-gcm aead_key KEY mode ipv4-tunnel src 192.0.2.2 dst 192.0.2.1
rt ipv4 dst 192.0.2.2/32 port 1
rt ipv4 dst 10.1.0.0/16 port 0
neigh port 0 02:00:00:00:00:02
neigh port 1 02:00:00:00:00:02
";

fn build(directory: &Directory) -> Result<PathBuf, Box<dyn Error>> {
    for entry in fs::read_dir(SOURCE)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(
                entry.path(),
                directory.file(&entry.file_name().to_string_lossy()),
            )?;
        }
    }
    let main = directory.file("ipsec-secgw.c");
    let text = fs::read_to_string(&main)?;
    fs::write(&main, text.replace(INSISTS, ".offloads = 0,"))?;
    let output = Command::new("make")
        .arg("shared")
        .current_dir(&directory.0)
        .output()?;
    match output.status.success() {
        true => Ok(directory.file("build/ipsec-secgw")),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("it does not build: {}", said.lines().last().unwrap_or("")).into())
        }
    }
}

/// Where the packets of a capture begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Ethernet,
    Ip,
}

/// As many packets as a worker of ours gets, in a capture.
pub fn write(
    path: &Path,
    direction: Direction,
    size: usize,
    layer: Layer,
) -> Result<(), Box<dyn Error>> {
    let skipped = match layer {
        Layer::Ethernet => 0,
        Layer::Ip => ethernet::HEADER,
    };
    let setup = Setup::plain(Engine::default());
    let mut bench = Bench::new(setup, direction, 0, &parts(&setup))?;
    let mut port = PcapPort::open(&PcapSettings {
        input: None,
        output: Some(path.to_owned()),
        pace: Pace::Fast,
        mtu: 2000,
        clock: || std::time::Duration::ZERO,
    })?;
    let mut pool = Pool::new(64)?;
    let mut burst = Burst::new();
    for n in 1..=IN_FLIGHT {
        let frame = bench.frame(size)?;
        burst.extend(pool.copy_in(frame.get(skipped..).unwrap_or_default()));
        if n % BURST == 0 {
            port.transmit(&mut pool, &mut burst);
        }
    }
    Ok(())
}

fn run(
    program: &Path,
    configuration: &Path,
    capture: &Path,
    direction: Direction,
    core: usize,
) -> Result<f64, Box<dyn Error>> {
    // Outbound from port 0, which is protected; inbound from port 1.
    let source = format!("rx_pcap={},infinite_rx=1", capture.display());
    let devices = match direction {
        Direction::Encrypt => [
            format!("net_pcap0,{source}"),
            "net_null1,no-rx=1".to_owned(),
        ],
        Direction::Decrypt => [
            "net_null0,no-rx=1".to_owned(),
            format!("net_pcap1,{source}"),
        ],
    };
    let mut command = Command::new("stdbuf");
    command.arg("-oL").arg(program);
    command.args([
        "-l",
        &core.to_string(),
        "--no-pci",
        "--in-memory",
        "--no-telemetry",
    ]);
    command.args(["-m", &MEGABYTES.to_string(), "--vdev", "crypto_aesni_gcm0"]);
    command.args(["--vdev", &devices[0], "--vdev", &devices[1]]);
    command.args(["--", "-p", "0x3", "-P", "-u", "0x2", "-l", "-t", "1"]);
    command.args(["--config", &format!("(0,0,{core}),(1,0,{core})")]);
    command.arg("-f").arg(configuration);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn()?);
    let output = running.0.stdout.take().ok_or("no output to read")?;
    let mut samples = Vec::new();
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(sent) = line.strip_prefix("Total packets sent:") {
            samples.push((sent.trim().parse::<f64>()?, on_cpu(running.0.id())?));
        }
        if samples.len() > SECONDS + 1 {
            break;
        }
        last = line;
    }
    // The first second has its start in it.
    match (samples.get(1), samples.last()) {
        (Some((first, began)), Some((sent, ended))) if sent > first => {
            Ok((ended - began) / (sent - first))
        }
        _ => Err(format!("it forwarded nothing; it said: {last}").into()),
    }
}

/// Nanoseconds that the main thread of a process was running; it is the one that forwards.
fn on_cpu(process: u32) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/schedstat"))?;
    let first = text.split(' ').next().ok_or("schedstat is empty")?;
    Ok(first.parse()?)
}
