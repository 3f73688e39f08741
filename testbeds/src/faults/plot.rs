//! A plot of one fault: packets a millisecond at the receiving hosts, with what happened marked.

use std::fmt::Write as _;

use serde::Serialize;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 32.0;
/// Below the title and three rows of events.
const TOP: f64 = 70.0;
const BOTTOM: f64 = 40.0;
/// A lane for each way.
const LANE: f64 = (HEIGHT - TOP - BOTTOM) / 2.0;
/// Air above the bars of a lane, with its name in it.
const HEADROOM: f64 = 20.0;
/// Milliseconds of one bar at least: less shows only how the sender was scheduled.
const BAR_MS: u64 = 10;
/// And no more bars than that.
const BARS: u64 = 450;
/// From one time that is named to the next, for as few of them as there is room for.
const TICKS_MS: [f64; 5] = [500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
const TICKS: f64 = 12.0;
/// A label takes about so much.
const LETTER: f64 = 6.4;

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
        let span = bins as f64 * self.bin_ms.max(1) as f64;
        let from = self.from_ms as f64;
        let x = |ms: f64| LEFT + (ms - from) / span * (WIDTH - LEFT - RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\"><style>text{{font:12px system-ui,sans-serif;fill:#333}}</style>\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text x=\"{LEFT}\" y=\"18\" style=\"font-weight:bold\">{}</text>",
            escaped(title)
        );
        let lanes = [
            (&self.inbound, "#2f6fbf", "decrypted by the cluster"),
            (&self.outbound, "#d4602a", "encrypted by the cluster"),
        ];
        let bars = lanes.map(|(counts, ..)| self.bars(counts));
        let most = usual_most(bars.iter().flatten().map(|(_, count)| *count));
        for (lane, (bars, (_, colour, name))) in bars.iter().zip(lanes).enumerate() {
            let foot = TOP + LANE * (lane + 1) as f64;
            let width = x(self.bar_ms() as f64) - x(0.0);
            one_lane(&mut svg, bars, width, (foot, most), (colour, name), x);
        }
        self.times(&mut svg, span, x);
        self.marks(&mut svg, x);
        svg.push_str("</svg>\n");
        svg
    }

    fn bar_ms(&self) -> u64 {
        let bins = self.inbound.len().max(self.outbound.len()) as u64;
        let span = bins * self.bin_ms.max(1);
        span.div_ceil(BARS).next_multiple_of(BAR_MS).max(BAR_MS)
    }

    /// When each bar begins, and packets a millisecond in it.
    fn bars(&self, counts: &[u64]) -> Vec<(f64, f64)> {
        let bin = self.bin_ms.max(1);
        let each = (self.bar_ms() / bin).max(1) as usize;
        let chunks = counts.chunks(each).enumerate();
        let bars = chunks.map(|(index, bins)| {
            let at = self.from_ms as f64 + (index * each) as f64 * bin as f64;
            let span = bins.len() as f64 * bin as f64;
            (at, bins.iter().sum::<u64>() as f64 / span)
        });
        bars.collect()
    }

    fn times(&self, svg: &mut String, span: f64, x: impl Fn(f64) -> f64) {
        let from = self.from_ms as f64;
        let few = |tick: &f64| span / tick <= TICKS;
        let tick = TICKS_MS.into_iter().find(few).unwrap_or(span / TICKS);
        let mut at = (from / tick).ceil() * tick;
        while at <= from + span {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{at:.0}</text>",
                x(at),
                HEIGHT - BOTTOM + 16.0
            );
            at += tick;
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">milliseconds from the fault on</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 6.0
        );
    }

    /// What happened, across both lanes.
    fn marks(&self, svg: &mut String, x: impl Fn(f64) -> f64) {
        let foot = HEIGHT - BOTTOM;
        for (row, (ms, what)) in self.events.iter().enumerate() {
            let (at, y) = (x(*ms), 34.0 + (row % 3) as f64 * 14.0);
            if !(LEFT..=WIDTH - RIGHT).contains(&at) {
                continue;
            }
            // To the left of its mark where there is no room to the right.
            let (label, anchor) = match at + 4.0 + what.len() as f64 * LETTER > WIDTH {
                true => (at - 4.0, "end"),
                false => (at + 4.0, "start"),
            };
            let _ = write!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{foot}\" stroke=\"#777\" \
                 stroke-dasharray=\"4 3\"/><text x=\"{label:.1}\" y=\"{y}\" \
                 text-anchor=\"{anchor}\">{}</text>",
                y - 9.0,
                escaped(what)
            );
        }
    }
}

/// The bars of one way, with its name, its axis and the top of its scale.
fn one_lane(
    svg: &mut String,
    bars: &[(f64, f64)],
    width: f64,
    (foot, most): (f64, f64),
    (colour, name): (&str, &str),
    x: impl Fn(f64) -> f64,
) {
    let tallest = LANE - HEADROOM;
    for (at, count) in bars.iter().filter(|(_, count)| *count > 0.0) {
        // What is taller than the scale ends there: a sender that catches up.
        let height = (count / most).min(1.0) * tallest;
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" \
             fill=\"{colour}\"/>",
            x(*at),
            foot - height
        );
    }
    let _ = write!(
        svg,
        "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{foot}\" y2=\"{foot}\" stroke=\"#333\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{most:.1}</text>\
         <text x=\"{}\" y=\"{foot}\" text-anchor=\"end\">0</text>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" style=\"fill:{colour}\">{name}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        foot - tallest + 10.0,
        LEFT - 6.0,
        WIDTH - RIGHT,
        foot - tallest - 4.0
    );
}

/// The top of the scale: what all but a few bars stay below, with some air.
fn usual_most(counts: impl Iterator<Item = f64>) -> f64 {
    let mut counts: Vec<f64> = counts.filter(|count| *count > 0.0).collect();
    counts.sort_by(f64::total_cmp);
    let usual = counts.get(counts.len() * 95 / 100).or(counts.last());
    usual.map_or(1.0, |count| count * 1.5)
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
        let mut bars = 0;
        for bar in svg.split("<rect x=\"").skip(1) {
            let figures: Vec<f64> = bar
                .split('"')
                .step_by(2)
                .take(4)
                .map(|figure| figure.parse().unwrap())
                .collect();
            let [x, y, width, height] = figures[..] else {
                panic!("{bar}");
            };
            assert!(x >= LEFT - 0.1 && x + width <= WIDTH - RIGHT + 0.2, "{bar}");
            assert!(y >= TOP && y + height <= HEIGHT - BOTTOM + 0.1, "{bar}");
            bars += 1;
        }
        assert_eq!(bars, 300 / BAR_MS, "of the way that had packets");
        assert!(Timeline::default().svg("").ends_with("</svg>\n"));
    }

    #[test]
    fn nine_seconds_are_shown_with_what_happened_in_the_last_of_them() {
        let timeline = Timeline {
            from_ms: -500,
            bin_ms: 1,
            inbound: vec![2; 9_500],
            outbound: vec![2; 9_500],
            events: vec![(8_200.0, "traffic again".to_owned())],
        };
        let svg = timeline.svg("ha");
        assert!(
            svg.contains("traffic again") && svg.contains(">8000<"),
            "{svg}"
        );
        assert!(
            !svg.contains(">8500<"),
            "no more times than there is room for"
        );
        let bars = svg.matches("<rect x=").count() as u64;
        assert!(bars <= 2 * BARS && bars > BARS, "{bars}");
    }
}
