//! What AUTH covers (RFC 7296 section 2.15).

use crate::ike::crypto::prf::prf;
use crate::ike::proposal::Prf;

/// The signer's first message, the other side's nonce, and the signer's identity.
#[derive(Clone, Copy)]
pub struct SignedOctets<'a> {
    pub prf: Prf,
    /// The signer's IKE_SA_INIT message as it was sent, without non-ESP marker.
    pub message: &'a [u8],
    /// The other side's.
    pub nonce: &'a [u8],
    /// SK_pi or SK_pr, the signer's.
    pub sk_p: &'a [u8],
    /// Body of the signer's ID payload.
    pub id: &'a [u8],
    /// IntAuth of IKE_INTERMEDIATE (RFC 9242 section 3.3.2); empty without that exchange.
    pub intermediate: &'a [u8],
}

impl SignedOctets<'_> {
    /// RealMessage | NonceData | prf(SK_p, RestOfIDPayload) [| IntAuth].
    pub fn to_vec(self) -> Vec<u8> {
        let maced_id = prf(self.prf, self.sk_p, &[self.id]);
        [self.message, self.nonce, &maced_id, self.intermediate].concat()
    }
}
