//! A cluster and a peer of it, for tests that put words into the mouth of either.

mod bounds;
mod closed;
mod collisions;
mod fatal;
mod notifies;
mod recalled;

use std::net::SocketAddr;

use hitless_sa::{IkeSpi, Instant, MemberId, MessageId};

use super::established::{IkeSa, open};
use super::export::tests::{Counting, settings};
use super::message::{Exchange, Header, Payload, parse_payloads};
use super::settings::{Child, EngineSettings};
use super::turn::Turn;
use super::{Engine, Event, Input, Output, Resume};

/// The member of a cluster, and the peer.
pub(super) const C: usize = 0;
pub(super) const P: usize = 1;

pub(super) struct Pair {
    pub engines: [Engine; 2],
    pub entropy: Counting,
    pub now: Instant,
    pub events: [Vec<Event>; 2],
    /// The newest record of the IKE SA at each end.
    pub records: [(IkeSpi, u64, Vec<u8>); 2],
}

impl Pair {
    /// Established, with so many Child SAs.
    pub fn new(children: usize) -> Pair {
        Pair::with(children, |_, _| {})
    }

    /// The same with other settings.
    pub fn with(children: usize, change: impl Fn(usize, &mut EngineSettings)) -> Pair {
        Pair::begun_by(C, children, change)
    }

    /// One that the cluster began and one that the peer began; the peer has had requests in both.
    pub fn in_both_roles(children: usize) -> [Pair; 2] {
        [C, P].map(|first| {
            let mut pair = Pair::begun_by(first, children, |_, _| {});
            let liveness = Input::Liveness(pair.ike(C).local_spi);
            for request in pair.input(C, liveness) {
                pair.exchange(P, &request);
            }
            pair
        })
    }

    /// That of them which began it starts the children too.
    pub fn begun_by(
        first: usize,
        children: usize,
        change: impl Fn(usize, &mut EngineSettings),
    ) -> Pair {
        let engines = [C, P].map(|host| {
            let mut settings = settings(host);
            let connection = &mut settings.connections[0];
            connection.children[0].start = host == first;
            let child = connection.children[0].clone();
            connection.children = (0..children).map(|n| numbered(&child, n)).collect();
            change(host, &mut settings);
            Engine::new(settings)
        });
        let mut pair = Pair {
            engines,
            entropy: Counting(1),
            now: Instant(1_000_000_000_000),
            events: [Vec::new(), Vec::new()],
            records: [(IkeSpi(0), 0, Vec::new()), (IkeSpi(0), 0, Vec::new())],
        };
        for host in [1 - first, first] {
            let engine = &mut pair.engines[host];
            engine.lead(pair.now, &mut pair.entropy, &mut |_| Resume::Exact);
        }
        pair.settle(first);
        pair
    }

    /// Lets both talk until they have nothing to say.
    pub fn settle(&mut self, first: usize) {
        let mut host = first;
        let mut datagrams = self.outputs(host);
        while !datagrams.is_empty() {
            host = 1 - host;
            let answers = datagrams.iter().flat_map(|d| self.give(host, d));
            datagrams = answers.collect();
        }
    }

    pub fn outputs(&mut self, host: usize) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(output) = self.engines[host].poll_output() {
            match output {
                Output::Transmit(t) | Output::Retransmit { transmit: t, .. } => {
                    datagrams.push(t.payload);
                }
                Output::Commit(commit) => {
                    datagrams.extend(commit.transmits.into_iter().map(|t| t.payload));
                    if let Some(record) = commit.record {
                        self.records[host] = (commit.ike, commit.version, record.body.to_vec());
                    }
                }
                Output::Event(event) => self.events[host].push(event),
            }
        }
        datagrams
    }

    pub fn input(&mut self, host: usize, input: Input<'_>) -> Vec<Vec<u8>> {
        self.engines[host].handle(self.now, &mut self.entropy, input);
        self.outputs(host)
    }

    /// Hands a datagram to one end; gives what it says.
    pub fn give(&mut self, host: usize, datagram: &[u8]) -> Vec<Vec<u8>> {
        let own: SocketAddr = ["192.0.2.1:4500", "192.0.2.2:4500"][host].parse().unwrap();
        let other: SocketAddr = ["192.0.2.1:4500", "192.0.2.2:4500"][1 - host]
            .parse()
            .unwrap();
        let input = Input::Datagram {
            local: own,
            remote: other,
            payload: datagram,
        };
        self.input(host, input)
    }

    /// One end hears this, and both go on until they have nothing to say.
    pub fn exchange(&mut self, host: usize, datagram: &[u8]) {
        for answer in self.give(host, datagram) {
            self.exchange(1 - host, &answer);
        }
    }

    pub fn ike(&self, host: usize) -> &IkeSa {
        self.engines[host].sas.values().next().expect("an IKE SA")
    }

    /// What an end would say, had it these payloads to say.
    pub fn forge(&mut self, host: usize, response: bool, id: u32, payloads: &[Payload]) -> Vec<u8> {
        let ike = self.ike(host);
        let header = ike.header(Exchange::Informational, response, MessageId(id));
        self.forge_as(host, &header, payloads)
    }

    /// The same with any header.
    pub fn forge_as(&mut self, host: usize, header: &Header, payloads: &[Payload]) -> Vec<u8> {
        let engine = &mut self.engines[host];
        let ike = engine.sas.values().next().expect("an IKE SA");
        let mut turn = Turn::new(
            self.now,
            &mut self.entropy,
            &engine.settings,
            &mut engine.ids,
        );
        ike.seal(&mut turn, header, payloads)
            .expect("an IV is left")
    }

    /// What a datagram says to one end.
    pub fn read(&self, host: usize, datagram: &[u8]) -> (Header, Vec<Payload>) {
        let header = Header::parse(datagram).unwrap();
        let opened = open(&self.ike(host).keys, &header, datagram);
        let opened = opened.expect("authentic");
        (
            header,
            parse_payloads(opened.first, &opened.content).unwrap(),
        )
    }

    /// Another member takes over from the cluster's; gives its first words.
    pub fn take_over(&mut self, how: Resume) -> Vec<Vec<u8>> {
        self.take_over_at(C, how)
    }

    /// The same of a cluster at either end.
    pub fn take_over_at(&mut self, host: usize, how: Resume) -> Vec<Vec<u8>> {
        let (ike, version, body) = self.records[host].clone();
        let mut settings = self.engines[host].settings.clone();
        settings.member = MemberId(settings.member.0 + 10);
        let mut next = Engine::new(settings);
        next.store(self.now, ike, version, &body).unwrap();
        next.lead(self.now, &mut self.entropy, &mut |_| how);
        self.engines[host] = next;
        self.outputs(host)
    }

    pub fn deltas(&self, host: usize) -> Vec<(usize, u64)> {
        let told = self.events[host].iter().filter_map(|event| match event {
            Event::ReplayCounterSync {
                children, delta, ..
            } => Some((children.len(), *delta)),
            _ => None,
        });
        told.collect()
    }

    pub fn next_ids(&self, host: usize) -> (u32, u32) {
        let window = &self.ike(host).window;
        (window.next_request.0, window.expected.0)
    }
}

/// A child with selectors of its own.
fn numbered(child: &Child, number: usize) -> Child {
    let mut child = child.clone();
    child.name = format!("net{number}");
    for selectors in [&mut child.local_ts, &mut child.remote_ts] {
        let start = selectors[0].start.to_string();
        let start = start.replacen(".0.", &format!(".{number}."), 1);
        selectors[0].start = start.parse().unwrap();
        let end = format!("{}255", start.trim_end_matches('0'));
        selectors[0].end = end.parse().unwrap();
    }
    child
}
