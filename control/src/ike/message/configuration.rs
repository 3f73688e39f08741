//! The Configuration payload (RFC 7296 section 3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::Fault;

/// A request, a reply, or one of the two that nobody uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigurationKind(pub u8);

impl ConfigurationKind {
    pub const REQUEST: ConfigurationKind = ConfigurationKind(1);
    pub const REPLY: ConfigurationKind = ConfigurationKind(2);
}

/// The body of a Configuration payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    pub kind: ConfigurationKind,
    pub attributes: Vec<Attribute>,
}

/// One attribute; an empty value asks for one (RFC 7296 section 3.15.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    pub kind: AttributeKind,
    pub value: Vec<u8>,
}

/// Attribute type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttributeKind(pub u16);

impl AttributeKind {
    pub const INTERNAL_IP4_ADDRESS: AttributeKind = AttributeKind(1);
    pub const INTERNAL_IP4_NETMASK: AttributeKind = AttributeKind(2);
    pub const INTERNAL_IP4_DNS: AttributeKind = AttributeKind(3);
    pub const APPLICATION_VERSION: AttributeKind = AttributeKind(7);
    pub const INTERNAL_IP6_ADDRESS: AttributeKind = AttributeKind(8);
    pub const INTERNAL_IP6_DNS: AttributeKind = AttributeKind(10);
    pub const SUPPORTED_ATTRIBUTES: AttributeKind = AttributeKind(14);
}

/// The first bit of an attribute's type is reserved (RFC 7296 section 3.15.1).
const RESERVED: u16 = 0x8000;

impl Attribute {
    /// Asks for a value, or for any.
    pub fn empty(kind: AttributeKind) -> Attribute {
        Attribute {
            kind,
            value: Vec::new(),
        }
    }

    /// An address for a host; of IPv6 with the length of its prefix, which is the whole of it.
    pub fn address(address: IpAddr) -> Attribute {
        let (kind, value) = match address {
            IpAddr::V4(address) => (
                AttributeKind::INTERNAL_IP4_ADDRESS,
                address.octets().to_vec(),
            ),
            IpAddr::V6(address) => (
                AttributeKind::INTERNAL_IP6_ADDRESS,
                [address.octets().as_slice(), &[128]].concat(),
            ),
        };
        Attribute { kind, value }
    }

    /// A name server.
    pub fn dns(address: IpAddr) -> Attribute {
        let (kind, value) = match address {
            IpAddr::V4(address) => (AttributeKind::INTERNAL_IP4_DNS, address.octets().to_vec()),
            IpAddr::V6(address) => (AttributeKind::INTERNAL_IP6_DNS, address.octets().to_vec()),
        };
        Attribute { kind, value }
    }

    /// The address for a host that this asks for or gives; unspecified for any.
    pub fn as_address(&self) -> Option<IpAddr> {
        let value = self.value.as_slice();
        match self.kind {
            AttributeKind::INTERNAL_IP4_ADDRESS if value.is_empty() => {
                Some(Ipv4Addr::UNSPECIFIED.into())
            }
            AttributeKind::INTERNAL_IP4_ADDRESS => v4(value),
            AttributeKind::INTERNAL_IP6_ADDRESS if value.is_empty() => {
                Some(Ipv6Addr::UNSPECIFIED.into())
            }
            // With the length of the prefix; some leave it out.
            AttributeKind::INTERNAL_IP6_ADDRESS => match value.split_last() {
                Some((_, address)) if value.len() == 17 => v6(address),
                _ => v6(value),
            },
            _ => None,
        }
    }

    /// The name server that this gives.
    pub fn as_dns(&self) -> Option<IpAddr> {
        match self.kind {
            AttributeKind::INTERNAL_IP4_DNS => v4(&self.value),
            AttributeKind::INTERNAL_IP6_DNS => v6(&self.value),
            _ => None,
        }
    }
}

fn v4(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

fn v6(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

impl Configuration {
    /// The body of a payload.
    pub(super) fn parse(body: &[u8]) -> Result<Configuration, Fault> {
        let (kind, mut rest) = match body {
            [kind, _, _, _, rest @ ..] => (ConfigurationKind(*kind), rest),
            _ => return Err(Fault::Truncated),
        };
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            let [k0, k1, l0, l1, value @ ..] = rest else {
                return Err(Fault::Truncated);
            };
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (value, next) = value.split_at_checked(length).ok_or(Fault::Truncated)?;
            attributes.push(Attribute {
                kind: AttributeKind(u16::from_be_bytes([*k0, *k1]) & !RESERVED),
                value: value.to_vec(),
            });
            rest = next;
        }
        Ok(Configuration { kind, attributes })
    }

    /// Writes the body of a payload.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend([self.kind.0, 0, 0, 0]);
        for attribute in &self.attributes {
            let Ok(length) = u16::try_from(attribute.value.len()) else {
                continue;
            };
            out.extend(attribute.kind.0.to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend(&attribute.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Configuration {
        let addresses = ["10.3.0.7", "2001:db8:3::7"].map(|a| a.parse().unwrap());
        let dns: [IpAddr; 2] = ["10.1.0.53", "2001:db8:1::53"].map(|a| a.parse().unwrap());
        let attributes = addresses.map(Attribute::address).into_iter();
        Configuration {
            kind: ConfigurationKind::REPLY,
            attributes: attributes.chain(dns.map(Attribute::dns)).collect(),
        }
    }

    fn emitted(configuration: &Configuration) -> Vec<u8> {
        let mut out = Vec::new();
        configuration.emit(&mut out);
        out
    }

    #[test]
    fn rfc7296_section_3_15_what_is_written_is_read_back() {
        let octets = emitted(&reply());
        // Type 2, INTERNAL_IP4_ADDRESS of four octets.
        assert_eq!(octets[..12], [2, 0, 0, 0, 0, 1, 0, 4, 10, 3, 0, 7]);
        let read = Configuration::parse(&octets).unwrap();
        assert_eq!(read, reply());
        let addresses: Vec<_> = read.attributes.iter().map(Attribute::as_address).collect();
        assert_eq!(addresses[0], Some("10.3.0.7".parse().unwrap()));
        assert_eq!(addresses[1], Some("2001:db8:3::7".parse().unwrap()));
        assert_eq!(addresses[2], None);
        let dns: Vec<_> = read
            .attributes
            .iter()
            .filter_map(Attribute::as_dns)
            .collect();
        assert_eq!(dns.len(), 2);
    }

    #[test]
    fn rfc7296_section_3_15_1_an_empty_address_asks_for_any() {
        for kind in [
            AttributeKind::INTERNAL_IP4_ADDRESS,
            AttributeKind::INTERNAL_IP6_ADDRESS,
        ] {
            let any = Attribute::empty(kind).as_address().unwrap();
            assert!(any.is_unspecified());
        }
        let odd = Attribute {
            kind: AttributeKind::INTERNAL_IP4_ADDRESS,
            value: vec![1, 2, 3],
        };
        assert_eq!(odd.as_address(), None);
    }

    #[test]
    fn a_truncated_payload_is_refused_wherever_it_ends() {
        let octets = emitted(&reply());
        let whole = [4, 12, 33, 41, 61];
        for length in 0..octets.len() {
            let read = Configuration::parse(&octets[..length]);
            assert_eq!(read.is_ok(), whole.contains(&length), "{length} octets");
        }
    }

    #[test]
    fn the_reserved_bit_of_a_type_is_ignored() {
        let read = Configuration::parse(&[1, 0, 0, 0, 0x80, 1, 0, 0]).unwrap();
        assert_eq!(read.attributes[0].kind, AttributeKind::INTERNAL_IP4_ADDRESS);
    }
}
