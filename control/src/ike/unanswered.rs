//! What a predecessor asked and had no answer to is repeated before a Message ID synchronisation.
//!
//! A synchronisation ends what is outstanding at both ends (R38, R42, RFC 6311 sections 8.1 and 9), and
//! a peer forgets its answers with it. Where that answer made something, the peer is alone with it: a
//! new IKE SA that carries our Child SAs, while the old one, which is all that we know, is closed half
//! a minute later; or a Child SA that nobody here knows. RFC 7296 section 2.1 has the remedy: the same
//! octets again get the same answer, and the record has all that is needed to use it. A few times, for
//! the predecessor may have gone on without our knowledge, and then no answer comes: after that the
//! Message IDs are synchronised, and what was asked is asked anew.
//!
//! Meanwhile the synchronisation is owed, in the record as well (`governor.rs`). Nothing else is asked,
//! and no request is taken but one that the predecessor has answered.

use std::time::Duration;

use hitless_sa::{Instant, MessageId};

use super::established::IkeSa;
use super::governor::Owed;
use super::output::Resume;
use super::tasks::Pending;
use super::turn::Turn;

/// From one repetition to the next.
const SPACING: Duration = Duration::from_millis(250);
/// Peers that know the answer give it to one of these.
const REPETITIONS: u32 = 4;

/// Requests are being repeated. Not in the record: whoever takes over owes the same, and begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unanswered {
    sent: u32,
    next_at: Instant,
}

impl Unanswered {
    pub fn deadline(self) -> Instant {
        self.next_at
    }
}

impl IkeSa {
    /// Requests whose answer makes an SA at the peer.
    fn makings(&self) -> impl Iterator<Item = (&MessageId, &Vec<u8>)> {
        let makes = |id: &MessageId| {
            let pending = self.pending.get(id);
            matches!(
                pending,
                Some(Pending::CreateChild(_) | Pending::RekeyIke(_))
            )
        };
        let outstanding = self.window.outstanding.iter();
        let makings = outstanding.filter(move |(id, _)| makes(id));
        makings.map(|(id, request)| (id, &request.bytes))
    }

    /// Begins to repeat them, if there are any, and what is owed is a synchronisation. A predecessor
    /// that had begun to synchronise has ended them.
    pub fn repeats_first(&mut self, turn: &mut Turn<'_>, owed: Owed) -> bool {
        let synchronises = matches!(owed.how, Resume::MessageIdSync { .. });
        if !synchronises || self.sync.is_some() || self.makings().next().is_none() {
            return false;
        }
        self.owed = Some(Owed {
            needed: true,
            ..owed
        });
        self.repeat_makings(turn, 1);
        true
    }

    fn repeat_makings(&mut self, turn: &mut Turn<'_>, sent: u32) {
        let requests: Vec<Vec<u8>> = self.makings().map(|(_, bytes)| bytes.clone()).collect();
        for bytes in requests {
            self.transmit(turn, bytes);
        }
        self.unanswered = Some(Unanswered {
            sent,
            next_at: turn.now + SPACING,
        });
    }

    /// The next repetition, or the end of them.
    pub fn tick_unanswered(&mut self, turn: &mut Turn<'_>) {
        match self.unanswered {
            Some(unanswered) if unanswered.next_at <= turn.now => {
                match unanswered.sent < REPETITIONS {
                    true => self.repeat_makings(turn, unanswered.sent + 1),
                    false => self.settle_owed(turn),
                }
            }
            _ => {}
        }
    }

    /// One of them was answered. What follows from it, as an additional key exchange does, is one of
    /// them too.
    pub fn has_been_answered(&mut self, turn: &mut Turn<'_>) {
        if self.unanswered.is_some() && self.makings().next().is_none() {
            self.settle_owed(turn);
        }
    }

    /// What is owed to a successor that inherits the Child SAs: another member may have gone on with it
    /// already, and the numbers that the peer is to leave out are theirs.
    pub fn bequeath(&mut self) -> Option<Owed> {
        let owed = self.owed?;
        if let Resume::MessageIdSync { .. } = owed.how {
            let how = Resume::MessageIdSync { replay_delta: None };
            self.owed = Some(Owed { how, ..owed });
        }
        Some(owed)
    }

    /// As that successor. One that was there at the takeover owes, or owed, the same by itself.
    pub fn inherit_owed(&mut self, owed: Option<Owed>) {
        if !self.inherited {
            self.owed = self.owed.or(owed);
        }
    }
}
