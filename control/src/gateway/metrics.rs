//! The answer to `hitless metrics`: what `status` and `cluster status` say, as figures.

use hitless_dataplane::counters::{EspTraffic, Turns};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::Instant;

use super::Gateway;
use crate::api::{
    ClassReport, ClusterReport, GatewayStatus, MemberStatus, MetricKind, MetricsReport, Role,
};

impl Gateway {
    /// Every figure.
    pub fn metrics(&mut self, now: Instant) -> MetricsReport {
        let status = self.status(now);
        let cluster = self.cluster_of(now, status.clone());
        let mut report = MetricsReport::default();
        member(&mut report, &status, &cluster);
        sync(&mut report, &status);
        risk(&mut report, &cluster);
        drill(&mut report, &cluster);
        others(&mut report, &cluster);
        self.handshakes(&mut report, &status);
        self.packets(&mut report);
        self.late_packets(&mut report);
        report.gauge(
            "hitless_longest_turn_seconds",
            "The longest time that the control thread was away from its sockets since it started: \
             packets of IKE waited for so long.",
            self.health.longest_turn.as_secs_f64(),
        );
        report.gauge(
            "hitless_longest_heartbeat_pause_seconds",
            "The longest time that heartbeats waited for one piece of the control thread's work since \
             it started.",
            self.beats.longest_pause.as_secs_f64(),
        );
        report.counter(
            "hitless_heartbeats_amid_work_total",
            "Heartbeats that left in the middle of a turn, because it took long.",
            self.beats.sent as f64,
        );
        self.drops_by_reason(&mut report);
        ports(&mut report, &status);
        report
    }

    fn handshakes(&self, report: &mut MetricsReport, status: &GatewayStatus) {
        let retrieval = &self.retrieval.counts;
        report
            .family(
                MetricKind::Counter,
                "hitless_sa_retr_total",
                "SA_Retr by SPI: asked for, answered for another member, adopted, overtaken, refused.",
            )
            .sample(&[("event", "asked")], retrieval.asked as f64)
            .sample(&[("event", "answered")], retrieval.answered as f64)
            .sample(&[("event", "adopted")], retrieval.adopted as f64)
            .sample(&[("event", "overtaken")], retrieval.overtaken as f64)
            .sample(&[("event", "refused")], retrieval.refused as f64);
        report
            .gauge(
                "hitless_ike_sas",
                "IKE SAs, copies included.",
                status.ike_sas as f64,
            )
            .gauge(
                "hitless_child_sas",
                "Child SAs, copies included.",
                status.child_sas as f64,
            )
            .family(
                MetricKind::Counter,
                "hitless_ike_events_total",
                "What IKE with peers came to: SAs established, rekeyed, deleted; synchronisations \
                 (RFC 6311); failures.",
            );
        for (event, count) in self.counts.handshakes() {
            report.sample(&[("event", event)], count as f64);
        }
    }

    fn packets(&self, report: &mut MetricsReport) {
        let workers = || self.dataplane.counters();
        let esp: EspTraffic = workers().map(|worker| worker.esp()).sum();
        let turns: Turns = workers().map(|worker| worker.turns()).sum();
        let punted: u64 = workers().map(|worker| worker.punted()).sum();
        report
            .family(
                MetricKind::Counter,
                "hitless_esp_packets_total",
                "Packets through ESP.",
            )
            .sample(&[("direction", "in")], esp.packets_in as f64)
            .sample(&[("direction", "out")], esp.packets_out as f64)
            .family(
                MetricKind::Counter,
                "hitless_esp_bytes_total",
                "Octets of the inner packets of ESP.",
            )
            .sample(&[("direction", "in")], esp.bytes_in as f64)
            .sample(&[("direction", "out")], esp.bytes_out as f64)
            .counter(
                "hitless_lease_stalls_total",
                "How often a worker wanted more outbound numbers than were granted.",
                esp.lease_stalls as f64,
            )
            .counter(
                "hitless_high_water_parked_total",
                "Inbound packets that waited for the high water to rise.",
                esp.parked as f64,
            )
            .counter(
                "hitless_worker_handovers_total",
                "Packets that one worker gave another one, which has their SA.",
                esp.handed_over as f64,
            )
            .counter(
                "hitless_punted_packets_total",
                "Packets that the workers gave the control thread.",
                punted as f64,
            )
            .family(
                MetricKind::Counter,
                "hitless_worker_turns_total",
                "Turns of the workers' loops, with and without work.",
            )
            .sample(&[("work", "yes")], turns.busy as f64)
            .sample(
                &[("work", "no")],
                turns.turns.saturating_sub(turns.busy) as f64,
            );
    }

    fn late_packets(&self, report: &mut MetricsReport) {
        let late = &self.late.counts;
        report
            .family(
                MetricKind::Counter,
                "hitless_late_packets_total",
                "Packets that came to the old active after a switchover: forwarded by it, taken by \
                 the new one.",
            )
            .sample(&[("end", "forwarded")], late.forwarded as f64)
            .sample(&[("end", "taken")], late.taken as f64)
            .counter(
                "hitless_early_packets_total",
                "Packets that came after a takeover, before their SA was installed, and waited.",
                late.early as f64,
            );
    }

    fn drops_by_reason(&self, report: &mut MetricsReport) {
        report.family(
            MetricKind::Counter,
            "hitless_dropped_packets_total",
            "Packets dropped, by reason; xfrm is the kernel's name in /proc/net/xfrm_stat.",
        );
        for reason in DropReason::ALL {
            let workers = self.dataplane.counters();
            let packets: u64 = workers.map(|counters| counters.dropped(*reason)).sum();
            let labels = [
                ("where", "workers"),
                ("reason", reason.name()),
                ("xfrm", reason.xfrm_name()),
            ];
            report.sample(&labels, packets as f64);
        }
        for (reason, packets) in self.control_drops() {
            let labels = [("where", "control"), ("reason", reason.as_str())];
            report.sample(&labels, packets as f64);
        }
    }
}

fn member(report: &mut MetricsReport, status: &GatewayStatus, cluster: &ClusterReport) {
    let member = status.member.to_string();
    let labels = [
        ("version", status.version.as_str()),
        ("cluster", &status.cluster),
        ("member", &member),
        ("aead", &status.aead),
    ];
    report
        .family(
            MetricKind::Gauge,
            "hitless_info",
            "What runs: always 1, with its names.",
        )
        .sample(&labels, 1.0)
        .family(
            MetricKind::Gauge,
            "hitless_role",
            "1 for the role that this member has.",
        );
    for role in Role::ALL {
        let is = f64::from(status.role == role);
        report.sample(&[("role", role.name())], is);
    }
    let epoch = status
        .epoch
        .as_ref()
        .and_then(|epoch| epoch.split('.').next());
    report
        .gauge(
            "hitless_epoch",
            "Counter of the epoch that is led or followed; 0 for none.",
            epoch
                .and_then(|counter| counter.parse().ok())
                .unwrap_or(0.0),
        )
        .gauge(
            "hitless_leader",
            "Id of the active member as this one knows it; 0 for none.",
            f64::from(status.leader.unwrap_or(0)),
        )
        .gauge(
            "hitless_uptime_seconds",
            "Time since the daemon started.",
            status.uptime as f64,
        )
        .gauge(
            "hitless_degraded",
            "1 while the active waits for a silent standby.",
            f64::from(status.degraded),
        )
        .gauge(
            "hitless_healthy",
            "1 if this member could do all the work of an active.",
            f64::from(cluster.ailments.is_empty()),
        )
        .gauge(
            "hitless_cluster_warnings",
            "Members whose ports are on other networks, and the like: see `hitless cluster status`.",
            cluster.warnings.len() as f64,
        )
        .counter(
            "hitless_takeovers_total",
            "Takeovers by this member since it started.",
            cluster.takeovers as f64,
        );
}

fn sync(report: &mut MetricsReport, status: &GatewayStatus) {
    report
        .gauge(
            "hitless_sync_held_outputs",
            "IKE outputs that wait for a standby's acknowledgement (output commit).",
            status.sync.held as f64,
        )
        .gauge(
            "hitless_sync_lag_seconds",
            "How long the oldest of those has waited.",
            status.sync.lag as f64 / 1000.0,
        )
        .gauge(
            "hitless_sync_objects",
            "IKE SAs that are replicated.",
            status.sync.objects as f64,
        );
}

/// What would be lost if the active died now.
fn risk(report: &mut MetricsReport, cluster: &ClusterReport) {
    report
        .gauge(
            "hitless_standbys",
            "Members that could take over now.",
            cluster.standbys as f64,
        )
        .gauge(
            "hitless_exact",
            "1 if Message IDs would be exact after a takeover now.",
            f64::from(cluster.exact),
        )
        .gauge(
            "hitless_unserved_child_sas",
            "Child SAs that a standby could not carry on.",
            cluster.unserved as f64,
        )
        .gauge(
            "hitless_behind_ike_sas",
            "IKE SAs whose newest state some standby has not acknowledged.",
            cluster.behind as f64,
        )
        .gauge(
            "hitless_unsynchronised_ike_sas",
            "Inherited IKE SAs that have not asked their peers yet where they stand.",
            cluster.unsynchronised as f64,
        );
    let mut by_class = |name: &str, help: &str, value: fn(&ClassReport) -> Option<u64>| {
        report.family(MetricKind::Gauge, name, help);
        for class in &cluster.classes {
            if let Some(value) = value(class) {
                report.sample(&[("class", &class.class)], value as f64);
            }
        }
    };
    by_class(
        "hitless_risk_child_sas",
        "Child SAs that a takeover now would carry on.",
        |class| Some(class.sas),
    );
    by_class(
        "hitless_risk_skip_max",
        "Outbound numbers that a takeover now would leave out, of the SA with the most.",
        |class| Some(class.greatest_skip),
    );
    by_class(
        "hitless_risk_blackout_max",
        "Inbound packets that a strict takeover now may refuse, of the SA with the most.",
        |class| Some(class.greatest_blackout),
    );
    by_class(
        "hitless_risk_packets",
        "The same of all SAs together.",
        |class| Some(class.packets_at_risk),
    );
    by_class(
        "hitless_risk_replay_delta_max",
        "What RFC 6311 would ask a peer to leave out after a takeover now, of the SA with the most.",
        |class| Some(class.greatest_delta),
    );
    by_class(
        "hitless_lease_remaining_min",
        "Outbound numbers that the active may use without another acknowledgement, of the SA with \
         the fewest.",
        |class| class.least_remaining,
    );
}

fn drill(report: &mut MetricsReport, cluster: &ClusterReport) {
    if let Some(drill) = &cluster.drill {
        report
            .family(
                MetricKind::Gauge,
                "hitless_drill_child_sas",
                "A standby's copies by what the drill (an encryption and a decryption) found.",
            )
            .sample(&[("result", "passed")], drill.passed as f64)
            .sample(&[("result", "waiting")], drill.waiting as f64)
            .sample(&[("result", "failed")], drill.failed as f64);
    }
}

fn others(report: &mut MetricsReport, cluster: &ClusterReport) {
    let mut by_member = |name: &str, help: &str, value: fn(&MemberStatus) -> Option<f64>| {
        report.family(MetricKind::Gauge, name, help);
        for member in &cluster.members {
            let id = member.id.to_string();
            if let Some(value) = value(member) {
                report.sample(&[("member", &id)], value);
            }
        }
    };
    by_member(
        "hitless_member_bound",
        "1 if that member has the right to take over from this one.",
        |member| Some(f64::from(member.bound)),
    );
    by_member(
        "hitless_member_healthy",
        "1 if that member says that it could do the work of an active, and is heard.",
        |member| Some(f64::from(member.healthy)),
    );
    by_member(
        "hitless_member_silent_seconds",
        "Time since that member was heard.",
        |member| member.silent_for.map(|time| time as f64 / 1000.0),
    );
    by_member(
        "hitless_member_backlog_records",
        "Records on their way to that member.",
        |member| Some(member.backlog as f64),
    );
}

fn ports(report: &mut MetricsReport, status: &GatewayStatus) {
    report.family(
        MetricKind::Counter,
        "hitless_port_packets_total",
        "Frames that came and went by each port.",
    );
    for port in &status.ports {
        let name = ("port", port.name.as_str());
        report
            .sample(&[name, ("direction", "in")], port.rx_packets as f64)
            .sample(&[name, ("direction", "out")], port.tx_packets as f64);
    }
    report.family(
        MetricKind::Counter,
        "hitless_port_bytes_total",
        "Octets of those frames.",
    );
    for port in &status.ports {
        let name = ("port", port.name.as_str());
        report
            .sample(&[name, ("direction", "in")], port.rx_bytes as f64)
            .sample(&[name, ("direction", "out")], port.tx_bytes as f64);
    }
}
