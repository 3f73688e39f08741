//! What `hitless trace show` prints, as VPP's `show trace` does: packets, and their stages in order.

use super::text::{Text, plain};
use super::watch::TraceReport;

/// The traces as text.
pub fn trace(report: &TraceReport) -> String {
    let mut out = Text::default();
    if report.wanted_packets == 0 {
        return "nothing is traced; begin with `hitless trace add N`\n".to_owned();
    }
    for packet in &report.packets {
        let end = if packet.ended { "" } else { " (no end yet)" };
        writeln!(
            out,
            "worker {}, packet {}{end}",
            packet.worker, packet.packet
        );
        for step in &packet.steps {
            writeln!(
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
    writeln!(
        out,
        "{} packets so far; {} of each worker were asked for{lost}",
        report.packets.len(),
        report.wanted_packets
    );
    out.0
}
