//! What the configuration says of sessions.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::pbkdf2;
use zeroize::Zeroizing;

use crate::ike::crypto::prf::prf;
use crate::ike::proposal::Prf;

/// A person may have typed the cluster's secret, and a crash token, which any stranger can ask for,
/// is a function of it: guessing must be slow.
const ROUNDS: u32 = 100_000;

/// Of one connection.
#[derive(Clone, Default, Debug)]
pub struct SessionSettings {
    /// `crash_detection`: give and take the tokens of RFC 6290.
    pub crash_detection: bool,
    /// `resumption`: give tickets, and ask for some (RFC 5723); none for neither.
    pub tickets: Option<Tickets>,
    /// `over_time`: how long after its time an IKE SA that was not replaced ends; none for never.
    pub over_time: Option<Duration>,
    /// `rand_time`: up to so much sooner than `rekey_time`; none for a tenth of that.
    pub rand_time: Option<Duration>,
}

/// How long a peer may come back without authenticating in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tickets {
    /// `ticket_time`: after each ticket.
    pub ticket_time: Duration,
    /// `resumption_time`: after the last IKE_AUTH without one, however many came in between.
    pub resumption_time: Duration,
}

impl SessionSettings {
    /// Whether any of it is a function of the cluster's secret.
    pub fn needs_secret(&self) -> bool {
        self.crash_detection || self.tickets.is_some()
    }
}

/// A secret that every member makes in the same way, before and after a restart; without one there
/// are neither crash tokens nor tickets.
#[derive(Clone, Default)]
pub struct ClusterSecret(Option<Zeroizing<[u8; 32]>>);

impl ClusterSecret {
    /// From the secret that the members of a cluster share.
    pub fn new(cluster: &str, secret: &[u8]) -> ClusterSecret {
        let mut key = Zeroizing::new([0; 32]);
        let salt = [b"hitless sessions 1 ", cluster.as_bytes()].concat();
        let rounds = std::num::NonZeroU32::new(ROUNDS).unwrap_or(std::num::NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, secret, &mut *key);
        ClusterSecret(Some(key))
    }

    /// Whether there is one.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// A key of its own for each purpose; `context` goes in too.
    pub(crate) fn derive(&self, purpose: &str, context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = self.0.as_ref()?;
        let length = u8::try_from(purpose.len()).ok()?;
        let parts = [&[length], purpose.as_bytes(), context];
        Some(prf(Prf::HmacSha256, key.as_slice(), &parts))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "redacted" } else { "none" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_derives_the_same_and_every_purpose_another() {
        let [one, two] = [0, 1].map(|_| ClusterSecret::new("hq", b"sixteen octets.."));
        let key = one.derive("a", b"bc").unwrap();
        assert_eq!(key, two.derive("a", b"bc").unwrap());
        assert_ne!(key, one.derive("ab", b"c").unwrap());
        assert_ne!(
            key,
            ClusterSecret::new("hq2", b"sixteen octets..")
                .derive("a", b"bc")
                .unwrap()
        );
        assert_eq!(ClusterSecret::default().derive("a", b""), None);
        assert_eq!(format!("{one:?}"), "redacted");
    }
}
