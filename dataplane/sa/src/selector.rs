//! Traffic selectors (RFC 4301 section 4.4.1.1, RFC 7296 section 3.13).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses and ports and a protocol, as IKE negotiates it.
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
        let narrowed = TrafficSelector {
            protocol,
            start_port: self.start_port.max(other.start_port),
            end_port: self.end_port.min(other.end_port),
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (narrowed.start <= narrowed.end && narrowed.start_port <= narrowed.end_port)
            .then_some(narrowed)
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

impl fmt::Display for TrafficSelector {
    /// strongSwan's form: `10.1.0.0/16`, `10.1.0.1/32[tcp/80]`, `10.0.0.1..10.0.0.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            Some(length) => write!(f, "{}/{length}", self.start)?,
            None => write!(f, "{}..{}", self.start, self.end)?,
        }
        if self.protocol == 0 && self.start_port == 0 && self.end_port == u16::MAX {
            return Ok(());
        }
        match self.protocol {
            0 => write!(f, "[0")?,
            6 => write!(f, "[tcp")?,
            17 => write!(f, "[udp")?,
            1 => write!(f, "[icmp")?,
            other => write!(f, "[{other}")?,
        }
        match (self.start_port, self.end_port) {
            (0, u16::MAX) => write!(f, "]"),
            (s, e) if s == e => write!(f, "/{s}]"),
            (s, e) => write!(f, "/{s}-{e}]"),
        }
    }
}

/// Why a selector in text was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelectorError(String);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a traffic selector; write a prefix such as 10.1.0.0/16",
            self.0
        )
    }
}

impl std::error::Error for SelectorError {}

impl FromStr for TrafficSelector {
    type Err = SelectorError;

    /// Parses `ADDRESS` or `ADDRESS/LENGTH`.
    fn from_str(text: &str) -> Result<TrafficSelector, SelectorError> {
        let refuse = || SelectorError(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| refuse())?;
        let length = match length {
            Some(length) => length.trim().parse().map_err(|_| refuse())?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        TrafficSelector::prefix(address, length).ok_or_else(refuse)
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
            any::<(u16, u16)>(),
        )
            .prop_map(|(address, length, protocol, (a, b))| TrafficSelector {
                protocol,
                start_port: a.min(b),
                end_port: a.max(b),
                ..TrafficSelector::prefix(Ipv4Addr::from(address).into(), length).unwrap()
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
    fn refuses_what_is_no_prefix() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "net",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<TrafficSelector>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_ranges_and_ports_like_strongswan() {
        let mut selector: TrafficSelector = "10.1.0.1".parse().unwrap();
        selector.protocol = 6;
        selector.start_port = 80;
        selector.end_port = 80;
        assert_eq!(selector.to_string(), "10.1.0.1/32[tcp/80]");
        selector.end = "10.1.0.9".parse().unwrap();
        assert_eq!(selector.to_string(), "10.1.0.1..10.1.0.9[tcp/80]");
    }
}
