//! What an IP packet is to us, before any policy: ESP, IKE, an echo request, or to be forwarded.

use std::net::{IpAddr, Ipv4Addr};

use crate::flow::Flow;
use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::icmp;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::udp::{self, NatTraversal, Udp};

/// The addresses of the cluster, and those that mean everybody on one of its links.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    own: Vec<Ipv4Addr>,
    broadcast: Vec<Ipv4Addr>,
}

impl Addresses {
    /// From interface addresses with their prefix lengths. IPv6 ones are left out: nothing is
    /// received for them yet.
    pub fn new<'a>(addresses: impl IntoIterator<Item = &'a (IpAddr, u8)>) -> Addresses {
        let mut all = Addresses::default();
        for (address, length) in addresses {
            let IpAddr::V4(address) = address else {
                continue;
            };
            all.own.push(*address);
            // A /31 or /32 has no broadcast address (RFC 3021).
            if *length < 31 {
                let host = u32::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
                all.broadcast.push((u32::from(*address) | host).into());
                all.broadcast.push((u32::from(*address) & !host).into());
            }
        }
        all
    }

    /// Whether the address is one of the cluster's.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.own.contains(&address)
    }

    /// Whether a packet to the address may be forwarded: to one host, and not one of this link's
    /// special addresses.
    fn is_forwardable(&self, address: Ipv4Addr) -> bool {
        let special = address.is_multicast()
            || address.is_broadcast()
            || address.is_loopback()
            || address.is_link_local()
            || address.octets()[0] == 0;
        !special && !self.broadcast.contains(&address)
    }
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// ESP for us, behind `headers` octets of IP and perhaps UDP.
    Esp {
        headers: usize,
        source: Ipv4Addr,
        /// The UDP port that it came from, if encapsulated (RFC 3948).
        port: Option<u16>,
        /// DSCP and ECN of the outer header.
        tos: u8,
    },
    /// IKE for us (RFC 7296 section 2).
    Ike,
    /// An ICMP echo request for us.
    Echo(Flow),
    /// For somebody else.
    Forward(Flow),
}

/// Looks at a packet that begins with its IP header; also gives the packet's own length, as a frame
/// may be padded behind it.
pub fn classify(octets: &[u8], addresses: &Addresses) -> Result<(Class, usize), DropReason> {
    // 1. The header itself (RFC 1812 section 5.2.2).
    if octets.first().is_some_and(|first| first >> 4 == 6) {
        return Err(DropReason::Unsupported);
    }
    let ip = Ipv4::parse(octets)?;
    // 2. A source that can be answered and is not us (RFC 1812 section 5.3.7).
    let (source, destination) = (ip.source(), ip.destination());
    let martian = source.is_multicast()
        || source.is_broadcast()
        || source.is_loopback()
        || source.octets()[0] == 0
        || addresses.contains(source);
    if martian {
        return Err(DropReason::Malformed);
    }
    let packet = octets.get(..ip.total_length()).unwrap_or(octets);
    let flow = Flow::parse(packet).ok_or(DropReason::Malformed)?;
    // 3. For somebody else.
    let class = if addresses.contains(destination) {
        for_us(ip, flow)?
    } else if addresses.is_forwardable(destination) {
        Class::Forward(flow)
    } else {
        return Err(DropReason::NotForUs);
    };
    Ok((class, ip.total_length()))
}

/// What a packet to one of our addresses is.
fn for_us(ip: Ipv4<'_>, flow: Flow) -> Result<Class, DropReason> {
    if ip.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let source = ip.source();
    match ip.protocol() {
        ipv4::ESP => Ok(Class::Esp {
            headers: ip.header_length(),
            source,
            port: None,
            tos: ip.tos(),
        }),
        ipv4::ICMP if icmp::is_echo_request(ip.payload()) => Ok(Class::Echo(flow)),
        ipv4::UDP => {
            let udp = Udp::parse(ip.payload()).ok_or(DropReason::Malformed)?;
            match (udp.destination_port(), NatTraversal::of(udp.payload())) {
                (udp::NAT_PORT, NatTraversal::Keepalive) => Err(DropReason::NatKeepalive),
                (udp::NAT_PORT, NatTraversal::Esp) => Ok(Class::Esp {
                    headers: ip.header_length() + udp::HEADER,
                    source,
                    port: Some(udp.source_port()),
                    tos: ip.tos(),
                }),
                (udp::NAT_PORT, NatTraversal::Ike) | (udp::IKE_PORT, _) => {
                    check_udp(ip).map(|()| Class::Ike)
                }
                _ => Err(DropReason::NotForUs),
            }
        }
        _ => Err(DropReason::NotForUs),
    }
}

/// Verifies the UDP checksum if there is one (RFC 768). ESP in UDP is spared: its ICV says more,
/// and RFC 3948 section 2.1 makes the checksum zero.
fn check_udp(ip: Ipv4<'_>) -> Result<(), DropReason> {
    let payload = ip.payload();
    let length = payload
        .get(4..6)
        .and_then(|octets| octets.first_chunk())
        .map_or(0, |octets| u16::from_be_bytes(*octets));
    let datagram = payload
        .get(..usize::from(length))
        .ok_or(DropReason::Malformed)?;
    if datagram.get(6..8) == Some(&[0, 0]) {
        return Ok(());
    }
    let halves = |address: Ipv4Addr| (u32::from(address) >> 16) + (u32::from(address) & 0xffff);
    let pseudo =
        halves(ip.source()) + halves(ip.destination()) + u32::from(ipv4::UDP) + u32::from(length);
    match checksum(pseudo, datagram) {
        0 => Ok(()),
        _ => Err(DropReason::BadChecksum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn addresses() -> Addresses {
        Addresses::new(&[
            ("192.0.2.1".parse().unwrap(), 24),
            ("10.1.0.1".parse().unwrap(), 16),
            ("2001:db8::1".parse().unwrap(), 64),
        ])
    }

    fn udp(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        PacketBuilder::ipv4([198, 51, 100, 7], to, 64)
            .udp(40_000, port)
            .write(&mut octets, payload)
            .unwrap();
        octets
    }

    fn class(octets: &[u8]) -> Result<Class, DropReason> {
        classify(octets, &addresses()).map(|(class, _)| class)
    }

    const US: [u8; 4] = [192, 0, 2, 1];

    #[test]
    fn rfc_3948_section_2_what_shares_port_4500() {
        let peer = Ipv4Addr::new(198, 51, 100, 7);
        assert_eq!(class(&udp(US, 500, b"ike")), Ok(Class::Ike));
        assert_eq!(class(&udp(US, 4500, &[0, 0, 0, 0, 1])), Ok(Class::Ike));
        assert_eq!(
            class(&udp(US, 4500, &[0xff])),
            Err(DropReason::NatKeepalive)
        );
        let esp = Class::Esp {
            headers: 28,
            source: peer,
            port: Some(40_000),
            tos: 0,
        };
        assert_eq!(class(&udp(US, 4500, &[0, 0, 1, 0, 0, 0, 0, 1])), Ok(esp));
        assert_eq!(class(&udp(US, 53, b"dns")), Err(DropReason::NotForUs));
    }

    #[test]
    fn what_is_not_for_us_is_forwarded_unless_it_is_for_everybody() {
        assert!(matches!(
            class(&udp([10, 2, 0, 1], 500, b"x")),
            Ok(Class::Forward(_))
        ));
        for everybody in [
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [192, 0, 2, 255],
            [10, 1, 255, 255],
            [10, 1, 0, 0],
            [127, 0, 0, 1],
            [169, 254, 0, 1],
            [0, 0, 0, 0],
        ] {
            let verdict = class(&udp(everybody, 500, b"x"));
            assert_eq!(verdict, Err(DropReason::NotForUs), "{everybody:?}");
        }
    }

    #[test]
    fn rfc_1812_section_5_3_7_martian_sources_are_refused() {
        for source in [[127, 0, 0, 1], [224, 0, 0, 5], [0, 0, 0, 0], [255; 4], US] {
            let mut octets = Vec::new();
            PacketBuilder::ipv4(source, [10, 2, 0, 1], 64)
                .udp(1, 2)
                .write(&mut octets, b"x")
                .unwrap();
            assert_eq!(class(&octets), Err(DropReason::Malformed), "{source:?}");
        }
    }

    #[test]
    fn a_damaged_ike_datagram_is_not_punted() {
        let mut octets = udp(US, 500, b"some IKE message");
        *octets.last_mut().unwrap() ^= 1;
        assert_eq!(class(&octets), Err(DropReason::BadChecksum));
        octets[26..28].fill(0);
        assert_eq!(class(&octets), Ok(Class::Ike), "no checksum, none checked");
    }

    #[test]
    fn fragments_for_us_are_refused_and_others_are_not() {
        let fragment = |to| {
            let mut octets = udp(to, 500, b"x");
            octets[6] |= 0x20;
            octets[10..12].fill(0);
            let sum = checksum(0, &octets[..20]);
            octets[10..12].copy_from_slice(&sum.to_be_bytes());
            class(&octets)
        };
        assert_eq!(fragment(US), Err(DropReason::Fragment));
        assert!(matches!(fragment([10, 2, 0, 1]), Ok(Class::Forward(_))));
    }

    proptest! {
        #[test]
        fn random_octets_never_panic(octets: Vec<u8>) {
            let _ = class(&octets);
        }

        #[test]
        fn mutated_packets_never_panic_and_lengths_stay_inside(
            at in 0usize..60, value: u8, cut in 0usize..60, port in prop_oneof![Just(500u16), Just(4500)],
        ) {
            let mut octets = udp(US, port, &[7; 32]);
            if let Some(octet) = octets.get_mut(at) { *octet = value; }
            octets[10..12].fill(0);
            let sum = checksum(0, &octets[..20]);
            octets[10..12].copy_from_slice(&sum.to_be_bytes());
            octets.truncate(octets.len().min(cut));
            if let Ok((class, length)) = classify(&octets, &addresses()) {
                prop_assert!(length <= octets.len());
                if let Class::Esp { headers, .. } = class {
                    prop_assert!(headers <= length);
                }
            }
        }
    }
}
