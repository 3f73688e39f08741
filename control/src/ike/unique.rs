//! How many IKE SAs a peer may have (RFC 7296 section 2.4, `unique`).
//!
//! A peer is who its identity says, towards one of ours. INITIAL_CONTACT counts only in IKE_AUTH
//! and only once that has succeeded: before, anybody could end another's IKE SAs with it.

use hitless_sa::{IkeSpi, Instant};

use super::contents::Contents;
use super::engine::Engine;
use super::established::{IkeSa, State};
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
            // The peer may believe in them: they are deleted, not forgotten.
            Unique::Replace if !initiator => Some(Effect::Replace),
            Unique::No | Unique::Keep | Unique::Replace => None,
        }
    }
}

impl Engine {
    /// RFC 7296 section 2.4: INITIAL_CONTACT "asserts that this IKE SA is the only IKE SA currently
    /// active between the authenticated identities", and "MUST NOT be sent by an entity that may
    /// be replicated", which is what `unique = "never"` says.
    pub(super) fn is_first_contact(&self, connection: &Connection) -> bool {
        let mut of_connection = self.index.of_connection(&connection.name);
        let same = |local: &Identification, remote: &Identification| {
            *local == connection.local_id && *remote == connection.remote_id
        };
        let others = self.index.of_peer(&connection.remote_id);
        let mut others = others.filter_map(|spi| self.sas.get(&spi));
        let mut asking = self.initiators.values();
        connection.roads.unique != Unique::Never
            && of_connection.next().is_none()
            && !others.any(|ike| same(&ike.local_id, &ike.remote_id))
            && !asking.any(|i| same(&i.connection.local_id, &i.connection.remote_id))
    }

    /// The other IKE SAs between the same two.
    fn twins(&self, ike: &IkeSa) -> impl Iterator<Item = IkeSpi> {
        let others = self.index.of_peer(&ike.remote_id);
        let others = others.filter_map(|spi| self.sas.get(&spi));
        let twins = others.filter(|other| other.local_id == ike.local_id);
        let own = ike.local_spi;
        twins
            .map(|other| other.local_spi)
            .filter(move |spi| *spi != own)
    }

    /// RFC 7296 section 2.4: the other IKE SAs with this peer are dead.
    pub(super) fn supersede(&mut self, ike: &IkeSa) -> Vec<IkeSpi> {
        let dead: Vec<IkeSpi> = self.twins(ike).collect();
        for spi in &dead {
            if let Some(other) = self.sas.get_mut(spi) {
                other.superseded = true;
            }
        }
        dead
    }

    /// `unique = "replace"`: the peer is told that the others end.
    pub(super) fn replace(&mut self, now: Instant, ike: &IkeSa) -> Vec<IkeSpi> {
        let old: Vec<IkeSpi> = self.twins(ike).collect();
        for spi in &old {
            if let Some(other) = self.sas.get_mut(spi) {
                other.terminated = true;
                other.schedule(now, Task::DeleteIke);
            }
        }
        old
    }

    /// `unique = "keep"`: whether the peer has an IKE SA, and may not have this one besides.
    pub(super) fn has_twin(&self, ike: &IkeSa) -> bool {
        let lives = |spi: IkeSpi| {
            let other = self.sas.get(&spi);
            other.is_some_and(|other| other.state == State::Established)
        };
        ike.connection.roads.unique == Unique::Keep && self.twins(ike).any(lives)
    }
}
