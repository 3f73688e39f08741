//! Key exchange methods, ciphers and PRFs of the IKE SA; additional key exchanges (RFC 9370) in
//! IKE_INTERMEDIATE (RFC 9242).

use hitless::ike::settings::Cookies;
use hitless::ike::{Event, Input, Resume};
use hitless::keylog::KeyTable;

use crate::world::{A, B, SECOND, World, settings};

/// Both ends with these proposals for the IKE SA.
pub fn pair(seed: u64, ours: &[&str], theirs: &[&str]) -> World {
    let with = |host: usize, proposals: &[&str]| {
        let mut settings = settings(host);
        let parsed = proposals.iter().map(|text| text.parse().unwrap());
        settings.connections[0].proposals = parsed.collect();
        settings
    };
    World::new(seed, with(A, ours), with(B, theirs))
}

/// The exchange types of all that a host sent.
pub fn exchanges(world: &World, host: usize) -> Vec<u8> {
    let sent = world.hosts[host].sent.iter();
    sent.map(|datagram| datagram[18]).collect()
}

const PROPOSALS: [&str; 13] = [
    "aes128gcm16-prfsha256-x25519",
    "aes256gcm16-prfsha384-ecp256",
    "aes256gcm16-prfsha512-ecp384",
    "chacha20poly1305-prfsha256-ecp521",
    "chacha20poly1305-prfsha512-modp2048",
    "aes128-sha256-modp3072",
    "aes256-sha512-modp4096",
    "aes128-sha384-prfsha256-x25519",
    "aes256gcm16-prfsha256-x25519-ke1_mlkem768",
    "aes256-sha384-ecp384-ke1_mlkem768",
    "chacha20poly1305-prfsha384-x25519-ke1_ecp256-ke3_mlkem768",
    "aes128gcm16-prfsha256-mlkem768",
    "aes128gcm16-prfsha256-modp2048-ke2_x25519-ke7_ecp384",
];

#[test]
fn every_method_cipher_and_prf_establishes_and_rekeys_from_both_sides() {
    for proposal in PROPOSALS {
        let mut world = pair(3, &[proposal], &[proposal]);
        world.run(SECOND);
        world.assert_agreement(1);
        for host in [A, B] {
            let ike = world.ike(host);
            world.input(host, Input::RekeyIke(ike));
            world.run(2 * SECOND);
            world.assert_agreement(1);
            assert_ne!(world.ike(host), ike, "{proposal}");
        }
        world.fail_over(B, Resume::Exact);
        world.run(30 * SECOND);
        world.assert_agreement(1);
        let ike = world.ike(A);
        world.input(A, Input::Liveness(ike));
        world.run(SECOND);
        assert!(world.hosts[A].saw(|e| matches!(e, Event::LivenessConfirmed { .. })));
    }
}

/// RFC 9370 section 2.2.2: one IKE_INTERMEDIATE for each, Message IDs 1 to n, then IKE_AUTH.
#[test]
fn rfc9370_section_2_2_2_each_additional_key_exchange_has_an_exchange_of_its_own() {
    let proposal = "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp256";
    let mut world = pair(4, &[proposal], &[proposal]);
    world.run(SECOND);
    // ML-KEM-768 is longer than 1280 octets allow: fragments.
    let sent = exchanges(&world, A);
    let without_repeats: Vec<u8> = sent.iter().fold(Vec::new(), |mut all, exchange| {
        if all.last() != Some(exchange) {
            all.push(*exchange);
        }
        all
    });
    assert_eq!(without_repeats, [34, 43, 35]);
    let ids: Vec<u32> = world.hosts[A]
        .sent
        .iter()
        .map(|d| u32::from_be_bytes([d[20], d[21], d[22], d[23]]))
        .collect();
    assert_eq!(ids.iter().max(), Some(&3));
    world.assert_agreement(1);
}

/// RFC 9370 section 2.2.1: a peer that knows nothing of it chooses among the other proposals.
#[test]
fn rfc9370_section_2_2_2_the_key_log_has_the_keys_of_each_exchange_if_it_is_wanted() {
    let proposal = "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp256";
    let logged = |wanted: bool| {
        let [a, b] = [A, B].map(|host| {
            let mut settings = settings(host);
            settings.connections[0].proposals = vec![proposal.parse().unwrap()];
            settings.key_log = wanted;
            settings
        });
        let mut world = World::new(8, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        [A, B].map(|host| {
            let events = world.hosts[host].events.iter();
            let lines = events.filter_map(|event| match event {
                Event::Keys(lines) => Some((lines.table(), lines.expose().to_owned())),
                _ => None,
            });
            lines.collect::<Vec<_>>()
        })
    };
    let [a, b] = logged(true);
    assert_eq!(a, b);
    let tables: Vec<KeyTable> = a.iter().map(|(table, _)| *table).collect();
    assert_eq!(tables, [1, 2].map(KeyTable::Intermediate));
    assert_ne!(a[0].1, a[1].1, "the keys change");
    assert_eq!(a[0].0.file(), "ikev2_decryption_table.intermediate-1");
    assert_eq!(logged(false), [Vec::new(), Vec::new()]);
}

#[test]
fn rfc9370_section_2_2_1_a_peer_without_additional_key_exchanges_gets_a_plain_ike_sa() {
    let hybrid = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
    let plain = "aes256gcm16-prfsha256-x25519";
    for (ours, theirs) in [
        (vec![hybrid, plain], vec![plain]),
        (vec![plain], vec![hybrid, plain]),
    ] {
        let mut world = pair(5, &ours, &theirs);
        world.run(SECOND);
        world.assert_agreement(1);
        assert!(!exchanges(&world, A).contains(&43));
    }
    let mut world = pair(5, &[hybrid], &[plain]);
    world.run(SECOND);
    let refused = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("NO_PROPOSAL_CHOSEN"));
    assert!(world.hosts[A].saw(refused));
}

/// RFC 9242 section 3.3.2: AUTH covers IKE_INTERMEDIATE. What an attacker changes there is found
/// out at the latest in IKE_AUTH; ML-KEM's implicit rejection makes no error of its own.
#[test]
fn rfc9242_section_3_3_2_lost_and_repeated_exchanges_still_authenticate() {
    let proposal = "aes256-sha256-x25519-ke1_mlkem768-ke2_ecp384";
    for seed in 0..12 {
        let mut world = pair(seed, &[proposal], &[proposal]);
        world.faults.loss = 250;
        world.faults.duplication = 300;
        world.run(100 * SECOND);
        world.faults = Default::default();
        world.run(100 * SECOND);
        world.assert_agreement(1);
    }
}

/// RFC 7296 section 2.6: a cookie is demanded for MODP before there are many half-open IKE SAs.
#[test]
fn rfc7296_section_2_6_modp_needs_a_cookie_early_and_x25519_does_not() {
    for (proposal, cookie) in [
        ("aes128-sha256-modp2048", true),
        ("aes128-sha256-x25519", false),
    ] {
        let mut both = [settings(A), settings(B)];
        for settings in &mut both {
            settings.connections[0].proposals = vec![proposal.parse().unwrap()];
            // A quarter is none at all.
            settings.limits.cookie_threshold = 3;
        }
        let [a, b] = both;
        let mut world = World::new(6, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        let requests = exchanges(&world, A).iter().filter(|e| **e == 34).count();
        assert_eq!(requests, if cookie { 2 } else { 1 }, "{proposal}");
    }
}

/// RFC 7296 section 2.6.1: a cookie and another group; the cookie is brought back each time, and
/// neither makes the initiator forget the other.
#[test]
fn rfc7296_section_2_6_1_cookie_together_with_invalid_ke_payload() {
    let mut both = [settings(A), settings(B)];
    both[A].connections[0].proposals = ["ecp256", "x25519", "ecp384"]
        .map(|method| format!("aes128-sha256-{method}").parse().unwrap())
        .to_vec();
    both[B].connections[0].proposals = vec!["aes128-sha256-ecp384".parse().unwrap()];
    both[B].limits.cookies = Cookies::Always;
    let [a, b] = both;
    let mut world = World::new(7, a, b);
    world.run(SECOND);
    world.assert_agreement(1);
    let requests: Vec<&Vec<u8>> = world.hosts[A].sent.iter().filter(|d| d[18] == 34).collect();
    // Without anything, with the cookie, and with cookie and group.
    assert_eq!(requests.len(), 3);
    // The cookie stands first (notify, payload type 41).
    assert_eq!(
        requests.iter().map(|d| d[16]).collect::<Vec<_>>(),
        [33, 41, 41]
    );
}

/// RFC 7296 section 1.3: the retry names the group that the responder wants, among several.
#[test]
fn rfc7296_section_1_2_invalid_ke_payload_leads_to_the_group_of_the_responder() {
    for wanted in ["ecp384", "ecp521", "modp2048", "x25519"] {
        let all = ["ecp256", "ecp384", "ecp521", "modp2048", "x25519"];
        let proposal = |method: &str| format!("aes128-sha256-{method}").parse().unwrap();
        let mut both = [settings(A), settings(B)];
        both[A].connections[0].proposals = all.map(proposal).to_vec();
        both[B].connections[0].proposals = vec![proposal(wanted)];
        let [a, b] = both;
        let mut world = World::new(8, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        assert_eq!(exchanges(&world, A).iter().filter(|e| **e == 34).count(), 2);
    }
}
