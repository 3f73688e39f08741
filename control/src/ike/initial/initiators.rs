//! The IKE SAs that this end is setting up, by our SPI, by connection and by who is at both ends.

use std::collections::{BTreeMap, BTreeSet};

use hitless_sa::IkeSpi;

use super::Initiator;
use crate::ike::proposal::Identification;
use crate::ike::settings::Connection;

/// After a start of thousands each is looked for among all the others.
#[derive(Default)]
pub(in crate::ike) struct Initiators {
    all: BTreeMap<IkeSpi, Initiator>,
    connections: BTreeMap<String, BTreeSet<IkeSpi>>,
    /// How many there are between the same two.
    between: BTreeMap<(Identification, Identification), usize>,
}

impl Initiators {
    pub fn insert(&mut self, initiator: Initiator) {
        let spi = initiator.spi;
        self.remove(&spi);
        let connection = &initiator.connection;
        let spis = self.connections.entry(connection.name.clone()).or_default();
        spis.insert(spi);
        *self.between.entry(ends(connection)).or_default() += 1;
        self.all.insert(spi, initiator);
    }

    pub fn remove(&mut self, spi: &IkeSpi) -> Option<Initiator> {
        let initiator = self.all.remove(spi)?;
        let connection = &initiator.connection;
        if let Some(spis) = self.connections.get_mut(&connection.name) {
            spis.remove(spi);
            if spis.is_empty() {
                self.connections.remove(&connection.name);
            }
        }
        let ends = ends(connection);
        if let Some(count) = self.between.get_mut(&ends) {
            *count -= 1;
            if *count == 0 {
                self.between.remove(&ends);
            }
        }
        Some(initiator)
    }

    /// The first one of a connection.
    pub fn of_connection(&mut self, name: &str) -> Option<&mut Initiator> {
        let spi = self.connections.get(name)?.first()?;
        self.all.get_mut(spi)
    }

    /// Whether one of a connection is to have this child.
    pub fn any_makes(&self, connection: &str, child: &str) -> bool {
        let spis = self.connections.get(connection).into_iter().flatten();
        let mut all = spis.filter_map(|spi| self.all.get(spi));
        all.any(|initiator| initiator.children.iter().any(|name| name == child))
    }

    /// What is to take the place of one IKE SA takes that of another.
    pub fn replace_instead(&mut self, connection: &str, old: IkeSpi, other: IkeSpi) {
        for spi in self.connections.get(connection).into_iter().flatten() {
            if let Some(initiator) = self.all.get_mut(spi)
                && initiator.replaces == Some(old)
            {
                initiator.replaces = Some(other);
            }
        }
    }

    /// Whether there is one between the two that a connection names.
    pub fn any_between(&self, connection: &Connection) -> bool {
        self.between.contains_key(&ends(connection))
    }

    pub fn get(&self, spi: &IkeSpi) -> Option<&Initiator> {
        self.all.get(spi)
    }

    pub fn contains(&self, spi: &IkeSpi) -> bool {
        self.all.contains_key(spi)
    }

    pub fn values(&self) -> impl Iterator<Item = &Initiator> {
        self.all.values()
    }

    pub fn spis(&self) -> impl Iterator<Item = IkeSpi> {
        self.all.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn clear(&mut self) {
        *self = Initiators::default();
    }
}

fn ends(connection: &Connection) -> (Identification, Identification) {
    let ends = [&connection.local_id, &connection.remote_id];
    ends.map(|end| end.folded().into_owned()).into()
}
