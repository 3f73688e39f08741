//! Distinguished names: in DER as certificates and ID_DER_ASN1_DN carry them, and in text as
//! strongSwan writes them (`C=CH, O=example, CN=gw`, in the order of the encoding).

use std::fmt;
use std::str::FromStr;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::Any;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// Names beyond this are nobody's.
const LONGEST: usize = 2048;

/// A distinguished name in DER.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DistinguishedName(Vec<u8>);

impl DistinguishedName {
    /// Takes the DER of a non-empty name.
    pub fn from_der(der: &[u8]) -> Option<DistinguishedName> {
        let name = (der.len() <= LONGEST)
            .then(|| RdnSequence::from_der(der).ok())
            .flatten()?;
        (!name.is_empty()).then(|| DistinguishedName(der.to_vec()))
    }

    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whether this name is what `pattern` asks for: the same attributes in the same order, values
    /// compared without case and without surplus spaces, whatever their string type (RFC 5280
    /// section 7.1). The value `*` of the pattern stands for any.
    pub fn matches(&self, pattern: &DistinguishedName) -> bool {
        self.agrees(pattern, stands_for_any)
    }

    /// Whether both are one name; a `*` is only a `*`.
    pub fn is_same(&self, other: &DistinguishedName) -> bool {
        self.agrees(other, |_| false)
    }

    /// Whether it stands for many names.
    pub fn is_pattern(&self) -> bool {
        self.attributes().iter().any(|a| stands_for_any(&a.value))
    }

    /// The form that all names share which are the same ([`is_same`](Self::is_same)).
    pub fn folded(&self) -> DistinguishedName {
        let mut name = RdnSequence::default();
        for mut attribute in self.attributes() {
            if let Some(text) = folded(&attribute.value)
                && let Ok(value) = Any::new(Tag::Utf8String, text.into_bytes())
            {
                attribute.value = value;
            }
            if let Ok(part) = RelativeDistinguishedName::try_from(vec![attribute]) {
                name.push(part);
            }
        }
        name.to_der()
            .map_or_else(|_| self.clone(), DistinguishedName)
    }

    fn agrees(&self, other: &DistinguishedName, any: impl Fn(&Any) -> bool) -> bool {
        let (ours, theirs) = (self.attributes(), other.attributes());
        let mut pairs = ours.iter().zip(&theirs);
        ours.len() == theirs.len()
            && pairs.all(|(a, b)| a.oid == b.oid && (any(&b.value) || same(&a.value, &b.value)))
    }

    fn attributes(&self) -> Vec<AttributeTypeAndValue> {
        let name = RdnSequence::from_der(&self.0).unwrap_or_default();
        let attributes = name.iter().flat_map(RelativeDistinguishedName::iter);
        attributes.cloned().collect()
    }
}

fn stands_for_any(value: &Any) -> bool {
    text(value).is_some_and(|value| value == "*")
}

/// The text of a string type.
fn text(value: &Any) -> Option<String> {
    let octets = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(octets.to_vec()).ok()
        }
        Tag::TeletexString => Some(octets.iter().map(|octet| char::from(*octet)).collect()),
        _ => None,
    }
}

/// Without case and surplus spaces.
fn folded(value: &Any) -> Option<String> {
    let text = text(value)?.to_lowercase();
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn same(a: &Any, b: &Any) -> bool {
    match (folded(a), folded(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Why a text is no distinguished name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotAName;

impl FromStr for DistinguishedName {
    type Err = NotAName;

    fn from_str(written: &str) -> Result<DistinguishedName, NotAName> {
        let mut name = RdnSequence::default();
        for part in split(written) {
            let part = part.trim();
            let part = match part.split_once('=') {
                // strongSwan and OpenSSL print it so.
                Some((key, value)) if ["E", "EMAIL"].contains(&key.to_uppercase().as_str()) => {
                    format!("emailAddress={value}")
                }
                _ => part.to_owned(),
            };
            name.push(RelativeDistinguishedName::from_str(&part).map_err(|_| NotAName)?);
        }
        let der = name.to_der().map_err(|_| NotAName)?;
        DistinguishedName::from_der(&der).ok_or(NotAName)
    }
}

/// The parts between commas that no backslash precedes.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == ',' && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attribute) in self.attributes().iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let shown: String = attribute
                .to_string()
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            write!(f, "{comma}{shown}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_written_in_the_order_of_its_encoding() {
        let written = "C=CH, O=Example\\, Inc, CN=gw.example.org";
        let parsed = name(written);
        assert_eq!(parsed.to_string(), written);
        // SEQUENCE, SET, SEQUENCE, OID 2.5.4.6: the country comes first.
        assert_eq!(parsed.der()[2..11], [0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 6]);
        for written in ["E=a@example.org", "email=a@example.org"] {
            assert_eq!(name(written).to_string(), "EMAIL=a@example.org");
            assert_eq!(name(&name(written).to_string()), name(written));
        }
    }

    #[test]
    fn rfc5280_section_7_1_names_compare_without_case_string_type_and_surplus_spaces() {
        let pattern = name("C=CH, O=example, CN=gw");
        for same in ["C=CH, O=Example, CN=GW", "C=ch,O= example ,CN=gw"] {
            assert!(name(same).matches(&pattern), "{same}");
        }
        let other_type = AttributeTypeAndValue {
            oid: "2.5.4.3".parse().unwrap(),
            value: Any::new(Tag::PrintableString, *b"gw").unwrap(),
        };
        let rdn = RelativeDistinguishedName::try_from(vec![other_type]).unwrap();
        let mut printable = RdnSequence::default();
        printable.push(rdn);
        let printable = DistinguishedName::from_der(&printable.to_der().unwrap()).unwrap();
        assert!(printable.matches(&name("CN=gw")) && printable != name("CN=gw"));
        assert_eq!(printable.folded(), name("CN= GW").folded());
        for other in [
            "C=CH, O=example",
            "C=CH, CN=gw, O=example",
            "C=CH, O=example, CN=gw2",
        ] {
            assert!(!name(other).matches(&pattern), "{other}");
            assert_ne!(name(other).folded(), pattern.folded(), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_any_value_of_that_attribute() {
        let pattern = name("C=CH, O=example, CN=*");
        assert!(name("C=CH, O=example, CN=a").matches(&pattern));
        assert!(!name("C=CH, O=other, CN=a").matches(&pattern));
        assert!(!pattern.matches(&name("C=CH, O=example, CN=a")));
        assert!(!name("C=CH, O=example, CN=a").is_same(&pattern));
        assert!(pattern.is_same(&pattern) && pattern.is_pattern() && !name("CN=a*").is_pattern());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "CN", "XX=a", "CN=a,", "=a"] {
            assert!(text.parse::<DistinguishedName>().is_err(), "{text}");
        }
        let der = name("C=CH, O=example, CN=gw").der().to_vec();
        for cut in 0..der.len() {
            assert_eq!(DistinguishedName::from_der(&der[..cut]), None);
        }
        assert_eq!(DistinguishedName::from_der(&[0x30, 0]), None, "empty");
    }
}
