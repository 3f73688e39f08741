//! The end of the Message IDs: "in the unlikely event that Message IDs grow too large to fit in 32
//! bits, the IKE SA MUST be closed or rekeyed" (RFC 7296 section 2.2). They never wrap.
//!
//! Nobody gets there by asking; a synchronisation (RFC 6311 section 5.1) takes both sides as far as
//! the other one says. So nothing is kept for it: what the windows say is looked at whenever something
//! is done, by the member that took over as well.

use std::time::Duration;

use hitless_sa::MessageId;

use super::established::{IkeSa, State};
use super::tasks::Task;
use super::turn::Turn;

/// Half of them are used, by either side: a successor is asked for, again and again if need be.
pub(super) const REKEY_FROM: MessageId = MessageId(1 << 31);
/// The IKE SA is closed. What is left is more than closing takes, with every synchronisation that may
/// come between. None declares what is beyond.
pub(super) const CLOSE_FROM: MessageId = MessageId(u32::MAX - (1 << 20));
/// Too few to ask for anything.
const USED_UP: MessageId = MessageId(u32::MAX - (1 << 12));

/// Whether this may be declared to be the next one, so that the other side has to go there.
pub(super) fn may_be_declared(id: MessageId) -> bool {
    id < CLOSE_FROM
}

/// Whether the other side of a synchronisation of ours can be where it says.
pub(super) fn are_left(id: MessageId) -> bool {
    id < USED_UP
}

impl IkeSa {
    /// Rekeys or closes an IKE SA whose Message IDs come to an end.
    pub fn mind_message_ids(&mut self, turn: &mut Turn<'_>) {
        let unused = self.unused();
        let highest = unused.max(self.window.expected);
        if highest < REKEY_FROM || self.state == State::Gone {
            return;
        }
        if unused >= USED_UP {
            return self.lose(turn, "its message IDs are used up");
        }
        if self.state != State::Established {
            return;
        }
        if highest >= CLOSE_FROM {
            return self.schedule(turn.now, Task::DeleteIke);
        }
        let asking = self.is_rekeying() || self.queue.iter().any(|s| s.task == Task::RekeyIke);
        // After a refusal it is.
        let soon = turn.now + turn.longest_pause();
        let soon = self.rekey_at.is_some_and(|at| at <= soon);
        if !asking && !soon {
            // Both sides see it at the same time; one of them is enough.
            let wait = match self.initiator {
                true => Duration::ZERO,
                false => turn.long_pause(),
            };
            self.rekey_at = Some(turn.now + wait);
            turn.dirty = true;
        }
    }
}
