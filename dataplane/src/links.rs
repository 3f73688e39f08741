//! The ports of a worker and the neighbours behind them: the last step of every packet that leaves
//! (next hop, Ethernet header, transmit burst), and ARP.

use std::net::{IpAddr, Ipv4Addr};

use hitless_sa::Instant;

use crate::frames::Frames;
use crate::neighbour::{Held, Neighbour, Neighbours, Resolution, Tick};
use crate::pool::Packet;
use crate::port::{BURST, Burst, MacAddress, Port};
use crate::verdict::DropReason;
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet;

/// What a worker has to know of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Our Ethernet address there: the same on every member, or each its own.
    pub mac: MacAddress,
    /// The cluster's addresses there, with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Largest IP packet; never more than the port's own.
    pub mtu: usize,
    /// Whether it leads to the protected side (RFC 4301 section 3.1).
    pub protected: bool,
}

/// One port with what waits to be sent on it.
struct Link {
    port: Box<dyn Port>,
    interface: Interface,
    burst: Burst,
}

/// All ports of a worker.
pub(crate) struct Links {
    links: Vec<Link>,
    neighbours: Neighbours,
}

impl Links {
    pub(crate) fn new(ports: Vec<Box<dyn Port>>, interfaces: Vec<Interface>) -> Links {
        let links = ports
            .into_iter()
            .zip(interfaces)
            .map(|(port, mut interface)| {
                interface.mtu = interface.mtu.min(port.mtu());
                Link {
                    port,
                    interface,
                    burst: Burst::new(),
                }
            })
            .collect();
        Links {
            links,
            neighbours: Neighbours::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// The ports themselves.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &dyn Port> {
        self.links.iter().map(|link| link.port.as_ref())
    }

    pub(crate) fn interface(&self, port: usize) -> Option<&Interface> {
        self.links.get(port).map(|link| &link.interface)
    }

    pub(crate) fn is_protected(&self, port: usize) -> bool {
        self.interface(port)
            .is_some_and(|interface| interface.protected)
    }

    /// Packets that wait for a neighbour.
    pub(crate) fn held(&self) -> usize {
        self.neighbours.held()
    }

    /// Receives a burst from a port.
    pub(crate) fn receive(&mut self, frames: &mut Frames, port: usize, burst: &mut Burst) {
        let Some(link) = self.links.get_mut(port) else {
            return;
        };
        link.port.receive(&mut frames.pool, burst);
        if !burst.is_empty() {
            let bytes = burst.iter().map(Packet::len).sum();
            frames.counters.count_received(port, burst.len(), bytes);
        }
        frames.counters.note_port(port, link.port.counters());
    }

    /// Sends an IP packet to a neighbour, or holds it until the neighbour is known.
    pub(crate) fn send(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        packet: Packet,
        port: usize,
        next_hop: Ipv4Addr,
    ) {
        // 1. It must fit.
        let Some(mtu) = self.interface(port).map(|interface| interface.mtu) else {
            return frames.drop(packet, DropReason::NoRoute);
        };
        if packet.len() > mtu {
            return frames.drop(packet, DropReason::TooBig);
        }
        // 2. Whose Ethernet address.
        let neighbour = Neighbour {
            port,
            address: next_hop,
        };
        match self.neighbours.resolve(neighbour, now) {
            Resolution::Known { mac, probe } => {
                if probe {
                    self.ask(frames, neighbour, mac);
                }
                self.frame(frames, packet, port, mac);
            }
            Resolution::Unknown { ask } => {
                if ask {
                    self.ask(frames, neighbour, ethernet::BROADCAST);
                }
                if let Err(packet) = self.neighbours.hold(neighbour, packet) {
                    frames.drop(packet, DropReason::NeighbourUnresolved);
                }
            }
            Resolution::Full => frames.drop(packet, DropReason::NeighbourUnresolved),
        }
    }

    /// Puts the Ethernet header in front and the frame into the transmit burst.
    fn frame(&mut self, frames: &mut Frames, mut packet: Packet, port: usize, to: MacAddress) {
        let Some(link) = self.links.get_mut(port) else {
            return frames.drop(packet, DropReason::NoRoute);
        };
        let room = frames.pool.prepend(&mut packet, ethernet::HEADER);
        let written = ethernet::write(
            frames.pool.bytes_mut(&mut packet),
            to,
            link.interface.mac,
            ethernet::IPV4,
        );
        match room && written {
            true => link.queue(frames, port, packet),
            false => frames.drop(packet, DropReason::TooBig),
        }
    }

    /// Gives every transmit burst to its port.
    pub(crate) fn flush(&mut self, frames: &mut Frames) {
        for (port, link) in self.links.iter_mut().enumerate() {
            link.flush(frames, port);
        }
    }

    /// Lets idle ports do their housekeeping.
    pub(crate) fn poll(&mut self, frames: &mut Frames) {
        for link in &mut self.links {
            link.port.poll(&mut frames.pool);
        }
    }

    /// Once a second: asks again for silent neighbours, and drops what waited in vain.
    pub(crate) fn tick(&mut self, frames: &mut Frames, now: Instant) {
        let links = &mut self.links;
        self.neighbours.tick(now, |tick| match tick {
            Tick::Ask(neighbour) => {
                if let Some(link) = links.get_mut(neighbour.port) {
                    link.ask(frames, neighbour, ethernet::BROADCAST);
                }
            }
            Tick::Gone(held) => drop_all(frames, held, DropReason::NeighbourUnresolved),
        });
    }

    /// Drops all that waits for a neighbour, because nothing may leave any more.
    pub(crate) fn drop_held(&mut self, frames: &mut Frames, reason: DropReason) {
        self.neighbours
            .release_all(|packet| frames.drop(packet, reason));
    }

    /// Puts a neighbour into the table; true if that is news.
    pub(crate) fn learn(
        &mut self,
        frames: &mut Frames,
        neighbour: Neighbour,
        mac: MacAddress,
        create: bool,
        now: Instant,
    ) -> bool {
        let Some(learned) = self.neighbours.learn(neighbour, mac, create, now) else {
            return false;
        };
        for packet in learned.released {
            self.frame(frames, packet, neighbour.port, mac);
        }
        learned.changed
    }

    fn ask(&mut self, frames: &mut Frames, neighbour: Neighbour, to: MacAddress) {
        if let Some(link) = self.links.get_mut(neighbour.port) {
            link.ask(frames, neighbour, to);
        }
    }

    /// Gratuitous ARP for every address (RFC 5227 section 3, RFC 5798 section 8.1.2): whoever had
    /// the other member's Ethernet address learns ours.
    pub(crate) fn announce(&mut self, frames: &mut Frames) {
        for (port, link) in self.links.iter_mut().enumerate() {
            for index in 0..link.interface.addresses.len() {
                let Some((IpAddr::V4(address), _)) = link.interface.addresses.get(index) else {
                    continue;
                };
                let arp = Arp {
                    operation: Operation::Request,
                    sender_mac: link.interface.mac,
                    sender: *address,
                    target_mac: [0; 6],
                    target: *address,
                };
                link.send_arp(frames, port, &arp, ethernet::BROADCAST);
            }
        }
    }

    /// Handles an ARP packet, given as its whole frame. Returns a neighbour that is news.
    pub(crate) fn arp(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        port: usize,
        packet: Packet,
    ) -> Option<(Neighbour, MacAddress)> {
        let body = frames.pool.bytes(&packet).get(ethernet::HEADER..);
        let (Some(arp), Some(link)) = (body.and_then(Arp::parse), self.links.get(port)) else {
            frames.drop(packet, DropReason::Malformed);
            return None;
        };
        // 1. Never believe a sender that is a group, or that has one of our addresses: another
        //    member's announcement, or a liar.
        if ethernet::is_group(arp.sender_mac) || link.owns(arp.sender) {
            frames.drop(packet, DropReason::NotForUs);
            return None;
        }
        // 2. RFC 826: update who is known; add who speaks to us, if he is on the link.
        let ours = link.owns(arp.target);
        let neighbour = Neighbour {
            port,
            address: arp.sender,
        };
        let on_link = link.has_on_link(arp.sender);
        let news = on_link && self.learn(frames, neighbour, arp.sender_mac, ours, now);
        // 3. Answer for our own addresses.
        match (ours, arp.operation) {
            (true, Operation::Request) => {
                frames.pool.free(packet);
                if let Some(link) = self.links.get_mut(port) {
                    let answer = Arp {
                        operation: Operation::Reply,
                        sender_mac: link.interface.mac,
                        sender: arp.target,
                        target_mac: arp.sender_mac,
                        target: arp.sender,
                    };
                    link.send_arp(frames, port, &answer, arp.sender_mac);
                }
            }
            (true, Operation::Reply) => frames.pool.free(packet),
            (false, _) => frames.drop(packet, DropReason::NotForUs),
        }
        news.then_some((neighbour, arp.sender_mac))
    }
}

impl Link {
    fn queue(&mut self, frames: &mut Frames, port: usize, packet: Packet) {
        self.burst.push(packet);
        if self.burst.len() >= BURST {
            self.flush(frames, port);
        }
    }

    fn flush(&mut self, frames: &mut Frames, port: usize) {
        if self.burst.is_empty() {
            return;
        }
        let bytes = self.burst.iter().map(Packet::len).sum();
        frames.counters.count_sent(port, self.burst.len(), bytes);
        self.port.transmit(&mut frames.pool, &mut self.burst);
        // A port that left packets behind would have them sent twice, or leaked.
        debug_assert!(self.burst.is_empty());
        frames.counters.note_port(port, self.port.counters());
    }

    fn owns(&self, address: Ipv4Addr) -> bool {
        let mut own = self.interface.addresses.iter();
        own.any(|(ours, _)| *ours == IpAddr::V4(address))
    }

    /// Whether the address is a host of one of our prefixes there.
    fn has_on_link(&self, address: Ipv4Addr) -> bool {
        self.own_address_towards(address).is_some()
    }

    fn own_address_towards(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        self.interface
            .addresses
            .iter()
            .find_map(|(ours, length)| match ours {
                IpAddr::V4(ours) => {
                    let host = u32::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
                    let same = (u32::from(*ours) ^ u32::from(address)) & !host == 0;
                    same.then_some(*ours)
                }
                IpAddr::V6(_) => None,
            })
    }

    /// Sends an ARP request, from our address in the neighbour's prefix.
    fn ask(&mut self, frames: &mut Frames, neighbour: Neighbour, to: MacAddress) {
        // Without an address of ours we ask like one who has none yet (RFC 5227 section 2.1.1).
        let sender = self
            .own_address_towards(neighbour.address)
            .unwrap_or(Ipv4Addr::UNSPECIFIED);
        let arp = Arp {
            operation: Operation::Request,
            sender_mac: self.interface.mac,
            sender,
            target_mac: [0; 6],
            target: neighbour.address,
        };
        self.send_arp(frames, neighbour.port, &arp, to);
    }

    fn send_arp(&mut self, frames: &mut Frames, port: usize, arp: &Arp, to: MacAddress) {
        let mut octets = [0; ethernet::HEADER + arp::LENGTH];
        let (_, body) = octets.split_at_mut(ethernet::HEADER);
        body.copy_from_slice(&arp.emit());
        let written = ethernet::write(&mut octets, to, self.interface.mac, ethernet::ARP);
        match frames.pool.copy_in(&octets) {
            Some(packet) if written => self.queue(frames, port, packet),
            Some(packet) => frames.pool.free(packet),
            None => frames.counters.count_drop(DropReason::NoBuffer),
        }
    }
}

fn drop_all(frames: &mut Frames, held: Held, reason: DropReason) {
    for packet in held {
        frames.drop(packet, reason);
    }
}
