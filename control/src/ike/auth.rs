//! The AUTH payload with a pre-shared key (RFC 7296 section 2.15).

use super::crypto::prf::{equal, prf};
use super::proposal::Prf;

/// Mixed into the secret so that no other protocol's use of it helps here.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// AUTH = prf(prf(secret, "Key Pad for IKEv2"), message | nonce | prf(SK_p, ID)).
///
/// `message` is the signer's first message as it was sent (without non-ESP marker), `nonce` is the
/// other side's, `sk_p` the signer's, and `id` the body of the signer's ID payload.
pub fn psk_auth(
    kind: Prf,
    secret: &[u8],
    message: &[u8],
    nonce: &[u8],
    sk_p: &[u8],
    id: &[u8],
) -> Vec<u8> {
    let key = prf(kind, secret, &[KEY_PAD]);
    let maced_id = prf(kind, sk_p, &[id]);
    prf(kind, &key, &[message, nonce, &maced_id]).to_vec()
}

/// Whether a peer's AUTH is the expected one, in constant time.
pub fn verify(expected: &[u8], received: &[u8]) -> bool {
    equal(expected, received)
}
