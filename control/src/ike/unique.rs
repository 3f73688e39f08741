//! How many IKE SAs a peer may have (RFC 7296 section 2.4, `unique`).
//!
//! A peer is who its identity says, with EAP the user's name, towards one of ours. INITIAL_CONTACT
//! counts only in IKE_AUTH and only once that has succeeded: before, anybody could end another's IKE
//! SAs with it. And it counts among those alone that were proven alike: who knows a secret that many
//! share, and may call itself what it likes, is not the holder of a certificate by that name.

use hitless_sa::{IkeSpi, Instant};

use super::contents::Contents;
use super::engine::Engine;
use super::established::{DELETE_GRACE, IkeSa, State};
use super::message::NotifyKind;
use super::proposal::Identification;
use super::settings::{Connection, Unique};
use super::tasks::Task;
use super::turn::Effect;

impl Connection {
    /// What a new IKE SA means for the other ones of its peer.
    pub(super) fn others(&self, initiator: bool, contents: &Contents<'_>) -> Option<Effect> {
        let alone = contents.has(NotifyKind::INITIAL_CONTACT);
        match self.roads.unique {
            Unique::Never => None,
            _ if alone => Some(Effect::InitialContact),
            // The peer may believe in them: they are deleted, not forgotten. What `keep` lets in has come
            // to take the place of another.
            Unique::Keep | Unique::Replace if !initiator => Some(Effect::Replace),
            Unique::No | Unique::Keep | Unique::Replace => None,
        }
    }

    /// Whether who is believed by one connection would be by the other, under the same names.
    pub(super) fn believes_as(&self, other: &Connection) -> bool {
        self.name == other.name || self.auth.remote.is_as_good_as(&other.auth.remote)
    }
}

impl Engine {
    /// RFC 7296 section 2.4: INITIAL_CONTACT "asserts that this IKE SA is the only IKE SA currently
    /// active between the authenticated identities", and "MUST NOT be sent by an entity that may
    /// be replicated", which is what `unique = "never"` says. A member that has nothing of what the
    /// others had, and does not hear one of them, cannot assert it either.
    pub(super) fn is_first_contact(&self, connection: &Connection) -> bool {
        connection.roads.unique != Unique::Never
            && !self.replicated
            && self.is_only_contact(connection)
            && !self.initiators.any_between(connection)
    }

    /// Another member may lead beside this one, with IKE SAs that this one does not know.
    pub fn set_replicated(&mut self, replicated: bool) {
        self.replicated = replicated;
    }

    /// Whether no IKE SA with the peer of a connection is there.
    pub(super) fn is_only_contact(&self, connection: &Connection) -> bool {
        let mut of_connection = self.index.of_connection(&connection.name);
        let mut others = self.others(&connection.local_id, &connection.remote_id);
        of_connection.next().is_none() && others.next().is_none()
    }

    /// The IKE SAs between the same two.
    fn others(
        &self,
        local: &Identification,
        remote: &Identification,
    ) -> impl Iterator<Item = &IkeSa> {
        let between = self.index.between(local, remote);
        between.filter_map(|spi| self.sas.get(&spi).map(|ike| &**ike))
    }

    /// The other ones than this that were proven alike.
    fn proven_alike<'e>(&'e self, ike: &'e IkeSa) -> impl Iterator<Item = &'e IkeSa> {
        let others = self.others(&ike.local_id, ike.peer());
        let alike = |other: &IkeSa| ike.connection.believes_as(&other.connection);
        others.filter(move |other| other.local_spi != ike.local_spi && alike(other))
    }

    /// Whether those are so many. Few peers have as many at all.
    pub(super) fn has_alike(&self, ike: &IkeSa, most: usize) -> bool {
        self.index.count_between(&ike.local_id, ike.peer()) >= most
            && self.proven_alike(ike).take(most).count() >= most
    }

    /// Those of them over the same protocol: a peer with a tunnel over IPv4 and another one over IPv6
    /// begins each with INITIAL_CONTACT, as strongSwan does, and means no more than that.
    fn twins<'e>(&'e self, ike: &'e IkeSa) -> impl Iterator<Item = &'e IkeSa> {
        let ipv4 = ike.path.remote.is_ipv4();
        let alike = self.proven_alike(ike);
        alike.filter(move |other| other.path.remote.is_ipv4() == ipv4)
    }

    /// Those other IKE SAs with this peer are dead.
    pub(super) fn supersede(&mut self, ike: &IkeSa, dead: impl Fn(&IkeSa) -> bool) -> Vec<IkeSpi> {
        let dead = self.twins(ike).filter(|other| dead(other));
        let dead: Vec<IkeSpi> = dead.map(|other| other.local_spi).collect();
        for spi in &dead {
            if let Some(other) = self.sas.get_mut(spi) {
                other.superseded = true;
                other.is_replaced_by(ike);
            }
        }
        dead
    }

    /// The peer is told that the others end. Who was told to come again (RFC 4478) comes by
    /// make-before-break, of which it says nothing: it deletes the old one itself, once its further Child
    /// SAs are up, and is not hurried (RFC 7296 section 2.8.3).
    pub(super) fn replace(&mut self, now: Instant, ike: &IkeSa) -> Vec<IkeSpi> {
        let at = |other: &IkeSa| match other.is_to_come_again(now) {
            true => now + DELETE_GRACE,
            false => now,
        };
        let old = self.twins(ike).map(|other| (other.local_spi, at(other)));
        let old: Vec<(IkeSpi, Instant)> = old.collect();
        for (spi, at) in &old {
            if let Some(other) = self.sas.get_mut(spi) {
                other.terminated = true;
                other.is_replaced_by(ike);
                other.schedule(*at, Task::DeleteIke);
            }
        }
        old.into_iter().map(|(spi, _)| spi).collect()
    }

    /// `unique = "keep"`: whether the peer has an IKE SA, and may not have this one besides. It has
    /// lost that which it says it has lost: by INITIAL_CONTACT any (RFC 7296 section 2.4), with a
    /// ticket the one of the ticket (RFC 5723 section 4.3.4). One that it was told to replace is about to go.
    pub(super) fn has_twin(&self, now: Instant, ike: &IkeSa, effects: &[Effect]) -> bool {
        let mut twins = self.twins(ike);
        let stays = |other: &IkeSa| !has_lost(effects, other) && !other.is_to_come_again(now);
        ike.connection.roads.unique == Unique::Keep
            && twins.any(|other| other.state == State::Established && stays(other))
    }

    /// Whether another one goes for it.
    pub(super) fn replaces_another(&self, ike: &IkeSa, effects: &[Effect]) -> bool {
        let all = effects.iter().any(|e| matches!(e, Effect::Replace));
        let mut twins = self.twins(ike);
        twins.any(|other| all || has_lost(effects, other))
    }
}

/// Whether the peer says with a new IKE SA that it has lost this one.
fn has_lost(effects: &[Effect], other: &IkeSa) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::InitialContact => true,
        Effect::Resumed(old) => *old == other.origin(),
        _ => false,
    })
}
