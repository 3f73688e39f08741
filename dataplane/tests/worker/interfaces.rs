//! A gateway with two protected networks and one outside: policies hold on all of them.

use std::net::IpAddr;
use std::sync::Arc;

use hitless_dataplane::command::Command;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::port::{MacAddress, Port};
use hitless_dataplane::spd::{Action, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};

use crate::bed::{policy, udp};

#[test]
fn rfc4301_section_3_1_policies_hold_on_every_interface_and_not_between_protected_ones() {
    let mut gateway = Ports::new();
    let spd = Arc::new(Spd::for_workers(
        vec![
            policy("10.1.0.0/16", "192.0.2.0/24", Action::Bypass),
            policy("10.0.0.0/8", "0.0.0.0/0", Action::Discard),
        ],
        1,
    ));
    gateway.send(Command::Policies(Arc::clone(&spd)));
    // From one protected network to the other nothing crosses the boundary: no policy is asked.
    gateway.brings(0, &udp([10, 1, 0, 5], [10, 2, 0, 5], b"x"));
    assert_eq!(gateway.sent(1), 1);
    assert_eq!(spd.traffic(1).map(|t| t.packets_out), Some(0));
    // Out of either, each by its policy.
    gateway.brings(0, &udp([10, 1, 0, 5], [192, 0, 2, 9], b"x"));
    gateway.brings(1, &udp([10, 2, 0, 5], [192, 0, 2, 9], b"x"));
    assert_eq!(gateway.sent(2), 1);
    assert_eq!(gateway.dropped(DropReason::PolicyDiscard), 1);
    // In again, each by its policy.
    gateway.brings(2, &udp([192, 0, 2, 9], [10, 1, 0, 5], b"x"));
    gateway.brings(2, &udp([192, 0, 2, 9], [10, 2, 0, 5], b"x"));
    assert_eq!((gateway.sent(0), gateway.sent(1)), (1, 0));
    assert_eq!(gateway.dropped(DropReason::PolicyDiscard), 2);
    let counts = [0, 1].map(|n| spd.traffic(n).map(|t| (t.packets_out, t.packets_in)));
    assert_eq!(counts, [Some((1, 1)), Some((1, 1))]);
}

/// A gateway with two protected networks, 10.1.0.0/16 and 10.2.0.0/16, and one outside.
struct Ports {
    worker: Worker,
    handle: WorkerHandle,
    far: Vec<MemoryPort>,
}

const MAC: MacAddress = [2, 0, 0, 0, 0, 1];
const NETWORKS: [([u8; 4], u8, bool); 3] = [
    ([10, 1, 0, 1], 16, true),
    ([10, 2, 0, 1], 16, true),
    ([192, 0, 2, 1], 24, false),
];

impl Ports {
    fn new() -> Ports {
        let (near, far): (Vec<_>, Vec<_>) =
            (0..3).map(|_| memory::link(64, crate::bed::MTU)).unzip();
        let interfaces = NETWORKS.map(|(address, length, protected)| Interface {
            mac: MAC,
            addresses: vec![(IpAddr::from(address), length)],
            mtu: crate::bed::MTU,
            protected,
        });
        let settings = WorkerSettings {
            id: 0,
            interfaces: interfaces.into(),
            pool_frames: 256,
            pool_runs: 0,
            checkpoint: CheckpointSettings::default(),
            sa_capacity: 8,
        };
        let near = near.into_iter().map(|port| Box::new(port) as Box<dyn Port>);
        let leadership = Leadership::new(true);
        let (worker, handle) = worker(settings, near.collect(), leadership).unwrap();
        let mut ports = Ports {
            worker,
            handle,
            far,
        };
        let route = |(port, (address, length, _)): (usize, &([u8; 4], u8, bool))| Route {
            prefix: (IpAddr::from(*address), *length),
            port,
            next_hop: None,
        };
        let routes: Vec<Route> = NETWORKS.iter().enumerate().map(route).collect();
        ports.send(Command::Routes(Arc::new(Fib::new(&routes))));
        for (port, host) in [[10, 1, 0, 5], [10, 2, 0, 5], [192, 0, 2, 9]]
            .into_iter()
            .enumerate()
        {
            ports.send(Command::Neighbour(News::certain(
                port,
                IpAddr::from(host),
                [2, 0, 0, 0, 9, 9],
            )));
        }
        ports
    }

    fn send(&mut self, command: Command) {
        assert!(self.handle.send(command).is_ok());
        self.worker.turn(hitless_sa::Instant(1));
    }

    fn brings(&mut self, port: usize, packet: &[u8]) {
        let frame = crate::bed::frame(MAC, [2, 0, 0, 0, 9, 9], packet);
        assert!(self.far[port].push_frame(&frame));
        self.worker.turn(hitless_sa::Instant(1));
    }

    fn sent(&mut self, port: usize) -> usize {
        crate::bed::drain(&mut self.far[port]).len()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.handle.counters.dropped(reason)
    }
}
