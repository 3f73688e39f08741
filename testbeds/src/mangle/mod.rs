//! A peer that mangles: it speaks IKEv2 to a gateway's engine with real keys, does one thing wrong
//! at a time, and holds what comes back against what the RFC says: silence, a notification, a
//! Delete, or the usual answer where the wrong thing is to be ignored. Afterwards an honest exchange
//! has to work, or the case has failed all the same.
//!
//! `cases/` has the wrong messages, one file for each exchange. `peer.rs` and `wire.rs` are the peer,
//! which shares neither writer nor reader with the gateway; `bed.rs` has both ends, `login.rs` what a login
//! with EAP takes besides; `far.rs` is a
//! daemon at the other end of a socket instead of an engine in this process; `judge.rs` says what an
//! answer is.

mod bed;
mod cases;
mod far;
mod judge;
mod login;
mod peer;
mod wire;

use std::fmt;

use serde::Serialize;

use self::bed::{Bed, Stage};
pub use self::far::Target;
use self::judge::{Before, Expected, Outcome};

/// One wrong thing.
pub struct Case {
    pub name: &'static str,
    /// The RFC's section that says what has to come of it.
    pub rfc: &'static str,
    pub expected: Expected,
    pub send: Send,
}

/// Sends it: datagrams, in order.
pub type Send = fn(&mut Bed) -> Vec<Vec<u8>>;

pub const fn case(name: &'static str, rfc: &'static str, expected: Expected, send: Send) -> Case {
    Case {
        name,
        rfc,
        expected,
        send,
    }
}

/// What came of one case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    pub action: &'static str,
    /// The gateway's role in the IKE SA.
    pub role: &'static str,
    pub rfc: &'static str,
    pub expected: String,
    pub seen: String,
    pub passed: bool,
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Table {
    pub passed: bool,
    pub rows: Vec<Row>,
}

/// Plays every case whose name has `filter` in it, with an engine in this process.
pub fn run(filter: &str) -> Table {
    let wanted = |(_, case): &(Stage, &Case)| case.name.contains(filter);
    let rows = cases::all().filter(wanted);
    Table::of(rows.map(|(stage, case)| play(stage, case, Bed::at(stage))))
}

/// Those in which the gateway is the responder, with a daemon. `told` is told of each row.
pub fn run_against(target: &Target, filter: &str, told: impl Fn(&Row)) -> Table {
    let wanted = |(stage, case): &(Stage, &Case)| stage.far() && case.name.contains(filter);
    let rows = cases::all().filter(wanted).zip(1..);
    Table::of(rows.map(|((stage, case), seed)| {
        let row = play(stage, case, Bed::toward(target, stage, seed));
        told(&row);
        row
    }))
}

impl Table {
    fn of(rows: impl Iterator<Item = Row>) -> Table {
        let rows: Vec<Row> = rows.collect();
        Table {
            passed: !rows.is_empty() && rows.iter().all(|row| row.passed),
            rows,
        }
    }
}

fn play(stage: Stage, case: &Case, bed: Result<Bed, String>) -> Row {
    let (seen, passed) = match bed {
        Ok(bed) => attempt(stage, case, bed),
        Err(reason) => (reason, false),
    };
    Row {
        action: case.name,
        role: match stage.asks() {
            true => "initiator",
            false => "responder",
        },
        rfc: case.rfc,
        expected: case.expected.text(),
        seen,
        passed,
    }
}

fn attempt(stage: Stage, case: &Case, mut bed: Bed) -> (String, bool) {
    let before = Before {
        stage,
        children: bed.children(),
        ike_sas: bed.ike_sas(),
    };
    let datagrams = (case.send)(&mut bed);
    for datagram in &datagrams {
        bed.deliver(datagram);
    }
    let outcome = Outcome::of(&bed, before);
    let mut seen = outcome.text();
    let mut right = outcome.is(case.expected);
    if datagrams.iter().any(|datagram| bed.in_fragments(datagram)) {
        seen += ", in IP fragments";
        right |= outcome.is(Expected::Silence);
    }
    let sound = afterwards(stage, bed, &outcome);
    if let Err(harm) = &sound {
        seen = format!("{seen}; afterwards {harm}");
    }
    (seen, right && sound.is_ok())
}

/// An honest exchange works: the one that the wrong message came between, or a new one.
fn afterwards(stage: Stage, mut bed: Bed, outcome: &Outcome) -> Result<(), String> {
    let silent = outcome.silent();
    let next = bed.peer.next;
    match stage {
        Stage::HalfOpen if silent => established(bed),
        Stage::HalfOpen if bed.ike_sas() == 1 => alive(bed, 2),
        Stage::Established if bed.ike_sas() > 0 => {
            let moved = outcome.answered() && !outcome.is(Expected::Again);
            alive(bed, next + u32::from(moved))
        }
        Stage::AskedInit if silent || outcome.is(Expected::Repeated) => {
            let went_on = bed.answer_init().and_then(|()| bed.answer_auth());
            went_on.ok_or_else(|| "the honest answer does not count".to_owned())
        }
        Stage::AskedInit if outcome.is(Expected::Retried) && !outcome.other_group() => {
            let went_on = bed.relearn().and_then(|()| bed.answer_init());
            went_on.ok_or_else(|| "the honest answer to the retry does not count".to_owned())
        }
        Stage::AskedAuth if outcome.is(Expected::Silence) || outcome.is(Expected::Repeated) => {
            let went_on = bed.answer_auth();
            went_on.ok_or_else(|| "the honest answer does not count".to_owned())
        }
        Stage::AskedAuth | Stage::AskedChild | Stage::AskedRekey | Stage::AskedLife
            if bed.ike_sas() > 0 =>
        {
            alive(bed, next + u32::from(outcome.answered()))
        }
        stage if stage.logs_in() && silent_or_again(outcome) => {
            let went_on = bed.log_in_honestly(stage);
            went_on.ok_or_else(|| "the honest message does not count".to_owned())
        }
        _ => {
            bed.start_anew();
            established(bed)
        }
    }
}

fn silent_or_again(outcome: &Outcome) -> bool {
    outcome.is(Expected::Silence) || outcome.is(Expected::Again)
}

fn established(mut bed: Bed) -> Result<(), String> {
    bed.establish()
        .ok_or_else(|| format!("no IKE SA: {:?}", bed.dropped))
}

fn alive(mut bed: Bed, id: u32) -> Result<(), String> {
    match bed.lives(id) {
        true => Ok(()),
        false => Err(format!("request {id} has no answer: {:?}", bed.dropped)),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "PASSED" } else { "FAILED" };
        writeln!(f, "mangle: {verdict}")?;
        let right = self.rows.iter().filter(|row| row.passed).count();
        for row in &self.rows {
            let mark = if row.passed { "ok  " } else { "FAIL" };
            let Row {
                action,
                role,
                rfc,
                expected,
                seen,
                ..
            } = row;
            writeln!(f, "  {mark} {role} [{rfc}] {action}: {seen}")?;
            if !row.passed {
                writeln!(f, "         expected {expected}")?;
            }
        }
        write!(
            f,
            "  {right} of {} answered as the RFC says",
            self.rows.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_message_gets_the_answer_of_its_rfc() {
        let table = run("");
        assert!(table.passed, "{table}");
        assert!(table.rows.len() > 150, "{} cases", table.rows.len());
    }

    #[test]
    fn no_two_cases_have_one_name() {
        let mut names: Vec<_> = cases::all()
            .map(|(stage, case)| (case.name, stage as u8))
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
