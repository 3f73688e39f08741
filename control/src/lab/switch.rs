//! A learning Ethernet switch that records what it carries.

use std::collections::BTreeMap;

use hitless_dataplane::port::MacAddress;
use hitless_dataplane::port::memory::MemoryPort;
use hitless_sa::Instant;

/// Frames taken from one port in one turn.
const FRAMES_A_TURN: usize = 64;
const BROADCAST: MacAddress = [0xff; 6];

/// A frame that crossed the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    pub at: Instant,
    /// The port that it came in by.
    pub port: usize,
    pub frame: Vec<u8>,
}

/// A switch over memory cables. It learns where an address is from the frames that come from it,
/// as real ones do, so that a gratuitous ARP moves an address.
pub struct Switch {
    ports: Vec<MemoryPort>,
    learned: BTreeMap<MacAddress, usize>,
    /// Repeats every frame at every port, as a hub does.
    pub hub: bool,
    /// `None` if nothing is recorded.
    capture: Option<Vec<Captured>>,
    scratch: Vec<u8>,
}

impl Switch {
    /// A switch with these cables plugged in, which records what it carries.
    pub fn new(ports: Vec<MemoryPort>) -> Switch {
        let capture = Some(Vec::new());
        Switch {
            ports,
            learned: BTreeMap::new(),
            hub: false,
            capture,
            scratch: Vec::new(),
        }
    }

    /// A switch that records nothing.
    pub fn unrecorded(ports: Vec<MemoryPort>) -> Switch {
        Switch {
            capture: None,
            ..Switch::new(ports)
        }
    }

    /// Plugs another cable into a port, and gives back the one that was there.
    pub fn plug(&mut self, port: usize, cable: MemoryPort) -> MemoryPort {
        std::mem::replace(&mut self.ports[port], cable)
    }

    /// Moves what waits at every port; returns the number of frames.
    pub fn turn(&mut self, now: Instant) -> usize {
        let mut moved = 0;
        for port in 0..self.ports.len() {
            for _ in 0..FRAMES_A_TURN {
                let mut frame = std::mem::take(&mut self.scratch);
                frame.clear();
                let taken = self.ports[port].pop_frame(|octets| frame.extend_from_slice(octets));
                if taken {
                    self.carry(now, port, &frame);
                    moved += 1;
                }
                self.scratch = frame;
                if !taken {
                    break;
                }
            }
        }
        moved
    }

    /// Carries one frame as if it had come in by `port`.
    pub fn carry(&mut self, now: Instant, port: usize, frame: &[u8]) {
        let Some((destination, source)) = addresses(frame) else {
            return;
        };
        if let Some(capture) = &mut self.capture {
            capture.push(Captured {
                at: now,
                port,
                frame: frame.to_vec(),
            });
        }
        self.learned.insert(source, port);
        match self.learned.get(&destination) {
            Some(&out) if destination != BROADCAST && !self.hub => {
                if out != port {
                    self.ports[out].push_frame(frame);
                }
            }
            _ => self.flood(port, frame),
        }
    }

    /// Gives a frame to the station that owns its destination address, without learning from it:
    /// how an attacker on the segment replays what it recorded.
    pub fn inject(&mut self, frame: &[u8]) -> bool {
        let Some((destination, _)) = addresses(frame) else {
            return false;
        };
        if self.hub {
            self.ports.iter_mut().for_each(|cable| {
                cable.push_frame(frame);
            });
            return true;
        }
        match self.learned.get(&destination) {
            Some(&out) => self.ports[out].push_frame(frame),
            None => false,
        }
    }

    /// Everything that crossed the switch so far, if it records.
    pub fn capture(&self) -> &[Captured] {
        self.capture.as_deref().unwrap_or_default()
    }

    fn flood(&mut self, from: usize, frame: &[u8]) {
        for (port, cable) in self.ports.iter_mut().enumerate() {
            if port != from {
                cable.push_frame(frame);
            }
        }
    }
}

/// Destination and source of a frame.
fn addresses(frame: &[u8]) -> Option<(MacAddress, MacAddress)> {
    let destination = frame.get(0..6)?.try_into().ok()?;
    let source = frame.get(6..12)?.try_into().ok()?;
    Some((destination, source))
}
