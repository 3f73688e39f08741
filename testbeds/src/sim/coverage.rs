//! Every feature has a failover test: it is drawn by seeds, and a member dies after each output of
//! its exchanges. Structures are taken apart in full, so that one that is new is noticed: whoever adds
//! something to [`Extras`], or to what a connection can be told, has to say here who tests it.

use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::ike::auth::AuthSettings;
use hitless::ike::sessions::{Lifetimes, SessionSettings};
use hitless::ike::settings::{Child, Connection, Roads};
use hitless::lab::{Extras, Family, Topology};

use super::pki::Login;
use super::plan::{Fault, Plan};
use super::points;

/// Where a member dies in the midst of what a feature does.
enum Dies {
    /// There is one such point or more.
    At(&'static [&'static str]),
    /// There is none of its own, and why.
    Nowhere(&'static str),
}

use Dies::{At, Nowhere};

/// A feature of a tunnel, whether a plan has it, and where it is crashed.
type Row = (&'static str, bool, Dies);

/// A field for each, and none is left out.
macro_rules! apart {
    ($value:expr, $type:ident { $($field:ident => $row:expr),* $(,)? }) => {{
        let $type { $($field),* } = $value;
        vec![$($row),*]
    }};
}

const REKEYED: &str = "what follows is the rekeying of any tunnel";
const AS_PLAIN: &str = "the exchanges are those of the plain tunnel";

fn of_extras(extras: Extras) -> Vec<Row> {
    apart!(extras, Extras {
        more_children => ("children", more_children > 0,
            At(&["children", "children rekeyed", "children collide", "IKE SAs collide", "children close"])),
        more_connections => ("ten tunnels", more_connections == 9,
            At(&["ten tunnels", "ten tunnels move"])),
        transport => ("transport mode", transport, Nowhere(AS_PLAIN)),
        ppk => ("PPK", ppk, At(&["PPK"])),
        virtual_ip => ("virtual IP", virtual_ip, At(&["virtual IP", "EAP"])),
        encap => ("ESP in UDP", encap, Nowhere(AS_PLAIN)),
        small_fragments => ("fragments", small_fragments, At(&["fragments"])),
        crash_detection => ("crash detection", crash_detection, At(&["crash detection"])),
        resumption => ("resumption", resumption, At(&["resumption"])),
        ml_kem => ("ML-KEM", ml_kem, At(&["ML-KEM", "ML-KEM rekeyed"])),
        packets => ("lifetimes by packets", packets.is_some(), At(&["packets"])),
        reauthentication => ("reauthentication", reauthentication, At(&["reauthentication"])),
        mobike => ("MOBIKE, and updates by the responder", mobike, At(&["MOBIKE"])),
        per_cpu_sas => ("SAs for each worker", per_cpu_sas, At(&["SAs for each worker"])),
        lazy => ("lazy", lazy, At(&["lazy"])),
        rekeys_inbound => ("new keys after a takeover", rekeys_inbound,
            At(&["new keys after a takeover"])),
        nat => ("NAT", nat, At(&["NAT"])),
        witness => ("witness", witness, Nowhere("who only votes has no exchange with a peer")),
        redirect => ("redirect", redirect.is_some(),
            At(&["redirect in IKE_SA_INIT", "redirect in IKE_AUTH", "redirect later"])),
        childless => ("childless", childless, At(&["childless", "children open"])),
        unique => ("unique", unique.is_some(),
            At(&["comes in anew", "replaces itself", "keeps its place", "is not unique"])),
        octets => ("lifetimes by octets", octets.is_some(), At(&["octets"])),
        narrow => ("narrowing", narrow, At(&["narrowing", "narrowed rekeyed"])),
        moves => ("peers that move", moves, At(&["peer moves", "peer moves to and fro"])),
        cookies => ("cookies", cookies, At(&["cookies"])),
        other_group => ("INVALID_KE_PAYLOAD", other_group,
            At(&["other group", "other group rekeyed"])),
        dns => ("name servers", dns, At(&["name servers"])),
        begins => ("others begin", begins.is_some(), At(&["the cluster begins", "both begin",
            "the cluster begins anew", "both begin anew", "the cluster's IKE SA rekeyed",
            "the cluster's reauthentication", "the cluster's ML-KEM", "the cluster's children"])),
    })
}

/// What a plan says of its ends and of the cluster, elsewhere than in its extras.
fn of_ends(plan: &Plan) -> Vec<Row> {
    vec![
        (
            "certificates",
            plan.login == Login::Certificates,
            At(&["certificates"]),
        ),
        ("RSA", plan.login == Login::Rsa, At(&["RSA"])),
        ("EAP", plan.login == Login::Password, At(&["EAP"])),
        (
            "IPv6 outside",
            plan.families[0] == Family::V6,
            Nowhere(AS_PLAIN),
        ),
        (
            "IPv6 inside",
            plan.families[1] == Family::V6,
            Nowhere(AS_PLAIN),
        ),
        (
            "windows",
            plan.window_size > 1,
            Nowhere("among those of the plain tunnel"),
        ),
        (
            "takeover",
            plan.takeover != "auto",
            Nowhere("each of the plain tunnel's is there for each takeover"),
        ),
        (
            "RFC 6311",
            plan.withheld == Default::default(),
            Nowhere("among those of the plain tunnel: takeover = message-id-sync"),
        ),
    ]
}

/// What it says of ciphers, and what happens.
fn of_courses(plan: &Plan) -> Vec<Row> {
    let struck = |what: Fault| plan.faults.iter().any(|(_, fault)| *fault == what);
    let cipher = |word| plan.esp_proposal.starts_with(word);
    vec![
        (
            "ESN",
            plan.esp_proposal.ends_with("-esn"),
            Nowhere(AS_PLAIN),
        ),
        (
            "no ESN",
            !plan.esp_proposal.ends_with("-esn"),
            Nowhere(AS_PLAIN),
        ),
        ("CBC in ESP", cipher("aes128-sha256"), Nowhere(AS_PLAIN)),
        ("ChaCha20", cipher("chacha20poly1305"), Nowhere(AS_PLAIN)),
        (
            "implicit IVs",
            plan.esp_proposal.contains("iiv"),
            Nowhere(AS_PLAIN),
        ),
        (
            "NAT forgets",
            struck(Fault::NatForgets),
            Nowhere("no exchange"),
        ),
        (
            "redirected later",
            struck(Fault::ClusterRedirects),
            At(&["redirect later"]),
        ),
        (
            "children close",
            struck(Fault::PeerClosesChildren),
            At(&["children close"]),
        ),
        (
            "comes in anew",
            plan.peers == 1 && struck(Fault::Crash(0)),
            At(&["comes in anew"]),
        ),
        (
            "MOBIKE through a NAT",
            plan.extras.nat && plan.extras.mobike,
            Nowhere("among those of either"),
        ),
        (
            "two at once",
            plan.extras.more_children > 0 && plan.extras.packets.is_some(),
            Nowhere(REKEYED),
        ),
    ]
}

fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows = of_extras(plan.extras);
    rows.extend(of_ends(plan));
    rows.extend(of_courses(plan));
    rows
}

#[test]
fn seeds_have_each_feature_and_some_have_none() {
    let plans: Vec<Plan> = (1..=600_u64)
        .map(|seed| Plan::draw(&mut SeededEntropy::new(!seed)))
        .collect();
    let plain = |plan: &&Plan| plan.extras == Extras::default();
    assert!(plans.iter().filter(plain).count() > 80);
    let mut missing: Vec<&str> = rows(&plans[0]).iter().map(|(name, ..)| *name).collect();
    for plan in &plans {
        let has = rows(plan).into_iter().filter(|(_, has, _)| *has);
        let has: Vec<&str> = has.map(|(name, ..)| name).collect();
        missing.retain(|name| !has.contains(name));
    }
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn each_feature_is_crashed_in_the_midst_and_each_point_is_of_a_feature() {
    let plain = Plan::with(2, vec![(Duration::ZERO, Fault::Healed)]);
    let names = points::names();
    let mut unclaimed = names.clone();
    for (feature, _, dies) in rows(&plain) {
        match dies {
            At(points) => {
                for point in points {
                    assert!(names.contains(point), "{feature}: no point {point}");
                }
                unclaimed.retain(|name| !points.contains(name));
            }
            Nowhere(why) => assert!(!why.is_empty(), "{feature}"),
        }
    }
    assert_eq!(unclaimed, Vec::<&str>::new());
}

/// Who tests what a setting does over a failover.
enum Tests {
    /// The feature of that name.
    By(&'static str),
    /// Every plan.
    All,
    /// None, and why.
    Nobody(&'static str),
}

use Tests::{All, By, Nobody};

/// The same of settings: each with its name.
macro_rules! settings {
    ($value:expr, $type:ident { $($field:ident => $tests:expr),* $(,)? }) => {{
        let $type { $($field: _),* } = $value;
        vec![$((stringify!($field), $tests)),*]
    }};
}

const A_NUMBER: &str = "a time or size of the configuration: every member has the same";

fn of_connection(connection: &Connection) -> Vec<(&'static str, Tests)> {
    let mut all = settings!(connection, Connection {
        name => By("ten tunnels"),
        local_addrs => By("redirect"),
        remote_addrs => By("MOBIKE, and updates by the responder"),
        remote_port => Nobody("the port of the first message; no state"),
        proposals => By("INVALID_KE_PAYLOAD"),
        fragmentation => By("fragments"),
        fragment_size => By("fragments"),
        local_id => All,
        remote_id => By("ten tunnels"),
        encap => By("ESP in UDP"),
        dpd_delay => All,
        rekey_time => Nobody(A_NUMBER),
        takeover => By("takeover"),
        inbound => By("new keys after a takeover"),
        roads => All,
        session => All,
        auth => All,
        children => By("children"),
    });
    all.extend(settings!(&connection.roads, Roads {
        mobike => By("MOBIKE, and updates by the responder"),
        vips => By("virtual IP"),
        pools => By("virtual IP"),
        childless => By("childless"),
        redirect_to => By("redirect"),
        ignores_redirects => Nobody("a refusal leaves nothing behind"),
        window_size => By("windows"),
        unique => By("unique"),
        sync_after_takeover => By("lazy"),
        withheld => By("RFC 6311"),
    }));
    all.extend(settings!(&connection.session, SessionSettings {
        tickets => By("resumption"),
        crash_detection => By("crash detection"),
        over_time => Nobody(A_NUMBER),
        rand_time => Nobody(A_NUMBER),
    }));
    all.extend(settings!(&connection.auth, AuthSettings {
        local => By("certificates"),
        remote => By("EAP"),
        ppk => By("PPK"),
        reauth_time => By("reauthentication"),
    }));
    all
}

fn of_child(child: &Child) -> Vec<(&'static str, Tests)> {
    let mut all = settings!(child, Child {
        name => By("children"),
        mode => By("transport mode"),
        esp_proposals => By("INVALID_KE_PAYLOAD"),
        local_ts => By("narrowing"),
        remote_ts => By("narrowing"),
        dynamic => By("virtual IP"),
        rekey_time => Nobody(A_NUMBER),
        lifetimes => By("lifetimes by octets"),
        replay_window => All,
        per_cpu_sas => By("SAs for each worker"),
        options => Nobody("how packets are treated: every member has the same configuration"),
        start => All,
    });
    all.extend(settings!(&child.lifetimes, Lifetimes {
        life_time => Nobody(A_NUMBER),
        rand_time => Nobody(A_NUMBER),
        bytes => By("lifetimes by octets"),
        packets => By("lifetimes by packets"),
    }));
    all
}

#[test]
fn each_setting_of_a_connection_is_of_a_feature_or_says_why_not() {
    let config = Topology::new(2, "secret".to_owned()).member(1).unwrap();
    let connection = &config.connections[0];
    let plain = Plan::with(2, vec![(Duration::ZERO, Fault::Healed)]);
    let features: Vec<&str> = rows(&plain).into_iter().map(|(name, ..)| name).collect();
    let mut settings = of_connection(connection);
    settings.extend(of_child(&connection.children[0]));
    for (setting, tests) in settings {
        match tests {
            By(feature) => assert!(features.contains(&feature), "{setting}: {feature}"),
            All => {}
            Nobody(why) => assert!(!why.is_empty(), "{setting}"),
        }
    }
}
