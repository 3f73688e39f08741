//! Traffic selectors as strongSwan writes them: `10.1.0.0/16[tcp/80]`, `10.0.0.1..10.0.0.9[udp/1000-2000]`,
//! `0.0.0.0/0[icmp/8]`, `fd00::/8[ipv6-icmp/128(0)-129(255)]`, `10.0.0.0/8[0/opaque]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::TrafficSelector;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// Protocols that have a name, as `/etc/protocols` has it.
const PROTOCOLS: [(u8, &str); 9] = [
    (ICMP, "icmp"),
    (6, "tcp"),
    (17, "udp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (ICMP_V6, "ipv6-icmp"),
    (89, "ospf"),
    (132, "sctp"),
];

impl TrafficSelector {
    /// Whether its ports are types and codes.
    fn is_icmp(&self) -> bool {
        matches!(self.protocol, ICMP | ICMP_V6)
    }
}

impl fmt::Display for TrafficSelector {
    /// strongSwan's form, with numbers for ports; what it prints parses to the same selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            Some(length) => write!(f, "{}/{length}", self.start)?,
            None => write!(f, "{}..{}", self.start, self.end)?,
        }
        if self.protocol == 0 && self.is_any_port() {
            return Ok(());
        }
        match PROTOCOLS
            .iter()
            .find(|(number, _)| *number == self.protocol)
        {
            Some((_, name)) => write!(f, "[{name}")?,
            None => write!(f, "[{}", self.protocol)?,
        }
        if self.is_any_port() {
            return f.write_str("]");
        }
        f.write_str("/")?;
        if self.is_opaque() {
            return f.write_str("opaque]");
        }
        let port = |port| Port {
            icmp: self.is_icmp(),
            port,
        };
        write!(f, "{}", port(self.start_port))?;
        if self.start_port != self.end_port {
            write!(f, "-{}", port(self.end_port))?;
        }
        f.write_str("]")
    }
}

/// A port, or a type with its code in parentheses unless that is 0.
struct Port {
    icmp: bool,
    port: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.icmp, self.port.to_be_bytes()) {
            (false, _) => write!(f, "{}", self.port),
            (true, [kind, 0]) => write!(f, "{kind}"),
            (true, [kind, code]) => write!(f, "{kind}({code})"),
        }
    }
}

/// Why a selector in text was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelectorError {
    text: String,
    reason: &'static str,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SelectorError { text, reason } = self;
        write!(
            f,
            "`{text}` is not a traffic selector: {reason}; write a prefix such as 10.1.0.0/16, \
             or 10.1.0.0/16[tcp/80]"
        )
    }
}

impl std::error::Error for SelectorError {}

impl FromStr for TrafficSelector {
    type Err = SelectorError;

    /// Parses `ADDRESS`, `ADDRESS/LENGTH` or `FIRST..LAST`, and after it `[PROTOCOL]` or
    /// `[PROTOCOL/PORTS]`, where `PORTS` is a port, `FIRST-LAST`, `%any` or `opaque`. With ICMP a
    /// port is `TYPE` or `TYPE(CODE)`; as in strongSwan `TYPE` alone means code 0.
    fn from_str(text: &str) -> Result<TrafficSelector, SelectorError> {
        parse(text.trim()).map_err(|reason| SelectorError {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<TrafficSelector, &'static str> {
    let (network, rest) = match text.split_once('[') {
        Some((network, rest)) => {
            let rest = rest.strip_suffix(']').ok_or("a `]` is missing")?;
            (network.trim(), Some(rest.trim()))
        }
        None => (text, None),
    };
    let mut selector = match network.split_once("..") {
        Some((first, last)) => range(first.trim(), last.trim())?,
        None => prefix(network)?,
    };
    let Some(rest) = rest else {
        return Ok(selector);
    };
    let (protocol, ports) = match rest.split_once('/') {
        Some((protocol, ports)) => (protocol.trim(), Some(ports.trim())),
        None => (rest, None),
    };
    selector.protocol = number_of(protocol)?;
    if let Some(text) = ports {
        (selector.start_port, selector.end_port) = ports_of(text, selector.is_icmp())?;
    }
    Ok(selector)
}

fn prefix(text: &str) -> Result<TrafficSelector, &'static str> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.trim(), Some(length.trim())),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| "no address")?;
    let length = match length {
        Some(length) => length.parse().map_err(|_| "no prefix length")?,
        None if address.is_ipv4() => 32,
        None => 128,
    };
    TrafficSelector::prefix(address, length).ok_or("the prefix is longer than the address")
}

fn range(first: &str, last: &str) -> Result<TrafficSelector, &'static str> {
    let start: IpAddr = first.parse().map_err(|_| "the first address is none")?;
    let end: IpAddr = last.parse().map_err(|_| "the last address is none")?;
    if start.is_ipv4() != end.is_ipv4() {
        return Err("the two addresses are of different families");
    }
    if start > end {
        return Err("the first address is above the last");
    }
    Ok(TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start,
        end,
    })
}

fn number_of(protocol: &str) -> Result<u8, &'static str> {
    let named = PROTOCOLS.iter().find(|(_, name)| *name == protocol);
    match (named, protocol) {
        (Some((number, _)), _) => Ok(*number),
        (None, "%any" | "any") => Ok(0),
        (None, "icmpv6") => Ok(ICMP_V6),
        (None, number) => number
            .parse()
            .map_err(|_| "no protocol; write tcp, udp, icmp, ipv6-icmp or a number"),
    }
}

fn ports_of(text: &str, icmp: bool) -> Result<(u16, u16), &'static str> {
    match text {
        "%any" | "any" => return Ok((0, u16::MAX)),
        "opaque" | "OPAQUE" => return Ok((u16::MAX, 0)),
        _ => {}
    }
    let port = |text: &str| match icmp {
        true => icmp_port(text),
        false => text.parse().map_err(|_| "no port; write its number"),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    if first > last {
        return Err("the first port is above the last");
    }
    Ok((first, last))
}

/// `TYPE`, `TYPE(CODE)`, or both in one number above 255 as strongSwan also takes it.
fn icmp_port(text: &str) -> Result<u16, &'static str> {
    const REFUSED: &str = "no ICMP type; write its number, or type(code)";
    let Some((kind, code)) = text.split_once('(') else {
        let number: u16 = text.parse().map_err(|_| REFUSED)?;
        return Ok(u8::try_from(number).map_or(number, |kind| u16::from_be_bytes([kind, 0])));
    };
    let code = code.strip_suffix(')').ok_or(REFUSED)?;
    let octet = |text: &str| text.trim().parse::<u8>().map_err(|_| REFUSED);
    Ok(u16::from_be_bytes([octet(kind)?, octet(code)?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn parsed(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_is_no_selector_and_says_why() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "net",
            "10.0.0.0/-1",
            "10.0.0.9..10.0.0.1",
            "10.0.0.1..fd00::1",
            "10.0.0.1..",
            "10.0.0.0/8[tcp",
            "10.0.0.0/8[tcp/80]x",
            "10.0.0.0/8[]",
            "10.0.0.0/8[tcp/]",
            "10.0.0.0/8[tcp/http]",
            "10.0.0.0/8[tcp/90-80]",
            "10.0.0.0/8[tcp/65536]",
            "10.0.0.0/8[256]",
            "10.0.0.0/8[icmp/8(256)]",
            "10.0.0.0/8[icmp/8(1]",
            "[tcp/80]",
        ] {
            let error = text.parse::<TrafficSelector>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn strongswan_notation_is_read_and_printed_back() {
        for text in [
            "10.0.0.0/8[tcp/80]",
            "10.1.0.1/32[udp/1000-2000]",
            "10.1.0.1..10.1.0.9[tcp/80]",
            "10.1.0.1..10.1.0.9",
            "0.0.0.0/0[icmp/8]",
            "0.0.0.0/0[icmp/3(4)]",
            "0.0.0.0/0[icmp/3-3(255)]",
            "fd00::/8[ipv6-icmp/128-129(255)]",
            "fd00::1..fd00::ff",
            "10.0.0.0/8[udp]",
            "10.0.0.0/8[99/opaque]",
            "10.0.0.0/8[0/opaque]",
            "10.0.0.0/8[0/53]",
            "10.0.0.0/8[gre]",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed(" 10.1.2.3 ").to_string(), "10.1.2.3/32");
        assert_eq!(parsed("::/0[%any/%any]").to_string(), "::/0");
        assert_eq!(
            parsed("10.0.0.0/8[ TCP/80 ]".to_lowercase().as_str()),
            parsed("10.0.0.0/8[6/80]")
        );
    }

    #[test]
    fn rfc7296_section_3_13_1_icmp_type_and_code_are_the_port() {
        let echo = parsed("0.0.0.0/0[icmp/8]");
        assert_eq!(
            (echo.protocol, echo.start_port, echo.end_port),
            (1, 0x0800, 0x0800)
        );
        assert_eq!(parsed("0.0.0.0/0[icmp/2048]"), echo);
        let unreachable = parsed("0.0.0.0/0[icmp/3-3(255)]");
        assert_eq!(
            (unreachable.start_port, unreachable.end_port),
            (0x0300, 0x03ff)
        );
        assert_eq!(parsed("::/0[icmpv6/128]").protocol, 58);
    }

    fn any_selector() -> impl Strategy<Value = TrafficSelector> {
        let v4 = any::<(u32, u32)>().prop_map(|(a, b)| {
            (
                IpAddr::from(Ipv4Addr::from(a.min(b))),
                IpAddr::from(Ipv4Addr::from(a.max(b))),
            )
        });
        let v6 = any::<(u128, u128)>().prop_map(|(a, b)| {
            (
                IpAddr::from(Ipv6Addr::from(a.min(b))),
                IpAddr::from(Ipv6Addr::from(a.max(b))),
            )
        });
        let prefix = (any::<u32>(), 0u8..=32).prop_map(|(address, length)| {
            let prefix = TrafficSelector::prefix(Ipv4Addr::from(address).into(), length).unwrap();
            (prefix.start, prefix.end)
        });
        let ports = prop_oneof![
            any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
            Just((0, u16::MAX)),
            Just((u16::MAX, 0)),
        ];
        let protocol = prop_oneof![any::<u8>(), Just(1), Just(58), Just(0)];
        (prop_oneof![v4, v6, prefix], protocol, ports).prop_map(
            |((start, end), protocol, (start_port, end_port))| TrafficSelector {
                protocol,
                start_port,
                end_port,
                start,
                end,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(selector in any_selector()) {
            prop_assert_eq!(selector.to_string().parse::<TrafficSelector>().unwrap(), selector);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f:./\\[\\]()%a-z-]{0,40}", selector in any_selector(), cut in 0usize..60) {
            let _ = text.parse::<TrafficSelector>();
            let printed = selector.to_string();
            let _ = printed[..cut.min(printed.len())].parse::<TrafficSelector>();
        }
    }
}
