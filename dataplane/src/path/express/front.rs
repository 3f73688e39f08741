//! What a frame is, by its first octets: only what is whole and plain is told apart, the rest is odd.

use std::net::IpAddr;

use crate::port::MacAddress;
use crate::wire::{ethernet, ipv4, ipv6, udp};

/// Where the transport header of a plain packet begins.
const UPPER_V4: usize = ethernet::HEADER + ipv4::HEADER;
const UPPER_V6: usize = ethernet::HEADER + ipv6::HEADER;
/// The least octets behind an IP header: UDP's header, or the start of any other.
const LEAST: usize = 8;
/// "More fragments", and the offset.
const FRAGMENT: u16 = 0x3fff;
const SYN: u8 = 0x02;
/// An odd number whose bits are everywhere.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// No IP packet.
    Nothing,
    /// An IP packet, but not a plain one.
    Odd,
    Esp,
    /// UDP which would be ESP, were it for us (RFC 3948).
    Encapsulated,
    /// Other UDP, and TCP that opens no connection: what does may have to be rewritten (RFC 4459
    /// section 3.2).
    Stream,
}

/// ESP as its outer headers show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outer {
    pub(crate) spi: u32,
    /// Octets of Ethernet, IP and UDP in front of ESP.
    pub(crate) headers: u16,
    /// Octets from the ESP header up to the end of the ICV.
    pub(crate) length: u16,
    /// The UDP port that it came from, if encapsulated; else 0.
    pub(crate) port: u16,
    pub(crate) v6: bool,
    /// DSCP and ECN.
    pub(crate) tos: u8,
}

/// What the lane wants to know of a packet. Of one that is not plain only `pair` is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    /// Octets of the IP packet.
    pub(super) length: u16,
    pub(super) v6: bool,
    pub(super) hops: u8,
    /// DSCP and ECN.
    pub(super) tos: u8,
    /// Equal for packets between the same addresses, in six bits.
    pub(super) pair: u8,
}

/// Looks at a frame. What is neither `Nothing` nor `Odd` is for our Ethernet address, has an intact IP
/// header without options or extensions, is no fragment, and has eight octets or more behind it.
#[inline(always)]
pub(super) fn look(frame: &[u8], own: MacAddress) -> (Kind, Sight) {
    match frame.first_chunk() {
        Some(head) if head[12..14] == [0x08, 0x00] => look_v4(head, frame, own),
        _ => look_further(frame, own),
    }
}

#[inline(always)]
fn look_v4(head: &[u8; UPPER_V4 + LEAST], frame: &[u8], own: MacAddress) -> (Kind, Sight) {
    const IP: usize = ethernet::HEADER;
    let length = u16::from_be_bytes([head[IP + 2], head[IP + 3]]);
    let sight = Sight {
        length,
        v6: false,
        hops: head[IP + 8],
        tos: head[IP + 1],
        pair: pair(u64::from_ne_bytes(eight(head, IP + 12))),
    };
    let plain = head.first_chunk() == Some(&own)
        && head[IP] == 0x45
        && u16::from_be_bytes([head[IP + 6], head[IP + 7]]) & FRAGMENT == 0
        && usize::from(length) >= ipv4::HEADER + LEAST
        && usize::from(length) <= frame.len() - IP
        && holds(head);
    match plain {
        true => {
            let payload = length - ipv4::HEADER as u16;
            let upper = frame.get(UPPER_V4..).unwrap_or_default();
            (kind(head[IP + 9], payload, upper), sight)
        }
        false => (Kind::Odd, sight),
    }
}

/// Whether the checksum of an IPv4 header without options is right. The sum may be taken in words of
/// any size and order (RFC 1071 section 2).
#[inline]
fn holds(head: &[u8; UPPER_V4 + LEAST]) -> bool {
    let word = |at: usize| {
        let octets = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        u64::from(u32::from_ne_bytes(octets))
    };
    let mut sum = word(14) + word(18) + word(22) + word(26) + word(30);
    for _ in 0..3 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[inline]
fn eight(head: &[u8; UPPER_V4 + LEAST], at: usize) -> [u8; 8] {
    std::array::from_fn(|i| head[at + i])
}

/// What is not IPv4, or shorter than a plain packet is.
fn look_further(frame: &[u8], own: MacAddress) -> (Kind, Sight) {
    let mut sight = Sight::default();
    let ether_type = frame.get(12..14);
    if ether_type == Some(&[0x86, 0xdd]) {
        let kind = look_v6(frame, own, &mut sight);
        return (kind.unwrap_or(Kind::Nothing), sight);
    }
    match frame
        .first_chunk::<UPPER_V4>()
        .and_then(|head| head.last_chunk())
    {
        Some(addresses) if ether_type == Some(&[0x08, 0x00]) => {
            sight.pair = pair(u64::from_ne_bytes(*addresses));
            (Kind::Odd, sight)
        }
        _ => (Kind::Nothing, sight),
    }
}

#[inline]
fn look_v6(frame: &[u8], own: MacAddress, sight: &mut Sight) -> Option<Kind> {
    let header: &[u8; ipv6::HEADER] = frame.get(ethernet::HEADER..)?.first_chunk()?;
    let (words, _) = header.as_chunks::<8>();
    let mixed = words.get(1..)?.iter().fold(0u64, |sum, word| {
        sum.rotate_left(7) ^ u64::from_ne_bytes(*word)
    });
    sight.pair = pair(mixed);
    if frame.len() < UPPER_V6 + LEAST {
        return Some(Kind::Odd);
    }
    let [first, second, _, _, l0, l1, protocol, hops, ..] = *header;
    let payload = u16::from_be_bytes([l0, l1]);
    let length = payload.checked_add(ipv6::HEADER as u16);
    let plain = frame.first_chunk() == Some(&own)
        && first >> 4 == 6
        && usize::from(payload) >= LEAST
        && length.is_some_and(|length| usize::from(length) <= frame.len() - ethernet::HEADER);
    if !plain {
        return Some(Kind::Odd);
    }
    (sight.length, sight.hops, sight.v6) = (length?, hops, true);
    sight.tos = first << 4 | second >> 4;
    Some(kind(protocol, payload, frame.get(UPPER_V6..)?))
}

/// What a packet is by its protocol and what follows its IP header, of which so many octets count.
#[inline(always)]
fn kind(protocol: u8, payload: u16, upper: &[u8]) -> Kind {
    match (protocol, upper) {
        (ipv4::UDP, [_, _, t0, t1, l0, l1, _, _, rest @ ..])
            if u16::from_be_bytes([*t0, *t1]) == udp::NAT_PORT =>
        {
            // It ends where the packet ends, and is neither IKE nor a keepalive.
            let esp = u16::from_be_bytes([*l0, *l1]) == payload
                && usize::from(payload) >= udp::HEADER + LEAST
                && !rest.starts_with(&[0; 4]);
            if esp { Kind::Encapsulated } else { Kind::Odd }
        }
        (ipv4::UDP, _) => Kind::Stream,
        (ipv4::ESP, _) => Kind::Esp,
        (ipv4::TCP, [_, _, _, _, _, _, _, _, _, _, _, _, _, flags, ..]) if flags & SYN == 0 => {
            Kind::Stream
        }
        _ => Kind::Odd,
    }
}

#[inline]
fn pair(addresses: u64) -> u8 {
    (addresses.wrapping_mul(MIX) >> 58) as u8
}

impl Outer {
    /// Whether ESP is in UDP.
    #[inline]
    pub(crate) fn is_encapsulated(&self) -> bool {
        let upper = if self.v6 { UPPER_V6 } else { UPPER_V4 };
        usize::from(self.headers) > upper
    }

    /// The UDP port that it came from, if encapsulated.
    #[inline]
    pub(crate) fn port(&self) -> Option<u16> {
        self.is_encapsulated().then_some(self.port)
    }
}

impl Sight {
    /// Where the transport header of a plain packet begins in its frame.
    #[inline]
    pub(super) fn upper(&self) -> usize {
        if self.v6 { UPPER_V6 } else { UPPER_V4 }
    }

    /// Source and destination of a plain packet in one, if they are IPv4's.
    #[inline]
    pub(super) fn ends_v4(&self, frame: &[u8]) -> Option<[u8; 8]> {
        let headers = frame.get(..UPPER_V4).filter(|_| !self.v6)?;
        headers.last_chunk().copied()
    }

    /// Source and destination of a plain packet.
    #[inline]
    pub(super) fn addresses(&self, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
        let headers = frame.get(..self.upper())?;
        Some(match self.v6 {
            false => {
                let (rest, to) = headers.split_last_chunk::<4>()?;
                (IpAddr::from(*rest.last_chunk::<4>()?), IpAddr::from(*to))
            }
            true => {
                let (rest, to) = headers.split_last_chunk::<16>()?;
                (IpAddr::from(*rest.last_chunk::<16>()?), IpAddr::from(*to))
            }
        })
    }

    /// Of a packet that is ESP, in UDP or not.
    #[inline]
    pub(super) fn outer(&self, frame: &[u8], encapsulated: bool) -> Outer {
        let upper = frame.get(self.upper()..).unwrap_or_default();
        let (udp, port) = match (encapsulated, upper) {
            (true, [p0, p1, ..]) => (udp::HEADER, u16::from_be_bytes([*p0, *p1])),
            _ => (0, 0),
        };
        let headers = (self.upper() + udp) as u16;
        let spi = upper.get(udp..).and_then(<[u8]>::first_chunk);
        Outer {
            spi: spi.map_or(0, |spi| u32::from_be_bytes(*spi)),
            headers,
            length: self.length + ethernet::HEADER as u16 - headers,
            port,
            v6: self.v6,
            tos: self.tos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use crate::classify::{Addresses, Class, classify};
    use crate::wire::checksum;

    const OWN: MacAddress = [2, 0, 0, 0, 0, 1];

    fn frames() -> Vec<Vec<u8>> {
        let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], OWN);
        let mut frames = vec![Vec::new(); 5];
        let v4 = || ethernet().ipv4([10, 1, 0, 9], [192, 0, 2, 1], 9);
        let v6 = || ethernet().ipv6([0x20; 16], [0x30; 16], 9);
        v4().udp(7, 4500)
            .write(&mut frames[0], b"12345678")
            .unwrap();
        v4().tcp(7, 80, 1, 1).write(&mut frames[1], b"x").unwrap();
        v6().udp(7, 4500)
            .write(&mut frames[2], b"12345678")
            .unwrap();
        v6().tcp(7, 80, 1, 1).write(&mut frames[3], b"x").unwrap();
        v4().write(&mut frames[4], 50.into(), &[1; 40]).unwrap();
        frames
    }

    #[test]
    fn plain_packets_are_told_apart() {
        let kinds: Vec<_> = frames().iter().map(|frame| look(frame, OWN).0).collect();
        let expected = [
            Kind::Encapsulated,
            Kind::Stream,
            Kind::Encapsulated,
            Kind::Stream,
            Kind::Esp,
        ];
        assert_eq!(kinds, expected);
        for frame in frames() {
            let (_, sight) = look(&frame, OWN);
            assert_eq!(usize::from(sight.length), frame.len() - 14);
            assert_eq!(sight.hops, 9);
            assert!(matches!(look(&frame, [9; 6]).0, Kind::Odd));
        }
    }

    #[test]
    fn what_is_cut_short_or_opens_a_connection_is_not_plain() {
        for frame in frames() {
            for length in 0..frame.len() {
                let kind = look(&frame[..length], OWN).0;
                assert!(matches!(kind, Kind::Nothing | Kind::Odd), "{length}");
            }
        }
        let mut opening = frames().swap_remove(1);
        opening[34 + 13] |= SYN;
        assert_eq!(look(&opening, OWN).0, Kind::Odd);
    }

    proptest! {
        /// The plain way would not have dropped it, nor seen another packet.
        #[test]
        fn what_is_plain_passes_the_plain_way_too(
            which in 0usize..5, changes in prop::collection::vec((12usize..64, any::<u8>()), 0..4), mend: bool,
        ) {
            let mut frame = frames().swap_remove(which);
            for (at, value) in changes {
                if let Some(octet) = frame.get_mut(at) { *octet = value; }
            }
            if mend && frame[12..14] == [8, 0] {
                frame[24..26].fill(0);
                let sum = checksum(0, &frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let (kind, sight) = look(&frame, OWN);
            if !matches!(kind, Kind::Nothing | Kind::Odd) {
                let addresses = Addresses::new(&[([192, 0, 2, 1].into(), 24), ([0x30; 16].into(), 64)]);
                match classify(&frame[14..], &addresses) {
                    Ok((class, length)) => {
                        prop_assert_eq!(length, usize::from(sight.length));
                        if let Class::Forward(flow) = class {
                            let (from, to) = sight.addresses(&frame).unwrap();
                            prop_assert_eq!((flow.source, flow.destination), (from, to));
                        }
                        prop_assert!(class != Class::Fragment);
                    }
                    Err(reason) => {
                        use crate::verdict::DropReason;
                        let of_addresses_or_ports = matches!(
                            reason, DropReason::Malformed | DropReason::NotForUs
                                | DropReason::NatKeepalive | DropReason::BadChecksum);
                        prop_assert!(of_addresses_or_ports, "{:?}", reason);
                    }
                }
            }
        }
    }
}
