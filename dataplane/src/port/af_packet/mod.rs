//! A port over a packet socket: it works with every driver and every kernel of the last years, also
//! where AF_XDP does not, at some two thirds of its speed.
//!
//! ```text
//!   NIC -> kernel -> filter (filter.rs): ours? -> socket -> recvmmsg -> worker -> sendmmsg -> NIC
//!             |
//!             +-> the host's own stack sees every frame, too
//! ```
//!
//! # Who else sees the frames
//! The kernel gives a packet socket *copies*. The host's stack must not act on what is ours: it would
//! route in clear what the gateway protects. It does not, because our frames go to the cluster's
//! virtual MAC address, which is not the interface's: the kernel takes them for somebody else's
//! (`PACKET_OTHERHOST`) and drops them before its routing. That is why the address of the interface
//! itself is refused. It ends where somebody puts the interface into a bridge or gives it the same
//! address: then frames to the virtual address need a rule that drops them, such as
//! `nft add table netdev hitless`, `nft add chain netdev hitless in '{ type filter hook ingress
//! device eth0 priority 0; }'`, `nft add rule netdev hitless in ether daddr 02:00:5e:00:01:01 drop`
//! (packet sockets are served before that hook).
//!
//! # Checksums and merged frames
//! Where the sender is this machine (a veth, a container), UDP and TCP checksums are left to hardware
//! that is not there. The kernel tells, and the port fills them in. Frames that were merged on
//! receipt (GRO, or a neighbour's TSO) are no packets of this network any more: they are counted as
//! malformed. `ethtool -K IF gro off lro off`, and `tso off gso off` at the far end of a veth.
//!
//! Needs `CAP_NET_RAW`; nothing after the port is open. Linux 4.20.

mod filter;
mod socket;

use std::os::fd::RawFd;

use smallvec::SmallVec;

use super::interface::{Interface, MacFilter};
use super::{BURST, Burst, MacAddress, OpenError, Port, PortCounters, check_mtu, landing};
use crate::pool::{Packet, Pool};
use crate::wire::{checksum, ethernet};
use socket::{Landed, Refusal, Socket};

/// Bursts between two looks at the kernel's own counters.
const STATISTICS_PERIOD: u32 = 1024;

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AfPacketSettings {
    /// Name of the interface.
    pub interface: String,
    /// The cluster's virtual MAC address: every frame to it is ours. Not the interface's own.
    pub mac: MacAddress,
    /// The cluster's addresses: their IPv6 groups are listened to.
    pub addresses: Vec<std::net::IpAddr>,
    /// Ports that share the interface: the kernel spreads flows over them.
    pub queues: u32,
}

/// One share of an interface's frames.
#[derive(Debug)]
pub struct AfPacketPort {
    socket: Socket,
    interface: Interface,
    /// What of received frames does not fit frames of the pool, one after the other.
    overflow: Vec<u8>,
    counters: PortCounters,
    bursts: u32,
    _filter: MacFilter,
}

impl AfPacketPort {
    /// Opens a port on an interface.
    pub fn open(settings: &AfPacketSettings, pool: &Pool) -> Result<AfPacketPort, OpenError> {
        let name = settings.interface.as_str();
        let interface = Interface::find(name)?;
        interface.check_mac(settings.mac)?;
        check_mtu(name, interface.mtu, pool)?;
        let failed = |what, advice| move |source| OpenError::system(name, what, advice, source);
        let mac_filter = MacFilter::add(interface.index, settings.mac).map_err(failed(
            "add the virtual MAC address to the interface's filter",
            "",
        ))?;
        for address in &settings.addresses {
            let heard = mac_filter.hear(*address);
            heard.map_err(failed("listen to a neighbour discovery group", ""))?;
        }
        let socket = Socket::open(&interface, settings).map_err(|(what, source)| {
            failed(what, "packet sockets need Linux 4.20 or later")(source)
        })?;
        Ok(AfPacketPort {
            socket,
            overflow: vec![0; BURST * landing::overflow(interface.mtu)],
            interface,
            counters: PortCounters::default(),
            bursts: 0,
            _filter: mac_filter,
        })
    }

    /// Brings [`Port::counters`] up to date with the kernel, which otherwise happens once in a
    /// thousand bursts.
    pub fn refresh_counters(&mut self) {
        self.counters.no_buffer += self.socket.dropped();
    }

    /// Turns what landed into a packet, or counts why it is none.
    fn accept(
        &mut self,
        pool: &mut Pool,
        packet: Packet,
        index: usize,
        landed: Landed,
    ) -> Option<Packet> {
        if landed.refused {
            self.counters.malformed += 1;
            pool.free(packet);
            return None;
        }
        let size = landing::overflow(self.interface.mtu);
        let overflow = self.overflow.get(index * size..).unwrap_or_default();
        let Some(mut packet) = landing::land(pool, packet, overflow, landed.length) else {
            self.counters.no_buffer += 1;
            return None;
        };
        if let Some((start, offset)) = landed.checksum
            && !fill_checksum(pool.bytes_mut(&mut packet), start, offset)
        {
            self.counters.malformed += 1;
            pool.free(packet);
            return None;
        }
        Some(packet)
    }
}

/// Completes a checksum that begins with the octet at `start` and whose field, `offset` behind it,
/// holds the sum of the pseudo-header (RFC 1071; virtio 1.2 section 5.1.6.2).
fn fill_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    /// Where UDP has its checksum, of which zero means that there is none (RFC 768).
    const UDP: usize = 6;
    let Some(covered) = frame.get_mut(start..) else {
        return false;
    };
    let sum = match checksum(0, covered) {
        0 if offset == UDP => 0xffff,
        sum => sum,
    };
    match covered.get_mut(offset..offset + 2) {
        Some(field) => {
            field.copy_from_slice(&sum.to_be_bytes());
            true
        }
        None => false,
    }
}

impl Port for AfPacketPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.bursts = self.bursts.wrapping_add(1);
        if self.bursts.is_multiple_of(STATISTICS_PERIOD) {
            self.refresh_counters();
        }
        // 1. Room for a burst; without any the kernel keeps the frames.
        let mut packets = Burst::new();
        while packets.len() < BURST - burst.len() {
            let Some(packet) = landing::prepare(pool) else {
                break;
            };
            packets.push(packet);
        }
        // 2. What waits, in one call.
        let mut landed = [Landed::default(); BURST];
        let mut slices: SmallVec<[&mut [u8]; BURST]> = pool
            .each_bytes_mut(packets.iter_mut().map(|packet| (packet, ())))
            .map(|(octets, ())| octets)
            .collect();
        let count = self
            .socket
            .receive(&mut slices, &mut self.overflow, &mut landed);
        drop(slices);
        // 3. Packets.
        for (index, packet) in packets.into_iter().enumerate() {
            match landed.get(index) {
                Some(landed) if index < count => {
                    burst.extend(self.accept(pool, packet, index, *landed));
                }
                _ => pool.free(packet),
            }
        }
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let longest = self.interface.mtu + ethernet::HEADER;
        let mut frames: SmallVec<[&[u8]; BURST]> = SmallVec::new();
        for packet in burst.iter() {
            match (ethernet::HEADER..=longest).contains(&packet.len()) {
                true => frames.push(pool.bytes(packet)),
                false => self.counters.malformed += 1,
            }
        }
        let mut rest = frames.as_slice();
        while !rest.is_empty() {
            // Every round is over at least one frame further, so this ends.
            let (sent, refusal) = self.socket.send(rest);
            rest = rest.get(sent..).unwrap_or_default();
            match refusal {
                None => {}
                Some(Refusal::Frame) => {
                    self.counters.malformed += 1;
                    rest = rest.get(1..).unwrap_or_default();
                }
                Some(Refusal::Full) => {
                    self.counters.transmit_full += rest.len() as u64;
                    break;
                }
            }
        }
        drop(frames);
        for packet in burst.drain(..) {
            pool.free(packet);
        }
    }

    fn mtu(&self) -> usize {
        self.interface.mtu
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn wake_descriptor(&self) -> Option<RawFd> {
        Some(self.socket.descriptor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_completed_from_its_pseudo_header_sum() {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(7, 8)
            .write(&mut packet, b"odd")
            .unwrap();
        let whole = packet.clone();
        // Source, destination, protocol and length, not complemented.
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 11];
        let sum = !checksum(0, &pseudo);
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        assert!(fill_checksum(&mut packet, 20, 6));
        assert_eq!(packet, whole);
        for (start, offset) in [(32, 0), (31, 0), (20, 11), (20, 10), (65535, 65535)] {
            assert!(!fill_checksum(&mut packet, start, offset));
        }
    }

    /// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
    #[test]
    fn rfc_768_a_udp_checksum_of_zero_is_all_ones() {
        let mut udp = [0, 7, 0xff, 0xf8, 0, 0, 0, 0];
        assert!(fill_checksum(&mut udp, 0, 6));
        assert_eq!(udp[6..], [0xff, 0xff]);
        let mut other = [0, 7, 0xff, 0xf8, 0, 0, 0, 0];
        assert!(fill_checksum(&mut other, 0, 4));
        assert_eq!(other[4..6], [0, 0]);
    }
}
