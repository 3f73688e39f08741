//! No IKE SA outlives the certificate that its peer showed.

use std::time::Duration;

use hitless::ike::auth::AuthSettings;
use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Input, Resume};
use rcgen::date_time_ymd;

use crate::pki::{self, Authority, NOON, Wish};
use crate::world::{A, B, SECOND, World, settings};

/// How long A's certificate has still to go.
const LEFT: Duration = Duration::from_secs(600);
/// It ends with the first second of 2026-06-02.
const BEGIN: Duration = NOON.saturating_add(Duration::from_secs(12 * 3600 - 600));

fn with(host: usize, auth: AuthSettings) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].auth = auth;
    settings.secrets.clear();
    settings
}

/// B's certificate lasts; who begins starts the child.
fn ends(first: usize) -> [EngineSettings; 2] {
    let anchor = Authority::anchor("anchor");
    let short = Wish::named("a.test").with(|params| params.not_after = date_time_ymd(2026, 6, 2));
    let (a, b) = (anchor.issue(&short), anchor.issue(&Wish::named("b.test")));
    let mut ends = [
        with(A, pki::auth(&a, &[], &anchor)),
        with(B, pki::auth(&b, &[], &anchor)),
    ];
    for (host, settings) in ends.iter_mut().enumerate() {
        settings.connections[0].children[0].start = host == first;
    }
    ends
}

fn up([a, b]: [EngineSettings; 2]) -> World {
    let mut world = World::new(5, a, b);
    world.set_time_of_day(BEGIN);
    world.run(2 * SECOND);
    assert_eq!(world.ike_sas(B).len(), 1);
    world
}

fn expired(event: &Event) -> bool {
    matches!(event, Event::AuthenticationFailed { reason, .. } if reason.contains("has expired"))
}

#[test]
fn rfc5280_section_4_1_2_5_an_ike_sa_ends_with_the_certificate_of_its_peer() {
    for first in [A, B] {
        for fails_over in [false, true] {
            let mut world = up(ends(first));
            // Neither a rekeying nor another member makes it last longer.
            let ike = world.ike(B);
            world.input(B, Input::RekeyIke(ike));
            world.run(8 * SECOND);
            assert_ne!(world.ike(B), ike);
            if fails_over {
                world.fail_over(B, Resume::Exact);
                world.set_time_of_day(BEGIN + 10 * SECOND);
            }
            world.run(LEFT - 20 * SECOND);
            assert!(!world.ike_sas(B).is_empty(), "{first} {fails_over}");
            world.run(30 * SECOND);
            assert!(world.ike_sas(B).is_empty(), "{first} {fails_over}");
            assert!(world.hosts[B].sad.is_empty() && world.hosts[B].saw(expired));
        }
    }
}

/// A tenth before it has to, so that a fresh one can be there.
#[test]
fn rfc4478_section_3_a_peer_is_told_to_come_again_before_its_certificate_expires() {
    let [a, mut b] = ends(A);
    b.connections[0].auth.reauth_time = Duration::from_secs(3 * 3600);
    let mut world = up([a, b]);
    let old = world.ike(B);
    world.run(LEFT - 60 * SECOND);
    assert_ne!(world.ike(B), old, "in good time");
}
