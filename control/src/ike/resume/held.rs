//! Tickets that peers gave us: kept with the IKE SA through failover, asked for anew after rekeying
//! (RFC 5723 section 6.2), and used when that is lost without a word (section 4.1).

use std::fmt;
use std::time::Duration;

use hitless_sa::Instant;
use zeroize::{Zeroize, Zeroizing};

use super::super::auth::{CertificationPath, Grounds, GroundsRecord, Proven};
use super::super::proposal::{Identification, IkeProposal};
use crate::ike::contents::Contents;
use crate::ike::established::{IkeSa, State};
use crate::ike::message::{Exchange, NotifyKind};
use crate::ike::tasks::{Pending, Task};
use crate::ike::turn::{Effect, Turn};

/// A longer ticket would not come through in one datagram, as it must.
const LONGEST_TICKET: usize = 1200;
/// One for longer is not kept for longer.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// A ticket that is sooner over is not worth asking again.
const SHORTEST: Duration = Duration::from_secs(60);

/// A ticket, with what we need to use it.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::ike) struct Held {
    pub ticket: Vec<u8>,
    pub until: Instant,
    /// Another one is to be asked for then.
    pub renew_at: Option<Instant>,
    pub proposal: IkeProposal,
    pub sk_d: Zeroizing<Vec<u8>>,
    pub local_id: Identification,
    pub remote_id: Identification,
    pub proven: Proven,
    pub ppk: bool,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("remote_id", &self.remote_id)
            .field("proposal", &self.proposal)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::ike) struct HeldRecord {
    #[prost(bytes = "vec", tag = "1")]
    ticket: Vec<u8>,
    /// Nanoseconds, like the next.
    #[prost(uint64, tag = "2")]
    counts_for: u64,
    #[prost(uint64, optional, tag = "3")]
    renew_in: Option<u64>,
    #[prost(string, tag = "4")]
    proposal: String,
    #[prost(bytes = "vec", tag = "5")]
    sk_d: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    remote_id: Vec<u8>,
    #[prost(string, tag = "7")]
    method: String,
    #[prost(bytes = "vec", tag = "8")]
    certificate: Vec<u8>,
    #[prost(uint64, optional, tag = "9")]
    not_after: Option<u64>,
    #[prost(bool, tag = "10")]
    ppk: bool,
    #[prost(bytes = "vec", tag = "101")]
    local_id: Vec<u8>,
    #[prost(message, optional, tag = "100")]
    grounds: Option<GroundsRecord>,
}

impl Zeroize for HeldRecord {
    fn zeroize(&mut self) {
        self.sk_d.zeroize();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Held {
    pub fn to_record(&self, now: Instant) -> HeldRecord {
        let proven = &self.proven;
        HeldRecord {
            ticket: self.ticket.clone(),
            counts_for: nanoseconds(self.until.since(now)),
            renew_in: self.renew_at.map(|at| nanoseconds(at.since(now))),
            proposal: self.proposal.to_string(),
            sk_d: self.sk_d.to_vec(),
            remote_id: self.remote_id.to_body(),
            local_id: self.local_id.to_body(),
            method: proven.method.clone(),
            certificate: proven.certificate.map_or_else(Vec::new, Vec::from),
            not_after: proven.not_after,
            ppk: self.ppk,
            grounds: proven.grounds.as_ref().map(|grounds| grounds.to_record()),
        }
    }

    /// `None` if it makes no sense: the IKE SA does without.
    pub fn from_record(record: &HeldRecord, now: Instant) -> Option<Held> {
        let identity = |body: &[u8]| {
            let (head, data) = body.split_first_chunk::<4>()?;
            Identification::from_wire(head[0], data)
        };
        let grounds = record.grounds.as_ref().and_then(Grounds::from_record);
        Some(Held {
            ticket: record.ticket.clone(),
            until: now + Duration::from_nanos(record.counts_for),
            renew_at: record.renew_in.map(|time| now + Duration::from_nanos(time)),
            proposal: record.proposal.parse().ok()?,
            sk_d: Zeroizing::new(record.sk_d.clone()),
            local_id: identity(&record.local_id)?,
            remote_id: identity(&record.remote_id)?,
            proven: Proven {
                method: record.method.clone(),
                certificate: record.certificate.as_slice().try_into().ok(),
                not_after: record.not_after,
                path: CertificationPath::of_grounds(grounds.as_ref()),
                grounds,
                // Gateways sign.
                user: None,
            },
            ppk: record.ppk,
        })
    }
}

impl IkeSa {
    /// Keeps the ticket that a response brings: TICKET_LT_OPAQUE is a lifetime in seconds and the
    /// ticket (RFC 5723 section 7.2).
    pub fn take_ticket(&mut self, turn: &mut Turn<'_>, contents: &Contents<'_>) {
        let wanted = self.connection.session.tickets.is_some();
        let given = contents.notify(NotifyKind::TICKET_LT_OPAQUE);
        let Some((lifetime, ticket)) = given.and_then(|n| n.data.split_first_chunk::<4>()) else {
            return;
        };
        let lifetime = Duration::from_secs(u32::from_be_bytes(*lifetime).into()).min(LONGEST);
        if !wanted || lifetime.is_zero() || !(1..=LONGEST_TICKET).contains(&ticket.len()) {
            return;
        }
        let renew = lifetime / 2;
        self.session.ticket = Some(Held {
            ticket: ticket.to_vec(),
            until: turn.now + lifetime,
            renew_at: (renew >= SHORTEST).then(|| turn.now + turn.jitter(renew)),
            proposal: self.proposal,
            sk_d: Zeroizing::new(self.keys.sk_d().to_vec()),
            local_id: self.local_id.clone(),
            remote_id: self.remote_id.clone(),
            proven: self.authenticated.proven.clone(),
            ppk: self.authenticated.ppk,
        });
        turn.dirty = true;
    }

    /// Asks for another ticket in good time.
    pub fn renew_ticket(&mut self, turn: &Turn<'_>) {
        let held = self.session.ticket.as_mut();
        if let Some(held) = held.filter(|held| held.renew_at.is_some_and(|at| at <= turn.now)) {
            held.renew_at = None;
            self.schedule(turn.now, Task::AskTicket);
        }
    }

    /// When that is due.
    pub fn renew_at(&self) -> Option<Instant> {
        self.session.ticket.as_ref().and_then(|held| held.renew_at)
    }

    pub fn ask_ticket(&mut self, turn: &mut Turn<'_>) {
        if let Some(ask) = super::request(&self.connection) {
            let asked = Pending::Duty(Task::AskTicket);
            self.request(turn, Exchange::Informational, &[ask], asked);
        }
    }

    /// The peer has lost it, or we have lost the peer: the ticket is for this. What either end
    /// deletes is over (RFC 5723 section 6.2).
    pub fn lose(&mut self, turn: &mut Turn<'_>, reason: &str) {
        // RFC 5723 section 6.2: not what either side has closed.
        let ended = self.terminated || self.state == State::Deleting;
        if let Some(held) = self.session.ticket.take().filter(|_| !ended) {
            let connection = self.connection.name.clone();
            turn.effects
                .push(Effect::Resumable(connection, Box::new(held)));
        }
        self.destroy(turn, reason);
    }
}
