//! Look-ups by themselves: the policy of a flow that no cache remembers, the route of an address, in
//! random order over the whole table.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::flow::{Flow, Ports};
use hitless_dataplane::port::BURST;
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_sa::TrafficSelector;

use crate::clock::{Moment, median};
use crate::progress::Progress;
use crate::results::LookupLine;
use hitless_bench::Random;

const POLICIES: [u32; 5] = [1, 100, 1000, 10_000, 100_000];
const ROUTES: [u32; 4] = [1, 1000, 10_000, 100_000];
/// Look-ups of a round, and rounds.
const LOOKUPS: usize = 8192;
const ROUNDS: usize = 50;

/// Both tables in both families.
pub fn run() -> Result<Vec<LookupLine>, Box<dyn Error>> {
    let mut progress = Progress::new("lookup", 3 * POLICIES.len() + 2 * ROUTES.len());
    let mut lines = Vec::new();
    for entries in POLICIES {
        for shape in [Shape::V4, Shape::V6, Shape::Mixed] {
            progress.step(shape.name());
            lines.extend(policies(shape, entries)?);
        }
    }
    for entries in ROUTES {
        for v4 in [true, false] {
            progress.step("routes");
            lines.push(routes(v4, entries));
        }
    }
    Ok(lines)
}

/// What the policies look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One network to a network of each policy.
    V4,
    V6,
    /// As [`Shape::V4`], a third narrowed to ports, behind ten policies that everything overlaps.
    Mixed,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::V4 => "SPD, IPv4 /24s",
            Shape::V6 => "SPD, IPv6 /64s",
            Shape::Mixed => "SPD, overlaps",
        }
    }

    fn remote(self, n: u32) -> (IpAddr, u8) {
        match self {
            Shape::V6 => {
                let address = 0xfd00u128 << 112 | u128::from(n) << 64 | 7;
                (Ipv6Addr::from(address).into(), 64)
            }
            Shape::V4 | Shape::Mixed => (Ipv4Addr::from(0x1000_0007 + n * 256).into(), 24),
        }
    }

    fn local(self) -> (IpAddr, u8) {
        match self {
            Shape::V6 => (Ipv6Addr::from(0xfc00u128 << 112).into(), 48),
            Shape::V4 | Shape::Mixed => (Ipv4Addr::new(10, 1, 0, 0).into(), 16),
        }
    }

    fn policies(self, entries: u32) -> Result<Vec<Policy>, &'static str> {
        let prefix =
            |(address, length)| TrafficSelector::prefix(address, length).ok_or("no prefix");
        let everything = if self == Shape::Mixed { 10 } else { 0 };
        let mut policies = Vec::new();
        for n in 0..entries.min(everything) {
            let mut local = prefix((self.local().0, 0))?;
            local.protocol = 100 + n as u8;
            let remote = prefix((self.local().0, 0))?;
            policies.push(Policy {
                local,
                remote,
                action: Action::Discard,
            });
        }
        for n in policies.len() as u32..entries {
            let mut remote = prefix(self.remote(n))?;
            if self == Shape::Mixed && n.is_multiple_of(3) {
                remote.protocol = 17;
                (remote.start_port, remote.end_port) = (1000, 2000);
            }
            policies.push(Policy {
                local: prefix(self.local())?,
                remote,
                action: Action::Bypass,
            });
        }
        Ok(policies)
    }
}

/// One flow after the other, and in bursts.
fn policies(shape: Shape, entries: u32) -> Result<[LookupLine; 2], Box<dyn Error>> {
    let policies = shape.policies(entries)?;
    let begun = Moment::now();
    let spd = Spd::new(policies);
    let build = begun.elapsed();
    let mut random = Random(7);
    let flows: Vec<Flow> = (0..LOOKUPS)
        .map(|_| Flow {
            source: shape.local().0,
            destination: shape.remote((random.draw() % u64::from(entries)) as u32).0,
            protocol: 17,
            ports: Ports::Of(random.draw() as u16, 1500),
        })
        .collect();
    let line = |table: &str, ns| LookupLine {
        table: format!("{}{table}", shape.name()),
        entries: entries as usize,
        ns,
        build_ms: build.as_secs_f64() * 1e3,
    };
    let one = each(&flows, |flow| {
        std::hint::black_box(spd.outbound(flow));
    });
    let bursts: Vec<&[Flow]> = flows.chunks(BURST).collect();
    let all = each(&bursts, |flows| {
        let mut found = [None; BURST];
        spd.outbound_all(flows, &mut found);
        std::hint::black_box(found);
    });
    Ok([line("", one), line(", bursts", all / BURST as f64)])
}

fn routes(v4: bool, entries: u32) -> LookupLine {
    let scattered = |n: u32| n.wrapping_mul(2_654_435_769);
    let address = |n: u32| match v4 {
        true => IpAddr::from(Ipv4Addr::from(scattered(n) | 9)),
        false => IpAddr::from(Ipv6Addr::from(
            0x2001u128 << 112 | u128::from(scattered(n)) << 80 | 9,
        )),
    };
    let routes: Vec<Route> = (0..entries)
        .map(|n| Route {
            prefix: (address(n), if v4 { 24 } else { 48 }),
            port: n as usize % 4,
            next_hop: None,
        })
        .collect();
    let begun = Moment::now();
    let fib = Fib::new(&routes);
    let build = begun.elapsed();
    let mut random = Random(7);
    let pick = |_| address((random.draw() % u64::from(entries)) as u32);
    let destinations: Vec<IpAddr> = (0..LOOKUPS).map(pick).collect();
    LookupLine {
        table: if v4 {
            "FIB, IPv4 /24s"
        } else {
            "FIB, IPv6 /48s"
        }
        .to_owned(),
        entries: entries as usize,
        ns: each(&destinations, |destination| {
            std::hint::black_box(fib.lookup(*destination));
        }),
        build_ms: build.as_secs_f64() * 1e3,
    }
}

/// Nanoseconds of each, median over the rounds.
fn each<T>(of: &[T], act: impl Fn(&T)) -> f64 {
    let round = |_| {
        let elapsed = crate::clock::time(|| of.iter().for_each(&act));
        elapsed.as_secs_f64() * 1e9 / of.len() as f64
    };
    let mut rounds: Vec<f64> = (0..ROUNDS).map(round).collect();
    median(&mut rounds)
}
