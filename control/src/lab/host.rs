//! A host behind a gateway: answers ARP, sends numbered probes, records the ones that arrive.

use std::net::Ipv4Addr;

use hitless_dataplane::port::MacAddress;
use hitless_dataplane::port::memory::MemoryPort;
use hitless_sa::Instant;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROBE_PORT: u16 = 7007;
const MAGIC: &[u8; 8] = b"hitless?";
/// IPv4 and UDP header and the probe's own 16 octets.
const PROBE_LENGTH: usize = 20 + 8 + 16;

/// A probe that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    pub number: u64,
    pub at: Instant,
}

/// One station on a protected segment.
pub struct Host {
    cable: MemoryPort,
    mac: MacAddress,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    gateway_mac: Option<MacAddress>,
    /// Octets of each probe's inner packet.
    size: usize,
    next: u64,
    sent: Vec<Instant>,
    received: Vec<Probe>,
    altered: u64,
}

impl Host {
    /// A host that reaches everything by `gateway` and sends probes of `size` octets.
    pub fn new(
        cable: MemoryPort,
        mac: MacAddress,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
        size: usize,
    ) -> Host {
        Host {
            cable,
            mac,
            address,
            gateway,
            gateway_mac: None,
            size: size.max(PROBE_LENGTH),
            next: 0,
            sent: Vec::new(),
            received: Vec::new(),
            altered: 0,
        }
    }

    /// Reads what waits; returns the number of frames.
    pub fn turn(&mut self, now: Instant) -> usize {
        let mut frames = Vec::new();
        while frames.len() < 64 && self.cable.pop_frame(|octets| frames.push(octets.to_vec())) {}
        for frame in &frames {
            match frame.get(12..14) {
                Some(kind) if kind == ETHERTYPE_ARP => self.arp(&frame[14..]),
                Some(kind) if kind == ETHERTYPE_IPV4 => self.packet(now, &frame[14..]),
                _ => {}
            }
        }
        frames.len()
    }

    /// Sends the next probe; before the gateway's address is known, asks for that instead.
    pub fn send(&mut self, now: Instant, to: Ipv4Addr) {
        let Some(gateway_mac) = self.gateway_mac else {
            self.ask();
            return;
        };
        let mut frame = Vec::with_capacity(14 + self.size);
        frame.extend_from_slice(&gateway_mac);
        frame.extend_from_slice(&self.mac);
        frame.extend_from_slice(&ETHERTYPE_IPV4);
        frame.extend_from_slice(&probe(self.address, to, self.next, self.size));
        self.next += 1;
        self.sent.push(now);
        self.cable.push_frame(&frame);
    }

    /// When each probe was sent, by number.
    pub fn sent(&self) -> &[Instant] {
        &self.sent
    }

    /// Probes in the order of arrival, repetitions included.
    pub fn received(&self) -> &[Probe] {
        &self.received
    }

    /// Packets that arrived damaged: a forwarding gateway must not alter what it carries.
    pub fn altered(&self) -> u64 {
        self.altered
    }

    fn ask(&mut self) {
        let frame = arp(1, self.mac, self.address, [0; 6], self.gateway, [0xff; 6]);
        self.cable.push_frame(&frame);
    }

    fn arp(&mut self, body: &[u8]) {
        let (Some(operation), Some(sender_mac), Some(sender), Some(target)) = (
            body.get(6..8),
            mac_at(body, 8),
            ipv4_at(body, 14),
            ipv4_at(body, 24),
        ) else {
            return;
        };
        if sender == self.gateway {
            self.gateway_mac = Some(sender_mac);
        }
        if operation == [0, 1] && target == self.address {
            let frame = arp(2, self.mac, self.address, sender_mac, sender, sender_mac);
            self.cable.push_frame(&frame);
        }
    }

    fn packet(&mut self, now: Instant, packet: &[u8]) {
        let length = packet
            .get(2..4)
            .map(|l| usize::from(u16::from_be_bytes([l[0], l[1]])));
        let Some(packet) = length.and_then(|length| packet.get(..length)) else {
            self.altered += 1;
            return;
        };
        if ipv4_at(packet, 16) != Some(self.address) || packet.get(9) != Some(&17) {
            return;
        }
        let intact = checksum(&packet[..20.min(packet.len())]) == 0
            && packet.get(28..36) == Some(MAGIC.as_slice())
            && packet.len() >= PROBE_LENGTH
            && packet[PROBE_LENGTH..]
                .iter()
                .enumerate()
                .all(|(i, octet)| *octet == i as u8);
        if !intact {
            self.altered += 1;
            return;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&packet[36..44]);
        self.received.push(Probe {
            number: u64::from_be_bytes(number),
            at: now,
        });
    }
}

fn ipv4_at(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    let address: [u8; 4] = octets.get(at..at + 4)?.try_into().ok()?;
    Some(address.into())
}

fn mac_at(octets: &[u8], at: usize) -> Option<MacAddress> {
    octets.get(at..at + 6)?.try_into().ok()
}

/// An ARP frame (RFC 826).
fn arp(
    operation: u8,
    sender_mac: MacAddress,
    sender: Ipv4Addr,
    target_mac: MacAddress,
    target: Ipv4Addr,
    to: MacAddress,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&sender_mac);
    frame.extend_from_slice(&ETHERTYPE_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&sender_mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&target_mac);
    frame.extend_from_slice(&target.octets());
    frame
}

/// An IPv4 and UDP packet that carries a number and a pattern.
fn probe(from: Ipv4Addr, to: Ipv4Addr, number: u64, size: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(size as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&PROBE_PORT.to_be_bytes());
    packet.extend_from_slice(&PROBE_PORT.to_be_bytes());
    packet.extend_from_slice(&((size - 20) as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(MAGIC);
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend((0..size - PROBE_LENGTH).map(|i| i as u8));
    packet
}

/// RFC 1071; over a header with its checksum in place it is zero.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
