//! tshark 4.0 reads what two engines said, with their key log: extensions that no peer of the
//! scenarios has, or that it has in one role alone. Without tshark
//! there is nothing to read and it says so; `testbeds/test` runs them with it.
//!
//! IKE_INTERMEDIATE has keys, and a table, of its own: the scenario `ike-strongswan` reads it. 4.0 has
//! no name for IKE_FOLLOWUP_KE and for notifications after 16431; it opens and divides them all the same.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use hitless::ike::Input;
use hitless::ike::settings::Childless;

use crate::world::{A, B, Packet, SECOND, World, settings};
use crate::{
    counter_sync, crash, eap, followup, fragments, mobike, ppk, reauth, redirect, resume, transport,
};

const INIT: u8 = 34;
const AUTH: u8 = 35;
const CREATE: u8 = 36;
const INFORMATIONAL: u8 = 37;
const SESSION_RESUME: u8 = 38;
const FOLLOWUP: u8 = 44;
/// An encrypted payload, and an encrypted fragment.
const ENCRYPTED: [u8; 2] = [46, 53];

fn installed() -> bool {
    let there = Command::new("tshark").arg("--version").output().is_ok();
    if !there {
        eprintln!("not tested: this takes tshark");
    }
    there
}

/// A message as tshark reads it.
#[derive(Debug)]
struct Message {
    exchange: u8,
    encrypted: bool,
    open: bool,
    /// Put together of fragments.
    whole: bool,
    notifies: Vec<u16>,
    eap: bool,
    faults: String,
}

const FIELDS: [&str; 9] = [
    "isakmp.exchangetype",
    "isakmp.nextpayload",
    "isakmp.enc.decrypted",
    "isakmp.fragments",
    "isakmp.notify.msgtype",
    "eap.code",
    "eap.len",
    "_ws.malformed",
    "_ws.expert.message",
];

impl Message {
    fn parse(line: &str) -> Message {
        let words: Vec<&str> = line.split('\t').collect();
        let [
            exchange,
            next,
            open,
            whole,
            notifies,
            eap,
            length,
            malformed,
            expert,
        ] = words[..]
        else {
            panic!("not a message: {line}");
        };
        // A request for the identity without a prompt has five octets (RFC 3748 section 5.1), and 4.0
        // looks for a prompt.
        let malformed = if length == "5" { "" } else { malformed };
        // Other notes of its experts are no faults: a type that they have no name for.
        let wrong = expert.contains("incorrect");
        let faults = [malformed, if wrong { expert } else { "" }].concat();
        let first: u8 = next.split(',').next().unwrap().parse().unwrap();
        Message {
            exchange: exchange.parse().unwrap(),
            encrypted: ENCRYPTED.contains(&first) || next.split(',').any(|n| n == "46"),
            open: !open.is_empty(),
            whole: !whole.is_empty(),
            notifies: notifies.split(',').filter_map(|n| n.parse().ok()).collect(),
            eap: !eap.is_empty(),
            faults,
        }
    }
}

/// Octets of an Ethernet-less capture: IPv4, UDP and what RFC 3948 puts before IKE on port 4500.
fn frame(packet: &Packet) -> Vec<u8> {
    let marker: &[u8] = match [packet.from.port(), packet.to.port()].contains(&4500) {
        true => &[0; 4],
        false => &[],
    };
    let udp = (8 + marker.len() + packet.payload.len()) as u16;
    let mut out = vec![0x45, 0];
    out.extend((20 + udp).to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("these worlds have IPv4"),
    };
    out.extend(octets(packet.from));
    out.extend(octets(packet.to));
    out.extend(packet.from.port().to_be_bytes());
    out.extend(packet.to.port().to_be_bytes());
    out.extend(udp.to_be_bytes());
    out.extend([0, 0]);
    out.extend(marker);
    out.extend(&packet.payload);
    out
}

fn capture(packets: &[Packet]) -> Vec<u8> {
    // LINKTYPE_RAW.
    let head: [u32; 6] = [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65535, 101];
    let mut out: Vec<u8> = Vec::new();
    // The second word is the version, 2.4.
    head.iter().for_each(|word| out.extend(word.to_be_bytes()));
    for (second, packet) in (0u32..).zip(packets) {
        let frame = frame(packet);
        let length = frame.len() as u32;
        [second, 0, length, length]
            .iter()
            .for_each(|word| out.extend(word.to_be_bytes()));
        out.extend(frame);
    }
    out
}

/// What tshark makes of all that a world has said, with these lines of a key log.
fn with_keys(name: &str, world: &World, lines: &str) -> Vec<Message> {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tshark-{name}"));
    let profile = home.join(".config/wireshark");
    std::fs::create_dir_all(&profile).unwrap();
    std::fs::write(profile.join("ikev2_decryption_table"), lines).unwrap();
    let file = home.join("ike.pcap");
    std::fs::write(&file, capture(&world.captured)).unwrap();
    let mut command = Command::new("tshark");
    command.env("HOME", &home).arg("-r").arg(&file);
    command.args(["-n", "-Y", "isakmp", "-T", "fields"]);
    FIELDS.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let done = command.output().expect("tshark is installed");
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    let messages: Vec<Message> = text.lines().map(Message::parse).collect();
    assert_eq!(
        messages.len(),
        world.captured.len(),
        "every datagram is IKE"
    );
    messages
}

/// The same with all the lines, and nothing is dark, damaged or malformed.
fn read(name: &str, world: &World) -> Vec<Message> {
    let lines: String = world.key_log.iter().map(String::as_str).collect();
    let messages = with_keys(name, world, &lines);
    for message in &messages {
        assert!(message.faults.is_empty(), "{name}: {message:?}");
        assert_eq!(message.open, message.encrypted, "{name}: {message:?}");
    }
    messages
}

/// Each of these notifications is in a message of its exchange.
fn holds(messages: &[Message], wanted: &[(u8, u16)]) {
    for (exchange, notify) in wanted {
        let mut of = messages.iter().filter(|m| m.exchange == *exchange);
        let found = of.any(|m| m.notifies.contains(notify));
        assert!(found, "{notify} in exchange {exchange}: {messages:#?}");
    }
}

#[test]
fn rfc5723_ike_session_resume_and_the_ike_auth_after_it_are_read() {
    if !installed() {
        return;
    }
    let mut world = resume::world(1, |_, _| {});
    resume::crash(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    let messages = read("resume", &world);
    // TICKET_REQUEST, TICKET_LT_OPAQUE; then TICKET_OPAQUE, and a new ticket.
    let wanted = [(AUTH, 16410), (AUTH, 16409), (SESSION_RESUME, 16413)];
    holds(&messages, &wanted);
    let resumed = messages.iter().position(|m| m.exchange == SESSION_RESUME);
    holds(&messages[resumed.unwrap()..], &[(AUTH, 16409)]);
    assert!(
        messages[resumed.unwrap()..]
            .iter()
            .all(|m| m.exchange != INIT)
    );
}

#[test]
fn rfc9611_child_sas_for_each_resource_are_read() {
    if !installed() {
        return;
    }
    let [a, b] = [A, B].map(|host| {
        let mut settings = settings(host);
        settings.connections[0].children[0].per_cpu_sas = 3;
        settings
    });
    let mut world = World::new(2, a, b);
    world.run(SECOND);
    world.assert_agreement(3);
    // SA_RESOURCE_INFO.
    let messages = read("resource", &world);
    holds(&messages, &[(AUTH, 16444), (CREATE, 16444)]);
    let told = messages
        .iter()
        .filter(|m| m.exchange == CREATE && m.notifies.contains(&16444));
    assert_eq!(told.count(), 4, "two requests and two responses");
}

#[test]
fn a_responder_s_update_of_its_address_is_read() {
    if !installed() {
        return;
    }
    let mut world = mobike::up(3);
    let before = world.captured.len();
    mobike::relocate(&mut world, B, mobike::moved(B));
    world.run(SECOND);
    let messages = read("responder-moves", &world);
    holds(&messages, &[(AUTH, 16396)]);
    // UPDATE_SA_ADDRESSES, from where B is now.
    holds(&messages[before..before + 1], &[(INFORMATIONAL, 16400)]);
    assert_eq!(world.captured[before].from.ip(), mobike::moved(B));
}

#[test]
fn rfc5685_redirects_of_ike_sa_init_and_of_informational_are_read() {
    if !installed() {
        return;
    }
    let mut world = redirect::world(4, &[Some(3), None, None], |_| ());
    world.run(SECOND);
    let (ike, to) = (world.ike(B), redirect::gateway(4));
    world.input(B, Input::Redirect { ike, to });
    world.run(5 * SECOND);
    world.assert_agreement(1);
    let messages = read("redirect", &world);
    // REDIRECT_SUPPORTED, REDIRECT, REDIRECTED_FROM.
    let wanted = [
        (INIT, 16406),
        (INIT, 16407),
        (INIT, 16408),
        (INFORMATIONAL, 16407),
    ];
    holds(&messages, &wanted);
}

#[test]
fn rfc5685_section_6_a_redirect_of_ike_auth_is_read() {
    if !installed() {
        return;
    }
    let mut world = redirect::by_ike_auth(4);
    world.run(2 * SECOND);
    world.assert_agreement(1);
    holds(
        &read("redirect-auth", &world),
        &[(AUTH, 16407), (INIT, 16408)],
    );
}

#[test]
fn rfc6311_synchronisation_is_read() {
    if !installed() {
        return;
    }
    let (mut world, old) = counter_sync::behind(9, 1);
    let replay_delta = Some(77);
    let resume = hitless::ike::Resume::MessageIdSync { replay_delta };
    world.fail_over_with(A, old, resume);
    world.run(3 * SECOND);
    let wanted = [
        (AUTH, 16420),
        (INFORMATIONAL, 16422),
        (INFORMATIONAL, 16423),
    ];
    holds(&read("sync", &world), &wanted);
}

#[test]
fn rfc6290_tokens_are_read_where_they_are_given_and_where_they_are_shown() {
    if !installed() {
        return;
    }
    let mut world = crash::established(1);
    let old = world.ike(A);
    world.restart(B);
    world.input(A, Input::Liveness(old));
    world.run(SECOND);
    let messages = read("token", &world);
    holds(&messages, &[(AUTH, 16419), (INFORMATIONAL, 16419)]);
    let shown = messages
        .iter()
        .filter(|m| m.exchange == INFORMATIONAL && !m.encrypted);
    assert!(
        shown.clone().all(|m| m.notifies.contains(&4)),
        "INVALID_IKE_SPI"
    );
    assert!(shown.count() > 0, "in clear");
}

/// RFC 8784 mixes the PPK into SK_d, SK_pi and SK_pr alone: what protects messages has nothing of it.
#[test]
fn rfc8784_messages_before_and_after_a_ppk_are_read() {
    if !installed() {
        return;
    }
    let both = ppk::ppk("p.test", "a key of 256 bits that both know", true);
    let mut world = ppk::world(both.clone(), both);
    world.assert_agreement(1);
    // Keys that come of the SK_d with the PPK.
    world.input(A, Input::RekeyIke(world.ike(A)));
    world.run(SECOND);
    world.input(B, Input::RekeyChild(world.sa(B).id));
    world.run(SECOND);
    assert_eq!(world.key_log.len(), 2);
    // USE_PPK, PPK_IDENTITY, REKEY_SA.
    holds(
        &read("ppk", &world),
        &[(INIT, 16435), (AUTH, 16436), (CREATE, 16393)],
    );
}

#[test]
fn rfc6023_a_childless_ike_auth_is_read() {
    if !installed() {
        return;
    }
    let world = transport::childless(Childless::Force, Childless::Allow);
    let messages = read("childless", &world);
    holds(&messages, &[(INIT, 16418)]);
    assert_eq!(messages.iter().filter(|m| m.exchange == CREATE).count(), 2);
}

#[test]
fn rfc4478_a_lifetime_and_the_reauthentication_are_read() {
    if !installed() {
        return;
    }
    let mut world = reauth::established(Duration::ZERO, reauth::REAUTH);
    world.run(reauth::REAUTH);
    assert_eq!(world.key_log.len(), 2);
    holds(&read("lifetime", &world), &[(AUTH, 16403)]);
}

/// Without IKE_INTERMEDIATE, whose keys are in other tables.
#[test]
fn rfc9370_ike_followup_ke_is_read() {
    if !installed() {
        return;
    }
    let mut world = followup::established(1);
    world.captured.retain(|packet| packet.payload[18] != 43);
    followup::Rekey::Ike(A).start(&mut world);
    world.run(2 * SECOND);
    followup::Rekey::Child(B).start(&mut world);
    world.run(2 * SECOND);
    let messages = read("followup", &world);
    // ADDITIONAL_KEY_EXCHANGE.
    holds(&messages, &[(CREATE, 16441), (FOLLOWUP, 16441)]);
}

#[test]
fn rfc7296_section_2_16_eap_is_read() {
    if !installed() {
        return;
    }
    let messages = read("eap", &eap::up(1));
    assert!(messages.iter().filter(|m| m.eap && m.open).count() >= 6);
}

#[test]
fn rfc7383_fragments_are_put_together() {
    if !installed() {
        return;
    }
    let mut world = fragments::established(1, 150);
    world.input(B, Input::RekeyIke(world.ike(B)));
    world.run(2 * SECOND);
    let messages = read("fragments", &world);
    for exchange in [AUTH, CREATE] {
        assert!(messages.iter().any(|m| m.exchange == exchange && m.whole));
    }
}

/// With a key of another IKE SA nothing is read as if it were right.
#[test]
fn with_a_wrong_key_every_message_is_a_fault() {
    if !installed() {
        return;
    }
    let world = World::established(5);
    let line = world.key_log.first().unwrap();
    // The first digit of SK_ei and of SK_er, behind two SPIs of 16 digits; SPIs stay.
    let mut words: Vec<String> = line.split(',').map(str::to_owned).collect();
    for key in &mut words[2..4] {
        let other = if key.starts_with('0') { "1" } else { "0" };
        key.replace_range(..1, other);
    }
    let messages = with_keys("wrong", &world, &words.join(","));
    let encrypted = messages.iter().filter(|m| m.encrypted);
    assert!(encrypted.clone().count() >= 2);
    assert!(
        encrypted.clone().all(|m| !m.faults.is_empty()),
        "{messages:#?}"
    );
    // And without any key nothing is open.
    let dark = with_keys("none", &world, "");
    assert!(dark.iter().all(|m| !m.open), "{dark:#?}");
}
