//! The ports of a worker and the neighbours behind them: the last step of every packet that leaves
//! (next hop, Ethernet header, transmit burst). `links/discovery.rs` finds the neighbours.

mod discovery;

use std::net::IpAddr;

use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::fib::Fib;
use crate::frames::Frames;
use crate::neighbour::{Held, Neighbour, Neighbours, Probe, Resolution, Tick, Trust};
use crate::pool::Packet;
use crate::port::{BURST, Burst, MacAddress, Port};
use crate::verdict::DropReason;
use crate::wire::{ethernet, ndp};

/// Neighbours that a sign of life is awaited of, at most.
const PROBED: usize = 64;

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

impl Interface {
    /// An interface that has IPv6 has a link-local address too (RFC 4291 section 2.1).
    pub(crate) fn add_link_local(&mut self) {
        let is = |local: bool| move |(address, _): &(IpAddr, u8)| matches!(address, IpAddr::V6(a) if a.is_unicast_link_local() == local);
        if self.addresses.iter().any(is(false)) && !self.addresses.iter().any(is(true)) {
            self.addresses.push((ndp::link_local(self.mac).into(), 64));
        }
    }
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
    /// Whom the last packet of this burst went to.
    last: Option<(Neighbour, MacAddress)>,
    /// Neighbours that a sign of life is awaited of, and those that gave one.
    probed: SmallVec<[(Neighbour, bool); 4]>,
    /// How often what is known of neighbours has changed.
    changes: u64,
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
            .collect::<Vec<_>>();
        Links {
            neighbours: Neighbours::new(links.len()),
            links,
            last: None,
            probed: SmallVec::new(),
            changes: 0,
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
        next_hop: IpAddr,
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
        if let Some((last, mac)) = self.last
            && last == neighbour
        {
            return self.frame(frames, packet, port, mac);
        }
        match self.resolve(frames, neighbour, now) {
            Resolution::Known { mac, .. } => {
                self.last = Some((neighbour, mac));
                self.frame(frames, packet, port, mac);
            }
            Resolution::Unknown { .. } => {
                if frames.watch.on {
                    frames.watch.held(&packet);
                }
                if let Err(packet) = self.neighbours.hold(neighbour, packet) {
                    frames.drop(packet, DropReason::NeighbourUnresolved);
                }
            }
            Resolution::Full => frames.drop(packet, DropReason::NeighbourUnresolved),
        }
    }

    /// The Ethernet address of a neighbour, and until when it need not be looked up again. Asks for it
    /// as [`Links::send`] does.
    pub(crate) fn known(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        port: usize,
        next_hop: IpAddr,
    ) -> Option<(MacAddress, Instant)> {
        let neighbour = Neighbour {
            port,
            address: next_hop,
        };
        let until = self.neighbours.fresh_until(neighbour, now)?;
        match self.resolve(frames, neighbour, now) {
            Resolution::Known { mac, .. } => Some((mac, until)),
            // It has just been given up, or has no room.
            Resolution::Unknown { .. } | Resolution::Full => None,
        }
    }

    /// Whether a packet for a neighbour would leave now; else it is asked for, as [`Links::send`] does.
    pub(crate) fn is_ready(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        port: usize,
        next_hop: IpAddr,
    ) -> bool {
        let neighbour = Neighbour {
            port,
            address: next_hop,
        };
        // One that there is no room for is not worth waiting for.
        let resolution = self.resolve(frames, neighbour, now);
        !matches!(resolution, Resolution::Unknown { .. })
    }

    /// Looks a neighbour up, and asks for it if it is time to.
    #[inline]
    fn resolve(&mut self, frames: &mut Frames, neighbour: Neighbour, now: Instant) -> Resolution {
        let resolution = self.neighbours.resolve(neighbour, now);
        match resolution {
            Resolution::Known {
                mac,
                probe: Some(Probe::Unicast),
            } => self.ask(frames, neighbour, Some(mac)),
            Resolution::Known {
                probe: Some(Probe::Broadcast),
                ..
            }
            | Resolution::Unknown { ask: true } => self.ask(frames, neighbour, None),
            _ => {}
        }
        resolution
    }

    /// Changes whenever what is known of a neighbour does.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes + self.neighbours.given_up()
    }

    /// Puts the Ethernet header in front and the frame into the transmit burst.
    fn frame(&mut self, frames: &mut Frames, mut packet: Packet, port: usize, to: MacAddress) {
        let Some(link) = self.links.get_mut(port) else {
            return frames.drop(packet, DropReason::NoRoute);
        };
        let ether_type = match frames.pool.bytes(&packet).first().map(|first| first >> 4) {
            Some(6) => ethernet::IPV6,
            _ => ethernet::IPV4,
        };
        let room = frames.pool.prepend(&mut packet, ethernet::HEADER);
        let octets = frames.pool.bytes_mut(&mut packet);
        let written = ethernet::write(octets, to, link.interface.mac, ether_type);
        match room && written {
            true => link.queue(frames, port, packet),
            false => frames.drop(packet, DropReason::TooBig),
        }
    }

    /// Sends a whole frame.
    #[inline]
    pub(crate) fn queue(&mut self, frames: &mut Frames, port: usize, packet: Packet) {
        match self.links.get_mut(port) {
            Some(link) => link.queue(frames, port, packet),
            None => frames.drop(packet, DropReason::NoRoute),
        }
    }

    /// Sends whole frames, all by one port.
    #[inline]
    pub(crate) fn queue_all(&mut self, frames: &mut Frames, port: usize, packets: &mut Burst) {
        let Some(link) = self.links.get_mut(port) else {
            return packets
                .drain(..)
                .for_each(|packet| frames.drop(packet, DropReason::NoRoute));
        };
        // No burst is ever longer than what ports take at a time.
        if link.burst.len() + packets.len() > BURST {
            link.flush(frames, port);
        }
        link.burst.append(packets);
        if link.burst.len() >= BURST {
            link.flush(frames, port);
        }
    }

    /// Gives every transmit burst to its port.
    pub(crate) fn flush(&mut self, frames: &mut Frames) {
        self.last = None;
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
        self.last = None;
        let links = &mut self.links;
        self.neighbours.tick(now, |tick| match tick {
            Tick::Ask(neighbour) => {
                if let Some(link) = links.get_mut(neighbour.port) {
                    link.ask(frames, neighbour, None);
                }
            }
            Tick::Gone(held) => drop_all(frames, held, DropReason::NeighbourUnresolved),
        });
    }

    /// What is known of neighbours was heard in another term.
    pub(crate) fn doubt_neighbours(&mut self) {
        self.last = None;
        self.neighbours.doubt();
    }

    /// Drops all that waits for a neighbour or for the end of its burst, because nothing may leave
    /// any more.
    pub(crate) fn drop_unsent(&mut self, frames: &mut Frames, reason: DropReason) {
        self.drop_held(frames, reason, |_, _, _| true);
        for packet in self.links.iter_mut().flat_map(|link| link.burst.drain(..)) {
            frames.drop(packet, reason);
        }
    }

    /// Drops what waits for a neighbour and is one of those: each given with whom it waits for, and
    /// whether that is on the protected side.
    pub(crate) fn drop_held(
        &mut self,
        frames: &mut Frames,
        reason: DropReason,
        among: impl Fn(&[u8], Neighbour, bool) -> bool,
    ) {
        let links = &self.links;
        self.neighbours.release(|neighbour, packet| {
            let link = links.get(neighbour.port);
            let protected = link.is_some_and(|link| link.interface.protected);
            match among(frames.pool.bytes(&packet), neighbour, protected) {
                true => {
                    frames.drop(packet, reason);
                    None
                }
                false => Some(packet),
            }
        });
    }

    /// The routers of the forwarding table.
    pub(crate) fn set_routers(&mut self, fib: &Fib) {
        let routers = fib.routers();
        let routers = routers.map(|(port, address)| Neighbour { port, address });
        self.neighbours.set_routers(routers);
    }

    /// Puts a neighbour into the table; true if that is news.
    pub(crate) fn learn(
        &mut self,
        frames: &mut Frames,
        neighbour: Neighbour,
        mac: MacAddress,
        trust: Trust,
        now: Instant,
    ) -> bool {
        self.last = None;
        for (probed, lives) in &mut self.probed {
            *lives |= *probed == neighbour;
        }
        let Some(learned) = self.neighbours.learn(neighbour, mac, trust, now) else {
            return false;
        };
        self.changes += u64::from(learned.changed);
        for packet in learned.released {
            self.frame(frames, packet, neighbour.port, mac);
        }
        learned.changed
    }

    /// Awaits a sign of life of a neighbour, and asks for one.
    pub(crate) fn probe(&mut self, frames: &mut Frames, neighbour: Neighbour, ask: bool) {
        self.probed.retain(|(probed, _)| *probed != neighbour);
        if self.probed.len() < PROBED {
            self.probed.push((neighbour, false));
        }
        if ask {
            self.ask(frames, neighbour, None);
            self.flush(frames);
        }
    }

    /// A neighbour that has given the awaited sign of life.
    pub(crate) fn alive(&mut self) -> Option<Neighbour> {
        let at = self.probed.iter().position(|(_, lives)| *lives)?;
        Some(self.probed.swap_remove(at).0)
    }

    fn ask(&mut self, frames: &mut Frames, neighbour: Neighbour, to: Option<MacAddress>) {
        if let Some(link) = self.links.get_mut(neighbour.port) {
            link.ask(frames, neighbour, to);
        }
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
        if frames.watch.on {
            let protected = self.interface.protected;
            frames
                .watch
                .sent(&frames.pool, port, protected, &self.burst);
        }
        self.port.transmit(&mut frames.pool, &mut self.burst);
        // A port that left packets behind would have them sent twice, or leaked.
        debug_assert!(self.burst.is_empty());
        frames.counters.note_port(port, self.port.counters());
    }
}

fn drop_all(frames: &mut Frames, held: Held, reason: DropReason) {
    for packet in held {
        frames.drop(packet, reason);
    }
}
