//! New connections and secrets for a running engine.
//!
//! An IKE SA belongs to the connection of its name. As long as that still means the same two ends,
//! the IKE SA stays (at another of our addresses, if its peer speaks MOBIKE), and what the connection
//! says from now on holds for what is made from now on. A Child SA stays as long as its child
//! protects the same. The rest is closed, and started again if the file says so.

use std::fmt;
use std::sync::Arc;

use hitless_sa::{Entropy, IkeSpi, Instant, SaId};

use super::auth::RemoteAuth;
use super::engine::Engine;
use super::established::IkeSa;
use super::initial::Responder;
use super::meant::Meant;
use super::mobike;
use super::settings::{Child, Connection, EngineSettings};
use super::tasks::Task;

/// What a reload came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reloaded {
    pub connections: usize,
    /// IKE SAs that stay.
    pub kept: usize,
    /// IKE SAs and Child SAs that are closed.
    pub closed: usize,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections loaded: {}; IKE_SAs that stay: {}, SAs closed: {}",
            self.connections, self.kept, self.closed
        )
    }
}

/// What becomes of an IKE SA.
enum Fate {
    /// Its connection is there no more, or means others.
    Closed { again: bool },
    /// It stays, without these Child SAs; with whether they may come again.
    Kept(Arc<Connection>, Vec<(SaId, bool)>),
}

impl Engine {
    /// Takes connections and secrets from `settings`, and leaves all else as it is.
    pub fn reload(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        settings: EngineSettings,
    ) -> Reloaded {
        self.connections = settings.connections.iter().cloned().map(Arc::new).collect();
        self.meant = Meant::new(&self.connections);
        let named = self.connections.iter();
        self.by_name = named.map(|c| (c.name.clone(), c.clone())).collect();
        self.settings.connections = settings.connections;
        self.settings.secrets = settings.secrets;
        self.settings.cluster_secret = settings.cluster_secret;
        self.settings.limits = settings.limits;
        let mut reloaded = Reloaded {
            connections: self.connections.len(),
            ..Reloaded::default()
        };
        // Copies of what another member leads follow that member's own reload.
        for ike in self.passive.values_mut() {
            if let Some(connection) = self.by_name.get(&ike.connection.name) {
                ike.connection = connection.clone();
            }
        }
        self.forget_half_open();
        for spi in self.sas.keys().copied().collect::<Vec<IkeSpi>>() {
            self.reload_one(now, entropy, spi, &mut reloaded);
        }
        if self.leading {
            self.start_all(now, entropy);
        }
        reloaded
    }

    /// What we have just begun begins again, with what holds now. Whom a peer means is decided in
    /// IKE_AUTH, by what holds then; what could lead to no connection any more is forgotten now.
    fn forget_half_open(&mut self) {
        let spis: Vec<IkeSpi> = self.initiators.spis().collect();
        for spi in spis {
            self.remove_initiator(spi);
        }
        let meant = |responder: &&Responder| {
            let among = self.meant.among(&self.connections, responder.path);
            among
                .iter()
                .any(|connection| responder.may_mean(connection))
        };
        let astray = self.half_open.values();
        let astray = astray.filter(|responder| !meant(responder));
        for spi in astray.map(|responder| responder.spi).collect::<Vec<_>>() {
            self.half_open.remove(spi);
            self.timers.set(spi, None);
        }
    }

    fn reload_one(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
        reloaded: &mut Reloaded,
    ) {
        let Some(ike) = self.sas.get(&spi) else {
            return;
        };
        let fate = fate(ike, self.by_name.get(&ike.connection.name));
        match fate {
            Fate::Closed { again } => {
                reloaded.closed += 1;
                self.order(now, entropy, spi, |ike| {
                    ike.terminated |= !again;
                    ike.schedule(now, Task::DeleteIke);
                });
            }
            Fate::Kept(connection, gone) => {
                reloaded.kept += 1;
                reloaded.closed += gone.len();
                self.order(now, entropy, spi, |ike| {
                    ike.readdressed |= ike.connection.local_addrs != connection.local_addrs;
                    ike.connection = connection;
                    // Where it was about to go has been forgotten with all that had just begun.
                    ike.forget_redirect();
                    for (id, again) in gone {
                        ike.close_child(now, id, again);
                    }
                });
            }
        }
    }
}

fn fate(ike: &IkeSa, connection: Option<&Arc<Connection>>) -> Fate {
    let Some(connection) = connection else {
        return Fate::Closed { again: false };
    };
    let old = &ike.connection;
    // Where it may move to another of our addresses, it does not end with the one it has.
    let ends = mobike::stays(ike, connection)
        && old.remote_addrs == connection.remote_addrs
        && old.local_id == connection.local_id
        && old.remote_id == connection.remote_id
        && is_still_meant(ike, connection);
    if !ends {
        return Fate::Closed { again: true };
    }
    let named = |of: &Connection, name: &str| -> Option<Child> {
        of.children.iter().find(|c| c.name == name).cloned()
    };
    let gone = ike.children.iter().filter_map(|child| {
        let (before, after) = (named(old, &child.name), named(connection, &child.name));
        let same = match (&before, &after) {
            (Some(before), Some(after)) => protects_the_same(before, after),
            _ => false,
        };
        (!same).then_some((child.sa.id, after.is_some()))
    });
    Fate::Kept(connection.clone(), gone.collect())
}

/// Whether a user who logged in with EAP could do so today.
pub(super) fn is_still_meant(ike: &IkeSa, connection: &Connection) -> bool {
    match (&connection.auth.remote, &ike.authenticated.proven.user) {
        (RemoteAuth::Eap(users), Some(user)) => users.include(user, &ike.remote_id),
        (RemoteAuth::Eap(_), None) | (_, Some(_)) => false,
        (_, None) => true,
    }
}

fn protects_the_same(one: &Child, other: &Child) -> bool {
    one.mode == other.mode
        && one.local_ts == other.local_ts
        && one.remote_ts == other.remote_ts
        && one.dynamic == other.dynamic
        && one.esp_proposals == other.esp_proposals
}
