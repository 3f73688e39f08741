//! Child SAs.

use std::net::IpAddr;
use std::sync::Arc;

use hitless_sa::{
    ChildSa, EspSuite, Instant, KeyMaterial, Mode, SaOptions, Spi, TrafficSelector,
    UdpEncapsulation,
};

use super::record::{ChildRecord, LimitsRecord, SelectorRecord};
use super::{ImportError, after, ago, before, collect, sa_id, sa_id_record, until};
use crate::ike::child::{ChildState, Closing, Installed, options};
use crate::ike::established::IkeSa;
use crate::ike::purpose::Purpose;
use crate::ike::sessions::lifetimes::{Limit, Limits};

fn selector_record(selector: &TrafficSelector) -> SelectorRecord {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    SelectorRecord {
        protocol: selector.protocol.into(),
        start_port: selector.start_port.into(),
        end_port: selector.end_port.into(),
        start: octets(selector.start),
        end: octets(selector.end),
    }
}

fn selector(record: &SelectorRecord) -> Result<TrafficSelector, ImportError> {
    let bad = || ImportError::Field("traffic selector");
    let port = |port: u32| u16::try_from(port).map_err(|_| bad());
    Ok(TrafficSelector {
        protocol: u8::try_from(record.protocol).map_err(|_| bad())?,
        start_port: port(record.start_port)?,
        end_port: port(record.end_port)?,
        start: address(&record.start).ok_or_else(bad)?,
        end: address(&record.end).ok_or_else(bad)?,
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

pub(super) fn child_record(child: &Installed, now: Instant) -> ChildRecord {
    let sa = &child.sa;
    ChildRecord {
        id: Some(sa_id_record(sa.id)),
        name: child.name.clone(),
        transport: sa.mode == Mode::Transport,
        inbound_spi: sa.inbound_spi.0,
        outbound_spi: sa.outbound_spi.0,
        suite: sa.suite.keyword().to_owned(),
        esn: sa.esn,
        inbound_key: sa.inbound_key.expose().to_vec(),
        outbound_key: sa.outbound_key.expose().to_vec(),
        local_ts: sa.local_ts.iter().map(selector_record).collect(),
        remote_ts: sa.remote_ts.iter().map(selector_record).collect(),
        replay_window: sa.replay_window,
        local: sa.local.to_string(),
        remote: sa.remote.to_string(),
        local_port: sa.encapsulation.map(|e| e.local_port.into()),
        remote_port: sa.encapsulation.map(|e| e.remote_port.into()),
        state: match child.state {
            ChildState::Installed => 0,
            ChildState::Rekeying => 1,
            ChildState::Rekeyed => 2,
            ChildState::Deleting => 3,
        },
        sending: child.sending,
        no_tfc: child.no_tfc,
        resource: sa.options.resource.map(u32::from),
        replaced_by: child.replaced_by.map(sa_id_record),
        installed_ago: ago(now, child.installed),
        rekey_in: child.rekey_at.map(|at| until(now, at)),
        terminated: child.closing == Some(Closing::ForGood),
        again: child.closing == Some(Closing::Again),
        life_in: child.life_at.map(|at| until(now, at)),
        limits: limits_record(child.limits),
        purpose: Purpose::record(child.purpose),
    }
}

fn limits_record(limits: Limits) -> Option<LimitsRecord> {
    (limits != Limits::default()).then_some(LimitsRecord {
        rekey_bytes: limits.bytes.rekey,
        life_bytes: limits.bytes.life,
        rekey_packets: limits.packets.rekey,
        life_packets: limits.packets.life,
    })
}

fn limits(record: Option<&LimitsRecord>) -> Limits {
    record.map_or_else(Limits::default, |record| Limits {
        bytes: Limit {
            rekey: record.rekey_bytes,
            life: record.life_bytes,
        },
        packets: Limit {
            rekey: record.rekey_packets,
            life: record.life_packets,
        },
    })
}

/// The Child SA of a record. How it treats packets is each member's own setting, and not recorded.
pub(super) fn child(
    record: &ChildRecord,
    ike: &IkeSa,
    now: Instant,
) -> Result<Installed, ImportError> {
    let bad = ImportError::Field;
    let suite = EspSuite::ALL
        .iter()
        .copied()
        .find(|s| s.keyword() == record.suite)
        .ok_or(bad("suite"))?;
    let key = |octets: &[u8]| {
        let fits = octets.len() == suite.key_material_length();
        fits.then(|| KeyMaterial::new(octets)).ok_or(bad("key"))
    };
    let port = |port: u32| u16::try_from(port).map_err(|_| bad("port"));
    let encapsulation = match (record.local_port, record.remote_port) {
        (Some(local), Some(remote)) => Some(UdpEncapsulation {
            local_port: port(local)?,
            remote_port: port(remote)?,
        }),
        _ => None,
    };
    let mut children = ike.connection.children.iter();
    let configured = children.find(|child| child.name == record.name);
    let sa = ChildSa {
        id: sa_id(record.id.as_ref().ok_or(bad("SA"))?)?,
        mode: if record.transport {
            Mode::Transport
        } else {
            Mode::Tunnel
        },
        inbound_spi: Spi(record.inbound_spi),
        outbound_spi: Spi(record.outbound_spi),
        suite,
        esn: record.esn,
        inbound_key: key(&record.inbound_key)?,
        outbound_key: key(&record.outbound_key)?,
        local: record.local.parse().map_err(|_| bad("address"))?,
        remote: record.remote.parse().map_err(|_| bad("address"))?,
        encapsulation,
        local_ts: collect(&record.local_ts, selector)?,
        remote_ts: collect(&record.remote_ts, selector)?,
        replay_window: record.replay_window,
        options: agreed(options(configured, ike.nat, record.no_tfc), record)?,
    };
    Ok(Installed {
        sa: Arc::new(sa),
        name: record.name.clone(),
        purpose: Purpose::recorded(record.purpose),
        state: match record.state {
            0 => ChildState::Installed,
            1 => ChildState::Rekeying,
            2 => ChildState::Rekeyed,
            3 => ChildState::Deleting,
            _ => return Err(bad("state")),
        },
        sending: record.sending,
        no_tfc: record.no_tfc,
        replaced_by: record.replaced_by.as_ref().map(sa_id).transpose()?,
        installed: before(now, record.installed_ago),
        rekey_at: record.rekey_in.map(|until| after(now, until)),
        closing: closing(record.terminated, record.again),
        life_at: record.life_in.map(|until| after(now, until)),
        limits: limits(record.limits.as_ref()),
    })
}

pub(super) fn closing(for_good: bool, again: bool) -> Option<Closing> {
    let for_good = for_good.then_some(Closing::ForGood);
    for_good.or(again.then_some(Closing::Again))
}

/// The options of a member's own configuration, and what was agreed on.
fn agreed(own: SaOptions, record: &ChildRecord) -> Result<SaOptions, ImportError> {
    let number = |number| u16::try_from(number).map_err(|_| ImportError::Field("resource"));
    Ok(SaOptions {
        resource: record.resource.map(number).transpose()?,
        ..own
    })
}
