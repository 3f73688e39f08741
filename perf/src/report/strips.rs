//! Timelines below each other: bars for each moment, and events marked across them.

use std::fmt::Write;

use super::svg::{LEFT, RIGHT, WIDTH, begin, colour, escaped};

/// One line of time with what happened.
pub struct Strip {
    pub name: String,
    /// When, and how many.
    pub counts: Vec<(f64, f64)>,
    /// The same of the other way, drawn below the line; empty where there is none.
    pub opposite: Vec<(f64, f64)>,
    /// How wide a bar is.
    pub bar: f64,
    /// When, and what.
    pub events: Vec<(f64, String)>,
}

const STRIP: f64 = 74.0;
const BARS: f64 = 44.0;
const TOP: f64 = 8.0;
const FOOT: f64 = 44.0;
/// Times named below at most.
const TICKS: f64 = 20.0;
/// An event's label takes about so much.
const LETTER: f64 = 6.2;

/// All of them over one axis, named below.
pub fn render(strips: &[Strip], axis: &str) -> String {
    let counts = || {
        let ways = strips.iter().flat_map(|s| [&s.counts, &s.opposite]);
        ways.flatten()
    };
    let from = counts().map(|(at, _)| *at).fold(f64::INFINITY, f64::min);
    let last = counts()
        .map(|(at, _)| *at)
        .fold(f64::NEG_INFINITY, f64::max);
    let (from, to) = if from > last {
        (0.0, 1.0)
    } else {
        (from, last + 1.0)
    };
    let most = counts().map(|(_, n)| *n).fold(1.0, f64::max);
    let x = |at: f64| LEFT + (at - from) / (to - from) * (WIDTH - LEFT - RIGHT);
    let mut svg = String::new();
    let base = TOP + strips.len() as f64 * STRIP;
    begin(&mut svg, base + FOOT);
    for (index, strip) in strips.iter().enumerate() {
        let foot = TOP + index as f64 * STRIP + STRIP - 8.0;
        one(&mut svg, strip, foot, most, &x);
    }
    ticks(&mut svg, (from, to), base, &x);
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></svg>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        base + 36.0,
        escaped(axis)
    );
    svg
}

fn one(svg: &mut String, strip: &Strip, foot: f64, most: f64, x: &impl Fn(f64) -> f64) {
    // One way has all the room, two have half of it each.
    let (line, tallest) = match strip.opposite.is_empty() {
        true => (foot, BARS),
        false => (foot - BARS / 2.0, BARS / 2.0),
    };
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <line class=\"axis\" stroke=\"#333\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{line:.1}\" y2=\"{line:.1}\"/>",
        LEFT - 8.0,
        foot - 2.0,
        escaped(&strip.name),
        WIDTH - RIGHT
    );
    for (way, counts) in [&strip.counts, &strip.opposite].into_iter().enumerate() {
        for (at, count) in counts.iter().filter(|(_, count)| *count > 0.0) {
            let height = count / most * tallest;
            let top = if way == 0 { line - height } else { line };
            let _ = write!(
                svg,
                "<rect x=\"{:.2}\" y=\"{top:.2}\" width=\"{:.2}\" height=\"{height:.2}\" fill=\"{}\"><title>{count} at {at} ms</title></rect>",
                x(*at),
                (x(at + strip.bar) - x(*at)) * 0.85,
                colour(way)
            );
        }
    }
    // Labels beside each other, however close the events are.
    let mut free = LEFT;
    let mut events: Vec<_> = strip.events.iter().collect();
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (which, (at, what)) in events.into_iter().enumerate() {
        let mark = x(*at);
        if !(LEFT..=WIDTH - RIGHT).contains(&mark) {
            continue;
        }
        let label = (mark + 3.0).max(free);
        free = label + what.len() as f64 * LETTER + 10.0;
        let colour = colour(which + if strip.opposite.is_empty() { 1 } else { 2 });
        let _ = write!(
            svg,
            "<line stroke=\"{colour}\" stroke-width=\"1.5\" x1=\"{mark:.1}\" x2=\"{mark:.1}\" y1=\"{:.1}\" y2=\"{foot:.1}\"/>\
             <text x=\"{label:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
            // Below the labels, so that none is crossed out.
            foot - BARS - 2.0,
            foot - BARS - 6.0,
            escaped(what)
        );
    }
}

fn ticks(svg: &mut String, (from, to): (f64, f64), base: f64, x: &impl Fn(f64) -> f64) {
    let steps = [25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0, 5_000.0];
    let few = |step: &f64| (to - from) / step <= TICKS;
    let step = steps.into_iter().find(few).unwrap_or(10_000.0);
    let mut at = (from / step).ceil() * step;
    while at <= to {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at}</text>",
            x(at),
            base + 14.0
        );
        at += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_marked_within_the_frame_and_those_outside_left_out() {
        let strip = Strip {
            name: "a < b".to_owned(),
            counts: vec![(-1.0, 2.0), (0.0, 0.0), (1.0, 2.0)],
            opposite: Vec::new(),
            bar: 1.0,
            events: vec![(0.0, "died".to_owned()), (900.0, "far".to_owned())],
        };
        let svg = render(&[strip], "ms");
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("died") && !svg.contains("far") && svg.contains("a &lt; b"));
        assert!(svg.ends_with("</svg>"));
        assert!(render(&[], "ms").ends_with("</svg>"));
    }

    #[test]
    fn two_ways_are_on_two_sides_of_the_line() {
        let strip = Strip {
            name: String::new(),
            counts: vec![(0.0, 4.0)],
            opposite: vec![(0.0, 4.0), (1.0, 2.0)],
            bar: 1.0,
            events: Vec::new(),
        };
        let svg = render(&[strip], "ms");
        let line = TOP + STRIP - 8.0 - BARS / 2.0;
        let half = BARS / 2.0;
        for (top, height) in [(line - half, half), (line, half), (line, half / 2.0)] {
            let bar = format!("y=\"{top:.2}\"");
            assert!(svg.contains(&bar), "{bar} in {svg}");
            assert!(svg.contains(&format!("height=\"{height:.2}\"")));
        }
        assert_eq!(svg.matches("<rect").count(), 3);
    }
}
