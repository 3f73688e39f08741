//! What a fault cost, judged from what arrived and what was sent.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Frame};
use hitless::audit::{Audit, Exchange, TapId};

use super::audit::Question;
use super::expected::{Cost, Expected, Takeover, most_missed};
use super::kinds::Diary;
use super::plot::Timeline;
use super::traffic::{Flow, Silence, WAYS, Way};
use super::waits::Waited;
use super::{LAST, Row, bed};
use crate::error::LabError;
use crate::scenario::milliseconds;

const CLUSTER: IpAddr = bed::CLUSTER;
/// What both members send is one tap: a number that both use is a repeat.
const MEMBERS: TapId = TapId(0);
/// What a plot shows of the time before and after a fault.
const SHOWN_BEFORE: i64 = 500;
/// And after the last event; the whole at least, and at most.
const SHOWN_AFTER: f64 = 500.0;
const SHOWN_LEAST: f64 = 1_500.0;
const SHOWN_MOST: f64 = 60_000.0;

/// A tunnel that is silent for longer is named.
const SLOW: Duration = Duration::from_secs(2);

/// Whoever sends ESP in the last so much before a fault leads.
const JUST_BEFORE: Duration = Duration::from_millis(200);

/// What a row is judged from.
pub(super) struct Evidence {
    pub flow: Flow,
    pub captured: [Result<Vec<u8>, LabError>; 2],
    /// Who led when it was struck.
    pub active: usize,
    pub struck: Duration,
    pub end: Duration,
    pub tunnels: u16,
    /// Those of them that carry traffic.
    pub busy: u16,
    /// Datagrams a second, each way.
    pub rate: u32,
    pub expected: Expected,
    pub question: Question,
    /// What the machine made the members wait.
    pub waited: Waited,
    /// What the other member logged from the fault on.
    pub said: String,
    /// IKE SAs of the peer, before and after.
    pub sas: [BTreeSet<(String, String)>; 2],
}

impl Row {
    /// All that can be said of it.
    pub(super) fn finish(mut self, evidence: Evidence, mut diary: Diary, all: &mut Audit) -> Row {
        let Evidence {
            flow,
            captured,
            active,
            struck,
            end,
            tunnels,
            busy,
            rate,
            expected,
            question,
            waited,
            said,
            sas: [before, after],
        } = evidence;
        if before.len() < usize::from(tunnels) {
            let up = before.len();
            self.problems
                .push(format!("only {up} tunnels were up before it"));
        }
        let worst = waited.worst_within(expected.silence);
        self.longest_wait_ms = Some(milliseconds(worst));
        let starved = (worst >= expected.silence / 2).then_some(worst);
        self.judge_flow(&flow, struck, end, busy);
        let led = captured[1 - active]
            .as_deref()
            .is_ok_and(|file| led_before(file, struck));
        let first = self.judge_captures(captured, active, struck, &mut diary, all);
        let of_a_split = self.judge_audit(&question);
        let sound = self.problems.len();
        self.judge_split(of_a_split, expected.split);
        let waits = waited.between(struck, struck + expected.cost.longest());
        self.judge_cost(expected.cost, rate, waits);
        match led {
            true => {
                let other = 2 - active;
                self.problems
                    .push(format!("m{other} led already: it hit a standby"));
            }
            false => self.judge_takeover(expected.takeover, first, struck, &waited),
        }
        if let (Some((heartbeat, missed)), Some(first)) = (expected.missed, first) {
            let since = struck.saturating_sub(heartbeat * missed);
            let waits = waited.between(since, first);
            self.judge_silence(silent_for(&said), (heartbeat, missed), waits);
        }
        if let Some(worst) = starved {
            self.excuse(sound, worst);
        }
        self.judge_sas(&before, &after);
        self.show(&flow, struck, &diary);
        self.passed = self.problems.is_empty();
        self
    }

    /// What was found from there on is what a machine does that runs a member too late.
    fn excuse(&mut self, from: usize, worst: Duration) {
        let found = self.problems.split_off(from);
        self.excused |= !found.is_empty();
        self.notes.extend(found.into_iter().map(|what| {
            format!(
                "{what}; not judged: the machine kept a thread of a member waiting for {worst:.1?}"
            )
        }));
    }

    /// Neither away for longer nor lost more than the timers account for; `waits` is what the machine
    /// made members wait in that time.
    fn judge_cost(&mut self, cost: Cost, rate: u32, waits: Duration) {
        let lost = self.packets_lost;
        if let Some(time) = cost.loss() {
            // What the machine delays is late, and lost only where something may be.
            let waits = if time.is_zero() { time } else { waits * 2 };
            let most = ((time + waits).as_secs_f64() * f64::from(rate)).ceil() as u64;
            if lost > most {
                self.problems.push(match most {
                    0 => format!("{lost} packets lost where none may be"),
                    _ => format!("{lost} packets lost; {most} are what {time:.1?} are worth"),
                });
            }
        }
        let felt = [self.outage_in_ms, self.outage_out_ms];
        for (felt, limit) in felt.into_iter().zip(cost.outage().into_iter().flatten()) {
            let limit = milliseconds(limit + waits);
            if let Some(felt) = felt.filter(|felt| *felt > limit) {
                self.problems.push(format!(
                    "nothing arrived for {felt:.1} ms one way; {limit:.1} may be"
                ));
            }
        }
    }

    /// Neither hasty nor slow, counted in heartbeats: the silence that the member itself saw.
    fn judge_silence(
        &mut self,
        silent: Option<Duration>,
        (heartbeat, missed): (Duration, u32),
        waits: Duration,
    ) {
        let Some(silent) = silent else {
            self.problems
                .push("who took over did not say after what silence".to_owned());
            return;
        };
        let count = |time: Duration| time.as_secs_f64() / heartbeat.as_secs_f64().max(1e-3);
        self.heartbeats_missed = Some(count(silent));
        let most = heartbeat * most_missed(missed) + waits;
        if silent < heartbeat * missed || silent > most {
            self.problems.push(format!(
                "took over after {:.1} missed heartbeats: {missed} are to be missed, and {:.1} at \
                 most",
                count(silent),
                count(most)
            ));
        }
    }

    fn judge_takeover(
        &mut self,
        expected: Takeover,
        first: Option<Duration>,
        struck: Duration,
        waited: &Waited,
    ) {
        let took = first.map(|first| first.saturating_sub(struck));
        let waits = first.map(|first| waited.between(struck, first));
        self.takeover_ms = took.map(milliseconds);
        self.waited_ms = waits.map(milliseconds);
        match (expected, took) {
            (Takeover::Never, None) | (Takeover::AtAnyTime, Some(_)) => {}
            (Takeover::Perhaps, _) => {}
            (_, None) => self.problems.push("nobody took over".to_owned()),
            (Takeover::Within(limit), Some(took)) => {
                let waits = waits.unwrap_or_default();
                if took > limit + waits {
                    self.problems.push(format!(
                        "the takeover took {took:.1?}; {limit:?} is the most, and {waits:.1?} for \
                         what the machine made it wait"
                    ));
                }
            }
            (Takeover::Never, Some(_)) => self
                .problems
                .push("the other member took over, which nothing asked for".to_owned()),
        }
    }

    fn judge_flow(&mut self, flow: &Flow, struck: Duration, end: Duration, tunnels: u16) {
        let ms = |time: Option<Duration>| time.map(milliseconds);
        self.outage_in_ms = ms(flow.outage(Way::In, struck));
        self.outage_out_ms = ms(flow.outage(Way::Out, struck));
        let slowest = WAYS.map(|way| flow.slowest(way, struck));
        self.slowest_tunnel_ms = match slowest {
            [Some(a), Some(b)] => Some(milliseconds(a.length.max(b.length))),
            _ => None,
        };
        self.name_slowest(slowest, struck);
        self.packets_sent = flow.sent();
        self.packets_lost = flow.lost();
        self.delivered_twice = flow.delivered_twice();
        if self.delivered_twice > 0 {
            let twice = self.delivered_twice;
            self.problems
                .push(format!("{twice} packets were delivered twice"));
        }
        let alive = WAYS.map(|way| flow.alive_since(way, end.saturating_sub(LAST)));
        if alive.iter().any(|alive| *alive < usize::from(tunnels)) {
            let [inbound, outbound] = alive;
            self.problems.push(format!(
                "of {tunnels} tunnels {inbound} carry traffic in and {outbound} out in the end"
            ));
        }
    }

    /// Which tunnel waited for so long that somebody has to look why.
    fn name_slowest(&mut self, slowest: [Option<Silence>; 2], struck: Duration) {
        for (silence, way) in slowest.into_iter().zip(["in", "out"]) {
            if let Some(silence) = silence.filter(|silence| silence.length > SLOW) {
                let Silence {
                    tunnel,
                    length,
                    since,
                } = silence;
                let after = since.saturating_sub(struck);
                self.notes.push(format!(
                    "slowest {way}: tunnel {tunnel}, silent for {length:.1?} from {after:.1?} on"
                ));
            }
        }
    }

    /// What was sent; gives when the member that was not the active sent its first ESP.
    pub(super) fn judge_captures(
        &mut self,
        captured: [Result<Vec<u8>, LabError>; 2],
        active: usize,
        struck: Duration,
        diary: &mut Diary,
        all: &mut Audit,
    ) -> Option<Duration> {
        let mut audit = Audit::default();
        let mut took_over = None;
        for (index, file) in captured.iter().enumerate() {
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    self.problems
                        .push(format!("the audit is not whole: {error}"));
                    continue;
                }
            };
            for audit in [&mut audit, &mut *all] {
                if let Err(error) = audit.observe_pcap(MEMBERS, file) {
                    self.problems.push(format!("a capture: {error}"));
                }
            }
            if index != active
                && let Some(first) = first_esp(file, struck)
            {
                took_over = Some(first);
                diary
                    .0
                    .push((first, "first ESP of the other member".to_owned()));
            }
        }
        let report = audit.report();
        self.repeated_sequence_numbers = report.repeated_sequence_numbers();
        let leaked = report.leaked(|address| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(_) => false,
        });
        let again = report.count_after(Exchange::IkeAuth, struck) as u64;
        for (count, what) in [(leaked, "packets in clear"), (again, "new IKE_AUTH")] {
            if count > 0 {
                self.problems.push(format!("{count} {what}"));
            }
        }
        took_over
    }

    /// What the command says of the same captures, and of what was granted. Gives what a split explains.
    pub(super) fn judge_audit(&mut self, question: &Question) -> Vec<String> {
        let (problems, of_a_split) = match question.ask() {
            Ok(verdict) => (verdict.problems(), verdict.of_a_split()),
            Err(error) => (vec![error.to_string()], Vec::new()),
        };
        self.audit = match problems.is_empty() {
            true => "clean".to_owned(),
            false => "NOT CLEAN".to_owned(),
        };
        let problems = problems.into_iter();
        self.problems
            .extend(problems.map(|what| format!("audit: {what}")));
        of_a_split
    }

    /// What a split explains is a problem where none may be.
    pub(super) fn judge_split(&mut self, found: Vec<String>, may_be: bool) {
        if found.is_empty() {
            return;
        }
        let what = found.join(", ");
        if may_be {
            self.excused = true;
            self.notes.push(format!("audit: {what}, as both led"));
        } else {
            self.audit = "NOT CLEAN".to_owned();
            self.problems
                .push(format!("audit: {what}, where both were not to lead"));
        }
    }

    /// The captures of all trials together: a number may come again in another one.
    pub(super) fn judge_all(&mut self, all: Audit) {
        let report = all.report();
        let repeated = report.repeated_sequence_numbers();
        self.repeated_sequence_numbers = self.repeated_sequence_numbers.max(repeated);
        if repeated > 0 || report.repeated_iv_count > 0 {
            let ivs = report.repeated_iv_count;
            self.audit = "NOT CLEAN".to_owned();
            let what = format!("{repeated} repeated numbers, {ivs} repeated IVs");
            self.fail(format!("audit over all runs: {what}"));
        }
    }

    fn judge_sas(
        &mut self,
        before: &BTreeSet<(String, String)>,
        after: &BTreeSet<(String, String)>,
    ) {
        self.sas_lost = before.difference(after).count() as u64;
        if self.sas_lost > 0 {
            let (lost, all) = (self.sas_lost, before.len());
            self.problems
                .push(format!("{lost} of {all} IKE SAs are gone"));
        }
    }

    fn show(&mut self, flow: &Flow, struck: Duration, diary: &Diary) {
        let from = struck.saturating_sub(Duration::from_millis(SHOWN_BEFORE.unsigned_abs()));
        let relative = |at: &Duration| (at.as_secs_f64() - struck.as_secs_f64()) * 1000.0;
        let mut events: Vec<(f64, String)> = diary
            .0
            .iter()
            .map(|(at, what)| (relative(at), what.clone()))
            .collect();
        events.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let last = events.iter().map(|(at, _)| *at).fold(0.0, f64::max);
        let until = (last + SHOWN_AFTER).clamp(SHOWN_LEAST, SHOWN_MOST);
        let count = until as usize + SHOWN_BEFORE.unsigned_abs() as usize;
        let bins = |way| flow.histogram(way, from, Duration::from_millis(1), count);
        self.timeline = Some(Timeline {
            from_ms: -SHOWN_BEFORE,
            bin_ms: 1,
            inbound: bins(Way::In),
            outbound: bins(Way::Out),
            events,
        });
    }
}

/// What a member says when it takes over: `member 1, the active, is silent for 30 ms: taking over`.
fn silent_for(said: &str) -> Option<Duration> {
    let (_, rest) = said.split_once("is silent for ")?;
    let (ms, rest) = rest.split_once(" ms")?;
    rest.starts_with(": taking over")
        .then(|| ms.parse().ok().map(Duration::from_millis))?
}

/// When the cluster's first ESP packet at or after `from` was sent.
fn first_esp(file: &[u8], from: Duration) -> Option<Duration> {
    let mut times = esp_of_cluster(file).map(|(at, _)| at);
    times.find(|at| *at >= from)
}

/// How many of them in a time.
pub(super) fn esp_between(file: &[u8], from: Duration, to: Duration) -> usize {
    let times = esp_of_cluster(file).map(|(at, _)| at);
    times.filter(|at| (from..to).contains(at)).count()
}

/// When the cluster sent ESP, and by which SPI.
pub(super) fn esp_of_cluster(file: &[u8]) -> impl Iterator<Item = (Duration, u32)> {
    let records = PcapReader::new(file).into_iter().flatten();
    records
        .map_while(Result::ok)
        .filter_map(|record| match wire::decode(record.frame) {
            Frame::Esp(esp) if esp.source == CLUSTER => Some((record.time, esp.spi)),
            _ => None,
        })
}

/// Whether this member sent the cluster's ESP just before a fault.
fn led_before(file: &[u8], struck: Duration) -> bool {
    first_esp(file, struck.saturating_sub(JUST_BEFORE)).is_some_and(|at| at < struck)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::traffic::Stream;
    use super::*;

    /// A capture of one ESP packet of the cluster.
    fn capture(at: Duration) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 50, 0, 0]);
        let IpAddr::V4(cluster) = CLUSTER else {
            panic!("the bed is IPv4");
        };
        frame.extend_from_slice(&cluster.octets());
        frame.extend_from_slice(&[192, 0, 2, 99]);
        frame.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.resize(14 + 60, 0);
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        let length = frame.len() as u32;
        for word in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&frame);
        file
    }

    const STRUCK: Duration = Duration::from_secs(100);

    /// What the captures of the two members say, struck at [`STRUCK`] where m1 leads.
    fn judged(other: Option<Duration>, takeover: Takeover, waits: &[(u64, u64)]) -> Row {
        let empty = capture(STRUCK)[..24].to_vec();
        let ms = Duration::from_millis;
        let waits = waits.iter().map(|(at, sum)| (STRUCK + ms(*at), ms(*sum)));
        let evidence = Evidence {
            flow: Flow::default(),
            captured: [Ok(capture(STRUCK)), Ok(other.map_or(empty, capture))],
            active: 0,
            struck: STRUCK,
            end: STRUCK,
            tunnels: 0,
            busy: 0,
            rate: 0,
            expected: Expected {
                takeover,
                cost: Cost::Anything,
                silence: Duration::from_millis(90),
                missed: Some((Duration::from_millis(10), 3)),
                split: false,
            },
            question: Question::about(Path::new("true"), Path::new("/nonexistent"), "x"),
            said: "m2 x\nmember 1, the active, is silent for 31 ms: taking over\n".to_owned(),
            waited: Waited::of(waits.collect()),
            sas: [BTreeSet::new(), BTreeSet::new()],
        };
        Row::default().finish(evidence, Diary::default(), &mut Audit::default())
    }

    fn says(row: &Row, what: &str) -> bool {
        row.problems.iter().any(|problem| problem.contains(what))
    }

    /// A takeover in no time at all is none: leadership had changed between the question who leads
    /// and the kill.
    #[test]
    fn a_kill_that_hits_a_standby_is_no_failover() {
        let within = Takeover::Within(Duration::from_millis(50));
        let sound = judged(Some(STRUCK + Duration::from_millis(40)), within, &[]);
        assert_eq!(sound.takeover_ms, Some(40.0));
        assert!(!says(&sound, "led") && !says(&sound, "took"));
        let wrong = judged(Some(STRUCK - Duration::from_millis(40)), within, &[]);
        assert_eq!(wrong.takeover_ms, None);
        assert!(!wrong.passed && says(&wrong, "m2 led already: it hit a standby"));
    }

    #[test]
    fn a_takeover_has_its_time_and_what_the_machine_made_it_wait() {
        let within = Takeover::Within(Duration::from_millis(50));
        let late = Some(STRUCK + Duration::from_millis(90));
        assert!(says(&judged(late, within, &[]), "the takeover took 90"));
        let waits = [(0, 0), (40, 20), (80, 41)];
        let row = judged(late, within, &waits);
        assert!(!says(&row, "the takeover"), "{:?}", row.problems);
        assert_eq!(row.waited_ms, Some(41.0));
        assert!(says(&judged(None, within, &waits), "nobody took over"));
        assert!(!says(&judged(late, Takeover::AtAnyTime, &[]), "takeover"));
    }

    #[test]
    fn a_takeover_is_neither_hasty_nor_slow_in_heartbeats() {
        let ms = Duration::from_millis;
        let judged = |said: &str, waits| {
            let mut row = Row::default();
            row.judge_silence(silent_for(said), (ms(10), 3), ms(waits));
            row
        };
        let after = |silence| format!("x is silent for {silence} ms: taking over\nx");
        for (silence, waits, sound) in [
            (29, 0, false),
            (30, 0, true),
            (50, 0, true),
            (51, 0, false),
            (90, 41, true),
        ] {
            let row = judged(&after(silence), waits);
            assert_eq!(
                row.problems.is_empty(),
                sound,
                "{silence} {:?}",
                row.problems
            );
        }
        assert_eq!(judged(&after(45), 0).heartbeats_missed, Some(4.5));
        assert!(says(&judged("took over", 0), "after what silence"));
        assert!(says(
            &judged("is silent for 30 ms: waiting", 0),
            "after what silence"
        ));
    }

    #[test]
    fn a_packet_lost_where_none_may_be_fails() {
        let lost = |cost, waits| {
            let stream = Stream {
                sent: vec![STRUCK; 3],
                arrived: [(0, STRUCK), (2, STRUCK)].into(),
                twice: 0,
            };
            let mut row = Row::default();
            let flow = Flow {
                streams: [((Way::In, 0), stream)].into(),
            };
            row.judge_flow(&flow, STRUCK, STRUCK, 0);
            row.judge_cost(cost, 100, Duration::from_millis(waits));
            row
        };
        let within = |ms| {
            let time = Duration::from_millis(ms);
            Cost::Outage {
                inbound: time,
                outbound: Duration::ZERO,
            }
        };
        let none = Cost::Delay {
            longest: Duration::from_secs(1),
            refused: Duration::ZERO,
        };
        // Waiting for a core loses nothing by itself.
        for row in [lost(none, 0), lost(none, 50)] {
            assert!(says(&row, "1 packets lost where none may be"));
        }
        assert!(lost(within(10), 0).problems.is_empty());
        assert_eq!(lost(within(10), 0).packets_lost, 1);
        assert!(lost(Cost::Anything, 0).problems.is_empty());
    }

    #[test]
    fn what_is_lost_and_what_waits_is_bounded_by_the_timers_and_the_machine() {
        let ms = Duration::from_millis;
        let judged = |lost, felt, waits| {
            let mut row = Row {
                packets_lost: lost,
                outage_in_ms: Some(felt),
                outage_out_ms: Some(1.0),
                ..Row::default()
            };
            let cost = Cost::Outage {
                inbound: ms(300),
                outbound: ms(50),
            };
            row.judge_cost(cost, 400, ms(waits));
            row
        };
        // 350 ms of 400 a second.
        assert!(judged(140, 300.0, 0).problems.is_empty());
        assert!(says(&judged(141, 300.0, 0), "141 packets lost; 140 are"));
        assert!(says(&judged(140, 301.0, 0), "nothing arrived for 301.0 ms"));
        assert!(judged(141, 301.0, 5).problems.is_empty());
    }

    #[test]
    fn a_takeover_that_nothing_asked_for_is_one_unless_the_machine_did() {
        let never = Takeover::Never;
        let other = Some(STRUCK + Duration::from_millis(40));
        assert!(says(&judged(other, never, &[]), "nothing asked for"));
        assert!(!says(&judged(None, never, &[]), "took over"));
        for other in [other, None] {
            assert!(!says(&judged(other, Takeover::Perhaps, &[]), "took over"));
        }
        let starved = judged(other, never, &[(0, 0), (4, 0), (8, 46)]);
        assert!(!says(&starved, "asked for"));
        assert!(
            starved.notes[0].contains("waiting for 46"),
            "{:?}",
            starved.notes
        );
    }

    #[test]
    fn what_a_split_explains_is_a_problem_where_none_may_be() {
        let found = || vec!["2 two-requests-of-a-split".to_owned()];
        let mut row = Row::default();
        row.judge_split(found(), true);
        assert!(row.excused && row.problems.is_empty());
        let mut row = Row::default();
        row.judge_split(found(), false);
        assert!(!row.excused && row.audit == "NOT CLEAN");
        assert_eq!(row.problems.len(), 1);
        let mut row = Row::default();
        row.judge_split(Vec::new(), false);
        assert!(row.problems.is_empty());
    }

    #[test]
    fn an_audit_that_cannot_be_asked_is_not_clean() {
        let row = judged(None, Takeover::AtAnyTime, &[]);
        assert!(!row.passed && row.audit == "NOT CLEAN");
        assert!(says(&row, "audit: "));
    }
}
