//! `hitless metrics`: the text is what the format says, and the figures are true.

use std::collections::BTreeMap;

use hitless::api;
use hitless_dataplane::verdict::DropReason;

use crate::world::World;

/// Every sample by its name with labels; fails where the text breaks a rule of the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family = (String::new(), String::new());
    let mut helped = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and words");
            assert!(!help.trim().is_empty() && help.ends_with('.'), "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert_eq!(helped, name, "HELP comes first, once for each family");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            family = (name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            assert_eq!(name, family.0, "samples of a family stand together");
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.starts_with("hitless_") && name.chars().all(word));
            let labels = series.strip_prefix(name).expect("it begins so");
            assert!(labels.is_empty() || labels.starts_with('{') && labels.ends_with("\"}"));
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "twice: {series}"
            );
        }
    }
    samples
}

fn metrics(world: &mut World, who: u8) -> BTreeMap<String, f64> {
    let now = world.now;
    parse(&api::metrics(&world.gateway(who).metrics(now)))
}

#[test]
fn metrics_tell_the_role_the_risk_the_handshakes_and_every_drop_reason() {
    let mut world = World::with_traffic(60);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    let now = metrics(&mut world, active);
    assert_eq!(now["hitless_role{role=\"active\"}"], 1.0);
    assert_eq!(now["hitless_role{role=\"standby\"}"], 0.0);
    assert_eq!(now["hitless_leader"], f64::from(active));
    assert_eq!(now["hitless_standbys"], 1.0);
    assert_eq!(now["hitless_risk_child_sas{class=\"esn\"}"], 1.0);
    assert!(now["hitless_risk_skip_max{class=\"esn\"}"] > 0.0);
    assert!(now["hitless_lease_remaining_min{class=\"esn\"}"] > 0.0);
    assert_eq!(now["hitless_lease_stalls_total"], 0.0);
    assert!(now["hitless_esp_packets_total{direction=\"out\"}"] > 100.0);
    let established = now["hitless_ike_events_total{event=\"child_established\"}"];
    assert!(established >= 1.0, "{established}");
    assert_eq!(now["hitless_healthy"], 1.0);
    let bound = format!("hitless_member_bound{{member=\"{standby}\"}}");
    assert_eq!(now[&bound], 1.0);
    for reason in DropReason::ALL {
        let (name, xfrm) = (reason.name(), reason.xfrm_name());
        let series = format!(
            "hitless_dropped_packets_total{{where=\"workers\",reason=\"{name}\",xfrm=\"{xfrm}\"}}"
        );
        assert!(now.contains_key(&series), "{series}");
    }
    let copy = metrics(&mut world, standby);
    assert_eq!(copy["hitless_role{role=\"standby\"}"], 1.0);
    assert_eq!(copy["hitless_drill_child_sas{result=\"passed\"}"], 1.0);
    assert_eq!(copy["hitless_takeovers_total"], 0.0);
    world.kill(active);
    world.until("a takeover", |world| world.leader() == Some(standby));
    let after = metrics(&mut world, standby);
    assert_eq!(after["hitless_takeovers_total"], 1.0);
    assert_eq!(after["hitless_standbys"], 0.0);
    assert_eq!(after["hitless_epoch"], copy["hitless_epoch"] + 1.0);
}
