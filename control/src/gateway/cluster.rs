//! The answer to `hitless cluster status`: what would be lost if the active died now.

use hitless_sa::Instant;
use hitless_sync::ClassRisk;

use super::Gateway;
use crate::api::{ClassReport, ClusterReport, DrillReport, GatewayStatus, Role, UnservedReport};

impl Gateway {
    /// What a takeover now would cost, as far as this member knows.
    pub fn cluster(&mut self, now: Instant) -> ClusterReport {
        let status = self.status(now);
        self.cluster_of(now, status)
    }

    /// The same, beside a status that has just been made.
    pub(super) fn cluster_of(&mut self, now: Instant, status: GatewayStatus) -> ClusterReport {
        let risk = self.reckon();
        let drill = self.drilled.status();
        let leading = status.role == Role::Active;
        let named = risk.named.iter().map(|(sa, why)| {
            let own = drill.failed.iter().find(|(failed, _)| failed == sa);
            UnservedReport {
                sa: sa.to_string(),
                reason: match own {
                    Some((_, (_, reason))) => format!("{}: {reason}", why.reason()),
                    None => why.reason().to_owned(),
                },
            }
        });
        let named = named.collect();
        let classes = [("esn", &risk.extended), ("32-bit", &risk.short)];
        ClusterReport {
            cluster: status.cluster,
            member: status.member,
            role: status.role,
            epoch: status.epoch,
            leader: status.leader,
            degraded: status.degraded,
            standbys: risk.standbys as u64,
            exact: risk.exact,
            takeovers: self.takeovers,
            classes: classes
                .into_iter()
                .filter(|(_, risk)| risk.sas > 0)
                .map(|(name, risk)| class(name, risk))
                .collect(),
            unserved: risk.unserved as u64,
            named,
            behind: risk.behind as u64,
            unsynchronised: self.engine.owing() as u64,
            sync: status.sync,
            ailments: self.ailments_of_cluster(now),
            warnings: self.warnings(now),
            drill: (!leading).then_some(DrillReport {
                passed: drill.passed,
                waiting: drill.waiting,
                failed: drill.failed.len() as u64,
            }),
            members: status.members,
        }
    }

    /// What ails this member, and what keeps it and the others from being one cluster.
    fn ailments_of_cluster(&self, now: Instant) -> Vec<String> {
        let mut ailments = self.ailments();
        let node = self.node.status(now);
        if let Some(time) = node.unwritten_for {
            ailments.push(format!(
                "the disk has written no epoch for {} ms: this member could take over on new keys only",
                time.as_millis()
            ));
        }
        let differing = node.members.iter().filter(|member| member.differs);
        ailments.extend(differing.map(|member| {
            format!(
                "the [cluster] section of member {} differs: make them alike on all members",
                member.id.0
            )
        }));
        ailments
    }

    /// What would be lost with a takeover and is no SA's.
    fn warnings(&self, now: Instant) -> Vec<String> {
        let members = self.node.status(now).members;
        let elsewhere = members.iter().filter(|member| member.elsewhere);
        let warnings = elsewhere.map(|member| {
            format!(
                "the ports of member {} are on other networks than ours: what only one member reaches is lost with a takeover; make the addresses of [ports] alike",
                member.id.0
            )
        });
        let narrow = members
            .iter()
            .filter_map(|member| member.narrow.map(|octets| (member.id.0, octets)));
        let narrow = narrow.map(|(member, octets)| {
            format!(
                "messages of {octets} octets do not reach member {member}, smaller ones do: let IP fragments pass on the sync link, or give it the MTU that its path has"
            )
        });
        warnings.chain(narrow).collect()
    }

    /// What a planned switchover would do now, or why it is refused.
    pub fn switchover_plan(&mut self, now: Instant) -> Result<String, String> {
        let successor = self.can_switch_over(now)?;
        let risk = self.reckon();
        let mut receiving = 0;
        self.look_at_all(|carried| receiving += usize::from(carried.receives(now)));
        let sas = risk.extended.sas + risk.short.sas;
        let mut plan = format!(
            "member {successor} would take over: {sas} Child SAs with exact counters, {receiving} of them with their windows (replay counter delta 0)"
        );
        if risk.unserved > 0 {
            plan.push_str(&format!("; {} would be replaced", risk.unserved));
        }
        if risk.behind > 0 {
            plan.push_str(&format!("; {} changes are on their way", risk.behind));
        }
        Ok(plan)
    }
}

fn class(name: &str, risk: &ClassRisk) -> ClassReport {
    ClassReport {
        class: name.to_owned(),
        sas: risk.sas as u64,
        greatest_skip: risk.greatest_skip,
        greatest_blackout: risk.greatest_blackout,
        greatest_delta: risk.greatest_delta,
        packets_at_risk: risk.packets_at_risk,
        least_remaining: risk.least_remaining,
    }
}
