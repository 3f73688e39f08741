//! Every verdict of the program, asked of the kernel itself with BPF_PROG_TEST_RUN.

use std::net::Ipv6Addr;

use super::super::socket::Socket;
use super::*;
use crate::memory::Memory;
use crate::pool::FRAME_SIZE;

const DROP: u32 = XDP_DROP as u32;
const PASS: u32 = XDP_PASS as u32;
const REDIRECT: u32 = 4;

const OURS: MacAddress = [0x02, 0x00, 0x5e, 0x00, 0x01, 0x01];
const KERNELS: MacAddress = [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
const BROADCAST: MacAddress = [0xff; 6];
const OUR_ADDRESS: [u8; 4] = [192, 0, 2, 1];
const OTHER_ADDRESS: [u8; 4] = [192, 0, 2, 2];
const OUR_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6);
const OTHER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 0x105, 6);
/// The group that is asked about both.
const GROUP: MacAddress = [0x33, 0x33, 0xff, 0x05, 0x00, 0x06];

/// The program with its maps, and a socket that is in the table until told otherwise.
struct Bench {
    program: Program,
    maps: Maps,
    _socket: Socket,
}

impl Bench {
    /// None, with a printed reason, where programs may not be loaded.
    fn new() -> Option<Bench> {
        Bench::with(false)
    }

    fn with(fragments: bool) -> Option<Bench> {
        let permitted = Maps::new(4, 4);
        if let Err(error) = &permitted
            && error.raw_os_error() == Some(libc::EPERM)
        {
            eprintln!("skipped: loading BPF programs is not permitted");
            return None;
        }
        let maps = permitted.unwrap();
        let memory = Memory::new(64 * FRAME_SIZE).unwrap();
        let socket = Socket::new(&memory, 64).unwrap();
        let program = load(OURS, &maps, fragments).unwrap();
        let bench = Bench {
            program,
            maps,
            _socket: socket,
        };
        let descriptor = bench._socket.descriptor().to_ne_bytes();
        let sockets = &bench.maps.sockets;
        sockets.insert(&[0; 4], descriptor, Insertion::New).unwrap();
        bench.maps.add(OUR_ADDRESS.into()).unwrap();
        bench.maps.add(OUR_IPV6.into()).unwrap();
        Some(bench)
    }

    fn verdict(&self, frame: &[u8]) -> u32 {
        self.program.test_run(frame).unwrap()
    }
}

fn frame(to: MacAddress, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([0x02, 0, 0, 0, 0, 0x99]);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ARP packet, RFC 826: operation 1 asks, 2 answers.
fn arp(to: MacAddress, operation: u8, target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend([0x02, 0, 0, 0, 0, 0x99, 192, 0, 2, 9]);
    packet.extend([0; 6]);
    packet.extend(target);
    frame(to, 0x0806, &packet)
}

#[test]
fn frames_to_the_virtual_mac_address_are_ours_whatever_they_carry() {
    let Some(bench) = Bench::new() else { return };
    for ether_type in [0x0800, 0x86dd, 0x0806, 0x8100, 0x88cc] {
        assert_eq!(bench.verdict(&frame(OURS, ether_type, &[0; 46])), REDIRECT);
        assert_eq!(bench.verdict(&frame(KERNELS, ether_type, &[0; 46])), PASS);
        assert_eq!(bench.verdict(&frame(BROADCAST, ether_type, &[0; 46])), PASS);
    }
    assert_eq!(bench.verdict(&frame(OURS, 0x0800, &[])), REDIRECT);
}

#[test]
fn each_bit_of_the_mac_address_counts() {
    let Some(bench) = Bench::new() else { return };
    for bit in 0..48 {
        let mut other = OURS;
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(bench.verdict(&frame(other, 0x0800, &[0; 46])), PASS);
    }
}

#[test]
fn arp_about_our_address_is_ours_whatever_its_destination() {
    let Some(bench) = Bench::new() else { return };
    for operation in [1, 2] {
        for to in [BROADCAST, KERNELS, OURS] {
            assert_eq!(bench.verdict(&arp(to, operation, OUR_ADDRESS)), REDIRECT);
        }
        assert_eq!(
            bench.verdict(&arp(BROADCAST, operation, OTHER_ADDRESS)),
            PASS
        );
        assert_eq!(bench.verdict(&arp(KERNELS, operation, OTHER_ADDRESS)), PASS);
        assert_eq!(
            bench.verdict(&arp(OURS, operation, OTHER_ADDRESS)),
            REDIRECT
        );
    }
    let mut padded = arp(BROADCAST, 1, OUR_ADDRESS);
    padded.extend([0; 18]);
    assert_eq!(bench.verdict(&padded), REDIRECT);
}

#[test]
fn a_truncated_arp_packet_is_the_kernels() {
    let Some(bench) = Bench::new() else { return };
    let whole = arp(BROADCAST, 1, OUR_ADDRESS);
    for length in 14..whole.len() {
        assert_eq!(bench.verdict(&whole[..length]), PASS, "length {length}");
    }
}

#[test]
fn arp_that_is_not_ipv4_over_ethernet_is_the_kernels() {
    let Some(bench) = Bench::new() else { return };
    let whole = arp(BROADCAST, 1, OUR_ADDRESS);
    for octet in 12..20 {
        for bit in 0..8 {
            let mut other = whole.clone();
            other[octet] ^= 1 << bit;
            assert_eq!(bench.verdict(&other), PASS, "octet {octet} bit {bit}");
        }
    }
}

#[test]
fn addresses_come_and_go_while_the_program_runs() {
    let Some(bench) = Bench::new() else { return };
    let asked = arp(BROADCAST, 1, OTHER_ADDRESS);
    assert_eq!(bench.verdict(&asked), PASS);
    bench.maps.add(OTHER_ADDRESS.into()).unwrap();
    assert_eq!(bench.verdict(&asked), REDIRECT);
    bench.maps.remove(OTHER_ADDRESS.into()).unwrap();
    assert_eq!(bench.verdict(&asked), PASS);
    let asked = solicitation(GROUP, OTHER_IPV6);
    assert_eq!(bench.verdict(&asked), PASS);
    bench.maps.add(OTHER_IPV6.into()).unwrap();
    assert_eq!(bench.verdict(&asked), REDIRECT);
    bench.maps.remove(OTHER_IPV6.into()).unwrap();
    assert_eq!(bench.verdict(&asked), PASS);
}

/// Fail closed: the kernel must not get what the gateway would have protected.
#[test]
fn without_a_socket_on_the_queue_what_is_ours_is_dropped() {
    let Some(bench) = Bench::new() else { return };
    bench.maps.sockets.remove(&[0; 4]).unwrap();
    assert_eq!(bench.verdict(&solicitation(GROUP, OUR_IPV6)), DROP);
    assert_eq!(bench.verdict(&solicitation(GROUP, OTHER_IPV6)), PASS);
    assert_eq!(bench.verdict(&frame(OURS, 0x0800, &[0; 46])), DROP);
    assert_eq!(bench.verdict(&arp(BROADCAST, 1, OUR_ADDRESS)), DROP);
    assert_eq!(bench.verdict(&arp(BROADCAST, 1, OTHER_ADDRESS)), PASS);
    assert_eq!(bench.verdict(&frame(KERNELS, 0x0800, &[0; 46])), PASS);
}

/// A neighbour solicitation, RFC 4861 section 4.3.
fn solicitation(to: MacAddress, target: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 5, 0, 6]);
    packet.extend([135, 0, 0xaa, 0xaa, 0, 0, 0, 0]);
    packet.extend(target.octets());
    packet.extend([1, 1, 0x02, 0, 0, 0, 0, 0x99]);
    frame(to, 0x86dd, &packet)
}

#[test]
fn rfc_4861_a_solicitation_of_our_address_is_ours_whatever_its_destination() {
    for fragments in [false, true] {
        let Some(bench) = Bench::with(fragments) else {
            return;
        };
        for to in [GROUP, KERNELS, BROADCAST] {
            assert_eq!(bench.verdict(&solicitation(to, OUR_IPV6)), REDIRECT);
            assert_eq!(bench.verdict(&solicitation(to, OTHER_IPV6)), PASS);
        }
        let whole = solicitation(GROUP, OUR_IPV6);
        for length in 14..78 {
            assert_eq!(bench.verdict(&whole[..length]), PASS, "length {length}");
        }
        // EtherType, next header, hop limit, type, code, and each octet of the target.
        for octet in [12, 13, 20, 21, 54, 55].into_iter().chain(62..78) {
            for bit in 0..8 {
                let mut other = whole.clone();
                other[octet] ^= 1 << bit;
                assert_eq!(bench.verdict(&other), PASS, "octet {octet} bit {bit}");
            }
        }
    }
}

#[test]
fn a_program_that_the_verifier_refuses_says_why() {
    if Bench::new().is_none() {
        return;
    }
    let mut reads_past_the_end = Assembler::default();
    reads_past_the_end.load(Width::Word, Register::R2, Register::R1, DATA);
    reads_past_the_end.load(Width::Word, Register::R0, Register::R2, 0);
    reads_past_the_end.exit();
    let error = Program::load(&reads_past_the_end.finish(), false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("invalid access to packet"), "{text}");
}
