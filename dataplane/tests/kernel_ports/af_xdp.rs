//! The AF_XDP port against the kernel: a veth pair in a network namespace of its own, the port at
//! one end, a raw socket at the other.
//!
//! ```text
//!   Port --XSK-- near ======== far --- Wire (raw socket)
//!                 |
//!   host Wire ----+  (what the kernel at the near end gets)
//! ```

use std::net::{Ipv4Addr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::namespace::{Cable, Wire, in_namespace, ip, send_merged, wait};
use crate::station::{
    BROADCAST, FOREIGN, OTHER_ADDRESS, OUR_ADDRESS, OURS, Station, arp_request, datagram, frame,
    settings,
};
use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_xdp::{AfXdpMode, AfXdpPort, AfXdpSettings};
use hitless_dataplane::port::{Burst, Port, PortCounters};

#[test]
fn frames_go_both_ways_unchanged_in_both_modes() {
    for (mode, native) in [(AfXdpMode::Native, true), (AfXdpMode::Skb, false)] {
        in_namespace(move || {
            let cable = Cable::new("b", 1);
            let far = Wire::new(&cable.far);
            let mut station = Station::new(&AfXdpSettings {
                mode,
                ..settings(&cable.near)
            });
            assert_eq!(station.port.attachment().is_native(), native);
            assert_eq!(station.port.mtu(), 1500);
            for length in [60, 61, 342, 1513, 1514] {
                let sent = frame(OURS, length, 1);
                far.send(&sent);
                assert_eq!(station.receive_octets(), sent);
                let sent = frame(FOREIGN, length, 2);
                station.send(std::slice::from_ref(&sent));
                assert_eq!(far.receive(), sent);
                station.settle();
            }
            assert_eq!(station.port.counters(), Default::default());
        });
    }
}

/// Rings of 64 wrap around many times; at most a burst is on its way, so nothing may be lost.
#[test]
fn bursts_are_echoed_in_place_and_no_frame_is_lost_or_doubled() {
    in_namespace(|| {
        let cable = Cable::new("e", 1);
        let far = Wire::new(&cable.far);
        let mut station = Station::new(&settings(&cable.near));
        for round in 0..200 {
            let numbers: Vec<u32> = (0..32).map(|n| round * 32 + n).collect();
            for &number in &numbers {
                far.send(&frame(OURS, 60 + number as usize % 1400, number));
            }
            let mut echoed = 0;
            while echoed < numbers.len() {
                let mut burst = station.receive_some();
                station.assert_accounted(burst.len());
                echoed += burst.len();
                for packet in &mut burst {
                    station.pool.bytes_mut(packet)[..6].copy_from_slice(&FOREIGN);
                }
                station.port.transmit(&mut station.pool, &mut burst);
                station.assert_accounted(0);
            }
            for number in numbers {
                let sent = frame(FOREIGN, 60 + number as usize % 1400, number);
                assert_eq!(far.receive(), sent);
            }
        }
        station.settle();
        assert_eq!(station.port.counters(), Default::default());
    });
}

/// One worker, two ports, one pool: a frame goes from one interface to the other without a copy.
#[test]
fn two_ports_share_a_pool() {
    in_namespace(|| {
        let (left, right) = (Cable::new("l", 1), Cable::new("r", 1));
        let (from, to) = (Wire::new(&left.far), Wire::new(&right.far));
        let mut pool = Pool::new(1024).unwrap();
        let mut inside = AfXdpPort::open(&settings(&left.near), &mut pool).unwrap();
        let mut outside = AfXdpPort::open(&settings(&right.near), &mut pool).unwrap();
        for number in 0..500 {
            let sent = frame(OURS, 200, number);
            from.send(&sent);
            let mut burst = Burst::new();
            wait(inside.wake_descriptor().unwrap());
            inside.receive(&mut pool, &mut burst);
            assert_eq!(burst.len(), 1);
            outside.transmit(&mut pool, &mut burst);
            assert_eq!(to.receive(), sent);
            let held = inside.frames_held() + outside.frames_held();
            assert_eq!(pool.available() + held, pool.frames());
        }
    });
}

#[test]
fn arp_about_our_addresses_is_ours_and_other_arp_is_the_kernels() {
    in_namespace(|| {
        let cable = Cable::new("a", 1);
        let (far, host) = (Wire::new(&cable.far), Wire::new(&cable.near));
        let mut station = Station::new(&settings(&cable.near));
        let attachment = Arc::clone(station.port.attachment());
        for to in [BROADCAST, FOREIGN, cable.mac()] {
            far.send(&arp_request(to, OTHER_ADDRESS));
            assert_eq!(host.receive(), arp_request(to, OTHER_ADDRESS));
            far.send(&arp_request(to, OUR_ADDRESS));
            assert_eq!(station.receive_octets(), arp_request(to, OUR_ADDRESS));
        }
        attachment.add_address(OTHER_ADDRESS.into()).unwrap();
        attachment.remove_address(OUR_ADDRESS.into()).unwrap();
        attachment.remove_address(OUR_ADDRESS.into()).unwrap();
        far.send(&arp_request(BROADCAST, OUR_ADDRESS));
        assert_eq!(host.receive(), arp_request(BROADCAST, OUR_ADDRESS));
        far.send(&arp_request(BROADCAST, OTHER_ADDRESS));
        let received = station.receive_octets();
        assert_eq!(received, arp_request(BROADCAST, OTHER_ADDRESS));
    });
}

#[test]
fn the_kernel_keeps_its_own_traffic_and_none_of_ours() {
    for mode in [AfXdpMode::Native, AfXdpMode::Skb] {
        in_namespace(move || {
            let cable = Cable::new("k", 1);
            ip(&format!("address add 192.0.2.50/24 dev {}", cable.near));
            let (far, host) = (Wire::new(&cable.far), Wire::new(&cable.near));
            let mut station = Station::new(&AfXdpSettings {
                mode,
                ..settings(&cable.near)
            });
            let own = Ipv4Addr::new(192, 0, 2, 50);
            let socket = UdpSocket::bind((own, 5000)).unwrap();
            let ours = datagram(OURS, own, 5000, b"not for the kernel");
            let kernels = datagram(cable.mac(), own, 5000, b"for the kernel");
            far.send(&ours);
            far.send(&kernels);
            assert_eq!(station.receive_octets(), ours);
            assert_eq!(host.receive(), kernels);
            let mut text = [0; 64];
            let (length, _) = socket.recv_from(&mut text).unwrap();
            assert_eq!(&text[..length], b"for the kernel");
        });
    }
}

/// Fail closed: ours on a queue without a port is dropped, and the kernel never sees it.
#[test]
fn frames_of_ours_on_a_queue_without_a_socket_are_dropped() {
    for mode in [AfXdpMode::Native, AfXdpMode::Skb] {
        in_namespace(move || {
            let cable = Cable::new("q", 1);
            let (far, host) = (Wire::new(&cable.far), Wire::new(&cable.near));
            let station = Station::new(&AfXdpSettings {
                mode,
                ..settings(&cable.near)
            });
            let attachment = Arc::clone(station.port.attachment());
            drop(station);
            far.send(&frame(OURS, 60, 1));
            far.send(&arp_request(BROADCAST, OUR_ADDRESS));
            far.send(&frame(cable.mac(), 60, 2));
            assert_eq!(host.receive(), frame(cable.mac(), 60, 2));

            let mut pool = Pool::new(1024).unwrap();
            let port = AfXdpPort::join(&attachment, 0, &mut pool).unwrap();
            let mut station = Station { port, pool };
            far.send(&frame(OURS, 60, 3));
            assert_eq!(station.receive_octets(), frame(OURS, 60, 3));
        });
    }
}

/// Flows are spread over queues by a hash that differs from boot to boot: which queue a flow takes
/// is unknown, but the two queues together get them all, and the kernel none.
#[test]
fn two_queues_of_one_interface_share_the_program() {
    in_namespace(|| {
        let cable = Cable::new("m", 2);
        let (far, host) = (Wire::new(&cable.far), Wire::new(&cable.near));
        let mut pool = Pool::new(1024).unwrap();
        let mut first = AfXdpPort::open(&settings(&cable.near), &mut pool).unwrap();
        let attachment = Arc::clone(first.attachment());
        let mut second = AfXdpPort::join(&attachment, 1, &mut pool).unwrap();
        let mut seen = [0, 0];
        for flow in 0..64 {
            far.send(&datagram(OURS, OUR_ADDRESS, 1000 + flow, b"spread me"));
            let mut burst = Burst::new();
            // A frame is in its ring when `send` returns, or when the marker behind it arrives.
            far.send(&frame(cable.mac(), 60, u32::from(flow)));
            assert_eq!(host.receive(), frame(cable.mac(), 60, u32::from(flow)));
            for _ in 0..1000 {
                for (queue, port) in [&mut first, &mut second].into_iter().enumerate() {
                    port.receive(&mut pool, &mut burst);
                    seen[queue] += burst.len();
                    burst.drain(..).for_each(|packet| pool.free(packet));
                }
                if seen[0] + seen[1] > usize::from(flow) {
                    break;
                }
                std::thread::yield_now();
            }
        }
        assert_eq!(seen[0] + seen[1], 64);
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
        let held = first.frames_held() + second.frames_held();
        assert_eq!(pool.available() + held, pool.frames());

        drop(first);
        assert!(cable.has_program(), "the second queue still needs it");
        assert_eq!(Arc::strong_count(&attachment), 3);
        drop((second, attachment));
        assert!(!cable.has_program());
    });
}

#[test]
fn frames_too_long_or_too_short_are_refused_and_hold_nothing_up() {
    in_namespace(|| {
        let cable = Cable::new("o", 1);
        let far = Wire::new(&cable.far);
        let mut station = Station::new(&settings(&cable.near));
        let good = frame(FOREIGN, 1514, 1);
        station.send(&[
            frame(FOREIGN, 1515, 0),
            vec![2; 13],
            Vec::new(),
            good.clone(),
        ]);
        assert_eq!(far.receive(), good);
        station.settle();
        assert_eq!(station.port.counters().malformed, 3);
    });
}

/// The far end refuses frames longer than its own MTU, and the kernel says EBUSY to each.
#[test]
fn frames_that_the_peer_refuses_do_not_block_those_behind() {
    in_namespace(|| {
        let cable = Cable::new("p", 1);
        ip(&format!("link set {} mtu 500", cable.far));
        let far = Wire::new(&cable.far);
        let mut station = Station::new(&settings(&cable.near));
        let mut burst: Vec<_> = (0..31).map(|n| frame(FOREIGN, 1000, n)).collect();
        burst.push(frame(FOREIGN, 100, 31));
        for _ in 0..10 {
            station.send(&burst);
            assert_eq!(far.receive(), frame(FOREIGN, 100, 31));
        }
        station.settle();
        assert_eq!(station.port.counters(), Default::default());
    });
}

/// Frames queue up to the port's share of the pool while the interface is down; the rest is counted
/// and freed.
#[test]
fn an_interface_that_is_down_costs_no_frame_and_no_wait() {
    in_namespace(|| {
        let cable = Cable::new("d", 1);
        let mut station = Station::new(&settings(&cable.near));
        ip(&format!("link set {} down", cable.near));
        let burst: Vec<_> = (0..32).map(|n| frame(FOREIGN, 60, n)).collect();
        for _ in 0..4 {
            station.send(&burst);
        }
        assert_eq!(station.port.counters().transmit_full, 64);
        assert_eq!(station.port.frames_held(), 128);
        cable.light();
        let far = Wire::new(&cable.far);
        station.settle();
        for _ in 0..2 {
            for sent in &burst {
                assert_eq!(&far.receive(), sent);
            }
        }
        far.send(&frame(OURS, 60, 1));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 1));
    });
}

/// A large ring over a small pool: neither direction may take all frames.
#[test]
fn each_direction_holds_at_most_a_quarter_of_the_pool() {
    in_namespace(|| {
        let cable = Cable::new("h", 1);
        let mut pool = Pool::new(512).unwrap();
        let wide = AfXdpSettings {
            ring_size: 2048,
            ..settings(&cable.near)
        };
        let port = AfXdpPort::open(&wide, &mut pool).unwrap();
        let mut station = Station { port, pool };
        assert_eq!(station.port.frames_held(), 128);
        ip(&format!("link set {} down", cable.near));
        for _ in 0..8 {
            station.send(&vec![frame(FOREIGN, 60, 0); 32]);
        }
        assert_eq!(station.port.frames_held(), 256);
        assert_eq!(station.port.counters().transmit_full, 128);
    });
}

/// A datapath that keeps packets still finds two bursts of free frames, and gets going again.
#[test]
fn the_fill_ring_leaves_frames_to_the_datapath() {
    in_namespace(|| {
        let cable = Cable::new("f", 1);
        let far = Wire::new(&cable.far);
        let mut pool = Pool::new(160).unwrap();
        let port = AfXdpPort::open(&settings(&cable.near), &mut pool).unwrap();
        let mut station = Station { port, pool };
        let mut kept = Vec::new();
        for number in 0..96 {
            far.send(&frame(OURS, 60, number));
            kept.extend(station.receive(1));
            station.assert_accounted(kept.len());
            assert!(station.pool.available() >= 64);
        }
        assert_eq!(station.port.frames_held(), 0);
        far.send(&frame(OURS, 60, 96));
        far.send(&frame(OURS, 60, 97));
        station.port.refresh_counters();
        let lost = PortCounters {
            no_buffer: 2,
            ..Default::default()
        };
        assert_eq!(station.port.counters(), lost);
        kept.drain(..).for_each(|packet| station.pool.free(packet));
        station.port.poll(&mut station.pool);
        far.send(&frame(OURS, 60, 98));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 98));
    });
}

/// A sender's kernel hands a veth several datagrams merged into one. In native mode they come one
/// by one; in generic mode the merged frame fits no buffer, which must be a counted drop.
#[test]
fn a_merged_frame_is_split_or_counted() {
    for mode in [AfXdpMode::Native, AfXdpMode::Skb] {
        in_namespace(move || {
            let cable = Cable::new("s", 1);
            ip(&format!("address add 192.0.2.60/24 dev {}", cable.far));
            ip(&format!(
                "neighbour add {OUR_ADDRESS} lladdr 02:00:5e:00:01:01 dev {}",
                cable.far
            ));
            let far = Wire::new(&cable.far);
            let mut station = Station::new(&AfXdpSettings {
                mode,
                ..settings(&cable.near)
            });
            let socket = UdpSocket::bind("192.0.2.60:0").unwrap();
            send_merged(&socket, OUR_ADDRESS, 4000, 1000);
            far.send(&frame(OURS, 60, 1));
            let lengths: &[usize] = match mode {
                AfXdpMode::Native => &[1042, 1042, 1042, 1042, 60],
                _ => &[60],
            };
            for (packet, &length) in station.receive(lengths.len()).into_iter().zip(lengths) {
                assert_eq!(packet.len(), length);
                station.pool.free(packet);
            }
            station.assert_accounted(0);
            station.port.refresh_counters();
            let malformed = u64::from(mode == AfXdpMode::Skb);
            assert_eq!(station.port.counters().malformed, malformed);
            assert_eq!(station.port.counters().no_buffer, 0);
        });
    }
}

#[test]
fn an_interface_that_vanishes_takes_no_worker_with_it() {
    in_namespace(|| {
        let cable = Cable::new("v", 1);
        let mut station = Station::new(&settings(&cable.near));
        ip(&format!("link delete {}", cable.near));
        for _ in 0..4 {
            let mut burst = Burst::new();
            station.port.receive(&mut station.pool, &mut burst);
            assert!(burst.is_empty());
            station.send(&[frame(FOREIGN, 60, 1), frame(FOREIGN, 60, 2)]);
            station.port.poll(&mut station.pool);
            station.assert_accounted(0);
        }
        let attachment = Arc::clone(station.port.attachment());
        attachment.add_address(OTHER_ADDRESS.into()).unwrap();
    });
}

#[test]
fn a_port_takes_no_other_pool_than_its_own() {
    in_namespace(|| {
        let cable = Cable::new("t", 1);
        let mut station = Station::new(&settings(&cable.near));
        let mut other = Pool::new(1024).unwrap();
        let wrong = AssertUnwindSafe(|| station.port.receive(&mut other, &mut Burst::new()));
        let panic = std::panic::catch_unwind(wrong).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("another pool"), "{text}");
    });
}
