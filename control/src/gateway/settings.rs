//! What a validated configuration becomes for the parts of the gateway.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hitless_dataplane::aead::Engine as AeadEngine;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::port::MacAddress;
use hitless_dataplane::worker::{Interface, WorkerSettings};
use hitless_sa::{Incarnation, MemberId, Spi};
use hitless_sync::{LeaseSizes, Member, Mutant, Settings as NodeSettings};

use super::link::{LinkMember, LinkSettings};
use super::protected::Protection;
use crate::config::{Aead, Config};
use crate::ike::auth::TimeOfDay;
use crate::ike::sessions::ClusterSecret;
use crate::ike::settings::{EngineSettings, Withheld};

/// First retransmission of IKE; strongSwan's is 4 s, which a failover cannot afford.
const RETRANSMIT_TIMEOUT: Duration = Duration::from_millis(500);
const RETRANSMIT_TRIES: u32 = 6;
/// SAs of each worker at most.
const SA_CAPACITY: usize = 128 * 1024;

/// Everything that the gateway needs from the configuration.
pub struct GatewaySettings {
    config: Config,
    aead: AeadEngine,
    protection: Arc<Protection>,
    tuning: Tuning,
    /// Once derived it stays: the cluster's secret changes with a restart only.
    cluster_secret: OnceLock<ClusterSecret>,
}

/// What only the simulator sets: leases so small that they run out, and rules to switch off one at
/// a time, to prove that their loss would be noticed.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tuning {
    pub leases: Option<LeaseSizes>,
    /// IKE SAs that a new leader goes on with all at once, instead of a few in a turn.
    pub at_once: Option<usize>,
    pub sync: Mutant,
    /// After a takeover nothing counts as seen (R11 of the lease rules).
    pub no_floor: bool,
    /// Workers deliver whatever the high water is (R8).
    pub no_high_water: bool,
    /// IKE messages leave before the standby has their state (R16).
    pub no_output_commit: bool,
    /// The IVs of IKE messages do not say whose they are (R17).
    pub sk_iv_shared: bool,
    /// The ends of the leases are told while the workers go on (R15, hole A4).
    pub final_too_soon: bool,
    /// A member that leads again goes on with the cells of before (R3, hole A5).
    pub old_cells: bool,
    /// Packets that waited for their high water are delivered whatever has been meanwhile (R8, hole B1).
    pub releases_unmarked: bool,
    /// A sync datagram is read before its length is known (S7).
    pub unchecked: bool,
    /// Not a mutant: copies arrive with a key of the wrong length, so that their drill fails.
    pub broken_copies: bool,
    /// A copy of each sync message leaves beside its protection (S6).
    pub sync_in_clear: bool,
    /// Not a mutant: a peer that knows less of RFC 6311.
    pub withheld: Withheld,
    /// Not a mutant either: when a peer counts as dead, so that a simulation waits for less.
    pub retransmit_tries: Option<u32>,
}

/// A takeover of so many IKE SAs needs no turns.
const AT_ONCE: usize = 256;

impl GatewaySettings {
    /// From a configuration that was checked when it was read.
    pub fn new(config: Config) -> GatewaySettings {
        GatewaySettings {
            aead: aead(config.dataplane.aead),
            protection: Arc::new(Protection::of(&config)),
            config,
            tuning: Tuning::default(),
            cluster_secret: OnceLock::new(),
        }
    }

    /// Takes another configuration in its place; what differs only matters to IKE and the policies.
    /// `secret` was derived from it, or was not.
    pub(super) fn reload(&mut self, config: Config, secret: ClusterSecret) {
        if secret.is_known() {
            self.cluster_secret.get_or_init(|| secret);
        }
        self.protection = Arc::new(Protection::of(&config));
        self.config = config;
    }

    /// The same, with another engine for ESP than the configuration names.
    #[must_use]
    pub fn with_aead(self, aead: AeadEngine) -> GatewaySettings {
        GatewaySettings { aead, ..self }
    }

    /// The same, tuned.
    #[doc(hidden)]
    #[must_use]
    pub fn tuned(self, tuning: Tuning) -> GatewaySettings {
        GatewaySettings { tuning, ..self }
    }

    /// The same, with what was derived from the secret of its cluster before.
    #[doc(hidden)]
    #[must_use]
    pub fn knowing(self, secret: &ClusterSecret) -> GatewaySettings {
        if secret.is_known() {
            self.cluster_secret.get_or_init(|| secret.clone());
        }
        self
    }

    pub(super) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The configuration itself.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What must never leave or arrive in clear, in the order of the file.
    pub(super) fn protection(&self) -> &Arc<Protection> {
        &self.protection
    }

    /// The engine for ESP, which this CPU may not have.
    pub fn aead(&self) -> AeadEngine {
        self.aead
    }

    /// What an IKE engine is told.
    pub fn engine(&self, incarnation: Incarnation) -> EngineSettings {
        let mut connections = self.config.connections.clone();
        for connection in &mut connections {
            connection.roads.withheld = self.tuning.withheld;
        }
        EngineSettings {
            member: self.config.cluster.id,
            incarnation,
            connections,
            pools: self.config.pools.clone(),
            secrets: self.config.secrets.clone(),
            cluster_secret: self.cluster_secret(),
            limits: self.config.ike,
            retransmit_timeout: RETRANSMIT_TIMEOUT,
            retransmit_tries: self.tuning.retransmit_tries.unwrap_or(RETRANSMIT_TRIES),
            key_log: self.config.control.key_log.is_some(),
            time_of_day: TimeOfDay::default(),
        }
    }

    fn cluster_secret(&self) -> ClusterSecret {
        match uses_secret(&self.config) {
            true => {
                let derive = || GatewaySettings::cluster_secret_of(&self.config);
                self.cluster_secret.get_or_init(derive).clone()
            }
            false => ClusterSecret::default(),
        }
    }

    /// Slow by intent, so only if it is used.
    pub fn cluster_secret_of(config: &Config) -> ClusterSecret {
        match config.cluster.secret() {
            Some(secret) if uses_secret(config) => ClusterSecret::new(&config.cluster.name, secret),
            _ => ClusterSecret::default(),
        }
    }

    /// What a sync node is told.
    pub fn node(&self) -> NodeSettings {
        let cluster = &self.config.cluster;
        let me = Member {
            id: cluster.id,
            priority: cluster.priority,
        };
        let others = cluster.sync.iter().flat_map(|sync| &sync.peers);
        let others = others.map(|peer| Member {
            id: peer.id,
            priority: peer.priority,
        });
        let members = std::iter::once(me).chain(others).collect();
        let takeover = cluster.heartbeat * cluster.missed;
        NodeSettings {
            heartbeat: cluster.heartbeat,
            missed: cluster.missed,
            hold: cluster.hold,
            // A standby that has been hasty waits for two takeovers, and the last echo is a heartbeat
            // and a round trip older than the last beat: it can vouch for its copy even then (R16).
            vouch: (takeover * 3).max(Duration::from_millis(50)),
            degraded: cluster.degraded,
            witness: cluster.witness,
            preempt: cluster.preempt,
            layout: self.config.layout(),
            late: !cluster.late.is_zero(),
            leases: self.tuning.leases.unwrap_or_default(),
            at_once: self.tuning.at_once.unwrap_or(AT_ONCE),
            mutant: self.tuning.sync,
            ..NodeSettings::new(cluster.id, members, self.config.cluster_hash())
        }
    }

    /// The member whose part of the SPI space that is (R2, RFC 6311 section 3.3).
    pub(super) fn owner(&self, spi: Spi) -> Option<MemberId> {
        let cluster = &self.config.cluster;
        let others = cluster.sync.iter().flat_map(|sync| &sync.peers);
        let members = std::iter::once(cluster.id).chain(others.map(|peer| peer.id));
        let part = spi.0.to_be_bytes()[0];
        members.into_iter().find(|member| member.0 == part)
    }

    pub(super) fn link(&self, incarnation: Incarnation) -> Option<LinkSettings> {
        let cluster = &self.config.cluster;
        let sync = cluster.sync.as_ref()?;
        let others = sync.peers.iter();
        let others = others.map(|peer| LinkMember {
            id: peer.id,
            address: peer.address,
        });
        Some(LinkSettings {
            me: cluster.id,
            incarnation,
            local: sync.listen,
            others: others.collect(),
            cluster: cluster.name.clone(),
            secret: sync.secret.clone(),
            heartbeat: cluster.heartbeat,
        })
    }

    /// Connected networks first, then the routes of each port.
    pub(super) fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for (index, port) in self.config.ports.iter().enumerate() {
            routes.extend(port.addresses.iter().map(|prefix| Route {
                prefix: (prefix.address, prefix.length),
                port: index,
                next_hop: None,
            }));
            routes.extend(port.routes.iter().map(|route| Route {
                prefix: (route.prefix.address, route.prefix.length),
                port: index,
                next_hop: route.via,
            }));
        }
        routes
    }

    /// The prefixes of those that lead to the protected side.
    pub(super) fn routes_inside(&self) -> Vec<(IpAddr, u8)> {
        let protected = |route: &Route| {
            self.config
                .ports
                .get(route.port)
                .is_some_and(|p| p.protected)
        };
        let inside = self.routes().into_iter().filter(protected);
        inside.map(|route| route.prefix).collect()
    }

    pub(super) fn fib(&self) -> Fib {
        Fib::new(&self.routes())
    }

    /// What one worker is told; `mtus` are those of its ports.
    pub fn worker(&self, id: usize, mtus: &[usize]) -> WorkerSettings {
        let ports = self.config.ports.iter().zip(mtus);
        let interfaces = ports.map(|(port, mtu)| Interface {
            mac: port.mac as MacAddress,
            addresses: port
                .addresses
                .iter()
                .map(|p| (p.address as IpAddr, p.length))
                .collect(),
            mtu: *mtu,
            protected: port.protected,
        });
        WorkerSettings {
            id,
            interfaces: interfaces.collect(),
            pool_frames: self.config.dataplane.frames,
            pool_runs: self.config.dataplane.jumbo_packets,
            checkpoint: self.config.dataplane.checkpoint,
            sa_capacity: SA_CAPACITY,
        }
    }
}

fn uses_secret(config: &Config) -> bool {
    let mut connections = config.connections.iter();
    connections.any(|connection| connection.session.needs_secret())
}

fn aead(wish: Aead) -> AeadEngine {
    match wish {
        Aead::Auto => AeadEngine::default(),
        Aead::Burst => AeadEngine::burst(),
        Aead::Only(engine) => engine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Topology;

    fn key(secret: &ClusterSecret) -> Vec<u8> {
        let key = secret.derive("test", b"").expect("a key");
        key.to_vec()
    }

    #[test]
    fn what_is_slow_to_derive_is_derived_once_and_elsewhere_if_a_reload_brings_it() {
        let plain = Topology::new(2, "open sesame".to_owned())
            .member(1)
            .unwrap();
        let mut detecting = plain.clone();
        detecting.connections[0].session.crash_detection = true;
        let mut settings = GatewaySettings::new(plain.clone());
        assert!(!settings.cluster_secret().is_known(), "nobody needs it");
        assert!(!GatewaySettings::cluster_secret_of(&plain).is_known());
        let derived = GatewaySettings::cluster_secret_of(&detecting);
        // Brought by the reload that needs it first: another one would show.
        let brought = ClusterSecret::new("brought", b"from a thread");
        settings.reload(detecting.clone(), brought.clone());
        assert_eq!(key(&settings.cluster_secret()), key(&brought));
        settings.reload(detecting.clone(), derived.clone());
        assert_eq!(key(&settings.cluster_secret()), key(&brought), "kept");
        settings.reload(plain, ClusterSecret::default());
        assert!(!settings.cluster_secret().is_known());
        // Without one it is derived when it is asked for.
        let own = GatewaySettings::new(detecting);
        assert_eq!(key(&own.cluster_secret()), key(&derived));
    }
}
