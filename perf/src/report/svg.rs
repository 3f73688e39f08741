//! Plots as SVG, by hand: lines over a linear or logarithmic axis, and bars. Every mark names its
//! figures in a tooltip.

use std::fmt::Write;

pub(super) const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 398.0;
pub(super) const LEFT: f64 = 64.0;
pub(super) const RIGHT: f64 = 24.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 110.0;
/// Told apart also by those who see fewer colours.
const COLOURS: [&str; 8] = [
    "#2f6fbf", "#d4602a", "#218a6e", "#8a5cb8", "#a87b12", "#777d86", "#c2417c", "#12a0b8",
];

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:var(--ink,#333)}\
    .grid{stroke:var(--grid,#ddd);stroke-width:1}.axis{stroke:var(--ink,#333);stroke-width:1}\
    .line{fill:none;stroke-width:2}.dash{stroke-dasharray:6 4}";

/// How values lie along an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From zero, or from the least if that is below.
    Linear,
    Log,
}

/// A line, or the bars of one colour.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// For comparison only.
    pub dashed: bool,
}

/// A plot of lines.
pub struct Chart {
    pub x: (&'static str, Scale),
    pub y: (&'static str, Scale),
    pub series: Vec<Series>,
}

/// One axis: its range, and where a value lies in pixels.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    pixels: (f64, f64),
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Axis {
        let usable = |value: &f64| value.is_finite() && (scale == Scale::Linear || *value > 0.0);
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(usable) {
            (from, to) = (from.min(value), to.max(value));
        }
        if from > to {
            (from, to) = (1.0, 10.0);
        }
        let (from, to) = match scale {
            Scale::Linear => {
                let from = from.min(0.0);
                let step = step(to - from);
                (
                    (from / step).floor() * step,
                    (to / step).ceil().max(1.0) * step,
                )
            }
            Scale::Log => {
                let (low, high) = (from.log10().floor(), to.log10().ceil());
                (
                    10f64.powf(low),
                    10f64.powf(if high > low { high } else { low + 1.0 }),
                )
            }
        };
        Axis {
            scale,
            from,
            to,
            pixels,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => {
                (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
            }
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.to - self.from);
                let count = ((self.to - self.from) / step).round() as usize;
                (0..=count).map(|n| self.from + n as f64 * step).collect()
            }
            Scale::Log => {
                let powers = (self.to / self.from).log10().round() as i32;
                (0..=powers).map(|n| self.from * 10f64.powi(n)).collect()
            }
        }
    }
}

/// A round distance that divides a range into about five.
fn step(range: f64) -> f64 {
    let rough = (range / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|n| n * power >= rough);
    nice.unwrap_or(10.0) * power
}

/// A number as short as it is exact enough.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = match value.abs() < 0.01 {
        true => format!("{scaled:.4}"),
        false => format!("{scaled:.2}"),
    };
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Text that cannot be taken for markup.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub(super) fn colour(index: usize) -> &'static str {
    COLOURS
        .get(index % COLOURS.len())
        .copied()
        .unwrap_or("#777")
}

pub(super) fn begin(svg: &mut String, height: f64) {
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <style>{STYLE}</style>"
    );
}

/// The grid, with what stands at it.
fn frame(svg: &mut String, x: Option<(&Axis, &str)>, y: (&Axis, &str)) {
    for tick in y.0.ticks() {
        let at = y.0.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" stroke=\"#ddd\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            short(tick)
        );
    }
    let base = HEIGHT - BOTTOM;
    if let Some((axis, label)) = x {
        for tick in axis.ticks() {
            let at = axis.at(tick);
            let _ = write!(
                svg,
                "<line class=\"axis\" stroke=\"#333\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{base}\" y2=\"{}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                base + 5.0,
                base + 19.0,
                short(tick)
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            base + 38.0,
            escaped(label)
        );
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" stroke=\"#333\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\"/>\
         <text x=\"14\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1})\">{}</text>",
        WIDTH - RIGHT,
        (TOP + base) / 2.0,
        (TOP + base) / 2.0,
        escaped(y.1)
    );
}

/// What each colour stands for, below the plot.
fn legend<'a>(svg: &mut String, names: impl Iterator<Item = (&'a str, bool)>) {
    const COLUMN: f64 = 210.0;
    for (index, (name, dashed)) in names.enumerate() {
        let x = LEFT + (index % 3) as f64 * COLUMN;
        let y = HEIGHT - 48.0 + (index / 3) as f64 * 18.0;
        let class = if dashed { "line dash" } else { "line" };
        let _ = write!(
            svg,
            "<line class=\"{class}\" stroke=\"{}\" x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            colour(index),
            x + 22.0,
            x + 28.0,
            y + 4.0,
            escaped(name)
        );
    }
}

impl Chart {
    /// The plot as one SVG element.
    pub fn render(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::new(self.x.1, points().map(|p| p.0), (LEFT, WIDTH - RIGHT));
        let y = Axis::new(self.y.1, points().map(|p| p.1), (HEIGHT - BOTTOM, TOP));
        let mut svg = String::new();
        begin(&mut svg, HEIGHT);
        frame(&mut svg, Some((&x, self.x.0)), (&y, self.y.0));
        for (index, series) in self.series.iter().enumerate() {
            let colour = colour(index);
            let class = if series.dashed { "line dash" } else { "line" };
            let path: Vec<String> = series
                .points
                .iter()
                .map(|point| format!("{:.1},{:.1}", x.at(point.0), y.at(point.1)))
                .collect();
            let path = path.join(" ");
            let _ = write!(
                svg,
                "<polyline class=\"{class}\" stroke=\"{colour}\" points=\"{path}\"/>"
            );
            for point in &series.points {
                let _ = write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {} at {}</title></circle>",
                    x.at(point.0),
                    y.at(point.1),
                    escaped(&series.name),
                    short(point.1),
                    short(point.0)
                );
            }
        }
        legend(
            &mut svg,
            self.series
                .iter()
                .map(|series| (series.name.as_str(), series.dashed)),
        );
        svg.push_str("</svg>");
        svg
    }
}

/// Bars side by side: a group for each label, a bar for each series.
pub struct Bars {
    pub y: &'static str,
    pub groups: Vec<String>,
    /// A name, and a value for each group.
    pub series: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// The plot as one SVG element.
    pub fn render(&self) -> String {
        let values = self
            .series
            .iter()
            .flat_map(|(_, values)| values.iter().copied());
        let y = Axis::new(Scale::Linear, values, (HEIGHT - BOTTOM, TOP));
        let mut svg = String::new();
        begin(&mut svg, HEIGHT);
        frame(&mut svg, None, (&y, self.y));
        let group = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let bar = group * 0.7 / self.series.len().max(1) as f64;
        let base = HEIGHT - BOTTOM;
        for (index, name) in self.groups.iter().enumerate() {
            let left = LEFT + index as f64 * group;
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                left + group / 2.0,
                base + 19.0,
                escaped(name)
            );
            for (which, (series, values)) in self.series.iter().enumerate() {
                let Some(value) = values.get(index).filter(|value| value.is_finite()) else {
                    continue;
                };
                let top = y.at(*value);
                let _ = write!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{}, {}: {}</title></rect>",
                    left + group * 0.15 + which as f64 * bar,
                    bar * 0.92,
                    (base - top).max(0.0),
                    colour(which),
                    escaped(series),
                    escaped(name),
                    short(*value)
                );
            }
        }
        legend(
            &mut svg,
            self.series.iter().map(|(name, _)| (name.as_str(), false)),
        );
        svg.push_str("</svg>");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, points: Vec<(f64, f64)>) -> String {
        Chart {
            x: ("x", scale),
            y: ("y < 2", scale),
            series: vec![Series {
                name: "a & b".to_owned(),
                points,
                dashed: false,
            }],
        }
        .render()
    }

    #[test]
    fn marks_stay_within_the_frame_whatever_the_figures() {
        for scale in [Scale::Linear, Scale::Log] {
            for points in [
                vec![],
                vec![(0.0, 0.0)],
                vec![(64.0, 2.5), (1400.0, 38.0)],
                vec![(1.0, 7.0), (1e5, 1e9), (-3.0, f64::NAN)],
            ] {
                let svg = chart(scale, points);
                let coordinates = svg.split("cy=\"").skip(1).filter_map(|rest| {
                    let text = rest.split('"').next()?;
                    text.parse::<f64>().ok().filter(|at| at.is_finite())
                });
                for at in coordinates {
                    assert!((0.0..=HEIGHT).contains(&at), "{at}");
                }
                assert!(svg.contains("a &amp; b") && svg.contains("y &lt; 2"));
                assert!(svg.ends_with("</svg>"));
            }
        }
    }

    #[test]
    fn steps_are_round_and_numbers_short() {
        assert_eq!([step(38.0), step(7.0), step(1000.0)], [10.0, 2.0, 200.0]);
        assert_eq!(
            [short(0.5), short(12_300.0), short(2e6)],
            ["0.5", "12.3k", "2M"]
        );
    }
}
