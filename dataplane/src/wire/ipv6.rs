//! IPv6 headers and the extension headers behind them (RFC 8200).

use std::net::Ipv6Addr;

use crate::verdict::DropReason;

/// Octets of the fixed header.
pub const HEADER: usize = 40;
/// The MTU that every link must have (RFC 8200 section 5).
pub const MINIMUM_MTU: usize = 1280;
/// Next header values that hitless treats by name.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ICMP: u8 = 58;
pub const DESTINATION: u8 = 60;
pub const IPV6: u8 = 41;
pub const NO_NEXT_HEADER: u8 = 59;
/// Octets of a fragment header.
pub const FRAGMENT_HEADER: usize = 8;
/// Hop limit of packets that start here.
pub const INITIAL_HOP_LIMIT: u8 = 64;

/// Extension headers that are walked over; a packet with more is refused.
pub const MAX_EXTENSIONS: usize = 8;

/// A checked header: version 6, a payload length that fits the octets given.
#[derive(Clone, Copy)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER],
    octets: &'a [u8],
}

/// What lies behind the extension headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    pub protocol: u8,
    /// Where it begins in the packet.
    pub offset: usize,
    /// Set if the packet is a part of a larger one; then `offset` is where the part begins.
    pub fragment: Option<Fragment>,
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Where the header begins in the packet.
    pub at: usize,
    /// Where in the packet its next header's number stands: the header before it.
    pub named_at: usize,
    /// Octets of the whole in front of this part.
    pub position: usize,
    pub more: bool,
    pub identification: u32,
}

impl<'a> Ipv6<'a> {
    /// Checks the header. What lies behind the payload length is not part of the packet. Jumbograms
    /// (RFC 2675) do not pass: their length reads as zero.
    pub fn parse(octets: &'a [u8]) -> Result<Ipv6<'a>, DropReason> {
        let header: &[u8; HEADER] = octets.first_chunk().ok_or(DropReason::Malformed)?;
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let octets = octets
            .get(..HEADER + payload)
            .ok_or(DropReason::Malformed)?;
        Ok(Ipv6 { header, octets })
    }

    /// Octets of the packet.
    pub fn total_length(self) -> usize {
        self.octets.len()
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    pub fn traffic_class(self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// The flow label (RFC 6437).
    pub fn flow_label(self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0f, self.header[2], self.header[3]])
    }

    /// What follows the fixed header.
    pub fn next_header(self) -> u8 {
        self.header[6]
    }

    /// Hops left.
    pub fn hop_limit(self) -> u8 {
        self.header[7]
    }

    /// Source address.
    pub fn source(self) -> Ipv6Addr {
        address(self.header, 8)
    }

    /// Destination address.
    pub fn destination(self) -> Ipv6Addr {
        address(self.header, 24)
    }

    /// All that follows the fixed header.
    pub fn payload(self) -> &'a [u8] {
        self.octets.get(HEADER..).unwrap_or(&[])
    }

    /// The packet from an offset on.
    pub fn from(self, offset: usize) -> &'a [u8] {
        self.octets.get(offset..).unwrap_or(&[])
    }

    /// Walks over the extension headers as their destination must (RFC 8200 section 4), up to a
    /// fragment's content or the first header that is none of them.
    ///
    /// Refuses what it may not ignore: options whose type says so (section 4.2), routing headers
    /// with segments left (RFC 5095), hop-by-hop options that do not come first (section 4.3).
    pub fn upper(self) -> Result<Upper, DropReason> {
        let (mut protocol, mut offset, mut named_at) = (self.next_header(), HEADER, 6);
        for position in 0..=MAX_EXTENSIONS {
            let rest = self.from(offset);
            let length = match protocol {
                HOP_BY_HOP if position > 0 => return Err(DropReason::Malformed),
                HOP_BY_HOP | DESTINATION => {
                    let header = extension(rest)?;
                    check_options(header)?;
                    header.len()
                }
                ROUTING => {
                    let header = extension(rest)?;
                    if header.get(3) != Some(&0) {
                        return Err(DropReason::Unsupported);
                    }
                    header.len()
                }
                FRAGMENT => {
                    let fragment = fragment(rest, offset, named_at)?;
                    // RFC 6946: one that is whole is no fragment.
                    if fragment.more || fragment.position > 0 {
                        return Ok(Upper {
                            protocol: *rest.first().ok_or(DropReason::Malformed)?,
                            offset: offset + FRAGMENT_HEADER,
                            fragment: Some(fragment),
                        });
                    }
                    FRAGMENT_HEADER
                }
                _ => {
                    return Ok(Upper {
                        protocol,
                        offset,
                        fragment: None,
                    });
                }
            };
            protocol = *rest.first().ok_or(DropReason::Malformed)?;
            named_at = offset;
            offset += length;
        }
        Err(DropReason::Malformed)
    }
}

fn address(header: &[u8; HEADER], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    octets.into()
}

/// An extension header in units of eight octets after the first eight (RFC 8200 section 4).
fn extension(octets: &[u8]) -> Result<&[u8], DropReason> {
    let units = octets.get(1).ok_or(DropReason::Malformed)?;
    let length = (usize::from(*units) + 1) * 8;
    octets.get(..length).ok_or(DropReason::Malformed)
}

/// Options that we know none of: those may be skipped whose type's first two bits are zero
/// (RFC 8200 section 4.2).
fn check_options(header: &[u8]) -> Result<(), DropReason> {
    let mut options = header.get(2..).unwrap_or(&[]);
    loop {
        options = match options {
            [] => return Ok(()),
            [0, rest @ ..] => rest,
            [kind, ..] if kind & 0xc0 != 0 => return Err(DropReason::Unsupported),
            [_, length, rest @ ..] => rest
                .get(usize::from(*length)..)
                .ok_or(DropReason::Malformed)?,
            [_] => return Err(DropReason::Malformed),
        };
    }
}

fn fragment(octets: &[u8], at: usize, named_at: usize) -> Result<Fragment, DropReason> {
    let header: &[u8; FRAGMENT_HEADER] = octets.first_chunk().ok_or(DropReason::Malformed)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    Ok(Fragment {
        at,
        named_at,
        position: usize::from(field & 0xfff8),
        more: field & 1 == 1,
        identification: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
    })
}

/// Takes one off the hop limit. False if it would reach zero; then the packet is as it was.
#[must_use]
pub fn decrement_hop_limit(packet: &mut [u8]) -> bool {
    match packet.get_mut(7) {
        Some(hops) if *hops > 1 => {
            *hops -= 1;
            true
        }
        _ => false,
    }
}

/// Writes a fixed header for a packet that starts here. False if it does not fit.
#[must_use]
pub fn write(
    packet: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    hop_limit: u8,
) -> bool {
    let Some(Ok(payload)) = packet.len().checked_sub(HEADER).map(u16::try_from) else {
        return false;
    };
    let Some(header) = packet.first_chunk_mut::<HEADER>() else {
        return false;
    };
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&payload.to_be_bytes());
    header[6] = next_header;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// IPv6 with these headers in front of UDP.
    fn packet(extensions: &[(u8, &[u8])]) -> Vec<u8> {
        let mut octets = vec![0; HEADER];
        let mut named_at = 6;
        for (kind, body) in extensions {
            octets[named_at] = *kind;
            named_at = octets.len();
            octets.push(0);
            octets.extend_from_slice(body);
        }
        octets[named_at] = 17;
        octets.extend_from_slice(&[0, 7, 0, 9, 0, 8, 0, 0]);
        let next = octets[6];
        let (from, to) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        assert!(write(&mut octets, from, to, next, 9));
        octets
    }

    fn upper(octets: &[u8]) -> Result<Upper, DropReason> {
        Ipv6::parse(octets)?.upper()
    }

    const PADDED: &[u8] = &[0, 1, 4, 0, 0, 0, 0];

    #[test]
    fn reads_what_another_implementation_wrote() {
        let mut octets = Vec::new();
        let (from, to) = ([0x20; 16], [0x30; 16]);
        etherparse::PacketBuilder::ipv6(from, to, 7)
            .udp(1, 2)
            .write(&mut octets, b"payload")
            .unwrap();
        octets.extend_from_slice(b"padding");
        let ip = Ipv6::parse(&octets).unwrap();
        assert_eq!((ip.source(), ip.destination()), (from.into(), to.into()));
        assert_eq!((ip.hop_limit(), ip.next_header()), (7, 17));
        assert_eq!((ip.payload().len(), ip.total_length()), (15, 55));
        assert!(decrement_hop_limit(&mut octets));
        assert_eq!(octets[7], 6);
        octets[7] = 1;
        assert!(!decrement_hop_limit(&mut octets));
        assert_eq!(octets[7], 1);
    }

    #[test]
    fn rfc8200_section_4_extension_headers_are_walked_over() {
        let whole = |offset| {
            Ok(Upper {
                protocol: 17,
                offset,
                fragment: None,
            })
        };
        assert_eq!(upper(&packet(&[])), whole(40));
        let routing: &[u8] = &[0, 4, 0, 0, 0, 0, 0];
        let chain = [
            (HOP_BY_HOP, PADDED),
            (ROUTING, routing),
            (DESTINATION, PADDED),
        ];
        assert_eq!(upper(&packet(&chain)), whole(64));
        // RFC 6946: an atomic fragment is whole.
        let atomic: &[u8] = &[0, 0, 0, 1, 2, 3, 4];
        assert_eq!(upper(&packet(&[(FRAGMENT, atomic)])), whole(48));
    }

    #[test]
    fn rfc8200_section_4_5_a_fragment_says_where_it_belongs() {
        let body: &[u8] = &[0, 0x05, 0xa9, 1, 2, 3, 4];
        let chain = [(DESTINATION, PADDED), (FRAGMENT, body)];
        let fragment = Fragment {
            at: 48,
            named_at: 40,
            position: 0x05a8,
            more: true,
            identification: 0x0102_0304,
        };
        let expected = Upper {
            protocol: 17,
            offset: 56,
            fragment: Some(fragment),
        };
        assert_eq!(upper(&packet(&chain)), Ok(expected));
    }

    #[test]
    fn what_may_not_be_ignored_is_refused() {
        let refused = |chain: &[(u8, &[u8])]| upper(&packet(chain)).err();
        let unsupported = Some(DropReason::Unsupported);
        // RFC 5095: segments left.
        assert_eq!(refused(&[(ROUTING, &[0, 0, 1, 0, 0, 0, 0])]), unsupported);
        // RFC 8200 section 4.2: 00 is skipped, the others are not.
        assert_eq!(refused(&[(DESTINATION, &[0, 0x1e, 4, 0, 0, 0, 0])]), None);
        for kind in [0x40, 0x80, 0xc2] {
            assert_eq!(
                refused(&[(DESTINATION, &[0, kind, 4, 0, 0, 0, 0])]),
                unsupported
            );
        }
        let malformed = Some(DropReason::Malformed);
        assert_eq!(refused(&[(DESTINATION, &[0, 1, 5, 0, 0, 0, 0])]), malformed);
        assert_eq!(
            refused(&[(DESTINATION, PADDED), (HOP_BY_HOP, PADDED)]),
            malformed
        );
        assert_eq!(refused(&[(DESTINATION, PADDED); 9]), malformed);
        assert_eq!(refused(&[(DESTINATION, PADDED); 8]), None);
    }

    #[test]
    fn every_truncation_is_refused() {
        let octets = packet(&[(HOP_BY_HOP, PADDED), (DESTINATION, PADDED)]);
        for length in 0..octets.len() {
            assert!(Ipv6::parse(&octets[..length]).is_err(), "{length} octets");
        }
        // And if the length field agrees, a header that goes beyond the end is.
        for length in HEADER..octets.len() {
            let mut cut = octets[..length].to_vec();
            cut[4..6].copy_from_slice(&((length - HEADER) as u16).to_be_bytes());
            assert_eq!(upper(&cut).is_ok(), length >= 56, "{length} octets");
        }
    }

    proptest! {
        #[test]
        fn random_octets_never_panic(mut octets in prop::collection::vec(any::<u8>(), 40..120),
                                     next in prop::sample::select(vec![0u8, 43, 44, 60])) {
            (octets[0], octets[6]) = (0x60, next);
            let payload = (octets.len() - HEADER) as u16;
            octets[4..6].copy_from_slice(&payload.to_be_bytes());
            if let Ok(found) = upper(&octets) {
                prop_assert!(found.offset <= octets.len());
            }
        }
    }
}
