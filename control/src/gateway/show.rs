//! The plain data behind `hitless show`: what the workers count, beside what the control thread
//! knows.

use hitless_dataplane::counters::SaCounters;
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{Instant, KeyMaterial, Mode, SaId, Spi, TrafficSelector};

use super::children::{Carried, Direction};
use super::status::lease;
use super::{Gateway, Listing, Row};
use crate::api::{
    DropCount, DropStatus, Frames, InboundReport, NeighbourReport, OutboundReport, PolicyCount,
    PolicyReport, RouteReport, SaReport, Show, Shown, TrafficReport, UdpPorts, WindowReport,
    WorkerCount, WorkerPort, WorkerReport,
};

impl Gateway {
    /// The answer to `hitless show`, or what is wrong with the question.
    pub fn show(&mut self, now: Instant, what: &Show) -> Result<Shown, String> {
        Ok(match what {
            Show::Drops { worker, all } => Shown::Drops {
                drops: self.show_drops(*worker, *all)?,
            },
            Show::Sas { which } => {
                let rows = self.list_all(now, Listing::of_child_sas(which.clone()))?;
                let sas = rows.into_iter().filter_map(Row::into_child_sa).collect();
                Shown::Sas { sas }
            }
            Show::Policies {} => {
                let rows = self.list_all(now, self.list_policies())?;
                let policies = rows.into_iter().filter_map(Row::into_policy).collect();
                Shown::Policies { policies }
            }
            Show::Workers {} => Shown::Workers {
                workers: self.show_workers(),
            },
            Show::Routes {} => Shown::Routes {
                routes: self.show_routes(),
            },
            Show::Neighbours {} => Shown::Neighbours {
                neighbours: self.show_neighbours(now),
            },
        })
    }

    fn show_drops(&self, worker: Option<u64>, all: bool) -> Result<Vec<DropCount>, String> {
        let workers = self.dataplane.len() as u64;
        if let Some(worker) = worker.filter(|worker| *worker >= workers) {
            let last = workers.saturating_sub(1);
            return Err(format!("there is no worker {worker}; they are 0 to {last}"));
        }
        let counters: Vec<_> = (0u64..).zip(self.dataplane.counters()).collect();
        let asked = |of: u64| worker.is_none_or(|only| only == of);
        let reasons = DropReason::ALL.iter().map(|reason| {
            let counts = counters.iter().filter(|(of, _)| asked(*of));
            let workers: Vec<WorkerCount> = counts
                .map(|(worker, counters)| WorkerCount {
                    worker: *worker,
                    packets: counters.dropped(*reason),
                })
                .collect();
            DropCount {
                reason: reason.name().to_owned(),
                xfrm: reason.xfrm_name().to_owned(),
                packets: workers.iter().map(|count| count.packets).sum(),
                workers,
            }
        });
        let mut drops: Vec<DropCount> = reasons.filter(|drop| all || drop.packets > 0).collect();
        if worker.is_none() {
            drops.extend(self.control_drops().map(|(reason, packets)| DropCount {
                reason,
                xfrm: String::new(),
                packets,
                workers: Vec::new(),
            }));
        }
        Ok(drops)
    }

    pub(super) fn sa_report(&self, now: Instant, carried: &Carried) -> SaReport {
        let child = &carried.child;
        let lease = lease(carried);
        let inbound = traffic(carried, Direction::In, carried.used_in, now);
        let outbound = traffic(carried, Direction::Out, carried.used_out, now);
        let halves = carried.tallies();
        let receiving = halves.filter(|(_, direction, _)| *direction == Direction::In);
        let windows: Vec<&SaCounters> = receiving.map(|(_, _, counters)| counters).collect();
        let top = windows.iter().map(|window| window.window_top().0).max();
        SaReport {
            connection: carried.connection.clone(),
            child: carried.name.clone(),
            sa: child.id.to_string(),
            mode: match child.mode {
                Mode::Tunnel => "TUNNEL".to_owned(),
                Mode::Transport => "TRANSPORT".to_owned(),
            },
            suite: child.suite.name().to_owned(),
            esn: child.esn,
            local: child.local.to_string(),
            remote: child.remote.to_string(),
            encapsulation: child.encapsulation.map(|ports| UdpPorts {
                local: ports.local_port,
                remote: ports.remote_port,
            }),
            local_ts: child.local_ts.iter().map(ToString::to_string).collect(),
            remote_ts: child.remote_ts.iter().map(ToString::to_string).collect(),
            inbound: InboundReport {
                spi: child.inbound_spi.to_string(),
                key: redacted(&child.inbound_key),
                worker: carried.home as u64,
                window: WindowReport {
                    top: top.unwrap_or(0),
                    size_packets: u64::from(child.replay_window),
                    lost_packets: windows
                        .iter()
                        .map(|window| window.window_lost())
                        .max()
                        .unwrap_or(0),
                },
                traffic: inbound,
            },
            outbound: OutboundReport {
                spi: child.outbound_spi.to_string(),
                key: redacted(&child.outbound_key),
                used_by_policies: carried.send,
                traffic: outbound,
            },
            lease_left: lease.remaining(),
            high_water_left: lease.high_water.saturating_sub(lease.inbound_top),
            lease,
        }
    }

    fn show_workers(&self) -> Vec<WorkerReport> {
        let config = self.settings.config();
        let aead = self.settings.aead().name();
        let workers = self.dataplane.counters().enumerate();
        let workers = workers.map(|(worker, counters)| {
            let (turns, esp, frames) = (counters.turns(), counters.esp(), counters.frames());
            let traffic = (0..counters.ports()).filter_map(|index| counters.port(index));
            let (mut rx_packets, mut rx_bursts) = (0, 0);
            let mut ports = Vec::new();
            for (port, traffic) in config.ports.iter().zip(traffic) {
                rx_packets += traffic.rx_packets;
                rx_bursts += traffic.rx_bursts;
                ports.push(WorkerPort {
                    port: port.name.clone(),
                    driver: port.driver.name().to_owned(),
                    rx_packets: traffic.rx_packets,
                    rx_bytes: traffic.rx_bytes,
                    tx_packets: traffic.tx_packets,
                    tx_bytes: traffic.tx_bytes,
                    dropped_packets: traffic.own.dropped(),
                });
            }
            WorkerReport {
                worker: worker as u64,
                core: config.dataplane.cores.get(worker).map(|core| *core as u64),
                aead: aead.to_owned(),
                calls: turns.turns,
                busy_calls: turns.busy,
                rx_packets,
                rx_bursts,
                packets_per_burst: rx_packets as f64 / rx_bursts.max(1) as f64,
                esp_in_packets: esp.packets_in,
                esp_in_bytes: esp.bytes_in,
                esp_out_packets: esp.packets_out,
                esp_out_bytes: esp.bytes_out,
                punted_packets: counters.punted(),
                dropped_packets: counters.drops().map(|(_, packets)| packets).sum(),
                lease_stalls: esp.lease_stalls,
                parked_packets: esp.parked,
                handed_over_packets: esp.handed_over,
                taken_over_packets: esp.taken_over,
                ports,
                frames: Frames {
                    total: frames.total as u64,
                    free: frames.free as u64,
                    in_ports: frames.in_ports as u64,
                    parked: frames.parked as u64,
                    held: frames.held as u64,
                },
            }
        });
        workers.collect()
    }

    fn show_routes(&self) -> Vec<RouteReport> {
        let ports = &self.settings.config().ports;
        let routes = self.settings.routes().into_iter();
        let routes = routes.filter_map(|route| {
            let (address, length) = route.prefix;
            // A connected route is configured with our own address in it.
            let network = TrafficSelector::prefix(address, length)?.start;
            Some(RouteReport {
                prefix: format!("{network}/{length}"),
                port: ports.get(route.port)?.name.clone(),
                via: route.next_hop.map(|via| via.to_string()),
            })
        });
        routes.collect()
    }

    pub(super) fn policy_report(&self, all: &Spd, index: usize, policy: &Policy) -> PolicyReport {
        PolicyReport {
            policy: index as u64,
            traffic: all
                .traffic(index)
                .map_or_else(Default::default, |traffic| PolicyCount {
                    packets_out: traffic.packets_out,
                    bytes_out: traffic.bytes_out,
                    packets_in: traffic.packets_in,
                    bytes_in: traffic.bytes_in,
                }),
            local: policy.local.to_string(),
            remote: policy.remote.to_string(),
            action: match policy.action {
                Action::Protect(_) => "PROTECT".to_owned(),
                Action::Bypass => "BYPASS".to_owned(),
                Action::Discard => "DISCARD".to_owned(),
            },
            sa: match policy.action {
                Action::Protect(sa) => sa.map(|sa| self.called(sa)),
                Action::Bypass | Action::Discard => None,
            },
        }
    }

    fn show_neighbours(&self, now: Instant) -> Vec<NeighbourReport> {
        let ports = &self.settings.config().ports;
        let neighbours = self.neighbours.iter();
        let neighbours = neighbours.filter_map(|((port, address), neighbour)| {
            Some(NeighbourReport {
                address: address.to_string(),
                port: ports.get(*port)?.name.clone(),
                mac: neighbour.mac.map(|octet| format!("{octet:02x}")).join(":"),
                worker: neighbour.worker as u64,
                seconds_ago: now.since(neighbour.at).as_secs(),
            })
        });
        neighbours.collect()
    }

    /// `connection.child{sa}`, or the SA's own name if it is not carried.
    pub(super) fn called(&self, sa: SaId) -> String {
        match self.children.get(sa) {
            Some(carried) => format!("{}.{}{{{sa}}}", carried.connection, carried.name),
            None => sa.to_string(),
        }
    }
}

/// Whether an operator may mean this SA.
pub(super) fn is_called(carried: &Carried, which: &str) -> bool {
    let child = &carried.child;
    let spi = which.strip_prefix("0x").unwrap_or(which);
    let spi = u32::from_str_radix(spi, 16).ok().map(Spi);
    carried.name == which
        || carried.connection == which
        || which
            .strip_prefix(carried.connection.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|name| name == carried.name)
        || child.id.to_string() == which
        || spi.is_some_and(|spi| spi == child.inbound_spi || spi == child.outbound_spi)
}

fn redacted(key: &KeyMaterial) -> String {
    format!("[redacted, {} octets]", key.expose().len())
}

fn traffic(
    carried: &Carried,
    direction: Direction,
    used: Option<Instant>,
    now: Instant,
) -> TrafficReport {
    let halves = carried.tallies();
    let halves = halves.filter(|(_, of, _)| *of == direction);
    let mut report = TrafficReport {
        used_seconds_ago: used.map(|used| now.since(used).as_secs()),
        ..TrafficReport::default()
    };
    let mut drops = vec![0; DropReason::ALL.len()];
    for (worker, _, counters) in halves {
        report.packets += counters.packets();
        report.bytes += counters.bytes();
        report.workers.push(WorkerCount {
            worker: worker as u64,
            packets: counters.packets(),
        });
        for (sum, reason) in drops.iter_mut().zip(DropReason::ALL) {
            *sum += counters.dropped(*reason);
        }
    }
    let drops = DropReason::ALL.iter().zip(drops);
    let drops = drops.filter(|(_, packets)| *packets > 0);
    report.drops = drops
        .map(|(reason, packets)| drop_status(*reason, packets))
        .collect();
    report
}

pub(super) fn drop_status(reason: DropReason, packets: u64) -> DropStatus {
    DropStatus {
        reason: reason.name().to_owned(),
        xfrm: reason.xfrm_name().to_owned(),
        packets,
    }
}
