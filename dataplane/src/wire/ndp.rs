//! Neighbour discovery (RFC 4861): who has this address, and the answer. Hosts' business with
//! routers (solicitations, advertisements, redirects) is not ours: a gateway is told its routes.

use std::net::Ipv6Addr;

use crate::port::MacAddress;
use crate::verdict::DropReason;
use crate::wire::icmpv6;
use crate::wire::ipv6::{self, Ipv6};

/// Octets of a message with one link-layer address: IPv6 header included.
pub const LENGTH: usize = ipv6::HEADER + BODY + OPTION;
/// Octets in front of the options.
const BODY: usize = 24;
/// Octets of an option with an Ethernet address.
const OPTION: usize = 8;
/// RFC 4861 section 7.1: no router has forwarded the packet.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Everybody on the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message that has passed all checks of RFC 4861 section 7.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Who has the target? From nobody (`::`) it only asks whether somebody has.
    Solicitation {
        target: Ipv6Addr,
        mac: Option<MacAddress>,
    },
    Advertisement(Advertisement),
}

/// I have the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    pub target: Ipv6Addr,
    pub mac: Option<MacAddress>,
    /// It answers a question.
    pub solicited: bool,
    /// It corrects what was known.
    pub overrides: bool,
}

/// The group that everybody joins who has this address (RFC 4291 section 2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// The link-local address that goes with an Ethernet address (RFC 2464 sections 4 and 5).
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let interface = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&interface);
    octets.into()
}

/// Checks and reads a solicitation or advertisement.
pub fn parse(ip: Ipv6<'_>) -> Result<Message, DropReason> {
    let message = ip.payload();
    // 1. From a neighbour, undamaged, and long enough (RFC 4861 sections 7.1.1 and 7.1.2).
    let Some((body, options)) = message.split_first_chunk::<BODY>() else {
        return Err(DropReason::Malformed);
    };
    if ip.hop_limit() != HOP_LIMIT || body[1] != 0 {
        return Err(DropReason::Malformed);
    }
    icmpv6::verify(ip)?;
    let mut target = [0; 16];
    target.copy_from_slice(&body[8..]);
    let target = Ipv6Addr::from(target);
    if target.is_multicast() || ip.source().is_multicast() {
        return Err(DropReason::Malformed);
    }
    // 2. Each by its own rules.
    match body[0] {
        SOLICITATION => {
            let mac = link_layer(options, SOURCE_LINK_LAYER)?;
            let from_nobody = ip.source().is_unspecified();
            if from_nobody && (mac.is_some() || ip.destination() != solicited_node(target)) {
                return Err(DropReason::Malformed);
            }
            Ok(Message::Solicitation { target, mac })
        }
        ADVERTISEMENT => {
            let solicited = body[4] & SOLICITED != 0;
            if solicited && ip.destination().is_multicast() {
                return Err(DropReason::Malformed);
            }
            Ok(Message::Advertisement(Advertisement {
                target,
                mac: link_layer(options, TARGET_LINK_LAYER)?,
                solicited,
                overrides: body[4] & OVERRIDE != 0,
            }))
        }
        _ => Err(DropReason::NotForUs),
    }
}

/// The Ethernet address in the options, each of which must be longer than nothing.
fn link_layer(mut options: &[u8], wanted: u8) -> Result<Option<MacAddress>, DropReason> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        let option = match options.get(..length) {
            Some(option) if length > 0 => option,
            _ => return Err(DropReason::Malformed),
        };
        if kind == wanted && length == OPTION {
            found = option.get(2..).and_then(|mac| mac.first_chunk().copied());
        }
        options = options.get(length..).unwrap_or(&[]);
    }
    match options.is_empty() {
        true => Ok(found),
        false => Err(DropReason::Malformed),
    }
}

/// A solicitation, from one of our addresses, to the target's group or to the target itself.
pub fn solicitation(
    from: Ipv6Addr,
    to: Ipv6Addr,
    target: Ipv6Addr,
    mac: MacAddress,
) -> [u8; LENGTH] {
    message(from, to, (SOLICITATION, 0, SOURCE_LINK_LAYER), target, mac)
}

/// An advertisement of one of our addresses; routers say so.
pub fn advertisement(
    to: Ipv6Addr,
    target: Ipv6Addr,
    mac: MacAddress,
    solicited: bool,
) -> [u8; LENGTH] {
    let flags = ROUTER | OVERRIDE | if solicited { SOLICITED } else { 0 };
    message(
        target,
        to,
        (ADVERTISEMENT, flags, TARGET_LINK_LAYER),
        target,
        mac,
    )
}

fn message(
    from: Ipv6Addr,
    to: Ipv6Addr,
    (kind, flags, option): (u8, u8, u8),
    target: Ipv6Addr,
    mac: MacAddress,
) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    let (_, body) = packet.split_at_mut(ipv6::HEADER);
    (body[0], body[4]) = (kind, flags);
    body[8..BODY].copy_from_slice(&target.octets());
    body[BODY..BODY + 2].copy_from_slice(&[option, 1]);
    body[BODY + 2..].copy_from_slice(&mac);
    let written = ipv6::write(&mut packet, from, to, ipv6::ICMP, HOP_LIMIT);
    let sealed = icmpv6::seal(&mut packet, from, to);
    debug_assert!(
        written && sealed.is_some(),
        "the packet has its full length"
    );
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = [2, 0, 0, 0, 0, 9];

    fn addresses() -> [Ipv6Addr; 2] {
        [
            "2001:db8::1:2:3".parse().unwrap(),
            "2001:db8::9".parse().unwrap(),
        ]
    }

    fn read(packet: &[u8]) -> Result<Message, DropReason> {
        parse(Ipv6::parse(packet)?)
    }

    /// As [`read`], the checksum being made right first.
    fn read_sealed(packet: &[u8]) -> Result<Message, DropReason> {
        let mut packet = packet.to_vec();
        let ip = Ipv6::parse(&packet).unwrap();
        let (from, to) = (ip.source(), ip.destination());
        seal(&mut packet, from, to);
        read(&packet)
    }

    use crate::wire::icmpv6::seal;

    #[test]
    fn rfc4861_sections_4_3_and_4_4_layouts_survive_the_way() {
        let [target, us] = addresses();
        let group = solicited_node(target);
        assert_eq!(group, "ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap());
        let asked = Message::Solicitation {
            target,
            mac: Some(MAC),
        };
        assert_eq!(read(&solicitation(us, group, target, MAC)), Ok(asked));
        for solicited in [false, true] {
            let answer = Message::Advertisement(Advertisement {
                target,
                mac: Some(MAC),
                solicited,
                overrides: true,
            });
            assert_eq!(read(&advertisement(us, target, MAC, solicited)), Ok(answer));
        }
        let local: Ipv6Addr = "fe80::ff:fe00:9".parse().unwrap();
        assert_eq!(link_local(MAC), local, "RFC 2464 section 5");
    }

    #[test]
    fn rfc4861_section_7_1_only_neighbours_are_believed() {
        let [target, us] = addresses();
        for good in [
            solicitation(us, solicited_node(target), target, MAC),
            advertisement(us, target, MAC, true),
        ] {
            let bad = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut packet = good.to_vec();
                change(&mut packet);
                read_sealed(&packet).is_err()
            };
            assert!(!bad(&|_| ()));
            assert!(bad(&|packet| packet[7] = 254), "came through a router");
            assert!(bad(&|packet| packet[41] = 1), "code");
            assert!(bad(&|packet| packet[48] = 0xff), "target is a group");
            assert!(bad(&|packet| packet[8] = 0xff), "source is a group");
            assert!(bad(&|packet| packet[65] = 0), "an option of no length");
            assert!(bad(&|packet| packet[65] = 2), "an option beyond the end");
            assert!(
                bad(&|packet| {
                    packet.push(7);
                    packet[5] += 1;
                }),
                "half an option"
            );
            let without = |packet: &mut Vec<u8>| {
                packet.truncate(64);
                packet[5] = 24;
            };
            assert!(!bad(&without), "options are optional");
            let mut damaged = good;
            damaged[60] ^= 1;
            assert_eq!(read(&damaged), Err(DropReason::BadChecksum));
        }
    }

    #[test]
    fn rfc4861_section_7_1_1_who_has_no_address_yet_asks_the_group_and_names_none() {
        let [target, _] = addresses();
        let nobody = Ipv6Addr::UNSPECIFIED;
        let mut asked = solicitation(nobody, solicited_node(target), target, MAC).to_vec();
        assert!(read(&asked).is_err(), "names an Ethernet address");
        asked.truncate(64);
        asked[5] = 24;
        assert_eq!(
            read_sealed(&asked),
            Ok(Message::Solicitation { target, mac: None })
        );
        asked[24..40].copy_from_slice(&target.octets());
        assert!(read_sealed(&asked).is_err(), "not to the group");
        let claim = advertisement(ALL_NODES, target, MAC, true);
        assert!(
            read(&claim).is_err(),
            "RFC 4861 section 7.1.2: nobody asked"
        );
    }

    #[test]
    fn every_truncation_and_bit_flip_is_refused_or_harmless() {
        let [target, us] = addresses();
        let packet = advertisement(us, target, MAC, true);
        for length in 0..packet.len() {
            assert!(read(&packet[..length]).is_err(), "{length} octets");
            if length >= ipv6::HEADER {
                let mut cut = packet[..length].to_vec();
                cut[5] = (length - ipv6::HEADER) as u8;
                assert_eq!(read_sealed(&cut).is_ok(), length == 64, "{length} octets");
            }
        }
        for bit in 40 * 8..packet.len() * 8 {
            let mut flipped = packet;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
            let _ = read_sealed(&flipped);
        }
    }
}
