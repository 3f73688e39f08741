//! `hitless capture`: packets into a pcapng file.
//!
//! The file is written here, with the rights of whoever asks; the daemon sends packets over its
//! socket and opens no file for anybody.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hitless_dataplane::pcap::{self, Direction, Entry, PcapngWriter};
use serde_json::json;

use super::filter::FilterOptions;
use super::{Failure, Outcome, Target, print_json};
use crate::api::{
    CaptureDirection, CaptureReport, CaptureSide, CapturedPacket, LinkType, Reply, Request,
};
use crate::clock;

/// Packets, unless `--count` says otherwise: nobody reads more, and disks are finite.
const COUNT: u64 = 1_000_000;

/// Capture packets before or after ESP into a pcapng file
#[derive(Args, Debug)]
#[command(
    long_about = "Capture packets before or after ESP into a pcapng file.\n\n\
        Interfaces are named after the ports; `inner` has packets in clear, `dropped` what was \
        dropped. Comments say the SA, the number and why a packet was dropped. Packets that find \
        no room are not waited for, and counted.\n\n\
        The file is made with mode 0600; one that exists is not touched, and no link is followed. \
        `-` is stdout. Inner packets are clear text: who may use the daemon's socket may read them.",
    after_help = "Examples:\n  hitless capture /tmp/a.pcapng --count 100\n  hitless capture b.pcapng --after-esp --filter sa=office.net --seconds 10\n  hitless capture - --before-esp | wireshark -k -i -"
)]
pub struct Capture {
    /// The file to make, or `-`
    #[arg(value_name = "FILE.pcapng")]
    file: PathBuf,
    /// Inner packets only, in clear
    #[arg(long, group = "side")]
    before_esp: bool,
    /// Frames on the ports towards the peers only
    #[arg(long, group = "side")]
    after_esp: bool,
    /// Inner packets and frames (the default)
    #[arg(long, group = "side")]
    both: bool,
    /// End after so many packets
    #[arg(long, value_name = "N", default_value_t = COUNT, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// End after so much time; without it, when N packets have come or at Ctrl-C
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    target: Target,
}

/// What a capture came to.
struct Total {
    packets: u64,
    lost: u64,
}

impl Capture {
    pub fn execute(&self) -> Outcome {
        let filter = self.filter.parse()?;
        let side = match (self.before_esp, self.after_esp) {
            (true, _) => CaptureSide::BeforeEsp,
            (_, true) => CaptureSide::AfterEsp,
            _ => CaptureSide::Both,
        };
        let to_stdout = self.file == Path::new("-");
        if to_stdout && io::stdout().is_terminal() {
            return Err(Failure::usage(
                "- is stdout, and that is a terminal; name a file",
            ));
        }
        let start = Request::CaptureStart {
            side,
            packets: self.count,
            filter,
        };
        let id = match self.target.ask(&start)? {
            Reply::CaptureStarted { capture } => capture,
            _ => return Err(self.target.other_reply()),
        };
        // Whatever goes wrong with the file, the daemon need not go on.
        let written = match to_stdout {
            true => self.write(id, io::stdout().lock()),
            false => match create(&self.file) {
                Ok(file) => self.write(id, file),
                Err(e) => Err(Failure::failed(format!("{}: {e}", self.file.display()))),
            },
        };
        let _ = self.target.ask(&Request::CaptureStop { capture: id });
        let total = written?;
        if self.target.json && !to_stdout {
            return print_json(&json!({
                "file": self.file.display().to_string(),
                "packets": total.packets,
                "lost_packets": total.lost,
            }));
        }
        // Not on stdout: the capture itself may go there.
        let _ = writeln!(
            io::stderr(),
            "{} packets captured, {} lost because the capture had no room",
            total.packets,
            total.lost
        );
        Ok(ExitCode::SUCCESS)
    }

    fn write(&self, id: u64, sink: impl Write) -> Result<Total, Failure> {
        let failed = |e: io::Error| Failure::failed(format!("{}: {e}", self.file.display()));
        let mut file = CaptureFile::new(BufWriter::new(sink)).map_err(failed)?;
        let begun = clock::now();
        let end = self
            .seconds
            .map(|seconds| begun + Duration::from_secs(seconds));
        let mut total = Total {
            packets: 0,
            lost: 0,
        };
        loop {
            let read = self.target.ask(&Request::CaptureRead { capture: id })?;
            let Reply::Captured(report) = read else {
                return Err(self.target.other_reply());
            };
            let packets: &CaptureReport = &report;
            for packet in &packets.packets {
                file.packet(packet).map_err(failed)?;
            }
            file.writer.flush().map_err(failed)?;
            total.packets += packets.packets.len() as u64;
            total.lost = packets.lost_packets;
            if packets.done || end.is_some_and(|end| clock::now() >= end) {
                break;
            }
        }
        file.finish(total.lost).map_err(failed)?;
        Ok(total)
    }
}

/// A new file for its owner alone. O_EXCL follows no symbolic link, not even one to nowhere.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// A pcapng file with the interfaces that have been seen.
struct CaptureFile<W: Write> {
    writer: PcapngWriter<W>,
    interfaces: BTreeMap<(String, LinkType), u32>,
    /// From the daemon's clock to that of files.
    offset: u64,
}

impl<W: Write> CaptureFile<W> {
    fn new(sink: W) -> io::Result<CaptureFile<W>> {
        Ok(CaptureFile {
            writer: PcapngWriter::new(sink)?,
            interfaces: BTreeMap::new(),
            offset: clock::wall().saturating_sub(clock::now().0),
        })
    }

    fn packet(&mut self, packet: &CapturedPacket) -> io::Result<()> {
        let interface = self.interface(&packet.interface, packet.link)?;
        let octets = octets(&packet.octets).ok_or(io::ErrorKind::InvalidData)?;
        let time = packet.at_nanoseconds.saturating_add(self.offset);
        self.writer.packet(&Entry {
            interface,
            time: Duration::from_nanos(time),
            direction: match packet.direction {
                CaptureDirection::In => Direction::In,
                CaptureDirection::Out => Direction::Out,
                CaptureDirection::Unknown => Direction::Unknown,
            },
            length: u32::try_from(packet.length_bytes).unwrap_or(u32::MAX),
            octets: &octets,
            comment: &packet.comment,
        })
    }

    fn interface(&mut self, name: &str, link: LinkType) -> io::Result<u32> {
        let key = (name.to_owned(), link);
        if let Some(known) = self.interfaces.get(&key) {
            return Ok(*known);
        }
        let link_type = match link {
            LinkType::Ethernet => pcap::LinkType::Ethernet,
            LinkType::Ip => pcap::LinkType::Ip,
            LinkType::Other => pcap::LinkType::Other,
        };
        let number = self.writer.interface(name, link_type)?;
        self.interfaces.insert(key, number);
        Ok(number)
    }

    /// Says what was lost, with the first interface: the rings of the workers have all of them.
    fn finish(&mut self, lost: u64) -> io::Result<()> {
        if lost > 0 {
            let first = match self.interfaces.is_empty() {
                true => self.interface("capture", LinkType::Ethernet)?,
                false => 0,
            };
            let now = Duration::from_nanos(clock::wall());
            self.writer.lost(first, now, lost)?;
        }
        self.writer.flush()
    }
}

/// Hexadecimal digits as octets.
fn octets(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |digit: u8| (digit as char).to_digit(16);
    let octet = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    pairs.iter().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn the_file_is_new_its_owner_s_alone_and_behind_no_link() {
        let directory =
            std::env::temp_dir().join(format!("hitless-capture-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let path = directory.join("a.pcapng");
        drop(create(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(create(&path).is_err(), "exists");
        let link = directory.join("b.pcapng");
        symlink(directory.join("nowhere"), &link).unwrap();
        assert!(create(&link).is_err(), "a link to nowhere");
        assert!(!directory.join("nowhere").exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn octets_come_back_from_hexadecimal() {
        assert_eq!(octets("00ff7e"), Some(vec![0, 255, 0x7e]));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(octets(wrong), None, "{wrong}");
        }
    }
}
