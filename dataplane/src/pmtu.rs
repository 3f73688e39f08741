//! What ICMP tells of the way of our own ESP packets (RFC 4301 section 8.2, RFC 1191, RFC 8201).
//!
//! Anybody may send such an error, so it is believed only if it quotes an SA of ours, if what it
//! says is possible, and not for ever.

use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::{Instant, Spi};

use crate::sync::{AtomicU64, Ordering};
use crate::wire::icmp;
use crate::wire::icmpv6;
use crate::wire::ip::Ip;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::udp;

/// How long a value is believed (RFC 1191 section 6.3, RFC 8201 section 5.3).
const BELIEVED: Duration = Duration::from_secs(600);
/// Less than this no real IPv4 path has: whoever says so wants us to crawl.
const LEAST_V4: usize = 576;
/// The MTUs that there are, for routers that do not tell theirs (RFC 1191 section 7.1).
const PLATEAUS: [usize; 7] = [17_914, 8166, 4352, 2002, 1492, 1006, LEAST_V4];

/// The path MTU of one SA, as far as it is less than the first link's: for all workers that send on
/// it, whichever of them the error came to.
///
/// One word, so that no worker ever sees half of it: in its low 16 bits the MTU, above them the
/// millisecond until which it is believed. 0 says that nothing is known.
#[derive(Default, Debug)]
pub struct PathMtu(AtomicU64);

impl PathMtu {
    /// The largest packet that goes through, by what is believed now, on a way that begins with a
    /// link of this MTU.
    #[inline]
    pub fn limit(&self, link: usize, now: Instant) -> usize {
        match self.0.load(Ordering::Relaxed) {
            0 => link,
            word => in_force(word, link, now),
        }
    }

    /// Takes what an error says. False if it is not to be believed: more than goes out anyway, or
    /// less than any path has.
    pub fn learn(&self, told: usize, ipv6: bool, link: usize, now: Instant) -> bool {
        let least = if ipv6 { ipv6::MINIMUM_MTU } else { LEAST_V4 };
        let Ok(mtu) = u16::try_from(told) else {
            return false;
        };
        let word = milliseconds(now + BELIEVED) << 16 | u64::from(mtu);
        let lower = |known| {
            (least..in_force(known, link, now))
                .contains(&told)
                .then_some(word)
        };
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, read, lower).is_ok()
    }

    /// Forgets what it has learnt: the packets go another way.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn in_force(word: u64, link: usize, now: Instant) -> usize {
    match milliseconds(now) < word >> 16 {
        true => link.min((word & 0xffff) as usize),
        false => link,
    }
}

/// Of the clock, whose nanoseconds fill 64 bits: these fit into 48.
fn milliseconds(instant: Instant) -> u64 {
    instant.0 / 1_000_000
}

/// An error that says that a packet of ours was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig {
    pub mtu: usize,
    /// The addresses of the packet that it quotes.
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Its UDP ports, if it has any.
    pub ports: Option<(u16, u16)>,
    pub spi: Spi,
}

impl TooBig {
    /// Reads an error, if it is undamaged and quotes ESP.
    pub fn parse(packet: &[u8]) -> Option<TooBig> {
        match Ip::parse(packet).ok()? {
            Ip::V4(ip) => TooBig::parse_v4(ip),
            Ip::V6(ip) => TooBig::parse_v6(ip),
        }
    }

    fn parse_v4(ip: Ipv4<'_>) -> Option<TooBig> {
        let (mtu, quoted) = icmp::fragmentation_needed(ip.payload())?;
        let quoted = ipv4::Quoted::parse(quoted)?;
        let mtu = match mtu {
            0 => {
                let mut plateaus = PLATEAUS.into_iter();
                plateaus.find(|mtu| *mtu < quoted.total_length)?
            }
            mtu => usize::from(mtu),
        };
        let (ports, spi) = spi(quoted.protocol, quoted.payload)?;
        Some(TooBig {
            mtu,
            source: quoted.source.into(),
            destination: quoted.destination.into(),
            ports,
            spi,
        })
    }

    fn parse_v6(ip: Ipv6<'_>) -> Option<TooBig> {
        icmpv6::verify(ip).ok()?;
        let (mtu, quoted) = icmpv6::packet_too_big(ip.payload())?;
        // As we send it: ESP or UDP right behind the header, or a fragment header between.
        let (header, mut payload) = quoted.split_first_chunk::<{ ipv6::HEADER }>()?;
        let mut whole = *header;
        whole[4..6].fill(0);
        let header = Ipv6::parse(&whole).ok()?;
        let mut protocol = header.next_header();
        if protocol == ipv6::FRAGMENT {
            let (fragment, rest) = payload.split_first_chunk::<{ ipv6::FRAGMENT_HEADER }>()?;
            if fragment[2] != 0 || fragment[3] & 0xf8 != 0 {
                return None;
            }
            (protocol, payload) = (fragment[0], rest);
        }
        let (ports, spi) = spi(protocol, payload)?;
        Some(TooBig {
            mtu: usize::try_from(mtu).unwrap_or(usize::MAX),
            source: header.source().into(),
            destination: header.destination().into(),
            ports,
            spi,
        })
    }
}

/// Ports and SPI at the start of a quoted payload, of which there may be no more.
fn spi(protocol: u8, payload: &[u8]) -> Option<(Option<(u16, u16)>, Spi)> {
    let (ports, esp) = match protocol {
        ipv4::ESP => (None, payload),
        ipv4::UDP => {
            let (header, esp) = payload.split_first_chunk::<{ udp::HEADER }>()?;
            let [s0, s1, d0, d1, ..] = *header;
            let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            (Some(ports), esp)
        }
        _ => return None,
    };
    let spi = Spi(u32::from_be_bytes(*esp.first_chunk()?));
    Some((ports, spi))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn rfc4301_section_8_2_2_a_value_ages() {
        let path = PathMtu::default();
        assert_eq!(path.limit(1500, at(0)), 1500);
        assert!(path.learn(1400, false, 1500, at(0)));
        assert_eq!(path.limit(1500, at(599)), 1400);
        assert_eq!(path.limit(1300, at(599)), 1300);
        assert_eq!(path.limit(1500, at(600)), 1500);
        assert!(path.learn(1400, false, 1500, at(601)), "and is learnt anew");
    }

    #[test]
    fn rfc4301_section_8_2_implausible_values_are_not_believed() {
        let path = PathMtu::default();
        for told in [0, 68, 575, 1500, 9000, usize::MAX] {
            assert!(!path.learn(told, false, 1500, at(0)), "{told}");
        }
        // RFC 8201 section 4: never below the IPv6 minimum.
        assert!(!path.learn(1279, true, 1500, at(0)));
        assert_eq!(path.limit(1500, at(0)), 1500);
        assert!(path.learn(1280, true, 1500, at(0)));
        // Nobody raises it by an error.
        assert!(!path.learn(1400, true, 1500, at(1)));
        assert_eq!(path.limit(1500, at(1)), 1280);
    }

    fn quoted_v4(udp: bool) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 9);
        match udp {
            false => builder.write(&mut packet, etherparse::IpNumber(50), &[7; 1400]),
            true => builder.udp(4500, 9999).write(&mut packet, &[7; 1400]),
        }
        .unwrap();
        packet
    }

    fn error_v4(mtu: u16, quoted: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu },
        );
        etherparse::PacketBuilder::ipv4([203, 0, 113, 1], [192, 0, 2, 1], 9)
            .icmpv4(kind)
            .write(&mut packet, quoted)
            .unwrap();
        packet
    }

    fn error_v6(mtu: u32, quoted: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv6([0x20; 16], [0x30; 16], 9)
            .icmpv6(etherparse::Icmpv6Type::PacketTooBig { mtu })
            .write(&mut packet, quoted)
            .unwrap();
        packet
    }

    fn quoted_v6() -> Vec<u8> {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv6([0x30; 16], [0x40; 16], 9)
            .write(&mut packet, etherparse::IpNumber(50), &[7; 1400])
            .unwrap();
        packet
    }

    #[test]
    fn rfc1191_section_4_an_error_that_quotes_esp_is_read() {
        for (udp, least) in [(false, 24), (true, 32)] {
            let quoted = quoted_v4(udp);
            let expected = TooBig {
                mtu: 1300,
                source: IpAddr::from([192, 0, 2, 1]),
                destination: IpAddr::from([198, 51, 100, 2]),
                ports: udp.then_some((4500, 9999)),
                spi: Spi(0x0707_0707),
            };
            for length in 0..quoted.len().min(100) {
                let read = TooBig::parse(&error_v4(1300, &quoted[..length]));
                assert_eq!(read, (length >= least).then_some(expected), "{length}");
            }
            // RFC 1191 section 5: a router that does not say.
            let read = TooBig::parse(&error_v4(0, &quoted[..60]));
            assert_eq!(read.map(|read| read.mtu), Some(1006));
        }
    }

    #[test]
    fn rfc8201_section_4_an_error_over_ipv6_is_read() {
        let quoted = quoted_v6();
        for length in 0..100 {
            let read = TooBig::parse(&error_v6(1300, &quoted[..length]));
            let read = read.map(|read| (read.mtu, read.destination, read.spi));
            let expected = (1300, IpAddr::from([0x40; 16]), Spi(0x0707_0707));
            assert_eq!(read, (length >= 44).then_some(expected), "{length}");
        }
    }

    #[test]
    fn a_damaged_error_is_not_read() {
        for packet in [
            error_v4(1300, &quoted_v4(false)[..60]),
            error_v6(1300, &quoted_v6()[..60]),
        ] {
            let header = if packet[0] >> 4 == 6 { 40 } else { 20 };
            for bit in header * 8..packet.len() * 8 {
                let mut damaged = packet.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(TooBig::parse(&damaged), None, "bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn random_quotes_never_panic(quoted in prop::collection::vec(any::<u8>(), 0..100),
                                     first in prop_oneof![Just(0x45u8), Just(0x60), Just(0x4f)]) {
            let mut quoted = quoted;
            if let Some(octet) = quoted.first_mut() { *octet = first; }
            let _ = TooBig::parse(&error_v4(1300, &quoted));
            let _ = TooBig::parse(&error_v6(1300, &quoted));
        }
    }
}
