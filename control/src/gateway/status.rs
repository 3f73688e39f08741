//! What an operator sees: the plain data behind `hitless status` and `hitless list-sas`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::counters::{EspTraffic, PortTraffic};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{Instant, Mode, SaId, Spi};
use hitless_sync::{MemberStatus as NodeMember, Role as NodeRole};

use super::children::Carried;
use super::show::drop_status;
use super::{Gateway, Row};
use crate::api::{
    ChildSaStatus, DropStatus, GatewayStatus, IkeSaStatus, IkeState, LeaseStatus, MemberStatus,
    PortStatus, Role, SyncStatus,
};
use crate::ike::status::{ChildStatus, SaState};

/// Leases listed in `status`: those that are nearest to their end.
const LEASES: usize = 8;

impl Gateway {
    /// The answer to `hitless status`.
    pub fn status(&mut self, now: Instant) -> GatewayStatus {
        let leases = self.scarce_leases();
        let cluster = &self.settings.config().cluster;
        let node = self.node.status(now);
        let workers = self.dataplane.counters();
        let esp: EspTraffic = workers.map(|worker| worker.esp()).sum();
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: cluster.name.clone(),
            member: cluster.id.0,
            incarnation: node.durable.incarnation.0,
            role: role(node.role),
            epoch: node.epoch.map(|epoch| epoch.to_string()),
            leader: node.leader.map(|leader| leader.0),
            uptime: now.since(self.started).as_secs(),
            degraded: node.degraded,
            members: node
                .members
                .iter()
                .filter(|member| member.id != cluster.id)
                .map(|member| self.member(member))
                .collect(),
            sync: SyncStatus {
                held: self.held.values().map(|waiting| waiting.len() as u64).sum(),
                lag: self.lag(now).as_millis() as u64,
                objects: node.objects as u64,
                vouched: node.vouched,
            },
            ike_sas: self.engine.count() as u64,
            child_sas: node.sas as u64,
            leases,
            packets_in: esp.packets_in,
            bytes_in: esp.bytes_in,
            packets_out: esp.packets_out,
            bytes_out: esp.bytes_out,
            drops: self.drops(),
            aead: self.settings.aead().name().to_owned(),
            workers: self.dataplane.len() as u64,
            key_log: self
                .settings
                .config()
                .control
                .key_log
                .as_ref()
                .map(|path| path.display().to_string()),
            ports: self.ports(),
        }
    }

    /// Only what is told is written out: there may be many SAs, and heartbeats wait meanwhile.
    fn scarce_leases(&mut self) -> Vec<LeaseStatus> {
        let mut scarcest: BTreeSet<(u64, SaId)> = BTreeSet::new();
        self.look_at_all(|carried| {
            let end = carried.cell.limit().0.saturating_add(1);
            let remaining = end.saturating_sub(carried.cell.cursor().0);
            let most = scarcest.last().map_or(0, |(most, _)| *most);
            if scarcest.len() < LEASES || remaining < most {
                scarcest.insert((remaining, carried.child.id));
            }
            if scarcest.len() > LEASES {
                scarcest.pop_last();
            }
        });
        let carried = scarcest.iter().filter_map(|(_, sa)| self.children.get(*sa));
        carried.map(lease).collect()
    }

    /// Which key each outbound SPI stands for, as a digest: on the wire two SAs that two members
    /// made in two answers to one request look alike. For the simulator's own memory only.
    #[doc(hidden)]
    pub fn outbound_keys(&self) -> Vec<(Spi, u64)> {
        let digest = |carried: &Carried| {
            let mut hasher = DefaultHasher::new();
            carried.child.outbound_key.expose().hash(&mut hasher);
            (carried.child.outbound_spi, hasher.finish())
        };
        self.children.iter().map(digest).collect()
    }

    /// Whether the configuration has a connection of this name.
    pub fn has_connection(&self, name: &str) -> bool {
        let mut connections = self.settings.config().connections.iter();
        connections.any(|connection| connection.name == name)
    }

    /// The answer to `hitless list-sas`. Of tens of thousands it takes longer than a takeover.
    pub fn list_sas(&mut self, now: Instant) -> Vec<IkeSaStatus> {
        let all = self.list_ike_sas(None);
        let rows = all.and_then(|all| self.list_all(now, all));
        let rows = rows.unwrap_or_default().into_iter();
        rows.filter_map(Row::into_ike_sa).collect()
    }

    pub(super) fn ike_sa(&self, now: Instant, sa: crate::ike::status::IkeSaStatus) -> IkeSaStatus {
        let (initiator_spi, responder_spi) = match sa.initiator {
            true => (sa.local_spi, sa.remote_spi),
            false => (sa.remote_spi, sa.local_spi),
        };
        IkeSaStatus {
            name: sa.name,
            unique_id: u64::from(sa.unique_id),
            state: ike_state(sa.state),
            initiator_spi: initiator_spi.to_string(),
            responder_spi: responder_spi.to_string(),
            initiator: sa.initiator,
            local_id: sa.local_id.to_string(),
            local_host: sa.local.ip().to_string(),
            local_port: sa.local.port(),
            remote_id: sa.remote_id.to_string(),
            remote_eap_id: sa.remote_eap_id.map(|user| user.to_string()),
            remote_host: sa.remote.ip().to_string(),
            remote_port: sa.remote.port(),
            local_vips: texts(&sa.local_vips),
            dns: texts(&sa.dns),
            remote_vips: texts(&sa.remote_vips),
            algorithms: sa.proposal,
            established: sa.established_ago.map(|ago| ago.as_secs()),
            rekey_time: sa.rekeying_in.map(|time| time.as_secs()),
            reauth_time: sa.reauthenticating_in.map(|time| time.as_secs()),
            authenticated: sa.authenticated,
            certificate: sa.certificate,
            ppk: sa.ppk,
            next_message_id: sa.next_request.0,
            expected_message_id: sa.expected_request.0,
            message_id_sync: sa.message_id_sync,
            children: sa
                .children
                .into_iter()
                .map(|child| self.child_sa(now, child))
                .collect(),
        }
    }

    fn child_sa(&self, now: Instant, child: ChildStatus) -> ChildSaStatus {
        let carried = self.children.get(child.sa);
        let counters = carried.map(Carried::counters).unwrap_or_default();
        let ago = |at: Option<Instant>| at.map(|at| now.since(at).as_secs());
        ChildSaStatus {
            name: child.name,
            unique_id: u64::from(child.sa.counter),
            reqid: child.reqid,
            state: child.state.name().to_owned(),
            mode: match child.mode {
                Mode::Tunnel => "TUNNEL".to_owned(),
                Mode::Transport => "TRANSPORT".to_owned(),
            },
            encapsulated: child.encapsulated,
            esn: child.proposal.contains("/ESN"),
            algorithms: child.proposal.replace("/ESN", ""),
            spi_in: child.inbound_spi.to_string(),
            spi_out: child.outbound_spi.to_string(),
            installed: child.installed_ago.as_secs(),
            rekey_time: child.rekeying_in.map(|time| time.as_secs()),
            life_time: child.ending_in.map(|time| time.as_secs()),
            bytes_in: counters.bytes_in,
            packets_in: counters.packets_in,
            used_in: carried.and_then(|carried| ago(carried.used_in)),
            bytes_out: counters.bytes_out,
            packets_out: counters.packets_out,
            used_out: carried.and_then(|carried| ago(carried.used_out)),
            local_ts: child.local_ts.iter().map(ToString::to_string).collect(),
            remote_ts: child.remote_ts.iter().map(ToString::to_string).collect(),
            lease: carried.map(lease),
        }
    }

    fn member(&self, member: &NodeMember) -> MemberStatus {
        let peers = self
            .settings
            .config()
            .cluster
            .sync
            .iter()
            .flat_map(|sync| &sync.peers);
        let address = peers
            .filter(|peer| peer.id == member.id)
            .map(|peer| peer.address)
            .next();
        let cluster = &self.settings.config().cluster;
        let patience = cluster.heartbeat * cluster.missed * 2;
        let silent = member.silent_for.is_some_and(|silent| silent > patience);
        MemberStatus {
            id: member.id.0,
            address: address.map_or_else(String::new, |address| address.to_string()),
            priority: member.priority,
            role: if silent {
                Some(Role::Silent)
            } else {
                member.role.map(role)
            },
            incarnation: member.incarnation.map(|incarnation| incarnation.0),
            healthy: member.healthy && !silent,
            silent_for: member.silent_for.map(|time| time.as_millis() as u64),
            bound: member.bound,
            able: member.able,
            backlog: member.backlog as u64,
        }
    }

    /// How long the oldest held message has waited for the standby.
    fn lag(&self, now: Instant) -> Duration {
        let since = self.held.values().filter_map(|waiting| waiting.since());
        since.min().map_or(Duration::ZERO, |since| now.since(since))
    }

    fn drops(&self) -> Vec<DropStatus> {
        let reasons = DropReason::ALL.iter().filter_map(|reason| {
            let workers = self.dataplane.counters();
            let packets = workers.map(|counters| counters.dropped(*reason)).sum();
            (packets > 0).then(|| drop_status(*reason, packets))
        });
        let control = self.control_drops().map(|(reason, packets)| DropStatus {
            reason,
            xfrm: String::new(),
            packets,
        });
        reasons.chain(control).collect()
    }

    /// What the control thread dropped or refused, by reason.
    pub(super) fn control_drops(&self) -> impl Iterator<Item = (String, u64)> {
        let link = self
            .link
            .as_ref()
            .map(|link| link.counters())
            .unwrap_or_default();
        let gateway = [
            ("inject_full", self.dataplane.inject_full()),
            ("worker_command", self.dataplane.dropped_commands()),
            ("unknown_spi_at_takeover", self.late.counts.unknown),
            ("late_expired", self.late.counts.expired),
            ("late_malformed", self.late.counts.malformed),
            ("sync_unknown_sender", link.unknown_sender),
            ("sync_unknown_spi", link.unknown_spi),
            ("sync_refused", link.refused),
            ("sync_no_link", link.no_link),
            ("sync_ike_dropped", link.ike_dropped),
            ("sync_authentication_failed", link.authentication_failed),
        ];
        let gateway = gateway
            .into_iter()
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| (reason.to_owned(), packets));
        self.counts.list().chain(gateway)
    }

    /// Notes what the driver of each port came to, for the status.
    pub fn set_port_modes(&mut self, modes: Vec<String>) {
        self.port_modes = modes;
    }

    fn ports(&self) -> Vec<PortStatus> {
        let ports = self.settings.config().ports.iter().enumerate();
        let ports = ports.map(|(index, port)| {
            let workers = self.dataplane.counters();
            let traffic: PortTraffic = workers.filter_map(|worker| worker.port(index)).sum();
            PortStatus {
                name: port.name.clone(),
                driver: port.driver.name().to_owned(),
                interface: port.interface.clone(),
                mode: self.port_modes.get(index).cloned().unwrap_or_default(),
                protected: port.protected,
                mac: port.mac.map(|octet| format!("{octet:02x}")).join(":"),
                addresses: port.addresses.iter().map(ToString::to_string).collect(),
                rx_packets: traffic.rx_packets,
                rx_bytes: traffic.rx_bytes,
                tx_packets: traffic.tx_packets,
                tx_bytes: traffic.tx_bytes,
                dropped: traffic.own.dropped(),
            }
        });
        ports.collect()
    }
}

pub(super) fn lease(carried: &Carried) -> LeaseStatus {
    let cell: &Cell = &carried.cell;
    LeaseStatus {
        sa: carried.child.id.to_string(),
        child: format!("{}.{}", carried.connection, carried.name),
        next: cell.cursor().0,
        grant: cell.limit().0,
        inbound_top: cell.inbound_top().0,
        high_water: cell.high_water().0,
        stalls: cell.lease_stalls(),
    }
}

fn role(role: NodeRole) -> Role {
    match role {
        NodeRole::Leading => Role::Active,
        NodeRole::Admitted => Role::Standby,
        NodeRole::Learning => Role::Learning,
        NodeRole::TakingOver | NodeRole::HandingOver => Role::Changing,
        NodeRole::Out => Role::Out,
    }
}

fn ike_state(state: SaState) -> IkeState {
    match state {
        SaState::Connecting => IkeState::Connecting,
        SaState::Passive => IkeState::Passive,
        SaState::Established | SaState::Installed => IkeState::Established,
        SaState::Rekeying => IkeState::Rekeying,
        SaState::Rekeyed => IkeState::Rekeyed,
        SaState::Deleting => IkeState::Deleting,
    }
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}
