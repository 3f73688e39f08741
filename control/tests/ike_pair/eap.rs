//! Users who log in with EAP-MSCHAPv2 (RFC 7296 section 2.16). A is the client, B the gateway.

use std::sync::Arc;
use std::time::Duration;

use hitless::ike::auth::{EapUsers, Family, LocalAuth, RemoteAuth, Revocation, TimeOfDay};
use hitless::ike::proposal::Identification;
use hitless::ike::sessions::{ClusterSecret, Tickets};
use hitless::ike::settings::{EngineSettings, Secret, Unique};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::Instant;
use zeroize::Zeroizing;

use crate::pki::{self, Authority, Wish};
use crate::resume;
use crate::world::{A, B, Faults, SECOND, World, settings};

fn user(name: &str) -> Identification {
    Identification::user(name.as_bytes()).unwrap()
}

fn secret(name: &str, password: &str) -> Secret {
    Secret {
        ids: vec![user(name)],
        secret: Zeroizing::new(password.as_bytes().to_vec()),
    }
}

fn asked() -> RemoteAuth {
    RemoteAuth::Eap(EapUsers::Asked(Identification::Any))
}

/// Alice at A; B has an account for her and one for Bob.
fn ends() -> [EngineSettings; 2] {
    let anchor = Authority::anchor("lab CA");
    let issued = anchor.issue(&Wish::named("b.test"));
    let [mut a, mut b] = [A, B].map(settings);
    let trust = pki::trust(&[&anchor], Revocation::Relaxed, Vec::new());
    a.connections[0].auth.remote = pki::remote(trust);
    a.connections[0].auth.local = LocalAuth::Eap(user("alice"));
    a.secrets = vec![secret("alice", "wonderland")];
    b.connections[0].auth.local = pki::local(&issued, &[], Family::Any);
    b.connections[0].auth.remote = asked();
    b.connections[0].remote_id = Identification::Any;
    b.secrets = vec![secret("Bob", "builder"), secret("alice", "wonderland")];
    for settings in [&mut a, &mut b] {
        settings.time_of_day = TimeOfDay::new(Instant(1_000_000_000_000), pki::NOON);
    }
    [a, b]
}

fn world(seed: u64, change: impl FnOnce(&mut EngineSettings, &mut EngineSettings)) -> World {
    let [mut a, mut b] = ends();
    change(&mut a, &mut b);
    World::new(seed, a, b)
}

pub fn up(seed: u64) -> World {
    let mut world = world(seed, |_, _| {});
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// Who logged in at B.
fn users(world: &World) -> Vec<Identification> {
    let status = world.hosts[B].engine.status(world.now);
    let users = status.iter().filter_map(|sa| sa.remote_eap_id.clone());
    users.collect()
}

fn reasons(world: &World, host: usize) -> Vec<String> {
    let events = world.hosts[host].events.iter();
    let failed = events.filter_map(|event| match event {
        Event::AuthenticationFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    failed.collect()
}

/// Lengths of what B sent in IKE_AUTH.
fn answers(world: &World) -> Vec<usize> {
    let sent = world.hosts[B].sent.iter();
    let auth = sent.filter(|payload| payload.get(18) == Some(&35));
    auth.map(Vec::len).collect()
}

const AUTH: u8 = 35;

#[test]
fn rfc7296_section_2_16_a_user_logs_in_with_a_password() {
    let world = up(1);
    assert_eq!(users(&world), [user("alice")]);
    assert_eq!(answers(&world).len(), 5);
    let status = world.hosts[B].engine.status(world.now);
    assert_eq!(status[0].authenticated, "eap-mschapv2");
    assert_eq!(status[0].remote_id, "a.test".parse().unwrap());
    // The client knows the gateway by its certificate.
    assert!(
        world.hosts[A].engine.status(world.now)[0]
            .certificate
            .is_some()
    );
}

/// What a client asks for in CERTREQ is not kept with the rest of its request: Windows names all the
/// authorities that it trusts.
#[test]
fn rfc7296_section_3_7_a_client_that_trusts_hundreds_of_authorities_logs_in() {
    let mut world = world(3, |a, _| {
        let RemoteAuth::Pubkey(trusted) = &mut a.connections[0].auth.remote else {
            panic!("the gateway has a certificate");
        };
        let trusted = Arc::get_mut(trusted).expect("nobody else has it");
        for number in 0..500 {
            let anchor = Authority::anchor(&format!("CA {number}"));
            trusted.trust.add_anchor(anchor.certificate).unwrap();
        }
    });
    world.run(SECOND);
    world.assert_agreement(1);
    let first = world.hosts[A].sent.iter();
    let first = first.filter(|d| d[18] == AUTH && d[23] == 1);
    assert!(first.map(Vec::len).sum::<usize>() > 500 * 20);
}

/// The IKE identity is the name; RFC 7296 section 3.16 would rather have no EAP identity asked for.
#[test]
fn rfc7296_section_3_16_the_ike_identity_can_be_the_name() {
    let mut world = world(2, |a, b| {
        a.connections[0].local_id = "alice".parse().unwrap();
        b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::ByIkeIdentity);
    });
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(
        (users(&world), answers(&world).len()),
        (vec![user("alice")], 4)
    );
    // Whoever has an address for an identity has no name.
    let mut world = self::world(2, |a, b| {
        a.connections[0].local_id = Identification::Address("192.0.2.1".parse().unwrap());
        b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::ByIkeIdentity);
    });
    world.run(SECOND);
    assert!(world.ike_sas(B).is_empty());
}

#[test]
fn rfc9242_section_3_3_2_a_login_follows_additional_key_exchanges_and_goes_in_fragments() {
    let mut world = world(3, |a, b| {
        for settings in [a, b] {
            let connection = &mut settings.connections[0];
            connection.proposals =
                vec!["aes256gcm16-prfsha384-x25519-ke1_mlkem768".parse().unwrap()];
            connection.fragment_size = 576;
        }
    });
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(users(&world), [user("alice")]);
}

#[test]
fn a_login_survives_a_network_that_loses_doubles_and_delays() {
    for seed in 0..12 {
        let mut world = world(100 + seed, |_, _| {});
        world.faults = Faults {
            loss: 150,
            duplication: 200,
            delay: Duration::from_millis(300),
        };
        world.run(SECOND * 60);
        world.faults = Faults::default();
        world.run(SECOND * 60);
        assert_eq!(world.ike_sas(A).len(), 1, "seed {seed}");
        assert_eq!(users(&world).last(), Some(&user("alice")));
    }
}

/// The answers do not tell an unknown user from a wrong password.
#[test]
fn a_wrong_password_and_an_unknown_user_are_turned_away_alike() {
    let mut seen = Vec::new();
    for (name, password, why) in [
        ("alice", "looking-glass", "wrong password of alice"),
        ("alicf", "wonderland", "no secret or connection for alicf"),
    ] {
        let mut world = world(4, |a, _| {
            a.connections[0].auth.local = LocalAuth::Eap(user(name));
            a.secrets = vec![secret(name, password)];
        });
        world.run(Duration::from_millis(900));
        assert!(world.ike_sas(B).is_empty() && world.hosts[B].sad.is_empty());
        assert_eq!(reasons(&world, B), [why]);
        assert!(!reasons(&world, A).is_empty());
        assert!(world.hosts[B].records.is_empty());
        // The first is signed with ECDSA, whose signatures differ in length.
        seen.push(answers(&world)[1..].to_vec());
    }
    assert_eq!(seen[0].len(), 3);
    assert_eq!(seen[0], seen[1]);
}

/// RFC 7296 section 2.16: the gateway signs before it asks; a client that cannot verify that says
/// nothing of the user.
#[test]
fn rfc7296_section_2_16_a_client_answers_no_gateway_that_it_does_not_know() {
    let other = Authority::anchor("other CA");
    let mut world = world(5, |a, _| {
        let trust = pki::trust(&[&other], Revocation::Relaxed, Vec::new());
        a.connections[0].auth.remote = pki::remote(trust);
    });
    world.run(Duration::from_millis(900));
    assert!(world.ike_sas(A).is_empty() && world.ike_sas(B).is_empty());
    assert_eq!(answers(&world).len(), 1);
    // Nor one that has a secret in the place of a certificate: it never gets to ask.
    let mut world = self::world(5, |_, b| {
        b.connections[0].auth.local = LocalAuth::Psk;
        b.secrets.push(Secret {
            ids: Vec::new(),
            secret: Zeroizing::new(b"0123456789abcdef".to_vec()),
        });
    });
    world.run(Duration::from_millis(900));
    assert_eq!(reasons(&world, B), ["EAP without a certificate of ours"]);
}

/// AUTH of any other kind is no login.
#[test]
fn a_connection_for_users_takes_no_pre_shared_key() {
    let mut world = world(6, |a, b| {
        a.connections[0].auth.local = LocalAuth::Psk;
        for settings in [a, b] {
            settings.secrets.push(Secret {
                ids: Vec::new(),
                secret: Zeroizing::new(b"0123456789abcdef".to_vec()),
            });
        }
    });
    world.run(SECOND);
    assert!(world.ike_sas(B).is_empty());
    assert!(reasons(&world, B)[0].contains("does not authenticate with EAP"));
}

#[test]
fn a_user_gets_the_connection_that_is_meant_for_the_user() {
    for (pattern, lets_in) in [
        ("alice", true),
        ("Bob", false),
        ("*ice", true),
        ("*@corp", false),
    ] {
        let pattern = Identification::Eap(pattern.to_owned());
        let mut world = world(7, |_, b| {
            let mut others = b.connections[0].clone();
            others.name = "others".to_owned();
            others.auth.remote = RemoteAuth::Eap(EapUsers::Asked(user("Bob")));
            b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::Asked(pattern));
            b.connections.insert(0, others);
        });
        world.run(Duration::from_millis(900));
        let status = world.hosts[B].engine.status(world.now);
        let names: Vec<_> = status.iter().map(|sa| sa.name.as_str()).collect();
        match lets_in {
            true => assert_eq!(names, ["peer"]),
            false => assert!(names.is_empty()),
        }
    }
}

/// Where the IKE identity is the name, it is the name of the one who logged in.
#[test]
fn whoever_is_asked_gets_no_connection_of_another_ike_identity() {
    let mut world = world(7, |_, b| {
        let mut guests = b.connections[0].clone();
        guests.name = "guests".to_owned();
        let pattern = Identification::Eap("*@guests".to_owned());
        guests.auth.remote = RemoteAuth::Eap(EapUsers::Asked(pattern));
        b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::ByIkeIdentity);
        b.connections.insert(0, guests);
    });
    world.run(Duration::from_millis(900));
    assert!(users(&world).is_empty());
    assert!(
        reasons(&world, B)[0].contains("connection"),
        "{:?}",
        reasons(&world, B)
    );
}

/// The record of the IKE SA says who the user is; nobody logs in again.
#[test]
fn a_client_fails_over_without_a_new_login() {
    for rekeyed in [false, true] {
        let mut world = up(8);
        if rekeyed {
            let ike = world.ike(A);
            world.input(A, Input::RekeyIke(ike));
            world.run(SECOND);
        }
        let since = world.hosts[A].sent.len();
        world.fail_over(B, Resume::Exact);
        world.run(SECOND * 30);
        world.assert_agreement(1);
        assert_eq!(users(&world), [user("alice")]);
        let (ike, sa) = (world.ike(B), world.sa(A).id);
        world.input(B, Input::RekeyIke(ike));
        world.input(A, Input::RekeyChild(sa));
        world.run(SECOND * 10);
        world.assert_agreement(1);
        assert_eq!(users(&world), [user("alice")]);
        world.fail_over(A, Resume::Exact);
        world.run(SECOND * 30);
        world.assert_agreement(1);
        assert!(!resume::exchanges(&world, A, since).contains(&AUTH));
    }
}

/// What is half open dies with its member; the client begins again.
#[test]
fn a_login_that_a_takeover_interrupts_begins_again() {
    for steps in 0..14 {
        let mut world = world(9, |_, _| {});
        let end = world.now + SECOND;
        for _ in 0..steps {
            world.step(end);
        }
        world.fail_over(B, Resume::Exact);
        world.run(SECOND * 150);
        world.assert_agreement(1);
        assert_eq!(users(&world), [user("alice")], "step {steps}");
    }
}

/// RFC 7296 section 2.4: the user is the peer, whatever the IKE identity, which may be a shared one.
#[test]
fn rfc7296_section_2_4_another_user_with_the_same_ike_identity_is_another_peer() {
    for (unique, first, stays) in [
        (Unique::Replace, "Bob", 2),
        (Unique::Replace, "alice", 1),
        (Unique::Keep, "Bob", 2),
        (Unique::Keep, "alice", 1),
    ] {
        let mut world = world(10, |a, b| {
            let mut other = a.connections[0].clone();
            other.name = "other".to_owned();
            other.auth.local = LocalAuth::Eap(user(first));
            // No INITIAL_CONTACT, so that the gateway's setting alone decides.
            for connection in [&mut a.connections[0], &mut other] {
                connection.roads.unique = Unique::Never;
            }
            a.connections.push(other);
            a.secrets.push(secret("Bob", "builder"));
            b.connections[0].roads.unique = unique;
        });
        world.run(Duration::from_millis(900));
        assert_eq!(users(&world).len(), stays, "{unique:?} {first}");
    }
}

#[test]
fn a_reload_ends_what_a_user_could_not_have_today() {
    type Change = fn(&mut EngineSettings);
    let changes: [(Change, usize); 6] = [
        (
            |b| b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::ByIkeIdentity),
            0,
        ),
        (|_| (), 1),
        (
            |b| {
                let pattern = Identification::Eap("*ice".to_owned());
                b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::Asked(pattern));
            },
            1,
        ),
        (
            |b| b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::Asked(user("Bob"))),
            0,
        ),
        (|b| b.connections[0].auth.remote = RemoteAuth::Psk, 0),
        // Her account is gone, and Bob's stays.
        (|b| b.secrets.truncate(1), 0),
    ];
    for (change, left) in changes {
        let mut world = up(11);
        let mut settings = world.hosts[B].settings.clone();
        change(&mut settings);
        let engine = &mut world.hosts[B].engine;
        engine.reload(world.now, &mut world.entropy, settings);
        world.input(B, Input::Timeout);
        world.run(Duration::from_millis(100));
        assert_eq!(users(&world).len(), left);
        // So does a member that takes over with the new file from one that had the old one.
        let mut world = up(11);
        change(&mut world.hosts[B].settings);
        world.fail_over(B, Resume::Exact);
        world.run(Duration::from_millis(100));
        assert_eq!(users(&world).len(), left);
    }
}

type Change = fn(&mut EngineSettings);

/// What an operator does to the gateway of alice, and whether she may still come in.
fn changes() -> [(Change, bool); 4] {
    [
        (|_| (), true),
        (|b| b.secrets[1] = secret("alice", "looking-glass"), false),
        (|b| b.secrets.truncate(1), false),
        (
            |b| b.connections[0].auth.remote = RemoteAuth::Eap(EapUsers::Asked(user("Bob"))),
            false,
        ),
    ]
}

/// The password or the policy changes in the middle of a login.
#[test]
fn what_changes_in_the_middle_of_a_login_counts() {
    for (change, lets_in) in changes() {
        for answered in 1..5 {
            let mut world = world(12, |_, _| {});
            let end = world.now + SECOND;
            while answers(&world).len() < answered {
                assert!(world.step(end));
            }
            let mut settings = world.hosts[B].settings.clone();
            change(&mut settings);
            let engine = &mut world.hosts[B].engine;
            engine.reload(world.now, &mut world.entropy, settings);
            world.run(Duration::from_millis(800));
            assert_eq!(!world.ike_sas(B).is_empty(), lets_in, "after {answered}");
        }
    }
}

/// RFC 5723: a ticket counts as long as the password that it was given for does.
#[test]
fn rfc5723_section_4_3_a_ticket_does_not_outlive_the_password() {
    for (change, resumes) in changes() {
        let mut world = world(13, |a, b| {
            for settings in [a, b] {
                let session = &mut settings.connections[0].session;
                session.tickets = Some(Tickets {
                    ticket_time: SECOND * 3600,
                    resumption_time: SECOND * 3600 * 24,
                });
                session.crash_detection = true;
                settings.cluster_secret = ClusterSecret::new("test", b"the cluster's secret");
            }
        });
        world.run(SECOND);
        world.assert_agreement(1);
        change(&mut world.hosts[B].settings);
        let since = resume::crash(&mut world);
        world.run(SECOND * 2);
        let sent = resume::exchanges(&world, A, since);
        assert!(sent.contains(&resume::RESUME), "{sent:?}");
        assert_eq!(resume::resumed(&world), usize::from(resumes));
        match resumes {
            true => assert_eq!(users(&world), [user("alice")]),
            false => assert!(world.ike_sas(B).is_empty()),
        }
    }
}

/// Whoever completes IKE_SA_INIT makes the gateway sign, and may name a password: both draw on the
/// rate of its address, and a wrong password on much of it.
#[test]
fn rfc7296_section_2_16_passwords_are_not_guessed_as_fast_as_ike_sa_inits_come() {
    let guesses = |rate: u32| {
        let mut world = world(14, |a, b| {
            a.secrets = vec![secret("alice", "a guess")];
            b.limits.init_rate_ip = rate;
        });
        let failed = |e: &Event| matches!(e, Event::AuthenticationFailed { .. });
        for _ in 0..40 {
            world.run(SECOND / 50);
            world.restart(A);
        }
        let failed = world.hosts[B].count(failed);
        (world, failed)
    };
    let (_, any) = guesses(0);
    assert_eq!(any, 40);
    let (mut world, failed) = guesses(50);
    assert!((2..6).contains(&failed), "{failed} guesses in 0.8 s");
    let paid = |e: &Event| matches!(e, Event::Dropped { reason, .. } if reason.contains("login"));
    assert!(world.hosts[B].saw(paid));
    // Nobody is refused for good: the user of that address who knows the password comes in.
    world.hosts[A].settings.secrets = vec![secret("alice", "wonderland")];
    world.restart(A);
    world.run(SECOND * 8);
    world.assert_agreement(1);
}

/// What a guesser wants to know it knows when the gateway says that the password is wrong: it does
/// not stay to acknowledge that.
#[test]
fn rfc7296_section_2_16_a_guess_is_paid_by_who_made_it_also_by_one_that_falls_silent() {
    let mut world = world(15, |a, b| {
        a.secrets = vec![secret("alice", "a guess")];
        b.limits.init_rate_ip = 50;
    });
    let failed = |e: &Event| matches!(e, Event::AuthenticationFailed { .. });
    for _ in 0..10 {
        world.restart(A);
        let before = world.hosts[B].count(failed);
        for _ in 0..12 {
            for packet in world.intercept() {
                world.deliver(&packet);
            }
            // What would follow is never sent.
            if world.hosts[B].count(failed) > before {
                world.intercept();
            }
        }
    }
    let reasons = reasons(&world, B);
    let wrong = reasons.iter().filter(|why| why.contains("wrong password"));
    let heard = wrong.count();
    assert!((1..4).contains(&heard), "{heard} guesses at once");
}

/// H6, RFC 6311: what both asserted in the rounds of a login is there after a failover of either, and
/// serves it. (Which answers count: `initial/initiator/login/tests.rs`.)
#[test]
fn rfc6311_h6_capabilities_of_a_login_serve_a_failover() {
    for host in [A, B] {
        let mut world = up(60 + host as u64);
        for failover in 1..=2 {
            world.fail_over(
                host,
                Resume::MessageIdSync {
                    replay_delta: Some(100),
                },
            );
            let sent = |e: &Event| matches!(e, Event::MessageIdSyncSent { .. });
            assert_eq!(world.hosts[host].count(sent), 1, "{host}");
            world.run(SECOND * 5);
            let synced = |e: &Event| matches!(e, Event::MessageIdSynced { .. });
            let leapt = |e: &Event| matches!(e, Event::ReplayCounterSync { delta: 100, .. });
            assert_eq!(world.hosts[host].count(synced), 1);
            assert_eq!(world.hosts[1 - host].count(synced), failover);
            assert_eq!(world.hosts[1 - host].count(leapt), failover);
            world.assert_agreement(1);
            assert_eq!(users(&world), [user("alice")]);
        }
    }
}
