//! The XDP program: which frames are ours, decided before the kernel sees them.
//!
//! | frame                                                        | verdict                     |
//! |--------------------------------------------------------------|-----------------------------|
//! | its destination is the cluster's virtual MAC address         | to the socket of its queue  |
//! | ARP for IPv4, to any MAC, asking about one of our addresses  | to the socket of its queue  |
//! | neighbour solicitation (RFC 4861) about one of our addresses | to the socket of its queue  |
//! | anything else                                                | the kernel's, untouched     |
//!
//! A frame that is ours on a queue without a socket is dropped, never passed: the kernel must not
//! route in clear what the gateway would have protected (fail closed).
//!
//! ARP requests come by broadcast, so the target address decides; replies come to the virtual MAC
//! address. The same goes for IPv6: solicitations come by multicast, and are known by their target,
//! if no extension header stands in front (RFC 4861 section 7.1.1 knows none but what a fragment
//! would need, which RFC 6980 forbids). Tagged frames (802.1Q) are matched by MAC address only.

use std::io;
use std::net::IpAddr;

use super::assembler::{Assembler, Condition, Helper, Instruction, Jump, Register, Width};
use super::bpf::{Insertion, Map, MapKind, Program};
use crate::port::MacAddress;

/// Verdicts of `enum xdp_action`.
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

/// Offsets in an Ethernet frame, and in the ARP packet that it carries (RFC 826).
const ETHER_TYPE: i16 = 12;
const ETHERNET_HEADER: i32 = 14;
const ARP_HARDWARE_AND_PROTOCOL: i16 = 14;
const ARP_LENGTHS: i16 = 18;
const ARP_TARGET_ADDRESS: i16 = 38;
const ARP_END: i32 = 42;

/// Offsets of a neighbour solicitation: next header and hop limit, type and code, target.
const IPV6_NEXT_HEADER: i16 = 20;
const ICMPV6_TYPE: i16 = 54;
const SOLICITED_TARGET: i16 = 62;
const SOLICITATION_END: i32 = 78;

/// What the program looks things up in.
#[derive(Debug)]
pub struct Maps {
    /// Sockets by receive queue.
    pub sockets: Map,
    /// Our addresses.
    pub ipv4: Map,
    pub ipv6: Map,
}

impl Maps {
    /// Empty maps for so many queues, and so many addresses of each family.
    pub fn new(queues: u32, addresses: u32) -> io::Result<Maps> {
        Ok(Maps {
            sockets: Map::new(MapKind::Sockets, 4, queues)?,
            ipv4: Map::new(MapKind::Hash, 4, addresses)?,
            ipv6: Map::new(MapKind::Hash, 16, addresses)?,
        })
    }

    /// Makes an address ours.
    pub fn add(&self, address: IpAddr) -> io::Result<()> {
        let insertion = Insertion::Replace;
        match address {
            IpAddr::V4(address) => self.ipv4.insert(&address.octets(), [1; 4], insertion),
            IpAddr::V6(address) => self.ipv6.insert(&address.octets(), [1; 4], insertion),
        }
    }

    /// Makes it the kernel's; `ENOENT` if it was.
    pub fn remove(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => self.ipv4.remove(&address.octets()),
            IpAddr::V6(address) => self.ipv6.remove(&address.octets()),
        }
    }
}

/// Loads the program for these maps; for frames in several buffers if `fragments`.
pub fn load(mac: MacAddress, maps: &Maps, fragments: bool) -> io::Result<Program> {
    Program::load(&assemble(mac, maps), fragments)
}

/// The value of two octets as a load gives it.
fn half(octets: [u8; 2]) -> u32 {
    u32::from(u16::from_ne_bytes(octets))
}

/// The program. Loads are in the machine's octet order, so the values compared with are too.
fn assemble(mac: MacAddress, maps: &Maps) -> Vec<Instruction> {
    use Register::{R1, R2, R3, R4, R5, R6};
    let [m0, m1, m2, m3, m4, m5] = mac;
    let mut program = Assembler::default();

    // R6 = context, R2 = start of the frame, R3 = its end.
    program.copy(R6, R1);
    program.load(Width::Word, R2, R1, DATA);
    program.load(Width::Word, R3, R1, DATA_END);
    program.copy(R4, R2);
    program.add(R4, ETHERNET_HEADER);
    let runt = program.jump_if_register(R4, Condition::Greater, R3);

    // 1. Our MAC address?
    program.load(Width::Word, R4, R2, 0);
    let other_first = program.jump_if(
        R4,
        Condition::NotEqual,
        u32::from_ne_bytes([m0, m1, m2, m3]),
    );
    program.load(Width::Half, R5, R2, 4);
    let to_us = program.jump_if(R5, Condition::Equal, half([m4, m5]));
    program.land([other_first]);

    // 2. ARP or a neighbour solicitation, about one of our addresses?
    program.load(Width::Half, R4, R2, ETHER_TYPE);
    let not_arp = program.jump_if(R4, Condition::NotEqual, half([0x08, 0x06]));
    let (other_arp, about_ipv4) = arp(&mut program, &maps.ipv4);
    program.land([not_arp]);
    let not_ipv6 = program.jump_if(R4, Condition::NotEqual, half([0x86, 0xdd]));
    let (other_ipv6, about_ipv6) = solicitation(&mut program, &maps.ipv6);

    // Ours: to the socket of this queue; without one the frame is dropped.
    program.land([to_us, about_ipv4, about_ipv6]);
    program.load(Width::Word, R2, R6, RX_QUEUE_INDEX);
    program.load_map(R1, maps.sockets.descriptor());
    program.set(R3, XDP_DROP);
    program.call(Helper::RedirectMap);
    program.exit();

    // The kernel's.
    program.land([runt, not_ipv6]);
    program.land(other_arp);
    program.land(other_ipv6);
    program.set(Register::R0, XDP_PASS);
    program.exit();
    program.finish()
}

/// ARP between Ethernet (1) and IPv4 (0x0800), with addresses of 6 and 4 octets: the jumps of what
/// is none, or not about us, and of what is.
fn arp(program: &mut Assembler, addresses: &Map) -> ([Jump; 4], Jump) {
    use Register::{R2, R3, R4};
    program.copy(R4, R2);
    program.add(R4, ARP_END);
    let short = program.jump_if_register(R4, Condition::Greater, R3);
    program.load(Width::Word, R4, R2, ARP_HARDWARE_AND_PROTOCOL);
    let protocols = u32::from_ne_bytes([0x00, 0x01, 0x08, 0x00]);
    let other_protocol = program.jump_if(R4, Condition::NotEqual, protocols);
    program.load(Width::Half, R4, R2, ARP_LENGTHS);
    let other_lengths = program.jump_if(R4, Condition::NotEqual, half([6, 4]));
    let (not_ours, ours) = look_up(program, addresses, ARP_TARGET_ADDRESS, 4);
    ([short, other_protocol, other_lengths, not_ours], ours)
}

/// A neighbour solicitation (RFC 4861 section 4.3) from this link (hop limit 255, section 7.1.1).
fn solicitation(program: &mut Assembler, addresses: &Map) -> ([Jump; 4], Jump) {
    use Register::{R2, R3, R4};
    program.copy(R4, R2);
    program.add(R4, SOLICITATION_END);
    let short = program.jump_if_register(R4, Condition::Greater, R3);
    program.load(Width::Half, R4, R2, IPV6_NEXT_HEADER);
    let not_icmp = program.jump_if(R4, Condition::NotEqual, half([58, 255]));
    program.load(Width::Half, R4, R2, ICMPV6_TYPE);
    let other_type = program.jump_if(R4, Condition::NotEqual, half([135, 0]));
    let (not_ours, ours) = look_up(program, addresses, SOLICITED_TARGET, 16);
    ([short, not_icmp, other_type, not_ours], ours)
}

/// Looks up the address at this offset, by way of the stack: the jumps of "not there", and "there".
fn look_up(program: &mut Assembler, addresses: &Map, offset: i16, length: i16) -> (Jump, Jump) {
    use Register::{R0, R1, R2, R4, R10};
    for position in (0..length).step_by(4) {
        program.load(Width::Word, R4, R2, offset + position);
        program.store(Width::Word, R10, position - length, R4);
    }
    program.load_map(R1, addresses.descriptor());
    program.copy(R2, R10);
    program.add(R2, -i32::from(length));
    program.call(Helper::MapLookup);
    (program.jump_if_null(R0), program.jump())
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
