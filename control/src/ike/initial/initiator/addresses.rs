//! Virtual addresses of a client (RFC 7296 section 2.19): it asks for those that it has, and an IKE SA
//! without any is of no use to it.

use super::Initiator;
use crate::ike::contents::Contents;
use crate::ike::established::IkeSa;
use crate::ike::initial::Progress;
use crate::ike::message::NotifyKind;
use crate::ike::output::Event;
use crate::ike::tasks::Task;
use crate::ike::turn::{Effect, Turn};

impl Initiator {
    /// The addresses that another IKE SA with the peer has are the ones to keep (RFC 7296 section 2.19).
    pub(in crate::ike) fn keep_addresses(&mut self, old: &IkeSa) {
        if !old.addresses.taken.is_empty() {
            self.vips.clone_from(&old.addresses.taken);
        }
    }

    /// RFC 7296 section 3.15.4: the IKE SA is there, and the address that it was to bring is not.
    pub(super) fn has_no_address(&self, contents: &Contents<'_>) -> bool {
        let refused = contents.has(NotifyKind::INTERNAL_ADDRESS_FAILURE);
        refused && !self.connection.roads.vips.is_empty()
    }

    /// Addresses are given in IKE_AUTH alone: without one no child of this IKE SA could ever be. It ends,
    /// what it was to take the place of stays, and there will be another attempt.
    pub(super) fn give_up(&mut self, turn: &mut Turn<'_>, mut ike: IkeSa) -> Progress {
        turn.events.push(Event::NegotiationFailed {
            peer: ike.path.remote,
            reason: format!(
                "no virtual address: {}",
                NotifyKind::INTERNAL_ADDRESS_FAILURE
            ),
        });
        let children = std::mem::take(&mut self.children);
        turn.effects.extend(children.into_iter().map(Effect::Lost));
        ike.authenticated.replaces = None;
        ike.schedule(turn.now, Task::DeleteIke);
        ike.advance(turn);
        turn.dirty = true;
        Progress::Established(Box::new(ike))
    }
}
