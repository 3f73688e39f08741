//! Heartbeats in the middle of other work. A caller that has very much to do, for one input or for the
//! outputs of one, asks for them between two pieces of it.
//!
//! Such a heartbeat only repeats: what this member is has been told before, and nothing in it follows
//! from the time, from what was not read yet, or from outputs that are not obeyed yet. So it can tell
//! nobody that this member has stopped before its workers have.

use hitless_sa::{Epoch, Instant, MemberId};
use zeroize::Zeroizing;

use crate::Role;
use crate::node::{Node, State};

/// What a member that others wait for is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    role: Role,
    epoch: Epoch,
}

impl Node {
    /// What this member is, if its silence has a meaning: it leads or follows.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let epoch = match &self.state {
            State::Leading(leading) => leading.epoch,
            State::Following(following) => following.epoch,
            State::Out(_) | State::TakingOver(_) => return None,
        };
        let role = self.role();
        Some(Standing { role, epoch })
    }

    /// The heartbeats that are due, to be sent ahead of every output that waits: none if that is no
    /// repetition. Nothing else changes, so that a look costs nothing.
    pub fn beat(&mut self, now: Instant) -> Vec<(MemberId, Zeroizing<Vec<u8>>)> {
        if now < self.next_word {
            return Vec::new();
        }
        let Some(standing) = self.standing().filter(|it| self.told == Some(*it)) else {
            return Vec::new();
        };
        self.next_word = now + self.settings.heartbeat;
        let state = std::mem::replace(&mut self.state, State::out(self.now));
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        let mut beats = Vec::with_capacity(members.len());
        for to in members {
            let packet = match &state {
                State::Leading(leading) => {
                    let mut packet = self.base_leading(to, standing.role, leading);
                    if let Some(session) = leading.sessions.get(&to) {
                        session.head(&mut packet);
                    }
                    packet
                }
                State::Following(following) => {
                    let mut packet = self.base_following(to, following);
                    packet.session = Some(following.sid).filter(|_| to == following.leader);
                    packet
                }
                State::Out(_) | State::TakingOver(_) => continue,
            };
            beats.push((to, packet.seal(self.settings.mutant.more())));
        }
        self.state = state;
        beats
    }
}
