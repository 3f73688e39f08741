//! prf, prf+ (RFC 7296 section 2.13) and the digest of NAT detection (section 2.23).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, digest, hmac};
use hitless_sa::IkeSpi;
use zeroize::Zeroizing;

use crate::ike::proposal::Prf;

impl Prf {
    /// Octets of output, which is also the preferred key length (RFC 4868 section 2.1.2).
    pub const fn length(self) -> usize {
        match self {
            Prf::HmacSha256 => 32,
            Prf::HmacSha384 => 48,
            Prf::HmacSha512 => 64,
        }
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

/// prf(key, data), where the parts of `data` are joined.
pub fn prf(prf: Prf, key: &[u8], data: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    keyed(&hmac::Key::new(prf.algorithm(), key), data)
}

/// Joined and signed in buffers that are wiped: data and output are often keys.
fn keyed(key: &hmac::Key, data: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = data.iter().map(|part| part.len()).sum();
    let mut joined = Zeroizing::new(Vec::with_capacity(length));
    for part in data {
        joined.extend_from_slice(part);
    }
    let mut out = Zeroizing::new(vec![0; key.algorithm().tag_len()]);
    hmac::sign_to_buffer(key, &joined, &mut out).expect("the buffer has the length of the output");
    out
}

/// prf+(key, seed): T1 | T2 | ... with T(n) = prf(key, T(n-1) | seed | n), cut to `length`. It ends
/// after 255 blocks (RFC 7296 section 2.13), far beyond any set of keys.
pub fn prf_plus(prf: Prf, key: &[u8], seed: &[&[u8]], length: usize) -> Zeroizing<Vec<u8>> {
    debug_assert!(length <= 255 * prf.length());
    let key = hmac::Key::new(prf.algorithm(), key);
    // Reserved in full: growing would leave unwiped copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    let mut block = Zeroizing::new(Vec::new());
    for number in 1..=u8::MAX {
        if out.len() >= length {
            break;
        }
        let number = [number];
        let mut parts: Vec<&[u8]> = vec![block.as_slice()];
        parts.extend(seed);
        parts.push(&number);
        block = keyed(&key, &parts);
        let missing = length - out.len();
        out.extend(block.iter().take(missing));
    }
    out
}

/// The digest of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP: SHA-1 of SPIs, address
/// and port (RFC 7296 section 2.23).
pub fn nat_detection(initiator: IkeSpi, responder: IkeSpi, endpoint: SocketAddr) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&initiator.0.to_be_bytes());
    context.update(&responder.0.to_be_bytes());
    match endpoint.ip() {
        IpAddr::V4(address) => context.update(&address.octets()),
        IpAddr::V6(address) => context.update(&address.octets()),
    }
    context.update(&endpoint.port().to_be_bytes());
    let mut out = [0; 20];
    let digest = context.finish();
    out.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(out, octet)| *out = *octet);
    out
}

/// Equality in constant time: for ICVs, AUTH and cookies.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::octets;

    /// RFC 4231 section 4.3, test case 2.
    #[test]
    fn hmac_vectors_of_rfc4231() {
        let data: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        let cases = [
            (
                Prf::HmacSha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Prf::HmacSha384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
                 8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Prf::HmacSha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (kind, expected) in cases {
            assert_eq!(*prf(kind, b"Jefe", &data), octets(expected));
            assert_eq!(kind.length(), octets(expected).len());
        }
    }

    /// RFC 7296 section 2.13; the expected octets were computed with Python's `hmac`.
    #[test]
    fn prf_plus_chains_blocks_and_cuts_the_last() {
        let expected = octets(
            "a2392e429a99b173341b368bb5ce320bfd483d89567c14ec187c2d77e3c0a208ba45d21d4261\
             1712996c0cd4b329ac8681e093a8a5bbbbf0fb8c9d1cf674f7423fe3d2fbd6641ff544749daa\
             37804f04",
        );
        for length in 0..=expected.len() {
            let out = prf_plus(Prf::HmacSha256, b"key", &[b"se", b"ed"], length);
            assert_eq!(*out, expected[..length]);
        }
    }

    #[test]
    fn prf_plus_reaches_its_limit_of_255_blocks() {
        let out = prf_plus(Prf::HmacSha256, b"key", &[b"seed"], 255 * 32);
        assert_eq!(out.len(), 255 * 32);
    }

    /// RFC 7296 section 2.23; the expected octets were computed with Python's `hashlib`.
    #[test]
    fn nat_detection_covers_spis_address_and_port() {
        let (initiator, responder) = (IkeSpi(0x0102030405060708), IkeSpi(0x1112131415161718));
        let endpoint = "10.99.0.1:500".parse().unwrap();
        let digest = nat_detection(initiator, responder, endpoint);
        assert_eq!(
            digest.to_vec(),
            octets("6f9d322b7e79f8ac3f8df148125de9fb6533b6d5")
        );
        let moved = "10.99.0.1:501".parse().unwrap();
        assert_ne!(nat_detection(initiator, responder, moved), digest);
        assert_ne!(nat_detection(responder, initiator, endpoint), digest);
        let v6 = "[2001:db8::1]:500".parse().unwrap();
        assert_ne!(nat_detection(initiator, responder, v6), digest);
    }

    #[test]
    fn equality_looks_at_length_and_every_octet() {
        assert!(equal(b"", b"") && equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd") && !equal(b"abc", b"ab") && !equal(b"", b"a"));
    }
}
