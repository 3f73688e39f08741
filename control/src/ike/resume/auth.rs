//! AUTH of a resumed IKE SA: both ends show that they have its keys, which derive from those of the
//! old one (RFC 5723 section 5.1). AUTH = prf(SK_px, <message octets>), where the octets are the
//! first message of the one who shows it.

use crate::ike::auth::Proof;
use crate::ike::crypto::prf::{equal, prf};
use crate::ike::keys::{IkeKeys, Side};

/// "Shared Key Message Integrity Code" (RFC 7296 section 3.8).
const METHOD: u8 = 2;

fn code(keys: &IkeKeys, side: Side, message: &[u8]) -> Vec<u8> {
    prf(keys.proposal().prf, keys.sk_p(side), &[message]).to_vec()
}

/// Our proof.
pub(in crate::ike) fn prove(keys: &IkeKeys, side: Side, message: &[u8]) -> Proof {
    Proof {
        certificates: Vec::new(),
        method: METHOD,
        data: code(keys, side, message),
    }
}

/// Whether the peer's is right.
pub(in crate::ike) fn proof(
    keys: &IkeKeys,
    side: Side,
    message: &[u8],
    (method, data): (u8, &[u8]),
) -> bool {
    method == METHOD && equal(&code(keys, side, message), data)
}
