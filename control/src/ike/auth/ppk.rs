//! Postquantum preshared keys (RFC 8784): a key known beforehand is mixed into SK_d, SK_pi and
//! SK_pr, so that who breaks the key exchange some day still lacks it.

use std::fmt;

use zeroize::Zeroizing;

use crate::ike::contents::Contents;
use crate::ike::message::{Notify, NotifyKind, Payload};
use crate::ike::proposal::Identification;

/// PPK_ID types (RFC 8784 section 5.1).
const PPK_ID_FIXED: u8 = 2;
/// Octets of a PPK identity that are looked at.
const LONGEST_ID: usize = 256;

/// `ppk_id`, `ppk_required` and the keys that fit.
#[derive(Clone, Debug)]
pub struct PpkSettings {
    /// Which PPK identities the peer may use.
    pub id: Identification,
    /// Those of `[secrets]` that match it; the first is the one that we propose.
    pub keys: Vec<Ppk>,
    /// No IKE SA without.
    pub required: bool,
}

/// A postquantum preshared key.
#[derive(Clone)]
pub struct Ppk {
    pub id: Identification,
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Ppk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ppk({}, redacted)", self.id)
    }
}

/// The octets of the identity as both ends must have them.
fn octets(id: &Identification) -> Vec<u8> {
    id.to_body().get(4..).unwrap_or_default().to_vec()
}

/// "I can use a PPK", in IKE_SA_INIT (RFC 8784 section 3).
pub(in crate::ike) fn announcement() -> Payload {
    Payload::notify(NotifyKind::USE_PPK, &[])
}

impl Ppk {
    /// PPK_IDENTITY of an IKE_AUTH request (RFC 8784 section 3).
    pub(in crate::ike) fn identity(&self) -> Payload {
        let mut data = vec![PPK_ID_FIXED];
        data.extend(octets(&self.id));
        Payload::notify(NotifyKind::PPK_IDENTITY, &data)
    }
}

impl PpkSettings {
    /// The key that an IKE_AUTH request names.
    pub(in crate::ike) fn named(&self, contents: &Contents<'_>) -> Option<&Ppk> {
        let notify = contents.notify(NotifyKind::PPK_IDENTITY)?;
        let (kind, id) = notify.data.split_first()?;
        let usable = *kind == PPK_ID_FIXED && !id.is_empty() && id.len() <= LONGEST_ID;
        let mut keys = self.keys.iter();
        keys.find(|ppk| usable && octets(&ppk.id) == id)
    }
}

/// AUTH without the PPK, for a responder that does not have it (RFC 8784 section 3).
pub(in crate::ike) fn without(auth: &[u8]) -> Payload {
    Payload::notify(NotifyKind::NO_PPK_AUTH, auth)
}

/// The AUTH data of NO_PPK_AUTH.
pub(in crate::ike) fn offered_without<'a>(contents: &Contents<'a>) -> Option<&'a [u8]> {
    let notify: &'a Notify = contents.notify(NotifyKind::NO_PPK_AUTH)?;
    Some(&notify.data)
}
