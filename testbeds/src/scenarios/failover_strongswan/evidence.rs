//! Judges what a trial gathered: strongSwan's own words and the captures, never hitless's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Frame};
use hitless::audit::{Audit, Exchange, TapId};

use super::{Gateway, Plan};
use crate::ping::PingLog;
use crate::scenario::{Report, milliseconds};
use crate::strongswan::{ChildSa, IkeSa};

/// The members' ports are one tap: what two members send with one number is a repeat.
const TAP_MEMBERS: TapId = TapId(1);
const TAP_PEER: TapId = TapId(0);
/// A takeover may take so long, with everything on one or two cores.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(1);
/// Hosts may hear nothing for so long. The `strict` policy refuses what the peer sends until its
/// numbers are above the recorded high water, which takes a slow stream longer than the takeover.
const OUTAGE_LIMIT: Duration = Duration::from_secs(5);
/// strongSwan counts whole seconds since an SA was established.
const CLOCK_GRAIN: u64 = 2;
/// RFC 4303 appendix A: a jump as long as this could be taken for one backwards.
const SKIP_LIMIT: u64 = 1 << 31;
/// How charon names a Message ID sync among the payloads of a message.
const SYNC_IN_LOG: &str = "N(MSG_ID_SYN)";
/// And the message that a sync is one of.
const ZERO_IN_LOG: &str = "parsed INFORMATIONAL request 0 ";

/// strongSwan's IKE SA at one moment; `None` if it does not have exactly one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub sa: Option<IkeSa>,
    pub time: Duration,
}

/// How the rekeying went.
#[derive(Debug)]
pub struct Rekey {
    pub command: Result<(), String>,
    pub old: ChildSa,
    pub new: Option<ChildSa>,
    pub during: PingLog,
    /// `None` if no ping was answered.
    pub after: Option<PingLog>,
}

/// Everything that was gathered.
#[derive(Debug)]
pub struct Evidence {
    pub killed: Duration,
    before: Snapshot,
    after: Snapshot,
    pings: [PingLog; 2],
    attacks: u64,
    pub replayed_to_cluster: u64,
    pub replayed_to_peer: u64,
    /// Replays seen at the port of the member that is active by then.
    pub replays_arrived: u64,
    /// When traffic flowed one way: to the cluster, then to the peer.
    pub one_way: Vec<(Duration, Duration)>,
    pub rekey: Option<Rekey>,
    /// The SPI of the IKE SA that came after it.
    pub ike_rekey: Result<String, String>,
    pub last: Option<Snapshot>,
    pub charon_log: String,
    /// Captures at the peer, in order; none while every packet was replayed.
    pub outside: Vec<Vec<u8>>,
    /// Captures of what the member that was killed and the one that survived sent, over the whole
    /// trial.
    pub members: Vec<Vec<u8>>,
    /// Captures of what host-a and host-b received, until the replays were over.
    pub hosts: Vec<Vec<u8>>,
}

impl Evidence {
    pub fn new(
        killed: Duration,
        before: Snapshot,
        after: Snapshot,
        pings: [PingLog; 2],
        attacks: u64,
    ) -> Self {
        Self {
            killed,
            before,
            after,
            pings,
            attacks,
            replayed_to_cluster: 0,
            replayed_to_peer: 0,
            replays_arrived: 0,
            one_way: Vec::new(),
            rekey: None,
            ike_rekey: Err("not tried".to_owned()),
            last: None,
            charon_log: String::new(),
            outside: Vec::new(),
            members: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// The report.
    pub fn judge(&self, plan: &Plan, variant: &str) -> Report {
        let mut report = Report::new(plan.scenario, variant);
        let ends = [plan.at.cluster_outside, plan.at.peer_outside].map(str::parse);
        let [Ok(cluster), Ok(peer)] = ends else {
            report.check("ends-are-addresses", false, format!("{ends:?}"));
            return report.conclude();
        };
        let audit = match self.audit(peer) {
            Ok(audit) => audit,
            Err(error) => {
                report.check("captures-readable", false, error);
                return report.conclude();
            }
        };
        self.judge_ike_sa(&mut report);
        self.judge_pings(&mut report);
        self.judge_numbers(&mut report, plan, &audit);
        if plan.gateway == Gateway::Hitless {
            self.judge_takeover(&mut report, cluster);
            self.judge_sync(&mut report, plan, &audit, cluster);
        }
        self.judge_exchanges(&mut report, &audit, [peer, cluster]);
        self.judge_replays(&mut report);
        self.judge_rekey(&mut report, plan, &audit);
        report.conclude()
    }

    /// ESP of the cluster and all IKE, from all taps. ESP of the peer is left out: the trial
    /// itself replayed it.
    fn audit(&self, peer: IpAddr) -> Result<hitless::audit::Report, String> {
        let mut audit = Audit::default();
        let outside = self.outside.iter().map(|file| (TAP_PEER, file));
        let members = self.members.iter().map(|file| (TAP_MEMBERS, file));
        for (tap, file) in outside.chain(members) {
            for record in PcapReader::new(file).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                if record.original_length as usize != record.frame.len() {
                    return Err("a frame was cut".to_owned());
                }
                let of_peer =
                    matches!(wire::decode(record.frame), Frame::Esp(esp) if esp.source == peer);
                if !of_peer {
                    audit.observe(tap, record.time, record.frame);
                }
            }
        }
        Ok(audit.report())
    }

    fn judge_ike_sa(&self, report: &mut Report) {
        let spis = |snapshot: &Snapshot| {
            let sa = snapshot.sa.as_ref()?;
            Some((
                sa.initiator_spi.clone(),
                sa.responder_spi.clone(),
                sa.unique_id.clone(),
            ))
        };
        let (before, after) = (spis(&self.before), spis(&self.after));
        let last = self.last.as_ref().and_then(spis);
        let same = before.is_some() && before == after && before == last;
        let shown = |spis: &Option<(String, String, String)>| match spis {
            Some((i, r, id)) => format!("{i}_i {r}_r #{id}"),
            None => "no single established IKE SA".to_owned(),
        };
        let detail = if same {
            shown(&before)
        } else {
            format!("{} / {} / {}", shown(&before), shown(&after), shown(&last))
        };
        report.check("ike-sa-unchanged", same, detail);
        let since = |snapshot: &Snapshot| {
            let sa = snapshot.sa.as_ref()?;
            Some(snapshot.time.as_secs().saturating_sub(sa.established))
        };
        let (before, after) = (since(&self.before), since(&self.after));
        let same = matches!((before, after), (Some(b), Some(a)) if b.abs_diff(a) <= CLOCK_GRAIN);
        let detail = match (before, after) {
            (Some(b), Some(a)) => format!("{b} s since 1970 before the kill, {a} s after it"),
            _ => "no single established IKE SA".to_owned(),
        };
        report.check("established-time-unchanged", same, detail);
    }

    fn judge_pings(&self, report: &mut Report) {
        let mut longest = Some(Duration::ZERO);
        for (name, log) in ["pings-a-to-b", "pings-b-to-a"].iter().zip(&self.pings) {
            let outage = log.longest_gap_after(self.killed);
            longest = longest.zip(outage).map(|(a, b)| a.max(b));
            let silence = match outage {
                Some(outage) => format!("longest silence {:.1} ms", milliseconds(outage)),
                None => "silence for ever".to_owned(),
            };
            let detail = format!("{} sent, {} lost, {silence}", log.transmitted, log.lost());
            let resumed = outage.is_some_and(|outage| outage <= OUTAGE_LIMIT);
            report.check(name, resumed, detail);
        }
        report.outage_ms = longest.map(milliseconds);
        report.packets_lost = Some(self.pings.iter().map(PingLog::lost).sum());
    }

    /// S1 and S2, and that nothing leaves unprotected.
    fn judge_numbers(&self, report: &mut Report, plan: &Plan, audit: &hitless::audit::Report) {
        let repeated = audit.repeated_sequence_numbers();
        report.repeated_sequence_numbers = Some(repeated);
        let packets = audit.esp_packets();
        let mut detail = format!(
            "{packets} sightings of the cluster's ESP, {} repeats identical, {} distinct",
            audit.repeated_identical, audit.repeated_distinct
        );
        if let Some(first) = audit.repeated.first() {
            detail += &format!(", the first: {first:?}");
        }
        report.check("no-repeated-number", repeated == 0 && packets > 0, detail);
        let detail = format!("{} repeats", audit.repeated_iv_count);
        report.check("no-repeated-iv", audit.repeated_iv_count == 0, detail);
        if plan.gateway == Gateway::Hitless {
            let others: u64 = audit.streams.values().map(|s| s.iv_not_number).sum();
            let detail = format!("{others} packets with another IV");
            report.check("iv-is-number", others == 0, detail);
        }
        let undecoded = audit.fragments + audit.malformed.values().sum::<u64>();
        let detail = format!(
            "{} frames, {} fragments, malformed {:?}",
            audit.frames, audit.fragments, audit.malformed
        );
        report.check("every-frame-understood", undecoded == 0, detail);
        let inner = |address| match address {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.is_unique_local(),
        };
        let leaked = audit.leaked(inner);
        report.check(
            "no-clear-text",
            leaked == 0,
            format!("{leaked} packets outside"),
        );
    }

    /// Who sent when, and what the takeover left out.
    fn judge_takeover(&self, report: &mut Report, cluster: IpAddr) {
        let [m1, m2] = self.members.as_slice() else {
            return;
        };
        let (first, second) = (esp_sent(m1, cluster), esp_sent(m2, cluster));
        let early = second.iter().filter(|sent| sent.time < self.killed).count();
        let detail = format!("{early} ESP packets before the kill");
        report.check("standby-silent", early == 0, detail);
        let taken_over = second.iter().find(|sent| sent.time >= self.killed);
        let takeover = taken_over.map(|sent| sent.time.saturating_sub(self.killed));
        report.takeover_ms = takeover.map(milliseconds);
        let detail = match takeover {
            Some(time) => format!("{:.1} ms until the standby's first ESP", milliseconds(time)),
            None => "the standby never sent ESP".to_owned(),
        };
        let in_time = takeover.is_some_and(|takeover| takeover <= TAKEOVER_LIMIT);
        report.check("takeover-in-time", in_time, detail);
        let skip = taken_over.and_then(|sent| {
            let last = first
                .iter()
                .filter(|s| s.spi == sent.spi)
                .map(|s| s.number)
                .max()?;
            sent.number.checked_sub(last + 1)
        });
        report.skip = skip;
        let detail = match skip {
            Some(skip) => format!("{skip} numbers left out"),
            None => "the standby did not go on above the active's last number".to_owned(),
        };
        report.check(
            "goes-on-above",
            skip.is_some_and(|skip| skip < SKIP_LIMIT),
            detail,
        );
    }

    /// RFC 6311: one for the failover (section 7), and answered; or none at all. Its header is that
    /// of the original responder's first request, so charon's list of payloads tells which it was.
    fn judge_sync(
        &self,
        report: &mut Report,
        plan: &Plan,
        audit: &hitless::audit::Report,
        cluster: IpAddr,
    ) {
        let requests = self.charon_log.lines();
        let requests = requests.filter(|line| line.contains(ZERO_IN_LOG));
        let (syncs, ordinary): (Vec<_>, Vec<_>) =
            requests.partition(|line| line.contains(SYNC_IN_LOG));
        let mut zeros = audit.exchanges_from(cluster, Exchange::Informational, Duration::ZERO);
        zeros.retain(|(request, _)| request.message_id == 0);
        // What was repeated, or seen at two places, is one.
        let distinct: BTreeSet<u64> = zeros.iter().map(|(request, _)| request.digest).collect();
        let answered = zeros.iter().filter(|(_, answer)| answer.is_some());
        let answered: BTreeSet<u64> = answered.map(|(request, _)| request.digest).collect();
        let lengths: Vec<_> = zeros.iter().map(|(request, _)| request.length).collect();
        let detail = format!(
            "strongSwan's log has {} syncs and {} ordinary requests with Message ID 0; the wire {} \
             different ones, seen {} times, {} answered, lengths {lengths:?}",
            syncs.len(),
            ordinary.len(),
            distinct.len(),
            zeros.len(),
            answered.len(),
        );
        if plan.sync_expected {
            let one = distinct.len() == 1 + usize::from(!ordinary.is_empty());
            let all = answered == distinct;
            report.check(
                "message-id-sync-answered",
                !syncs.is_empty() && one && all,
                detail,
            );
        } else {
            report.check("no-message-id-sync", syncs.is_empty(), detail);
        }
    }

    fn judge_exchanges(
        &self,
        report: &mut Report,
        audit: &hitless::audit::Report,
        ends: [IpAddr; 2],
    ) {
        let auths = audit.count_after(Exchange::IkeAuth, Duration::ZERO);
        let late = audit.count_after(Exchange::IkeAuth, self.killed);
        report.ike_auth_after_failover = Some(late as u64);
        let inits = audit.count_after(Exchange::IkeSaInit, self.killed);
        let detail = format!(
            "{auths} IKE_AUTH messages in all; after the kill {late}, and {inits} IKE_SA_INIT"
        );
        report.check(
            "no-new-ike-auth",
            auths > 0 && late == 0 && inits == 0,
            detail,
        );
        let names = ["liveness-by-peer", "liveness-by-cluster"];
        for ((name, source), window) in names.iter().zip(ends).zip(&self.one_way) {
            report.liveness(name, audit, source, *window);
        }
    }

    /// S3: nothing that was replayed came out a second time.
    fn judge_replays(&self, report: &mut Report) {
        let mut twice = 0;
        let mut delivered = 0;
        for file in &self.hosts {
            let seen = echoes(file);
            delivered += seen.len();
            twice += seen.values().map(|times| times - 1).sum::<u64>();
        }
        report.replays_accepted = Some(twice);
        let sent = self.attacks + self.replayed_to_cluster + self.replayed_to_peer;
        let all_sent = [
            self.attacks,
            self.replayed_to_cluster,
            self.replayed_to_peer,
        ];
        let arrived = self.replays_arrived >= self.replayed_to_cluster;
        let detail = format!(
            "{sent} replays ({} at the takeover, {} to the cluster of which {} reached the active \
             member, {} to the peer), {delivered} packets delivered, {twice} of them twice",
            self.attacks, self.replayed_to_cluster, self.replays_arrived, self.replayed_to_peer,
        );
        let tried = all_sent.iter().all(|&n| n > 0) && arrived && delivered > 0;
        report.check("replays-refused", tried && twice == 0, detail);
    }

    fn judge_rekey(&self, report: &mut Report, plan: &Plan, audit: &hitless::audit::Report) {
        let name = match plan.starts {
            true => "rekey-by-cluster",
            false => "rekey-by-peer",
        };
        let (renewed, detail) = match &self.ike_rekey {
            Ok(spi) => (true, format!("{spi}_i has come after it")),
            Err(error) => (false, error.clone()),
        };
        report.check(&format!("{name}-of-the-ike-sa"), renewed, detail);
        let Some(rekey) = &self.rekey else {
            report.check(name, false, "there was no Child SA to rekey");
            return;
        };
        let new = rekey.new.as_ref();
        let detail = match (&rekey.command, new) {
            (Err(error), _) => error.clone(),
            (_, None) => format!("{} was not replaced", rekey.old.spi_in),
            (_, Some(new)) => format!(
                "{}_i {}_o became {}_i {}_o, {} pings lost meanwhile",
                rekey.old.spi_in,
                rekey.old.spi_out,
                new.spi_in,
                new.spi_out,
                rekey.during.lost()
            ),
        };
        let done = rekey.command.is_ok() && new.is_some();
        report.check(name, done, detail);
        let on_new = audit.streams.iter().any(|((key, _), stream)| {
            let spi = format!("{:08x}", key.spi);
            stream.packets > 0 && new.is_some_and(|new| new.spi_in == spi)
        });
        let pinged = rekey.after.as_ref();
        let detail = match pinged {
            Some(log) => format!(
                "{} pings, {} lost; new SPI seen: {on_new}",
                log.transmitted,
                log.lost()
            ),
            None => "no ping was answered".to_owned(),
        };
        let flows = pinged.is_some_and(|log| log.received > 0 && log.lost() <= 1);
        report.check("traffic-after-rekey", flows && on_new, detail);
    }
}

/// An ESP packet of the cluster.
struct Sent {
    time: Duration,
    spi: u32,
    number: u64,
}

fn esp_sent(file: &[u8], cluster: IpAddr) -> Vec<Sent> {
    let Ok(reader) = PcapReader::new(file) else {
        return Vec::new();
    };
    let records = reader.map_while(Result::ok);
    let sent = records.filter_map(|record| match wire::decode(record.frame) {
        Frame::Esp(esp) if esp.source == cluster => Some(Sent {
            time: record.time,
            spi: esp.spi,
            number: u64::from(esp.sequence),
        }),
        _ => None,
    });
    sent.collect()
}

/// How often each echo request and reply was received.
fn echoes(file: &[u8]) -> BTreeMap<wire::Echo, u64> {
    let mut seen = BTreeMap::new();
    let Ok(reader) = PcapReader::new(file) else {
        return seen;
    };
    for record in reader.map_while(Result::ok) {
        if let Frame::Echo(echo) = wire::decode(record.frame) {
            *seen.entry(echo).or_default() += 1;
        }
    }
    seen
}
