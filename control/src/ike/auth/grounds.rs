//! The grounds on which a peer was believed. They are kept where it may come back on the strength
//! of that alone, with a ticket (RFC 5723), and are looked at again when it does: by the secrets,
//! anchors and revocation lists of that day.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::Proven;
use super::ppk::{Ppk, PpkSettings};
use super::psk;
use super::settings::RemoteAuth;
use crate::ike::crypto::prf::equal;
use crate::ike::eap;
use crate::ike::proposal::Identification;
use crate::ike::sessions::ClusterSecret;
use crate::ike::settings::{Connection, EngineSettings};

/// Octets of a chain that is kept: a ticket is sent in one datagram, as nothing in clear can be
/// fragmented. Whoever shows a longer one gets no ticket.
const LONGEST_CHAIN: usize = 1 << 10;

/// Why a peer was believed, and when.
#[derive(Clone, PartialEq, Eq)]
pub struct Grounds {
    by: By,
    /// Of the postquantum preshared key that was mixed in.
    ppk: Option<Vec<u8>>,
    /// Seconds since 1970.
    at: u64,
}

#[derive(Clone, PartialEq, Eq)]
enum By {
    /// A digest of the secret and of whom it is for, of no use without the cluster's own secret.
    Secret(Vec<u8>),
    /// The peer's certificate and those that led to the anchor, in DER.
    Chain(Vec<Vec<u8>>),
}

impl fmt::Debug for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.by {
            By::Secret(_) => "Grounds(psk)",
            By::Chain(_) => "Grounds(chain)",
        })
    }
}

/// The record of it, in an IKE SA's and in a ticket.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::ike) struct GroundsRecord {
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    chain: Vec<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    ppk: Option<Vec<u8>>,
    #[prost(uint64, tag = "4")]
    at: u64,
}

/// What grounds are made of, when a peer has just proved who it is.
pub(super) enum Evidence<'a> {
    Secret {
        secret: &'a [u8],
        local: &'a Identification,
        remote: &'a Identification,
    },
    Chain(Vec<Vec<u8>>),
}

fn of_secret(
    key: &ClusterSecret,
    secret: &[u8],
    local: &Identification,
    remote: &Identification,
) -> Option<Vec<u8>> {
    let mut context = Vec::new();
    for id in [local.to_body(), remote.to_body()] {
        context.extend(u32::try_from(id.len()).ok()?.to_be_bytes());
        context.extend(id);
    }
    let context = zeroize::Zeroizing::new([context.as_slice(), secret].concat());
    Some(key.derive("grounds psk", &context)?.to_vec())
}

fn of_ppk(key: &ClusterSecret, ppk: &Ppk) -> Option<Vec<u8>> {
    Some(key.derive("grounds ppk", &ppk.key)?.to_vec())
}

impl Grounds {
    /// What to keep of a proof; nothing where the peer gets no ticket anyway.
    pub(super) fn of(
        settings: &EngineSettings,
        connection: &Connection,
        time: Option<Duration>,
        shown: Evidence<'_>,
        ppk: Option<&Ppk>,
    ) -> Option<Arc<Grounds>> {
        connection.session.tickets?;
        let key = &settings.cluster_secret;
        let by = match shown {
            Evidence::Secret {
                secret,
                local,
                remote,
            } => By::Secret(of_secret(key, secret, local, remote)?),
            Evidence::Chain(chain) => {
                let length: usize = chain.iter().map(Vec::len).sum();
                (length <= LONGEST_CHAIN).then_some(By::Chain(chain))?
            }
        };
        let ppk = match ppk {
            Some(ppk) => Some(of_ppk(key, ppk)?),
            None => None,
        };
        let at = time?.as_secs();
        Some(Arc::new(Grounds { by, ppk, at }))
    }

    /// The certificates, if it was by them.
    pub(super) fn chain(&self) -> Option<&[Vec<u8>]> {
        match &self.by {
            By::Secret(_) => None,
            By::Chain(chain) => Some(chain),
        }
    }

    /// Seconds since 1970.
    pub(in crate::ike) fn at(&self) -> u64 {
        self.at
    }

    pub(in crate::ike) fn to_record(&self) -> GroundsRecord {
        let (secret, chain) = match &self.by {
            By::Secret(digest) => (digest.clone(), Vec::new()),
            By::Chain(chain) => (Vec::new(), chain.clone()),
        };
        GroundsRecord {
            secret,
            chain,
            ppk: self.ppk.clone(),
            at: self.at,
        }
    }

    /// `None` if it makes no sense: then there is no ticket.
    pub(in crate::ike) fn from_record(record: &GroundsRecord) -> Option<Arc<Grounds>> {
        let by = match (record.secret.is_empty(), record.chain.is_empty()) {
            (false, true) => By::Secret(record.secret.clone()),
            (true, false) => By::Chain(record.chain.clone()),
            _ => return None,
        };
        Some(Arc::new(Grounds {
            by,
            ppk: record.ppk.clone(),
            at: record.at,
        }))
    }
}

impl Proven {
    /// Whether the same proof would do today, for a connection that is meant for both: the secret
    /// is the same, or the chain leads to an anchor and no list revokes any of it.
    pub(in crate::ike) fn holds(
        &self,
        settings: &EngineSettings,
        connection: &Connection,
        (local, remote): (&Identification, &Identification),
        time: Duration,
    ) -> Result<(), &'static str> {
        let grounds = self.grounds.as_ref().ok_or("ticket without its grounds")?;
        let key = &settings.cluster_secret;
        match (&grounds.by, &connection.auth.remote) {
            (By::Secret(digest), RemoteAuth::Psk) => {
                let secret = psk::secret(&settings.secrets, local, remote);
                let now = secret.and_then(|secret| of_secret(key, secret, local, remote));
                if !now.is_some_and(|now| equal(&now, digest)) {
                    return Err("ticket of another pre-shared key");
                }
            }
            (By::Secret(digest), RemoteAuth::Eap(users)) => {
                let user = self
                    .user
                    .as_ref()
                    .filter(|user| users.include(user, remote));
                let user = user.ok_or("ticket of a user who is not meant")?;
                let now = eap::account(&settings.secrets, user)
                    .and_then(|(_, secret)| of_secret(key, secret, local, user));
                if !now.is_some_and(|now| equal(&now, digest)) {
                    return Err("ticket of another password");
                }
            }
            (By::Chain(chain), RemoteAuth::Pubkey(accepted)) => {
                let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
                let verified = accepted.trust.verify(&chain, time);
                let verified =
                    verified.map_err(|_| "ticket of a certificate that is good no more")?;
                if !verified.certificate.confirms(remote) {
                    return Err("ticket of another's certificate");
                }
                if !accepted.family.allows_named(&self.method) {
                    return Err("ticket of a signature that remote.auth excludes");
                }
            }
            _ => return Err("ticket of another kind of authentication"),
        }
        mixed(key, grounds.ppk.as_deref(), connection.auth.ppk.as_ref())
    }
}

/// Whether the postquantum preshared key, or the lack of one, would do today (RFC 8784 section 3).
fn mixed(
    key: &ClusterSecret,
    digest: Option<&[u8]>,
    settings: Option<&PpkSettings>,
) -> Result<(), &'static str> {
    let Some(digest) = digest else {
        return match settings.is_some_and(|settings| settings.required) {
            true => Err("ticket without the PPK that is required"),
            false => Ok(()),
        };
    };
    let mut keys = settings.iter().flat_map(|settings| &settings.keys);
    let known = |ppk: &Ppk| of_ppk(key, ppk).is_some_and(|now| equal(&now, digest));
    match keys.any(known) {
        true => Ok(()),
        false => Err("ticket of another PPK"),
    }
}
