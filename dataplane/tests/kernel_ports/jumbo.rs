//! Frames longer than a frame of the pool, through the kernel: several buffers each, one packet.

use std::net::Ipv6Addr;

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_xdp::{AfXdpMode, AfXdpPort, AfXdpSettings};
use hitless_dataplane::port::{Burst, Port};

use crate::namespace::{Cable, Wire, in_namespace, ip};
use crate::station::{FOREIGN, OURS, Station, frame, frame_of, settings};

const MTU: usize = 9216;

fn jumbo_cable(name: &str) -> Cable {
    let cable = Cable::new(name, 1);
    for end in [&cable.near, &cable.far] {
        ip(&format!("link set {end} mtu {MTU}"));
    }
    cable
}

fn jumbo_station(cable: &Cable, mode: AfXdpMode, runs: u32) -> Station {
    let settings = AfXdpSettings {
        mode,
        ..settings(&cable.near)
    };
    Station::with(&settings, Pool::with_runs(1024, runs).unwrap())
}

/// Lengths around every multiple of a buffer's 1,792 octets, and of a frame's 2,048.
#[test]
fn jumbo_frames_go_both_ways_unchanged_in_both_modes() {
    for mode in [AfXdpMode::Native, AfXdpMode::Skb] {
        in_namespace(move || {
            let cable = jumbo_cable("j");
            let far = Wire::new(&cable.far);
            let mut station = jumbo_station(&cable, mode, 8);
            assert_eq!(station.port.mtu(), MTU);
            let mut lengths = vec![60, 1514, 2004, 4010, 4020, 9000, MTU + 13, MTU + 14];
            for buffers in 1..=4 {
                lengths.extend([1792, 2048].map(|size| size * buffers - 1));
                lengths.extend([1792, 2048].map(|size| size * buffers));
                lengths.extend([1792, 2048].map(|size| size * buffers + 1));
            }
            for length in lengths {
                let sent = frame(OURS, length, 1);
                far.send(&sent);
                assert_eq!(station.receive_octets(), sent, "{mode:?} {length}");
                let sent = frame(FOREIGN, length, 2);
                station.send(std::slice::from_ref(&sent));
                assert_eq!(far.receive(), sent, "{mode:?} {length}");
                station.settle();
            }
            station.port.refresh_counters();
            assert_eq!(station.port.counters(), Default::default());
        });
    }
}

/// Packets of one and of several buffers in one burst keep their order, and every run comes back.
#[test]
fn mixed_bursts_are_echoed_in_order_and_no_run_is_lost() {
    in_namespace(|| {
        let cable = jumbo_cable("y");
        let far = Wire::new(&cable.far);
        let mut station = jumbo_station(&cable, AfXdpMode::Auto, 16);
        for round in 0..100 {
            let lengths = [60, 9000, 1500, 4010, 61, 2004, 9230, 62];
            for (number, length) in lengths.into_iter().enumerate() {
                far.send(&frame(OURS, length, round * 8 + number as u32));
            }
            let mut echoed = 0;
            while echoed < lengths.len() {
                let mut burst = station.receive_some();
                station.assert_accounted(burst.len());
                echoed += burst.len();
                for packet in &mut burst {
                    station.pool.bytes_mut(packet)[..6].copy_from_slice(&FOREIGN);
                }
                station.port.transmit(&mut station.pool, &mut burst);
                station.assert_accounted(0);
            }
            for (number, length) in lengths.into_iter().enumerate() {
                let sent = frame(FOREIGN, length, round * 8 + number as u32);
                assert_eq!(far.receive(), sent);
            }
        }
        station.settle();
        assert_eq!(station.port.counters(), Default::default());
    });
}

/// One run for two jumbo packets: the second is lost and counted, what follows is not.
#[test]
fn a_jumbo_packet_without_a_free_run_is_counted_and_costs_no_frame() {
    in_namespace(|| {
        let cable = jumbo_cable("r");
        let far = Wire::new(&cable.far);
        let mut station = jumbo_station(&cable, AfXdpMode::Auto, 1);
        let kept = {
            far.send(&frame(OURS, 9000, 1));
            station.receive(1)
        };
        far.send(&frame(OURS, 9000, 2));
        far.send(&frame(OURS, 60, 3));
        let mut burst = Burst::new();
        while burst.is_empty() {
            station.port.receive(&mut station.pool, &mut burst);
        }
        assert_eq!(burst.len(), 1);
        assert_eq!(station.pool.bytes(&burst[0]), frame(OURS, 60, 3));
        assert_eq!(station.port.counters().no_buffer, 1);
        kept.into_iter()
            .chain(burst.drain(..))
            .for_each(|packet| station.pool.free(packet));
        station.assert_accounted(0);
        far.send(&frame(OURS, 9000, 4));
        assert_eq!(station.receive_octets(), frame(OURS, 9000, 4));
    });
}

#[test]
fn an_mtu_beyond_the_pool_is_refused_with_what_to_do() {
    in_namespace(|| {
        let cable = jumbo_cable("x");
        let mut pool = Pool::new(1024).unwrap();
        let error = AfXdpPort::open(&settings(&cable.near), &mut pool).err();
        let text = error.unwrap().to_string();
        assert!(text.contains("dataplane.jumbo_packets"), "{text}");
        ip(&format!("link set {} mtu 9217", cable.near));
        let mut pool = Pool::with_runs(1024, 8).unwrap();
        let error = AfXdpPort::open(&settings(&cable.near), &mut pool).err();
        let text = error.unwrap().to_string();
        assert!(text.contains("mtu 9216` or less"), "{text}");
        assert!(!cable.has_program());
        assert_eq!(pool.available(), 1032);
    });
}

/// Closed ports give all frames back, however often; also with a packet on its way, and with jumbo
/// frames in the receive ring.
#[test]
fn closing_gives_every_frame_back_and_opening_again_works() {
    for mode in [AfXdpMode::Native, AfXdpMode::Skb] {
        in_namespace(move || {
            let cable = jumbo_cable("w");
            let far = Wire::new(&cable.far);
            let mut pool = Pool::with_runs(256, 8).unwrap();
            for round in 0..20 {
                let mut station = {
                    let settings = AfXdpSettings {
                        mode,
                        ..settings(&cable.near)
                    };
                    Station::with(&settings, pool)
                };
                far.send(&frame(OURS, 9000, round));
                assert_eq!(station.receive_octets(), frame(OURS, 9000, round));
                station.send(&[frame(FOREIGN, 60, round), frame(FOREIGN, 9000, round)]);
                far.send(&frame(OURS, 9000, round));
                far.send(&frame(OURS, 60, round));
                pool = station.pool;
                let lost = Box::new(station.port).close(&mut pool);
                assert_eq!((lost, pool.available()), (0, 264), "round {round}");
                assert_eq!(far.receive(), frame(FOREIGN, 60, round));
                assert_eq!(far.receive(), frame(FOREIGN, 9000, round));
                assert!(!cable.has_program());
            }
        });
    }
}

/// A link that is down keeps what was to be sent: those frames stay out of use, and are told.
#[test]
fn closing_waits_no_longer_than_a_moment_for_frames_that_are_never_sent() {
    in_namespace(|| {
        let cable = Cable::new("c", 1);
        let mut station = Station::new(&settings(&cable.near));
        ip(&format!("link set {} down", cable.near));
        station.send(&vec![frame(FOREIGN, 60, 0); 5]);
        let mut pool = station.pool;
        let lost = Box::new(station.port).close(&mut pool);
        assert_eq!((lost, pool.available()), (5, 1019));
    });
}

/// A veth has no zero copy: the ladder goes down to the kernel's copy, and says so.
#[test]
fn the_mode_is_the_best_that_was_asked_for_and_is_possible() {
    for (mode, zero_copy, expected) in [
        (AfXdpMode::Auto, true, "native"),
        (AfXdpMode::Auto, false, "native"),
        (AfXdpMode::Native, true, "native"),
        (AfXdpMode::Skb, true, "skb"),
    ] {
        in_namespace(move || {
            let cable = Cable::new("z", 1);
            let far = Wire::new(&cable.far);
            let mut station = Station::new(&AfXdpSettings {
                mode,
                zero_copy,
                ..settings(&cable.near)
            });
            assert_eq!(station.port.mode(), expected);
            far.send(&frame(OURS, 60, 1));
            assert_eq!(station.receive_octets(), frame(OURS, 60, 1));
        });
    }
}

/// RFC 4861 section 7.2.2: who asks for our IPv6 address does so by multicast.
#[test]
fn rfc_4861_a_neighbour_solicitation_of_our_address_is_ours() {
    in_namespace(|| {
        let cable = Cable::new("n", 1);
        let (far, host) = (Wire::new(&cable.far), Wire::new(&cable.near));
        let [ours, other] = [5, 6].map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        let mut with = settings(&cable.near);
        with.addresses.push(ours.into());
        let mut station = Station::new(&with);
        let groups = ip(&format!("maddress show dev {}", cable.near));
        assert!(groups.contains("33:33:ff:00:00:05"), "{groups}");
        let asked = |target: Ipv6Addr| {
            let group = [0x33, 0x33, 0xff, 0, 0, target.octets()[15]];
            let mut packet = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
            packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, group[5]]);
            packet.extend([135, 0, 0, 0, 0, 0, 0, 0]);
            packet.extend(target.octets());
            frame_of(group, 0x86dd, &packet)
        };
        far.send(&asked(other));
        far.send(&asked(ours));
        assert_eq!(station.receive_octets(), asked(ours));
        // The other went to the kernel, which `Wire` shows all but IPv6 of.
        far.send(&frame(cable.mac(), 60, 1));
        assert_eq!(host.receive(), frame(cable.mac(), 60, 1));
        station.assert_accounted(0);
    });
}
