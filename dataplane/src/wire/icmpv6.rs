//! ICMP for IPv6 (RFC 4443): echo for our own addresses, and the two errors that a tunnel must
//! send: packet too big and time exceeded.

use std::net::Ipv6Addr;

use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::icmp::Error;
use crate::wire::ip::pseudo_header;
use crate::wire::ipv6::{self, INITIAL_HOP_LIMIT, Ipv6};

/// Octets of the header.
pub const HEADER: usize = 8;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
/// Types below this are errors (RFC 4443 section 2.1).
const FIRST_INFORMATIONAL: u8 = 128;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const REDIRECT: u8 = 137;
/// Octets of the longest error (RFC 4443 section 2.4, rule c).
pub const ERROR_MAX: usize = ipv6::MINIMUM_MTU;
const QUOTE: usize = ERROR_MAX - ipv6::HEADER - HEADER;

/// Whether the message is an echo request.
pub fn is_echo_request(message: &[u8]) -> bool {
    message.len() >= HEADER && message.first() == Some(&ECHO_REQUEST)
}

/// Whether the message is one of neighbour discovery: router and neighbour solicitations and
/// advertisements, redirects (RFC 4861 section 4).
pub fn is_discovery(message: &[u8]) -> bool {
    matches!(message.first(), Some(133..=REDIRECT))
}

/// Moves the IPv6 header over the octets of extension headers that follow it: the packet then begins
/// so many octets later, with the message right behind its header.
pub fn strip_extensions(packet: &mut [u8], octets: usize) -> Option<()> {
    packet.get(..ipv6::HEADER + octets)?;
    packet.copy_within(..ipv6::HEADER, octets);
    let packet = packet.get_mut(octets..)?;
    let payload = u16::try_from(packet.len() - ipv6::HEADER).ok()?;
    packet
        .get_mut(4..6)?
        .copy_from_slice(&payload.to_be_bytes());
    *packet.get_mut(6)? = ipv6::ICMP;
    Some(())
}

/// Turns an echo request into its reply in place (RFC 4443 section 4.2).
pub fn answer_echo(packet: &mut [u8]) -> Result<(), DropReason> {
    let ip = Ipv6::parse(packet)?;
    if ip.next_header() != ipv6::ICMP {
        return Err(DropReason::Unsupported);
    }
    let (from, to) = (ip.source(), ip.destination());
    verify(ip)?;
    if !ipv6::write(packet, to, from, ipv6::ICMP, INITIAL_HOP_LIMIT) {
        return Err(DropReason::Malformed);
    }
    if let Some(kind) = packet.get_mut(ipv6::HEADER) {
        *kind = ECHO_REPLY;
    }
    seal(packet, to, from).ok_or(DropReason::Malformed)
}

/// Checks the checksum of a message right behind its IPv6 header.
pub fn verify(ip: Ipv6<'_>) -> Result<(), DropReason> {
    let message = ip.payload();
    let (from, to) = (ip.source().into(), ip.destination().into());
    match checksum(pseudo_header(from, to, ipv6::ICMP, message.len()), message) {
        0 => Ok(()),
        _ => Err(DropReason::BadChecksum),
    }
}

/// Writes the checksum of a message right behind its IPv6 header.
pub fn seal(packet: &mut [u8], from: Ipv6Addr, to: Ipv6Addr) -> Option<()> {
    let message = packet.get_mut(ipv6::HEADER..)?;
    message.get_mut(2..4)?.fill(0);
    let sum = pseudo_header(from.into(), to.into(), ipv6::ICMP, message.len());
    let sum = checksum(sum, message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Whether the message is an error that says that a packet was too big (RFC 4443 section 3.2).
pub fn is_packet_too_big(message: &[u8]) -> bool {
    message.first() == Some(&PACKET_TOO_BIG)
}

/// The MTU that such an error tells, and the start of the packet that it is about.
pub fn packet_too_big(message: &[u8]) -> Option<(u32, &[u8])> {
    let (header, quoted) = message.split_first_chunk::<HEADER>()?;
    let [kind, _, _, _, a, b, c, d] = *header;
    (kind == PACKET_TOO_BIG).then_some((u32::from_be_bytes([a, b, c, d]), quoted))
}

/// Whether an error may be sent about this packet: never about an error or a redirect, nor about
/// something that is not from one host or not to one (RFC 4443 section 2.4, rule e).
pub fn may_complain_about(packet: Ipv6<'_>) -> bool {
    let (source, destination) = (packet.source(), packet.destination());
    // What cannot be read to its end may be an error.
    let Ok(upper) = packet.upper() else {
        return false;
    };
    let later = upper.fragment.is_some_and(|part| part.position > 0);
    let about_error = upper.protocol == ipv6::ICMP
        && match packet.from(upper.offset).first() {
            Some(kind) if !later => *kind < FIRST_INFORMATIONAL || *kind == REDIRECT,
            _ => true,
        };
    let no_host = source.is_unspecified() || source.is_multicast() || source.is_loopback();
    !(about_error || no_host || destination.is_multicast())
}

/// Writes the error about `offending` into `out`; the octets written.
pub fn write_error(
    out: &mut [u8],
    from: Ipv6Addr,
    offending: Ipv6<'_>,
    quote: &[u8],
    error: Error,
) -> Option<usize> {
    let quoted = quote.get(..quote.len().min(QUOTE))?;
    let length = ipv6::HEADER + HEADER + quoted.len();
    let packet = out.get_mut(..length)?;
    let (kind, value) = match error {
        // RFC 8200 section 5: no path is narrower than that.
        Error::TooBig { mtu } => (PACKET_TOO_BIG, u32::from(mtu).max(ipv6::MINIMUM_MTU as u32)),
        Error::TimeExceeded => (TIME_EXCEEDED, 0),
    };
    let header = packet.get_mut(ipv6::HEADER..ipv6::HEADER + HEADER)?;
    header[..4].copy_from_slice(&[kind, 0, 0, 0]);
    header[4..].copy_from_slice(&value.to_be_bytes());
    packet
        .get_mut(ipv6::HEADER + HEADER..)?
        .copy_from_slice(quoted);
    let to = offending.source();
    let written = ipv6::write(packet, from, to, ipv6::ICMP, INITIAL_HOP_LIMIT);
    seal(packet, from, to)?;
    written.then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Slice, Icmpv6Type, PacketBuilder};

    const THEM: [u8; 16] = [0x20; 16];
    const US: [u8; 16] = [0x30; 16];

    fn request(data: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        PacketBuilder::ipv6(THEM, US, 9)
            .icmpv6_echo_request(0x1234, 5)
            .write(&mut octets, data)
            .unwrap();
        octets
    }

    #[test]
    fn rfc4443_section_4_2_echo_reply_keeps_identifier_sequence_and_data() {
        let mut octets = request(b"are you there?");
        answer_echo(&mut octets).unwrap();
        let ip = Ipv6::parse(&octets).unwrap();
        assert_eq!((ip.source(), ip.destination()), (US.into(), THEM.into()));
        assert_eq!(ip.hop_limit(), INITIAL_HOP_LIMIT);
        assert_eq!(verify(ip), Ok(()));
        let icmp = Icmpv6Slice::from_slice(ip.payload()).unwrap();
        let Icmpv6Type::EchoReply(echo) = icmp.icmp_type() else {
            panic!("{:?}", icmp.icmp_type());
        };
        assert_eq!((echo.id, echo.seq), (0x1234, 5));
        assert_eq!(icmp.payload(), b"are you there?");
    }

    #[test]
    fn a_damaged_echo_is_not_answered() {
        for bit in 40 * 8..request(b"data").len() * 8 {
            let mut octets = request(b"data");
            octets[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(answer_echo(&mut octets), Err(DropReason::BadChecksum));
        }
    }

    #[test]
    fn rfc4443_section_3_errors_quote_the_packet_and_carry_the_mtu() {
        let offending = request(&[7; 2000]);
        let ip = Ipv6::parse(&offending).unwrap();
        assert!(may_complain_about(ip));
        let mut out = [0xee; 1400];
        for (error, kind, value) in [
            (Error::TooBig { mtu: 1400 }, 2, 1400u32),
            (Error::TooBig { mtu: 900 }, 2, 1280),
            (Error::TimeExceeded, 3, 0),
        ] {
            let length = write_error(&mut out, US.into(), ip, &offending, error).unwrap();
            assert_eq!(length, 1280, "RFC 4443 section 2.4 c");
            let sent = Ipv6::parse(&out[..length]).unwrap();
            assert_eq!(
                (sent.source(), sent.destination()),
                (US.into(), THEM.into())
            );
            assert_eq!(verify(sent), Ok(()));
            assert_eq!(sent.payload()[..2], [kind, 0]);
            assert_eq!(sent.payload()[4..8], value.to_be_bytes());
            assert_eq!(sent.payload()[8..], offending[..1280 - 48]);
            assert!(!may_complain_about(sent), "never an error about an error");
        }
    }

    #[test]
    fn rfc4443_section_2_4_e_nobody_is_told_about_errors_redirects_and_groups() {
        let about = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut octets = request(b"x");
            change(&mut octets);
            may_complain_about(Ipv6::parse(&octets).unwrap())
        };
        assert!(about(&|_| ()));
        assert!(!about(&|octets| octets[40] = 1));
        assert!(!about(&|octets| octets[40] = REDIRECT));
        assert!(!about(&|octets| octets[24] = 0xff), "to a group");
        assert!(!about(&|octets| octets[8] = 0xff), "from a group");
        assert!(!about(&|octets| octets[8..24].fill(0)), "from nobody");
        // A later fragment of ICMP may be an error's.
        assert!(!about(&|octets| {
            octets.splice(40..40, [ipv6::ICMP, 0, 0, 8, 0, 0, 0, 1]);
            (octets[5], octets[6]) = (octets[5] + 8, ipv6::FRAGMENT);
        }));
    }
}
