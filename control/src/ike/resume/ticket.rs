//! Tickets that we give: the state of an IKE SA, sealed with a key that every member has.
//!
//! ```text
//!  2 | day (4) | salt (16) | AES-256-GCM of a `TicketRecord`
//! ```
//!
//! The key is a function of the cluster's secret, the day and the salt: another one for each ticket,
//! so that members need not agree on nonces, and none of a day that is long over opens anything.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use prost::Message;
use zeroize::{Zeroize, Zeroizing};

use crate::ike::auth::{Authenticated, CertificationPath, Grounds, GroundsRecord, Proven};
use crate::ike::established::IkeSa;
use crate::ike::initial::{addresses_match, local_identity};
use crate::ike::nat::Path;
use crate::ike::proposal::{Identification, IkeProposal};
use crate::ike::settings::{Connection, EngineSettings};
use crate::ike::turn::Turn;
use hitless_sa::IkeSpi;

const VERSION: u8 = 2;
const SALT: usize = 16;
const HEADER: usize = 1 + 4 + SALT;
const DAY: u64 = 24 * 3600;
/// No ticket lives longer, whatever the configuration says.
const LONGEST: Duration = Duration::from_secs(7 * DAY);
/// Longer ones are not ours: the AEAD is not asked.
const LONGEST_TICKET: usize = 1200;

#[derive(Clone, PartialEq, prost::Message)]
struct TicketRecord {
    #[prost(string, tag = "1")]
    connection: String,
    #[prost(fixed64, tag = "2")]
    ike: u64,
    #[prost(bytes = "vec", tag = "3")]
    local_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    remote_id: Vec<u8>,
    #[prost(string, tag = "5")]
    proposal: String,
    #[prost(bytes = "vec", tag = "6")]
    sk_d: Vec<u8>,
    /// Seconds since 1970, like the two that follow.
    #[prost(uint64, tag = "7")]
    expires: u64,
    #[prost(uint64, optional, tag = "8")]
    reauth: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    not_after: Option<u64>,
    #[prost(string, tag = "10")]
    method: String,
    #[prost(bytes = "vec", tag = "11")]
    certificate: Vec<u8>,
    #[prost(bool, tag = "12")]
    ppk: bool,
    #[prost(message, optional, tag = "100")]
    grounds: Option<GroundsRecord>,
    /// The name of the EAP user.
    #[prost(string, optional, tag = "150")]
    user: Option<String>,
}

impl Zeroize for TicketRecord {
    fn zeroize(&mut self) {
        self.sk_d.zeroize();
    }
}

/// What a ticket says.
pub(in crate::ike) struct Session {
    pub connection: String,
    /// The IKE SA that it was given on, or the first ancestor of that.
    pub ike: IkeSpi,
    pub local_id: Identification,
    pub remote_id: Identification,
    pub proposal: IkeProposal,
    pub sk_d: Zeroizing<Vec<u8>>,
    /// When the peer has to authenticate in full, in seconds since 1970.
    pub reauth: Option<u64>,
    pub proven: Proven,
    pub ppk: bool,
}

fn key(settings: &EngineSettings, head: &[u8]) -> Option<LessSafeKey> {
    let key = settings.cluster_secret.derive("ticket", head)?;
    UnboundKey::new(&AES_256_GCM, &key)
        .ok()
        .map(LessSafeKey::new)
}

/// Every key seals one ticket.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// A ticket for the peer of an IKE SA, and how long it counts; `None` if the connection wants no
/// resumption, or without the cluster's secret or the time of day.
pub(super) fn issue(ike: &IkeSa, turn: &mut Turn<'_>) -> Option<(Duration, Vec<u8>)> {
    let wanted = ike.connection.session.tickets?;
    let time = turn.settings.time_of_day.at(turn.now)?;
    let grounds = ike.authenticated.proven.grounds.as_ref()?;
    let whole = Duration::from_secs(grounds.at()) + wanted.resumption_time;
    // RFC 5723 section 6.2: it must not outlive what it stands for.
    let reauth = ike.authenticated.reauth_at.map(|at| at.since(turn.now));
    let certificate = ike.authenticated.proven.not_after;
    let certificate = certificate.map(|end| Duration::from_secs(end).saturating_sub(time));
    let whole = Some(whole.saturating_sub(time));
    let limits = [reauth, certificate, whole].into_iter().flatten();
    let lifetime = limits.fold(wanted.ticket_time.min(LONGEST), Duration::min);
    if lifetime.as_secs() == 0 {
        return None;
    }
    let record = Zeroizing::new(TicketRecord {
        connection: ike.connection.name.clone(),
        ike: ike.origin().0,
        local_id: ike.local_id.to_body(),
        remote_id: ike.remote_id.to_body(),
        proposal: ike.proposal.to_string(),
        sk_d: ike.keys.sk_d().to_vec(),
        expires: (time + lifetime).as_secs(),
        reauth: reauth.map(|left| (time + left).as_secs()),
        not_after: ike.authenticated.proven.not_after,
        method: ike.authenticated.proven.method.clone(),
        certificate: ike
            .authenticated
            .proven
            .certificate
            .map_or_else(Vec::new, Vec::from),
        ppk: ike.authenticated.ppk,
        grounds: Some(grounds.to_record()),
        user: ike
            .authenticated
            .proven
            .user
            .as_ref()
            .map(Identification::to_string),
    });
    let mut salt = [0; SALT];
    turn.entropy.fill(&mut salt);
    let ticket = seal(turn.settings, time, salt, &record)?;
    // IKE_SESSION_RESUME is in clear, so nothing can fragment it: it fits any link, or would cost its
    // client seconds on the way to a full exchange.
    (ticket.len() <= LONGEST_TICKET).then_some((lifetime, ticket))
}

fn seal(
    settings: &EngineSettings,
    time: Duration,
    salt: [u8; SALT],
    record: &TicketRecord,
) -> Option<Vec<u8>> {
    let day = u32::try_from(time.as_secs() / DAY).ok()?;
    let mut ticket = vec![VERSION];
    ticket.extend(day.to_be_bytes());
    ticket.extend(salt);
    let mut sealed = Zeroizing::new(record.encode_to_vec());
    let tag = key(settings, &ticket)?
        .seal_in_place_separate_tag(nonce(), Aad::from(&ticket), &mut sealed)
        .ok()?;
    ticket.extend_from_slice(&sealed);
    ticket.extend(tag.as_ref());
    Some(ticket)
}

/// What a ticket says, if a member of this cluster gave it and it still counts.
fn open(settings: &EngineSettings, time: Duration, ticket: &[u8]) -> Option<Session> {
    let (head, sealed) = ticket.split_at_checked(HEADER)?;
    let (version, rest) = head.split_first()?;
    let (day, _) = rest.split_first_chunk::<4>()?;
    let day = u64::from(u32::from_be_bytes(*day));
    let today = time.as_secs() / DAY;
    let recent = day <= today + 1 && today <= day + LONGEST.as_secs() / DAY;
    if *version != VERSION || !recent || ticket.len() > LONGEST_TICKET {
        return None;
    }
    let mut plain = Zeroizing::new(sealed.to_vec());
    let opened = key(settings, head)?
        .open_in_place(nonce(), Aad::from(head), &mut plain)
        .ok()?;
    let record = Zeroizing::new(TicketRecord::decode(&*opened).ok()?);
    let identity = |body: &[u8]| {
        let (head, data) = body.split_first_chunk::<4>()?;
        Identification::from_wire(head[0], data)
    };
    (time.as_secs() < record.expires).then_some(())?;
    let grounds = record.grounds.as_ref().and_then(Grounds::from_record);
    Some(Session {
        connection: record.connection.clone(),
        ike: IkeSpi(record.ike),
        local_id: identity(&record.local_id)?,
        remote_id: identity(&record.remote_id)?,
        proposal: record.proposal.parse().ok()?,
        sk_d: Zeroizing::new(record.sk_d.clone()),
        reauth: record.reauth,
        proven: Proven {
            method: record.method.clone(),
            certificate: record.certificate.as_slice().try_into().ok(),
            not_after: record.not_after,
            path: CertificationPath::of_grounds(grounds.as_ref()),
            grounds,
            user: record.user.clone().map(Identification::Eap),
        },
        ppk: record.ppk,
    })
}

/// What a ticket stands for, if the connection that it was given for would have the peer today.
pub(in crate::ike) fn is_welcome(
    turn: &Turn<'_>,
    connections: &[Arc<Connection>],
    path: Path,
    ticket: &[u8],
) -> Result<(Arc<Connection>, Session), &'static str> {
    let time = turn.settings.time_of_day.at(turn.now);
    let time = time.ok_or("ticket without the time of day")?;
    let session = open(turn.settings, time, ticket).ok_or("no ticket of ours")?;
    let connection = session.counts(turn, connections, path)?;
    Ok((connection, session))
}

impl Session {
    /// The connection that it was given for, if the peer is as welcome there as it was then: the
    /// policy and the credentials of today count, not those of the ticket.
    pub fn counts(
        &self,
        turn: &Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
    ) -> Result<Arc<Connection>, &'static str> {
        let time = turn.settings.time_of_day.at(turn.now);
        let time = time.ok_or("ticket without the time of day")?;
        let mut named = connections.iter().filter(|c| c.name == self.connection);
        let connection = named.next().ok_or("ticket of no connection")?;
        let ids = self.local_id == local_identity(connection, path)
            && self.remote_id.matches(&connection.remote_id);
        let proposed = connection.proposals.contains(&self.proposal);
        if !ids || !proposed || !addresses_match(connection, path) {
            return Err("ticket against the configuration");
        }
        is_young(connection, &self.proven, time)?;
        let ends = (&self.local_id, &self.remote_id);
        self.proven.holds(turn.settings, connection, ends, time)?;
        Ok(connection.clone())
    }
}

/// Whether the last IKE_AUTH in full was not too long ago to resume.
pub(super) fn is_young(
    connection: &Connection,
    proven: &Proven,
    time: Duration,
) -> Result<(), &'static str> {
    let tickets = connection
        .session
        .tickets
        .ok_or("ticket where none counts")?;
    let grounds = proven
        .grounds
        .as_ref()
        .ok_or("ticket without its grounds")?;
    let end = Duration::from_secs(grounds.at()) + tickets.resumption_time;
    match time < end {
        true => Ok(()),
        false => Err("ticket of an authentication that is too old"),
    }
}

impl Session {
    /// What the resumed IKE SA knows of the peer's authentication, which is not made younger.
    pub fn authenticated(&self, turn: &Turn<'_>) -> Authenticated {
        let time = turn.settings.time_of_day.at(turn.now).unwrap_or_default();
        let left = |end: u64| Duration::from_secs(end).saturating_sub(time);
        Authenticated {
            proven: self.proven.clone(),
            ppk: self.ppk,
            reauth_at: self.reauth.map(|end| turn.now + left(end)),
            ..Authenticated::default()
        }
    }
}

#[cfg(test)]
mod tests;
