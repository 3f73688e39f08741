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

fn keyed(key: &hmac::Key, data: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut context = hmac::Context::with_key(key);
    for part in data {
        context.update(part);
    }
    Zeroizing::new(context.sign().as_ref().to_vec())
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
