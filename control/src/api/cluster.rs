//! `hitless cluster status`: the report, and as text.

use serde::{Deserialize, Serialize};

use super::report::{MemberStatus, Role, SyncStatus};
use super::text::{Text, plain};

/// What would be lost if the active died now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClusterReport {
    pub cluster: String,
    pub member: u8,
    pub role: Role,
    pub epoch: Option<String>,
    pub leader: Option<u8>,
    /// The active waits for a silent standby.
    pub degraded: bool,
    /// Members that could take over now.
    pub standbys: u64,
    /// Message IDs would be exact.
    pub exact: bool,
    /// Takeovers by this member since it started.
    pub takeovers: u64,
    /// By kind of sequence numbers.
    pub classes: Vec<ClassReport>,
    /// Child SAs that a standby could not carry on, and the first of them.
    pub unserved: u64,
    pub named: Vec<UnservedReport>,
    /// IKE SAs whose newest state some standby has not acknowledged.
    pub behind: u64,
    /// Inherited IKE SAs that have not asked their peers yet where they stand.
    #[serde(default)]
    pub unsynchronised: u64,
    pub sync: SyncStatus,
    /// Why this member could not do all the work of an active.
    pub ailments: Vec<String>,
    /// What a takeover would cost that no SA says.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Of a standby's copies; the active proves its SAs by using them.
    pub drill: Option<DrillReport>,
    pub members: Vec<MemberStatus>,
}

/// All Child SAs of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClassReport {
    /// `esn` or `32-bit`.
    pub class: String,
    pub sas: u64,
    /// Outbound numbers left out, at most.
    pub greatest_skip: u64,
    /// Inbound packets of one SA that a strict takeover may refuse, at most.
    pub greatest_blackout: u64,
    /// The same of all SAs together.
    pub packets_at_risk: u64,
    /// What RFC 6311 would ask a peer to leave out (the recorded high water less the newest
    /// checkpoint), at most.
    #[serde(default)]
    pub greatest_delta: u64,
    /// Numbers that the active may still use without another acknowledgement, at least.
    pub least_remaining: Option<u64>,
}

/// A Child SA that a standby could not carry on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnservedReport {
    pub sa: String,
    pub reason: String,
}

/// How many copies have been tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrillReport {
    pub passed: u64,
    pub waiting: u64,
    pub failed: u64,
}

/// The report for people.
pub fn cluster(report: &ClusterReport) -> String {
    let mut out = Text::default();
    write(&mut out, report);
    out.0
}

fn write(out: &mut Text, r: &ClusterReport) {
    let epoch = r.epoch.as_deref().unwrap_or("none");
    let degraded = if r.degraded { ", DEGRADED" } else { "" };
    writeln!(
        out,
        "cluster {}, member {}: {}, epoch {}{degraded}, {} takeovers",
        plain(&r.cluster),
        r.member,
        r.role.name(),
        plain(epoch),
        r.takeovers
    );
    let ids = if r.exact { "exact" } else { "to be found out" };
    match r.standbys {
        0 => writeln!(out, "if the active died now: NOBODY could take over"),
        n => writeln!(
            out,
            "if the active died now: {n} could take over, Message IDs {ids}"
        ),
    }
    write_classes(out, r);
    if let Some(drill) = &r.drill {
        writeln!(
            out,
            "  drill: {} SAs encrypt and decrypt, {} wait, {} fail",
            drill.passed, drill.waiting, drill.failed
        );
    }
    for ailment in &r.ailments {
        writeln!(out, "  NOT HEALTHY: {}", plain(ailment));
    }
    for warning in &r.warnings {
        writeln!(out, "  WARNING: {}", plain(warning));
    }
    for member in &r.members {
        let role = member.role.map_or("never heard", Role::name);
        let bound = right(member);
        let healthy = if member.healthy { "" } else { ", not ready" };
        writeln!(
            out,
            "  member {}: {role}{bound}{healthy}, {} records on their way",
            member.id, member.backlog
        );
    }
}

/// What would be lost, and of which SAs.
fn write_classes(out: &mut Text, r: &ClusterReport) {
    for class in &r.classes {
        let left = match class.least_remaining {
            Some(left) => format!(", {left} numbers of lease left at least"),
            None => String::new(),
        };
        writeln!(
            out,
            "  {} {} SAs: skip at most {}, {} inbound packets at risk ({} of one SA), \
             replay counter delta at most {}{left}",
            class.sas,
            plain(&class.class),
            class.greatest_skip,
            class.packets_at_risk,
            class.greatest_blackout,
            class.greatest_delta
        );
    }
    writeln!(
        out,
        "  {} SAs not served, {} IKE SAs behind, {} outputs held for {} ms",
        r.unserved, r.behind, r.sync.held, r.sync.lag
    );
    if r.unsynchronised > 0 {
        writeln!(
            out,
            "  waiting to be synchronised: {} IKE SAs",
            r.unsynchronised
        );
    }
    for one in &r.named {
        writeln!(out, "    {}: {}", plain(&one.sa), plain(&one.reason));
    }
}

fn right(member: &MemberStatus) -> &'static str {
    match (member.able, member.bound) {
        (true, _) => ", may take over",
        (false, true) => ", has the right to take over but could not now",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_would_be_lost() {
        let report = ClusterReport {
            cluster: "hq\u{1b}".to_owned(),
            member: 1,
            role: Role::Active,
            epoch: Some("3.1.7".to_owned()),
            leader: Some(1),
            degraded: false,
            standbys: 1,
            exact: true,
            takeovers: 2,
            classes: vec![ClassReport {
                class: "esn".to_owned(),
                sas: 200,
                greatest_skip: 65_536,
                greatest_blackout: 40,
                greatest_delta: 64,
                packets_at_risk: 900,
                least_remaining: Some(30_000),
            }],
            unserved: 1,
            named: vec![UnservedReport {
                sa: "1.7.3".to_owned(),
                reason: "its record is not acknowledged yet".to_owned(),
            }],
            behind: 1,
            unsynchronised: 7,
            sync: SyncStatus::default(),
            ailments: vec!["worker 1 is stuck".to_owned()],
            warnings: vec!["the ports of member 2".to_owned()],
            drill: None,
            members: Vec::new(),
        };
        let text = cluster(&report);
        for part in [
            "cluster hq\\u{1b}, member 1: active, epoch 3.1.7, 2 takeovers",
            "1 could take over, Message IDs exact",
            "200 esn SAs: skip at most 65536, 900 inbound packets at risk (40 of one SA), replay counter delta at most 64, 30000",
            "1.7.3: its record is not acknowledged yet",
            "waiting to be synchronised: 7 IKE SAs",
            "NOT HEALTHY: worker 1 is stuck",
            "WARNING: the ports of member 2",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let none = ClusterReport {
            standbys: 0,
            ..report
        };
        assert!(cluster(&none).contains("NOBODY could take over"));
    }
}
