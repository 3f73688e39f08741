//! Postquantum pre-shared keys (RFC 8784), between two engines.

use hitless::ike::auth::{Ppk, PpkSettings};
use hitless::ike::{Event, Input, Resume};
use zeroize::Zeroizing;

use crate::world::{A, B, SECOND, World, settings};

pub fn ppk(id: &str, key: &str, required: bool) -> Option<PpkSettings> {
    let id: hitless::ike::proposal::Identification = id.parse().unwrap();
    Some(PpkSettings {
        id: id.clone(),
        keys: vec![Ppk {
            id,
            key: Zeroizing::new(key.as_bytes().to_vec()),
        }],
        required,
    })
}

pub fn world(a: Option<PpkSettings>, b: Option<PpkSettings>) -> World {
    let (mut ours, mut theirs) = (settings(A), settings(B));
    ours.connections[0].auth.ppk = a;
    theirs.connections[0].auth.ppk = b;
    let mut world = World::new(3, ours, theirs);
    world.run(SECOND);
    world
}

/// The table of RFC 8784 section 3: what each end has and requires, and what comes of it.
#[test]
fn rfc8784_section_3_the_ppk_is_mixed_in_where_both_have_it() {
    const KEY: &str = "a key of 256 bits that both know";
    let (optional, required) = (ppk("p.test", KEY, false), ppk("p.test", KEY, true));
    let (other, must_other) = (ppk("q.test", KEY, false), ppk("q.test", KEY, true));
    let table = [
        (None, None, Some(false)),
        (optional.clone(), None, Some(false)),
        (None, optional.clone(), Some(false)),
        (optional.clone(), optional.clone(), Some(true)),
        (required.clone(), optional.clone(), Some(true)),
        (optional.clone(), required.clone(), Some(true)),
        (required.clone(), required.clone(), Some(true)),
        (required.clone(), None, None),
        (None, required.clone(), None),
        // The other end knows one of another name.
        (optional.clone(), other.clone(), Some(false)),
        (required.clone(), other.clone(), None),
        (optional.clone(), must_other, None),
        // Of the same name and with other octets.
        (optional.clone(), ppk("p.test", "another", false), None),
    ];
    for (index, (a, b, mixed)) in table.into_iter().enumerate() {
        let world = world(a, b);
        match mixed {
            Some(mixed) => {
                world.assert_agreement(1);
                for host in [A, B] {
                    let status = world.hosts[host].engine.status(world.now);
                    assert_eq!(status[0].ppk, mixed, "row {index}");
                }
            }
            None => {
                assert!(
                    world.ike_sas(A).is_empty() && world.ike_sas(B).is_empty(),
                    "row {index}"
                );
                let told = |e: &Event| {
                    matches!(
                        e,
                        Event::AuthenticationFailed { .. } | Event::NegotiationFailed { .. }
                    )
                };
                assert!(
                    world.hosts[A].saw(told) || world.hosts[B].saw(told),
                    "row {index}"
                );
            }
        }
    }
}

/// SK_d carries it on: keys of later SAs depend on it without another word (RFC 8784 section 3).
#[test]
fn rfc8784_what_was_mixed_in_survives_failover_and_rekeying() {
    let required = || ppk("p.test", "a key of 256 bits that both know", true);
    for host in [A, B] {
        let mut world = world(required(), required());
        let ike = world.ike(host);
        world.fail_over(host, Resume::Exact);
        let child = world.hosts[host].sad.keys().next().copied().unwrap();
        world.input(host, Input::RekeyChild(child));
        world.run(SECOND);
        world.input(host, Input::RekeyIke(ike));
        world.run(SECOND);
        world.assert_agreement(1);
        let status = world.hosts[host].engine.status(world.now);
        assert!(status.iter().all(|sa| sa.ppk));
    }
}
