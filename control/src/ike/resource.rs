//! Several Child SAs with the same selectors, one for each worker (RFC 9611).
//!
//! Whoever initiates the first one says SA_RESOURCE_INFO with it. If the peer says so too, it asks
//! for the others one after the other, until there is one for each of its workers or the peer has
//! enough. Each worker then sends on its own SA, and nobody shares a counter. What an SA is for is
//! in its record; the one that replaces it is for the same.

use hitless_sa::SaId;

use super::child::{ChildState, Terms};
use super::contents::Contents;
use super::established::IkeSa;
use super::message::{NotifyKind, Payload};
use super::settings::Child;
use super::tasks::Task;
use super::turn::Turn;

/// The most that a peer with more cores than we have may make of one child.
pub(super) const MOST: usize = 64;

/// SA_RESOURCE_INFO. What it may hold is for debugging alone (section 4).
pub(super) fn info() -> Payload {
    Payload::notify(NotifyKind::SA_RESOURCE_INFO, &[])
}

/// Whether both want several SAs for this child.
pub(super) fn asked(child: &Child, contents: &Contents<'_>) -> bool {
    child.per_cpu_sas > 0 && contents.has(NotifyKind::SA_RESOURCE_INFO)
}

/// The SAs of a child that stay.
fn staying(ike: &IkeSa, name: &str) -> impl Iterator<Item = Option<u16>> {
    let settled = |state| matches!(state, ChildState::Installed | ChildState::Rekeying);
    let named = ike.children.iter().filter(move |c| c.name == name);
    let staying = named.filter(move |c| settled(c.state));
    staying.map(|c| c.sa.options.resource)
}

/// Whether the peer has as many as it may (TS_MAX_QUEUE, section 5).
pub(super) fn is_full(ike: &IkeSa, name: &str) -> bool {
    staying(ike, name).count() >= MOST
}

/// What a new SA is for: what the one that it replaces was for, or the first that none is for.
pub(super) fn of(ike: &IkeSa, terms: &Terms, replaces: Option<SaId>) -> Option<u16> {
    if let Some(old) = replaces.and_then(|id| ike.child(id)) {
        return old.sa.options.resource;
    }
    let free = |resource: &u16| staying(ike, &terms.name).all(|other| other != Some(*resource));
    terms.per_resource.then(|| (0..u16::MAX).find(free))?
}

/// As initiator: asks for the next one, if one is missing.
pub(super) fn go_on(ike: &mut IkeSa, turn: &Turn<'_>, name: &str) {
    let configured = ike.connection.children.iter().find(|c| c.name == name);
    let wanted = configured.map_or(0, |c| usize::from(c.per_cpu_sas));
    let made = staying(ike, name).filter(Option::is_some).count();
    // A peer that stops to say for which worker they are gets no more than it would otherwise.
    let enough = staying(ike, name).count() >= wanted;
    if made > 0 && !enough {
        ike.schedule(turn.now, Task::CreateChild(name.to_owned()));
    }
}
