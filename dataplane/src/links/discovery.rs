//! Who has this address, in both families: ARP (RFC 826) and neighbour discovery (RFC 4861).
//! Questions and answers about our addresses and our next hops; nobody else's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::Instant;

use super::{Link, Links};
use crate::frames::Frames;
use crate::neighbour::{Neighbour, News, Trust};
use crate::pool::Packet;
use crate::port::MacAddress;
use crate::verdict::DropReason;
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet;
use crate::wire::ipv6::Ipv6;
use crate::wire::ndp::{self, Advertisement, Message};

impl Links {
    /// Gratuitous ARP (RFC 5227 section 3, RFC 5798 section 8.1.2) or an unsolicited advertisement
    /// (RFC 4861 section 7.2.6) for every address: whoever had the other member's Ethernet address
    /// learns ours.
    pub(crate) fn announce(&mut self, frames: &mut Frames) {
        for (port, link) in self.links.iter_mut().enumerate() {
            for index in 0..link.interface.addresses.len() {
                match link.interface.addresses.get(index) {
                    Some((IpAddr::V4(address), _)) => {
                        let arp = Arp {
                            operation: Operation::Request,
                            sender_mac: link.interface.mac,
                            sender: *address,
                            target_mac: [0; 6],
                            target: *address,
                        };
                        link.send_arp(frames, port, &arp, ethernet::BROADCAST);
                    }
                    Some((IpAddr::V6(address), _)) => {
                        let (to, mac) = (ndp::ALL_NODES, link.interface.mac);
                        let message = ndp::advertisement(to, *address, mac, false);
                        link.send_discovery(frames, port, &message, ethernet::ipv6_group(to));
                    }
                    None => {}
                }
            }
        }
    }

    /// Handles an ARP packet, given as its whole frame. Returns a neighbour that is news here, or to
    /// the worker whose question that answers, or to one that knows it by another Ethernet address.
    pub(crate) fn arp(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        port: usize,
        packet: Packet,
    ) -> Option<News> {
        let body = frames.pool.bytes(&packet).get(ethernet::HEADER..);
        let (Some(arp), Some(link)) = (body.and_then(Arp::parse), self.links.get(port)) else {
            frames.drop(packet, DropReason::Malformed);
            return None;
        };
        // 1. Never believe a sender that is a group, or that has one of our addresses: another
        //    member's announcement, or a liar.
        if ethernet::is_group(arp.sender_mac) || link.owns(arp.sender.into()) {
            frames.drop(packet, DropReason::NotForUs);
            return None;
        }
        // 2. RFC 826: update who is known; add who speaks to us, if he is on the link.
        let ours = link.owns(arp.target.into());
        let neighbour = Neighbour {
            port,
            address: arp.sender.into(),
        };
        let on_link = link.has_on_link(neighbour.address);
        let trust = Trust::Confirmed { create: ours };
        let answers = ours && arp.operation == Operation::Reply;
        let anothers = self.is_anothers(neighbour, answers, arp.sender == arp.target);
        let news =
            on_link && (anothers | self.learn(frames, neighbour, arp.sender_mac, trust, now));
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
        let mac = arp.sender_mac;
        news.then_some(News {
            neighbour,
            mac,
            trust,
        })
    }

    /// Handles a message of neighbour discovery, given as its IP packet. Returns a neighbour that
    /// is news here, or to the worker whose question that answers, or to one that knows it by another
    /// Ethernet address.
    pub(crate) fn discovery(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        port: usize,
        packet: Packet,
    ) -> Option<News> {
        let parsed = Ipv6::parse(frames.pool.bytes(&packet)).and_then(|ip| {
            let message = ndp::parse(ip)?;
            Ok((ip.source(), message))
        });
        let verdict = match parsed {
            Ok((from, Message::Solicitation { target, mac })) => {
                self.answer_solicitation(frames, now, (port, from), target, mac)
            }
            Ok((_, Message::Advertisement(advertisement))) => {
                self.believe(frames, now, port, advertisement)
            }
            Err(reason) => Err(reason),
        };
        match verdict {
            Ok(news) => {
                frames.pool.free(packet);
                news
            }
            Err(reason) => {
                frames.drop(packet, reason);
                None
            }
        }
    }

    /// Answers for our own addresses (RFC 4861 sections 7.2.3 and 7.2.4).
    fn answer_solicitation(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        (port, from): (usize, Ipv6Addr),
        target: Ipv6Addr,
        mac: Option<MacAddress>,
    ) -> Result<Option<News>, DropReason> {
        let link = self.links.get(port).ok_or(DropReason::NotForUs)?;
        if !link.owns(target.into()) || link.owns(from.into()) {
            return Err(DropReason::NotForUs);
        }
        let ours = link.interface.mac;
        // 1. Somebody without an address wants ours: everybody is told whose it is.
        if from.is_unspecified() {
            let message = ndp::advertisement(ndp::ALL_NODES, target, ours, false);
            let group = ethernet::ipv6_group(ndp::ALL_NODES);
            if let Some(link) = self.links.get_mut(port) {
                link.send_discovery(frames, port, &message, group);
            }
            return Ok(None);
        }
        // 2. Remember who asks, if he is on the link.
        let neighbour = Neighbour {
            port,
            address: from.into(),
        };
        if !link.has_on_link(neighbour.address) {
            return Err(DropReason::NotForUs);
        }
        let trust = Trust::Heard { create: true };
        let mac = mac.filter(|mac| !ethernet::is_group(*mac));
        let news = mac.filter(|mac| self.learn(frames, neighbour, *mac, trust, now));
        // 3. The answer goes where that address is known to be, or says that it is. Who asks is not for
        //    that somebody whom we want to reach.
        let message = ndp::advertisement(from, target, ours, true);
        match (
            frames.pool.copy_in(&message),
            self.neighbours.peek(neighbour).or(mac),
        ) {
            (Some(answer), Some(mac)) => self.frame(frames, answer, port, mac),
            (Some(answer), None) => self.send(frames, now, answer, port, from.into()),
            (None, _) => frames.counters.count_drop(DropReason::NoBuffer),
        }
        Ok(news.map(|mac| News {
            neighbour,
            mac,
            trust,
        }))
    }

    /// Takes an answer to a question of ours, or the news that a neighbour has another Ethernet
    /// address (RFC 4861 section 7.2.5).
    fn believe(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        port: usize,
        advertisement: Advertisement,
    ) -> Result<Option<News>, DropReason> {
        let link = self.links.get(port).ok_or(DropReason::NotForUs)?;
        let address = IpAddr::V6(advertisement.target);
        let mac = advertisement
            .mac
            .filter(|mac| !ethernet::is_group(*mac))
            .ok_or(DropReason::Malformed)?;
        if link.owns(address) || !link.has_on_link(address) {
            return Err(DropReason::NotForUs);
        }
        let trust = match (advertisement.overrides, advertisement.solicited) {
            (true, true) => Trust::Confirmed { create: false },
            (true, false) => Trust::Heard { create: false },
            (false, answers) => Trust::IfUnknown { answers },
        };
        let neighbour = Neighbour { port, address };
        // Not kept here if nobody asked for it here; the worker that did is told, and no more than was
        // said here: without the override flag it corrects nothing there either.
        let known = self.neighbours.peek(neighbour);
        let corrects = known.is_some_and(|known| known != mac);
        let believed = advertisement.overrides || !corrects;
        let answers = advertisement.solicited && believed;
        let moves = advertisement.overrides && !advertisement.solicited;
        let anothers = self.is_anothers(neighbour, answers, moves);
        let news = self.learn(frames, neighbour, mac, trust, now);
        // What was asked for here the other workers keep, too: a tunnel's packets may come to them next,
        // and the answer to their own question, so soon after this one, would be no hint any more.
        let trust = match trust {
            Trust::Confirmed { .. } => Trust::Confirmed { create: news },
            other => other,
        };
        Ok((news || anothers).then_some(News {
            neighbour,
            mac,
            trust,
        }))
    }

    /// Whether another worker may be the one that what is said is news to: an answer to a question that
    /// is not open here, or the move of a neighbour that is not known here.
    fn is_anothers(&self, neighbour: Neighbour, answers: bool, moves: bool) -> bool {
        answers && !self.neighbours.awaits(neighbour)
            || moves && self.neighbours.peek(neighbour).is_none()
    }
}

impl Link {
    pub(super) fn owns(&self, address: IpAddr) -> bool {
        let mut own = self.interface.addresses.iter();
        own.any(|(ours, _)| *ours == address)
    }

    /// Whether the address is a host of one of our prefixes there.
    fn has_on_link(&self, address: IpAddr) -> bool {
        self.own_address_towards(address).is_some()
    }

    fn own_address_towards(&self, address: IpAddr) -> Option<IpAddr> {
        let mut own = self.interface.addresses.iter();
        own.find(|(ours, length)| same_prefix(*ours, address, *length))
            .map(|(ours, _)| *ours)
    }

    /// Asks a neighbour, if its Ethernet address was known, or everybody, from our address in the
    /// neighbour's prefix.
    pub(super) fn ask(
        &mut self,
        frames: &mut Frames,
        neighbour: Neighbour,
        to: Option<MacAddress>,
    ) {
        let sender = self.own_address_towards(neighbour.address);
        let (port, mac) = (neighbour.port, self.interface.mac);
        match neighbour.address {
            IpAddr::V4(target) => {
                // Without an address of ours we ask like one who has none yet (RFC 5227 section
                // 2.1.1).
                let sender = match sender {
                    Some(IpAddr::V4(sender)) => sender,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let arp = Arp {
                    operation: Operation::Request,
                    sender_mac: mac,
                    sender,
                    target_mac: [0; 6],
                    target,
                };
                self.send_arp(frames, port, &arp, to.unwrap_or(ethernet::BROADCAST));
            }
            IpAddr::V6(target) => {
                let sender = match sender {
                    Some(IpAddr::V6(sender)) => sender,
                    _ => ndp::link_local(mac),
                };
                let group = ndp::solicited_node(target);
                let destination = if to.is_some() { target } else { group };
                let message = ndp::solicitation(sender, destination, target, mac);
                let to = to.unwrap_or(ethernet::ipv6_group(group));
                self.send_discovery(frames, port, &message, to);
            }
        }
    }

    fn send_arp(&mut self, frames: &mut Frames, port: usize, arp: &Arp, to: MacAddress) {
        let mut octets = [0; ethernet::HEADER + arp::LENGTH];
        let (_, body) = octets.split_at_mut(ethernet::HEADER);
        body.copy_from_slice(&arp.emit());
        self.send_frame(frames, port, &mut octets, (to, ethernet::ARP));
    }

    fn send_discovery(
        &mut self,
        frames: &mut Frames,
        port: usize,
        message: &[u8; ndp::LENGTH],
        to: MacAddress,
    ) {
        let mut octets = [0; ethernet::HEADER + ndp::LENGTH];
        let (_, body) = octets.split_at_mut(ethernet::HEADER);
        body.copy_from_slice(message);
        self.send_frame(frames, port, &mut octets, (to, ethernet::IPV6));
    }

    /// Sends a frame that has all but its Ethernet header.
    fn send_frame(
        &mut self,
        frames: &mut Frames,
        port: usize,
        octets: &mut [u8],
        (to, ether_type): (MacAddress, u16),
    ) {
        let written = ethernet::write(octets, to, self.interface.mac, ether_type);
        match frames.pool.copy_in(octets) {
            Some(packet) if written => self.queue(frames, port, packet),
            Some(packet) => frames.pool.free(packet),
            None => frames.counters.count_drop(DropReason::NoBuffer),
        }
    }
}

/// Whether two addresses of one family agree in their first `length` bits.
fn same_prefix(a: IpAddr, b: IpAddr, length: u8) -> bool {
    let length = u32::from(length);
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            (u32::from(a) ^ u32::from(b)) & !host == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            (u128::from(a) ^ u128::from(b)) & !host == 0
        }
        _ => false,
    }
}
