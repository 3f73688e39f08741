//! INFORMATIONAL exchanges: Delete and liveness (RFC 7296 sections 1.4 and 1.4.1).

use hitless_sa::{Instant, SaId, Spi};

use super::child::{self, ChildState};
use super::contents::Contents;
use super::established::{IkeSa, State};
use super::message::{Delete, Exchange, Payload};
use super::nat::Path;
use super::takeover::FOREIGN_WAITING;
use super::tasks::{Pending, Task};
use super::turn::Turn;
use super::{counter_sync, mobike, resume};

/// Answers the peer's INFORMATIONAL request; an empty one asks for liveness alone.
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    path: Path,
    contents: &Contents<'_>,
) -> Vec<Payload> {
    counter_sync::replay_counters(ike, turn, contents);
    ike.take_token(turn, contents);
    ike.take_redirect(turn, contents);
    let mut answer = mobike::answer(ike, turn, path, contents);
    answer.extend(resume::grant(ike, turn, contents));
    let mut ours = Vec::new();
    for delete in &contents.deletes {
        match delete {
            Delete::Ike => {
                deleted(ike, turn);
                return Vec::new();
            }
            Delete::Esp(spis) => {
                for spi in spis {
                    ours.extend(delete_by_peer(ike, turn, *spi));
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

/// The peer closes a Child SA, named by the SPI that it receives on; the answer names ours
/// (RFC 7296 section 1.4.1).
fn delete_by_peer(ike: &mut IkeSa, turn: &mut Turn<'_>, spi: Spi) -> Option<Spi> {
    let id = ike.child_by_peer_spi(spi)?;
    let child = ike.child(id)?;
    // RFC 7296 section 2.25.1: a Delete that crosses ours is answered without one.
    let crossing = child.state == ChildState::Deleting;
    let inbound = child.sa.inbound_spi;
    if let Some(heir) = child.replaced_by {
        ike.close_heir(turn.now, id, heir);
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
        child.terminated |= !again;
        self.queue.retain(|s| s.task != Task::RekeyChild(id));
        self.schedule(now, Task::DeleteChild(id));
    }

    /// Closes what has just taken the place of a Child SA that was to be closed on demand.
    pub fn close_heir(&mut self, now: Instant, old: SaId, new: SaId) {
        if self.child(old).is_some_and(|old| old.terminated) {
            self.close_child(now, new, false);
        }
    }
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
