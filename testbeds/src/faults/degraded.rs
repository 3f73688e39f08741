//! An active member without its standby, under a tunnel to strongSwan: what each policy
//! (`degraded`) does once the leases run out; and two members that both believe they are active.

use std::collections::BTreeSet;
use std::time::Duration;

use hitless::audit::Audit;

use super::bed::{self, Bed};
use super::judge::esp_between;
use super::kinds::Diary;
use super::traffic::{Flow, Traffic, WAYS, Way};
use super::{LAST, Row, Wish};
use crate::capture::Capture;
use crate::clock;
use crate::error::LabError;
use crate::scenario::{Bench, Report, Scenario, milliseconds};

pub const SCENARIO: Scenario = Scenario {
    name: "degraded-strongswan",
    about: "the active alone: it stops, takes new keys or asks the witness; and split brain, with a \
            witness and without",
    variants: &["strict", "rekey", "witness", "witness-split", "split"],
    run,
};

/// Few tunnels with much traffic: leases are used up at once.
const TUNNELS: u16 = 2;
const RATE: u32 = 4_000;
/// Many times what a lease lasts.
const ALONE: Duration = Duration::from_secs(4);
/// Both lead for so long.
const SPLIT: Duration = Duration::from_secs(2);
/// A tunnel is silent: at its rate it never waits for so long.
const SILENCE: Duration = Duration::from_millis(500);
/// The longest pause that going on may cost: a second is between two questions for new keys.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Between two questions for a role.
const MOMENT: Duration = Duration::from_millis(50);
/// For what has to happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn run(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let mut trial = Trial::new(bench, variant)?;
    match variant {
        "split" => trial.split()?,
        "strict" => trial.strict()?,
        "witness-split" => trial.split_before_the_witness()?,
        _ => trial.alone()?,
    }
    trial.judge()
}

struct Trial<'a> {
    report: Report,
    variant: String,
    active: usize,
    struck: Duration,
    diary: Diary,
    before: Sas,
    traffic: Option<Traffic>,
    captures: Option<[Capture; 2]>,
    /// From when until when both led.
    split: Option<[Duration; 2]>,
    bed: Bed<'a>,
}

/// The peer's SAs by name.
struct Sas {
    ike: Vec<String>,
    children: Vec<String>,
}

impl<'a> Trial<'a> {
    fn new(bench: &'a Bench, variant: &str) -> Result<Trial<'a>, LabError> {
        let degraded = match variant {
            "split" => "rekey",
            "witness-split" => "witness",
            other => other,
        };
        let wish = Wish {
            tunnels: TUNNELS,
            rate: RATE,
            heartbeat_ms: 100,
            missed: 5,
            degraded: degraded.to_owned(),
            after: ALONE,
            patience: PATIENCE,
            ..Wish::default()
        };
        let directory = format!("{}-{variant}", SCENARIO.name);
        let mut bed = Bed::new_in(bench, &wish, &directory)?;
        let active = bed.settle()?;
        let before = sas(&bed)?;
        let captures = bed::captures(&bed.lab, variant, &bed.directory)?;
        let traffic = bed::traffic(&bed.lab, &wish)?;
        clock::pass(Duration::from_secs(1))?;
        Ok(Trial {
            report: Report::new(SCENARIO.name, variant),
            variant: variant.to_owned(),
            active,
            struck: clock::wall(),
            diary: Diary::default(),
            before,
            traffic: Some(traffic),
            captures: Some(captures),
            split: None,
            bed,
        })
    }

    fn kill_the_standby(&mut self) -> Result<(), LabError> {
        self.bed.bench.say("SIGKILL to the standby");
        self.struck = self.diary.note("kill");
        self.bed.member(1 - self.active)?.kill().map(drop)
    }

    /// Stops at the lease, and goes on as soon as a standby has joined.
    fn strict(&mut self) -> Result<(), LabError> {
        self.kill_the_standby()?;
        let stopped = clock::until("silence", PATIENCE, || {
            let since = clock::wall().saturating_sub(SILENCE);
            let traffic = self.traffic.as_ref();
            Ok(traffic.is_some_and(|t| t.silent_since(since)).then_some(()))
        });
        let after = milliseconds(clock::wall().saturating_sub(self.struck + SILENCE));
        self.report.check(
            "stops-at-the-lease",
            stopped.is_ok(),
            format!("{after} ms after the death of the standby"),
        );
        clock::pass(SILENCE)?;
        let role = self.bed.member(self.active)?.role()?;
        self.report.check("still-active", role == "active", role);
        self.join()
    }

    /// Goes on, with new keys or with the witness's vote.
    fn alone(&mut self) -> Result<(), LabError> {
        self.kill_the_standby()?;
        clock::pass(ALONE)?;
        self.keeps_leading()?;
        self.join()
    }

    /// Whoever led does so after [`ALONE`], with the keys that the policy allows.
    fn keeps_leading(&mut self) -> Result<(), LabError> {
        let now = sas(&self.bed)?;
        let kept = |sa: &&String| now.children.contains(sa);
        let kept = self.before.children.iter().filter(kept).count();
        let all = self.before.children.len();
        let (name, passed) = match self.variant.as_str() {
            "witness" | "witness-split" => ("keys-are-kept", kept == all),
            _ => ("busy-sas-have-new-keys", kept == 0),
        };
        let detail = format!("{kept} of {all} Child SAs are the same");
        self.report.check(name, passed, detail);
        let role = self.bed.member(self.active)?.role()?;
        self.report.check("still-active", role == "active", role);
        Ok(())
    }

    /// The dead standby comes back and may take over again.
    fn join(&mut self) -> Result<(), LabError> {
        self.bed.bench.say("the standby comes back");
        self.diary.note("restarted");
        self.bed.restart(1 - self.active)?;
        self.joins()
    }

    /// The other member follows the one that led all the while.
    fn joins(&mut self) -> Result<(), LabError> {
        let joined = self.bed.wait_for_roles();
        let leads = format!("{joined:?}");
        let same = joined.is_ok_and(|active| active == self.active);
        self.report.check("a-standby-joins", same, leads);
        self.flows()
    }

    /// The members do not hear each other, but the witness hears both: the standby learns of it that
    /// there is a leader, and the leader has its vote. So the other one never leads.
    fn split_before_the_witness(&mut self) -> Result<(), LabError> {
        self.bed
            .bench
            .say("the sync link is cut, both ways, but not the witness's");
        self.bed.lab.flood(true)?;
        self.struck = self.diary.note("cut");
        for member in 0..2 {
            self.bed.mute_sync(member)?;
        }
        let end = clock::wall() + ALONE;
        let (mut asked, mut led) = (0, 0);
        while clock::wall() < end {
            let role = self.bed.member(1 - self.active)?.role()?;
            (asked, led) = (asked + 1, led + u32::from(role == "active"));
            clock::pass(MOMENT)?;
        }
        let detail = format!("the other one led {led} of {asked} times that it was asked");
        let passed = asked > 0 && led == 0;
        self.report.check("one-leads", passed, detail);
        self.keeps_leading()?;
        self.bed.bench.say("healed");
        self.diary.note("healed");
        for member in 0..2 {
            self.bed.unmute_sync(member)?;
        }
        self.joins()?;
        self.bed.lab.flood(false)
    }

    /// Both lead, and both hear whatever the peer and the hosts send: the switches are hubs.
    fn split(&mut self) -> Result<(), LabError> {
        self.bed.bench.say("the sync link is cut, both ways");
        self.bed.lab.flood(true)?;
        self.struck = self.diary.note("cut");
        for member in 0..2 {
            self.bed.mute_sync(member)?;
        }
        let both = clock::until("two active members", PATIENCE, || {
            let mut roles = Vec::new();
            for index in 0..2 {
                roles.push(self.bed.member(index)?.role()?);
            }
            let split = roles.iter().all(|role| role == "active");
            Ok(split.then_some(()))
        });
        self.report
            .check("both-lead", both.is_ok(), format!("{both:?}"));
        let begun = clock::wall();
        clock::pass(SPLIT)?;
        self.bed.bench.say("healed");
        let healed = self.diary.note("healed");
        self.split = Some([begun, healed]);
        for member in 0..2 {
            self.bed.unmute_sync(member)?;
        }
        let healed = self.bed.wait_for_roles();
        let detail = match &healed {
            Ok(active) => format!("m{} leads", active + 1),
            Err(error) => error.to_string(),
        };
        self.report.check("one-steps-down", healed.is_ok(), detail);
        self.bed.lab.flood(false)?;
        self.flows()?;
        self.converge()
    }

    /// Both members and the peer have the same SAs in the end, and nobody did anything for that.
    fn converge(&mut self) -> Result<(), LabError> {
        let mut seen = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        let same = clock::until("the same SAs everywhere", PATIENCE, || {
            seen[0] = sas(&self.bed)?.children.into_iter().collect();
            for index in 0..2 {
                seen[1 + index] = carried(&self.bed.member(index)?.list_sas()?);
            }
            let same = seen[0].len() == usize::from(TUNNELS);
            let same = same && seen.iter().all(|sas| *sas == seen[0]);
            Ok(same.then_some(()))
        });
        let detail = match &same {
            Ok(()) => format!("{:?}", seen[0]),
            Err(error) => format!("{error}: peer, m1, m2: {seen:?}"),
        };
        self.report.check("sas-converge", same.is_ok(), detail);
        Ok(())
    }

    /// From now on every tunnel carries traffic.
    fn flows(&mut self) -> Result<(), LabError> {
        let now = clock::wall();
        let flows = clock::until("traffic", PATIENCE, || {
            let traffic = self.traffic.as_ref();
            Ok(traffic.is_some_and(|t| t.flows_since(now)).then_some(()))
        });
        let after = milliseconds(clock::wall().saturating_sub(now));
        self.report
            .check("traffic-flows", flows.is_ok(), format!("after {after} ms"));
        clock::pass(LAST)
    }

    fn judge(mut self) -> Result<Report, LabError> {
        let end = clock::wall();
        let flow = self.traffic.take().map(Traffic::stop);
        let flow = flow.transpose()?.unwrap_or_default();
        for member in self.bed.members.iter().flatten() {
            // For whoever looks into the logs.
            let _: Result<(), LabError> = member.keep_status(&self.variant);
        }
        let mut row = Row::default();
        if let Some([m1, m2]) = self.captures.take() {
            let captured = [m1.stop(), m2.stop()];
            if let Some([begun, healed]) = self.split {
                let sent = captured.each_ref().map(|file| match file {
                    Ok(file) => esp_between(file, begun, healed),
                    Err(_) => 0,
                });
                let detail = format!("{sent:?} ESP packets of m1 and m2 while both led");
                let both = sent.iter().all(|sent| *sent > 0);
                self.report.check("both-sent-esp", both, detail);
            }
            let (diary, all) = (&mut self.diary, &mut Audit::default());
            row.judge_captures(captured, self.active, self.struck, diary, all);
            let of_a_split = row.judge_audit(&self.bed.question(&self.variant));
            row.judge_split(of_a_split, self.split.is_some());
        }
        let report = &mut self.report;
        report.repeated_sequence_numbers = Some(row.repeated_sequence_numbers);
        report.packets_lost = Some(flow.lost());
        let said = row.problems.iter().chain(&row.notes).cloned();
        let said = said.collect::<Vec<_>>().join("; ");
        report.check("audit", row.problems.is_empty(), said);
        // A hub gives a host's packet to two members, and each of them sends it to the peer: two
        // packets of two numbers.
        let twice = match self.split {
            Some(_) => flow.twice(Way::In),
            None => flow.delivered_twice(),
        };
        report.check("nothing-delivered-twice", twice == 0, twice.to_string());
        if matches!(self.variant.as_str(), "rekey" | "witness" | "witness-split") {
            let pause = longest_pause(&flow, self.struck);
            let passed = pause.is_some_and(|pause| pause < PAUSE);
            report.outage_ms = pause.map(milliseconds);
            report.check("no-long-pause", passed, format!("{pause:?}"));
        }
        let alive = WAYS.map(|way| flow.alive_since(way, end.saturating_sub(LAST)));
        let all = alive.iter().all(|alive| *alive == usize::from(TUNNELS));
        report.check("every-tunnel-at-the-end", all, format!("{alive:?}"));
        let now = sas(&self.bed)?;
        let same = now.ike == self.before.ike;
        let count = now.ike.len();
        report.check("ike-sas-are-the-same", same, format!("{count} IKE SAs"));
        let one_each = now.children.len() == usize::from(TUNNELS);
        let count = now.children.len();
        report.check("one-child-sa-each", one_each, format!("{count} Child SAs"));
        if self.variant == "strict" {
            let same = now.children == self.before.children;
            report.check("keys-are-kept", same, "the Child SAs are the same");
        }
        Ok(self.report.conclude())
    }
}

fn longest_pause(flow: &Flow, from: Duration) -> Option<Duration> {
    let [a, b] = WAYS.map(|way| flow.slowest(way, from).map(|silence| silence.length));
    Some(a?.max(b?))
}

/// A member's Child SAs as the peer names them: what it receives by first.
fn carried(sas: &[serde_json::Value]) -> BTreeSet<String> {
    let spi = |child: &serde_json::Value, name: &str| child[name].as_str().map(str::to_owned);
    let children = sas.iter().filter_map(|sa| sa["children"].as_array());
    children
        .flatten()
        .filter_map(|child| {
            Some(format!(
                "{}-{}",
                spi(child, "spi_out")?,
                spi(child, "spi_in")?
            ))
        })
        .collect()
}

/// The peer's SAs that are up.
fn sas(bed: &Bed<'_>) -> Result<Sas, LabError> {
    let sas = bed.peer.list_sas()?;
    let up = sas.iter().filter(|sa| sa.state == "ESTABLISHED");
    let mut ike: Vec<_> = up
        .clone()
        .map(|sa| format!("{}-{}", sa.initiator_spi, sa.responder_spi))
        .collect();
    let installed = up.flat_map(|sa| sa.children.iter().filter(|c| c.state == "INSTALLED"));
    let mut children: Vec<_> = installed
        .map(|child| format!("{}-{}", child.spi_in, child.spi_out))
        .collect();
    ike.sort_unstable();
    children.sort_unstable();
    Ok(Sas { ike, children })
}
