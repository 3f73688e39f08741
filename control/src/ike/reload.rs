//! New connections and secrets for a running engine.
//!
//! An IKE SA belongs to the connection of its name. As long as that still means the same two ends,
//! the IKE SA stays (at another of our addresses, if its peer speaks MOBIKE), and what the connection
//! says from now on holds for what is made from now on. A Child SA stays as long as its child
//! protects the same. The rest is closed, and started again if the file says so.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use hitless_sa::{Entropy, IkeSpi, Instant, SaId};

use super::auth::RemoteAuth;
use super::eap;
use super::engine::Engine;
use super::established::{IkeSa, State};
use super::initial::Responder;
use super::meant::Meant;
use super::mobike;
use super::output::Event;
use super::purpose::Purpose;
use super::settings::{Connection, EngineSettings, Secret};
use super::tasks::Task;
use super::turn::Turn;

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
    /// Its connection is there no more, or means others, or believes the peer no more, and why.
    Closed { again: bool, why: Option<String> },
    /// It stays, without these Child SAs; with whether they may come again.
    Kept(Arc<Connection>, Vec<(SaId, bool)>),
}

/// Why a takeover here would not go on with a Child SA that another member leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WouldClose {
    /// The connection of that name is not here, means other ends or users, or believes the peer no more.
    Ends,
    /// Its child is not here, or protects something else.
    Child,
    /// Its peer sends to an address that is not ours, and would not follow us.
    Address,
}

impl Engine {
    /// What a takeover here would close of a stored IKE SA, or cut off from its peer.
    pub fn closed_by_takeover(&self, now: Instant, ike: IkeSpi) -> Vec<(SaId, WouldClose)> {
        let Some(ike) = self.passive.get(&ike) else {
            return Vec::new();
        };
        let connection = self.by_name.get(&ike.connection.name);
        let all = |why| ike.children.iter().map(|c| (c.sa.id, why)).collect();
        match fate(ike, connection, true, &self.settings, now) {
            Fate::Closed { .. } => all(WouldClose::Ends),
            Fate::Kept(connection, _) if !mobike::stays(ike, &connection) => {
                all(WouldClose::Address)
            }
            Fate::Kept(_, gone) => {
                let gone = gone.into_iter();
                gone.map(|(sa, _)| (sa, WouldClose::Child)).collect()
            }
        }
    }

    /// Takes connections and secrets from `settings`, and leaves all else as it is.
    pub fn reload(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        settings: EngineSettings,
    ) -> Reloaded {
        self.reload_amid(now, entropy, settings, &mut || {})
    }

    /// The same with very many IKE SAs: `each` runs before each of them.
    pub fn reload_amid(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        settings: EngineSettings,
        each: &mut dyn FnMut(),
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
        // Copies of what another member leads follow that member's own reload. Whether that has been
        // is seen when this one leads them.
        for ike in self.passive.values_mut() {
            each();
            if let Some(connection) = self.by_name.get(&ike.connection.name) {
                ike.connection = connection.clone();
            }
        }
        self.forget_half_open();
        for spi in self.sas.keys().copied().collect::<Vec<IkeSpi>>() {
            each();
            self.reload_one(now, entropy, spi, &mut reloaded);
        }
        if self.leading {
            self.start_all(now, entropy);
        }
        reloaded
    }

    /// Revocation lists have changed: closes the IKE SAs of peers that are believed no more. `each` runs
    /// before each one. Gives how many.
    pub fn relist(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        each: &mut dyn FnMut(),
    ) -> usize {
        let mut closed = 0;
        for spi in self.sas.keys().copied().collect::<Vec<IkeSpi>>() {
            each();
            let Some(ike) = self.sas.get(&spi) else {
                continue;
            };
            // What is on its way out says nothing again.
            let why = (ike.state == State::Established)
                .then(|| disbelieved(ike, &ike.connection, &self.settings, now));
            let Some(why) = why.flatten() else {
                continue;
            };
            closed += 1;
            let fate = Fate::Closed {
                again: true,
                why: Some(why),
            };
            let peer = ike.path.remote;
            self.emit(Vec::new(), fate.said_of(peer).into_iter().collect());
            self.order(now, entropy, spi, |ike| meet(ike, now, fate));
        }
        closed
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
        let connection = self.by_name.get(&ike.connection.name);
        let stays = connection.is_some_and(|connection| mobike::stays(ike, connection));
        let fate = fate(ike, connection, stays, &self.settings, now);
        match &fate {
            Fate::Closed { .. } => reloaded.closed += 1,
            Fate::Kept(_, gone) => {
                reloaded.kept += 1;
                reloaded.closed += gone.len();
            }
        }
        let peer = ike.path.remote;
        self.emit(Vec::new(), fate.said_of(peer).into_iter().collect());
        self.order(now, entropy, spi, |ike| {
            // Where it was about to go has been forgotten with all that had just begun.
            if let Fate::Kept(..) = fate {
                ike.forget_redirect();
            }
            meet(ike, now, fate);
        });
    }
}

/// Holds an IKE SA that another member led, perhaps by another file, to what ours says: as that
/// member's reload of ours would have. Where it is reached is each member's own.
pub(super) fn hold_to(ike: &mut IkeSa, turn: &mut Turn<'_>, connection: Option<&Arc<Connection>>) {
    let fate = fate(ike, connection, true, turn.settings, turn.now);
    turn.events.extend(fate.said_of(ike.path.remote));
    meet(ike, turn.now, fate);
}

impl Fate {
    fn said_of(&self, peer: SocketAddr) -> Option<Event> {
        match self {
            Fate::Closed { why, .. } => why.clone().map(|reason| Event::AuthenticationFailed {
                peer,
                reason: format!("{reason}: its IKE_SA is closed"),
            }),
            Fate::Kept(..) => None,
        }
    }
}

fn meet(ike: &mut IkeSa, now: Instant, fate: Fate) {
    match fate {
        Fate::Closed { again, .. } => {
            ike.terminated |= !again;
            ike.schedule(now, Task::DeleteIke);
        }
        Fate::Kept(connection, gone) => {
            let addressed = Purpose::of_addresses(&connection);
            ike.readdressed |= ike.addressed.is_some_and(|told| told != addressed);
            ike.addressed = Some(addressed);
            ike.purpose = Some(Purpose::of_ends(&connection));
            for child in &mut ike.children {
                let configured = connection.child(&child.name);
                child.purpose = child.purpose.or(configured.map(Purpose::of_child));
            }
            ike.connection = connection;
            for (id, again) in gone {
                ike.close_child(now, id, again);
            }
        }
    }
}

/// What an older version made is taken for what the file says when it is first held to one.
fn still(then: Option<Purpose>, now: Purpose) -> bool {
    then.is_none_or(|then| then == now)
}

/// Where it may move to another of our addresses, it `stays` and does not end with the one it has.
fn fate(
    ike: &IkeSa,
    connection: Option<&Arc<Connection>>,
    stays: bool,
    settings: &EngineSettings,
    now: Instant,
) -> Fate {
    let Some(connection) = connection else {
        return Fate::Closed {
            again: false,
            why: None,
        };
    };
    let ends = stays
        && still(ike.purpose, Purpose::of_ends(connection))
        && is_still_meant(ike, connection, &settings.secrets);
    let why = disbelieved(ike, connection, settings, now);
    if !ends || why.is_some() {
        return Fate::Closed { again: true, why };
    }
    let gone = ike.children.iter().filter_map(|child| {
        let after = connection.child(&child.name);
        let same = after.is_some_and(|after| still(child.purpose, Purpose::of_child(after)));
        (!same).then_some((child.sa.id, after.is_some()))
    });
    Fate::Kept(connection.clone(), gone.collect())
}

/// Whether a user who logged in with EAP could do so today: is meant, and has an account.
fn is_still_meant(ike: &IkeSa, connection: &Connection, secrets: &[Secret]) -> bool {
    match (&connection.auth.remote, &ike.authenticated.proven.user) {
        (RemoteAuth::Eap(users), Some(user)) => {
            users.include(user, &ike.remote_id) && eap::account(secrets, user).is_some()
        }
        (RemoteAuth::Eap(_), None) | (_, Some(_)) => false,
        (_, None) => true,
    }
}

/// Why a peer is believed no more that showed a certificate, if so.
fn disbelieved(
    ike: &IkeSa,
    connection: &Connection,
    settings: &EngineSettings,
    now: Instant,
) -> Option<String> {
    let RemoteAuth::Pubkey(accepted) = &connection.auth.remote else {
        return None;
    };
    let path = ike.authenticated.proven.path.as_ref()?;
    let time = settings.time_of_day.at(now)?;
    let error = accepted.trust.still_believes(path, time).err()?;
    Some(format!("{}: {error}", ike.remote_id))
}
