//! The AUTH payload with a pre-shared key (RFC 7296 section 2.15).

use super::crypto::prf::{equal, prf};
use super::proposal::Prf;

/// Mixed into the secret so that no other protocol's use of it helps here.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// AUTH = prf(prf(secret, "Key Pad for IKEv2"), message | nonce | prf(SK_p, ID)).
///
/// `message` is the signer's first message as it was sent (without non-ESP marker), `nonce` is the
/// other side's, `sk_p` the signer's, and `id` the body of the signer's ID payload. `intermediate`
/// is IntAuth (RFC 9242 section 3.3.2), empty without IKE_INTERMEDIATE.
pub fn psk_auth(
    kind: Prf,
    secret: &[u8],
    message: &[u8],
    nonce: &[u8],
    sk_p: &[u8],
    id: &[u8],
    intermediate: &[u8],
) -> Vec<u8> {
    let key = prf(kind, secret, &[KEY_PAD]);
    let maced_id = prf(kind, sk_p, &[id]);
    prf(kind, &key, &[message, nonce, &maced_id, intermediate]).to_vec()
}

/// Whether a peer's AUTH is the expected one, in constant time.
pub fn verify(expected: &[u8], received: &[u8]) -> bool {
    equal(expected, received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::message::IdBody;
    use crate::ike::octets;

    /// RFC 7296 section 2.15; the expected octets were computed with Python's `hmac`.
    #[test]
    fn auth_of_a_shared_key() {
        let id = IdBody::new("gw.example.org".parse().unwrap());
        let nonce: Vec<u8> = (100..132).collect();
        let sk_p = octets("d62e246f9523ab8bb89339a68e1a8d8a74b1ac3ade8b89db194bde5e7d6df185");
        let auth = |secret: &[u8], message: &[u8], id: &[u8]| {
            psk_auth(Prf::HmacSha256, secret, message, &nonce, &sk_p, id, &[])
        };
        let ours = auth(b"not-so-secret", b"message", &id.raw);
        let expected = octets("7e76b6e354fb5c21e67327e50f03ee4cf64e2b1e8e9498bc1459fe9fd6e467e2");
        assert_eq!(ours, expected);
        assert!(verify(&expected, &ours));
        assert!(!verify(
            &expected,
            &auth(b"not-so-secreT", b"message", &id.raw)
        ));
        assert!(!verify(
            &expected,
            &auth(b"not-so-secret", b"Message", &id.raw)
        ));
        assert!(!verify(
            &expected,
            &auth(b"not-so-secret", b"message", &id.raw[1..])
        ));
        assert!(!verify(&expected, &expected[..31]) && !verify(&expected, &[]));
    }
}
