//! Records of IKE SAs: what is exported comes back, and damage is refused.

use std::net::SocketAddr;
use std::time::Duration;

use hitless_sa::{Entropy, Mode};

use super::*;
use crate::ike::auth::AuthSettings;
use crate::ike::fragments::Fragmentation;
use crate::ike::proposal::Identification;
use crate::ike::settings::{Child, EngineSettings, Secret, Takeover};
use crate::ike::{Engine, Input, Output, Resume};

pub(in crate::ike) struct Counting(pub u64);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *octet = (self.0 >> 40) as u8;
        }
    }
}

const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const IDENTITIES: [&str; 2] = ["a.test", "b.test"];
const NETS: [&str; 2] = ["10.1.0.0/16", "10.2.0.0/16"];

pub(in crate::ike) fn settings(host: usize) -> EngineSettings {
    let other = 1 - host;
    let id = |host: usize| IDENTITIES[host].parse::<Identification>().unwrap();
    EngineSettings::new(
        MemberId(host as u8 + 1),
        Incarnation(1),
        vec![Connection {
            name: "peer".to_owned(),
            local_addrs: vec![ADDRESSES[host].parse().unwrap()],
            remote_addrs: vec![ADDRESSES[other].parse().unwrap()],
            remote_port: 500,
            fragmentation: Fragmentation::Yes,
            fragment_size: 1280,
            proposals: vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()],
            local_id: id(host),
            remote_id: id(other),
            encap: true,
            dpd_delay: Duration::from_secs(10),
            rekey_time: Duration::from_secs(1000),
            takeover: Takeover::Auto,
            inbound: Default::default(),
            roads: Default::default(),
            session: Default::default(),
            auth: AuthSettings::default(),
            children: vec![Child {
                name: "net".to_owned(),
                mode: Mode::Tunnel,
                esp_proposals: vec!["aes128gcm16-x25519-esn".parse().unwrap()],
                local_ts: vec![NETS[host].parse().unwrap()],
                remote_ts: vec![NETS[other].parse().unwrap()],
                dynamic: Default::default(),
                per_cpu_sas: 0,
                rekey_time: Duration::from_secs(100),
                lifetimes: Default::default(),
                replay_window: 64,
                options: hitless_sa::SaOptions::default(),
                start: host == 0,
            }],
        }],
        vec![Secret {
            ids: Vec::new(),
            secret: Zeroizing::new(b"secret".to_vec()),
        }],
    )
}

/// Imports a record and exports it again.
fn assert_same_again(settings: &EngineSettings, now: Instant, record: &Record) {
    let connections: BTreeMap<String, Arc<Connection>> = settings
        .connections
        .iter()
        .map(|c| (c.name.clone(), Arc::new(c.clone())))
        .collect();
    let mut ids = Ids::new(MemberId(9), Incarnation(1), Vec::new());
    let imported = import(now, &connections, &mut ids, 1, &record.body);
    let again = match imported.expect("our own record") {
        Imported::IkeSa(ike) => export(&ike, now),
        Imported::Grave(spi, grave) => grave::export(spi, &grave, now),
    };
    assert_eq!(*again.body, *record.body);
    assert_eq!(again.children, record.children);
}

/// Two gateways that lose every seventh datagram, so that requests stay outstanding; `see` gets each
/// record with its host.
fn busy_pair(mut see: impl FnMut(usize, Instant, &Record)) {
    let both = [settings(0), settings(1)];
    let mut engines = [Engine::new(both[0].clone()), Engine::new(both[1].clone())];
    let mut entropy = Counting(1);
    let mut now = Instant(1_000_000_000_000);
    for engine in &mut engines {
        engine.lead(now, &mut entropy, &mut |_| Resume::Exact);
    }
    for round in 0..4000u64 {
        for host in 0..2 {
            let mut sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)> = Vec::new();
            while let Some(output) = engines[host].poll_output() {
                let mut transmits = Vec::new();
                match output {
                    Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                        transmits.push(transmit);
                    }
                    Output::Commit(commit) => {
                        if let Some(record) = &commit.record {
                            see(host, now, record);
                        }
                        transmits = commit.transmits;
                    }
                    Output::Event(_) => {}
                }
                sent.extend(
                    transmits
                        .into_iter()
                        .map(|t| (t.local, t.remote, t.payload)),
                );
            }
            for (from, to, payload) in sent.iter().filter(|_| round % 7 != 3) {
                let input = Input::Datagram {
                    local: *to,
                    remote: *from,
                    payload,
                };
                engines[1 - host].handle(now, &mut entropy, input);
            }
        }
        now += Duration::from_millis(250);
        for engine in &mut engines {
            engine.handle(now, &mut entropy, Input::Timeout);
        }
    }
}

#[test]
fn every_record_of_a_busy_pair_is_imported_as_it_was_exported() {
    let both = [settings(0), settings(1)];
    let (mut records, mut pending) = (0, 0);
    busy_pair(|host, now, record| {
        assert_same_again(&both[host], now, record);
        records += 1;
        pending += usize::from(record.children.len() > 1);
    });
    assert!(
        records > 100 && pending > 10,
        "{records} records, {pending} with an offer"
    );
}

mod golden;
