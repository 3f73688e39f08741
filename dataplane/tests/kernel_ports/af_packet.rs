//! The packet-socket port against the kernel.

use std::net::{Ipv4Addr, UdpSocket};

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_packet::{AfPacketPort, AfPacketSettings};
use hitless_dataplane::port::{Burst, Port};

use crate::namespace::{Cable, Wire, in_namespace, ip, keep_capabilities, send_merged};
use crate::station::{
    BROADCAST, FOREIGN, OTHER_ADDRESS, OUR_ADDRESS, OURS, Station, arp_request, datagram, frame,
    frame_of,
};

fn settings(interface: &str) -> AfPacketSettings {
    AfPacketSettings {
        interface: interface.to_owned(),
        mac: OURS,
        addresses: vec![OUR_ADDRESS.into()],
        queues: 1,
    }
}

fn station(cable: &Cable, pool: Pool) -> Station<AfPacketPort> {
    let port = AfPacketPort::open(&settings(&cable.near), &pool);
    let port = port.unwrap_or_else(|error| panic!("{error}"));
    Station { port, pool }
}

#[test]
fn frames_go_both_ways_unchanged_and_every_frame_is_accounted_for() {
    in_namespace(|| {
        let cable = Cable::new("b", 1);
        let far = Wire::new(&cable.far);
        let mut station = station(&cable, Pool::new(64).unwrap());
        assert_eq!(station.port.mtu(), 1500);
        for length in [60, 61, 342, 1513, 1514] {
            let sent = frame(OURS, length, 1);
            far.send(&sent);
            assert_eq!(station.receive_octets(), sent);
            let sent = frame(FOREIGN, length, 2);
            station.send(std::slice::from_ref(&sent));
            assert_eq!(far.receive(), sent);
        }
        for round in 0..50 {
            for number in 0..32 {
                far.send(&frame(OURS, 60 + 40 * number as usize, round * 32 + number));
            }
            let mut echoed = 0;
            while echoed < 32 {
                let mut burst = station.receive_some();
                station.assert_accounted(burst.len());
                echoed += burst.len();
                for packet in &mut burst {
                    station.pool.bytes_mut(packet)[..6].copy_from_slice(&FOREIGN);
                }
                station.port.transmit(&mut station.pool, &mut burst);
                station.assert_accounted(0);
            }
            for number in 0..32 {
                let sent = frame(FOREIGN, 60 + 40 * number as usize, round * 32 + number);
                assert_eq!(far.receive(), sent);
            }
        }
        assert_eq!(station.port.counters(), Default::default());
        let lost = Box::new(station.port).close(&mut station.pool);
        assert_eq!((lost, station.pool.available()), (0, 64));
    });
}

#[test]
fn closing_gives_every_frame_back_and_opening_again_works() {
    in_namespace(|| {
        let cable = Cable::new("o", 1);
        let far = Wire::new(&cable.far);
        let mut pool = Pool::new(64).unwrap();
        for round in 0..10 {
            let mut opened = station(&cable, pool);
            assert!(cable.describe().contains("\"promiscuity\":1"));
            far.send(&frame(OURS, 60, round));
            assert_eq!(opened.receive_octets(), frame(OURS, 60, round));
            // Left in the socket, and gone with it.
            far.send(&frame(OURS, 60, 99));
            pool = opened.pool;
            assert_eq!(Box::new(opened.port).close(&mut pool), 0);
            assert_eq!(pool.available(), 64);
            assert!(cable.describe().contains("\"promiscuity\":0"));
        }
    });
}

#[test]
fn jumbo_frames_go_both_ways_unchanged() {
    in_namespace(|| {
        let cable = Cable::new("j", 1);
        for end in [&cable.near, &cable.far] {
            ip(&format!("link set {end} mtu 9216"));
        }
        let far = Wire::new(&cable.far);
        let error = AfPacketPort::open(&settings(&cable.near), &Pool::new(64).unwrap());
        let text = error.err().unwrap().to_string();
        assert!(text.contains("dataplane.jumbo_packets"), "{text}");
        let mut station = station(&cable, Pool::with_runs(64, 4).unwrap());
        for length in [60, 1791, 1792, 1793, 2004, 4010, 4020, 9000, 9229, 9230] {
            for number in 0..3 {
                far.send(&frame(OURS, length, number));
            }
            for (number, packet) in station.receive(3).into_iter().enumerate() {
                let octets = station.pool.bytes(&packet);
                assert_eq!(octets, frame(OURS, length, number as u32));
                station.pool.free(packet);
            }
            let sent = frame(FOREIGN, length, 2);
            station.send(std::slice::from_ref(&sent));
            assert_eq!(far.receive(), sent);
        }
        assert_eq!(station.port.counters(), Default::default());
    });
}

/// What is ours comes, the rest does not, and the kernel keeps its own.
#[test]
fn the_port_gets_what_is_ours_and_the_kernel_acts_on_none_of_it() {
    in_namespace(|| {
        let cable = Cable::new("k", 1);
        let own = Ipv4Addr::new(192, 0, 2, 50);
        ip(&format!("address add {own}/24 dev {}", cable.near));
        let far = Wire::new(&cable.far);
        let mut station = station(&cable, Pool::new(64).unwrap());
        let socket = UdpSocket::bind((own, 5000)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let ours = datagram(OURS, own, 5000, b"not for the kernel");
        let mut tagged = frame(OURS, 64, 1);
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        far.send(&tagged);
        far.send(&frame(FOREIGN, 60, 1));
        far.send(&frame(cable.mac(), 60, 1));
        far.send(&frame(BROADCAST, 60, 1));
        far.send(&ours);
        // ARP is for everybody: the worker knows which addresses are ours.
        far.send(&arp_request(BROADCAST, OTHER_ADDRESS));
        far.send(&frame_of([0x33, 0x33, 0xff, 0, 0, 1], 0x86dd, &[0x60; 60]));
        let received: Vec<_> = station.receive(3);
        let asked = arp_request(BROADCAST, OTHER_ADDRESS);
        assert_eq!(station.pool.bytes(&received[0]), ours);
        assert_eq!(station.pool.bytes(&received[1]), asked);
        assert_eq!(station.pool.bytes(&received[2])[12..14], [0x86, 0xdd]);
        received
            .into_iter()
            .for_each(|packet| station.pool.free(packet));
        assert!(socket.recv_from(&mut [0; 64]).is_err(), "the kernel got it");
        far.send(&datagram(cable.mac(), own, 5000, b"for the kernel"));
        let mut text = [0; 64];
        socket.set_nonblocking(false).unwrap();
        let (length, _) = socket.recv_from(&mut text).unwrap();
        assert_eq!(&text[..length], b"for the kernel");
        // What this host itself sends is not received.
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"out", "192.0.2.255:9").unwrap();
        far.send(&frame(OURS, 60, 9));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 9));
    });
}

/// A kernel that leaves the checksum to hardware: the port completes it.
#[test]
fn rfc_768_checksums_that_the_sender_left_open_are_completed() {
    in_namespace(|| {
        let cable = Cable::new("c", 1);
        ip(&format!("address add 192.0.2.60/24 dev {}", cable.far));
        ip(&format!(
            "neighbour add {OUR_ADDRESS} lladdr 02:00:5e:00:01:01 dev {}",
            cable.far
        ));
        let mut station = station(&cable, Pool::new(64).unwrap());
        let socket = UdpSocket::bind("192.0.2.60:0").unwrap();
        for length in [0, 1, 2, 777, 1472] {
            socket
                .send_to(&vec![7; length], (OUR_ADDRESS, 5000))
                .unwrap();
            let octets = station.receive_octets();
            let sliced = etherparse::SlicedPacket::from_ethernet(&octets).unwrap();
            let (Some(etherparse::NetSlice::Ipv4(net)), Some(etherparse::TransportSlice::Udp(udp))) =
                (&sliced.net, &sliced.transport)
            else {
                panic!("no UDP in IPv4");
            };
            let header = udp.to_header();
            let expected = header
                .calc_checksum_ipv4(&net.header().to_header(), udp.payload())
                .unwrap();
            assert_eq!(header.checksum, expected, "{length}");
        }
        assert_eq!(station.port.counters(), Default::default());
    });
}

/// Datagrams that the sending kernel merged into one frame are no packet: counted, and no more.
#[test]
fn merged_and_too_long_frames_are_counted() {
    in_namespace(|| {
        let cable = Cable::new("s", 1);
        ip(&format!("address add 192.0.2.60/24 dev {}", cable.far));
        ip(&format!(
            "neighbour add {OUR_ADDRESS} lladdr 02:00:5e:00:01:01 dev {}",
            cable.far
        ));
        let far = Wire::new(&cable.far);
        let mut station = station(&cable, Pool::new(64).unwrap());
        let socket = UdpSocket::bind("192.0.2.60:0").unwrap();
        send_merged(&socket, OUR_ADDRESS, 4000, 1000);
        send_merged(&socket, OUR_ADDRESS, 1600, 800);
        far.send(&frame(OURS, 60, 1));
        let mut burst = Burst::new();
        while burst.is_empty() {
            station.port.receive(&mut station.pool, &mut burst);
        }
        assert_eq!(burst.len(), 1);
        assert_eq!(station.port.counters().malformed, 2);
        burst.drain(..).for_each(|packet| station.pool.free(packet));
        station.assert_accounted(0);
        // And out: beyond the MTU, and runts.
        let good = frame(FOREIGN, 1514, 1);
        station.send(&[
            frame(FOREIGN, 1515, 0),
            vec![2; 13],
            Vec::new(),
            good.clone(),
        ]);
        assert_eq!(far.receive(), good);
        assert_eq!(station.port.counters().malformed, 5);
    });
}

#[test]
fn a_link_that_is_down_or_gone_costs_no_frame() {
    in_namespace(|| {
        let cable = Cable::new("d", 1);
        let mut station = station(&cable, Pool::new(64).unwrap());
        ip(&format!("link set {} down", cable.near));
        let burst: Vec<_> = (0..32).map(|n| frame(FOREIGN, 60, n)).collect();
        station.send(&burst);
        assert_eq!(station.port.counters().transmit_full, 32);
        cable.light();
        let far = Wire::new(&cable.far);
        station.send(&burst);
        for sent in &burst {
            assert_eq!(&far.receive(), sent);
        }
        drop(far);
        ip(&format!("link delete {}", cable.near));
        for _ in 0..4 {
            let mut received = Burst::new();
            station.port.receive(&mut station.pool, &mut received);
            assert!(received.is_empty());
            station.send(&burst[..2]);
        }
        assert_eq!(station.port.counters().transmit_full, 40);
    });
}

/// A pool without a free frame leaves frames to the kernel, which keeps them.
#[test]
fn frames_wait_in_the_kernel_while_the_pool_is_empty() {
    in_namespace(|| {
        let cable = Cable::new("w", 1);
        let far = Wire::new(&cable.far);
        let mut station = station(&cable, Pool::new(4).unwrap());
        for number in 0..6 {
            far.send(&frame(OURS, 60, number));
        }
        let first = station.receive(4);
        let mut none = Burst::new();
        station.port.receive(&mut station.pool, &mut none);
        assert!(none.is_empty());
        first
            .into_iter()
            .for_each(|packet| station.pool.free(packet));
        for (number, packet) in (4..).zip(station.receive(2)) {
            assert_eq!(station.pool.bytes(&packet), frame(OURS, 60, number));
            station.pool.free(packet);
        }
    });
}

/// Two workers: each flow stays with one of them, and together they get all.
#[test]
fn several_ports_share_the_flows_of_an_interface() {
    in_namespace(|| {
        let cable = Cable::new("m", 1);
        let far = Wire::new(&cable.far);
        let shared = AfPacketSettings {
            queues: 2,
            ..settings(&cable.near)
        };
        let mut stations: Vec<_> = (0..2)
            .map(|_| {
                let pool = Pool::new(256).unwrap();
                let port = AfPacketPort::open(&shared, &pool).unwrap();
                Station { port, pool }
            })
            .collect();
        let mut owners = [None; 32];
        let mut seen = [0; 2];
        for _ in 0..4 {
            for flow in 0..32_u16 {
                far.send(&datagram(OURS, OUR_ADDRESS, 1000 + flow, b"spread me"));
            }
            let before: usize = seen.iter().sum();
            while seen.iter().sum::<usize>() < before + 32 {
                for (index, station) in stations.iter_mut().enumerate() {
                    let mut burst = Burst::new();
                    station.port.receive(&mut station.pool, &mut burst);
                    seen[index] += burst.len();
                    for packet in burst {
                        let octets = station.pool.bytes(&packet);
                        let port = u16::from_be_bytes([octets[36], octets[37]]);
                        let owner = owners[usize::from(port - 1000)].get_or_insert(index);
                        assert_eq!(*owner, index);
                        station.pool.free(packet);
                    }
                }
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
        stations
            .iter()
            .for_each(|station| station.assert_accounted(0));
    });
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_namespace(|| {
        let cable = Cable::new("z", 1);
        let pool = Pool::new(64).unwrap();
        let expect = |settings: &AfPacketSettings, start: &str| {
            let error = AfPacketPort::open(settings, &pool).err();
            let text = error.expect(start).to_string();
            assert!(text.starts_with(start), "{text}");
            assert!(cable.describe().contains("\"promiscuity\":0"));
        };
        expect(&settings("a b"), "\"a b\" is no interface name");
        expect(&settings("absent"), "interface absent does not exist");
        expect(&settings("lo"), "interface lo is not Ethernet");
        let near = cable.near.as_str();
        for mac in [cable.mac(), [0; 6], BROADCAST] {
            let wrong = AfPacketSettings {
                mac,
                ..settings(near)
            };
            expect(&wrong, &format!("the virtual MAC address on {near}"));
        }
        keep_capabilities(&[]);
        let text = AfPacketPort::open(&settings(near), &pool).err().unwrap();
        assert!(text.to_string().contains("CAP_NET_RAW"), "{text}");
    });
}
