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

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(encoding: u8, length: usize) -> Payload {
        let mut body = vec![encoding];
        body.resize(1 + length, 0x30);
        payload(PayloadKind::CERT, body)
    }

    fn chain_of(payloads: &[Payload]) -> Result<usize, CertificateFault> {
        chain(&Contents::of(payloads)).map(|chain| chain.len())
    }

    /// RFC 7296 section 3.6: what the sender was never told to use is not used; nothing is fetched.
    #[test]
    fn rfc7296_section_3_6_certificates_by_url_are_refused_and_other_encodings_left_out() {
        let url = certificate(12, 60);
        let signature = certificate(X509_SIGNATURE, 600);
        assert_eq!(chain_of(&[]), Err(CertificateFault::Missing));
        for encoding in HASH_AND_URL {
            let first = certificate(encoding, 60);
            assert_eq!(
                chain_of(&[first, signature.clone()]),
                Err(CertificateFault::ByUrl)
            );
        }
        assert_eq!(chain_of(&[signature.clone(), url]), Ok(1));
        // PKCS #7, PGP, CRL, raw RSA, and what no registry knows.
        for encoding in (0..=255).filter(|e| *e != X509_SIGNATURE && !HASH_AND_URL.contains(e)) {
            let other = certificate(encoding, 600);
            assert_eq!(
                chain_of(std::slice::from_ref(&other)),
                Err(CertificateFault::Missing)
            );
            assert_eq!(chain_of(&[other, signature.clone()]), Ok(1));
        }
        let empty = payload(PayloadKind::CERT, Vec::new());
        assert_eq!(chain_of(&[empty, signature]), Ok(1));
    }

    #[test]
    fn long_chains_and_long_certificates_are_refused_unread() {
        let good = certificate(X509_SIGNATURE, LONGEST_CERTIFICATE);
        assert_eq!(
            chain_of(&vec![good.clone(); LONGEST_CHAIN]),
            Ok(LONGEST_CHAIN)
        );
        let many = vec![good; LONGEST_CHAIN + 1];
        assert_eq!(chain_of(&many), Err(CertificateFault::TooMany));
        for length in [LONGEST_CERTIFICATE + 1, 65_000] {
            let long = certificate(X509_SIGNATURE, length);
            assert_eq!(chain_of(&[long]), Err(CertificateFault::TooLong));
        }
    }

    #[test]
    fn rfc7296_section_3_7_authorities_are_named_by_twenty_octets_each() {
        let asked = |bodies: &[&[u8]]| {
            let payloads: Vec<_> = bodies
                .iter()
                .map(|body| payload(PayloadKind::CERTREQ, body.to_vec()))
                .collect();
            requested(&Contents::of(&payloads))
        };
        assert_eq!(asked(&[&[], &[4], &[4, 1, 2, 3]]), [[0; 20]; 0]);
        let two = [&[4][..], &[7; 20], &[8; 20], &[9; 19]].concat();
        assert_eq!(asked(&[&two]), [[7; 20], [8; 20]]);
        let other_encoding = [&[12][..], &[7; 20]].concat();
        assert_eq!(asked(&[&other_encoding]), [[0; 20]; 0]);
        assert_eq!(asked(&[&[4; 60_001]]).len(), MOST_AUTHORITIES);

        let ours = request([[9; 20], [3; 20], [9; 20]]).unwrap();
        assert_eq!(requested(&Contents::of(&[ours])), [[3; 20], [9; 20]]);
        assert_eq!(request([]), None);
    }
}
