//! A plot of one fault: packets a millisecond at the receiving hosts, with what happened marked.

use std::fmt::Write as _;

use serde::Serialize;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;

/// What a plot shows; times are milliseconds from the fault on.
#[derive(Serialize, Clone, PartialEq, Debug, Default)]
pub struct Timeline {
    pub from_ms: i64,
    pub bin_ms: u64,
    /// Packets in each bin, from the peers to the host behind the cluster, and back.
    pub inbound: Vec<u64>,
    pub outbound: Vec<u64>,
    pub events: Vec<(f64, String)>,
}

impl Timeline {
    /// As one SVG document.
    pub fn svg(&self, title: &str) -> String {
        let bins = self.inbound.len().max(self.outbound.len()).max(1);
        let span = bins as f64 * self.bin_ms as f64;
        let most = self.inbound.iter().chain(&self.outbound).max();
        let most = most.copied().unwrap_or(0).max(1) as f64;
        let base = HEIGHT - BOTTOM;
        let x = |ms: f64| LEFT + (ms - self.from_ms as f64) / span * (WIDTH - LEFT - RIGHT);
        let y = |count: f64| base - count / most * (base - TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\"><style>text{{font:12px system-ui,sans-serif;fill:#333}}</style>\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text x=\"{LEFT}\" y=\"16\">{}</text>",
            escaped(title)
        );
        for (counts, colour, name, at) in [
            (&self.inbound, "#2f6fbf", "decrypted by the cluster", 0.0),
            (&self.outbound, "#d4602a", "encrypted by the cluster", 200.0),
        ] {
            let mut path = String::new();
            for (bin, count) in counts.iter().enumerate() {
                let at = self.from_ms as f64 + (bin as f64 + 0.5) * self.bin_ms as f64;
                let _ = write!(path, "{:.1},{:.1} ", x(at), y(*count as f64));
            }
            let _ = write!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1\"/>\
                 <text x=\"{}\" y=\"{}\" style=\"fill:{colour}\">{name}</text>",
                path.trim_end(),
                LEFT + at,
                HEIGHT - 8.0
            );
        }
        self.axes(&mut svg, (span, most), x, y);
        for (row, (ms, what)) in self.events.iter().enumerate() {
            let (at, top) = (x(*ms), TOP - 10.0 + (row % 3) as f64 * 14.0);
            if !(LEFT..=WIDTH - RIGHT).contains(&at) {
                continue;
            }
            let _ = write!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{base}\" stroke=\"#777\" \
                 stroke-dasharray=\"4 3\"/><text x=\"{:.1}\" y=\"{top}\">{}</text>",
                at + 4.0,
                escaped(what)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(
        &self,
        svg: &mut String,
        (span, most): (f64, f64),
        x: impl Fn(f64) -> f64,
        y: impl Fn(f64) -> f64,
    ) {
        let base = HEIGHT - BOTTOM;
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\" stroke=\"#333\"/>",
            WIDTH - RIGHT
        );
        for tick in 0..=6 {
            let ms = self.from_ms as f64 + span * f64::from(tick) / 6.0;
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{ms:.0} ms</text>",
                x(ms),
                base + 16.0
            );
        }
        for share in [0.5, 1.0] {
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
                LEFT - 6.0,
                y(most * share) + 4.0,
                most * share
            );
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_within_the_frame_and_text_is_no_markup() {
        let timeline = Timeline {
            from_ms: -100,
            bin_ms: 1,
            inbound: vec![3; 300],
            outbound: vec![0; 300],
            events: vec![(0.0, "a < b".to_owned()), (9e9, "late".to_owned())],
        };
        let svg = timeline.svg("x & y");
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y"));
        assert!(!svg.contains("late"), "beyond the plot");
        for point in svg.split("points=\"").skip(1) {
            let points = point.split('"').next().unwrap();
            for pair in points.split(' ') {
                let (x, y) = pair.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!(
                    (LEFT..=WIDTH).contains(&x) && (TOP..=HEIGHT).contains(&y),
                    "{pair}"
                );
            }
        }
        assert!(Timeline::default().svg("").ends_with("</svg>\n"));
    }
}
