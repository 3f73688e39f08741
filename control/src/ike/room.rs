//! How many SAs peers may have. Those that are authenticated may still ask for more and more of them,
//! and what the workers carry is for all.
//!
//! What takes the place of another one is not more: a rekeying, a peer that comes back. But what was
//! replaced stays until it is deleted, which is up to the peer: of that there is so much, too. What
//! another member led counts as what was made here.

use hitless_sa::{Instant, SaId};

use super::child::{ChildState, Installed};
use super::engine::Engine;
use super::established::IkeSa;
use super::message::NotifyKind;
use super::resource;
use super::settings::{Child, Limits};
use super::turn::Effect;

/// IKE SAs of one peer that it has replaced and not deleted yet.
const REPLACED: usize = 4;

impl Limits {
    /// Child SAs of an IKE SA that stay: what its connection is configured for, at least.
    fn most_children(&self, ike: &IkeSa) -> usize {
        let configured = ike.connection.children.iter().map(most_of).sum();
        self.children_per_ike.max(configured)
    }
}

/// Child SAs at once that a child is configured for.
pub(super) fn most_of(child: &Child) -> usize {
    match child.per_cpu_sas > 0 {
        true => resource::MOST,
        false => 1,
    }
}

/// Whether it is not on its way out.
pub(super) fn stays(child: &Installed) -> bool {
    matches!(child.state, ChildState::Installed | ChildState::Rekeying)
}

/// Whether the peer gets one more Child SA, in the place of `replaced` if that stays. NO_ADDITIONAL_SAS
/// says that we are "unwilling to accept any more Child SAs on this IKE SA" (RFC 7296 section 1.3).
pub(super) fn for_child(
    ike: &IkeSa,
    limits: &Limits,
    replaced: Option<SaId>,
) -> Result<(), NotifyKind> {
    let most = limits.most_children(ike);
    let replaces = replaced.and_then(|id| ike.child(id)).is_some_and(stays);
    if !replaces && ike.children.iter().filter(|c| stays(c)).count() >= most {
        return Err(NotifyKind::NO_ADDITIONAL_SAS);
    }
    // Those that wait for a Delete of the peer, or its answer to ours, are carried too.
    match ike.children.len() < most.saturating_mul(2) {
        true => Ok(()),
        false => Err(NotifyKind::TEMPORARY_FAILURE),
    }
}

impl Engine {
    /// Whether the peer may rekey this IKE SA now. One that never deletes what it has replaced waits
    /// until we have, "a transient condition" (RFC 7296 section 2.25); and while there is no room, until
    /// all of that is gone.
    pub(super) fn gives_successor(&self, ike: &IkeSa) -> bool {
        let others = self.index.line(ike.origin());
        let others = others.filter(|spi| *spi != ike.local_spi);
        match self.is_full() {
            true => others.take(1).count() == 0,
            false => others.take(REPLACED).count() < REPLACED,
        }
    }

    fn is_full(&self) -> bool {
        let most = self.settings.limits.ikesa_limit;
        most != 0 && self.sas.len() + self.passive.len() >= most
    }

    /// Why an IKE SA that a peer has just begun has no place here.
    pub(super) fn turns_away(
        &self,
        now: Instant,
        ike: &IkeSa,
        effects: &[Effect],
    ) -> Option<&'static str> {
        if self.has_twin(now, ike, effects) {
            return Some("the peer has an IKE SA, which is kept");
        }
        let most = self.settings.limits.ikesa_limit_id;
        let reason = if self.is_full() {
            "there are as many IKE SAs as ikesa_limit allows"
        } else if most != 0 && self.has_alike(ike, most) {
            "the peer has as many IKE SAs as ikesa_limit_id allows"
        } else {
            return None;
        };
        (!self.replaces_another(ike, effects)).then_some(reason)
    }
}
