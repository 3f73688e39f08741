//! CERT and CERTREQ payloads (RFC 7296 sections 3.6 and 3.7).

use super::certificate::{Certificate, LONGEST_CERTIFICATE};
use crate::ike::contents::Contents;
use crate::ike::message::{Payload, PayloadKind};

/// "X.509 Certificate - Signature".
const X509_SIGNATURE: u8 = 4;
/// "Hash and URL of X.509 certificate", "... bundle": announced by nobody but who fetches, and we
/// never do (RFC 7296 section 3.6: HTTP_CERT_LOOKUP_SUPPORTED).
const HASH_AND_URL: [u8; 2] = [12, 13];
/// Certificates of one message that are looked at: a peer's own, and more than any sane hierarchy.
const LONGEST_CHAIN: usize = 10;
/// Octets of an authority's name in CERTREQ.
const AUTHORITY: usize = 20;
/// Authorities of one message that are looked at.
const MOST_AUTHORITIES: usize = 256;

fn payload(kind: PayloadKind, body: Vec<u8>) -> Payload {
    Payload::Unknown {
        kind,
        critical: false,
        body,
    }
}

/// CERT payloads for a chain, our own certificate first (RFC 7296 section 3.6).
pub fn certificates<'c>(chain: impl IntoIterator<Item = &'c Certificate>) -> Vec<Payload> {
    let bodies = chain.into_iter().map(|certificate| {
        let mut body = vec![X509_SIGNATURE];
        body.extend_from_slice(certificate.der());
        payload(PayloadKind::CERT, body)
    });
    bodies.collect()
}

/// The CERTREQ payload for our anchors; none if there are none.
pub fn request(authorities: impl IntoIterator<Item = [u8; AUTHORITY]>) -> Option<Payload> {
    let mut sorted: Vec<_> = authorities.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.is_empty() {
        return None;
    }
    let mut body = vec![X509_SIGNATURE];
    body.extend(sorted.into_iter().flatten());
    Some(payload(PayloadKind::CERTREQ, body))
}

/// Why a message's certificates are of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateFault {
    Missing,
    /// To be fetched from somewhere.
    ByUrl,
    TooMany,
    TooLong,
}

impl std::fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CertificateFault::Missing => write!(f, "no certificate of the peer"),
            CertificateFault::ByUrl => {
                write!(
                    f,
                    "certificate by URL, which is never fetched: let the peer send it"
                )
            }
            CertificateFault::TooMany => {
                write!(f, "chain of more than {LONGEST_CHAIN} certificates")
            }
            CertificateFault::TooLong => {
                write!(f, "certificate of more than {LONGEST_CERTIFICATE} octets")
            }
        }
    }
}

/// The chain in a message: "the first certificate provided MUST contain the public key used to
/// validate the AUTH payload" (RFC 7296 section 3.6). Other encodings are left out.
pub(in crate::ike) fn chain<'a>(
    contents: &Contents<'a>,
) -> Result<Vec<&'a [u8]>, CertificateFault> {
    let mut chain = Vec::new();
    let bodies = contents.of_kind(PayloadKind::CERT);
    for (encoding, certificate) in bodies.filter_map(<[u8]>::split_first) {
        if chain.is_empty() && HASH_AND_URL.contains(encoding) {
            return Err(CertificateFault::ByUrl);
        }
        if *encoding != X509_SIGNATURE {
            continue;
        }
        if certificate.len() > LONGEST_CERTIFICATE {
            return Err(CertificateFault::TooLong);
        }
        if chain.len() == LONGEST_CHAIN {
            return Err(CertificateFault::TooMany);
        }
        chain.push(certificate);
    }
    if chain.is_empty() {
        return Err(CertificateFault::Missing);
    }
    Ok(chain)
}

/// The authorities that a message's CERTREQ payloads name.
pub(in crate::ike) fn requested(contents: &Contents<'_>) -> Vec<[u8; AUTHORITY]> {
    let bodies = contents.of_kind(PayloadKind::CERTREQ);
    let hashes = bodies
        .filter_map(<[u8]>::split_first)
        .filter(|(encoding, _)| **encoding == X509_SIGNATURE)
        .flat_map(|(_, hashes)| hashes.as_chunks::<AUTHORITY>().0);
    hashes.take(MOST_AUTHORITIES).copied().collect()
}
