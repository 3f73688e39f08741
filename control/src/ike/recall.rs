//! An IKE SA that lives again: its successor is none to the peer.
//!
//! Two members that both lead behind a partition both hear a request for a successor (RFC 7296 section
//! 2.18), and only one answer counts for the peer. If that was the other's refusal, or what we answered
//! was of no use to it, our successor has the Child SAs and nobody to talk to, and the old IKE SA, on
//! which the peer goes on, refuses all that it asks (section 2.25.2). The peer's own words end that: who
//! asks for a successor of an IKE SA has none of it. Then the old one has everything back, and nothing is
//! said of the other.

use hitless_sa::{Entropy, IkeSpi, Instant, MessageId};

use super::engine::Engine;
use super::established::{IkeSa, State};
use super::rekey;
use super::tasks::{Scheduled, Task};
use super::turn::{Effect, Turn};

impl IkeSa {
    /// The peer asks for a successor under this Message ID. Where it asked for one before, and got one,
    /// has it that one not? Not if it asked for this one first, and the request was late.
    pub fn doubt_successor(&self, turn: &mut Turn<'_>, id: MessageId) {
        if let (State::Rekeyed { .. }, [heir]) = (self.state, &self.successors[..])
            && id >= self.window.expected
            && self.pending.is_empty()
        {
            turn.effects.push(Effect::Recall(*heir));
        }
    }

    /// Made by the peer's exchange, and the peer has said nothing there since: it has asked for nothing, and
    /// all that it was asked for is unanswered.
    pub(super) fn is_unused(&self) -> bool {
        let window = &self.window;
        let unanswered = window.outstanding.keys().map(|id| id.0);
        let silent = unanswered.eq(0..window.next_request.0);
        !self.initiator && silent && window.expected == MessageId(0)
    }
}

impl Engine {
    /// Gives an IKE SA back what its successor has, if the peer has never used that one; gives that one,
    /// to be forgotten as soon as the other is recorded with what it was given.
    pub(super) fn recall(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: &mut IkeSa,
        heir: IkeSpi,
    ) -> Option<IkeSpi> {
        self.go_on_with(now, entropy, heir);
        let heir = self.sas.get_mut(&heir).filter(|heir| heir.is_unused())?;
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        heir.probe = None;
        heir.abandon(&mut turn);
        let children = std::mem::take(&mut heir.children);
        let queue = std::mem::take(&mut heir.queue);
        let (spi, ends) = (heir.local_spi, heir.terminated);
        ike.state = State::Established;
        ike.successors.clear();
        for child in &children {
            self.index.insert_child(child.sa.id, ike.local_spi);
        }
        ike.children.extend(children);
        ike.queue
            .extend(queue.into_iter().filter(|s| !rekey::is_own(&s.task)));
        if ends {
            ike.terminated = true;
            ike.queue.push(Scheduled {
                at: now,
                task: Task::DeleteIke,
            });
        }
        Some(spi)
    }

    /// The peer has never had this one.
    pub(super) fn forget_unused(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: IkeSpi) {
        self.with(now, entropy, spi, |ike, turn| {
            ike.destroy(turn, "unknown to the peer");
        });
    }
}
