//! Transport mode (RFC 4303 section 3.1.1): the packet's own header stays in front of ESP, in clear,
//! and nothing is put around it.
//!
//! ```text
//!  IPv4:  header, options                          | ESP | TCP ...
//!  IPv6:  header, hop-by-hop, routing, fragment    | ESP | destination options, TCP ...
//! ```
//!
//! While ESP is sealed or opened, the header waits in the head room in front of the packet.

use crate::pool::{Packet, Pool};
use crate::verdict::DropReason;
use crate::wire::ip::pseudo_header;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{checksum, ip::Ip, udp};

use hitless_sa::UdpEncapsulation;

/// Where ESP goes in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Octets of headers that stay in front.
    pub(crate) kept: usize,
    /// Where among them the next header is named.
    pub(crate) named_at: usize,
    /// What stands there now.
    pub(crate) next_header: u8,
}

/// Finds the place. Only whole packets are protected this way (RFC 4303 section 3.3.4).
pub(crate) fn place(packet: &[u8]) -> Result<Place, DropReason> {
    match Ip::parse(packet)? {
        Ip::V4(ip) if ip.is_fragment() => Err(DropReason::Fragment),
        Ip::V4(ip) => Ok(Place {
            kept: ip.header_length(),
            named_at: 9,
            next_header: ip.protocol(),
        }),
        Ip::V6(ip) => place_v6(ip),
    }
}

/// Behind the last header that is for routers or for the way (RFC 4303 section 3.1.1).
fn place_v6(ip: Ipv6<'_>) -> Result<Place, DropReason> {
    let mut place = Place {
        kept: ipv6::HEADER,
        named_at: 6,
        next_header: ip.next_header(),
    };
    let mut at = place;
    for _ in 0..ipv6::MAX_EXTENSIONS {
        let rest = ip.from(at.kept);
        let length = match at.next_header {
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION => {
                let units = rest.get(1).ok_or(DropReason::Malformed)?;
                (usize::from(*units) + 1) * 8
            }
            ipv6::FRAGMENT => match rest.first_chunk::<{ ipv6::FRAGMENT_HEADER }>() {
                // An atomic fragment is whole (RFC 6946).
                Some([_, _, high, low, ..]) if [*high, low & 0xf9] == [0, 0] => {
                    ipv6::FRAGMENT_HEADER
                }
                Some(_) => return Err(DropReason::Fragment),
                None => return Err(DropReason::Malformed),
            },
            _ => return Ok(place),
        };
        let for_the_way = at.next_header != ipv6::DESTINATION;
        at = Place {
            kept: at.kept + length,
            named_at: at.kept,
            next_header: *rest.first().ok_or(DropReason::Malformed)?,
        };
        if rest.len() < length {
            return Err(DropReason::Malformed);
        }
        if for_the_way {
            place = at;
        }
    }
    Err(DropReason::Malformed)
}

/// Moves the headers `gap` octets to the front, where room has been made, and out of the packet:
/// what is left begins with the gap.
pub(crate) fn set_aside(pool: &mut Pool, packet: &mut Packet, kept: usize, gap: usize) -> bool {
    let octets = pool.bytes_mut(packet);
    if octets.len() < gap + kept {
        return false;
    }
    octets.copy_within(gap..gap + kept, 0);
    pool.trim_front(packet, kept)
}

/// Brings the headers back in front of sealed ESP, with UDP between the two behind a NAT
/// (RFC 3948 section 2.1), and makes them say what follows.
pub(crate) fn put_back(
    pool: &mut Pool,
    packet: &mut Packet,
    (kept, named_at): (usize, usize),
    encapsulation: Option<UdpEncapsulation>,
) -> Result<(), DropReason> {
    let gap = encapsulation.map_or(0, |_| udp::HEADER);
    if !pool.prepend(packet, kept) || !pool.prepend(packet, gap) {
        return Err(DropReason::TooBig);
    }
    let octets = pool.bytes_mut(packet);
    octets.copy_within(gap..gap + kept, 0);
    let protocol = encapsulation.map_or(ipv4::ESP, |_| ipv4::UDP);
    rewrite(octets, kept, named_at, protocol).ok_or(DropReason::TooBig)?;
    match encapsulation {
        Some(ports) => write_udp(octets, kept, ports).ok_or(DropReason::TooBig),
        None => Ok(()),
    }
}

/// Puts the headers in front of decrypted content again. The packet begins with ESP of which the
/// first `prefix` octets are not content; `front` octets of IP and UDP headers stand before it.
pub(crate) fn restore(
    pool: &mut Pool,
    packet: &mut Packet,
    (front, prefix): (usize, usize),
    (next_header, length): (u8, usize),
    encapsulated: bool,
) -> Result<(), DropReason> {
    // An IP packet inside is tunnel mode, which this SA is not for.
    match next_header {
        ipv4::IPIP | ipv6::IPV6 => return Err(DropReason::BadNextHeader),
        ipv6::NO_NEXT_HEADER => return Err(DropReason::Dummy),
        _ => {}
    }
    if !pool.truncate(packet, prefix + length) || !pool.prepend(packet, front) {
        return Err(DropReason::Malformed);
    }
    let octets = pool.bytes_mut(packet);
    let gap = prefix + if encapsulated { udp::HEADER } else { 0 };
    let kept = front + prefix - gap;
    let named_at = match octets.first().map(|first| first >> 4) {
        Some(6) => name_of(octets, kept)?,
        _ => 9,
    };
    octets.copy_within(0..kept, gap);
    if !pool.trim_front(packet, gap) {
        return Err(DropReason::Malformed);
    }
    let octets = pool.bytes_mut(packet);
    rewrite(octets, kept, named_at, next_header).ok_or(DropReason::Malformed)?;
    if encapsulated {
        mend_checksum(octets, kept, next_header);
    }
    Ok(())
}

/// Where the header at `kept` is named.
fn name_of(octets: &[u8], kept: usize) -> Result<usize, DropReason> {
    let (mut named_at, mut at) = (6, ipv6::HEADER);
    for _ in 0..=ipv6::MAX_EXTENSIONS {
        if at == kept {
            return Ok(named_at);
        }
        let protocol = octets.get(named_at).ok_or(DropReason::Malformed)?;
        let units = octets.get(at + 1).ok_or(DropReason::Malformed)?;
        named_at = at;
        at += match *protocol {
            ipv6::FRAGMENT => ipv6::FRAGMENT_HEADER,
            _ => (usize::from(*units) + 1) * 8,
        };
    }
    Err(DropReason::Malformed)
}

/// Makes an IP header say how long the packet is and what it carries.
fn rewrite(octets: &mut [u8], kept: usize, named_at: usize, protocol: u8) -> Option<()> {
    *octets.get_mut(named_at)? = protocol;
    if octets.first()? >> 4 == 6 {
        let length = u16::try_from(octets.len().checked_sub(ipv6::HEADER)?).ok()?;
        octets.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
        return Some(());
    }
    let length = u16::try_from(octets.len()).ok()?;
    octets.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
    let header = octets.get_mut(..kept)?;
    header.get_mut(10..12)?.fill(0);
    let sum = checksum(0, header);
    header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The UDP header of RFC 3948; over IPv6 with a checksum (RFC 8200 section 8.1).
fn write_udp(octets: &mut [u8], kept: usize, ports: UdpEncapsulation) -> Option<()> {
    let ends = match Ip::parse(octets).ok()? {
        Ip::V4(_) => None,
        Ip::V6(ip) => Some((ip.source(), ip.destination())),
    };
    let datagram = octets.get_mut(kept..)?;
    let length = u16::try_from(datagram.len()).ok()?;
    let header = datagram.get_mut(..udp::HEADER)?;
    header[..2].copy_from_slice(&ports.local_port.to_be_bytes());
    header[2..4].copy_from_slice(&ports.remote_port.to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6..].fill(0);
    if let Some((from, to)) = ends {
        let sum = pseudo_header(from.into(), to.into(), ipv4::UDP, datagram.len());
        let sum = udp::sent_checksum(checksum(sum, datagram));
        datagram.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(())
}

/// Makes the checksum of TCP or UDP right for the addresses as they are now: a NAT on the way changed
/// them and could not see the checksum (RFC 3948 section 3.1.2). The ICV vouches for the content.
fn mend_checksum(octets: &mut [u8], kept: usize, protocol: u8) {
    let at = match protocol {
        ipv4::TCP => 16,
        ipv4::UDP => 6,
        _ => return,
    };
    let Ok(ip) = Ip::parse(octets) else {
        return;
    };
    let (from, to, v4) = (ip.source(), ip.destination(), matches!(ip, Ip::V4(_)));
    let Some(segment) = octets.get_mut(kept..) else {
        return;
    };
    let sum = pseudo_header(from, to, protocol, segment.len());
    let Some(field) = segment.get_mut(at..at + 2) else {
        return;
    };
    // UDP over IPv4 may have none (RFC 768).
    if protocol == ipv4::UDP && v4 && *field == [0, 0] {
        return;
    }
    field.fill(0);
    let sum = checksum(sum, segment);
    let sum = match protocol {
        ipv4::UDP => udp::sent_checksum(sum),
        _ => sum,
    };
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Octets of headers that stay in front of a packet's ESP, for what needs only that.
pub(crate) fn kept(packet: &[u8]) -> usize {
    match packet.first().map(|first| first >> 4) {
        Some(4) => Ipv4::parse(packet).map_or(0, Ipv4::header_length),
        _ => place(packet).map_or(0, |place| place.kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PADDED: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    const ATOMIC: [u8; 7] = [0, 0, 0, 1, 2, 3, 4];

    /// IPv6 with these headers of eight octets in front of UDP.
    fn v6(chain: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; ipv6::HEADER];
        let kinds = [chain, &[ipv4::UDP]].concat();
        for next in &kinds[1..] {
            octets.push(*next);
            let last = chain[(octets.len() - 41) / 8];
            octets.extend(if last == ipv6::FRAGMENT {
                ATOMIC
            } else {
                PADDED
            });
        }
        octets.extend([0, 7, 0, 9, 0, 8, 0, 0]);
        let (from, to) = ([0x20; 16].into(), [0x30; 16].into());
        assert!(ipv6::write(&mut octets, from, to, kinds[0], 64));
        octets
    }

    fn found(chain: &[u8]) -> (usize, usize, u8) {
        let place = place(&v6(chain)).unwrap();
        (place.kept, place.named_at, place.next_header)
    }

    #[test]
    fn rfc4303_section_3_1_1_what_is_for_the_way_stays_in_front_of_esp() {
        use ipv6::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
        assert_eq!(found(&[]), (40, 6, 17));
        assert_eq!(found(&[HOP_BY_HOP]), (48, 40, 17));
        assert_eq!(found(&[FRAGMENT]), (48, 40, 17));
        assert_eq!(found(&[HOP_BY_HOP, FRAGMENT]), (56, 48, 17));
        assert_eq!(found(&[DESTINATION]), (40, 6, DESTINATION));
        let mixed = [HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, DESTINATION];
        assert_eq!(found(&mixed), (72, 64, DESTINATION));
    }

    #[test]
    fn rfc4303_section_3_3_4_fragments_are_not_protected_in_transport_mode() {
        let mut octets = v6(&[ipv6::FRAGMENT]);
        octets[43] = 1;
        assert_eq!(place(&octets), Err(DropReason::Fragment));
        octets[43] = 8;
        assert_eq!(place(&octets), Err(DropReason::Fragment));
        octets[43] = 6;
        assert!(place(&octets).is_ok(), "reserved bits");
        let mut octets = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 9)
            .udp(1, 2)
            .write(&mut octets, b"x")
            .unwrap();
        assert_eq!(place(&octets).map(|place| place.kept), Ok(20));
        (octets[6], octets[10]) = (0x20, octets[10].wrapping_add(0x20));
        assert_eq!(place(&octets), Err(DropReason::Fragment));
    }

    /// What happens between wrapping and unwrapping, without the cipher: 8 octets of prefix.
    fn there_and_back(packet: &[u8], encapsulation: Option<UdpEncapsulation>) -> Vec<u8> {
        let mut pool = Pool::new(1).unwrap();
        let mut token = pool.copy_in(packet).unwrap();
        let Place {
            kept,
            named_at,
            next_header,
        } = place(packet).unwrap();
        assert!(pool.prepend(&mut token, 8));
        assert!(set_aside(&mut pool, &mut token, kept, 8));
        let content = token.len() - 8;
        put_back(&mut pool, &mut token, (kept, named_at), encapsulation).unwrap();
        let front = kept + encapsulation.map_or(0, |_| 8);
        let ip = Ip::parse(pool.bytes(&token)).unwrap();
        let protocol = match ip {
            Ip::V4(ip) => ip.protocol(),
            Ip::V6(ip) => ip.upper().unwrap().protocol,
        };
        assert_eq!(protocol, if encapsulation.is_some() { 17 } else { 50 });
        assert!(pool.trim_front(&mut token, front));
        let inside = (next_header, content);
        let encapsulated = encapsulation.is_some();
        restore(&mut pool, &mut token, (front, 8), inside, encapsulated).unwrap();
        let octets = pool.bytes(&token).to_vec();
        pool.free(token);
        octets
    }

    #[test]
    fn a_packet_comes_back_as_it_was_with_and_without_udp() {
        let nat = Some(UdpEncapsulation {
            local_port: 4500,
            remote_port: 1,
        });
        let mut v4 = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 9)
            .tcp(1, 2, 3, 4)
            .write(&mut v4, b"data")
            .unwrap();
        let mixed = v6(&[ipv6::HOP_BY_HOP, ipv6::FRAGMENT, ipv6::DESTINATION]);
        for encapsulation in [None, nat] {
            assert_eq!(there_and_back(&v4, encapsulation), v4);
            assert_eq!(there_and_back(&mixed, encapsulation), mixed);
        }
    }

    #[test]
    fn rfc3948_section_3_1_2_checksums_are_mended_for_an_address_that_a_nat_changed() {
        use etherparse::{Ipv4Header, TcpHeader, UdpHeader};
        let mut tcp = Vec::new();
        let ends = ([10, 99, 0, 1], [192, 0, 2, 1]);
        etherparse::PacketBuilder::ipv4(ends.0, ends.1, 9)
            .tcp(1, 2, 3, 4)
            .write(&mut tcp, b"odd")
            .unwrap();
        let mut datagram = Vec::new();
        etherparse::PacketBuilder::ipv4(ends.0, ends.1, 9)
            .udp(1, 2)
            .write(&mut datagram, b"odd")
            .unwrap();
        let mut without = datagram.clone();
        without[26..28].fill(0);
        for (packet, protocol) in [(tcp, 6), (datagram, 17), (without, 17)] {
            let mut pool = Pool::new(1).unwrap();
            // As it comes: 20 octets of IP from the NAT, 8 of UDP, 8 of prefix, then the content.
            let front = {
                let mut front = packet[..20].to_vec();
                front[12..16].copy_from_slice(&[198, 51, 100, 9]);
                front
            };
            let came = [&front[..], &[0; 16], &packet[20..]].concat();
            let mut token = pool.copy_in(&came).unwrap();
            assert!(pool.trim_front(&mut token, 28));
            let inside = (protocol, packet.len() - 20);
            restore(&mut pool, &mut token, (28, 8), inside, true).unwrap();
            let octets = pool.bytes(&token);
            let (ip, rest) = Ipv4Header::from_slice(octets).unwrap();
            assert_eq!(ip.source, [198, 51, 100, 9]);
            if protocol == 6 {
                let (tcp, data) = TcpHeader::from_slice(rest).unwrap();
                assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, data).unwrap());
            } else {
                let (udp, data) = UdpHeader::from_slice(rest).unwrap();
                let right = udp.calc_checksum_ipv4(&ip, data).unwrap();
                let absent = packet[26..28] == [0, 0];
                assert_eq!(udp.checksum, if absent { 0 } else { right });
            }
            pool.free(token);
        }
    }

    proptest! {
        #[test]
        fn random_chains_never_panic(mut octets in prop::collection::vec(any::<u8>(), 40..150),
                                     next in prop::sample::select(vec![0u8, 43, 44, 60])) {
            (octets[0], octets[6]) = (0x60, next);
            let payload = (octets.len() - 40) as u16;
            octets[4..6].copy_from_slice(&payload.to_be_bytes());
            if let Ok(place) = place(&octets) {
                prop_assert!(place.kept <= octets.len() && place.named_at < place.kept);
                prop_assert_eq!(name_of(&octets, place.kept).unwrap(), place.named_at);
            }
        }
    }
}
