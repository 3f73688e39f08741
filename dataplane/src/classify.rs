//! What an IP packet is to us, before any policy: ESP, IKE, neighbour discovery, an echo request, or
//! to be forwarded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::Flow;
use crate::reassembly;
use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::icmp;
use crate::wire::icmpv6;
use crate::wire::ip::pseudo_header;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::udp::{self, NatTraversal, Udp};

/// The addresses of the cluster, and those that mean everybody on one of its links.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    broadcast: Vec<Ipv4Addr>,
}

impl Addresses {
    /// From interface addresses with their prefix lengths.
    pub fn new<'a>(addresses: impl IntoIterator<Item = &'a (IpAddr, u8)>) -> Addresses {
        let mut all = Addresses::default();
        for (address, length) in addresses {
            match address {
                IpAddr::V6(address) => all.v6.push(*address),
                IpAddr::V4(address) => {
                    all.v4.push(*address);
                    // A /31 or /32 has no broadcast address (RFC 3021).
                    if *length < 31 {
                        let host = u32::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
                        all.broadcast.push((u32::from(*address) | host).into());
                        all.broadcast.push((u32::from(*address) & !host).into());
                    }
                }
            }
        }
        all
    }

    /// Whether the address is one of the cluster's.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.contains(&address),
        }
    }

    /// Whether a packet is for one of these addresses, and from one that is neither of these nor that
    /// of no single host.
    #[inline]
    pub(crate) fn is_from_host_to_us(&self, source: IpAddr, destination: IpAddr) -> bool {
        match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.v4.contains(&to) && !self.is_martian_v4(from)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.v6.contains(&to) && is_host_v6(from) && !self.v6.contains(&from)
            }
            _ => false,
        }
    }

    /// Whether a packet between these addresses is one to forward, neither ours nor for everybody.
    #[inline]
    pub(crate) fn is_between_others(&self, source: IpAddr, destination: IpAddr) -> bool {
        match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.may_send_v4(from.into()) && self.may_receive_v4(to.into())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                is_host_v6(from)
                    && is_forwardable_v6(from)
                    && is_forwardable_v6(to)
                    && !self.v6.contains(&from)
                    && !self.v6.contains(&to)
            }
            _ => false,
        }
    }

    /// Whether a packet to forward may come from the address.
    #[inline]
    pub(crate) fn may_send_v4(&self, address: u32) -> bool {
        !self.is_martian_v4(address.into())
    }

    /// Whether a packet to forward may go to the address.
    #[inline]
    pub(crate) fn may_receive_v4(&self, address: u32) -> bool {
        let address = Ipv4Addr::from(address);
        !self.v4.contains(&address) && self.is_forwardable_v4(address)
    }

    /// Whether no packet of somebody else's may come from the address (RFC 1812 section 5.3.7).
    #[inline]
    fn is_martian_v4(&self, address: Ipv4Addr) -> bool {
        is_special_v4(address) || self.v4.contains(&address)
    }

    /// Whether a packet to the address may be forwarded: to one host, and not one of this link's
    /// special addresses.
    #[inline]
    fn is_forwardable_v4(&self, address: Ipv4Addr) -> bool {
        let special = is_special_v4(address) || address.is_link_local();
        !special && !self.broadcast.contains(&address)
    }
}

/// Whether the address is that of no host, of many, or of whoever asks.
#[inline]
fn is_special_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast()
}

/// Whether a packet from or to the address may be forwarded: one host, in more than one link
/// (RFC 4291 sections 2.5.2, 2.5.3, 2.5.5.2 and 2.5.6).
fn is_forwardable_v6(address: Ipv6Addr) -> bool {
    is_host_v6(address) && !address.is_unicast_link_local()
}

/// Whether the address is that of one host elsewhere.
fn is_host_v6(address: Ipv6Addr) -> bool {
    let special = address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || address.to_ipv4_mapped().is_some();
    !special
}

/// What stands in front of ESP, or of what it is wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OuterHeaders {
    /// Octets of IP and perhaps UDP.
    pub length: usize,
    pub source: IpAddr,
    /// The UDP port that it came from, if encapsulated (RFC 3948).
    pub port: Option<u16>,
    /// DSCP and ECN.
    pub tos: u8,
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// ESP for us.
    Esp(OuterHeaders),
    /// IKE for us (RFC 7296 section 2).
    Ike,
    /// Neighbour discovery for us, or for everybody (RFC 4861). Nothing of it has been checked.
    Neighbour,
    /// An ICMP error for us which says that a packet was too big (RFC 4301 section 8.2). Nothing of
    /// it has been checked.
    TooBig,
    /// An ICMP echo request for us.
    Echo(Flow),
    /// A part of ESP or of a datagram for us.
    Fragment,
    /// For somebody else.
    Forward(Flow),
}

/// Looks at a packet that begins with its IP header; also gives the packet's own length, as a frame
/// may be padded behind it.
pub fn classify(octets: &[u8], addresses: &Addresses) -> Result<(Class, usize), DropReason> {
    match octets.first().map(|first| first >> 4) {
        Some(6) => classify_v6(octets, addresses),
        _ => classify_v4(octets, addresses),
    }
}

fn classify_v4(octets: &[u8], addresses: &Addresses) -> Result<(Class, usize), DropReason> {
    // 1. The header itself (RFC 1812 section 5.2.2).
    let ip = Ipv4::parse(octets)?;
    // 2. A source that can be answered and is not us (RFC 1812 section 5.3.7).
    let (source, destination) = (ip.source(), ip.destination());
    if addresses.is_martian_v4(source) {
        return Err(DropReason::Malformed);
    }
    let packet = octets.get(..ip.total_length()).unwrap_or(octets);
    let flow = Flow::parse(packet).ok_or(DropReason::Malformed)?;
    // 3. For somebody else.
    let class = if addresses.v4.contains(&destination) {
        for_us_v4(ip, flow)?
    } else if addresses.is_forwardable_v4(destination) {
        Class::Forward(flow)
    } else {
        return Err(DropReason::NotForUs);
    };
    Ok((class, ip.total_length()))
}

fn classify_v6(octets: &[u8], addresses: &Addresses) -> Result<(Class, usize), DropReason> {
    // 1. The header itself.
    let ip = Ipv6::parse(octets)?;
    let (source, destination) = (ip.source(), ip.destination());
    let ours = addresses.v6.contains(&destination);
    // 2. Neighbours, who may speak before they have an address. What stands behind extension
    //    headers is not listened to (RFC 6980 wants that of fragments).
    let discovery = ip.next_header() == ipv6::ICMP && icmpv6::is_discovery(ip.payload());
    if discovery && (ours || destination.is_multicast()) {
        return Ok((Class::Neighbour, ip.total_length()));
    }
    // 3. A source that can be answered and is not us.
    if !is_host_v6(source) || addresses.v6.contains(&source) {
        return Err(DropReason::Malformed);
    }
    let packet = octets.get(..ip.total_length()).unwrap_or(octets);
    // 4. For us or for somebody else.
    let class = if ours {
        for_us_v6(ip, packet)?
    } else if is_forwardable_v6(destination) && is_forwardable_v6(source) {
        Class::Forward(Flow::parse(packet).ok_or(DropReason::Malformed)?)
    } else {
        return Err(DropReason::NotForUs);
    };
    Ok((class, ip.total_length()))
}

/// What a packet to one of our addresses is.
fn for_us_v4(ip: Ipv4<'_>, flow: Flow) -> Result<Class, DropReason> {
    if ip.is_fragment() {
        return fragment(ip.protocol());
    }
    match ip.protocol() {
        ipv4::ESP => Ok(Class::Esp(OuterHeaders {
            length: ip.header_length(),
            source: ip.source().into(),
            port: None,
            tos: ip.tos(),
        })),
        ipv4::ICMP if icmp::is_echo_request(ip.payload()) => Ok(Class::Echo(flow)),
        ipv4::ICMP if icmp::is_fragmentation_needed(ip.payload()) => Ok(Class::TooBig),
        ipv4::UDP => datagram(Datagram {
            source: ip.source().into(),
            destination: ip.destination().into(),
            headers: ip.header_length(),
            tos: ip.tos(),
            octets: ip.payload(),
        }),
        _ => Err(DropReason::NotForUs),
    }
}

/// What a packet to one of our addresses is.
fn for_us_v6(ip: Ipv6<'_>, packet: &[u8]) -> Result<Class, DropReason> {
    let upper = ip.upper()?;
    if upper.fragment.is_some() {
        return fragment(upper.protocol);
    }
    match upper.protocol {
        ipv4::ESP => Ok(Class::Esp(OuterHeaders {
            length: upper.offset,
            source: ip.source().into(),
            port: None,
            tos: ip.traffic_class(),
        })),
        ipv6::ICMP if icmpv6::is_echo_request(ip.from(upper.offset)) => Ok(Class::Echo(
            Flow::parse(packet).ok_or(DropReason::Malformed)?,
        )),
        ipv6::ICMP if icmpv6::is_packet_too_big(ip.payload()) => Ok(Class::TooBig),
        ipv4::UDP => datagram(Datagram {
            source: ip.source().into(),
            destination: ip.destination().into(),
            headers: upper.offset,
            tos: ip.traffic_class(),
            octets: ip.from(upper.offset),
        }),
        _ => Err(DropReason::NotForUs),
    }
}

/// A part of a packet to one of our addresses.
fn fragment(protocol: u8) -> Result<Class, DropReason> {
    match reassembly::wanted(protocol) {
        true => Ok(Class::Fragment),
        false => Err(DropReason::Fragment),
    }
}

/// A UDP datagram to one of our addresses, and what stands in front of it.
struct Datagram<'a> {
    source: IpAddr,
    destination: IpAddr,
    headers: usize,
    tos: u8,
    octets: &'a [u8],
}

fn datagram(datagram: Datagram<'_>) -> Result<Class, DropReason> {
    let udp = Udp::parse(datagram.octets).ok_or(DropReason::Malformed)?;
    match (udp.destination_port(), NatTraversal::of(udp.payload())) {
        (udp::NAT_PORT, NatTraversal::Keepalive) => Err(DropReason::NatKeepalive),
        (udp::NAT_PORT, NatTraversal::Esp) => Ok(Class::Esp(OuterHeaders {
            length: datagram.headers + udp::HEADER,
            source: datagram.source,
            port: Some(udp.source_port()),
            tos: datagram.tos,
        })),
        (udp::NAT_PORT, NatTraversal::Ike) | (udp::IKE_PORT, _) => {
            datagram.check().map(|()| Class::Ike)
        }
        _ => Err(DropReason::NotForUs),
    }
}

impl Datagram<'_> {
    /// Verifies the UDP checksum, which only IPv4 may leave out (RFC 768, RFC 8200 section 8.1).
    /// ESP in UDP is spared: its ICV says more, and RFC 3948 section 2.1 makes the checksum zero.
    fn check(&self) -> Result<(), DropReason> {
        let length = match self.octets {
            [_, _, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        let octets = self.octets.get(..length).ok_or(DropReason::Malformed)?;
        let absent = octets.get(6..8) == Some(&[0, 0]);
        let sum = pseudo_header(self.source, self.destination, ipv4::UDP, length);
        let holds = match absent {
            true => self.source.is_ipv4(),
            false => checksum(sum, octets) == 0,
        };
        holds.then_some(()).ok_or(DropReason::BadChecksum)
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
        let peer = IpAddr::from([198, 51, 100, 7]);
        assert_eq!(class(&udp(US, 500, b"ike")), Ok(Class::Ike));
        assert_eq!(class(&udp(US, 4500, &[0, 0, 0, 0, 1])), Ok(Class::Ike));
        assert_eq!(
            class(&udp(US, 4500, &[0xff])),
            Err(DropReason::NatKeepalive)
        );
        let esp = Class::Esp(OuterHeaders {
            length: 28,
            source: peer,
            port: Some(40_000),
            tos: 0,
        });
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
    fn fragments_for_us_are_put_together_and_others_are_forwarded() {
        let fragment = |to| {
            let mut octets = udp(to, 500, b"x");
            octets[6] |= 0x20;
            octets[10..12].fill(0);
            let sum = checksum(0, &octets[..20]);
            octets[10..12].copy_from_slice(&sum.to_be_bytes());
            class(&octets)
        };
        assert_eq!(fragment(US), Ok(Class::Fragment));
        assert!(matches!(fragment([10, 2, 0, 1]), Ok(Class::Forward(_))));
    }

    const US_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    fn udp_v6(from: [u8; 16], to: [u8; 16], port: u16, payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        PacketBuilder::ipv6(from, to, 64)
            .udp(40_000, port)
            .write(&mut octets, payload)
            .unwrap();
        octets
    }

    fn icmp_v6(from: [u8; 16], to: [u8; 16], kind: u8) -> Vec<u8> {
        let mut octets = Vec::new();
        PacketBuilder::ipv6(from, to, 64)
            .write(
                &mut octets,
                etherparse::IpNumber(ipv6::ICMP),
                &[kind, 0, 0, 0, 0, 0, 0, 0],
            )
            .unwrap();
        octets
    }

    #[test]
    fn ipv6_for_us_is_sorted_like_ipv4() {
        let peer = v6("2001:db8:9::7");
        let to_us = |port, payload: &[u8]| class(&udp_v6(peer, US_V6, port, payload));
        assert_eq!(to_us(500, b"ike"), Ok(Class::Ike));
        assert_eq!(to_us(4500, &[0, 0, 0, 0, 1]), Ok(Class::Ike));
        assert_eq!(to_us(4500, &[0xff]), Err(DropReason::NatKeepalive));
        assert_eq!(to_us(53, b"dns"), Err(DropReason::NotForUs));
        let esp = |headers, port| {
            Class::Esp(OuterHeaders {
                length: headers,
                source: peer.into(),
                port,
                tos: 0,
            })
        };
        assert_eq!(
            to_us(4500, &[0, 0, 1, 0, 0, 0, 0, 1]),
            Ok(esp(48, Some(40_000)))
        );
        // Plain ESP, and behind a destination options header.
        let mut octets = udp_v6(peer, US_V6, 500, b"x");
        octets[6] = ipv4::ESP;
        assert_eq!(class(&octets), Ok(esp(40, None)));
        octets.splice(40..40, [ipv4::ESP, 0, 1, 4, 0, 0, 0, 0]);
        (octets[5], octets[6]) = (octets[5] + 8, ipv6::DESTINATION);
        assert_eq!(class(&octets), Ok(esp(48, None)));
        assert!(matches!(
            class(&icmp_v6(peer, US_V6, 128)),
            Ok(Class::Echo(_))
        ));
        assert_eq!(class(&icmp_v6(peer, US_V6, 129)), Err(DropReason::NotForUs));
        assert_eq!(class(&icmp_v6(peer, US_V6, 135)), Ok(Class::Neighbour));
    }

    #[test]
    fn rfc8200_section_8_1_ike_without_a_checksum_is_refused_over_ipv6() {
        let mut octets = udp_v6(v6("2001:db8:9::7"), US_V6, 500, b"some IKE message");
        octets[46..48].fill(0);
        assert_eq!(class(&octets), Err(DropReason::BadChecksum));
    }

    #[test]
    fn rfc4291_section_2_5_addresses_of_no_single_host_elsewhere_go_nowhere() {
        let (host, far) = (v6("2001:db8:9::7"), v6("2001:db8:8::1"));
        assert!(matches!(
            class(&udp_v6(host, far, 1, b"x")),
            Ok(Class::Forward(_))
        ));
        for to in [
            "ff02::1",
            "ff0e::7",
            "::",
            "::1",
            "fe80::9",
            "::ffff:10.1.0.1",
        ] {
            let verdict = class(&udp_v6(host, v6(to), 1, b"x"));
            assert_eq!(verdict, Err(DropReason::NotForUs), "to {to}");
        }
        for from in ["ff02::1", "::", "::1", "::ffff:10.1.0.1", "2001:db8::1"] {
            let verdict = class(&udp_v6(v6(from), far, 1, b"x"));
            assert_eq!(verdict, Err(DropReason::Malformed), "from {from}");
        }
        // Link-local sources may speak to us, but not through us.
        let local = v6("fe80::9");
        assert_eq!(class(&udp_v6(local, US_V6, 500, b"ike")), Ok(Class::Ike));
        assert_eq!(
            class(&udp_v6(local, far, 1, b"x")),
            Err(DropReason::NotForUs)
        );
        // Everybody's neighbour discovery is listened to, other groups are not.
        assert_eq!(
            class(&icmp_v6(local, v6("ff02::1:ff00:1"), 135)),
            Ok(Class::Neighbour)
        );
        assert_eq!(
            class(&icmp_v6(local, v6("ff02::1"), 128)),
            Err(DropReason::NotForUs)
        );
        assert!(matches!(
            class(&icmp_v6(host, far, 135)),
            Ok(Class::Forward(_))
        ));
    }

    proptest! {
        #[test]
        fn random_octets_never_panic_as_ipv6(mut octets in prop::collection::vec(any::<u8>(), 40..200),
                                             next in prop::sample::select(vec![0u8, 17, 43, 44, 50, 58, 60])) {
            (octets[0], octets[6]) = (0x60, next);
            let payload = (octets.len() - 40) as u16;
            octets[4..6].copy_from_slice(&payload.to_be_bytes());
            octets[24..40].copy_from_slice(&US_V6);
            if let Ok((Class::Esp(OuterHeaders { length: headers, .. }), length)) = classify(&octets, &addresses()) {
                prop_assert!(headers <= length && length <= octets.len());
            }
        }

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
                if let Class::Esp(OuterHeaders { length: headers, .. }) = class {
                    prop_assert!(headers <= length);
                }
            }
        }
    }
}
