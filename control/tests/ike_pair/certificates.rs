//! Authentication by certificates, between two engines.

use std::net::IpAddr;
use std::time::Duration;

use hitless::ike::auth::{
    AuthSettings, Certificate, Family, Hash, Revocation, Scheme, verify_signature,
};
use hitless::ike::settings::EngineSettings;
use hitless::ike::work::Share;
use hitless::ike::{Event, Input, Resume};
use rcgen::{
    CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, KeyUsagePurpose,
    NameConstraints, SanType, SerialNumber, date_time_ymd,
};

use crate::pki::{Authority, Date, Issued, NOON, Wish, auth, local, remote, trust};
use crate::world::{A, B, SECOND, World, settings};

/// The settings of both ends with certificates, and without any pre-shared key.
fn with(host: usize, auth: AuthSettings) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].auth = auth;
    settings.secrets.clear();
    settings
}

fn world(a: AuthSettings, b: AuthSettings) -> World {
    world_of(with(A, a), with(B, b))
}

fn world_of(a: EngineSettings, b: EngineSettings) -> World {
    let mut world = World::new(7, a, b);
    world.set_time_of_day(NOON);
    world
}

/// B verifies A's proof as responder, and as initiator.
fn worlds(a: AuthSettings, b: AuthSettings) -> [World; 2] {
    worlds_of(&with(A, a), &with(B, b))
}

fn worlds_of(a: &EngineSettings, b: &EngineSettings) -> [World; 2] {
    [A, B].map(|first| {
        let [mut a, mut b] = [a, b].map(EngineSettings::clone);
        for (host, settings) in [(A, &mut a), (B, &mut b)] {
            settings.connections[0].children[0].start = host == first;
        }
        world_of(a, b)
    })
}

/// What B says in either role.
fn refusals(worlds: [World; 2]) -> [Option<String>; 2] {
    worlds.map(|mut world| {
        world.run(2 * SECOND);
        let refused = refusal(&world, B);
        assert_eq!(world.ike_sas(B).is_empty(), refused.is_some());
        refused
    })
}

fn assert_refused_by_b(worlds: [World; 2], why: &str) {
    for world in worlds {
        assert_refused(world, B, why);
    }
}

/// What a host says of the other's proof; `None` if it was accepted.
fn refusal(world: &World, host: usize) -> Option<String> {
    world.hosts[host]
        .events
        .iter()
        .find_map(|event| match event {
            Event::AuthenticationFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
}

fn assert_refused(mut world: World, host: usize, why: &str) {
    // Where B begins, its first request finds nobody.
    world.run(2 * SECOND);
    let reason = refusal(&world, host).unwrap_or_else(|| panic!("accepted, but {why}"));
    assert!(reason.contains(why), "{reason:?} is not {why:?}");
    assert!(world.ike_sas(host).is_empty());
    assert!(world.hosts[host].sad.is_empty());
}

/// Anchor, and A's and B's certificates below it.
fn house() -> (Authority, Issued, Issued) {
    let anchor = Authority::anchor("anchor");
    let a = anchor.issue(&Wish::named("a.test"));
    let b = anchor.issue(&Wish::named("b.test"));
    (anchor, a, b)
}

#[test]
fn rfc7427_section_3_every_kind_of_key_authenticates_both_roles() {
    let anchor = Authority::anchor("anchor");
    let kinds = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Family::Any, "Ecdsa(Sha256)"),
        (
            &rcgen::PKCS_ECDSA_P384_SHA384,
            Family::Ecdsa,
            "Ecdsa(Sha384)",
        ),
        (&rcgen::PKCS_ED25519, Family::Any, "Ed25519"),
        (&rcgen::PKCS_RSA_SHA256, Family::Any, "RsaPss(Sha256)"),
        (
            &rcgen::PKCS_RSA_SHA256,
            Family::RsaPkcs1,
            "RsaPkcs1(Sha256)",
        ),
    ];
    for (algorithm, family, method) in kinds {
        let issue = |name| anchor.issue(&Wish::named(name).by(algorithm));
        let (a, b) = (issue("a.test"), issue("b.test"));
        let settings = |own: &Issued| AuthSettings {
            local: local(own, &[], family),
            ..auth(own, &[], &anchor)
        };
        let mut world = world(settings(&a), settings(&b));
        world.run(SECOND);
        world.assert_agreement(1);
        for host in [A, B] {
            let status = world.hosts[host].engine.status(world.now);
            assert_eq!(status[0].authenticated, method);
        }
    }
}

/// RFC 7427 section 4: of a peer that announces one hash, by which the key can sign, it is that one. Here
/// all are announced, and the shortest is taken; so the others are tried without an engine.
#[test]
fn rfc7427_section_4_rsa_signs_with_the_one_hash_that_the_peer_takes() {
    let anchor = Authority::anchor("anchor");
    let own = anchor.issue(&Wish::named("a.test").by(&rcgen::PKCS_RSA_SHA256));
    let message = b"what is signed".as_slice();
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        for (family, scheme) in [
            (Family::Any, Scheme::RsaPss(hash)),
            (Family::RsaPss, Scheme::RsaPss(hash)),
            (Family::RsaPkcs1, Scheme::RsaPkcs1(hash)),
        ] {
            let (method, data) = own.key.sign(family, &[hash], message).expect("it can");
            assert_eq!(method, 14, "Digital Signature");
            let verified = verify_signature(&own.certificate, method, &data, message);
            assert_eq!(verified.ok(), Some(scheme));
            let other = verify_signature(&own.certificate, method, &data, b"another");
            assert!(other.is_err());
            for position in [0, data.len() / 2, data.len() - 1] {
                let mut altered = data.clone();
                altered[position] ^= 1;
                let altered = verify_signature(&own.certificate, method, &altered, message);
                assert!(altered.is_err(), "{scheme:?} {position}");
            }
        }
    }
}

#[test]
fn rfc7296_section_3_6_intermediates_travel_and_lead_to_the_anchor() {
    let anchor = Authority::anchor("anchor");
    let (first, second) = (anchor.below("first"), anchor.below("second"));
    let deeper = second.below("deeper");
    let a = first.issue(&Wish::named("a.test"));
    let b = deeper.issue(&Wish::named("b.test"));
    let of_b = auth(&b, &[&deeper, &second], &anchor);
    let mut complete = world(auth(&a, &[&first], &anchor), of_b.clone());
    complete.run(SECOND);
    complete.assert_agreement(1);
    assert_refused_by_b(worlds(auth(&a, &[], &anchor), of_b), "no chain");
}

#[test]
fn several_anchors_each_authenticate_their_own() {
    let (ours, theirs) = (Authority::anchor("ours"), Authority::anchor("theirs"));
    let a = ours.issue(&Wish::named("a.test"));
    let b = theirs.issue(&Wish::named("b.test"));
    let both = |own: &Issued| AuthSettings {
        local: local(own, &[], Family::Any),
        remote: remote(trust(&[&ours, &theirs], Revocation::Relaxed, Vec::new())),
        ..AuthSettings::default()
    };
    let mut joined = world(both(&a), both(&b));
    joined.run(SECOND);
    joined.assert_agreement(1);
    assert_refused_by_b(worlds(both(&a), auth(&b, &[], &theirs)), "no chain");
}

/// An authority of the same name with another key signs nothing for us.
#[test]
fn an_impostor_of_the_same_name_is_refused() {
    let (anchor, _, b) = house();
    let a = Authority::anchor("anchor").issue(&Wish::named("a.test"));
    assert_refused_by_b(
        worlds(auth(&a, &[], &anchor), auth(&b, &[], &anchor)),
        "InvalidSignature",
    );
}

#[test]
fn rfc5280_section_4_1_2_5_validity_counts_by_the_wall_clock() {
    let (anchor, a, b) = house();
    let pair = || worlds(auth(&a, &[], &anchor), auth(&b, &[], &anchor));
    let year = Duration::from_secs(366 * 86400);
    for (time, why) in [(NOON + year, "expired"), (NOON - year, "not valid yet")] {
        let mut late = pair();
        for late in &mut late {
            late.hosts[B].engine.set_time_of_day(late.now, time);
        }
        // The anchor is no longer good either: then nobody leads anywhere.
        for reason in refusals(late) {
            let reason = reason.unwrap();
            assert!(
                reason.contains(why) || reason.contains("no chain"),
                "{reason}"
            );
        }
    }
    let expired = anchor.issue(&Wish::named("a.test").with(|params| {
        params.not_after = date_time_ymd(2026, 5, 31);
    }));
    assert_refused_by_b(
        worlds(auth(&expired, &[], &anchor), auth(&b, &[], &anchor)),
        "expired",
    );
    let early = anchor.issue(&Wish::named("a.test").with(|params| {
        params.not_before = date_time_ymd(2026, 6, 2);
    }));
    assert_refused_by_b(
        worlds(auth(&early, &[], &anchor), auth(&b, &[], &anchor)),
        "not valid yet",
    );
    for first in [A, B] {
        let mut ends = [
            with(A, auth(&a, &[], &anchor)),
            with(B, auth(&b, &[], &anchor)),
        ];
        for (host, settings) in ends.iter_mut().enumerate() {
            settings.connections[0].children[0].start = host == first;
        }
        let [ours, theirs] = ends;
        let mut clockless = World::new(7, ours, theirs);
        let now = clockless.now;
        clockless.hosts[A].engine.set_time_of_day(now, NOON);
        assert_refused(clockless, B, "time of day");
    }
}

/// RFC 4945 section 3.1: the identity asserted is in the certificate.
#[test]
fn rfc4945_section_3_1_the_certificate_must_be_for_the_identity() {
    let (anchor, a, b) = house();
    let pair = |id: &str, wish: &Wish, remote_id: &str| {
        let own = anchor.issue(wish);
        let (mut ours, mut theirs) = (
            with(A, auth(&own, &[], &anchor)),
            with(B, auth(&b, &[], &anchor)),
        );
        ours.connections[0].local_id = id.parse().unwrap();
        theirs.connections[0].remote_id = remote_id.parse().unwrap();
        worlds_of(&ours, &theirs)
    };
    let rich = || {
        Wish::named("a.test").with(|params| {
            let names = &mut params.subject_alt_names;
            names.push(SanType::Rfc822Name("user@a.test".try_into().unwrap()));
            names.push(SanType::IpAddress(IpAddr::from([192, 0, 2, 1])));
            names.push(SanType::IpAddress("2001:db8::1".parse().unwrap()));
            names.push(SanType::DnsName("*.wild.test".try_into().unwrap()));
        })
    };
    let dn = "C=CH, O=lab, CN=a.test";
    for id in [
        "a.test",
        "A.TEST",
        "user@a.test",
        "192.0.2.1",
        "2001:db8::1",
        dn,
    ] {
        for remote_id in [id, "%any"] {
            for mut good in pair(id, &rich(), remote_id) {
                good.run(2 * SECOND);
                assert_eq!(refusal(&good, B), None, "{id}");
                good.assert_agreement(1);
            }
        }
    }
    let wrong = [
        "c.test",
        "x.wild.test",
        "*.wild.test",
        "root@a.test",
        "192.0.2.2",
        "@#6162",
    ];
    for id in wrong.into_iter().chain([
        "C=CH, O=lab, CN=b.test",
        "C=CH, CN=a.test",
        "C=CH, O=lab, CN=*",
    ]) {
        assert_refused_by_b(pair(id, &rich(), "%any"), "is not for");
    }
    for mut masked in pair(dn, &rich(), "C=CH, O=lab, CN=*") {
        masked.run(2 * SECOND);
        masked.assert_agreement(1);
    }
    // As responder it looks for a connection, as initiator it has one.
    let [as_responder, as_initiator] = refusals(pair(dn, &rich(), "C=CH, O=other, CN=*"));
    assert!(as_responder.unwrap().contains("no connection"));
    assert!(as_initiator.is_some());
    // A common name is no alternative name.
    let nameless = Wish::named("a.test").with(|params| params.subject_alt_names.clear());
    assert_refused_by_b(pair("a.test", &nameless, "%any"), "is not for");
    drop(a);
}

#[test]
fn a_peer_that_the_initiator_did_not_mean_is_refused_and_told() {
    let (anchor, a, _) = house();
    let other = anchor.issue(&Wish::named("c.test"));
    let mut theirs = with(B, auth(&other, &[], &anchor));
    theirs.connections[0].local_id = "c.test".parse().unwrap();
    let mut ours = with(A, auth(&a, &[], &anchor));
    ours.connections[0].remote_id = "b.test".parse().unwrap();
    let mut world = world_of(ours, theirs);
    world.run(SECOND);
    assert!(world.ike_sas(A).is_empty());
    // It insisted on b.test in IDr, which B is not.
    assert!(refusal(&world, B).unwrap().contains("no connection"));
}

#[test]
fn rfc5280_section_6_3_revoked_certificates_are_refused() {
    let anchor = Authority::anchor("anchor");
    let middle = anchor.below_with("middle", |params| {
        params.serial_number = Some(SerialNumber::from(50));
    });
    let wish = |serial: u64| {
        Wish::named("a.test").with(move |params| {
            params.serial_number = Some(SerialNumber::from(serial));
        })
    };
    let b = anchor.issue(&Wish::named("b.test"));
    let good = middle.issue(&wish(7));
    let bad = middle.issue(&wish(8));
    let fresh = || Date(2026, 12, 1);
    let stale = || Date(2026, 3, 1);
    let check = |own: &Issued, revocation, lists| {
        let of_b = AuthSettings {
            remote: remote(trust(&[&anchor], revocation, lists)),
            ..auth(&b, &[], &anchor)
        };
        let [as_responder, as_initiator] = refusals(worlds(auth(own, &[&middle], &anchor), of_b));
        assert_eq!(as_responder, as_initiator);
        as_responder
    };
    let of_middle = |until| middle.revoke(&[8, 9], until);
    let of_anchor = |serials: &[u64]| anchor.revoke(serials, fresh());
    use Revocation::{IfUri, Relaxed, Strict};
    for revocation in [Relaxed, IfUri, Strict] {
        let lists = || vec![of_middle(fresh()), of_anchor(&[])];
        assert_eq!(check(&good, revocation, lists()), None, "{revocation:?}");
        let refused = check(&bad, revocation, lists()).unwrap();
        assert!(refused.contains("revoked"), "{refused}");
        // The intermediate was revoked, and with it all that it issued.
        let refused = check(
            &good,
            revocation,
            vec![of_middle(fresh()), of_anchor(&[50])],
        );
        assert!(refused.unwrap().contains("revoked"));
    }
    // Without a list of the issuer, or with an old one.
    assert_eq!(check(&good, Relaxed, vec![]), None);
    assert_eq!(check(&good, IfUri, vec![]), None, "it names no CRL");
    assert_eq!(check(&good, Relaxed, vec![of_middle(stale())]), None);
    assert!(
        check(&bad, Relaxed, vec![of_middle(stale())])
            .unwrap()
            .contains("revoked")
    );
    assert!(check(&good, Strict, vec![]).unwrap().contains("no CRL"));
    assert!(
        check(&good, Strict, vec![of_middle(fresh())])
            .unwrap()
            .contains("no CRL")
    );
    let old = check(&good, Strict, vec![of_middle(stale()), of_anchor(&[])]);
    assert!(old.unwrap().contains("too old"));
    // Another authority of the same name cannot revoke.
    let forged = Authority::anchor("other")
        .below("middle")
        .revoke(&[7], fresh());
    assert!(check(&good, Relaxed, vec![forged]).is_some_and(|why| !why.contains("revoked")));
}

/// What B says of A's chain in either role; `None` if it was accepted.
fn attempt(own: &Issued, chain: &[&Authority], anchor: &Authority, b: &Issued) -> Option<String> {
    let worlds = worlds(auth(own, chain, anchor), auth(b, &[], anchor));
    let [as_responder, as_initiator] = refusals(worlds);
    assert_eq!(as_responder, as_initiator);
    as_responder
}

#[test]
fn rfc4945_section_5_1_3_certificates_for_other_uses_are_refused() {
    let anchor = Authority::anchor("anchor");
    let b = anchor.issue(&Wish::named("b.test"));
    let attempt = |own: &Issued, chain: &[&Authority]| attempt(own, chain, &anchor, &b);
    let usage = |purpose: ExtendedKeyUsagePurpose| {
        let wish = Wish::named("a.test").with(|p| p.extended_key_usages = vec![purpose]);
        attempt(&anchor.issue(&wish), &[])
    };
    use ExtendedKeyUsagePurpose as Purpose;
    let ike = Purpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    for good in [ike, Purpose::Any, Purpose::ServerAuth, Purpose::ClientAuth] {
        assert_eq!(usage(good.clone()), None, "{good:?}");
    }
    assert!(
        usage(Purpose::CodeSigning)
            .unwrap()
            .contains("extended key usage")
    );
    let key_usage = |usage| {
        let wish = Wish::named("a.test").with(|params| params.key_usages = vec![usage]);
        attempt(&anchor.issue(&wish), &[])
    };
    assert_eq!(key_usage(KeyUsagePurpose::DigitalSignature), None);
    assert!(
        key_usage(KeyUsagePurpose::KeyEncipherment)
            .unwrap()
            .contains("key usage")
    );
}

#[test]
fn rfc5280_section_4_2_1_constraints_of_authorities_are_kept() {
    let anchor = Authority::anchor("anchor");
    let b = anchor.issue(&Wish::named("b.test"));
    let attempt = |own: &Issued, chain: &[&Authority]| attempt(own, chain, &anchor, &b);
    // Who is no authority cannot issue, with or without the flag for signing certificates.
    let idle = anchor.below_with("idle", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let refused = attempt(&idle.issue(&Wish::named("a.test")), &[&idle]);
    assert!(refused.unwrap().contains("may not issue"));
    let peer = anchor.below_with("peer", |params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    let refused = attempt(&peer.issue(&Wish::named("a.test")), &[&peer]);
    assert!(refused.unwrap().contains("may not issue"));
    let narrow = anchor.below_with("narrow", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    });
    let deeper = narrow.below("deeper");
    let refused = attempt(&deeper.issue(&Wish::named("a.test")), &[&deeper, &narrow]);
    assert!(refused.unwrap().contains("PathLen"));
    for (permitted, good) in [("test", true), ("a.test", true), ("example", false)] {
        let named = anchor.below_with("named", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![
                    GeneralSubtree::DnsName(permitted.to_owned()),
                    GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([192, 0, 2, 0], 24)),
                ],
                excluded_subtrees: Vec::new(),
            });
        });
        let refused = attempt(&named.issue(&Wish::named("a.test")), &[&named]);
        assert_eq!(refused.is_none(), good, "{permitted}: {refused:?}");
    }
    let unknown = Wish::named("a.test").with(|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    assert!(
        attempt(&anchor.issue(&unknown), &[])
            .unwrap()
            .contains("Critical")
    );
    let itself = Issued {
        certificate: anchor.certificate.clone(),
        key: b.key.clone(),
    };
    assert!(attempt(&itself, &[]).is_some(), "an authority is no peer");
}

/// A certificate is public: who shows it without its key is nobody.
#[test]
fn a_certificate_without_its_key_proves_nothing() {
    let (anchor, a, b) = house();
    let thief = Issued {
        certificate: a.certificate.clone(),
        key: b.key.clone(),
    };
    assert_refused_by_b(
        worlds(auth(&thief, &[], &anchor), auth(&b, &[], &anchor)),
        "wrong signature",
    );
    let rsa = anchor.issue(&Wish::named("a.test").by(&rcgen::PKCS_RSA_SHA256));
    let other_kind = Issued {
        certificate: rsa.certificate,
        key: a.key,
    };
    let refused = worlds(auth(&other_kind, &[], &anchor), auth(&b, &[], &anchor));
    assert_refused_by_b(refused, "another kind");
}

#[test]
fn secrets_do_not_open_a_connection_of_certificates_nor_the_other_way() {
    let (anchor, a, b) = house();
    let mut psk = with(A, AuthSettings::default());
    psk.secrets = settings(A).secrets;
    let mut pubkey = with(B, auth(&b, &[], &anchor));
    pubkey.secrets = settings(B).secrets;
    assert_refused(
        world_of(psk, pubkey),
        B,
        "by pre-shared key, not by certificate",
    );
    let mut psk = with(B, AuthSettings::default());
    psk.secrets = settings(B).secrets;
    let mut pubkey = with(A, auth(&a, &[], &anchor));
    pubkey.secrets = settings(A).secrets;
    assert_refused(
        world_of(pubkey, psk),
        B,
        "does not authenticate by pre-shared key",
    );
}

/// RFC 7296 section 2.15: "there is no requirement that the initiator and responder sign with the
/// same cryptographic algorithms".
#[test]
fn rfc7296_section_2_15_the_two_ends_may_prove_themselves_differently() {
    let (anchor, _, b) = house();
    let mut ours = with(
        A,
        AuthSettings {
            remote: auth(&b, &[], &anchor).remote,
            ..AuthSettings::default()
        },
    );
    let mut theirs = with(
        B,
        AuthSettings {
            local: auth(&b, &[], &anchor).local,
            ..AuthSettings::default()
        },
    );
    (ours.secrets, theirs.secrets) = (settings(A).secrets, settings(B).secrets);
    let mut world = world_of(ours, theirs);
    world.run(SECOND);
    world.assert_agreement(1);
}

/// What the standby knows of the peer is what the dead member knew; with a certificate of its own
/// it goes on, and shows that one at the next IKE_AUTH.
#[test]
fn failover_to_a_member_with_another_certificate() {
    for host in [A, B] {
        let peer = 1 - host;
        let (anchor, a, b) = house();
        let mut world = world(auth(&a, &[], &anchor), auth(&b, &[], &anchor));
        world.run(SECOND);
        let proven = |world: &World| {
            let status = world.hosts[host].engine.status(world.now);
            (
                status[0].authenticated.clone(),
                status[0].certificate.clone(),
            )
        };
        let before = proven(&world);
        assert!(before.1.is_some());
        let ike = world.ike(host);
        // The other member has a certificate of another authority, which the peer does not believe.
        let other = Authority::anchor("other");
        let spare = other.issue(&Wish::named(["a.test", "b.test"][host]));
        let connection = &mut world.hosts[host].settings.connections[0];
        connection.auth = auth(&spare, &[], &anchor);
        world.fail_over(host, Resume::Exact);
        world.set_time_of_day(NOON);
        assert_eq!(world.ike(host), ike, "no new IKE_AUTH");
        assert_eq!(proven(&world), before);
        world.input(host, Input::RekeyIke(ike));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_eq!(proven(&world), before, "the successor knows it too");
        // A new IKE_AUTH needs a certificate that the peer believes.
        let ike = world.ike(A);
        world.input(A, Input::Terminate { ike });
        world.run(SECOND);
        assert_eq!(refusal(&world, peer), None);
        world.input(
            A,
            Input::Initiate {
                connection: "peer".to_owned(),
                child: None,
            },
        );
        world.run(SECOND);
        assert!(refusal(&world, peer).unwrap().contains("no chain"));
    }
}

/// Nobody is asked to parse what cannot be a certificate of IKE.
#[test]
fn a_certificate_is_whole_or_none() {
    let (_, a, _) = house();
    let der = a.certificate.der();
    for cut in 0..der.len() {
        assert!(Certificate::parse(&der[..cut]).is_err(), "{cut}");
    }
    let mut longer = der.to_vec();
    longer.push(0);
    assert!(Certificate::parse(&longer).is_err());
    assert!(Certificate::parse(&[0x30; 20_000]).is_err());
}

/// Chains that are long, or lead in circles through many authorities of one name, end.
#[test]
fn chains_without_end_are_refused() {
    let (anchor, _, b) = house();
    let first = Authority::anchor("same");
    let mut circle = vec![first];
    for _ in 0..11 {
        let next = circle[circle.len() - 1].below("same");
        circle.push(next);
    }
    let a = circle[11].issue(&Wish::named("a.test"));
    // The search for a way through them would keep everything else from being done.
    for (length, why) in [(12, "more than 10"), (9, "authorities of one name")] {
        let chain: Vec<&Authority> = circle.iter().rev().take(length).collect();
        assert_refused_by_b(
            worlds(auth(&a, &chain, &anchor), auth(&b, &[], &anchor)),
            why,
        );
    }
}

/// Only a peer that has agreed on keys gets that far, and it gets one answer.
#[test]
fn a_refused_proof_is_answered_once_and_leaves_nothing() {
    let (anchor, _, b) = house();
    let a = Authority::anchor("other").issue(&Wish::named("a.test"));
    let mut world = world(auth(&a, &[], &anchor), auth(&b, &[], &anchor));
    world.run(Duration::from_secs(40));
    let refused = |event: &Event| matches!(event, Event::AuthenticationFailed { .. });
    let told = world.hosts[A].count(refused);
    assert_eq!(
        world.hosts[B].count(refused),
        told,
        "one refusal for each attempt"
    );
    assert!(world.hosts[B].records.is_empty() && world.hosts[A].records.is_empty());
    let half_open = world.hosts[B].engine.status(world.now);
    assert!(half_open.is_empty(), "{half_open:?}");
}

/// What was good a moment ago is not verified again: not for other octets, nor after another list,
/// nor when something of it has expired, nor before it was looked at.
#[test]
fn a_chain_that_was_good_costs_no_signature_until_a_list_or_a_clock_says_otherwise() {
    const DAY: u64 = 86_400;
    let anchor = Authority::anchor("anchor");
    let middle = anchor.below_with("middle", |params| {
        params.serial_number = Some(SerialNumber::from(50));
    });
    let peer = middle.issue(&Wish::named("a.test"));
    let chain = [
        peer.certificate.der().as_ref(),
        middle.certificate.der().as_ref(),
    ];
    let lists = |revoked: &[u64]| {
        vec![
            middle.revoke(&[], Date(2026, 7, 1)),
            anchor.revoke(revoked, Date(2026, 8, 1)),
        ]
    };
    for (revocation, fresh_for) in [(Revocation::Relaxed, 213), (Revocation::Strict, 29)] {
        let believed = trust(&[&anchor], revocation, lists(&[]));
        let look = |chain: &[&[u8]], days: i64| {
            let time = NOON.as_secs().saturating_add_signed(days * DAY as i64);
            let share = Share::new(0);
            let good = believed.verify(chain, Duration::from_secs(time)).is_ok();
            (good, share.used() > 100)
        };
        assert_eq!(look(&chain, 0), (true, true));
        assert_eq!(look(&chain, 0), (true, false));
        assert_eq!(look(&chain, fresh_for), (true, false), "{revocation:?}");
        assert_eq!(look(&chain, -1), (true, true));
        let (good, verified) = look(&chain, fresh_for + 2);
        assert!(!good && verified, "{revocation:?}");
        // What is bad is looked at each time.
        assert_eq!(look(&chain[..1], 0), (false, true));
        assert_eq!(look(&chain[..1], 0), (false, true));
        assert_eq!(look(&[chain[0], chain[1], chain[1]], 0), (true, true));
        believed.replace_crls(lists(&[50]));
        let (good, verified) = look(&chain, 0);
        assert!(!good && verified);
        believed.replace_crls(lists(&[]));
        assert_eq!(look(&chain, 0), (true, true));
    }
}
