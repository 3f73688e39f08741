//! Whose IKE SAs and addresses they are: a name is a peer's among those alone that were proven alike.

use std::net::IpAddr;

use hitless::ike::Resume;
use hitless::ike::auth::{AuthSettings, Family, Revocation};
use hitless::ike::settings::{Connection, Dynamic, EngineSettings, Pool, Unique};
use hitless_sa::{IkeSpi, Incarnation};

use crate::pki::{Authority, NOON, Wish, auth, local, remote, trust};
use crate::world::{A, B, Host, SECOND, World, address, settings};

const ELSEWHERE: &str = "198.51.100.1";

/// A, with a virtual address.
fn client(auth: AuthSettings, unique: Unique) -> EngineSettings {
    let mut a = settings(A);
    let connection = &mut a.connections[0];
    connection.auth = auth;
    connection.roads.unique = unique;
    connection.roads.vips = vec!["0.0.0.0".parse().unwrap()];
    let child = &mut connection.children[0];
    child.dynamic.local = child.local_ts.clone();
    a
}

/// Somebody elsewhere, who says that it is A.
fn from_elsewhere(mut a: EngineSettings, wanted: IpAddr) -> EngineSettings {
    let connection = &mut a.connections[0];
    connection.local_addrs = vec![ELSEWHERE.parse().unwrap()];
    connection.roads.vips = vec![wanted];
    a.incarnation = Incarnation(2);
    a
}

/// B's connection for A where it is, and the one for anybody from anywhere.
fn gateway(strong: AuthSettings, weak: AuthSettings, unique: Unique) -> EngineSettings {
    let mut b = settings(B);
    b.pools = vec![Pool {
        name: "pool".to_owned(),
        first: "10.1.0.1".parse().unwrap(),
        last: "10.1.0.9".parse().unwrap(),
        dns: Vec::new(),
    }];
    let first = &mut b.connections[0];
    first.roads.unique = unique;
    first.roads.pools = vec!["pool".to_owned()];
    // Nobody is missed who does not answer.
    first.dpd_delay = std::time::Duration::ZERO;
    let child = &mut first.children[0];
    child.dynamic = Dynamic {
        local: Vec::new(),
        remote: child.remote_ts.clone(),
    };
    let second = Connection {
        name: "anybody".to_owned(),
        remote_addrs: vec![ELSEWHERE.parse().unwrap()],
        remote_id: "%any".parse().unwrap(),
        auth: weak,
        ..first.clone()
    };
    first.auth = strong;
    b.connections.push(second);
    b
}

/// The certificate peer is up; then another client comes, from elsewhere or in its place.
struct Scene {
    world: World,
    first: IkeSpi,
    vip: IpAddr,
}

impl Scene {
    fn of(a: EngineSettings, b: EngineSettings, fails_over: bool) -> Scene {
        let mut world = World::new(1, a, b);
        world.set_time_of_day(NOON);
        world.run(SECOND);
        world.assert_agreement(1);
        let first = world.ike(B);
        let status = &world.hosts[B].engine.status(world.now)[0];
        assert_eq!(status.name, "peer");
        let vip = status.remote_vips[0];
        if fails_over {
            world.fail_over(B, Resume::Exact);
            world.set_time_of_day(NOON);
            world.run(SECOND);
        }
        world.unreachable.push(address(A));
        Scene { world, first, vip }
    }

    fn comes(&mut self, a: EngineSettings) {
        self.world.hosts[A] = Host::new(a);
        self.world.set_time_of_day(NOON);
        self.world.lead(A, Resume::Exact);
        self.world.run(3 * SECOND);
    }

    /// The addresses that B gave by a connection, on IKE SAs that stay.
    fn given(&self, connection: &str) -> Vec<IpAddr> {
        let status = self.world.hosts[B].engine.status(self.world.now);
        let mut of = Vec::new();
        for ike in status.iter().filter(|ike| ike.name == connection) {
            if ike.state.name() == "ESTABLISHED" {
                of.extend(ike.remote_vips.clone());
            }
        }
        of
    }
}

/// Ways to prove A's name: to the first connection, and to the second, ours and B's.
struct Proofs {
    strong: [AuthSettings; 2],
    weak: [AuthSettings; 2],
}

/// A certificate, and the secret of a group or a certificate of an authority that is trusted less.
fn unlike() -> [Proofs; 3] {
    let [anchor, other] = ["anchor", "other"].map(Authority::anchor);
    let [a, b] = ["a.test", "b.test"].map(|name| anchor.issue(&Wish::named(name)));
    let strong = || [auth(&a, &[], &anchor), auth(&b, &[], &anchor)];
    let theirs = other.issue(&Wish::named("a.test"));
    let ends = |believed: &[&Authority], revocation| AuthSettings {
        local: local(&b, &[], Family::Any),
        remote: remote(trust(believed, revocation, Vec::new())),
        ..AuthSettings::default()
    };
    [
        Proofs {
            strong: strong(),
            weak: [AuthSettings::default(), AuthSettings::default()],
        },
        Proofs {
            strong: strong(),
            weak: [
                auth(&theirs, &[], &anchor),
                ends(&[&other, &anchor], Revocation::Relaxed),
            ],
        },
        Proofs {
            strong: strong(),
            weak: [auth(&a, &[], &anchor), ends(&[&anchor], Revocation::IfUri)],
        },
    ]
}

/// A's `unique`: INITIAL_CONTACT where B's does nothing without.
fn says(unique: Unique) -> Unique {
    match unique {
        Unique::No => Unique::No,
        _ => Unique::Never,
    }
}

#[test]
fn who_proves_a_name_by_less_ends_no_ike_sa_of_it_and_gets_another_address_rfc7296_2_4() {
    for (unique, fails_over) in [
        (Unique::No, false),
        (Unique::No, true),
        (Unique::Replace, false),
        (Unique::Keep, true),
    ] {
        for (number, proofs) in unlike().into_iter().enumerate() {
            let case = format!("{unique:?} {number}");
            let ([ours, strong], [weaker, weak]) = (proofs.strong, proofs.weak);
            let b = gateway(strong, weak, unique);
            let mut scene = Scene::of(client(ours, Unique::No), b, fails_over);
            for wanted in [scene.vip, "0.0.0.0".parse().unwrap()] {
                let other = client(weaker.clone(), says(unique));
                scene.comes(from_elsewhere(other, wanted));
                assert!(scene.world.ike_sas(B).contains(&scene.first), "{case}");
                assert_eq!(scene.given("peer"), [scene.vip], "{case}");
                let given = scene.given("anybody");
                assert_eq!(given.len(), 1, "{case}");
                assert_ne!(given[0], scene.vip, "{case}");
            }
        }
    }
}

/// It counts neither among the IKE SAs that an identity may have.
#[test]
fn who_proves_a_name_by_less_takes_no_room_of_it() {
    for limit in [1, 2] {
        let [Proofs { strong, weak, .. }, ..] = unlike();
        let ([ours, strong], [weaker, weak]) = (strong, weak);
        let mut b = gateway(strong, weak, Unique::Never);
        b.limits.ikesa_limit_id = limit;
        let mut scene = Scene::of(client(ours.clone(), Unique::Never), b, false);
        let other = client(weaker, Unique::Never);
        for _ in 0..3 {
            scene.comes(from_elsewhere(other.clone(), "0.0.0.0".parse().unwrap()));
        }
        assert_eq!(scene.given("anybody").len(), limit);
        scene.world.unreachable.clear();
        let mut again = client(ours, Unique::Never);
        again.incarnation = Incarnation(3);
        scene.comes(again);
        assert_eq!(scene.given("peer").len(), limit.min(2));
    }
}

#[test]
fn who_proves_a_name_as_well_again_takes_its_place_by_whatever_connection_rfc7296_2_4() {
    for (unique, fails_over) in [
        (Unique::No, false),
        (Unique::No, true),
        (Unique::Replace, false),
    ] {
        let [Proofs { strong, .. }, ..] = unlike();
        let [ours, strong] = strong;
        // The same authority, read from its file once more.
        let [again, other] = [&ours, &strong].map(AuthSettings::clone);
        let b = gateway(strong, other, unique);
        let mut scene = Scene::of(client(ours, Unique::No), b, fails_over);
        // As before who says that it knows of nothing, or else as it asks for.
        let wanted = match unique {
            Unique::No => "0.0.0.0".parse().unwrap(),
            _ => scene.vip,
        };
        scene.comes(from_elsewhere(client(again, says(unique)), wanted));
        assert!(!scene.world.ike_sas(B).contains(&scene.first), "{unique:?}");
        assert_eq!(scene.given("anybody"), [scene.vip]);
        // And by the same one.
        let (old, vip) = (scene.world.ike(B), scene.vip);
        let mut third = scene.world.hosts[A].settings.clone();
        third.incarnation = Incarnation(3);
        scene.comes(third);
        assert_ne!(scene.world.ike(B), old);
        assert_eq!(scene.given("anybody"), [vip]);
    }
}
