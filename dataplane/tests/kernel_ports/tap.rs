//! The TAP port: the host kernel is at the far end.

use std::net::UdpSocket;

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::tap::{TapPort, TapSettings};
use hitless_dataplane::port::{Burst, Port};

use crate::namespace::{Wire, in_namespace, ip, keep_capabilities};
use crate::station::{BROADCAST, FOREIGN, OUR_ADDRESS, OURS, Station, frame};

fn settings(interface: &str) -> TapSettings {
    TapSettings {
        interface: interface.to_owned(),
        mtu: None,
        several: false,
    }
}

fn station(settings: &TapSettings, pool: Pool) -> Station<TapPort> {
    // The kernel's own IPv6 chatter would come out of the interface.
    ip("link set lo up");
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let port = TapPort::open(settings, &pool).unwrap_or_else(|error| panic!("{error}"));
    Station { port, pool }
}

#[test]
fn frames_go_both_ways_unchanged_also_jumbo_ones() {
    in_namespace(|| {
        let with = TapSettings {
            mtu: Some(9216),
            ..settings("tap0")
        };
        let mut station = station(&with, Pool::with_runs(64, 4).unwrap());
        assert_eq!(station.port.mtu(), 9216);
        let host = Wire::new("tap0");
        for length in [60, 61, 1514, 1791, 1792, 1793, 2004, 4010, 9000, 9230] {
            let sent = frame(OURS, length, 1);
            host.send(&sent);
            assert_eq!(station.receive_octets(), sent, "{length}");
            let sent = frame(FOREIGN, length, 2);
            station.send(std::slice::from_ref(&sent));
            assert_eq!(host.receive(), sent, "{length}");
        }
        for round in 0..50 {
            for number in 0..32 {
                host.send(&frame(OURS, 60 + number as usize, round * 32 + number));
            }
            for number in 0..32 {
                let sent = frame(OURS, 60 + number as usize, round * 32 + number);
                if number == 0 {
                    let mut burst = station.receive_some();
                    assert_eq!(burst.len(), 32);
                    assert_eq!(station.pool.bytes(&burst[0]), sent);
                    station.assert_accounted(32);
                    station.port.transmit(&mut station.pool, &mut burst);
                    station.assert_accounted(0);
                }
                assert_eq!(host.receive(), sent);
            }
        }
        assert_eq!(station.port.counters(), Default::default());
    });
}

/// A host behind the TAP: its datagrams come with whole checksums.
#[test]
fn rfc_768_what_the_kernel_sends_into_a_tap_has_its_checksum() {
    in_namespace(|| {
        let mut station = station(&settings("tap1"), Pool::new(64).unwrap());
        ip("address add 192.0.2.60/24 dev tap1");
        ip(&format!(
            "neighbour add {OUR_ADDRESS} lladdr 02:00:5e:00:01:01 dev tap1"
        ));
        let socket = UdpSocket::bind("192.0.2.60:0").unwrap();
        socket.send_to(b"whole", (OUR_ADDRESS, 5000)).unwrap();
        let octets = station.receive_octets();
        assert_eq!(octets[..6], OURS);
        let sliced = etherparse::SlicedPacket::from_ethernet(&octets).unwrap();
        let (Some(etherparse::NetSlice::Ipv4(net)), Some(etherparse::TransportSlice::Udp(udp))) =
            (&sliced.net, &sliced.transport)
        else {
            panic!("no UDP in IPv4");
        };
        let header = udp.to_header();
        let expected = header.calc_checksum_ipv4(&net.header().to_header(), udp.payload());
        assert_eq!(header.checksum, expected.unwrap());
    });
}

#[test]
fn what_does_not_fit_or_finds_the_interface_down_is_counted() {
    in_namespace(|| {
        let mut station = station(&settings("tap2"), Pool::new(64).unwrap());
        let host = Wire::new("tap2");
        let good = frame(BROADCAST, 1514, 1);
        station.send(&[frame(OURS, 1515, 1), vec![1; 13], Vec::new(), good.clone()]);
        assert_eq!(host.receive(), good);
        assert_eq!(station.port.counters().malformed, 3);
        ip("link set tap2 down");
        station.send(&[good.clone(), good.clone()]);
        assert_eq!(station.port.counters().transmit_full, 2);
        let mut burst = Burst::new();
        station.port.receive(&mut station.pool, &mut burst);
        assert!(burst.is_empty());
        station.assert_accounted(0);
        ip("link set tap2 up");
        let host = Wire::new("tap2");
        station.send(std::slice::from_ref(&good));
        assert_eq!(host.receive(), good);
    });
}

/// An interface that was made by the port goes with it; one that was made to stay, stays.
#[test]
fn closing_gives_everything_back_and_opening_again_works() {
    in_namespace(|| {
        let mut pool = Pool::new(64).unwrap();
        for round in 0..5 {
            let mut station = station(&settings("tap3"), pool);
            Wire::new("tap3").send(&frame(OURS, 60, round));
            assert_eq!(station.receive_octets(), frame(OURS, 60, round));
            pool = station.pool;
            assert_eq!(Box::new(station.port).close(&mut pool), 0);
            assert_eq!(pool.available(), 64);
            assert!(!ip("link show").contains("tap3"));
        }
        ip("tuntap add dev tap4 mode tap");
        let port = TapPort::open(&settings("tap4"), &pool).unwrap();
        let error = TapPort::open(&settings("tap4"), &pool).err().unwrap();
        assert!(
            error.to_string().contains("another process has it"),
            "{error}"
        );
        drop(port);
        assert!(ip("link show").contains("tap4"));
    });
}

#[test]
fn several_ports_share_one_tap() {
    in_namespace(|| {
        let several = TapSettings {
            several: true,
            ..settings("tap5")
        };
        let mut first = station(&several, Pool::new(64).unwrap());
        let mut second = Station {
            port: TapPort::open(&several, &Pool::new(64).unwrap()).unwrap(),
            pool: Pool::new(64).unwrap(),
        };
        let host = Wire::new("tap5");
        let mut seen = 0;
        for number in 0..32 {
            host.send(&frame(OURS, 60, number));
        }
        while seen < 32 {
            for station in [&mut first, &mut second] {
                let mut burst = Burst::new();
                station.port.receive(&mut station.pool, &mut burst);
                seen += burst.len();
                burst
                    .into_iter()
                    .for_each(|packet| station.pool.free(packet));
                station.assert_accounted(0);
            }
        }
        first.send(&[frame(FOREIGN, 60, 1)]);
        second.send(&[frame(FOREIGN, 60, 2)]);
        assert_eq!(host.receive(), frame(FOREIGN, 60, 1));
        assert_eq!(host.receive(), frame(FOREIGN, 60, 2));
    });
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_namespace(|| {
        let pool = Pool::new(64).unwrap();
        let refused = |settings: &TapSettings, what: &str| {
            let error = TapPort::open(settings, &pool).err();
            let text = error.expect(what).to_string();
            assert!(text.contains(what), "{text}");
        };
        refused(&settings("no name"), "is no interface name");
        refused(&settings("lo"), "cannot make or open the TAP");
        let jumbo = TapSettings {
            mtu: Some(9000),
            ..settings("tap6")
        };
        refused(&jumbo, "dataplane.jumbo_packets");
        keep_capabilities(&[]);
        refused(&settings("tap7"), "CAP_NET_ADMIN");
    });
}
