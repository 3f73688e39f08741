//! Virtual addresses and MOBIKE with whole gateways: traffic goes on over a takeover.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hitless::config::Config;
use hitless::gateway::Event;
use hitless::ike;
use hitless::ike::settings::{Mobike, Pool};
use hitless::lab::{Family, Topology};
use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::esp::{open_datagram, seal_datagram};
use hitless_dataplane::replay::AntiReplay;
use hitless_dataplane::wire::checksum;
use hitless_sa::{EspSuite, KeyMaterial, Mode, SequenceNumber, Spi, TrafficSelector};

use crate::world::{ESP, PEER, World};

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

fn configs() -> (Vec<Config>, Config) {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| topology.member(id).unwrap());
    (members.collect(), topology.peer().unwrap())
}

fn one(address: IpAddr) -> Vec<TrafficSelector> {
    vec![TrafficSelector::prefix(address, 32).unwrap()]
}

/// The active member dies; the other one goes on without a new IKE SA.
fn take_over(world: &mut World) -> u8 {
    let active = world.leader().unwrap();
    let crash = world.now;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    let exchanges = world.exchanges_since(crash);
    assert!(!exchanges.contains(&IKE_SA_INIT) && !exchanges.contains(&IKE_AUTH));
    world.leader().unwrap()
}

/// A cluster that gives two addresses away, and a peer that is one client after the other: `peer.lab`,
/// which asks for the first of them, and `second.lab` and `third.lab`, which ask for the same one.
fn clients() -> (Vec<Config>, Config) {
    let (mut members, mut peer) = configs();
    let (first, second) = addresses();
    for member in &mut members {
        member.pools = vec![Pool {
            name: "clients".to_owned(),
            first,
            last: second,
            dns: vec!["10.2.0.53".parse().unwrap()],
        }];
        let connection = &mut member.connections[0];
        connection.remote_id = "*.lab".parse().unwrap();
        connection.roads.pools = vec!["clients".to_owned()];
        let child = &mut connection.children[0];
        child.remote_ts = [one(first), one(second)].concat();
        child.dynamic.remote = child.remote_ts.clone();
    }
    let connection = &mut peer.connections[0];
    connection.roads.vips = vec![first];
    let child = &mut connection.children[0];
    child.local_ts = vec!["0.0.0.0/0".parse().unwrap()];
    child.dynamic.local = child.local_ts.clone();
    for name in ["second", "third"] {
        let mut client = peer.connections[0].clone();
        client.name = name.to_owned();
        client.local_id = format!("{name}.lab").parse().unwrap();
        client.children[0].start = false;
        peer.connections.push(client);
    }
    (members, peer)
}

/// The pool of [`clients`].
fn addresses() -> (IpAddr, IpAddr) {
    let first = Family::V4.stations().host_a;
    (first, "10.1.0.11".parse().unwrap())
}

/// Who has which virtual address, to a member.
fn holders(world: &mut World, who: u8) -> Vec<(String, String)> {
    let sas = world.list_sas(who).into_iter();
    let mut holders: Vec<_> = sas
        .flat_map(|ike| {
            let id = ike.remote_id;
            ike.remote_vips.into_iter().map(move |v| (v, id.clone()))
        })
        .collect();
    holders.sort();
    holders
}

fn begin(world: &mut World, connection: &str) {
    world.ask(PEER, |gateway, now, entropy| {
        let begun = gateway.initiate(now, entropy, "net", Some(connection));
        begun.unwrap();
    });
}

#[test]
fn rfc7296_section_2_19_virtual_addresses_stay_their_clients_when_members_die() {
    let (members, peer) = clients();
    let mut world = World::with(61, members, peer);
    world.come_up();
    let (first, second) = addresses();
    let lease = |address: IpAddr, id: &str| (address.to_string(), id.to_owned());
    let one = [lease(first, "peer.lab")];
    let active = world.leader().unwrap();
    assert_eq!(holders(&mut world, active), one);
    let standby = 3 - active;
    assert_eq!(holders(&mut world, standby), one, "held");
    assert_eq!(take_over(&mut world), standby);
    assert_eq!(holders(&mut world, standby), one);
    assert_eq!(world.list_sas(PEER)[0].local_vips, [first.to_string()]);

    // Nobody else gets the address of a client that this member never spoke with.
    begin(&mut world, "second");
    let both = [lease(first, "peer.lab"), lease(second, "second.lab")];
    world.until("a second client", |world| holders(world, standby) == both);
    world.start(active);
    world.until("a standby", World::standby_is_ready);
    assert_eq!(holders(&mut world, active), both, "held");
    assert_eq!(take_over(&mut world), active);

    // Both were given away by members that are gone: there is none for a third one.
    begin(&mut world, "third");
    let refused = |event: &Event| {
        matches!(event, Event::Ike(ike::Event::NegotiationFailed { reason, .. })
            if reason.contains("INTERNAL_ADDRESS_FAILURE"))
    };
    world.until("a refusal", |world| world.happened(PEER, refused));
    assert_eq!(holders(&mut world, active), both);
    world.traffic_flows();
    world.audit();
}

/// The second member is at another address of the same network; both addresses.
fn apart(members: &mut [Config]) -> (IpAddr, Ipv4Addr) {
    let first = members[0].connections[0].local_addrs[0];
    let IpAddr::V4(v4) = first else {
        panic!("a lab of IPv4")
    };
    let [a, b, c, _] = v4.octets();
    let second = Ipv4Addr::new(a, b, c, 77);
    let port = members[1].ports.iter_mut().find(|port| !port.protected);
    port.unwrap().addresses[0].address = second.into();
    members[1].connections[0].local_addrs = vec![second.into()];
    (first, second)
}

#[test]
fn v11_a_member_with_another_address_takes_over_and_traffic_goes_on_there() {
    let (mut members, mut peer) = configs();
    let (first, second) = apart(&mut members);
    peer.connections[0].roads.mobike = Mobike::Offer;
    let mut world = World::with(62, members, peer);
    world.come_up();
    assert_eq!(world.leader(), Some(1));
    assert_eq!(world.list_sas(PEER)[0].remote_host, first.to_string());
    assert_eq!(take_over(&mut world), 2);
    let status = &world.list_sas(PEER)[0];
    assert_eq!(status.remote_host, second.to_string());
    assert_eq!(world.list_sas(2)[0].local_host, second.to_string());
    world.run(Duration::from_millis(300));
    world.traffic_flows();
    world.audit();
}

const ICMP: u8 = 1;

/// One direction of an ESP SA, from the peer's key log.
struct Half {
    from: Ipv4Addr,
    to: Ipv4Addr,
    spi: Spi,
    key: EspKey,
}

/// `"IPv4","FROM","TO","0xSPI","CIPHER","0xKEY",...`
fn halves(log: &str) -> Vec<Half> {
    let hex = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let one = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(|f| f.trim_matches('"')).collect();
        let key = fields[5].trim_start_matches("0x").as_bytes().chunks(2);
        let key: Vec<u8> = key
            .map(|pair| hex(std::str::from_utf8(pair).unwrap()) as u8)
            .collect();
        let material = KeyMaterial::new(&key);
        Half {
            from: fields[1].parse().unwrap(),
            to: fields[2].parse().unwrap(),
            spi: Spi(hex(fields[3])),
            key: EspKey::new(Engine::AwsLc, EspSuite::Aes128Gcm16, &material).unwrap(),
        }
    };
    let esp = log.lines().filter(|line| line.starts_with("\"IPv4\""));
    esp.map(one).collect()
}

/// An ICMP echo request for the cluster in transport mode, as the peer would send it.
fn echo(half: &Half, number: u64, macs: [[u8; 6]; 2]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 7, 0, 9, 1, 2, 3, 4];
    let sum = checksum(0, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let number = SequenceNumber(number);
    let esp = seal_datagram(&half.key, half.spi, number, true, ICMP, &icmp).unwrap();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ESP, 0, 0];
    ip[2..4].copy_from_slice(&(20 + esp.len() as u16).to_be_bytes());
    ip.extend(half.from.octets());
    ip.extend(half.to.octets());
    let sum = checksum(0, &ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [from, to] = macs;
    [to.as_slice(), &from, &[8, 0], &ip, &esp].concat()
}

/// Echo requests and their answers, in the transport mode SA between the peer and the cluster.
struct Echoes {
    asks: Half,
    answers: Half,
    /// Of the next request.
    number: u64,
    /// The peer's and the cluster's.
    macs: [[u8; 6]; 2],
}

impl Echoes {
    /// In the SA whose keys the peer logged last.
    fn with_the_keys_of(world: &World, macs: [[u8; 6]; 2]) -> Echoes {
        let mut halves = halves(&world.key_log(PEER));
        let last = halves.split_off(halves.len() - 2);
        let peer: IpAddr = world.config(PEER).ports[0].addresses[0].address;
        let (asks, answers) = last.into_iter().partition(|half| half.from == peer);
        let [asks, answers] = [asks, answers].map(|mut half: Vec<Half>| half.remove(0));
        Echoes {
            asks,
            answers,
            number: 1,
            macs,
        }
    }

    /// Five of them; the active member answers each, from the address that was asked.
    fn are_answered(&mut self, world: &mut World) {
        let active = world.leader().unwrap();
        let before = world.esp().len();
        for _ in 0..5 {
            let frame = echo(&self.asks, self.number, self.macs);
            assert!(world.outside.inject(&frame));
            world.run(Duration::from_millis(20));
            self.number += 1;
        }
        let esp = world.esp();
        let spi = self.answers.spi.0;
        let answered: Vec<_> = esp[before..].iter().filter(|e| e.spi == spi).collect();
        assert_eq!(answered.len(), 5, "answers of {active}");
        for packet in answered {
            assert_eq!(packet.port, usize::from(active));
            let ends = [self.answers.from.octets(), self.answers.to.octets()];
            assert_eq!(packet.frame[26..34], *ends.as_flattened());
            let mut window = AntiReplay::new(64, SequenceNumber(packet.number - 1));
            // Behind Ethernet and IPv4 without options.
            let mut octets = packet.frame[34..].to_vec();
            let key = &self.answers.key;
            let (kind, range) = open_datagram(key, true, &mut window, &mut octets).unwrap();
            // An echo reply, and no IP header inside.
            assert_eq!((kind, octets[range][0]), (ICMP, 0));
        }
    }
}

/// The connection protects what its ends themselves say.
fn transport_mode(config: &mut Config) {
    let connection = &mut config.connections[0];
    let (local, remote) = (connection.local_addrs[0], connection.remote_addrs[0]);
    let child = &mut connection.children[0];
    child.mode = Mode::Transport;
    (child.local_ts, child.remote_ts) = (one(local), one(remote));
    child.dynamic.local = child.local_ts.clone();
    child.dynamic.remote = child.remote_ts.clone();
}

fn mac(config: &Config) -> [u8; 6] {
    config.ports[0].mac
}

/// Runs until there is a child and a standby, without traffic of hosts.
fn protected(world: &mut World) {
    world.until("a child with a standby", |world| {
        world.tunnel_is_up() && world.standby_is_ready()
    });
}

#[test]
fn rfc4301_section_4_1_transport_mode_protects_the_gateways_words_over_a_takeover() {
    let (mut members, mut peer) = configs();
    for config in members.iter_mut().chain([&mut peer]) {
        transport_mode(config);
    }
    peer.control.key_log = Some("keys".into());
    let macs = [mac(&peer), mac(&members[0])];
    let mut world = World::with(63, members, peer);
    protected(&mut world);
    let mut echoes = Echoes::with_the_keys_of(&world, macs);
    echoes.are_answered(&mut world);
    let active = world.leader().unwrap();
    // Takeover `strict`: what is not above it counts as seen.
    echoes.number = world.status(active).leases[0].high_water + 1;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    echoes.are_answered(&mut world);
    world.audit();
}

/// The addresses of transport mode are its selectors: they move with the member.
#[test]
fn v11_transport_mode_is_answered_at_the_address_of_the_member_that_took_over() {
    let (mut members, mut peer) = configs();
    for config in members.iter_mut().chain([&mut peer]) {
        transport_mode(config);
    }
    let (first, second) = apart(&mut members);
    transport_mode(&mut members[1]);
    peer.connections[0].roads.mobike = Mobike::Offer;
    peer.control.key_log = Some("keys".into());
    let macs = members.iter().map(|member| [mac(&peer), mac(member)]);
    let macs: Vec<_> = macs.collect();
    let mut world = World::with(64, members, peer);
    protected(&mut world);
    assert_eq!(world.leader(), Some(1));
    let mut echoes = Echoes::with_the_keys_of(&world, macs[0]);
    assert_eq!(echoes.asks.to, first);
    echoes.are_answered(&mut world);
    let (next, spi) = (world.status(1).leases[0].high_water + 1, echoes.asks.spi);

    let crash = world.now;
    world.kill(1);
    world.until("a takeover", |world| world.leader() == Some(2));
    world.until("the move", |world| {
        world.list_sas(PEER)[0].remote_host == second.to_string()
    });
    world.run(Duration::from_millis(300));
    let mut echoes = Echoes::with_the_keys_of(&world, macs[1]);
    assert_eq!((echoes.asks.to, echoes.asks.spi), (second, spi));
    echoes.number = next;
    echoes.are_answered(&mut world);
    let exchanges = world.exchanges_since(crash);
    assert!(!exchanges.contains(&IKE_SA_INIT) && !exchanges.contains(&IKE_AUTH));
    world.audit();
}
