//! Clamping of TCP's maximum segment size: hosts at either end of a connection are told to send
//! segments that fit the tunnel, where errors about packets that are too big may not reach them
//! (RFC 4459 section 3.2, RFC 9293 section 3.7.1).

use hitless_sa::MssClamp;

use crate::wire::ip::Ip;
use crate::wire::{ipv4, ipv6};

/// Octets of a TCP header without options.
const TCP: usize = 20;
const SYN: u8 = 0x02;
const CHECKSUM: usize = 16;
/// Kinds of options.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// What everybody must take (RFC 9293 section 3.7.1); never less.
const LEAST: u16 = 536;

/// Lowers the option in a packet that opens a connection, if it announces more than what is
/// configured, or than what fits into packets of `fits` octets. Other packets stay as they are.
#[inline]
pub(crate) fn clamp(packet: &mut [u8], setting: MssClamp, fits: usize) {
    if setting != MssClamp::None {
        clamp_opening(packet, setting, fits);
    }
}

/// Whether a packet opens a connection: only there the option counts.
#[inline]
pub(crate) fn opens(packet: &[u8]) -> bool {
    opening(packet).is_some()
}

/// Where the TCP header with SYN begins, and how long the IP header of such a connection is.
fn opening(packet: &[u8]) -> Option<(usize, usize)> {
    let (start, headers) = match Ip::parse(packet).ok()? {
        Ip::V4(ip) => {
            let tcp = ip.protocol() == ipv4::TCP && ip.is_first_fragment();
            tcp.then_some((ip.header_length(), ipv4::HEADER))?
        }
        Ip::V6(ip) => {
            let upper = ip.upper().ok()?;
            let whole = upper.fragment.is_none_or(|part| part.position == 0);
            (upper.protocol == ipv4::TCP && whole).then_some((upper.offset, ipv6::HEADER))?
        }
    };
    let header: &[u8; TCP] = packet.get(start..)?.first_chunk()?;
    (header[13] & SYN != 0).then_some((start, headers))
}

fn clamp_opening(packet: &mut [u8], setting: MssClamp, fits: usize) -> Option<()> {
    // 1. TCP, with SYN.
    let (start, headers) = opening(packet)?;
    let segment = packet.get_mut(start..)?;
    let header: &[u8; TCP] = segment.first_chunk()?;
    let end = usize::from(header[12] >> 4) * 4;
    // 2. The most that is wanted.
    let most = match setting {
        MssClamp::None => return None,
        MssClamp::To(most) => most,
        MssClamp::ToMtu => u16::try_from(fits.saturating_sub(headers + TCP)).unwrap_or(u16::MAX),
    };
    // 3. The option.
    let mut at = TCP;
    while at < end {
        match *segment.get(at..end.min(segment.len()))? {
            [END, ..] => return None,
            [NO_OPERATION, ..] => at += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, high, low, ..] => {
                let (old, new) = (u16::from_be_bytes([high, low]), most.max(LEAST));
                return (old > new).then(|| replace(segment, at + 2, old, new))?;
            }
            [_, length, ..] if length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
    None
}

/// Replaces a 16-bit value and corrects the checksum (RFC 1624 section 3, equation 3).
fn replace(segment: &mut [u8], at: usize, old: u16, new: u16) -> Option<()> {
    segment
        .get_mut(at..at + 2)?
        .copy_from_slice(&new.to_be_bytes());
    // A value at an odd place counts with its octets swapped in the sum (RFC 1071 section 2).
    let (old, new) = match at % 2 {
        0 => (old, new),
        _ => (old.swap_bytes(), new.swap_bytes()),
    };
    let field = segment.get_mut(CHECKSUM..CHECKSUM + 2)?;
    let sum = u16::from_be_bytes([*field.first()?, *field.get(1)?]);
    let sum = u32::from(!sum) + u32::from(!old) + u32::from(new);
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !((folded + (folded >> 16)) as u16);
    field.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    /// A packet that opens a connection, with these options.
    fn opening(v6: bool, options: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        match v6 {
            false => PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 9)
                .tcp(1000, 80, 77, 1024)
                .syn()
                .options_raw(options)
                .unwrap()
                .write(&mut packet, b""),
            true => PacketBuilder::ipv6([0x20; 16], [0x30; 16], 9)
                .tcp(1000, 80, 77, 1024)
                .syn()
                .options_raw(options)
                .unwrap()
                .write(&mut packet, b""),
        }
        .unwrap();
        packet
    }

    /// The option as another implementation reads it, the checksum being right.
    fn mss(packet: &[u8]) -> Option<u16> {
        use etherparse::{IpSlice, SlicedPacket, TransportSlice};
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
            panic!("no TCP");
        };
        let right = match IpSlice::from_slice(packet).unwrap() {
            IpSlice::Ipv4(ip) => {
                let header = ip.header();
                tcp.calc_checksum_ipv4(header.source(), header.destination())
            }
            IpSlice::Ipv6(ip) => {
                let header = ip.header();
                tcp.calc_checksum_ipv6(header.source(), header.destination())
            }
        };
        assert_eq!(tcp.checksum(), right.unwrap());
        tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        })
    }

    const AT_ODD: [u8; 8] = [NO_OPERATION, 2, 4, 0x05, 0xb4, 1, 1, 0];
    const FIRST: [u8; 4] = [2, 4, 0x05, 0xb4];

    #[test]
    fn rfc4459_section_3_2_segments_are_told_to_fit_in_both_families() {
        for (v6, fits) in [(false, 1406), (true, 1426)] {
            for options in [&FIRST[..], &AT_ODD] {
                let mut packet = opening(v6, options);
                clamp(&mut packet, MssClamp::ToMtu, fits);
                assert_eq!(mss(&packet), Some(1366));
                clamp(&mut packet, MssClamp::To(1300), fits);
                assert_eq!(mss(&packet), Some(1300));
                // Never up, and never below what everybody must take.
                clamp(&mut packet, MssClamp::To(1400), fits);
                assert_eq!(mss(&packet), Some(1300));
                clamp(&mut packet, MssClamp::To(10), fits);
                assert_eq!(mss(&packet), Some(LEAST));
            }
        }
    }

    #[test]
    fn only_what_opens_a_connection_is_changed() {
        let untouched = |packet: &[u8]| {
            let mut clamped = packet.to_vec();
            clamp(&mut clamped, MssClamp::To(600), 1400);
            clamped == packet
        };
        let syn = opening(false, &FIRST);
        assert!(!untouched(&syn));
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = syn.clone();
            change(&mut packet);
            let header = packet.len().min(20);
            packet[10..12].fill(0);
            let sum = crate::wire::checksum(0, &packet[..header]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            !untouched(&packet)
        };
        assert!(!changed(&|packet| packet[33] = 0x10), "ACK");
        assert!(!changed(&|packet| packet[9] = 17), "UDP");
        assert!(!changed(&|packet| packet[7] = 1), "a later fragment");
        assert!(!changed(&|packet| packet[40] = END));
        assert!(!changed(&|packet| packet[41] = 0), "an option of no length");
        assert!(!changed(&|packet| packet[41] = 6), "beyond the end");
        assert!(!changed(&|packet| packet[32] = 0x40), "header too short");
        let mut unset = syn.clone();
        clamp(&mut unset, MssClamp::None, 100);
        assert_eq!(unset, syn);
    }

    proptest! {
        #[test]
        fn whatever_the_options_are_the_checksum_stays_right(
            v6: bool, options in prop::collection::vec(0u8..8, 0..10), setting in 0u16..2000,
        ) {
            let raw: Vec<u8> = options.iter().flat_map(|&kind| [kind, 4, 0x05, 0xb4]).collect();
            let mut packet = opening(v6, &raw);
            clamp(&mut packet, MssClamp::To(setting), 1400);
            let _ = mss(&packet);
        }
    }
}
