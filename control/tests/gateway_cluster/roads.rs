//! Virtual addresses and MOBIKE with whole gateways: traffic goes on over a takeover.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hitless::config::Config;
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

#[test]
fn rfc7296_section_2_19_a_client_keeps_its_virtual_address_when_the_active_member_dies() {
    let (mut members, mut peer) = configs();
    let client = Family::V4.stations().host_a;
    for member in &mut members {
        member.pools = vec![Pool {
            name: "clients".to_owned(),
            first: client,
            last: client,
            dns: vec!["10.2.0.53".parse().unwrap()],
        }];
        let connection = &mut member.connections[0];
        connection.roads.pools = vec!["clients".to_owned()];
        let child = &mut connection.children[0];
        child.remote_ts = one(client);
        child.dynamic.remote = child.remote_ts.clone();
    }
    let connection = &mut peer.connections[0];
    connection.roads.vips = vec!["0.0.0.0".parse().unwrap()];
    let child = &mut connection.children[0];
    child.local_ts = vec!["0.0.0.0/0".parse().unwrap()];
    child.dynamic.local = child.local_ts.clone();
    let mut world = World::with(61, members, peer);
    world.come_up();
    let vips = |world: &mut World, who: u8| world.list_sas(who)[0].remote_vips.clone();
    let active = world.leader().unwrap();
    assert_eq!(vips(&mut world, active), [client.to_string()]);
    let standby = 3 - active;
    assert_eq!(vips(&mut world, standby), [client.to_string()], "held");
    assert_eq!(take_over(&mut world), standby);
    assert_eq!(vips(&mut world, standby), [client.to_string()]);
    assert_eq!(world.list_sas(PEER)[0].local_vips, [client.to_string()]);
    world.audit();
}

#[test]
fn v11_a_member_with_another_address_takes_over_and_traffic_goes_on_there() {
    let (mut members, mut peer) = configs();
    let first = members[0].connections[0].local_addrs[0];
    let second: IpAddr = "198.51.100.77".parse().unwrap();
    // The second member is at another address of the same network.
    let second = match first {
        IpAddr::V4(a) => IpAddr::from([a.octets()[0], a.octets()[1], a.octets()[2], 77]),
        IpAddr::V6(_) => second,
    };
    let port = members[1].ports.iter_mut().find(|port| !port.protected);
    port.unwrap().addresses[0].address = second;
    members[1].connections[0].local_addrs = vec![second];
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

#[test]
fn rfc4301_section_4_1_transport_mode_protects_the_gateways_words_over_a_takeover() {
    let (mut members, mut peer) = configs();
    for config in members.iter_mut().chain([&mut peer]) {
        let connection = &mut config.connections[0];
        let (local, remote) = (connection.local_addrs[0], connection.remote_addrs[0]);
        let child = &mut connection.children[0];
        child.mode = Mode::Transport;
        (child.local_ts, child.remote_ts) = (one(local), one(remote));
        child.dynamic.local = child.local_ts.clone();
        child.dynamic.remote = child.remote_ts.clone();
    }
    peer.control.key_log = Some("keys".into());
    let mac = |config: &Config| config.ports[0].mac;
    let macs = [mac(&peer), mac(&members[0])];
    let mut world = World::with(63, members, peer);
    world.until("a child with a standby", |world| {
        world.tunnel_is_up() && world.standby_is_ready()
    });
    let halves = halves(&world.key_log(PEER));
    assert_eq!(halves.len(), 2);
    let cluster = halves[1].to;
    let asks = halves.iter().find(|half| half.to == cluster).unwrap();
    let answers = halves.iter().find(|half| half.from == cluster).unwrap();
    let mut number = 1;
    for _ in 0..2 {
        let active = world.leader().unwrap();
        let before = world.esp().len();
        for _ in 0..5 {
            let frame = echo(asks, number, macs);
            assert!(world.outside.inject(&frame));
            world.run(Duration::from_millis(20));
            number += 1;
        }
        let esp = world.esp();
        let answered: Vec<_> = esp[before..]
            .iter()
            .filter(|e| e.spi == answers.spi.0)
            .collect();
        assert_eq!(answered.len(), 5, "answers of {active}");
        for packet in answered {
            assert_eq!(packet.port, usize::from(active));
            let mut window = AntiReplay::new(64, SequenceNumber(packet.number - 1));
            // Behind Ethernet and IPv4 without options.
            let mut octets = packet.frame[34..].to_vec();
            let (kind, range) =
                open_datagram(&answers.key, true, &mut window, &mut octets).unwrap();
            // An echo reply, and no IP header inside.
            assert_eq!((kind, octets[range][0]), (ICMP, 0));
        }
        if world.leaders().len() == 1 && number < 10 {
            let high_water = world.status(active).leases[0].high_water;
            world.kill(active);
            world.until("a takeover", |world| world.leader().is_some());
            number = high_water + 1;
        }
    }
    world.audit();
}
