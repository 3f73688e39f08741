//! Several Child SAs with the same selectors, one for each worker (RFC 9611).
//!
//! Whoever initiates the first one says SA_RESOURCE_INFO with it. If the peer says so too, it asks
//! for the others one after the other, until there is one for each of its workers or the peer has
//! enough. Each worker then sends on its own SA, and nobody shares a counter. What an SA is for is
//! in its record; the one that replaces it is for the same. One that is lost is asked for again after
//! a pause, whatever the peer deletes meanwhile.

use std::time::Duration;

use hitless_sa::{Entropy, Instant, SaId};

use super::child::{ChildState, Terms};
use super::contents::Contents;
use super::engine::Engine;
use super::established::{IkeSa, State};
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

/// After which those that are lost are asked for again, all at once.
const PAUSE: Duration = Duration::from_secs(60);

/// As initiator: asks for the next one, if one is missing.
pub(super) fn go_on(ike: &mut IkeSa, turn: &Turn<'_>, name: &str) {
    if is_short(ike, name) {
        ike.schedule(turn.now, Task::CreateChild(name.to_owned()));
    }
}

/// Whether some of several are missing. If all are, the child itself is.
fn is_short(ike: &IkeSa, name: &str) -> bool {
    let configured = ike.connection.children.iter().find(|c| c.name == name);
    let wanted = configured.map_or(0, |c| usize::from(c.per_cpu_sas));
    let made = staying(ike, name).filter(Option::is_some).count();
    // A peer that stops to say for which worker they are gets no more than it would otherwise.
    let enough = staying(ike, name).count() >= wanted;
    made > 0 && !enough
}

impl Engine {
    /// One of several was lost: traffic goes on over the others.
    pub(super) fn lost_one(&mut self, now: Instant, ike: &IkeSa, name: &str) {
        let mut children = ike.connection.children.iter();
        let ours = ike.initiator || children.any(|c| c.name == name && c.start);
        if ours && is_short(ike, name) {
            self.starts.by(&ike.connection.name, name, now + PAUSE);
        }
    }

    /// Asks for what is missing of a child that is there.
    pub(super) fn complete(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        connection: &str,
        name: &str,
    ) {
        let spis = self.index.of_connection(connection);
        let mut sas = spis.filter_map(|spi| self.sas.get(&spi));
        let short = |ike: &IkeSa| ike.state == State::Established && is_short(ike, name);
        let Some(spi) = sas.find(|ike| short(ike)).map(|ike| ike.local_spi) else {
            return;
        };
        drop(sas);
        self.with(now, entropy, spi, |ike, turn| {
            if !ike.is_making_child(name) {
                go_on(ike, turn, name);
            }
            ike.advance(turn);
        });
    }
}
