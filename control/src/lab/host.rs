//! A host behind a gateway, of one address or several: answers ARP and neighbour discovery, sends
//! numbered probes, records the ones that arrive.

use std::net::{IpAddr, Ipv4Addr};

use hitless_dataplane::port::MacAddress;
use hitless_dataplane::port::memory::MemoryPort;
use hitless_dataplane::wire::ip::{self, Ip};
use hitless_dataplane::wire::ipv6::Ipv6;
use hitless_dataplane::wire::ndp::{self, Message};
use hitless_dataplane::wire::{checksum, ethernet, ipv4, ipv6, udp};
use hitless_sa::Instant;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROBE_PORT: u16 = 7007;
/// In every probe, in clear.
pub const MAGIC: &[u8; 8] = b"hitless?";
const UDP: u8 = 17;
/// UDP header and the probe's own 16 octets.
const PROBE_LENGTH: usize = 8 + 16;

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
    /// Never empty: it sends from the first, unless told otherwise.
    addresses: Vec<IpAddr>,
    gateway: IpAddr,
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
        address: impl Into<IpAddr>,
        gateway: impl Into<IpAddr>,
        size: usize,
    ) -> Host {
        Host {
            cable,
            mac,
            addresses: vec![address.into()],
            gateway: gateway.into(),
            gateway_mac: None,
            size: size.max(ipv6::HEADER + PROBE_LENGTH),
            next: 0,
            sent: Vec::new(),
            received: Vec::new(),
            altered: 0,
        }
    }

    /// The same host has these addresses as well.
    #[must_use]
    pub fn with_more(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Host {
        self.addresses.extend(addresses);
        self
    }

    /// Reads what waits; returns the number of frames.
    pub fn turn(&mut self, now: Instant) -> usize {
        let mut frames = Vec::new();
        while frames.len() < 64 && self.cable.pop_frame(|octets| frames.push(octets.to_vec())) {}
        for frame in &frames {
            match frame.get(12..14) {
                Some(kind) if kind == ETHERTYPE_ARP => self.arp(&frame[14..]),
                Some(kind) if kind == ETHERTYPE_IPV4 || kind == ETHERTYPE_IPV6 => {
                    self.packet(now, &frame[14..]);
                }
                _ => {}
            }
        }
        frames.len()
    }

    /// Sends the next probe; before the gateway's address is known, asks for that instead.
    pub fn send(&mut self, now: Instant, to: impl Into<IpAddr>) {
        self.send_from(now, 0, to);
    }

    /// The same from that one of its addresses; from the last, if it has not so many.
    pub fn send_from(&mut self, now: Instant, index: usize, to: impl Into<IpAddr>) {
        let own = self.addresses[index.min(self.addresses.len() - 1)];
        let Some(gateway_mac) = self.gateway_mac else {
            self.ask();
            return;
        };
        let Some(packet) = probe(own, to.into(), self.next, self.size) else {
            debug_assert!(false, "a probe from one family to the other");
            return;
        };
        self.push(gateway_mac, &packet);
        self.next += 1;
        self.sent.push(now);
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

    fn has(&self, address: impl Into<IpAddr>) -> bool {
        self.addresses.contains(&address.into())
    }

    fn push(&mut self, to: MacAddress, packet: &[u8]) {
        let ether_type = match packet.first().map(|first| first >> 4) {
            Some(6) => ETHERTYPE_IPV6,
            _ => ETHERTYPE_IPV4,
        };
        let frame = [&to[..], &self.mac, &ether_type, packet].concat();
        self.cable.push_frame(&frame);
    }

    fn ask(&mut self) {
        match (self.addresses[0], self.gateway) {
            (IpAddr::V4(address), IpAddr::V4(gateway)) => {
                let frame = arp(1, self.mac, address, [0; 6], gateway, [0xff; 6]);
                self.cable.push_frame(&frame);
            }
            (IpAddr::V6(address), IpAddr::V6(gateway)) => {
                let group = ndp::solicited_node(gateway);
                let question = ndp::solicitation(address, group, gateway, self.mac);
                self.push(ethernet::ipv6_group(group), &question);
            }
            _ => debug_assert!(false, "host and gateway are of one family"),
        }
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
        if self.gateway == sender {
            self.gateway_mac = Some(sender_mac);
        }
        if operation == [0, 1] && self.has(target) {
            let frame = arp(2, self.mac, target, sender_mac, sender, sender_mac);
            self.cable.push_frame(&frame);
        }
    }

    /// A message between neighbours (RFC 4861).
    fn discovery(&mut self, ip: Ipv6<'_>) {
        match ndp::parse(ip) {
            Ok(Message::Solicitation {
                target,
                mac: Some(mac),
            }) if self.has(target) => {
                let answer = ndp::advertisement(ip.source(), target, self.mac, true);
                self.push(mac, &answer);
            }
            Ok(Message::Advertisement(told)) if self.gateway == told.target => {
                self.gateway_mac = told.mac.or(self.gateway_mac);
            }
            _ => {}
        }
    }

    fn packet(&mut self, now: Instant, packet: &[u8]) {
        let Ok(ip) = Ip::parse(packet) else {
            self.altered += 1;
            return;
        };
        let (protocol, datagram) = match ip {
            Ip::V4(ip) => (ip.protocol(), ip.payload()),
            Ip::V6(ip) if ip.next_header() == ipv6::ICMP => return self.discovery(ip),
            Ip::V6(ip) => (ip.next_header(), ip.payload()),
        };
        if !self.has(ip.destination()) || protocol != UDP {
            return;
        }
        match number(&ip, datagram) {
            Some(number) => self.received.push(Probe { number, at: now }),
            None => self.altered += 1,
        }
    }
}

/// The number of a probe that nobody altered.
fn number(ip: &Ip<'_>, datagram: &[u8]) -> Option<u64> {
    let length = u16::from_be_bytes(*datagram.get(4..)?.first_chunk()?);
    let datagram = datagram.get(..usize::from(length))?;
    let body = datagram.get(8..)?.strip_prefix(MAGIC)?;
    let (number, pattern) = body.split_first_chunk::<8>()?;
    let seed = ip::pseudo_header(ip.source(), ip.destination(), UDP, datagram.len());
    let summed = datagram.get(6..8)? == [0, 0] || checksum(seed, datagram) == 0;
    let even = pattern
        .iter()
        .enumerate()
        .all(|(i, octet)| *octet == i as u8);
    (summed && even).then(|| u64::from_be_bytes(*number))
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

/// A UDP packet that carries a number and a pattern; `None` between two families.
fn probe(from: IpAddr, to: IpAddr, number: u64, size: usize) -> Option<Vec<u8>> {
    let header = match from {
        IpAddr::V4(_) => ipv4::HEADER,
        IpAddr::V6(_) => ipv6::HEADER,
    };
    let mut packet = vec![0; size];
    let datagram = packet.get_mut(header..)?;
    let length = datagram.len();
    let fields = [
        &PROBE_PORT.to_be_bytes()[..],
        &PROBE_PORT.to_be_bytes(),
        &u16::try_from(length).ok()?.to_be_bytes(),
        &[0, 0],
        MAGIC,
        &number.to_be_bytes(),
    ];
    datagram
        .get_mut(..PROBE_LENGTH)?
        .copy_from_slice(&fields.concat());
    for (i, octet) in datagram.iter_mut().skip(PROBE_LENGTH).enumerate() {
        *octet = i as u8;
    }
    if from.is_ipv6() {
        // IPv6 wants one (RFC 8200 section 8.1).
        let sum = checksum(ip::pseudo_header(from, to, UDP, length), datagram);
        let sum = udp::sent_checksum(sum);
        datagram.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    }
    let written = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4::write(&mut packet, from, to, UDP),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ipv6::write(&mut packet, from, to, UDP, ipv6::INITIAL_HOP_LIMIT)
        }
        _ => false,
    };
    written.then_some(packet)
}
