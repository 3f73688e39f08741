//! Identities in text and on the wire (RFC 7296 section 3.5).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::Identification;
use crate::ike::auth::DistinguishedName;

const ID_IPV4_ADDR: u8 = 1;
const ID_FQDN: u8 = 2;
const ID_RFC822_ADDR: u8 = 3;
const ID_IPV6_ADDR: u8 = 5;
const ID_DER_ASN1_DN: u8 = 9;
const ID_KEY_ID: u8 = 11;
/// Of the numbers for private use: on no wire, only in records and digests.
const RECORDED_EAP: u8 = 250;
/// Octets of a user's name that are looked at.
const LONGEST_USER: usize = 253;

impl Identification {
    /// Whether this identity is what `pattern` asks for. Names compare without case; a pattern
    /// may start with `*` to match any beginning, as in `*.example.org` or `*@example.org`.
    pub fn matches(&self, pattern: &Identification) -> bool {
        match (self, pattern) {
            (_, Identification::Any) => true,
            (Identification::Fqdn(name), Identification::Fqdn(pattern))
            | (Identification::Email(name), Identification::Email(pattern))
            | (Identification::Eap(name), Identification::Eap(pattern)) => {
                let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
                match pattern.strip_prefix(b"*") {
                    Some(tail) => name
                        .len()
                        .checked_sub(tail.len())
                        .and_then(|start| name.get(start..))
                        .is_some_and(|end| end.eq_ignore_ascii_case(tail)),
                    None => name.eq_ignore_ascii_case(pattern),
                }
            }
            (Identification::Dn(name), Identification::Dn(pattern)) => name.matches(pattern),
            (id, pattern) => id == pattern,
        }
    }

    /// The form that all spellings of a name share: what [`matches`](Self::matches) takes for one has
    /// one. Whose IKE SAs and addresses they are is looked up by it; what is signed is what was sent.
    pub fn folded(&self) -> Cow<'_, Identification> {
        let lower = |name: &str| name.to_ascii_lowercase();
        let spelt = |name: &str| name.bytes().any(|octet| octet.is_ascii_uppercase());
        match self {
            Identification::Fqdn(name) if spelt(name) => {
                Cow::Owned(Identification::Fqdn(lower(name)))
            }
            Identification::Email(name) if spelt(name) => {
                Cow::Owned(Identification::Email(lower(name)))
            }
            Identification::Eap(name) if spelt(name) => {
                Cow::Owned(Identification::Eap(lower(name)))
            }
            Identification::Dn(name) => Cow::Owned(Identification::Dn(name.folded())),
            same => Cow::Borrowed(same),
        }
    }

    /// The user that an EAP identity names; `None` if it is no name, or could be taken for a pattern.
    pub fn user(name: &[u8]) -> Option<Identification> {
        let name = std::str::from_utf8(name).ok()?;
        let legal = |c: char| c.is_ascii_graphic() || !c.is_ascii() && c.is_alphanumeric();
        let sized = (1..=LONGEST_USER).contains(&name.len());
        let one = sized && !name.starts_with(['*', '%']) && name.chars().all(legal);
        one.then(|| Identification::Eap(name.to_owned()))
    }

    /// The name in an IKE identity; empty, and so nobody's, where there is none.
    pub fn name(&self) -> &[u8] {
        match self {
            Identification::Fqdn(name) | Identification::Email(name) => name.as_bytes(),
            Identification::KeyId(name) => name,
            _ => &[],
        }
    }

    /// Whether it is the name of a user.
    pub fn is_eap(&self) -> bool {
        matches!(self, Identification::Eap(_))
    }

    /// The body of an ID payload: type, three reserved octets, data.
    pub fn to_body(&self) -> Vec<u8> {
        let (kind, data): (u8, Vec<u8>) = match self {
            Identification::Any => (0, Vec::new()),
            Identification::Address(IpAddr::V4(a)) => (ID_IPV4_ADDR, a.octets().into()),
            Identification::Address(IpAddr::V6(a)) => (ID_IPV6_ADDR, a.octets().into()),
            Identification::Fqdn(name) => (ID_FQDN, name.clone().into()),
            Identification::Email(name) => (ID_RFC822_ADDR, name.clone().into()),
            Identification::KeyId(data) => (ID_KEY_ID, data.clone()),
            Identification::Dn(name) => (ID_DER_ASN1_DN, name.der().to_vec()),
            Identification::Eap(name) => (RECORDED_EAP, name.clone().into()),
            Identification::Other { kind, data } => (*kind, data.clone()),
        };
        let mut body = vec![kind, 0, 0, 0];
        body.extend(data);
        body
    }

    /// Reads type and data of an ID payload; `None` if an address has the wrong size. What could
    /// not be written as a name of its type stays `Other`: it is equal to no configured identity.
    pub fn from_wire(kind: u8, data: &[u8]) -> Option<Identification> {
        let name = || {
            let text = std::str::from_utf8(data).ok()?;
            let printable = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            printable.then(|| text.to_owned())
        };
        let known = match kind {
            ID_IPV4_ADDR => {
                let octets: [u8; 4] = data.try_into().ok()?;
                Some(Identification::Address(Ipv4Addr::from(octets).into()))
            }
            ID_IPV6_ADDR => {
                let octets: [u8; 16] = data.try_into().ok()?;
                Some(Identification::Address(Ipv6Addr::from(octets).into()))
            }
            ID_FQDN => name()
                .filter(|name| !name.contains('@') && distinguished(name).is_none())
                .map(Identification::Fqdn),
            ID_RFC822_ADDR => name()
                .filter(|name| is_email(name) && distinguished(name).is_none())
                .map(Identification::Email),
            ID_DER_ASN1_DN => DistinguishedName::from_der(data).map(Identification::Dn),
            ID_KEY_ID => Some(Identification::KeyId(data.to_vec())),
            _ => None,
        };
        Some(known.unwrap_or_else(|| Identification::Other {
            kind,
            data: data.to_vec(),
        }))
    }
}

/// Why an identity in text was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentificationError(String);

impl fmt::Display for IdentificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no identity; write an address, a name such as gw.example.org, \
             user@example.org, a subject such as \"C=CH, O=example, CN=gw\", @#HEX for a key ID, \
             or %any",
            self.0
        )
    }
}

impl std::error::Error for IdentificationError {}

impl FromStr for Identification {
    type Err = IdentificationError;

    /// strongSwan's rules: a text with `=` is a distinguished name; `%any`, an address, `@#` and
    /// hex digits for a key ID, `@` and a name for an FQDN, a text with `@` inside for an e-mail address, any other name an FQDN.
    fn from_str(text: &str) -> Result<Identification, IdentificationError> {
        let refuse = || IdentificationError(text.to_owned());
        if let Some(name) = distinguished(text) {
            return Ok(Identification::Dn(name));
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refuse());
        }
        if text == "%any" {
            return Ok(Identification::Any);
        }
        if let Ok(address) = text.parse() {
            return Ok(Identification::Address(address));
        }
        if let Some(digits) = text.strip_prefix("@#") {
            return from_hex(digits)
                .map(Identification::KeyId)
                .ok_or_else(refuse);
        }
        if is_email(text) {
            return Ok(Identification::Email(text.to_owned()));
        }
        let name = text.strip_prefix('@').unwrap_or(text);
        if name.is_empty() || name.contains('@') {
            return Err(refuse());
        }
        Ok(Identification::Fqdn(name.to_owned()))
    }
}

fn distinguished(text: &str) -> Option<DistinguishedName> {
    text.contains('=').then(|| text.parse().ok()).flatten()
}

fn is_email(text: &str) -> bool {
    !text.starts_with('@') && text.contains('@')
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain || digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

impl fmt::Display for Identification {
    /// Text that parses to the same identity, but for `Other`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identification::Any => f.write_str("%any"),
            Identification::Address(address) => write!(f, "{address}"),
            Identification::Fqdn(name) if reads_as_fqdn(name) => f.write_str(name),
            Identification::Fqdn(name) => write!(f, "@{name}"),
            Identification::Email(name) | Identification::Eap(name) => f.write_str(name),
            Identification::Dn(name) => name.fmt(f),
            Identification::KeyId(data) => write!(f, "@#{}", Hex(data)),
            Identification::Other { kind, data } => write!(f, "{{type {kind}}}{}", Hex(data)),
        }
    }
}

fn reads_as_fqdn(name: &str) -> bool {
    name != "%any" && name.parse::<IpAddr>().is_err()
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Identification {
        text.parse().unwrap()
    }

    #[test]
    fn text_reads_by_strongswans_rules() {
        let fqdn = |name: &str| Identification::Fqdn(name.to_owned());
        assert_eq!(id("%any"), Identification::Any);
        assert_eq!(
            id("192.0.2.1"),
            Identification::Address([192, 0, 2, 1].into())
        );
        assert_eq!(
            id("2001:db8::1"),
            Identification::Address("2001:db8::1".parse().unwrap())
        );
        assert_eq!(id("gw.example.org"), fqdn("gw.example.org"));
        assert_eq!(id("@gw"), fqdn("gw"));
        assert_eq!(id("@192.0.2.1"), fqdn("192.0.2.1"));
        assert_eq!(
            id("moon@example.org"),
            Identification::Email("moon@example.org".to_owned())
        );
        assert_eq!(id("@#00fF"), Identification::KeyId(vec![0, 255]));
        for text in [
            "",
            "@",
            "@#",
            "@#0",
            "@#0g",
            "@#+1",
            "a b",
            "@a@b",
            "@@a",
            "n\u{e4}me",
            "a\n",
        ] {
            let error = text.parse::<Identification>().unwrap_err();
            assert!(error.to_string().contains("%any"), "{error}");
        }
    }

    #[test]
    fn names_match_without_case_and_by_their_end() {
        assert!(id("GW.Example.org").matches(&id("gw.example.ORG")));
        assert!(id("gw.example.org").matches(&id("*.example.org")));
        assert!(id("a@Example.org").matches(&id("*@example.org")));
        assert!(!id("example.org").matches(&id("*.example.org")));
        assert!(!id("gw.example.org.evil").matches(&id("*.example.org")));
        assert!(!id("*.example.org").matches(&id("gw.example.org")));
        assert!(!id("gw").matches(&Identification::Email("gw".to_owned())));
        assert!(!id("192.0.2.1").matches(&id("@192.0.2.1")));
        assert!(!Identification::Any.matches(&id("gw")));
        for text in ["gw", "a@b", "192.0.2.1", "::1", "@#00"] {
            assert!(id(text).matches(&Identification::Any) && id(text).matches(&id(text)));
        }
    }

    #[test]
    fn all_spellings_of_a_name_and_no_other_names_fold_to_one() {
        let eap = |name: &str| Identification::Eap(name.to_owned());
        let names = [
            [id("A.Test"), id("a.tEST")],
            [id("Me@A.test"), id("mE@a.test")],
            [eap("Alice"), eap("aLICE")],
            [id("C=CH, CN=Gw 1"), id("c=ch,cn=gW  1")],
            [id("@#41"), id("@#41")],
            [id("192.0.2.1"), id("192.0.2.1")],
        ];
        for (n, [one, other]) in names.iter().enumerate() {
            assert!(
                one.matches(other) && one.folded() == other.folded(),
                "{one}"
            );
            assert_eq!(one.folded().folded(), one.folded());
            for [another, _] in &names[..n] {
                assert!(one.folded() != another.folded(), "{one} {another}");
            }
        }
        // No name is an address, and octets are no name.
        assert_ne!(id("@#61").folded(), id("@#41").folded());
        assert_ne!(
            id("@a").folded(),
            Identification::Eap("a".to_owned()).folded()
        );
    }

    /// A peer cannot claim a configured identity by another type or by odd characters.
    #[test]
    fn what_cannot_be_written_is_no_name() {
        for (kind, data) in [
            (ID_FQDN, &b""[..]),
            (ID_FQDN, b"a b"),
            (ID_FQDN, b"gw\0"),
            (ID_FQDN, b"\xff"),
            (ID_FQDN, b"a@b"),
            (ID_RFC822_ADDR, b"gw"),
            (ID_RFC822_ADDR, b"@gw"),
            (9, b"gw"),
        ] {
            let data = data.to_vec();
            let other = Identification::Other {
                kind,
                data: data.clone(),
            };
            assert_eq!(Identification::from_wire(kind, &data), Some(other.clone()));
            assert!(!other.matches(&id("gw")));
        }
    }

    proptest! {
        #[test]
        fn what_a_peer_sends_is_kept_and_what_prints_parses(
            kind in 0u8..13, data in proptest::collection::vec(0x23u8..0x7f, 0..20),
        ) {
            let Some(id) = Identification::from_wire(kind, &data) else {
                prop_assert!(matches!(kind, ID_IPV4_ADDR | ID_IPV6_ADDR));
                return Ok(());
            };
            let mut body = vec![kind, 0, 0, 0];
            body.extend(&data);
            prop_assert_eq!(id.to_body(), body);
            let empty = id == Identification::KeyId(Vec::new());
            if !empty && !matches!(id, Identification::Other { .. }) {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }
}
