//! Two of the same that get the same, one with the express lane and one without: `lane.rs` has pairs of
//! gateways, `express_inbound.rs` single workers. What differs shows here, and so do the packets that
//! make a difference.

use std::fmt::Debug;

use etherparse::{PacketBuilderStep, TcpHeader, TcpOptionElement};

use crate::bed;

/// The one with the lane first.
pub struct Twins<T>(pub [T; 2]);

impl<T> Twins<T> {
    /// Made alike, but that one has the lane.
    pub fn new(make: impl Fn(bool) -> T) -> Twins<T> {
        Twins([true, false].map(make))
    }

    /// The one with the lane.
    pub fn with_lane(&self) -> &T {
        &self.0[0]
    }

    /// Does the same to both.
    pub fn both(&mut self, act: impl FnMut(&mut T)) {
        self.0.iter_mut().for_each(act);
    }

    /// Looks at both, after what has happened last: they must look alike.
    #[track_caller]
    pub fn assert_alike<S: PartialEq + Debug>(
        &mut self,
        see: impl FnMut(&mut T) -> S,
        after: &dyn Debug,
    ) {
        let [lane, plain] = self.0.each_mut().map(see);
        if lane != plain {
            let differences = differences(&format!("{lane:#?}"), &format!("{plain:#?}"));
            panic!("after {after:?}: {differences}");
        }
    }
}

/// Line by line, for what can be seen is much.
fn differences(lane: &str, plain: &str) -> String {
    let mut text = format!("{} lines, {}", lane.lines().count(), plain.lines().count());
    let pairs = lane.lines().zip(plain.lines());
    for (lane, plain) in pairs.filter(|(lane, plain)| lane != plain).take(20) {
        text += &format!("\nwith the lane {lane}\n      without {plain}");
    }
    text
}

/// A TCP segment that opens a connection, with an option that may be lowered.
pub fn opening(tcp: PacketBuilderStep<TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let size = TcpOptionElement::MaximumSegmentSize(1460);
    let mut packet = Vec::new();
    let opening = tcp.syn().options(&[size]).unwrap();
    opening.write(&mut packet, payload).unwrap();
    packet
}

/// An IPv4 packet with options.
pub fn with_options(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] = 0x46;
    packet.splice(20..20, [1, 1, 1, 0]);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    bed::hops_later(&packet, 0)
}

/// An IPv4 packet with these flags and no offset.
pub fn with_flags(mut packet: Vec<u8>, flags: u8) -> Vec<u8> {
    packet[6] = flags;
    bed::hops_later(&packet, 0)
}

/// The first part of an IPv4 packet.
pub fn first_fragment(packet: Vec<u8>) -> Vec<u8> {
    with_flags(packet, 0x20)
}

/// An IPv4 packet with a wrong checksum.
pub fn with_bad_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10] ^= 1;
    packet
}
