//! The XDP program: which frames are ours, decided before the kernel sees them.
//!
//! | frame                                                        | verdict                     |
//! |--------------------------------------------------------------|-----------------------------|
//! | its destination is the cluster's virtual MAC address         | to the socket of its queue  |
//! | ARP for IPv4, to any MAC, asking about one of our addresses  | to the socket of its queue  |
//! | anything else                                                | the kernel's, untouched     |
//!
//! A frame that is ours on a queue without a socket is dropped, never passed: the kernel must not
//! route in clear what the gateway would have protected (fail closed).
//!
//! ARP requests come by broadcast, so the target address decides; replies come to the virtual MAC
//! address. Tagged frames (802.1Q) are matched by MAC address only. IPv6 neighbour discovery is the
//! kernel's, as the gateway's own addresses are IPv4.

use std::io;

use super::assembler::{Assembler, Condition, Helper, Instruction, Register, Width};
use super::bpf::{Map, Program};
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

/// Loads the program for these maps: sockets by receive queue, and our IPv4 addresses.
pub fn load(mac: MacAddress, sockets: &Map, addresses: &Map) -> io::Result<Program> {
    Program::load(&assemble(mac, sockets.descriptor(), addresses.descriptor()))
}

/// The program. Loads are in the machine's octet order, so the values compared with are too.
fn assemble(mac: MacAddress, sockets: i32, addresses: i32) -> Vec<Instruction> {
    use Register::{R0, R1, R2, R3, R4, R5, R6, R10};
    let [m0, m1, m2, m3, m4, m5] = mac;
    let half = |octets: [u8; 2]| u32::from(u16::from_ne_bytes(octets));
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

    // 2. ARP between Ethernet (1) and IPv4 (0x0800), addresses of 6 and 4 octets?
    program.load(Width::Half, R4, R2, ETHER_TYPE);
    let not_arp = program.jump_if(R4, Condition::NotEqual, half([0x08, 0x06]));
    program.copy(R4, R2);
    program.add(R4, ARP_END);
    let short_arp = program.jump_if_register(R4, Condition::Greater, R3);
    program.load(Width::Word, R4, R2, ARP_HARDWARE_AND_PROTOCOL);
    let other_protocol = program.jump_if(
        R4,
        Condition::NotEqual,
        u32::from_ne_bytes([0x00, 0x01, 0x08, 0x00]),
    );
    program.load(Width::Half, R4, R2, ARP_LENGTHS);
    let other_lengths = program.jump_if(R4, Condition::NotEqual, half([6, 4]));

    // 3. About one of our addresses?
    program.load(Width::Word, R4, R2, ARP_TARGET_ADDRESS);
    program.store(Width::Word, R10, -4, R4);
    program.load_map(R1, addresses);
    program.copy(R2, R10);
    program.add(R2, -4);
    program.call(Helper::MapLookup);
    let not_ours = program.jump_if_null(R0);

    // Ours: to the socket of this queue; without one the frame is dropped.
    program.land([to_us]);
    program.load(Width::Word, R2, R6, RX_QUEUE_INDEX);
    program.load_map(R1, sockets);
    program.set(R3, XDP_DROP);
    program.call(Helper::RedirectMap);
    program.exit();

    // The kernel's.
    program.land([
        runt,
        not_arp,
        short_arp,
        other_protocol,
        other_lengths,
        not_ours,
    ]);
    program.set(R0, XDP_PASS);
    program.exit();
    program.finish()
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
