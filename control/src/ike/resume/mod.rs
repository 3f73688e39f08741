//! Session resumption (RFC 5723): a peer that lost an IKE SA comes back with a ticket, in two round
//! trips without a key exchange or certificates.
//!
//! ```text
//!  IKE_AUTH            N(TICKET_REQUEST) ->  <- N(TICKET_LT_OPAQUE)         of any IKE SA
//!  IKE_SESSION_RESUME  Ni, N(TICKET_OPAQUE) ->  <- Nr, or N(COOKIE), or N(TICKET_NACK)
//!  IKE_AUTH            AUTH = prf(SK_p, the first message of each)          as ever
//! ```
//!
//! Tickets are by value (section 4.2): every member opens what any member sealed, before and after
//! a restart (`ticket.rs`). `held.rs` keeps those that peers gave us. The exchange itself is in
//! `initial/`, beside IKE_SA_INIT, whose place it takes.
//!
//! What section 9 asks to be considered:
//!
//! * Stolen tickets: whoever saw one pass lacks SK_d, without which AUTH is wrong (`auth.rs`); until
//!   then nothing of the old IKE SA is touched.
//! * Forged tickets: AES-256-GCM under a key that only the cluster derives (`ticket.rs`).
//! * Denial of service: the limits, rates and cookies of IKE_SA_INIT hold here too (`crowd.rs`), and
//!   a ticket that is too long or not of these days costs no decryption. A refusal is not protected:
//!   who forges one costs the client a full exchange, no more.
//! * The need to resume: an IKE SA is lost when the peer does not answer or shows its crash token,
//!   never by a message that anybody could send.
//! * Keys of tickets: one for each ticket, from the cluster's secret; none is accepted a week after its
//!   day. Whoever learns the secret can open the tickets that he has recorded, however old: SK_d of
//!   those sessions, and of what was resumed with them. Where that matters, leave resumption off.
//! * Lifetime: `ticket_time`, never beyond the certificate or the time to authenticate anew; and
//!   `resumption_time` for all tickets that follow from one full IKE_AUTH.
//! * What was revoked since: the secret or chain that made the peer believable is in the ticket
//!   (`auth/grounds.rs`), and must do when it comes back, and again in IKE_AUTH. The client holds
//!   its gateway to the same.
//! * Use once: our client does (section 4.3.1). That section would have the gateway refuse a used
//!   ticket, too; we keep no list: one that outlives the IKE SAs would have to be replicated for as
//!   long as tickets count. Whoever uses one twice has the keys of the session and credentials that count
//!   today; fresh nonces of ours give other keys each time; it can end only the IKE SA that the
//!   ticket was given on.
//! * Privacy: a ticket shows its day and a random number, and is another one each time.

mod auth;
mod held;
mod ticket;

pub(super) use auth::{proof, prove};
pub(super) use held::{Held, HeldRecord};
pub(super) use ticket::{Session, is_welcome};

use hitless_sa::{IkeSpi, Instant};

use super::contents::Contents;
use super::engine::Engine;
use super::established::IkeSa;
use super::message::{NotifyKind, Payload};
use super::settings::Connection;
use super::turn::Turn;

impl Engine {
    /// RFC 5723 section 4.3.4: the peer has come back, and what it came back from is over, under
    /// whatever SPI it went by last. "Silently": the peer has no use for a Delete.
    pub(super) fn resumed(&mut self, ike: &IkeSa, old: IkeSpi) -> Vec<IkeSpi> {
        self.supersede(ike, |other| other.origin() == old)
    }

    /// A ticket for a connection, to be used once.
    pub(super) fn ticket(&mut self, now: Instant, connection: &Connection) -> Option<Box<Held>> {
        let held = self.tickets.remove(&connection.name)?;
        let time = self.settings.time_of_day.at(now)?;
        let usable = held.until > now
            && connection.proposals.contains(&held.proposal)
            && held.remote_id.matches(&connection.remote_id);
        // The gateway proves no more than that it is the one of then.
        let ends = (&held.local_id, &held.remote_id);
        let proven = &held.proven;
        let holds = ticket::is_young(connection, proven, time)
            .and_then(|()| proven.holds(&self.settings, connection, ends, time));
        (usable && holds.is_ok()).then_some(held)
    }
}

/// Asks for a ticket, if the connection wants to resume.
pub(super) fn request(connection: &Connection) -> Option<Payload> {
    let wanted = connection.session.tickets.is_some();
    wanted.then(|| Payload::notify(NotifyKind::TICKET_REQUEST, &[]))
}

/// The answer to a request for a ticket, in whatever exchange it came (RFC 5723 section 4.1): the
/// ticket with its lifetime, or that there is none.
pub(super) fn grant(ike: &IkeSa, turn: &mut Turn<'_>, contents: &Contents<'_>) -> Option<Payload> {
    if !contents.has(NotifyKind::TICKET_REQUEST) {
        return None;
    }
    let ticket = ticket::issue(ike, turn).map(|(lifetime, ticket)| {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let data = [seconds.to_be_bytes().as_slice(), ticket.as_slice()].concat();
        Payload::notify(NotifyKind::TICKET_LT_OPAQUE, &data)
    });
    Some(ticket.unwrap_or_else(|| Payload::notify(NotifyKind::TICKET_NACK, &[])))
}
