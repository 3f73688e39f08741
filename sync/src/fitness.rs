//! Who could lead well, and who makes way: what each member says of its health and of its drill.
//!
//! A member that is ill, that has not tried all its copies, or of which one failed, leads only if no
//! other could. What failed its drill is never led on its old keys: it is replaced.

use std::collections::BTreeMap;

use hitless_sa::{Instant, MemberId, SaId};

use crate::Role;
use crate::leading::Leading;
use crate::message::{Packet, WireSa};
use crate::node::{Node, State};
use crate::peer::{Peer, Said};
use crate::post::count;
use crate::session::Session;

/// SAs named in one packet as broken.
const NAMED: usize = 32;

/// What is wrong with a standby's copy of a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Flaw {
    /// It does not encrypt, or does not decrypt what it encrypts; or it is not said what else it is.
    #[default]
    Keys,
    /// It cannot be read there.
    Unread,
    /// Its connection means others there, or other users.
    Ends,
    /// Its child is not there, or protects something else.
    Child,
    /// Its peer sends to an address that the standby has not, and would not follow it.
    Address,
}

impl Flaw {
    const ALL: [Flaw; 5] = [
        Flaw::Keys,
        Flaw::Unread,
        Flaw::Ends,
        Flaw::Child,
        Flaw::Address,
    ];

    /// For an operator.
    pub fn reason(self) -> &'static str {
        match self {
            Flaw::Keys => "a standby's copy of it failed the drill; it would be replaced, or lost",
            Flaw::Unread => "a standby's copy of it cannot be read there; it would be lost",
            Flaw::Ends => "a standby's connection of that name means other ends or users",
            Flaw::Child => "a standby has not its child, or with other selectors or proposals",
            Flaw::Address => {
                "a standby has not the address that its peer sends to, and the peer would not follow it"
            }
        }
    }

    /// Whether its keys cannot be used, or have never been seen to work.
    pub(crate) fn is_of_keys(self) -> bool {
        matches!(self, Flaw::Keys | Flaw::Unread)
    }

    fn wire(self) -> u32 {
        let place = Flaw::ALL.iter().position(|flaw| *flaw == self);
        count(place.unwrap_or_default())
    }

    /// What a later version says of it may be anything.
    fn heard(wire: Option<&u32>) -> Flaw {
        let place = wire.and_then(|wire| usize::try_from(*wire).ok());
        let flaw = place.and_then(|place| Flaw::ALL.get(place));
        flaw.copied().unwrap_or_default()
    }
}

/// What became of the drill of this member's copies.
pub(crate) struct Drill {
    /// Nothing waits for its turn.
    pub done: bool,
    pub broken: BTreeMap<SaId, Flaw>,
}

impl Default for Drill {
    fn default() -> Drill {
        Drill {
            done: true,
            broken: BTreeMap::new(),
        }
    }
}

/// Which of its copies a standby says are broken, and how many it did not name.
#[derive(Default)]
pub(crate) struct Broken {
    named: BTreeMap<SaId, Flaw>,
    pub more: usize,
}

impl Broken {
    pub fn heard(packet: &Packet) -> Broken {
        let named = packet.broken.iter().enumerate();
        let named = named
            .filter_map(|(place, wire)| Some((wire.sa()?, Flaw::heard(packet.flaws.get(place)))));
        let named: BTreeMap<SaId, Flaw> = named.collect();
        let all = usize::try_from(packet.broken_count).unwrap_or(usize::MAX);
        Broken {
            more: all.saturating_sub(named.len()),
            named,
        }
    }

    pub fn flaw(&self, sa: SaId) -> Option<Flaw> {
        self.named.get(&sa).copied()
    }
}

impl Node {
    /// Could do all the work of an active, with every SA, and write that it does.
    pub(crate) fn fit(&self) -> bool {
        self.fit_as(self.role())
    }

    fn fit_as(&self, role: Role) -> bool {
        self.well() && self.stopping.is_none() && self.writes_as(role)
    }

    /// Only a takeover needs the disk (R1): who leads, or would on nothing, is as good without.
    pub(crate) fn writes_as(&self, role: Role) -> bool {
        !Node::needs_disk(role) || self.disk_fails().is_none()
    }

    /// The same of one that may be about to end: that one hands over what it has, rather than make way
    /// for one that has not its keys.
    pub(crate) fn well(&self) -> bool {
        self.healthy && self.drill.done && self.drill.broken.is_empty()
    }

    /// The same but for SAs that failed their drill, which it would replace.
    pub(crate) fn carries(&self) -> bool {
        self.healthy && self.stopping.is_none() && self.drill.done
    }

    pub(crate) fn say_fitness(&self, role: Role, packet: &mut Packet) {
        packet.unhealthy = !self.fit_as(role);
        let part = self.carries() && self.writes_as(role);
        packet.partly = part && !self.drill.broken.is_empty();
        let broken = &self.drill.broken;
        packet.broken = broken
            .keys()
            .take(NAMED)
            .copied()
            .map(WireSa::new)
            .collect();
        packet.flaws = broken
            .values()
            .take(NAMED)
            .map(|flaw| flaw.wire())
            .collect();
        packet.broken_count = count(broken.len());
    }

    /// The standbys that could take over now: admitted and knowing it, heard lately, answering, well,
    /// and with their copies tried.
    pub(crate) fn able<'a>(
        &'a self,
        now: Instant,
        leading: &'a Leading,
    ) -> impl Iterator<Item = (MemberId, &'a Session)> {
        let recent = self.settings.takeover();
        let able = leading.sessions.iter().filter(move |(member, session)| {
            let peer = self.peers.get(member);
            let said = peer.and_then(|peer| peer.lately(now, recent));
            let answers = session.silent_for(now) < self.settings.vouch;
            // One that has just started again has the right of its session no more.
            let present = peer.is_some_and(|peer| peer.incarnation == Some(session.incarnation));
            let admitted = session.bound.is_some() && session.confirmed && present;
            // Who has promised more has no right in this epoch any more (R10).
            let may = |said: &Said| said.carries && said.promised <= Some(leading.epoch);
            admitted && answers && said.is_some_and(may)
        });
        able.map(|(member, session)| (*member, session))
    }

    /// As standby: whether another one would lead better than this one, and may. Not for ever: if it
    /// does not, it cannot.
    pub(crate) fn makes_way(&self) -> bool {
        let State::Following(following) = &self.state else {
            return false;
        };
        let patience = self.settings.patience();
        if self.fit() || self.now >= following.last_beat + patience * 3 {
            return false;
        }
        self.fit_standbys().next().is_some()
    }

    /// Other standbys that may take over, and say that they are well.
    pub(crate) fn fit_standbys(&self) -> impl Iterator<Item = &Peer> {
        let recent = self.settings.takeover() * 3;
        self.peers.values().filter(move |peer| {
            peer.lately(self.now, recent).is_some_and(|said| {
                let may = matches!(said.role, Some(Role::Admitted | Role::TakingOver));
                may && said.healthy
            })
        })
    }
}
