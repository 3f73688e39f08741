//! What an operator asks of a member with many SAs: lists come a slice a turn, and what is reckoned from
//! all of them leaves heartbeats room in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hitless::api::{Choice, LongReply, Reply, Show};
use hitless::gateway::{Gateway, Listing, Pacemaker, SLICE};
use hitless::ike::Input;
use hitless_sa::Instant;

use crate::share::before_a_crowd_of;
use crate::world::{PEER, World};

const TUNNELS: usize = 150;

/// A member with so many IKE SAs, each with a Child SA.
fn crowded(seed: u64) -> (World, u8) {
    let mut world = before_a_crowd_of(seed, TUNNELS, |client| {
        client.children[0].start = false;
    });
    let active = world.leader().unwrap();
    let child = world.config(PEER).connections[0].children[0].name.clone();
    world.ask(PEER, |gateway, now, entropy| {
        for n in 1..TUNNELS {
            let connection = format!("client-{n}");
            let child = Some(child.clone());
            gateway.ike(now, entropy, Input::Initiate { connection, child });
        }
    });
    world.until("all tunnels", |world| {
        let status = world.status(active);
        status.child_sas == TUNNELS as u64 && status.sync.held == 0
    });
    world.run(Duration::from_millis(300));
    (world, active)
}

/// The text of a list, told as the daemon does, and the slices that it took.
fn told(gateway: &mut Gateway, now: Instant, mut listing: Listing) -> (String, usize) {
    let mut reply = LongReply::new(&listing.empty());
    let (mut text, mut slices) = (Vec::new(), 0);
    while !listing.is_over() {
        let rows = gateway.list_on(now, &mut listing).unwrap();
        assert!(rows.len() <= SLICE, "{}", rows.len());
        slices += 1;
        rows.iter().for_each(|row| reply.entry(row, &mut text));
    }
    reply.end(&mut text);
    (String::from_utf8(text).unwrap(), slices)
}

#[test]
fn no_turn_lists_more_than_a_slice_and_the_text_is_that_of_the_whole() {
    let (mut world, active) = crowded(70);
    // As many policies as tunnels.
    let mut config = world.config(active);
    let mut child = config.connections[0].children[0].clone();
    child.name = "more".to_owned();
    let networks = (2..TUNNELS).map(|n| format!("10.9.{n}.0/24").parse().unwrap());
    child.remote_ts = networks.collect();
    config.connections[0].children.push(child);
    world.ask(active, |gateway, now, entropy| {
        gateway.reload(now, entropy, config).unwrap();
    });
    world.run(Duration::from_millis(100));
    let now = world.now;
    let gateway = world.gateway(active);
    let whole = |reply: &Reply| serde_json::to_string(reply).unwrap();
    let slices = TUNNELS.div_ceil(SLICE);

    let listing = gateway.list_ike_sas(None).unwrap();
    let sas = gateway.list_sas(now);
    assert_eq!(sas.len(), TUNNELS);
    let expected = (whole(&Reply::Sas { sas }), slices);
    assert_eq!(told(gateway, now, listing), expected);

    for (show, listing) in [
        (Show::Sas { which: None }, Listing::of_child_sas(None)),
        (Show::Policies {}, gateway.list_policies()),
    ] {
        let shown = gateway.show(now, &show).unwrap();
        let expected = (whole(&Reply::Shown { shown }), slices);
        assert_eq!(told(gateway, now, listing), expected);
    }
}

#[test]
fn a_list_goes_on_whatever_ends_between_two_slices() {
    let (mut world, active) = crowded(71);
    let now = world.now;
    let gateway = world.gateway(active);
    let mut listings = [
        gateway.list_ike_sas(None).unwrap(),
        Listing::of_child_sas(None),
    ];
    for listing in &mut listings {
        let rows = gateway.list_on(now, listing).unwrap();
        assert_eq!(rows.len(), SLICE);
    }
    let choice = Choice {
        ike: Some("tunnel".to_owned()),
        ..Choice::default()
    };
    world.ask(active, |gateway, now, entropy| {
        gateway.terminate(now, entropy, &choice).unwrap();
    });
    world.run(Duration::from_secs(2));
    // The peer has begun one again.
    assert!(world.list_sas(active).len() <= 1);
    let gateway = world.gateway(active);
    for mut listing in listings {
        let mut rows = 0;
        while !listing.is_over() {
            rows += gateway.list_on(now, &mut listing).unwrap().len();
        }
        assert!(rows <= 1, "{rows}");
    }
    let which = Some("nobody".to_owned());
    let refused = gateway.list_on(now, &mut Listing::of_child_sas(which));
    assert!(refused.is_err_and(|reason| reason.contains("nobody")));
    let refused = gateway.list_ike_sas(Some("nobody"));
    assert!(refused.is_err_and(|reason| reason.contains("nobody")));
}

/// How often the clock was looked at in the middle of work.
#[derive(Clone)]
struct Looks {
    now: Instant,
    count: Arc<AtomicUsize>,
}

impl Pacemaker for Looks {
    fn now(&mut self) -> Instant {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.now
    }

    fn send(&mut self, _: SocketAddr, _: &[u8]) {}
}

#[test]
fn no_answer_keeps_heartbeats_waiting_for_all_sas() {
    let (mut world, active) = crowded(72);
    let now = world.now;
    let looks = Looks {
        now,
        count: Arc::default(),
    };
    let config = world.config(active);
    let gateway = world.gateway(active);
    gateway.set_pacemaker(Box::new(looks.clone()));
    let mut waits = Vec::new();
    let mut beats = |what: &'static str, least: usize, work: &mut dyn FnMut(&mut Gateway)| {
        looks.count.store(0, Ordering::Relaxed);
        work(gateway);
        let count = looks.count.load(Ordering::Relaxed);
        waits.extend((count < least).then_some((what, count, least)));
    };
    // One figure of each SA is read, and what each of IKE SAs and Child SAs risks.
    let (all, risk) = (TUNNELS / SLICE, 2 * TUNNELS / SLICE);
    beats("status", all, &mut |gateway| drop(gateway.status(now)));
    beats("cluster status", all + risk, &mut |gateway| {
        drop(gateway.cluster(now));
    });
    beats("metrics", all + risk, &mut |gateway| {
        drop(gateway.metrics(now));
    });
    beats("plan", all + risk, &mut |gateway| {
        gateway.switchover_plan(now).unwrap();
    });
    let mut entropy = hitless::entropy::SeededEntropy::new(1);
    let nobody = Choice {
        ike: Some("nobody".to_owned()),
        ..Choice::default()
    };
    beats("terminate", TUNNELS, &mut |gateway| {
        assert!(gateway.terminate(now, &mut entropy, &nobody).is_err());
    });
    let mut entropy = hitless::entropy::SeededEntropy::new(1);
    // One before each IKE SA, and one before what it has to say.
    beats("reload", 2 * TUNNELS, &mut |gateway| {
        let config = config.clone();
        gateway.reload(now, &mut entropy, config).unwrap();
    });
    assert_eq!(waits, []);
}
