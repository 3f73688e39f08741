//! What `hitless show` prints as text: aligned columns, 80 wide where the names allow it.

use super::DropStatus;
use super::show::{
    DropCount, NeighbourReport, PolicyReport, RouteReport, SaReport, Shown, TrafficReport,
    WorkerReport,
};
use super::table::{Table, filled};
use super::text::{Text, plain};

/// Columns for workers beside the total; with more of them `--worker` shows one.
const WORKER_COLUMNS: usize = 4;

/// The answer to a `show`.
pub fn show(shown: &Shown) -> String {
    match shown {
        Shown::Drops { drops } => show_drops(drops),
        Shown::Sas { sas } => show_sas(sas),
        Shown::Workers { workers } => show_workers(workers),
        Shown::Routes { routes } => show_routes(routes),
        Shown::Policies { policies } => show_policies(policies),
        Shown::Neighbours { neighbours } => show_neighbours(neighbours),
    }
}

fn show_drops(drops: &[DropCount]) -> String {
    if drops.is_empty() {
        return "no packet was dropped\n".to_owned();
    }
    let mut workers: Vec<u64> = drops
        .iter()
        .flat_map(|drop| drop.workers.iter().map(|count| count.worker))
        .collect();
    workers.sort_unstable();
    workers.dedup();
    let several = (2..=WORKER_COLUMNS).contains(&workers.len());
    let columns = if several { workers.as_slice() } else { &[] };
    let names: Vec<String> = columns.iter().map(|w| format!(">worker {w}")).collect();
    let mut headings = vec!["reason", "kernel's name", ">packets"];
    headings.extend(names.iter().map(String::as_str));
    let mut table = Table::new(&headings);
    for drop in drops {
        let counts = columns.iter().map(|worker| {
            let count = drop.workers.iter().find(|count| count.worker == *worker);
            count.map_or_else(String::new, |count| count.packets.to_string())
        });
        let first = [
            plain(&drop.reason),
            plain(&drop.xfrm),
            drop.packets.to_string(),
        ];
        table.row(first.into_iter().chain(counts));
    }
    table.render(0)
}

fn show_sas(sas: &[SaReport]) -> String {
    if sas.is_empty() {
        return "no Child SA is carried here; `hitless list-sas` shows a standby's copies\n".into();
    }
    let mut out = Text::default();
    for sa in sas {
        show_sa(&mut out, sa);
    }
    out.0
}

fn show_sa(out: &mut Text, sa: &SaReport) {
    let esn = if sa.esn { "/ESN" } else { "" };
    let udp = match sa.encapsulation {
        Some(ports) => format!(", UDP {} === {}", ports.local, ports.remote),
        None => String::new(),
    };
    writeln!(
        out,
        "{}.{}: {{{}}}, {}, ESP:{}{esn}",
        plain(&sa.connection),
        plain(&sa.child),
        plain(&sa.sa),
        plain(&sa.mode),
        plain(&sa.suite)
    );
    writeln!(
        out,
        "  tunnel     {} === {}{udp}",
        plain(&sa.local),
        plain(&sa.remote)
    );
    for (side, selectors) in [("local ", &sa.local_ts), ("remote", &sa.remote_ts)] {
        writeln!(out, "  {side}     {}", plain(&selectors.join(" ")));
    }
    show_inbound(out, sa);
    show_outbound(out, sa);
}

fn show_inbound(out: &mut Text, sa: &SaReport) {
    let half = &sa.inbound;
    writeln!(
        out,
        "  in         spi {}, key {}, worker {}",
        plain(&half.spi),
        plain(&half.key),
        half.worker
    );
    traffic(out, &half.traffic);
    writeln!(
        out,
        "    window   top {}, size {}, lost {}",
        half.window.top, half.window.size_packets, half.window.lost_packets
    );
    writeln!(
        out,
        "    lease    heard {}, high water {} ({} left)",
        sa.lease.inbound_top, sa.lease.high_water, sa.high_water_left
    );
    drops(out, &half.traffic.drops);
}

fn show_outbound(out: &mut Text, sa: &SaReport) {
    let half = &sa.outbound;
    let used = if half.used_by_policies {
        ""
    } else {
        ", not used by policies"
    };
    writeln!(
        out,
        "  out        spi {}, key {}{used}",
        plain(&half.spi),
        plain(&half.key)
    );
    traffic(out, &half.traffic);
    writeln!(
        out,
        "    lease    next {}, grant {} ({} left), {} stalls",
        sa.lease.next, sa.lease.grant, sa.lease_left, sa.lease.stalls
    );
    drops(out, &half.traffic.drops);
}

fn traffic(out: &mut Text, traffic: &TrafficReport) {
    let used = match traffic.used_seconds_ago {
        Some(seconds) => format!(", last {seconds} s ago"),
        None => String::new(),
    };
    writeln!(
        out,
        "    carried  {} packets, {} bytes{used}",
        traffic.packets, traffic.bytes
    );
    if traffic.workers.len() > 1 {
        let workers = traffic.workers.iter();
        let workers: Vec<String> = workers
            .map(|count| format!("worker {}: {}", count.worker, count.packets))
            .collect();
        writeln!(out, "             {}", workers.join(", "));
    }
}

fn drops(out: &mut Text, drops: &[DropStatus]) {
    if drops.is_empty() {
        writeln!(out, "    dropped  none");
    }
    for (index, drop) in drops.iter().enumerate() {
        let label = if index == 0 { "dropped" } else { "" };
        writeln!(
            out,
            "    {label:<7}  {:<20}  {:<24}  {}",
            plain(&drop.reason),
            plain(filled(&drop.xfrm)),
            drop.packets
        );
    }
}

fn show_workers(workers: &[WorkerReport]) -> String {
    let mut out = Text::default();
    for w in workers {
        let core = w
            .core
            .map_or_else(String::new, |core| format!(", core {core}"));
        writeln!(out, "worker {}{core}, AEAD {}", w.worker, plain(&w.aead));
        writeln!(
            out,
            "  calls   {}, {} of them busy; {:.1} packets for each of {} bursts",
            w.calls, w.busy_calls, w.packets_per_burst, w.rx_bursts
        );
        writeln!(
            out,
            "  esp     in {} packets, {} bytes; out {} packets, {} bytes",
            w.esp_in_packets, w.esp_in_bytes, w.esp_out_packets, w.esp_out_bytes
        );
        writeln!(
            out,
            "  also    {} punted, {} dropped, {} parked, {} lease stalls",
            w.punted_packets, w.dropped_packets, w.parked_packets, w.lease_stalls
        );
        writeln!(
            out,
            "  cores   {} given to the worker of their SA, {} got from others",
            w.handed_over_packets, w.taken_over_packets
        );
        let f = &w.frames;
        writeln!(
            out,
            "  frames  {} = {} free + {} in ports + {} parked + {} held",
            f.total, f.free, f.in_ports, f.parked, f.held
        );
        let mut table = Table::new(&[
            "port",
            "driver",
            ">rx packets",
            ">rx bytes",
            ">tx packets",
            ">tx bytes",
            ">dropped",
        ]);
        for port in &w.ports {
            let numbers = [
                port.rx_packets,
                port.rx_bytes,
                port.tx_packets,
                port.tx_bytes,
                port.dropped_packets,
            ];
            let names = [plain(&port.port), plain(&port.driver)];
            table.row(names.into_iter().chain(numbers.map(|n| n.to_string())));
        }
        write!(out, "{}", table.render(2));
    }
    out.0
}

fn show_routes(routes: &[RouteReport]) -> String {
    let mut table = Table::new(&["prefix", "port", "via"]);
    for route in routes {
        let via = route.via.as_deref().unwrap_or("connected");
        table.row([plain(&route.prefix), plain(&route.port), plain(via)]);
    }
    table.render(0)
}

fn show_policies(policies: &[PolicyReport]) -> String {
    let mut table = Table::new(&[
        ">policy",
        "action",
        "local",
        "remote",
        ">packets out",
        ">in clear",
        "sa",
    ]);
    for policy in policies {
        table.row([
            policy.policy.to_string(),
            plain(&policy.action),
            plain(&policy.local),
            plain(&policy.remote),
            policy.traffic.packets_out.to_string(),
            policy.traffic.packets_in.to_string(),
            plain(policy.sa.as_deref().unwrap_or("")),
        ]);
    }
    table.render(0) + "what no policy matches is discarded\n"
}

fn show_neighbours(neighbours: &[NeighbourReport]) -> String {
    if neighbours.is_empty() {
        return "no neighbour is known\n".to_owned();
    }
    let mut table = Table::new(&["address", "port", "mac", ">worker", ">seconds ago"]);
    for neighbour in neighbours {
        table.row([
            plain(&neighbour.address),
            plain(&neighbour.port),
            plain(&neighbour.mac),
            neighbour.worker.to_string(),
            neighbour.seconds_ago.to_string(),
        ]);
    }
    table.render(0)
}
