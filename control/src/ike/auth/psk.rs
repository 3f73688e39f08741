//! AUTH with a pre-shared key (RFC 7296 section 2.15).

use zeroize::Zeroizing;

use super::octets::SignedOctets;
use crate::ike::crypto::prf::prf;
use crate::ike::proposal::Identification;
use crate::ike::settings::Secret;

/// Mixed into the secret so that no other protocol's use of it helps here.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// AUTH = prf(prf(secret, "Key Pad for IKEv2"), octets).
pub fn psk_auth(secret: &[u8], signed: SignedOctets<'_>) -> Vec<u8> {
    let key = prf(signed.prf, secret, &[KEY_PAD]);
    prf(signed.prf, &key, &[&signed.to_vec()]).to_vec()
}

/// The secret for a pair of identities: that which names the peer before that which names us
/// before that which names nobody.
pub(in crate::ike) fn secret<'s>(
    secrets: &'s [Secret],
    local: &Identification,
    remote: &Identification,
) -> Option<&'s Zeroizing<Vec<u8>>> {
    let rank = |ids: &[Identification]| {
        let names = |id: &Identification| ids.iter().any(|pattern| id.matches(pattern));
        match (names(remote), names(local)) {
            _ if ids.is_empty() => Some(0),
            (false, false) => None,
            (remote, local) => Some(2 * u8::from(remote) + u8::from(local)),
        }
    };
    let ranked = secrets.iter().filter_map(|s| Some((rank(&s.ids)?, s)));
    // The first of equals, as the configuration orders them.
    let best = ranked.rev().max_by_key(|(rank, _)| *rank)?;
    Some(&best.1.secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::crypto::prf::equal;
    use crate::ike::message::IdBody;
    use crate::ike::octets;
    use crate::ike::proposal::Prf;

    /// RFC 7296 section 2.15; the expected octets were computed with Python's `hmac`.
    #[test]
    fn auth_of_a_shared_key() {
        let id = IdBody::new("gw.example.org".parse().unwrap());
        let nonce: Vec<u8> = (100..132).collect();
        let sk_p = octets("d62e246f9523ab8bb89339a68e1a8d8a74b1ac3ade8b89db194bde5e7d6df185");
        let auth = |secret: &[u8], message: &[u8], id: &[u8]| {
            let signed = SignedOctets {
                prf: Prf::HmacSha256,
                message,
                nonce: &nonce,
                sk_p: &sk_p,
                id,
                intermediate: &[],
            };
            psk_auth(secret, signed)
        };
        let ours = auth(b"not-so-secret", b"message", &id.raw);
        let expected = octets("7e76b6e354fb5c21e67327e50f03ee4cf64e2b1e8e9498bc1459fe9fd6e467e2");
        assert_eq!(ours, expected);
        let differs = |other: Vec<u8>| !equal(&expected, &other);
        assert!(differs(auth(b"not-so-secreT", b"message", &id.raw)));
        assert!(differs(auth(b"not-so-secret", b"Message", &id.raw)));
        assert!(differs(auth(b"not-so-secret", b"message", &id.raw[1..])));
    }
}
