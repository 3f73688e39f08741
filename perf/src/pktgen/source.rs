//! The packets to send, made once, then stamped.
//!
//! ```text
//!  Ethernet | IPv4 or IPv6 | UDP | magic 4 | run 4 | flow 4 | number 8 | nanoseconds 8 | filling
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_dataplane::port::MacAddress;
use hitless_dataplane::wire::{checksum, ethernet, ip, ipv4, ipv6};

/// Octets of a stamp, and what it begins with.
pub const STAMP: usize = 28;
pub const MAGIC: [u8; 4] = *b"hitl";
const UDP_HEADER: usize = 8;
/// Least and greatest IP packet.
pub const LEAST: usize = ipv4::HEADER + UDP_HEADER + STAMP;
pub const GREATEST: usize = 9000;
/// Flows that differ in their port only.
const FLOWS_AN_ADDRESS: u32 = 50_000;

/// What packets look like.
pub struct Shape {
    /// Destination and source.
    pub macs: (MacAddress, MacAddress),
    /// Source of the first flows, and destination.
    pub addresses: (IpAddr, IpAddr),
    pub ports: (u16, u16),
    pub flows: u32,
    /// Of the IP packets, in turn.
    pub sizes: Vec<usize>,
}

/// A stamp in a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub run: u32,
    pub flow: u32,
    pub number: u64,
    pub sent_ns: u64,
}

impl Stamp {
    fn emit(&self, out: &mut [u8]) {
        let octets = [
            &MAGIC[..],
            &self.run.to_be_bytes(),
            &self.flow.to_be_bytes(),
            &self.number.to_be_bytes(),
            &self.sent_ns.to_be_bytes(),
        ]
        .concat();
        if let Some(place) = out.get_mut(..STAMP) {
            place.copy_from_slice(&octets);
        }
    }

    /// Reads the stamp at the front of a payload.
    pub fn parse(payload: &[u8]) -> Option<Stamp> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let (run, rest) = rest.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sent_ns, _) = rest.split_first_chunk()?;
        Some(Stamp {
            run: u32::from_be_bytes(*run),
            flow: u32::from_be_bytes(*flow),
            number: u64::from_be_bytes(*number),
            sent_ns: u64::from_be_bytes(*sent_ns),
        })
    }
}

/// Frames without end.
pub struct Source {
    frames: Vec<Vec<u8>>,
    /// Stamped, and where the UDP header is; a replay is sent as it is.
    stamped: Option<(Shape, u32, usize)>,
    given: u64,
}

impl Source {
    /// Stamped packets of a run.
    pub fn new(mut shape: Shape, run: u32) -> Result<Source, &'static str> {
        if shape.flows == 0 {
            return Err("at least one flow is needed");
        }
        let (src, dst) = shape.addresses;
        let header = match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => ipv4::HEADER,
            (IpAddr::V6(_), IpAddr::V6(_)) => ipv6::HEADER,
            _ => return Err("--src and --dst are of different families"),
        };
        for size in &mut shape.sizes {
            *size = (*size).max(header + UDP_HEADER + STAMP);
        }
        let frames = shape
            .sizes
            .iter()
            .map(|size| frame(&shape, *size))
            .collect();
        let udp = ethernet::HEADER + header;
        Ok(Source {
            frames,
            stamped: Some((shape, run, udp)),
            given: 0,
        })
    }

    /// Frames of a capture, again and again, to another Ethernet address if one is given.
    pub fn replay(
        mut frames: Vec<Vec<u8>>,
        next_hop: Option<MacAddress>,
    ) -> Result<Source, &'static str> {
        if frames.is_empty() {
            return Err("the capture holds no frame");
        }
        for frame in &mut frames {
            if let (Some(to), Some(place)) = (next_hop, frame.first_chunk_mut()) {
                *place = to;
            }
        }
        Ok(Source {
            frames,
            stamped: None,
            given: 0,
        })
    }

    /// The next frame, sent at this time.
    pub fn next(&mut self, now: u64) -> &[u8] {
        let count = self.given;
        self.given += 1;
        let at = (count % self.frames.len() as u64) as usize;
        let Some(frame) = self.frames.get_mut(at) else {
            return &[];
        };
        if let Some((shape, run, udp)) = &self.stamped {
            let flow = (count % u64::from(shape.flows)) as u32;
            let stamp = Stamp {
                run: *run,
                flow,
                number: count / u64::from(shape.flows),
                sent_ns: now,
            };
            address(frame, shape, flow);
            fill(frame, shape, *udp, flow, &stamp);
        }
        frame
    }

    /// The last one was not sent: it is the next one again.
    pub fn take_back(&mut self) {
        self.given = self.given.saturating_sub(1);
    }
}

/// The source address of a flow.
fn source(first: IpAddr, flow: u32) -> IpAddr {
    let further = flow / FLOWS_AN_ADDRESS;
    match first {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(further)).into(),
        IpAddr::V6(first) => {
            Ipv6Addr::from(u128::from(first).wrapping_add(u128::from(further))).into()
        }
    }
}

/// Writes the IP header of a flow.
fn address(frame: &mut [u8], shape: &Shape, flow: u32) {
    let Some(packet) = frame.get_mut(ethernet::HEADER..) else {
        return;
    };
    let _ = match (source(shape.addresses.0, flow), shape.addresses.1) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4::write(packet, from, to, ipv4::UDP),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6::write(packet, from, to, ipv4::UDP, 64),
        _ => false,
    };
}

/// Writes ports, stamp and checksum.
fn fill(frame: &mut [u8], shape: &Shape, at: usize, flow: u32, stamp: &Stamp) {
    let Some(udp) = frame.get_mut(at..) else {
        return;
    };
    let length = udp.len();
    let port = shape.ports.0.wrapping_add((flow % FLOWS_AN_ADDRESS) as u16);
    let header = [
        port.to_be_bytes(),
        shape.ports.1.to_be_bytes(),
        (length as u16).to_be_bytes(),
        [0, 0],
    ];
    if let Some((place, payload)) = udp.split_first_chunk_mut::<UDP_HEADER>() {
        place.copy_from_slice(header.as_flattened());
        stamp.emit(payload);
    }
    let (from, to) = (source(shape.addresses.0, flow), shape.addresses.1);
    let sum = checksum(ip::pseudo_header(from, to, ipv4::UDP, length), udp);
    // RFC 768: a sum of zero is sent as all ones.
    let sum = if sum == 0 { 0xffff } else { sum };
    if let Some(place) = udp.get_mut(6..8) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

/// A frame that only wants its stamp.
fn frame(shape: &Shape, size: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..ethernet::HEADER + size).map(|n| n as u8).collect();
    let ether_type = match shape.addresses.0 {
        IpAddr::V4(_) => ethernet::IPV4,
        IpAddr::V6(_) => ethernet::IPV6,
    };
    let _ = ethernet::write(&mut frame, shape.macs.0, shape.macs.1, ether_type);
    frame
}
