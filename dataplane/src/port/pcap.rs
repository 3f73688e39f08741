//! A port over files: what it receives comes from a capture, what it sends goes into another.
//!
//! A capture is read and checked as a whole when the port is opened, so that a hostile or cut-off
//! file is refused with its offset before a packet has moved, and no file is read on the packet
//! path. Frames come as fast as they are fetched, or as far apart as they were captured. While the
//! pool has no room none is lost: it comes later.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{BURST, Burst, LINK_HEADER, OpenError, Port, PortCounters};
use crate::pcap::{Direction, Entry, LinkType, PcapReader, PcapWriter, PcapngWriter};
use crate::pool::Pool;

/// Octets of a capture that is read at most.
const LARGEST_CAPTURE: u64 = 1 << 30;

/// A clock: the time since the Unix epoch.
pub type Clock = fn() -> Duration;

/// When the frames of a capture come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pace {
    /// As fast as they are fetched.
    #[default]
    Fast,
    /// As far apart as they were captured, from the first call on.
    Recorded,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct PcapSettings {
    /// A pcap or pcapng file to receive from.
    pub input: Option<PathBuf>,
    /// A file to send into: pcap if it is called `*.pcap`, pcapng otherwise.
    pub output: Option<PathBuf>,
    pub pace: Pace,
    /// Largest Ethernet payload that is sent.
    pub mtu: usize,
    pub clock: Clock,
}

/// Where what is sent goes.
enum Sink {
    Classic(PcapWriter<BufWriter<File>>),
    Ng(PcapngWriter<BufWriter<File>>),
}

impl Sink {
    fn create(path: &Path) -> io::Result<Sink> {
        // It may hold what was decrypted: it is its owner's alone.
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path)?;
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        let file = BufWriter::new(file);
        match path.extension().is_some_and(|kind| kind == "pcap") {
            true => PcapWriter::new(file).map(Sink::Classic),
            false => {
                let mut writer = PcapngWriter::new(file)?;
                writer.interface("hitless", LinkType::Ethernet)?;
                Ok(Sink::Ng(writer))
            }
        }
    }

    fn write(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        match self {
            Sink::Classic(writer) => writer.write(time, frame),
            Sink::Ng(writer) => writer.packet(&Entry {
                interface: 0,
                time,
                direction: Direction::Out,
                length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
                octets: frame,
                comment: "",
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Classic(writer) => writer.flush(),
            Sink::Ng(writer) => writer.flush(),
        }
    }
}

/// The frames of a capture.
#[derive(Default)]
struct Source {
    octets: Vec<u8>,
    /// When each frame came after the first, and where it lies.
    frames: Vec<(Duration, Range<usize>)>,
    next: usize,
}

impl Source {
    fn read(path: &Path) -> Result<Source, OpenError> {
        let failed = |source| OpenError::File {
            path: path.to_owned(),
            what: "read",
            source,
        };
        let length = fs::metadata(path).map_err(failed)?.len();
        if length > LARGEST_CAPTURE {
            let text = format!("{length} octets; split it with `editcap -c`");
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let octets = fs::read(path).map_err(failed)?;
        let frames = frames(path, &octets)?;
        Ok(Source {
            octets,
            frames,
            next: 0,
        })
    }
}

/// Where the frames of a capture lie.
fn frames(path: &Path, octets: &[u8]) -> Result<Vec<(Duration, Range<usize>)>, OpenError> {
    let wrong = |source| OpenError::Capture {
        path: path.to_owned(),
        source,
    };
    let mut frames = Vec::new();
    let mut first = None;
    for record in PcapReader::new(octets).map_err(wrong)? {
        let record = record.map_err(wrong)?;
        if (record.frame.len() as u64) < u64::from(record.original_length) {
            return Err(OpenError::Cut {
                path: path.to_owned(),
                number: frames.len() + 1,
                kept: record.frame.len(),
                original: record.original_length,
            });
        }
        let after = record
            .time
            .saturating_sub(*first.get_or_insert(record.time));
        let start = record.frame.as_ptr() as usize - octets.as_ptr() as usize;
        frames.push((after, start..start + record.frame.len()));
    }
    Ok(frames)
}

/// See the module.
pub struct PcapPort {
    source: Source,
    sink: Option<Sink>,
    pace: Pace,
    clock: Clock,
    /// When the first frame was due.
    began: Option<Duration>,
    mtu: usize,
    unflushed: bool,
    counters: PortCounters,
    /// The first error of the sink: from then on nothing is written.
    failure: Option<io::Error>,
}

impl PcapPort {
    /// Reads the input, and creates the output.
    pub fn open(settings: &PcapSettings) -> Result<PcapPort, OpenError> {
        let source = match &settings.input {
            Some(path) => Source::read(path)?,
            None => Source::default(),
        };
        let sink = match &settings.output {
            None => None,
            Some(path) => {
                let sink = Sink::create(path).map_err(|source| OpenError::File {
                    path: path.clone(),
                    what: "create",
                    source,
                })?;
                Some(sink)
            }
        };
        Ok(PcapPort {
            source,
            sink,
            pace: settings.pace,
            clock: settings.clock,
            began: None,
            mtu: settings.mtu,
            unflushed: false,
            counters: PortCounters::default(),
            failure: None,
        })
    }

    /// Frames of the input that have not come yet.
    pub fn remaining(&self) -> usize {
        self.source.frames.len() - self.source.next
    }

    /// Why frames that were sent are not in the output.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// How long after the first frame those come that are due now.
    fn due(&mut self) -> Duration {
        match self.pace {
            Pace::Fast => Duration::MAX,
            Pace::Recorded => {
                let now = (self.clock)();
                now.saturating_sub(*self.began.get_or_insert(now))
            }
        }
    }

    fn write(&mut self, frame: &[u8]) {
        if frame.len() > self.mtu + LINK_HEADER {
            self.counters.malformed += 1;
            return;
        }
        let Some(sink) = &mut self.sink else {
            return;
        };
        match sink.write((self.clock)(), frame) {
            Ok(()) => self.unflushed = true,
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.counters.transmit_full += 1;
        self.sink = None;
        self.failure = Some(error);
    }
}

impl Port for PcapPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let due = self.due();
        while burst.len() < BURST {
            let Some((after, place)) = self.source.frames.get(self.source.next) else {
                return;
            };
            let frame = self.source.octets.get(place.clone()).unwrap_or_default();
            if *after > due {
                return;
            }
            if frame.len() > pool.largest_packet() {
                self.counters.malformed += 1;
            } else {
                // No room now: it comes later.
                let Some(packet) = pool.copy_in(frame) else {
                    return;
                };
                burst.push(packet);
            }
            self.source.next += 1;
        }
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for packet in burst.drain(..) {
            match self.failure {
                None => self.write(pool.bytes(&packet)),
                Some(_) => self.counters.transmit_full += 1,
            }
            pool.free(packet);
        }
    }

    /// Whoever reads along sees what was sent up to the last turn.
    fn poll(&mut self, _pool: &mut Pool) {
        if std::mem::take(&mut self.unflushed)
            && let Some(sink) = &mut self.sink
            && let Err(error) = sink.flush()
        {
            self.fail(error);
        }
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
#[path = "pcap_tests.rs"]
mod tests;
