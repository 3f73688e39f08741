//! INFORMATIONAL exchanges: Delete and liveness (RFC 7296 sections 1.4 and 1.4.1).

use std::collections::BTreeMap;

use hitless_sa::{Instant, MessageId, SaId, Spi};

use super::child::{self, ChildState, Closing};
use super::contents::Contents;
use super::create::ChildOffer;
use super::established::{DELETE_GRACE, IkeSa, State};
use super::message::{Delete, Exchange, NotifyKind, Payload};
use super::nat::Path;
use super::takeover::FOREIGN_WAITING;
use super::tasks::{Pending, Task};
use super::turn::Turn;
use super::{counter_sync, mobike, resume, virtual_ip, work};

/// So many SPIs of a Delete are looked up in a microsecond.
const SPIS: usize = 16;

/// Answers the peer's INFORMATIONAL request; an empty one asks for liveness alone.
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    (id, path): (MessageId, Path),
    contents: &Contents<'_>,
) -> Vec<Payload> {
    if contents.has(NotifyKind::AUTHENTICATION_FAILED) {
        // RFC 7296 section 2.21.2: an initiator that does not accept our AUTH says so in an exchange of
        // its own, without a Delete, and has no IKE SA any more.
        ike.destroy(turn, "the peer notified AUTHENTICATION_FAILED");
        return Vec::new();
    }
    counter_sync::replay_counters(ike, turn, contents);
    ike.take_token(turn, contents);
    ike.take_redirect(turn, contents);
    ike.take_auth_lifetime(turn, contents);
    let mut answer = mobike::answer(ike, turn, (id, path), contents);
    answer.extend(virtual_ip::tell(contents));
    answer.extend(resume::grant(ike, turn, contents));
    let mut ours = Vec::new();
    let mut named = by_peer_spi(ike);
    for delete in &contents.deletes {
        match delete {
            Delete::Ike => {
                deleted(ike, turn);
                return Vec::new();
            }
            Delete::Esp(spis) => {
                // Thousands fit into a message, and hardly any of them need mean anything.
                work::count(u32::try_from(spis.len() / SPIS).unwrap_or(u32::MAX));
                for id in spis.iter().filter_map(|spi| named.remove(spi)) {
                    ours.extend(delete_by_peer(ike, turn, id));
                }
            }
            Delete::Other { .. } => {}
        }
    }
    if !ours.is_empty() {
        answer.push(Payload::Delete(Delete::Esp(ours)));
    }
    answer
}

/// The peer closes the IKE SA (RFC 7296 section 2.25.2: whatever we were about to do with it).
fn deleted(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    let reason = match ike.state {
        State::Rekeyed { .. } => "replaced",
        _ => "deleted by the peer",
    };
    ike.destroy(turn, reason);
}

/// The Child SAs by the SPIs that the peer receives on; the oldest of two.
fn by_peer_spi(ike: &IkeSa) -> BTreeMap<Spi, SaId> {
    let newest_first = ike.children.iter().rev();
    newest_first
        .map(|child| (child.sa.outbound_spi, child.sa.id))
        .collect()
}

/// The peer closes a Child SA, named by the SPI that it receives on; the answer names ours
/// (RFC 7296 section 1.4.1).
fn delete_by_peer(ike: &mut IkeSa, turn: &mut Turn<'_>, id: SaId) -> Option<Spi> {
    let child = ike.child(id)?;
    // RFC 7296 section 2.25.1: a Delete that crosses ours is answered without one.
    let crossing = child.state == ChildState::Deleting;
    let inbound = child.sa.inbound_spi;
    let closing = child.closing;
    if let Some(heir) = child.replaced_by {
        ike.close_heir(turn.now, id, heir);
    }
    if let Some(offer) = ike.replacing(id) {
        offer.closing = offer.closing.max(closing);
    }
    child::remove(ike, turn, id);
    ike.queue
        .retain(|s| s.task != Task::RekeyChild(id) && s.task != Task::DeleteChild(id));
    (!crossing).then_some(inbound)
}

/// Closes a Child SA.
pub(super) fn delete_child(ike: &mut IkeSa, turn: &mut Turn<'_>, id: SaId) {
    let Some(child) = ike.child_mut(id) else {
        return;
    };
    child.state = ChildState::Deleting;
    child.rekey_at = None;
    let delete = Payload::Delete(Delete::Esp(vec![child.sa.inbound_spi]));
    ike.request(
        turn,
        Exchange::Informational,
        &[delete],
        Pending::DeleteChildren(vec![id]),
    );
}

impl IkeSa {
    /// Closes a Child SA on demand, and what would take its place; `again` if it may be started
    /// anew.
    pub fn close_child(&mut self, now: Instant, id: SaId, again: bool) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        let closing = match again {
            true => Closing::Again,
            false => Closing::ForGood,
        };
        child.closing = child.closing.max(Some(closing));
        self.queue.retain(|s| s.task != Task::RekeyChild(id));
        self.schedule(now, Task::DeleteChild(id));
    }

    /// Closes what has just taken the place of a Child SA that was to be closed on demand.
    pub fn close_heir(&mut self, now: Instant, old: SaId, new: SaId) {
        let closing = self.child(old).and_then(|old| old.closing);
        self.close_as(now, new, closing);
    }

    /// Closes what would take the place of one that was closed like this.
    pub fn close_as(&mut self, now: Instant, new: SaId, closing: Option<Closing>) {
        if let Some(closing) = closing {
            self.close_child(now, new, closing == Closing::Again);
        }
    }

    /// Our offer of a successor.
    pub fn replacing(&mut self, old: SaId) -> Option<&mut ChildOffer> {
        self.pending.values_mut().find_map(|pending| match pending {
            Pending::CreateChild(offer) if offer.replaces == Some(old) => Some(offer),
            _ => None,
        })
    }
}

/// The peer has answered our Delete, and says which of its own went with what it names.
pub(super) fn deleted_by_us(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    ids: &[SaId],
    contents: &Contents<'_>,
) {
    for id in ids {
        let Some(child) = ike.child(*id) else {
            continue;
        };
        let ours = child.sa.inbound_spi;
        let theirs = child.sa.outbound_spi;
        let named =
            |delete: &&Delete| matches!(delete, Delete::Esp(spis) if spis.contains(&theirs));
        let knew = contents.deletes.iter().any(named);
        // Our answer that made it may be on its way there still, behind our Delete of it.
        if !knew && turn.now.since(child.installed) < DELETE_GRACE {
            let at = turn.now + turn.pause();
            child::remove(ike, turn, *id);
            delete_later(ike, turn, at, ours);
            continue;
        }
        child::remove(ike, turn, *id);
    }
}

/// The peer is to be asked to close its half of a Child SA that we have not. Its SPI is taken until then.
pub(super) fn delete_later(ike: &mut IkeSa, turn: &mut Turn<'_>, at: Instant, spi: Spi) {
    turn.ids.occupy(spi);
    ike.schedule(at, Task::DeleteSpi(spi));
}

/// Closes the peer's half of Child SAs that we never had: this one and what else waits, in one request
/// (RFC 7296 section 3.11). Unless an exchange that was under way has made one ours meanwhile.
pub(super) fn delete_spi(ike: &mut IkeSa, turn: &mut Turn<'_>, spi: Spi) {
    let mut spis = vec![spi];
    ike.queue.retain(|scheduled| match scheduled.task {
        Task::DeleteSpi(spi) if scheduled.at <= turn.now && spis.len() < FOREIGN_WAITING => {
            spis.push(spi);
            false
        }
        _ => true,
    });
    spis.retain(|spi| ike.children.iter().all(|c| c.sa.inbound_spi != *spi));
    if spis.is_empty() {
        return;
    }
    for spi in &spis {
        turn.ids.release(*spi);
    }
    let delete = Payload::Delete(Delete::Esp(spis));
    ike.request(
        turn,
        Exchange::Informational,
        &[delete],
        Pending::DeleteChildren(Vec::new()),
    );
}

/// Closes the IKE SA.
pub(super) fn delete_ike(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    if ike.state == State::Established {
        ike.state = State::Deleting;
    }
    ike.request(
        turn,
        Exchange::Informational,
        &[Payload::Delete(Delete::Ike)],
        Pending::DeleteIke,
    );
}
