//! What a ticket stands on: the credentials that made the peer believable, the configuration, and
//! the time since then (RFC 5723 sections 4.3 and 9). And what becomes of the IKE SA that is over.

use std::time::Duration;

use hitless::ike::auth::{AuthSettings, Family, Ppk, PpkSettings, Revocation, TimeOfDay};
use hitless::ike::settings::{EngineSettings, Unique};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::MemberId;
use rcgen::SerialNumber;
use zeroize::Zeroizing;

use crate::pki::{self, Authority, Date, Issued, Wish};
use crate::resume::{self, INIT, RESUME, TICKETS, exchanges, resumed, world};
use crate::world::{A, B, Packet, SECOND, World};

const OTHER: &[u8] = b"fedcba9876543210";

fn reload(world: &mut World, host: usize, change: impl FnOnce(&mut EngineSettings)) {
    let mut settings = world.hosts[host].settings.clone();
    change(&mut settings);
    world.hosts[host].settings = settings.clone();
    let engine = &mut world.hosts[host].engine;
    engine.reload(world.now, &mut world.entropy, settings);
    world.input(host, Input::Timeout);
}

fn other_secret(settings: &mut EngineSettings) {
    settings.secrets[0].secret = Zeroizing::new(OTHER.to_vec());
}

/// B comes back with nothing, as the member that it was at first: it shows tokens for what that made.
fn crash(world: &mut World) -> usize {
    world.hosts[B].settings.member = MemberId(2);
    resume::crash(world)
}

fn turned_away(event: &Event) -> bool {
    matches!(event, Event::AuthenticationFailed { .. })
}

/// Neither the ticket nor the full exchange that follows its refusal lets the peer in.
fn assert_locked_out(world: &mut World, since: usize) {
    world.run(SECOND * 3);
    let sent = exchanges(world, A, since);
    assert!(sent.contains(&RESUME) && sent.contains(&INIT), "{sent:?}");
    assert_eq!(resumed(world), 0);
    assert!(world.ike_sas(B).is_empty() && world.hosts[B].sad.is_empty());
}

#[test]
fn rfc5723_section_4_3_a_ticket_does_not_outlive_the_pre_shared_key() {
    // As the key was when the peer proved that it has it: not as when the ticket was renewed.
    for renewed in [false, true] {
        for fails_over in [false, true] {
            let mut world = world(21, |_, _| {});
            if fails_over {
                world.fail_over(B, Resume::Exact);
            }
            other_secret(&mut world.hosts[B].settings);
            if renewed {
                let settings = world.hosts[B].settings.clone();
                reload(&mut world, B, |b| *b = settings);
                world.run(TICKETS);
            }
            let since = crash(&mut world);
            assert_locked_out(&mut world, since);
            assert!(world.hosts[B].saw(turned_away));
            // Once the peer has it, it is let in as anybody.
            reload(&mut world, A, other_secret);
            world.run(SECOND * 80);
            world.assert_agreement(1);
        }
    }
}

#[test]
fn rfc5723_section_4_3_a_ticket_does_not_outlive_the_removal_of_a_secret_or_a_connection() {
    let removals: [fn(&mut EngineSettings); 2] = [|b| b.secrets.clear(), |b| b.connections.clear()];
    for remove in removals {
        let mut world = world(22, |_, _| {});
        remove(&mut world.hosts[B].settings);
        let since = crash(&mut world);
        world.run(SECOND * 3);
        // Without a connection there is nobody to show a token either, and A waits.
        let sent = exchanges(&world, A, since);
        assert_eq!(resumed(&world), 0, "{sent:?}");
        assert!(world.ike_sas(B).is_empty());
    }
    // A secret for another peer alone, before which the first one went.
    let mut world = world(22, |_, _| {});
    world.hosts[B].settings.secrets[0].ids = vec!["c.test".parse().unwrap()];
    let since = crash(&mut world);
    assert_locked_out(&mut world, since);
}

/// The configuration changes between IKE_SESSION_RESUME and IKE_AUTH.
#[test]
fn rfc5723_section_4_3_what_changes_in_the_middle_of_a_resumption_counts() {
    type Change = fn(&mut EngineSettings);
    let changes: [(Change, bool); 4] = [
        (|_| (), true),
        (other_secret, false),
        (|b| b.connections[0].session.tickets = None, false),
        (|b| b.connections[0].name = "renamed".to_owned(), false),
    ];
    for (change, lets_in) in changes {
        let mut world = world(23, |_, _| {});
        crash(&mut world);
        let since = world.hosts[B].sent.len();
        let end = world.now + SECOND;
        while !exchanges(&world, B, since).contains(&RESUME) {
            assert!(world.step(end));
        }
        reload(&mut world, B, change);
        world.run(SECOND);
        assert_eq!(resumed(&world), usize::from(lets_in));
        assert_eq!(world.ike_sas(B).len(), usize::from(lets_in));
    }
}

/// RFC 7296 section 2.6: what is half-open for a connection that is gone goes with it.
#[test]
fn a_reload_forgets_half_open_ike_sas_that_lead_nowhere() {
    for resumes in [false, true] {
        let mut world = world(24, |_, settings| {
            if !resumes {
                settings.connections[0].session.tickets = None;
            }
        });
        crash(&mut world);
        let kind = if resumes { RESUME } else { INIT };
        let since = world.hosts[B].sent.len();
        let end = world.now + SECOND;
        while !exchanges(&world, B, since).contains(&kind) {
            assert!(world.step(end));
        }
        let waits = |world: &World| world.hosts[B].engine.poll_timeout().is_some();
        reload(&mut world, B, |_| ());
        assert!(waits(&world), "what still means something stays");
        let answer = world.intercept();
        reload(&mut world, B, |b| b.connections.clear());
        assert!(!waits(&world));
        // What comes of it is a message for nobody.
        answer.iter().for_each(|packet| world.deliver(packet));
        world.run(SECOND);
        assert!(world.ike_sas(B).is_empty());
        let nobody =
            |e: &Event| matches!(e, Event::Dropped { reason, .. } if *reason == "unknown IKE SA");
        assert!(world.hosts[B].saw(nobody));
    }
}

#[test]
fn rfc8784_a_ticket_does_not_outlive_the_postquantum_key_that_was_mixed_in() {
    let ppk = |key: &[u8], required| PpkSettings {
        id: "ppk.test".parse().unwrap(),
        keys: vec![Ppk {
            id: "ppk.test".parse().unwrap(),
            key: Zeroizing::new(key.to_vec()),
        }],
        required,
    };
    let with = |b: Option<PpkSettings>| {
        let mut world = world(25, |_, settings| {
            settings.connections[0].auth.ppk = Some(ppk(b"0123456789abcdef", false));
        });
        world.hosts[B].settings.connections[0].auth.ppk = b;
        crash(&mut world);
        world.run(SECOND);
        resumed(&world)
    };
    assert_eq!(with(Some(ppk(b"0123456789abcdef", true))), 1);
    assert_eq!(with(Some(ppk(b"0123456789abcdeF", false))), 0);
    assert_eq!(with(None), 0);
    // One that was not mixed in is missed as soon as it is required.
    let mut world = self::world(25, |_, _| {});
    world.hosts[B].settings.connections[0].auth.ppk = Some(ppk(b"0123456789abcdef", true));
    let since = crash(&mut world);
    assert_locked_out(&mut world, since);
}

/// A's and B's certificates, with A's below an intermediate.
struct House {
    anchor: Authority,
    middle: Authority,
    a: Issued,
    b: Issued,
}

fn house() -> House {
    let anchor = Authority::anchor("anchor");
    let middle = anchor.below_with("middle", |params| {
        params.serial_number = Some(SerialNumber::from(50));
    });
    let numbered = Wish::named("a.test").with(|params| {
        params.serial_number = Some(SerialNumber::from(7));
    });
    House {
        a: middle.issue(&numbered),
        b: anchor.issue(&Wish::named("b.test")),
        anchor,
        middle,
    }
}

impl House {
    fn world(&self) -> World {
        world(26, |host, settings| {
            settings.time_of_day =
                TimeOfDay::new(hitless_sa::Instant(1_000_000_000_000), pki::NOON);
            settings.secrets.clear();
            settings.connections[0].auth = match host {
                A => pki::auth(&self.a, &[&self.middle], &self.anchor),
                _ => pki::auth(&self.b, &[], &self.anchor),
            };
        })
    }

    /// B's part, with what it believes.
    fn believing(&self, trust: hitless::ike::auth::Trust) -> AuthSettings {
        AuthSettings {
            local: pki::local(&self.b, &[], Family::Any),
            remote: pki::remote(trust),
            ..AuthSettings::default()
        }
    }
}

#[test]
fn rfc5723_section_9_a_ticket_does_not_outlive_the_certificate_its_issuer_or_the_anchor() {
    let house = house();
    let fresh = || Date(2026, 12, 1);
    let lists = |of_middle: &[u64], of_anchor: &[u64]| {
        vec![
            house.middle.revoke(of_middle, fresh()),
            house.anchor.revoke(of_anchor, fresh()),
        ]
    };
    let other = Authority::anchor("anchor");
    use Revocation::{Relaxed, Strict};
    let trust = |revocation, lists| pki::trust(&[&house.anchor], revocation, lists);
    let believed = [
        (trust(Relaxed, Vec::new()), true),
        (trust(Strict, lists(&[8], &[51])), true),
        (trust(Relaxed, lists(&[7], &[])), false),
        (trust(Relaxed, lists(&[], &[50])), false),
        // Nobody vouches for them any more.
        (trust(Strict, Vec::new()), false),
        (pki::trust(&[&other], Relaxed, Vec::new()), false),
    ];
    for (number, (trust, lets_in)) in believed.into_iter().enumerate() {
        let mut world = house.world();
        // The successor knows as much as the member that saw the chain.
        world.fail_over(B, Resume::Exact);
        world.hosts[B].settings.connections[0].auth = house.believing(trust);
        let since = crash(&mut world);
        if lets_in {
            world.run(SECOND);
            world.assert_agreement(1);
            assert!(!exchanges(&world, A, since).contains(&INIT), "{number}");
        } else {
            assert_locked_out(&mut world, since);
        }
    }
    // And not a connection that demands another kind of proof.
    let mut world = house.world();
    let settings = &mut world.hosts[B].settings;
    settings.connections[0].auth.remote = Default::default();
    settings.secrets = crate::world::settings(B).secrets;
    let since = crash(&mut world);
    assert_locked_out(&mut world, since);
}

#[test]
fn rfc5723_section_9_a_ticket_does_not_outlive_the_validity_of_the_certificate() {
    let house = house();
    let mut world = house.world();
    // The clock moves on: the ticket is young, the certificate old.
    let year = Duration::from_secs(366 * 86400);
    let start = hitless_sa::Instant(1_000_000_000_000);
    world.hosts[B].settings.time_of_day = TimeOfDay::new(start, pki::NOON + year);
    let since = crash(&mut world);
    assert_locked_out(&mut world, since);
}

/// A client looks at what it believes, too: the gateway shows no more than that it is the same.
#[test]
fn rfc5723_section_4_3_a_client_presents_no_ticket_of_a_gateway_that_it_does_not_believe_today() {
    let mut world = world(27, |_, _| {});
    reload(&mut world, A, other_secret);
    let since = crash(&mut world);
    world.run(SECOND);
    let sent = exchanges(&world, A, since);
    assert!(!sent.contains(&RESUME) && sent.contains(&INIT), "{sent:?}");
}

/// `resumption_time`: tickets of tickets come to an end.
#[test]
fn rfc5723_section_9_tickets_follow_one_another_for_a_bounded_time() {
    let mut world = world(28, |_, settings| {
        let session = &mut settings.connections[0].session;
        session.tickets.as_mut().unwrap().resumption_time = TICKETS * 2;
    });
    for (round, in_full) in [false, false, true, false].into_iter().enumerate() {
        world.run(TICKETS / 6 * 5 - SECOND * 60);
        // What the dead member recorded of the time goes to the next one.
        world.fail_over(B, Resume::Exact);
        world.run(SECOND * 60);
        let since = crash(&mut world);
        world.run(SECOND);
        world.assert_agreement(1);
        let sent = exchanges(&world, A, since);
        assert_eq!(sent.contains(&INIT), in_full, "round {round}: {sent:?}");
    }
    // A shorter bound holds for tickets that are out already.
    let session = &mut world.hosts[B].settings.connections[0].session;
    session.tickets.as_mut().unwrap().resumption_time = SECOND * 60;
    world.run(SECOND * 120);
    let since = crash(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    let sent = exchanges(&world, A, since);
    assert!(sent.contains(&RESUME) && sent.contains(&INIT), "{sent:?}");
}

/// A believes B to be dead, while B knows A as it was: nothing goes through for long enough.
fn part(world: &mut World) -> usize {
    let since = world.hosts[A].sent.len();
    world.hosts[A].events.clear();
    world.faults.loss = 1000;
    world.input(A, Input::Liveness(world.ike(A)));
    let lost = |world: &World| world.hosts[A].saw(|e| matches!(e, Event::IkeDeleted { .. }));
    let end = world.now + SECOND * 300;
    while !lost(world) {
        assert!(world.step(end));
    }
    world.faults.loss = 0;
    since
}

/// RFC 7296 section 2.4 and RFC 5723 section 4.3.4: a ticket says whose IKE SA is over.
#[test]
fn rfc5723_section_4_3_4_unique_keep_lets_a_peer_resume_what_it_has_lost() {
    for unique in [Unique::Never, Unique::No, Unique::Replace, Unique::Keep] {
        for rekeyed in [false, true] {
            let mut world = world(29, |host, settings| {
                // Without INITIAL_CONTACT, which would say the same.
                let roads = &mut settings.connections[0].roads;
                roads.unique = if host == A { Unique::Never } else { unique };
            });
            world.run(SECOND * 10);
            if rekeyed {
                let ike = world.ike(B);
                world.input(B, Input::RekeyIke(ike));
                // The client asks for a ticket of the new IKE SA.
                world.run(SECOND * 5);
                world.fail_over(B, Resume::Exact);
            }
            let old = world.ike(B);
            let since = part(&mut world);
            world.run(SECOND * 20);
            let sent = exchanges(&world, A, since);
            assert!(sent.contains(&RESUME) && !sent.contains(&INIT), "{sent:?}");
            world.assert_agreement(1);
            assert_ne!(world.ike(B), old, "{unique:?}");
            assert_eq!(world.living(B), 1, "the standby knows");
        }
    }
}

/// Another device of the same identity has come meanwhile: `keep` keeps that.
#[test]
fn rfc5723_section_4_3_4_a_ticket_ends_no_other_ike_sa_than_its_own() {
    let mut world = world(30, |host, settings| {
        let roads = &mut settings.connections[0].roads;
        roads.unique = if host == A {
            Unique::Never
        } else {
            Unique::Keep
        };
    });
    let mut request = None;
    part(&mut world);
    // What A sends first is held back.
    let end = world.now + SECOND * 3;
    while request.is_none() && world.step(end) {
        let mut packets = world.intercept();
        let held = |p: &Packet| p.payload.get(18) == Some(&RESUME);
        request = packets.iter().position(held).map(|at| packets.remove(at));
        packets.into_iter().for_each(|packet| world.inject(packet));
    }
    // A gives up on the ticket, and B on the IKE SA.
    let old = world.ike(B);
    world.input(B, Input::Terminate { ike: old });
    world.run(SECOND * 400);
    world.assert_agreement(1);
    let new = world.ike(B);
    world.deliver(&request.expect("a ticket"));
    world.run(SECOND * 60);
    assert_eq!(world.ike(B), new);
    world.assert_agreement(1);
}

/// RFC 7296 section 2.6: the gateway took the ticket, and its answers are lost.
#[test]
fn rfc7296_section_2_6_the_full_exchange_after_a_ticket_is_another_ike_sa() {
    let mut world = world(31, |_, _| {});
    crash(&mut world);
    let end = world.now + SECOND * 12;
    while world.ike_sas(A).is_empty() || resumed(&world) > 0 || world.hosts[B].sad.is_empty() {
        assert!(
            world.now < end,
            "half-open for the other one, and no room for this one"
        );
        for packet in world.intercept() {
            let answer = packet.to.ip() == crate::world::address(A);
            if !(answer && packet.payload.get(18) == Some(&RESUME)) {
                world.deliver(&packet);
            }
        }
        world.run(Duration::from_micros(500));
    }
    let firsts = world.hosts[A].sent.iter().rev();
    let spi = |kind: u8| {
        let mut sent = firsts.clone().filter(|p| p.get(18) == Some(&kind));
        sent.next().map(|p| p[..8].to_vec())
    };
    assert_ne!(spi(INIT), spi(RESUME));
    world.run(SECOND * 60);
    world.assert_agreement(1);
}

/// What B says is forged, truncated or damaged: a refusal is believed, and costs the full exchange.
#[test]
fn rfc5723_section_4_3_2_mangled_answers_to_a_ticket_never_keep_a_client_out() {
    for position in 16..70 {
        let mut world = world(32, |_, _| {});
        crash(&mut world);
        let end = world.now + SECOND * 2;
        let mut mangled = false;
        while !mangled && world.step(end) {
            for mut packet in world.intercept() {
                let answer = packet.to.ip() == crate::world::address(A);
                if answer && packet.payload.get(18) == Some(&RESUME) {
                    mangled = true;
                    packet.payload[position] ^= 0x41;
                }
                world.inject(packet);
            }
        }
        assert!(mangled);
        world.run(SECOND * 120);
        world.assert_agreement(1);
    }
}
