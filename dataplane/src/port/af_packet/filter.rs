//! Which frames the socket gets: a classic BPF program that the kernel runs on every frame.
//!
//! | frame                                              |       |
//! |----------------------------------------------------|-------|
//! | with a VLAN tag, which the kernel has taken off it | no    |
//! | to the cluster's virtual MAC address               | yes   |
//! | ARP or IPv6 to a group (neighbours ask by those)   | yes   |
//! | any other                                          | no    |

use crate::port::MacAddress;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_OCTET: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: not an offset, but a question to the kernel.
const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;
/// As much of a frame as there is.
const WHOLE: u32 = 0x4_0000;

/// The program for a virtual MAC address.
pub fn program(mac: MacAddress) -> [libc::sock_filter; 13] {
    let [a, b, c, d, e, f] = mac;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_WORD, 0, 0, VLAN_TAG_PRESENT),
        step(JUMP_IF_EQUAL, 0, 10, 0), // else refuse
        step(LOAD_OCTET, 0, 0, 0),
        step(JUMP_IF_SET, 4, 0, 1), // to a group
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 6, u32::from_be_bytes([a, b, c, d])),
        step(LOAD_HALF, 0, 0, 4),
        step(JUMP_IF_EQUAL, 3, 4, u32::from(u16::from_be_bytes([e, f]))),
        // To a group:
        step(LOAD_HALF, 0, 0, 12),
        step(JUMP_IF_EQUAL, 1, 0, 0x0806),
        step(JUMP_IF_EQUAL, 0, 1, 0x86dd),
        step(RETURN, 0, 0, WHOLE),
        step(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a program of these instructions.
    fn accepts(program: &[libc::sock_filter], frame: &[u8], tagged: bool) -> bool {
        let (mut at, mut register) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let octet = |offset: u32| u32::from(frame[offset as usize]);
            match step.code {
                LOAD_WORD if step.k == VLAN_TAG_PRESENT => register = u32::from(tagged),
                LOAD_WORD => {
                    register = (0..4).fold(0, |word, n| word << 8 | octet(step.k + n));
                }
                LOAD_HALF => register = octet(step.k) << 8 | octet(step.k + 1),
                LOAD_OCTET => register = octet(step.k),
                JUMP_IF_EQUAL if register == step.k => at += usize::from(step.jt),
                JUMP_IF_SET if register & step.k != 0 => at += usize::from(step.jt),
                JUMP_IF_EQUAL | JUMP_IF_SET => at += usize::from(step.jf),
                RETURN => return step.k > 0,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn ours_is_what_goes_to_the_virtual_address_and_what_neighbours_ask() {
        const OURS: MacAddress = [2, 0, 0x5e, 0, 1, 7];
        let program = program(OURS);
        let frame = |to: MacAddress, ether_type: u16| {
            [&to[..], &[2, 0, 0, 0, 0, 9], &ether_type.to_be_bytes()].concat()
        };
        for ether_type in [0x0800, 0x86dd, 0x0806] {
            assert!(accepts(&program, &frame(OURS, ether_type), false));
            assert!(!accepts(&program, &frame(OURS, ether_type), true));
            for bit in 0..48 {
                let mut other = OURS;
                other[bit / 8] ^= 1 << (bit % 8);
                let group = other[0] & 1 == 1 && ether_type != 0x0800;
                let accepted = accepts(&program, &frame(other, ether_type), false);
                assert_eq!(accepted, group, "bit {bit}");
            }
        }
        assert!(accepts(&program, &frame([0xff; 6], 0x0806), false));
        assert!(!accepts(&program, &frame([0xff; 6], 0x0800), false));
    }
}
