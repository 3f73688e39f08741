//! Logins between our own two sides, and what a hostile one of them can say.

use proptest::prelude::*;

use super::packet::{self, Challenge, MSCHAPV2, NAK, OP_FAILURE, OP_SUCCESS, Packet, Response};
use super::*;
use hitless_sa::Entropy;

/// Counts, so that every draw differs.
struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            self.0 = self.0.wrapping_add(1);
            *octet = self.0;
        }
    }
}

fn user(name: &str) -> Identification {
    Identification::user(name.as_bytes()).unwrap()
}

fn secret(name: &str, password: &str) -> Secret {
    Secret {
        ids: vec![user(name)],
        secret: Zeroizing::new(password.as_bytes().to_vec()),
    }
}

fn secrets() -> Vec<Secret> {
    vec![secret("alice", "wonderland"), secret("Bob", "pässwörd")]
}

/// A gateway with the accounts of `secrets`, in the middle of a login.
struct Gateway {
    server: Server,
    entropy: Counter,
    secrets: Vec<Secret>,
}

impl Gateway {
    fn asks() -> (Gateway, Vec<u8>) {
        let mut entropy = Counter(40);
        let (server, packet) = Server::begin(&mut entropy, None);
        let secrets = secrets();
        let gateway = Gateway {
            server,
            entropy,
            secrets,
        };
        (gateway, packet)
    }

    fn takes(&mut self, packet: &[u8]) -> Answer {
        let accounts = Accounts {
            secrets: &self.secrets,
            welcome: &|_| true,
        };
        self.server.receive(&mut self.entropy, accounts, packet)
    }

    /// After a challenge to alice.
    fn challenged() -> (Gateway, Vec<u8>) {
        let (mut gateway, packet) = Gateway::asks();
        let identity = packet::response(packet[1], packet::IDENTITY, b"alice");
        let Answer::Request(challenge) = gateway.takes(&identity) else {
            panic!("no challenge");
        };
        (gateway, challenge)
    }
}

fn reply(client: &mut Client, secrets: &[Secret], packet: &[u8]) -> Result<Vec<u8>, String> {
    match client.receive(&mut Counter(90), secrets, packet)? {
        Reply::Response(packet) => Ok(packet),
        Reply::Done(_) => panic!("over"),
    }
}

/// How a login ends: the packets of the gateway, and the user or the reason.
fn log_in(name: &str, password: &str) -> (Vec<Vec<u8>>, Result<Identification, String>) {
    let (mut gateway, mut packet) = Gateway::asks();
    let mut client = Client::new(user(name));
    let known = [secret(name, password)];
    let mut sent = Vec::new();
    loop {
        sent.push(packet.clone());
        let response = reply(&mut client, &known, &packet).unwrap();
        match gateway.takes(&response) {
            Answer::Request(next) => packet = next,
            Answer::Failure(next, reason) => {
                sent.push(next.clone());
                let over = client.receive(&mut Counter(0), &known, &next);
                assert!(matches!(over, Err(why) if why.contains("EAP failure")));
                return (sent, Err(reason));
            }
            Answer::Success(next, login) => {
                sent.push(next.clone());
                let Ok(Reply::Done(msk)) = client.receive(&mut Counter(0), &known, &next) else {
                    panic!("the client does not see its success");
                };
                assert_eq!(msk, login.msk);
                assert!(msk.len() == 64 && login.still_counts(&gateway.secrets).is_some());
                return (sent, Ok(login.user));
            }
        }
    }
}

#[test]
fn rfc7296_section_2_16_who_knows_the_password_logs_in_and_both_have_the_key() {
    for (name, password, known) in [
        ("alice", "wonderland", "alice"),
        ("Bob", "pässwörd", "Bob"),
        // Policy knows one user, however the name is written.
        ("bob", "pässwörd", "Bob"),
    ] {
        let (sent, result) = log_in(name, password);
        assert_eq!(result, Ok(user(known)));
        assert_eq!(sent.len(), 4);
        assert_eq!(sent[3], [3, sent[2][1], 0, 4]);
    }
}

/// Nothing that leaves tells whether there is such a user.
#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let (wrong, why) = log_in("alice", "looking-glass");
    assert!(why.unwrap_err().contains("wrong password of alice"));
    let (unknown, why) = log_in("carol", "wonderland");
    assert!(why.unwrap_err().contains("no secret"));
    assert_eq!(wrong, unknown);
    let failure = String::from_utf8_lossy(&wrong[2][9..]).into_owned();
    assert!(failure.starts_with("E=691 R=0 C="), "{failure}");
    assert_eq!(wrong[3], [4, wrong[2][1], 0, 4]);
}

#[test]
fn rfc3748_section_4_1_a_response_to_another_request_ends_the_login() {
    let (mut gateway, packet) = Gateway::asks();
    for identifier in [packet[1].wrapping_add(1), packet[1].wrapping_sub(1)] {
        let identity = packet::response(identifier, packet::IDENTITY, b"alice");
        assert!(matches!(gateway.takes(&identity), Answer::Failure(..)));
    }
    // The same packet once more, for the next request.
    let (mut gateway, packet) = Gateway::asks();
    let identity = packet::response(packet[1], packet::IDENTITY, b"alice");
    assert!(matches!(gateway.takes(&identity), Answer::Request(_)));
    assert!(matches!(gateway.takes(&identity), Answer::Failure(..)));
}

#[test]
fn rfc3748_section_5_3_a_nak_and_other_methods_end_the_login() {
    for kind in [
        NAK,
        packet::NOTIFICATION,
        packet::IDENTITY,
        4,
        13,
        21,
        25,
        254,
    ] {
        let (mut gateway, challenge) = Gateway::challenged();
        let response = packet::response(challenge[1], kind, &[MSCHAPV2]);
        assert!(matches!(gateway.takes(&response), Answer::Failure(..)));
    }
}

/// No message but the one that is due is taken, and none that acknowledges what was not said.
#[test]
fn opcodes_out_of_turn_end_the_login() {
    for opcode in [0, 1, OP_SUCCESS, OP_FAILURE, 5, 7, 255] {
        let (mut gateway, challenge) = Gateway::challenged();
        let response = packet::response(challenge[1], MSCHAPV2, &[opcode]);
        assert!(matches!(gateway.takes(&response), Answer::Failure(..)));
        let (mut gateway, packet) = Gateway::asks();
        let response = packet::response(packet[1], MSCHAPV2, &[opcode]);
        assert!(matches!(gateway.takes(&response), Answer::Failure(..)));
    }
    for other in [
        packet::request(9, 1, b"alice"),
        packet::success(9),
        packet::failure(9),
    ] {
        let (mut gateway, _) = Gateway::asks();
        assert!(matches!(gateway.takes(&other), Answer::Failure(..)));
    }
}

/// After E=691 nothing helps, not even the right answer, and nothing follows the end.
#[test]
fn one_attempt_and_no_more() {
    let (mut gateway, challenge) = Gateway::challenged();
    let mut wrong = Client::new(user("alice"));
    let response = reply(&mut wrong, &[secret("alice", "no")], &challenge).unwrap();
    let Answer::Request(refusal) = gateway.takes(&response) else {
        panic!("no refusal");
    };
    let Packet::Request(asked) = Packet::read(&refusal).unwrap() else {
        panic!("no request");
    };
    assert_eq!(asked.data[0], OP_FAILURE);
    let mut right = Client::new(user("alice"));
    let mut again = reply(&mut right, &secrets(), &challenge).unwrap();
    again[1] = asked.identifier;
    for _ in 0..2 {
        assert!(matches!(gateway.takes(&again), Answer::Failure(..)));
        again = packet::response(asked.identifier, MSCHAPV2, &[OP_SUCCESS]);
    }
}

/// The name in the answer is the name that was given first; a domain in front changes nothing.
#[test]
fn nobody_logs_in_under_the_name_of_another() {
    for (identity, name, welcome) in [
        ("alice", "Bob", false),
        ("Bob", "alice", false),
        ("alice", "CORP\\alice", true),
        ("*", "*", false),
        ("%any", "%any", false),
        ("", "", false),
    ] {
        let (mut gateway, packet) = Gateway::asks();
        let given = packet::response(packet[1], packet::IDENTITY, identity.as_bytes());
        let Answer::Request(challenge) = gateway.takes(&given) else {
            panic!("no challenge");
        };
        let asked = Challenge::read(&challenge[5..]).unwrap();
        let password = match name.contains("alice") {
            true => "wonderland",
            false => "pässwörd",
        };
        let password = mschapv2::password_hash(password);
        let peer_challenge = [7; 16];
        let hashed = mschapv2::challenge_hash(&peer_challenge, &asked.challenge, name.as_bytes());
        let response = Response {
            id: asked.id,
            peer_challenge,
            nt_response: mschapv2::nt_response(&password, &hashed),
            name: name.as_bytes(),
        };
        let response = packet::response(challenge[1], MSCHAPV2, &response.write());
        let Answer::Request(result) = gateway.takes(&response) else {
            panic!("no result");
        };
        assert_eq!(result[5] == OP_SUCCESS, welcome, "{identity} {name}");
    }
}

#[test]
fn every_truncation_and_every_lying_length_is_refused() {
    let (_, challenge) = Gateway::challenged();
    let mut client = Client::new(user("alice"));
    let response = reply(&mut client, &secrets(), &challenge).unwrap();
    for end in 0..response.len() {
        let (mut gateway, _) = Gateway::challenged();
        assert!(matches!(
            gateway.takes(&response[..end]),
            Answer::Failure(..)
        ));
    }
    // EAP length, MS-CHAPv2-ID, MS-Length, Value-Size.
    for (at, change) in (2..4).chain(6..10).flat_map(|at| [(at, 1), (at, 0x80)]) {
        let mut wrong = response.clone();
        wrong[at] ^= change;
        let (mut gateway, _) = Gateway::challenged();
        assert!(matches!(gateway.takes(&wrong), Answer::Failure(..)), "{at}");
    }
    let long = packet::response(challenge[1], packet::IDENTITY, &[b'a'; packet::LONGEST]);
    assert!(Packet::read(&long).is_err());
}

/// RFC 2759 section 5: the gateway has to know the password too.
#[test]
fn a_gateway_that_does_not_know_the_password_gets_no_success() {
    let (_, challenge) = Gateway::challenged();
    let mut client = Client::new(user("alice"));
    reply(&mut client, &secrets(), &challenge).unwrap();
    let id = challenge[6];
    let success = |proof: &[u8]| packet::request(9, MSCHAPV2, proof);
    let forged = success(&packet::write_success(id, &[0; 20]));
    assert!(reply(&mut client, &secrets(), &forged).is_err());
    // Nor one that skips the proof, or gives it before there was a challenge.
    for early in [packet::success(9), forged, success(&[OP_SUCCESS])] {
        let mut client = Client::new(user("alice"));
        let result = client.receive(&mut Counter(0), &secrets(), &early);
        assert!(result.is_err());
    }
    let mut client = Client::new(user("alice"));
    reply(&mut client, &secrets(), &challenge).unwrap();
    let result = client.receive(&mut Counter(0), &secrets(), &packet::success(9));
    assert!(result.is_err());
}

#[test]
fn rfc3748_section_5_3_1_a_client_asks_for_mschapv2_and_answers_no_endless_questions() {
    let mut client = Client::new(user("alice"));
    let tls = packet::request(1, 13, &[0x20]);
    let nak = reply(&mut client, &[], &tls).unwrap();
    assert_eq!(nak, packet::response(1, NAK, &[MSCHAPV2]));
    let notification = packet::request(2, packet::NOTIFICATION, b"hello");
    let acknowledged = reply(&mut client, &[], &notification).unwrap();
    assert_eq!(acknowledged, packet::response(2, packet::NOTIFICATION, &[]));
    for _ in 2..10 {
        reply(&mut client, &[], &notification).unwrap();
    }
    assert!(reply(&mut client, &[], &notification).is_err());
}

#[test]
fn a_secret_that_is_not_a_users_serves_no_login() {
    let mut peers = vec![Secret {
        ids: Vec::new(),
        secret: Zeroizing::new(b"anybody's".to_vec()),
    }];
    peers.push(Secret {
        ids: vec!["alice".parse().unwrap(), Identification::Any],
        secret: Zeroizing::new(b"peer's".to_vec()),
    });
    // `%any` in a list of identities of peers.
    peers[1].ids.truncate(1);
    assert!(account(&peers, &user("alice")).is_none());
    assert!(account(&secrets(), &"alice".parse().unwrap()).is_none());
    assert!(account(&secrets(), &user("ALICE")).is_some());
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_or_refused(
        octets in prop::collection::vec(any::<u8>(), 0..200),
        flip in 0usize..600,
    ) {
        prop_assert!(is_consistent(&octets));
        let mut client = Client::new(user("alice"));
        let _ = client.receive(&mut Counter(0), &secrets(), &octets);
        let (mut gateway, challenge) = Gateway::challenged();
        let _ = gateway.takes(&octets);
        // One bit of a good answer: never a success, but for what the answer does not cover.
        let mut client = Client::new(user("alice"));
        let mut response = reply(&mut client, &secrets(), &challenge).unwrap();
        let at = flip % (response.len() * 8);
        response[at / 8] ^= 1 << (at % 8);
        prop_assert!(is_consistent(&response));
        let (mut gateway, _) = Gateway::challenged();
        let uncovered = (26..34).contains(&(at / 8)) || at / 8 == 58;
        if let Answer::Request(result) = gateway.takes(&response) {
            prop_assert!(uncovered || result[5] == OP_FAILURE, "bit {at}");
        }
    }
}
