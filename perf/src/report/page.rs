//! The page: which plots there are, what they show, and the tables below.

use std::borrow::Cow;
use std::fmt::Write;

use super::strips::{self, Strip};
use super::svg::{Bars, Chart, Scale, Series, escaped};
use crate::results::{
    EspLine, EspResults, FailoverLine, IoLine, LatencyLine, LookupLine, Results, Size,
};

/// A plot with its heading and what to know about it.
pub struct Plot {
    pub name: &'static str,
    pub title: &'static str,
    pub text: Cow<'static, str>,
    pub svg: String,
}

const DIRECTIONS: [&str; 2] = ["encrypt", "decrypt"];

/// All that the results have figures for.
pub fn plots(results: &Results) -> Vec<Plot> {
    let mut plots = Vec::new();
    if let Some(esp) = &results.esp {
        plots.extend(by_size(esp));
        plots.extend(by_sas(esp));
        plots.extend(by_workers(esp));
        plots.extend(latency(&esp.latency));
    }
    plots.extend(results.io.as_deref().and_then(kernel_ports));
    plots.extend(results.lookup.as_deref().and_then(lookups));
    plots.extend(results.failover.as_deref().and_then(timelines));
    plots
}

fn octets(size: &Size) -> Option<f64> {
    match size {
        Size::Octets(octets) => Some(*octets as f64),
        Size::Mix(_) => None,
    }
}

fn lines<'a>(esp: &'a EspResults, experiment: &'a str) -> impl Iterator<Item = &'a EspLine> {
    esp.lines
        .iter()
        .filter(move |line| line.experiment == experiment)
}

fn by_size(esp: &EspResults) -> Option<Plot> {
    let mut series = Vec::new();
    for direction in DIRECTIONS {
        let of = || lines(esp, "sizes").filter(|line| line.direction == direction);
        let throughput = |ns: fn(&EspLine) -> Option<f64>| {
            let points = of().filter_map(|line| {
                let size = octets(&line.size)?;
                Some((size, size * 8.0 / ns(line)?))
            });
            points.collect::<Vec<_>>()
        };
        series.push(Series {
            name: format!("hitless, {direction}"),
            points: throughput(|line| Some(line.ns_per_packet)),
            dashed: false,
        });
        series.push(Series {
            name: format!("bare aws-lc-rs, {direction}"),
            points: throughput(|line| Some(line.bare_ns)),
            dashed: true,
        });
        series.push(Series {
            name: format!("cipher of hitless, {direction}"),
            points: throughput(|line| line.burst_ns),
            dashed: true,
        });
        if direction == "encrypt" {
            series.push(Series {
                name: "instruction bound".to_owned(),
                points: throughput(|line| line.bound_ns),
                dashed: true,
            });
        }
    }
    series.retain(|series| !series.points.is_empty());
    let measured = series.iter().any(|series| !series.points.is_empty());
    let chart = Chart {
        x: ("octets of the inner packet", Scale::Linear),
        y: ("Gbit/s on one core", Scale::Linear),
        series,
    };
    measured.then(|| Plot {
        name: "throughput-by-size",
        title: "Throughput by packet size",
        text: "A whole worker, port to port, against nothing but the cipher on the same octets."
            .into(),
        svg: chart.render(),
    })
}

fn by_sas(esp: &EspResults) -> Option<Plot> {
    let mut series = Vec::new();
    for direction in DIRECTIONS {
        for size in [64.0, 512.0] {
            let of = lines(esp, "sas").filter(|line| line.direction == direction);
            let of = of.filter(|line| octets(&line.size) == Some(size));
            let points = of.map(|line| (f64::from(line.sas), line.ns_per_packet));
            series.push(Series {
                name: format!("{direction}, {size} octets"),
                points: points.collect(),
                dashed: false,
            });
        }
    }
    series.retain(|series| !series.points.is_empty());
    let measured = !series.is_empty();
    let chart = Chart {
        x: ("SAs, in random order", Scale::Log),
        y: ("ns a packet", Scale::Linear),
        series,
    };
    measured.then(|| Plot {
        name: "by-sas",
        title: "Many SAs",
        text: "Each packet belongs to another SA, chosen at random: what the caches cannot hold, \
               memory must bring."
            .into(),
        svg: chart.render(),
    })
}

fn by_workers(esp: &EspResults) -> Option<Plot> {
    let mut groups: Vec<String> = Vec::new();
    let mut kinds: Vec<(usize, String)> = Vec::new();
    for line in lines(esp, "workers") {
        let group = format!("{} {}", line.size, line.direction);
        if !groups.contains(&group) {
            groups.push(group);
        }
        let kind = (line.workers, line.label.clone());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let value = |kind: &(usize, String), group: &String| {
        lines(esp, "workers")
            .find(|line| {
                (line.workers, &line.label) == (kind.0, &kind.1)
                    && format!("{} {}", line.size, line.direction) == *group
            })
            .map_or(f64::NAN, |line| line.mpps)
    };
    let series = kinds.iter().map(|kind| {
        let name = format!(
            "{} worker{}, {}",
            kind.0,
            if kind.0 == 1 { "" } else { "s" },
            kind.1
        );
        let values = groups.iter().map(|group| value(kind, group)).collect();
        (name, values)
    });
    let series: Vec<_> = series.collect();
    (!groups.is_empty()).then(|| Plot {
        name: "by-workers",
        title: "More cores",
        text: "Workers with an SA each, and two workers that share one fat SA.".into(),
        svg: Bars {
            y: "million packets a second",
            groups,
            series,
        }
        .render(),
    })
}

fn latency(lines: &[LatencyLine]) -> Option<Plot> {
    let series: Vec<Series> = lines
        .iter()
        .filter(|line| line.size == 64)
        .map(|line| Series {
            name: format!("{} at {} %", line.direction, line.load_percent),
            // Nines to the right: 1 / (1 - q).
            points: line
                .curve
                .iter()
                .map(|(q, ns)| (1.0 / (1.0 - q), *ns as f64 / 1e3))
                .collect(),
            dashed: false,
        })
        .collect();
    let measured = !series.is_empty();
    let chart = Chart {
        x: (
            "one packet in so many takes longer (2: median, 1000: p99.9)",
            Scale::Log,
        ),
        y: ("microseconds", Scale::Log),
        series,
    };
    measured.then(|| Plot {
        name: "latency",
        title: "Latency at 10, 50 and 90 % of capacity",
        text: "From the moment when a packet of 64 octets was due to its departure. Where the \
               machine runs something else on the core meanwhile, the tail shows it."
            .into(),
        svg: chart.render(),
    })
}

fn lookups(lines: &[LookupLine]) -> Option<Plot> {
    let mut series: Vec<Series> = Vec::new();
    for line in lines {
        let point = (line.entries as f64, line.ns);
        match series.iter_mut().find(|series| series.name == line.table) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                name: line.table.clone(),
                points: vec![point],
                dashed: false,
            }),
        }
    }
    let measured = !series.is_empty();
    let chart = Chart {
        x: ("entries", Scale::Log),
        y: ("ns a look-up", Scale::Linear),
        series,
    };
    measured.then(|| Plot {
        name: "look-ups",
        title: "Policies and routes",
        text: "One look-up, of a random entry that no cache remembers.".into(),
        svg: chart.render(),
    })
}

fn timelines(lines: &[FailoverLine]) -> Option<Plot> {
    let strips: Vec<Strip> = lines
        .iter()
        .take(8)
        .map(|line| Strip {
            name: format!("seed {}", line.seed),
            counts: line
                .timeline
                .iter()
                .map(|(at, n)| (*at as f64, *n as f64))
                .collect(),
            opposite: Vec::new(),
            bar: 1.0,
            events: vec![
                (0.0, "active member killed".to_owned()),
                (
                    line.takeover_ms,
                    format!("standby leads, {:.0} ms", line.takeover_ms),
                ),
                (
                    line.outage_ms,
                    format!("longest silence, {:.0} ms", line.outage_ms),
                ),
            ],
        })
        .collect();
    (!strips.is_empty()).then(|| Plot {
        name: "failover",
        title: "Takeover as hosts see it",
        text: "Packets that the hosts on both sides received in each millisecond; they send one a \
               millisecond each way. The longest silence is of one host, to about where it ends."
            .into(),
        svg: strips::render(&strips, "ms after the active member was killed"),
    })
}

/// Over kernel ports, beside a loop that only forwards.
fn kernel_ports(lines: &[IoLine]) -> Option<Plot> {
    let group = |line: &IoLine| format!("{} {}", line.driver.replace(" over veth", ""), line.size);
    let mut groups: Vec<String> = lines.iter().map(group).collect();
    groups.dedup();
    let values = |direction: &str, value: fn(&IoLine) -> f64| {
        let of = |wanted: &String| {
            let found = lines
                .iter()
                .find(|line| line.direction == direction && group(line) == *wanted);
            found.map_or(f64::NAN, value)
        };
        groups.iter().map(of).collect::<Vec<f64>>()
    };
    let series = vec![
        ("encrypt".to_owned(), values("encrypt", |line| line.mpps)),
        ("decrypt".to_owned(), values("decrypt", |line| line.mpps)),
        (
            "forwarding alone".to_owned(),
            values("encrypt", |line| line.bare_mpps),
        ),
    ];
    (!lines.is_empty()).then(|| Plot {
        name: "kernel-ports",
        title: "Over the kernel's ports",
        text: "ESP beside a loop that receives bursts and sends them on, over the same veth or TAP, by \
               driver and octets. One core does everything, the kernel's part too.".into(),
        svg: Bars {
            y: "million packets a second",
            groups,
            series,
        }
        .render(),
    })
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#333;--grid:#ddd;--page:#fff;--soft:#666}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--grid:#444;--page:#1b1d20;--soft:#999}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);
 max-width:800px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2.5rem 0 .2rem}p{margin:.2rem 0;color:var(--soft)}
svg{width:100%;height:auto}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid var(--grid)}
td:first-child,th:first-child{text-align:left}pre{overflow-x:auto;font-size:12px}";

/// The page;
/// `behind` is put behind the plots as it is.
pub fn render(results: &Results, plots: &[Plot], behind: &str) -> String {
    let machine = &results.machine;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>hitless on {cpu}</title><style>{STYLE}</style></head><body>\
         <h1>hitless on {cpu}</h1>\
         <p>{mhz:.0} MHz, {cores} cores ({features}), Linux {kernel}, load {load:.1} when measured, \
         hitless {version}{engine}. {date}</p>",
        cpu = escaped(&machine.cpu),
        mhz = machine.mhz,
        date = escaped(&machine.date),
        cores = machine.cores,
        features = escaped(&machine.features.join(" ")),
        kernel = escaped(&machine.kernel),
        load = machine.load,
        version = escaped(&machine.version),
        engine = results.esp.as_ref().map_or_else(String::new, |esp| format!(
            ", engine {}",
            escaped(&esp.engine)
        )),
    );
    page.push_str(&headline(results));
    for plot in plots {
        let _ = write!(
            page,
            "<h2>{}</h2><p>{}</p>{}",
            escaped(plot.title),
            escaped(&plot.text),
            plot.svg
        );
    }
    page.push_str(behind);
    let tables = escaped(&results.to_string());
    let _ = write!(
        page,
        "<h2>All figures</h2><pre>{tables}</pre></body></html>"
    );
    page
}

/// The figures to remember.
fn headline(results: &Results) -> String {
    let mut table = String::new();
    if let Some(esp) = &results.esp {
        table.push_str(
            "<h2>In short</h2><p>ESP, AES-128-GCM, one worker on one core, port to port.</p><table>\
             <tr><th>octets</th><th></th><th>Mpps</th><th>Gbit/s</th><th>ns a packet</th>\
             <th>to bare aws-lc-rs</th><th>to the bound</th></tr>",
        );
        for line in lines(esp, "sizes") {
            let bound = line.bound_ns.map(|bound| line.ns_per_packet / bound);
            let _ = write!(
                table,
                "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.0}</td>\
                 <td>{:.2}x</td><td>{}</td></tr>",
                line.size,
                line.direction,
                line.mpps,
                line.gbps,
                line.ns_per_packet,
                line.ratio_to_bare,
                bound.map_or_else(String::new, |ratio| format!("{ratio:.1}x"))
            );
        }
        table.push_str(
            "</table><p>In and out are to and from the peers. Mpps, Gbit/s: of inner packets, millions and \
             thousands of millions a second. To bare aws-lc-rs: the time of a packet, with all of the \
             gateway's work, over that of the cipher alone on the same octets in the same rounds; below \
             1 hitless is faster. To the bound: over what its cipher's instructions would take if none \
             waited for another.</p>",
        );
    }
    if let Some(takeovers) = results
        .failover
        .as_deref()
        .filter(|lines| !lines.is_empty())
    {
        let mut outages: Vec<f64> = takeovers.iter().map(|line| line.outage_ms).collect();
        let repeated: u64 = takeovers
            .iter()
            .map(|line| line.repeated_sequence_numbers)
            .sum();
        let replays: u64 = takeovers.iter().map(|line| line.replays_accepted).sum();
        let _ = write!(
            table,
            "<p>Takeovers: {}, silence {:.0} ms (median), {repeated} sequence numbers repeated, \
             {replays} replays accepted.</p>",
            takeovers.len(),
            crate::clock::median(&mut outages)
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn line(experiment: &str, size: Size, direction: &str, workers: usize) -> EspLine {
        EspLine {
            experiment: experiment.to_owned(),
            label: "aes128".to_owned(),
            size,
            direction: direction.to_owned(),
            sas: 1000,
            policies: 1,
            workers,
            mpps: 5.0,
            gbps: 2.5,
            ns_per_packet: 200.0,
            bare_ns: 90.0,
            ratio_to_bare: 2.2,
            burst_ns: Some(30.0),
            bound_ns: None,
        }
    }

    fn results() -> Results {
        let size = || Size::Octets(64);
        Results {
            machine: Machine {
                cpu: "<script>".to_owned(),
                cores: 2,
                features: Vec::new(),
                kernel: "6".to_owned(),
                date: String::new(),
                mhz: 2600.0,
                version: "0".to_owned(),
                load: 0.0,
            },
            esp: Some(EspResults {
                lines: vec![
                    line("sizes", size(), "encrypt", 1),
                    line("sizes", Size::Mix("imix".to_owned()), "decrypt", 1),
                    line("sas", size(), "decrypt", 1),
                    line("workers", size(), "encrypt", 2),
                ],
                latency: vec![LatencyLine {
                    direction: "encrypt".to_owned(),
                    size: 64,
                    load_percent: 10,
                    mpps: 1.0,
                    p50_ns: 1,
                    p99_ns: 2,
                    p999_ns: 3,
                    max_ns: 4,
                    taken_ms: 0.0,
                    curve: vec![(0.0, 1), (0.5, 1), (0.999, 3)],
                }],
                ..EspResults::default()
            }),
            lookup: Some(vec![LookupLine {
                table: "FIB".to_owned(),
                entries: 10,
                ns: 5.0,
                build_ms: 0.1,
            }]),
            io: None,
            ike: None,
            sync: None,
            failover: Some(vec![FailoverLine {
                seed: 1,
                outage_ms: 40.0,
                takeover_ms: 35.0,
                packets_lost: 1,
                packets_sent: 100,
                repeated_sequence_numbers: 0,
                replays_accepted: 0,
                timeline: vec![(-10, 20), (0, 0), (10, 20)],
            }]),
            crowd: None,
        }
    }

    #[test]
    fn the_page_has_every_plot_and_needs_nothing_else() {
        let results = results();
        let plots = plots(&results);
        assert_eq!(plots.len(), 6);
        let page = render(&results, &plots, "<p>behind</p>");
        assert!(page.contains("<p>behind</p>"));
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
        // The only address is the name space of SVG.
        assert_eq!(page.matches("http").count(), 6);
    }

    #[test]
    fn results_survive_their_own_json() {
        let results = results();
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut results = results();
        (results.esp, results.lookup, results.failover) = (None, None, None);
        assert!(plots(&results).is_empty());
    }
}
