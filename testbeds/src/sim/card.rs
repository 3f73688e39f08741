//! A network card with a queue for each worker. ESP goes by its SPI, what hosts send by its addresses,
//! all else to the first.

use std::ops::Range;

use hitless::lab::MTU;
use hitless_dataplane::port::memory::{self, MemoryPort};

const CABLE: usize = 96;
const ESP: u8 = 50;
const UDP: u8 = 17;
const IKE: [u8; 2] = 500_u16.to_be_bytes();
const NAT_TRAVERSAL: [u8; 2] = 4500_u16.to_be_bytes();

pub struct Card {
    cable: MemoryPort,
    queues: Vec<MemoryPort>,
}

impl Card {
    /// With the ends of so many queues.
    pub fn new(cable: MemoryPort, count: usize) -> (Card, Vec<MemoryPort>) {
        let (queues, ends) = (0..count).map(|_| memory::link(CABLE, MTU)).unzip();
        (Card { cable, queues }, ends)
    }

    /// Moves what waits on either side.
    pub fn turn(&mut self) {
        let mut frames = Vec::new();
        while self.cable.pop_frame(|octets| frames.push(octets.to_vec())) {}
        for frame in frames.drain(..) {
            let queue = flow(&frame).map_or(0, |flow| usize::from(flow) % self.queues.len());
            self.queues[queue].push_frame(&frame);
        }
        for queue in &mut self.queues {
            while queue.pop_frame(|octets| frames.push(octets.to_vec())) {}
        }
        for frame in frames {
            self.cable.push_frame(&frame);
        }
    }
}

/// The protocol of the IP packet in an Ethernet frame, and where its addresses are; its payload follows
/// them, if there are no options of IPv4 and no extension headers of IPv6.
pub fn ip(frame: &[u8]) -> Option<(u8, Range<usize>)> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((*frame.get(23)?, 26..34)),
        [0x86, 0xdd] => Some((*frame.get(20)?, 22..54)),
        _ => None,
    }
}

/// What tells packets apart that may be in different queues.
fn flow(frame: &[u8]) -> Option<u8> {
    let (protocol, addresses) = ip(frame)?;
    let payload = frame.get(addresses.end..)?;
    let addresses = frame.get(addresses)?;
    let folded = |octets: &[u8]| octets.iter().fold(0, |all, octet| all ^ octet);
    let port = |at: usize| payload.get(at..at + 2);
    let ike = |port: &[u8]| port == IKE || port == NAT_TRAVERSAL;
    match protocol {
        ESP => Some(folded(payload.get(..4)?)),
        // One flow for the card, whatever is in it.
        UDP if ike(port(0)?) || ike(port(2)?) => None,
        UDP => Some(folded(addresses) / 16),
        _ => None,
    }
}
