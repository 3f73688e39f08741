//! ICMP for IPv4 (RFC 792): echo for our own addresses, and the two errors that a tunnel must
//! send: fragmentation needed (RFC 1191) and time exceeded.

use std::net::Ipv4Addr;

use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::ipv4::{self, Ipv4};

/// Octets of the header.
pub const HEADER: usize = 8;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
/// Octets of the longest error: RFC 1812 section 4.3.2.3 wants as much of the offending packet
/// quoted as fits in 576 octets.
pub const ERROR_MAX: usize = 576;
const QUOTE: usize = ERROR_MAX - ipv4::HEADER - HEADER;

/// Whether the payload of an IP packet is an echo request.
pub fn is_echo_request(payload: &[u8]) -> bool {
    payload.len() >= HEADER && payload.first() == Some(&ECHO_REQUEST)
}

/// Turns an echo request into its reply in place (RFC 1122 section 3.2.2.6).
pub fn answer_echo(packet: &mut [u8]) -> Result<(), DropReason> {
    let ip = Ipv4::parse(packet)?;
    if ip.header_length() != ipv4::HEADER {
        return Err(DropReason::Unsupported);
    }
    if checksum(0, ip.payload()) != 0 {
        return Err(DropReason::BadChecksum);
    }
    let (from, to) = (ip.source(), ip.destination());
    if !ipv4::write(packet, to, from, ipv4::ICMP) {
        return Err(DropReason::Malformed);
    }
    let Some(message) = packet.get_mut(ipv4::HEADER..) else {
        return Err(DropReason::Malformed);
    };
    seal(message, ECHO_REPLY, 0)
}

/// Whether the message is an error that says that a packet was too big (RFC 1191 section 4).
pub fn is_fragmentation_needed(message: &[u8]) -> bool {
    message.starts_with(&[UNREACHABLE, FRAGMENTATION_NEEDED])
}

/// The MTU that such an error tells, 0 if it does not, and the start of the packet that it is about.
/// Nothing if it is damaged.
pub fn fragmentation_needed(message: &[u8]) -> Option<(u16, &[u8])> {
    let (header, quoted) = message.split_first_chunk::<HEADER>()?;
    let intact = is_fragmentation_needed(message) && checksum(0, message) == 0;
    intact.then_some((u16::from_be_bytes([header[6], header[7]]), quoted))
}

/// An error about a packet that cannot be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It is larger than what can go through, and must not be fragmented (RFC 1191, RFC 8201).
    TooBig { mtu: u16 },
    /// Its time to live ran out here.
    TimeExceeded,
}

/// Whether an error may be sent about this packet: never about an error, a later fragment, or
/// something that is not from one host (RFC 1812 section 4.3.2.7).
pub fn may_complain_about(packet: Ipv4<'_>) -> bool {
    let source = packet.source();
    let about_error = packet.protocol() == ipv4::ICMP
        && !matches!(packet.payload().first(), Some(&(ECHO_REQUEST | ECHO_REPLY)));
    !about_error
        && packet.is_first_fragment()
        && !(source.is_unspecified()
            || source.is_multicast()
            || source.is_broadcast()
            || source.is_loopback())
}

/// Writes the error about `offending` into `out`; the octets written.
pub fn write_error(
    out: &mut [u8],
    from: Ipv4Addr,
    offending: Ipv4<'_>,
    quote: &[u8],
    error: Error,
) -> Option<usize> {
    let quoted = quote.get(..quote.len().min(QUOTE))?;
    let length = ipv4::HEADER + HEADER + quoted.len();
    let packet = out.get_mut(..length)?;
    packet.get_mut(ipv4::HEADER..ipv4::HEADER + HEADER)?.fill(0);
    packet
        .get_mut(ipv4::HEADER + HEADER..)?
        .copy_from_slice(quoted);
    if !ipv4::write(packet, from, offending.source(), ipv4::ICMP) {
        return None;
    }
    let message = packet.get_mut(ipv4::HEADER..)?;
    match error {
        Error::TooBig { mtu } => {
            message.get_mut(6..8)?.copy_from_slice(&mtu.to_be_bytes());
            seal(message, UNREACHABLE, FRAGMENTATION_NEEDED).ok()?;
        }
        Error::TimeExceeded => seal(message, TIME_EXCEEDED, 0).ok()?,
    }
    Some(length)
}

/// Writes type, code and checksum.
fn seal(message: &mut [u8], kind: u8, code: u8) -> Result<(), DropReason> {
    let header = message
        .first_chunk_mut::<HEADER>()
        .ok_or(DropReason::Malformed)?;
    header[..4].copy_from_slice(&[kind, code, 0, 0]);
    let sum = checksum(0, message);
    if let Some(header) = message.first_chunk_mut::<HEADER>() {
        header[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Slice, Icmpv4Type, PacketBuilder};

    fn request() -> Vec<u8> {
        let mut octets = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 7], [192, 0, 2, 1], 9)
            .icmpv4_echo_request(0x1234, 5)
            .write(&mut octets, b"are you there?")
            .unwrap();
        octets
    }

    #[test]
    fn echo_reply_keeps_identifier_sequence_and_data_rfc_792() {
        let mut octets = request();
        let data = octets[28..].to_vec();
        answer_echo(&mut octets).unwrap();
        let ip = Ipv4::parse(&octets).unwrap();
        assert_eq!(ip.source(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(ip.destination(), Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(ip.ttl(), ipv4::INITIAL_TTL);
        assert_eq!(checksum(0, ip.payload()), 0);
        let icmp = Icmpv4Slice::from_slice(ip.payload()).unwrap();
        let Icmpv4Type::EchoReply(echo) = icmp.icmp_type() else {
            panic!("{:?}", icmp.icmp_type());
        };
        assert_eq!((echo.id, echo.seq), (0x1234, 5));
        assert_eq!(icmp.payload(), data);
    }

    #[test]
    fn a_damaged_echo_is_not_answered() {
        for bit in 20 * 8..request().len() * 8 {
            let mut octets = request();
            octets[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(answer_echo(&mut octets), Err(DropReason::BadChecksum));
        }
    }

    #[test]
    fn errors_quote_the_packet_and_carry_the_mtu_rfc_1191() {
        let offending = request();
        let ip = Ipv4::parse(&offending).unwrap();
        assert!(may_complain_about(ip));
        let mut out = [0xee; 600];
        let error = Error::TooBig { mtu: 1400 };
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let length = write_error(&mut out, from, ip, &offending, error).unwrap();
        let sent = Ipv4::parse(&out[..length]).unwrap();
        assert_eq!(sent.destination(), Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(checksum(0, sent.payload()), 0);
        assert_eq!(sent.payload()[..2], [3, 4]);
        assert_eq!(sent.payload()[6..8], 1400u16.to_be_bytes());
        assert_eq!(&sent.payload()[8..], offending);
        assert!(!may_complain_about(sent), "never an error about an error");
    }
}
