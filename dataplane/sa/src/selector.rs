//! Traffic selectors (RFC 4301 section 4.4.1.1, RFC 7296 section 3.13).

mod notation;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use notation::SelectorError;

/// Above every port: what a packet without a visible port has (RFC 4301 section 4.4.1.1, OPAQUE).
const OPAQUE: u32 = 1 << 16;

/// A range of addresses and ports and a protocol, as IKE negotiates it.
///
/// For ICMP, ICMPv6 and Mobile IPv6 the port is type and code (RFC 7296 section 3.13.1). Ports
/// 0 to 65535 are ANY, which includes packets without a visible port; from 65535 to 0 is OPAQUE,
/// which is those alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TrafficSelector {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    pub start_port: u16,
    pub end_port: u16,
    /// First and last address, both of one family.
    pub start: IpAddr,
    pub end: IpAddr,
}

impl TrafficSelector {
    /// Any protocol and port within a prefix.
    pub fn prefix(address: IpAddr, length: u8) -> Option<TrafficSelector> {
        let (start, end) = match address {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                let base = u32::from(a) & !host;
                (length <= 32).then(|| {
                    (
                        Ipv4Addr::from(base).into(),
                        Ipv4Addr::from(base | host).into(),
                    )
                })?
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                let base = u128::from(a) & !host;
                (length <= 128).then(|| {
                    (
                        Ipv6Addr::from(base).into(),
                        Ipv6Addr::from(base | host).into(),
                    )
                })?
            }
        };
        Some(TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: u16::MAX,
            start,
            end,
        })
    }

    /// Whether a packet's address, protocol and port on one side lie within.
    pub fn matches(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.contains_address(address)
            && (self.protocol == 0 || self.protocol == protocol)
            && (self.start_port..=self.end_port).contains(&port)
    }

    /// As [`TrafficSelector::matches`], of a packet without a visible port: a later fragment, or a
    /// protocol that has none (RFC 4301 section 4.4.1.1).
    pub fn matches_opaque(&self, address: IpAddr, protocol: u8) -> bool {
        self.contains_address(address)
            && (self.protocol == 0 || self.protocol == protocol)
            && (self.is_any_port() || self.is_opaque())
    }

    /// Whether every packet's port matches, visible or not.
    pub fn is_any_port(&self) -> bool {
        self.start_port == 0 && self.end_port == u16::MAX
    }

    /// Whether only packets without a visible port match (RFC 7296 section 3.13.1).
    pub fn is_opaque(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    /// The ports as one range, in which [`TrafficSelector::OPAQUE_PORT`] stands for a packet without
    /// a visible one. Empty if the first exceeds the last.
    pub fn port_range(&self) -> (u32, u32) {
        match (self.is_any_port(), self.is_opaque()) {
            (true, _) => (0, OPAQUE),
            (_, true) => (OPAQUE, OPAQUE),
            _ => (self.start_port.into(), self.end_port.into()),
        }
    }

    /// Stands for the port of a packet without a visible one in [`TrafficSelector::port_range`].
    pub const OPAQUE_PORT: u32 = OPAQUE;

    /// Whether an address lies within the range and is of its family.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        match (self.start, self.end, address) {
            (IpAddr::V4(s), IpAddr::V4(e), IpAddr::V4(a)) => s <= a && a <= e,
            (IpAddr::V6(s), IpAddr::V6(e), IpAddr::V6(a)) => s <= a && a <= e,
            _ => false,
        }
    }

    /// What both allow, if anything: the responder's narrowing (RFC 7296 section 2.9).
    pub fn intersection(&self, other: &TrafficSelector) -> Option<TrafficSelector> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (a, b) if a == b => a,
            _ => return None,
        };
        let ((a, b), (c, d)) = (self.port_range(), other.port_range());
        let (low, high) = (a.max(c), b.min(d));
        let (start_port, end_port) = match (u16::try_from(low), u16::try_from(high)) {
            (Ok(start), Ok(end)) => (start, end),
            (Ok(start), Err(_)) => (start, u16::MAX),
            (Err(_), _) => (u16::MAX, 0),
        };
        let narrowed = TrafficSelector {
            protocol,
            start_port,
            end_port,
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (narrowed.start <= narrowed.end && low <= high).then_some(narrowed)
    }

    /// Of one address becomes one of another.
    pub fn follow(&mut self, from: IpAddr, to: IpAddr) {
        if self.start == from && self.end == from {
            (self.start, self.end) = (to, to);
        }
    }

    /// Prefix length if the address range is exactly one prefix.
    pub fn prefix_length(&self) -> Option<u8> {
        let (start, end, bits) = match (self.start, self.end) {
            (IpAddr::V4(s), IpAddr::V4(e)) => {
                (u128::from(u32::from(s)), u128::from(u32::from(e)), 32)
            }
            (IpAddr::V6(s), IpAddr::V6(e)) => (u128::from(s), u128::from(e), 128),
            _ => return None,
        };
        let host = start ^ end;
        let is_prefix = host & host.wrapping_add(1) == 0 && start & host == 0;
        is_prefix.then(|| bits - (128 - host.leading_zeros()) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selector() -> impl Strategy<Value = TrafficSelector> {
        (
            any::<u32>(),
            0u8..=32,
            prop_oneof![Just(0u8), Just(6), Just(17)],
            prop_oneof![
                any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
                Just((0, u16::MAX)),
                Just((u16::MAX, 0)),
            ],
        )
            .prop_map(|(address, length, protocol, (start_port, end_port))| {
                TrafficSelector {
                    protocol,
                    start_port,
                    end_port,
                    ..TrafficSelector::prefix(Ipv4Addr::from(address).into(), length).unwrap()
                }
            })
    }

    proptest! {
        #[test]
        fn intersection_matches_what_both_match(
            a in selector(), b in selector(), address: u32, port: u16,
        ) {
            let address = IpAddr::from(Ipv4Addr::from(address));
            for address in [address, a.start, b.end] {
                for protocol in [6, 17] {
                    let both = a.matches(address, protocol, port) && b.matches(address, protocol, port);
                    let narrowed = a.intersection(&b);
                    prop_assert_eq!(
                        narrowed.is_some_and(|n| n.matches(address, protocol, port)),
                        both
                    );
                    let both = a.matches_opaque(address, protocol) && b.matches_opaque(address, protocol);
                    prop_assert_eq!(
                        narrowed.is_some_and(|n| n.matches_opaque(address, protocol)),
                        both
                    );
                }
            }
        }

        #[test]
        fn a_prefix_is_recognised_and_printed_back(address: u32, length in 0u8..=32) {
            let address = IpAddr::from(Ipv4Addr::from(address));
            let selector = TrafficSelector::prefix(address, length).unwrap();
            prop_assert_eq!(selector.prefix_length(), Some(length));
            prop_assert_eq!(selector.to_string().parse::<TrafficSelector>().unwrap(), selector);
        }
    }

    #[test]
    fn rfc7296_section_3_13_1_opaque_is_from_65535_to_0_and_any_includes_it() {
        let any: TrafficSelector = "10.1.0.0/16".parse().unwrap();
        let opaque = TrafficSelector {
            start_port: u16::MAX,
            end_port: 0,
            ..any
        };
        let last = TrafficSelector {
            start_port: u16::MAX,
            ..any
        };
        assert!(any.matches_opaque(any.start, 6) && opaque.matches_opaque(any.start, 6));
        assert!(!opaque.matches(any.start, 6, 0) && !opaque.matches(any.start, 6, u16::MAX));
        assert!(last.matches(any.start, 6, u16::MAX) && !last.matches_opaque(any.start, 6));
        assert_eq!(any.intersection(&opaque), Some(opaque));
        assert_eq!(opaque.intersection(&opaque), Some(opaque));
        assert_eq!(last.intersection(&opaque), None);
        assert_eq!(any.intersection(&last), Some(last));
        assert_eq!(any.intersection(&any), Some(any));
    }
}
