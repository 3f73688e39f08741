//! A certificate: what of it decides who somebody is (RFC 5280, RFC 4945).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate as Parsed;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, CrlDistributionPoints, KeyUsage, SubjectAltName};

use super::crl;
use super::dn::DistinguishedName;
use crate::ike::proposal::Identification;

/// Longer ones are refused unread.
pub const LONGEST_CERTIFICATE: usize = 16 << 10;
/// Alternative names of one certificate that are looked at.
const MOST_NAMES: usize = 64;

/// A certificate that was read, and not verified.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    subject: Option<DistinguishedName>,
    issuer: Option<DistinguishedName>,
    /// The subjectAltName, in the types that an ID payload can assert.
    names: Vec<Identification>,
    public_key: Vec<u8>,
    /// SHA-1 of the SubjectPublicKeyInfo, by which CERTREQ names an authority.
    authority: [u8; 20],
    not_before: u64,
    not_after: u64,
    pub is_ca: bool,
    may_sign: bool,
    may_certify: bool,
    /// It says where a CRL would be.
    pub has_crl_uri: bool,
    /// Where there is a whole one of its issuer's (RFC 5280 section 4.2.1.13).
    pub(super) crl_uris: Vec<String>,
}

/// Octets that are no certificate, or one that nobody should accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnreadableCertificate;

fn places(lists: &CrlDistributionPoints) -> Vec<String> {
    let whole = lists.0.iter();
    let whole = whole.filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
    whole
        .flat_map(|point| crl::uris(point.distribution_point.as_ref()))
        .collect()
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Result<Certificate, UnreadableCertificate> {
        let bad = UnreadableCertificate;
        if der.len() > LONGEST_CERTIFICATE {
            return Err(bad);
        }
        let parsed = Parsed::from_der(der).map_err(|_| bad)?;
        let inner = parsed.tbs_certificate();
        let subject = inner.subject().to_der().map_err(|_| bad)?;
        let issuer = inner.issuer().to_der().map_err(|_| bad)?;
        let information = inner.subject_public_key_info();
        let encoded = information.to_der().map_err(|_| bad)?;
        let constraints = inner.get_extension::<BasicConstraints>().map_err(|_| bad)?;
        let usage = inner.get_extension::<KeyUsage>().map_err(|_| bad)?;
        let usage = usage.map(|(_, usage)| usage);
        let names = inner.get_extension::<SubjectAltName>().map_err(|_| bad)?;
        let lists = inner
            .get_extension::<CrlDistributionPoints>()
            .map_err(|_| bad)?;
        let validity = inner.validity();
        Ok(Certificate {
            der: CertificateDer::from(der.to_vec()),
            subject: DistinguishedName::from_der(&subject),
            issuer: DistinguishedName::from_der(&issuer),
            names: names.map_or_else(Vec::new, |(_, names)| alternatives(&names)),
            public_key: information.subject_public_key.raw_bytes().to_vec(),
            authority: sha1(&encoded),
            not_before: validity.not_before.to_unix_duration().as_secs(),
            not_after: validity.not_after.to_unix_duration().as_secs(),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            may_sign: usage.is_none_or(|u| u.digital_signature() || u.non_repudiation()),
            may_certify: usage.is_none_or(|u| u.key_cert_sign()),
            has_crl_uri: lists.is_some(),
            crl_uris: lists.map_or_else(Vec::new, |(_, lists)| places(&lists)),
        })
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The BIT STRING of the SubjectPublicKeyInfo.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub fn authority(&self) -> [u8; 20] {
        self.authority
    }

    pub fn subject(&self) -> Option<&DistinguishedName> {
        self.subject.as_ref()
    }

    pub fn issuer(&self) -> Option<&DistinguishedName> {
        self.issuer.as_ref()
    }

    /// By name; no signature is verified.
    pub fn is_issued_by(&self, other: &Certificate) -> bool {
        self.issuer.is_some() && self.issuer == other.subject
    }

    /// Seconds since 1970.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// RFC 5280 section 4.1.2.5: both ends belong to it.
    pub fn is_valid_at(&self, seconds: u64) -> bool {
        (self.not_before..=self.not_after).contains(&seconds)
    }

    /// RFC 4945 section 5.1.3.2: "if KeyUsage is present, then digitalSignature or nonRepudiation
    /// must be set".
    pub fn may_sign(&self) -> bool {
        self.may_sign
    }

    /// RFC 5280 section 4.2.1.3: the issuer of a certificate has keyCertSign, if it has any.
    pub fn may_certify(&self) -> bool {
        self.may_certify
    }

    /// Whether the certificate is for this identity (RFC 4945 section 3.1): an address, name or
    /// e-mail address must stand in the subjectAltName, a distinguished name be the subject.
    /// Wildcards in certificates mean nothing here.
    pub fn confirms(&self, id: &Identification) -> bool {
        match id {
            Identification::Dn(name) => self.subject.as_ref().is_some_and(|s| s.is_same(name)),
            Identification::Address(_) => self.names.contains(id),
            Identification::Fqdn(name) | Identification::Email(name) if name.starts_with('*') => {
                false
            }
            Identification::Fqdn(_) | Identification::Email(_) => {
                self.names.iter().any(|known| known.matches(id))
            }
            Identification::Any
            | Identification::KeyId(_)
            | Identification::Eap(_)
            | Identification::Other { .. } => false,
        }
    }

    /// What the certificate could be asserted as, for messages.
    pub fn identities(&self) -> Vec<Identification> {
        let subject = self.subject.clone().map(Identification::Dn);
        self.names.iter().cloned().chain(subject).collect()
    }

    /// SHA-256 of the whole, to know it again.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let digest = digest::digest(&digest::SHA256, &self.der);
        out.iter_mut()
            .zip(digest.as_ref())
            .for_each(|(out, octet)| *out = *octet);
        out
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "Certificate({subject})"),
            None => write!(f, "Certificate(without subject)"),
        }
    }
}

fn sha1(octets: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets);
    out.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(out, octet)| *out = *octet);
    out
}

/// Names that could not be written as configured identities are left out: they match nothing.
fn alternatives(names: &SubjectAltName) -> Vec<Identification> {
    let graphic = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let names = names.0.iter().take(MOST_NAMES);
    names
        .filter_map(|name| match name {
            GeneralName::DnsName(name) if graphic(name.as_str()) => {
                Some(Identification::Fqdn(name.as_str().to_owned()))
            }
            GeneralName::Rfc822Name(name) if graphic(name.as_str()) => {
                Some(Identification::Email(name.as_str().to_owned()))
            }
            GeneralName::IpAddress(octets) => {
                address(octets.as_bytes()).map(Identification::Address)
            }
            _ => None,
        })
        .collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(octets).ok()?;
    Some(Ipv6Addr::from(octets).into())
}
