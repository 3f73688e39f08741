//! What a client that began a login can say instead of going on with it (RFC 7296 section 2.16).

use std::sync::Arc;

use hitless_sa::{IkeSpi, Instant, MessageId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::ike::auth::{
    Certificate, EapUsers, Family, LocalAuth, LocalCertificate, LocalCertificates, PrivateKey,
    RemoteAuth, RemoteCertificates, Revocation, SendCertificate, TimeOfDay, Trust,
};
use crate::ike::eap;
use crate::ike::established::{open, seal};
use crate::ike::export::tests::{Counting, settings};
use crate::ike::message::{
    Exchange, Header, IdBody, NotifyKind, Payload, PayloadKind, parse_payloads,
};
use crate::ike::pair::{C, P, Pair};
use crate::ike::proposal::Identification;
use crate::ike::settings::{EngineSettings, Secret};
use crate::ike::turn::Turn;
use crate::ike::{Engine, Event, Resume};

/// 2026-06-01.
const NOON: std::time::Duration = std::time::Duration::from_secs(1_780_315_200);
const NOW: Instant = Instant(1_000_000_000_000);

fn certified(of: &mut EngineSettings, by: &mut EngineSettings) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let anchor = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["b.test".to_owned()]).unwrap();
    let own = own.signed_by(&key, &issuer).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    of.connections[0].auth.local = LocalAuth::Pubkey(Arc::new(LocalCertificates {
        certificates: vec![LocalCertificate {
            certificate: Certificate::parse(own.der()).unwrap(),
            intermediates: Vec::new(),
            anchor: None,
            key: Arc::new(PrivateKey::from_der(&der).unwrap()),
        }],
        family: Family::Any,
        send: SendCertificate::Always,
    }));
    let mut trust = Trust::new(Revocation::Relaxed);
    trust
        .add_anchor(Certificate::parse(anchor.der()).unwrap())
        .unwrap();
    by.connections[0].auth.remote = RemoteAuth::Pubkey(Arc::new(RemoteCertificates {
        trust,
        family: Family::Any,
        crl_files: Vec::new(),
    }));
}

/// A client at C and a gateway at P, and the client's next request.
struct Login {
    pair: Pair,
    request: Vec<u8>,
}

impl Login {
    /// After so many answers to IKE_AUTH.
    fn after(answers: usize) -> Login {
        let mut login = Login::begun(|_| {});
        for _ in 0..=answers {
            login.go_on();
        }
        login
    }

    /// The first request of all, to a gateway with such settings.
    fn begun(change: impl FnOnce(&mut EngineSettings)) -> Login {
        let user = Identification::user(b"alice").unwrap();
        let (mut client, mut gateway) = (settings(C), settings(P));
        certified(&mut gateway, &mut client);
        client.connections[0].auth.local = LocalAuth::Eap(user.clone());
        let users = EapUsers::Asked(Identification::Any);
        gateway.connections[0].auth.remote = RemoteAuth::Eap(users);
        for settings in [&mut client, &mut gateway] {
            settings.time_of_day = TimeOfDay::new(NOW, NOON);
            settings.secrets = vec![Secret {
                ids: vec![user.clone()],
                secret: Zeroizing::new(b"wonderland".to_vec()),
            }];
        }
        change(&mut gateway);
        let mut pair = Pair {
            engines: [client, gateway].map(Engine::new),
            entropy: Counting(1),
            now: NOW,
            events: [Vec::new(), Vec::new()],
            records: [(IkeSpi(0), 0, Vec::new()), (IkeSpi(0), 0, Vec::new())],
        };
        for host in [P, C] {
            let engine = &mut pair.engines[host];
            engine.lead(pair.now, &mut pair.entropy, &mut |_| Resume::Exact);
        }
        let request = pair.outputs(C).remove(0);
        Login { pair, request }
    }

    fn go_on(&mut self) {
        let answer = self.pair.give(P, &self.request).remove(0);
        self.request = self.pair.give(C, &answer).pop().unwrap_or_default();
    }

    fn stage(&self) -> &super::super::AuthStage {
        let initiator = self.pair.engines[C].initiators.values().next().unwrap();
        initiator.auth.as_ref().unwrap()
    }

    /// What the client says in the place of its next request.
    fn forge(&mut self, ahead: u32, payloads: &[Payload]) -> Vec<u8> {
        let engine = &mut self.pair.engines[C];
        let initiator = engine.initiators.values().next().unwrap();
        let stage = initiator.auth.as_ref().unwrap();
        let id = MessageId(stage.message_id().0.wrapping_add(ahead));
        let header = initiator.header(stage, Exchange::IkeAuth, id);
        let (settings, ids) = (&engine.settings, &mut engine.ids);
        let mut turn = Turn::new(self.pair.now, &mut self.pair.entropy, settings, ids);
        seal(&stage.keys, &mut turn, &header, payloads, None).unwrap()
    }

    /// What the gateway answers.
    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<Payload>> {
        let answer = self.pair.give(P, datagram).pop()?;
        let header = Header::parse(&answer).unwrap();
        let opened = open(&self.stage().keys, &header, &answer).expect("authentic");
        Some(parse_payloads(opened.first, &opened.content).unwrap())
    }

    fn is_up(&self) -> bool {
        !self.pair.engines[P].sas.is_empty()
    }
}

fn refuses(payloads: &[Payload]) -> bool {
    let kind = NotifyKind::AUTHENTICATION_FAILED;
    let refusal = Payload::notify(kind, &[]);
    payloads.contains(&refusal) && !payloads.iter().any(|p| p.kind() == PayloadKind::AUTH)
}

fn auth() -> Payload {
    Payload::Auth {
        method: 2,
        data: vec![7; 32],
    }
}

#[test]
fn rfc7296_section_2_16_a_login_that_does_not_go_on_is_refused_for_good() {
    let nothing = Payload::notify(NotifyKind::INITIAL_CONTACT, &[]);
    let name = Payload::IdInitiator(IdBody::new("a.test".parse().unwrap()));
    // An EAP packet that is not due at any time: Success, and Identity with another identifier.
    let success = eap::payload(vec![3, 1, 0, 4]);
    let identity = eap::payload(vec![2, 200, 0, 6, 1, b'x']);
    for wrong in [nothing, name, auth(), success, identity] {
        for answers in 1..=4 {
            let mut login = Login::after(answers);
            let good = login.request.clone();
            let forged = login.forge(0, std::slice::from_ref(&wrong));
            let refusal = login.answer(&forged).expect("an answer");
            assert!(refuses(&refusal), "{wrong:?} after {answers}");
            // The same request gets the same answer, no other gets any.
            assert_eq!(login.answer(&forged), Some(refusal));
            assert_eq!(login.answer(&good), None);
            assert!(!login.is_up());
        }
    }
}

#[test]
fn rfc7296_section_2_1_a_request_of_a_login_is_answered_once_and_the_same_again() {
    for answers in 1..=4 {
        let mut login = Login::after(answers);
        let first = login.pair.give(P, &login.request.clone());
        let again = login.pair.give(P, &login.request.clone());
        assert_eq!(first.last(), again.last(), "after {answers}");
        assert_eq!(login.is_up(), answers == 4);
    }
}

#[test]
fn rfc7296_section_2_2_a_message_id_that_is_not_due_gets_no_answer() {
    for ahead in [1, 2, u32::MAX] {
        let mut login = Login::after(2);
        let forged = login.forge(ahead, &[auth()]);
        assert_eq!(login.answer(&forged), None);
        // And does no harm.
        while !login.request.is_empty() && !login.is_up() {
            login.go_on();
        }
        assert!(login.is_up());
    }
}

/// What is kept of the first request is bounded.
#[test]
fn a_first_request_that_is_too_long_to_keep_is_refused() {
    let mut login = Login::after(0);
    let name = Payload::IdInitiator(IdBody::new("a.test".parse().unwrap()));
    let notify = Payload::notify(NotifyKind(40_000), &[0; 1000]);
    let long = [vec![name.clone()], vec![notify; 9]].concat();
    let forged = login.forge(0, &long);
    assert!(refuses(&login.answer(&forged).unwrap()));
    // What is not kept may be long: certificate requests.
    let mut login = Login::after(0);
    let request = Payload::Unknown {
        kind: PayloadKind::CERTREQ,
        critical: false,
        body: [vec![4], vec![9; 20 * 500]].concat(),
    };
    let forged = login.forge(0, &[name, request]);
    let answer = login.answer(&forged).unwrap();
    assert!(answer.iter().any(|p| p.kind() == PayloadKind::EAP));
}

/// RFC 5998: a client that would rather not see our signature is shown it all the same.
#[test]
fn rfc5998_section_3_eap_only_authentication_is_not_taken() {
    let mut login = Login::after(0);
    let name = Payload::IdInitiator(IdBody::new("a.test".parse().unwrap()));
    let only = Payload::notify(NotifyKind(16417), &[]);
    let forged = login.forge(0, &[name, only]);
    let answer = login.answer(&forged).unwrap();
    assert!(answer.iter().any(|p| p.kind() == PayloadKind::AUTH));
    assert!(
        !answer
            .iter()
            .any(|p| matches!(p, Payload::SecurityAssociation(_)))
    );
}

#[test]
fn no_child_sa_before_the_login_is_over() {
    for answers in 0..4 {
        let mut login = Login::after(answers);
        let request = login.request.clone();
        let answer = login.answer(&request).unwrap();
        let offers = |p: &Payload| matches!(p, Payload::SecurityAssociation(_));
        assert!(!answer.iter().any(offers) && !login.is_up());
    }
    let mut login = Login::after(4);
    login.go_on();
    assert!(login.is_up() && login.pair.engines[C].sas.len() == 1);
    let up = |e: &Event| matches!(e, Event::IkeEstablished { .. });
    assert!(login.pair.events.iter().all(|events| events.iter().any(up)));
}

/// H6, RFC 6311: a login has several answers, and a gateway may say in any of them what it can.
#[test]
fn rfc6311_h6_capabilities_of_any_answer_of_a_login_count() {
    let kinds = [
        NotifyKind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED,
        NotifyKind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED,
    ];
    let flags = |ids, replay| [ids, replay];
    for (ids, replay) in [(0, 0), (0, 4), (2, 1), (4, 4), (9, 3), (9, 9)] {
        let mut login = Login::begun(|gateway| {
            let withheld = &mut gateway.connections[0].roads.withheld;
            (withheld.message_id_sync, withheld.replay_counter_sync) = (true, true);
        });
        login.go_on();
        for round in 0..=4 {
            let answer = login.pair.give(P, &login.request.clone()).remove(0);
            let header = Header::parse(&answer).unwrap();
            let keys = &login.stage().keys;
            let opened = open(keys, &header, &answer).expect("authentic");
            let mut payloads = parse_payloads(opened.first, &opened.content).unwrap();
            for (kind, said) in kinds.into_iter().zip([ids, replay]) {
                let asserted = payloads.iter().any(|p| *p == Payload::notify(kind, &[]));
                assert!(!asserted, "it is withheld");
                payloads.extend((said == round).then(|| Payload::notify(kind, &[])));
            }
            let [client, gateway] = &mut login.pair.engines;
            let initiator = client.initiators.values().next().unwrap();
            let keys = &initiator.auth.as_ref().unwrap().keys;
            let (settings, numbers) = (&gateway.settings, &mut gateway.ids);
            let mut turn = Turn::new(NOW, &mut login.pair.entropy, settings, numbers);
            let answer = seal(keys, &mut turn, &header, &payloads, None).unwrap();
            login.request = login.pair.give(C, &answer).pop().unwrap_or_default();
        }
        let client = login.pair.ike(C);
        assert_eq!(
            flags(client.message_id_sync, client.replay_counter_sync),
            flags(ids <= 4, replay <= 4),
            "{ids} {replay}"
        );
    }
}
