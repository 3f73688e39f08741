//! How long a takeover takes, whatever the number of tunnels: from SIGKILL to the active until the
//! first ESP packet of the other member, of several kills with few, many and very many tunnels.

use std::time::Duration;

use hitless::audit::Audit;

use super::bed::Bed;
use super::{BEYOND, Course, Row, Wish};
use crate::error::LabError;
use crate::scenario::{Bench, milliseconds};

const TUNNELS: [u16; 3] = [1, 200, 1_000];
/// Tunnels that carry traffic all the time: after a takeover each of them needs a Child SA whose numbers
/// are above the high water, and a thousand of those keep charon and both cores busy for ten seconds.
pub(super) const BUSY: u16 = 200;
/// From a kill to the new start.
const AFTER: Duration = Duration::from_secs(1);

/// A row for each number of tunnels.
pub fn run(bench: &Bench, wish: &Wish, mut tell: impl FnMut(Row)) -> Result<(), LabError> {
    for (number, tunnels) in (1..).zip(TUNNELS) {
        let wish = Wish {
            tunnels,
            busy: Some(BUSY),
            after: wish.after.min(AFTER),
            ..wish.clone()
        };
        let name = format!("takeovers-{number}");
        let mut course = Course {
            bed: Bed::new_in(bench, &wish, &name)?,
            wish,
            wire: Audit::default(),
        };
        let row = course.takeovers()?;
        row.plot(course.wish.plots.as_deref())?;
        tell(row);
    }
    Ok(())
}

/// What one kill came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    took_ms: f64,
    /// What threads of the members waited for a core meanwhile.
    waited_ms: f64,
}

impl Measured {
    /// Of a row about one kill; nothing if nobody took over.
    pub(super) fn of(row: &Row) -> Option<Measured> {
        let waited_ms = row.waited_ms.unwrap_or_default();
        row.takeover_ms
            .map(|took_ms| Measured { took_ms, waited_ms })
    }
}

impl Course<'_> {
    fn takeovers(&mut self) -> Result<Row, LabError> {
        let (tunnels, count) = (self.wish.tunnels, self.wish.takeovers);
        let mut whole = Row {
            fault: format!("takeover of {tunnels}"),
            what: format!("SIGKILL to the active with {tunnels} tunnels, {count} times"),
            passed: true,
            audit: "clean".to_owned(),
            ..Row::default()
        };
        let mut measured = Vec::new();
        self.kills(
            &mut whole,
            count,
            &format!("takeover-{tunnels}"),
            |row, _| {
                measured.extend(Measured::of(row));
                Ok(())
            },
        )?;
        judge(&mut whole, &measured, &self.wish);
        Ok(whole)
    }
}

/// The median must be within the limit. Where it is not, what the machine made the members wait is
/// taken off, and told.
pub(super) fn judge(row: &mut Row, measured: &[Measured], wish: &Wish) {
    let limit = f64::from(wish.heartbeat_ms) * f64::from(wish.missed);
    let limit = limit + milliseconds(BEYOND);
    let all: Vec<f64> = measured.iter().map(|run| run.took_ms).collect();
    let own = |run: &Measured| (run.took_ms - run.waited_ms).max(0.0);
    let own: Vec<f64> = measured.iter().map(own).collect();
    let (Some(median), Some(own)) = (median(all.clone()), median(own)) else {
        return row.fail("no takeover was measured".to_owned());
    };
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let most = all.iter().copied().fold(0.0, f64::max);
    let figures = format!(
        "takeover of {} kills: median {median:.1} ms, {least:.1} to {most:.1}",
        all.len()
    );
    row.takeover_ms = Some(median);
    if median <= limit {
        row.notes.push(format!("{figures}; {limit:.0} may be"));
    } else if own <= limit {
        row.excused = true;
        row.notes.push(format!(
            "{figures}; the machine had members wait for a core: without that {own:.1}, and \
             {limit:.0} may be"
        ));
    } else {
        row.fail(format!(
            "{figures}; {limit:.0} may be, and without waits for a core it would be {own:.1}"
        ));
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(runs: &[(f64, f64)]) -> Row {
        let runs = runs.iter();
        let measured: Vec<_> = runs
            .map(|(took_ms, waited_ms)| Measured {
                took_ms: *took_ms,
                waited_ms: *waited_ms,
            })
            .collect();
        let mut row = Row {
            passed: true,
            ..Row::default()
        };
        let wish = Wish {
            heartbeat_ms: 10,
            missed: 3,
            ..Wish::default()
        };
        judge(&mut row, &measured, &wish);
        row
    }

    #[test]
    fn the_median_decides_and_only_the_machine_excuses_it() {
        let sound = judged(&[(40.0, 0.0), (900.0, 0.0), (36.0, 9.0)]);
        assert!(sound.passed && !sound.excused && sound.takeover_ms == Some(40.0));
        let slow = judged(&[(60.0, 1.0), (61.0, 1.0), (36.0, 0.0)]);
        assert!(!slow.passed && slow.problems[0].contains("median 60.0"));
        let starved = judged(&[(60.0, 15.0), (61.0, 30.0), (36.0, 0.0)]);
        assert!(starved.passed && starved.excused, "{:?}", starved.problems);
        assert!(
            starved.notes[0].contains("without that 36.0"),
            "{:?}",
            starved.notes
        );
        assert!(!judged(&[]).passed);
    }
}
