//! What `hitless trace show` prints, as VPP's `show trace` does: packets, and their stages in order.

use std::fmt::Write;

use super::text::plain;
use super::watch::TraceReport;

/// The traces as text.
pub fn trace(report: &TraceReport) -> String {
    let mut out = String::new();
    if report.wanted_packets == 0 {
        return "nothing is traced; begin with `hitless trace add N`\n".to_owned();
    }
    for packet in &report.packets {
        let end = if packet.ended { "" } else { " (no end yet)" };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "worker {}, packet {}{end}",
            packet.worker, packet.packet
        );
        for step in &packet.steps {
            let _ = writeln!(
                out,
                "  {:>9.1} us  {:<9}  {}",
                step.after_microseconds,
                plain(&step.stage),
                plain(&step.text)
            );
        }
    }
    let lost = match report.lost_steps {
        0 => String::new(),
        lost => format!(", {lost} steps lost for want of room"),
    };
    let _ = writeln!(
        out,
        "{} packets so far; {} of each worker were asked for{lost}",
        report.packets.len(),
        report.wanted_packets
    );
    out
}
