//! Packets that reach a member after it has handed over: it gives them to its successor, so that a
//! planned switchover loses none. They are opaque here, and no part of any state: a message that
//! carries them says nothing else, so that it cannot be misread whenever it arrives.

use hitless_sa::MemberId;

use crate::leading::Phase;
use crate::message::features;
use crate::node::{Node, State};
use crate::{Event, Output};

impl Node {
    /// Whom this member is handing over to, if that one takes packets that come too late here.
    pub fn successor(&self) -> Option<MemberId> {
        let State::Leading(leading) = &self.state else {
            return None;
        };
        let (Phase::Draining { target, .. } | Phase::Final { target, .. }) = leading.phase else {
            return None;
        };
        self.takes_late(target).then_some(target)
    }

    fn takes_late(&self, member: MemberId) -> bool {
        let said = self.peers.get(&member).and_then(|peer| peer.said);
        said.is_some_and(|said| said.features & features::LATE != 0)
    }

    pub(crate) fn send_late(&mut self, to: MemberId, packets: Vec<Vec<u8>>) {
        if self.takes_late(to) {
            let role = self.role();
            let mut packet = self.base(to, role);
            packet.late = packets;
            self.send(to, &packet);
        }
    }

    /// They count only from who hands over to this member, or did so last.
    pub(crate) fn take_late(&mut self, from: MemberId, present: bool, packets: Vec<Vec<u8>>) {
        let predecessor = match &self.state {
            State::Following(following) => following.admitted.then_some(following.leader),
            State::TakingOver(taking) => Some(taking.following.leader),
            State::Leading(leading) => leading.base.map(|base| base.leader),
            State::Out(_) => None,
        };
        if present && predecessor == Some(from) {
            self.outputs.push_back(Output::Late { from, packets });
        } else {
            self.event(Event::UnexpectedLate { member: from });
        }
    }
}
