//! The tables for people.

use std::fmt::{self, Display, Formatter};

use super::{
    CrowdLine, EspResults, FailoverLine, IoLine, LookupLine, OverheadLine, RateLine, Results, Size,
};

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Size::Octets(octets) => f.pad(&octets.to_string()),
            Size::Mix(name) => f.pad(name),
        }
    }
}

impl Display for Results {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "{}, {:.0} MHz, {} cores, {}\nLinux {}, load {:.1}, hitless {}, {}",
            machine.cpu,
            machine.mhz,
            machine.cores,
            machine.features.join(" "),
            machine.kernel,
            machine.load,
            machine.version,
            machine.date
        )?;
        if let Some(io) = &self.io {
            io_table(f, io)?;
        }
        if let Some(esp) = &self.esp {
            esp_tables(f, esp)?;
        }
        if let Some(lines) = &self.lookup {
            lookup_table(f, lines)?;
        }
        for (name, lines) in [("IKE, one core", &self.ike), ("sync, one core", &self.sync)] {
            if let Some(lines) = lines {
                rate_table(f, name, lines)?;
            }
        }
        if let Some(lines) = &self.failover {
            failover_table(f, lines)?;
        }
        match &self.crowd {
            Some(lines) => crowd_table(f, lines),
            None => Ok(()),
        }
    }
}

/// No decimals, or nothing.
fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.0}"))
}

fn esp_tables(f: &mut Formatter<'_>, esp: &EspResults) -> fmt::Result {
    writeln!(f, "\nESP tunnel mode, AES_GCM_16, engine {}", esp.engine)?;
    speed_table(f, esp)?;
    cost_tables(f, esp)
}

fn speed_table(f: &mut Formatter<'_>, esp: &EspResults) -> fmt::Result {
    if esp.lines.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "{:<9} {:<16} {:>6} {:<7} {:>7} {:>6} {:>6} {:>7} {:>6} {:>6} {:>6}",
        "", "", "octets", "", "Mpps", "Gbit/s", "ns", "bare ns", "ratio", "cipher", "bound"
    )?;
    for line in &esp.lines {
        // What the label does not say.
        let label = match line.experiment.as_str() {
            "policies" => format!("{} {}", line.policies, line.label.replace("flow ", "")),
            "workers" => format!("{} x {}", line.workers, line.label),
            _ => line.label.clone(),
        };
        writeln!(
            f,
            "{:<9} {label:<16} {:>6} {:<7} {:>7.2} {:>6.2} {:>6.0} {:>7.0} {:>6.2} {:>6} {:>6}",
            line.experiment,
            line.size,
            line.direction,
            line.mpps,
            line.gbps,
            line.ns_per_packet,
            line.bare_ns,
            line.ratio_to_bare,
            optional(line.burst_ns),
            optional(line.bound_ns)
        )?;
    }
    writeln!(
        f,
        "ns: a packet, port to port, one worker. bare ns: aws-lc-rs alone on the same octets, timed in\n\
         the same rounds; ratio: below 1 hitless, with all else, is faster. cipher: that of hitless alone. bound: its instructions\n\
         alone, none waiting for another. Gbit/s: of inner packets."
    )
}

fn overhead_table(f: &mut Formatter<'_>, lines: &[OverheadLine]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "{:<10}{:<28} {:>6} {:<7} {:>6} {:>6} {:>7}  {:<17} {:<17} {:>7} {:>7} {:>7}",
        "overhead",
        "of",
        "octets",
        "",
        "Mpps",
        "none",
        "cost",
        "95 % sure",
        "half of rounds",
        "instr.",
        "none",
        "cost"
    )?;
    let range = |range: Option<(f64, f64)>| {
        range.map_or_else(String::new, |(low, high)| {
            format!("{low:+.2} .. {high:+.2} %")
        })
    };
    for line in lines {
        let counted = line.instructions.map_or_else(String::new, |(with, none)| {
            let percent = (with / none - 1.0) * 100.0;
            format!("{with:>7.1} {none:>7.1} {percent:>+5.2} %")
        });
        let row = format!(
            "{:<10}{:<28} {:>6} {:<7} {:>6.2} {:>6.2} {:>+5.2} %  {:<17} {:<17} {counted}",
            "",
            line.of,
            line.size,
            line.direction,
            1e3 / line.with_ns,
            1e3 / line.without_ns,
            line.percent,
            range(line.sure),
            range(line.half),
        );
        writeln!(f, "{}", row.trim_end())?;
    }
    writeln!(
        f,
        "overhead: a worker with it and one without, by turns in each round; cost: of the nanoseconds a\n\
         packet, and of its instructions (AES-NI). \"none\" draws from a lease without end and publishes\n\
         nothing; \"nothing\" is a second one of those: what it seems to cost is the error. \"alone\": outside\n\
         the path, beside plain counting."
    )
}

fn cost_tables(f: &mut Formatter<'_>, esp: &EspResults) -> fmt::Result {
    overhead_table(f, &esp.overhead)?;
    if !esp.latency.is_empty() {
        writeln!(
            f,
            "{:<9} {:>6} {:<7} {:>5} {:>6} {:>8} {:>8} {:>8} {:>8} {:>9}",
            "latency",
            "octets",
            "",
            "load",
            "Mpps",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "taken ms"
        )?;
    }
    let us = |ns: u64| ns as f64 / 1e3;
    for line in &esp.latency {
        writeln!(
            f,
            "{:<9} {:>6} {:<7} {:>3} % {:>6.2} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>9.1}",
            "",
            line.size,
            line.direction,
            line.load_percent,
            line.mpps,
            us(line.p50_ns),
            us(line.p99_ns),
            us(line.p999_ns),
            us(line.max_ns),
            line.taken_ms
        )?;
    }
    if !esp.latency.is_empty() {
        writeln!(
            f,
            "from when a packet was due to its departure; taken: leaps of the clock by more than 150 us,\n\
             when the machine ran something else, which are left out."
        )?;
    }
    for line in &esp.memory {
        writeln!(
            f,
            "memory    {} octets an SA pair ({} pairs)",
            line.bytes_per_pair, line.sas
        )?;
    }
    Ok(())
}

fn io_table(f: &mut Formatter<'_>, lines: &[IoLine]) -> fmt::Result {
    writeln!(
        f,
        "\n{:<22} {:>6} {:<7} {:>10} {:>7} {:>10} {:>7} {:>6} {:>6}",
        "kernel ports", "octets", "", "hitless ns", "Mpps", "forward ns", "Mpps", "ratio", "lost"
    )?;
    for line in lines {
        let driver = format!("{} {}", line.driver, line.mode);
        writeln!(
            f,
            "{driver:<22} {:>6} {:<7} {:>10.0} {:>7.2} {:>10.0} {:>7.2} {:>6.2} {:>6}",
            line.size,
            line.direction,
            line.ns_per_packet,
            line.mpps,
            line.bare_ns,
            line.bare_mpps,
            line.ratio_to_bare,
            line.lost
        )?;
    }
    writeln!(
        f,
        "forward: a loop that receives bursts and sends them on, over the same ports, in the same\n\
         rounds; ratio: hitless, with ESP, to that. One core does all of it, the kernel's part too."
    )
}

fn lookup_table(f: &mut Formatter<'_>, lines: &[LookupLine]) -> fmt::Result {
    writeln!(
        f,
        "\n{:<44} {:>8} {:>9} {:>10}",
        "look-ups", "entries", "ns", "build ms"
    )?;
    for line in lines {
        writeln!(
            f,
            "{:<44} {:>8} {:>9.1} {:>10.1}",
            line.table, line.entries, line.ns, line.build_ms
        )?;
    }
    Ok(())
}

fn rate_table(f: &mut Formatter<'_>, name: &str, lines: &[RateLine]) -> fmt::Result {
    writeln!(
        f,
        "\n{name:<44} {:>10} {:>9} {:>9}",
        "a second", "p50 us", "p99 us"
    )?;
    for line in lines {
        writeln!(
            f,
            "{:<44} {:>10.0} {:>9.1} {:>9.1}",
            line.what, line.per_second, line.p50_us, line.p99_us
        )?;
    }
    Ok(())
}

fn failover_table(f: &mut Formatter<'_>, lines: &[FailoverLine]) -> fmt::Result {
    writeln!(
        f,
        "\n{:<10} {:>9} {:>11} {:>6} {:>8} {:>9} {:>8}",
        "failover", "outage ms", "takeover ms", "lost", "sent", "repeated", "replays"
    )?;
    for line in lines {
        writeln!(
            f,
            "seed {:<5} {:>9.1} {:>11.1} {:>6} {:>8} {:>9} {:>8}",
            line.seed,
            line.outage_ms,
            line.takeover_ms,
            line.packets_lost,
            line.packets_sent,
            line.repeated_sequence_numbers,
            line.replays_accepted
        )?;
    }
    writeln!(
        f,
        "outage: the longest silence at a host; takeover: from the death to the new active; lost, sent:\n\
         packets. Repeated numbers and accepted replays must be 0."
    )
}

fn crowd_table(f: &mut Formatter<'_>, lines: &[CrowdLine]) -> fmt::Result {
    writeln!(
        f,
        "\n{:<16} {:>8} {:>12} {:>12} {:>10} {:>13}",
        "takeover of", "leads", "first packet", "busy tunnels", "all", "longest turn"
    )?;
    for line in lines {
        writeln!(
            f,
            "{:>7} tunnels  {:>8.1} {:>12.1} {:>12.1} {:>10.1} {:>13.1}",
            line.tunnels,
            line.lead_ms,
            line.first_packet_ms,
            line.last_busy_ms,
            line.all_ms,
            line.longest_turn_ms
        )?;
    }
    writeln!(
        f,
        "ms after the death: the standby leads, a packet of one tunnel comes through, of each of the busy\n\
         ones, and every SA is installed. Longest turn: ms that heartbeats waited for the control thread."
    )
}
