//! The AF_XDP port against the kernel: a veth pair in a network namespace of its own, the port at
//! one end, a raw socket at the other.
//!
//! ```text
//!   Port --XSK-- near ======== far --- Wire (raw socket)
//!                 |
//!   host Wire ----+  (what the kernel at the near end gets)
//! ```

#[path = "af_xdp/namespace.rs"]
mod namespace;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hitless_dataplane::pool::{Packet, Pool};
use hitless_dataplane::port::af_xdp::{AfXdpError, AfXdpMode, AfXdpPort, AfXdpSettings};
use hitless_dataplane::port::{Burst, MacAddress, Port};
use namespace::{Cable, Wire, drop_capabilities, in_namespace, ip, wait};

const OURS: MacAddress = [0x02, 0x00, 0x5e, 0x00, 0x01, 0x01];
const FOREIGN: MacAddress = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
const BROADCAST: MacAddress = [0xff; 6];
const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// EtherType for local experiments (IEEE 802): no stack answers it.
const EXPERIMENT: u16 = 0x88b5;
/// An environment variable that makes a process of this test hold a port until it is killed.
const HOLD: &str = "HITLESS_TEST_HOLD_PORT";

fn settings(interface: &str) -> AfXdpSettings {
    AfXdpSettings {
        addresses: vec![OUR_ADDRESS],
        ring_size: 64,
        ..AfXdpSettings::new(interface, OURS)
    }
}

/// A port with its pool, at the near end of a cable.
struct Station {
    port: AfXdpPort,
    pool: Pool,
}

impl Station {
    fn new(settings: &AfXdpSettings) -> Station {
        let mut pool = Pool::new(1024).unwrap();
        let port = AfXdpPort::open(settings, &mut pool).unwrap_or_else(|error| panic!("{error}"));
        Station { port, pool }
    }

    /// Every frame is free, in the rings, or in the test's hands.
    fn assert_accounted(&self, in_hand: usize) {
        let frames = self.pool.available() + self.port.frames_held() + in_hand;
        assert_eq!(frames, self.pool.frames());
    }

    /// The next packet, waiting for it.
    fn receive(&mut self) -> Packet {
        let mut burst = Burst::new();
        while burst.is_empty() {
            wait(self.port.wake_descriptor().unwrap());
            self.port.receive(&mut self.pool, &mut burst);
        }
        assert_eq!(burst.len(), 1, "more than one packet came");
        burst.remove(0)
    }

    /// The next packet's octets.
    fn receive_octets(&mut self) -> Vec<u8> {
        let packet = self.receive();
        self.assert_accounted(1);
        let octets = self.pool.bytes(&packet).to_vec();
        self.pool.free(packet);
        octets
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        let mut burst: Burst = frames
            .iter()
            .map(|frame| self.pool.copy_in(frame).unwrap())
            .collect();
        self.port.transmit(&mut self.pool, &mut burst);
        assert!(burst.is_empty());
        self.assert_accounted(0);
    }

    /// Reaps until nothing is being sent any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.port.poll(&mut self.pool);
            self.assert_accounted(0);
            if self.port.frames_held() == 64 {
                return;
            }
        }
        panic!("{} frames never came back", self.port.frames_held() - 64);
    }
}

fn frame_of(to: MacAddress, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(FOREIGN);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame of `length` octets whose content tells its length and number.
fn frame(to: MacAddress, length: usize, number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((4..length - 14).map(|n| (n % 251) as u8));
    frame_of(to, EXPERIMENT, &payload)
}

/// An ARP request (RFC 826).
fn arp_request(to: MacAddress, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(FOREIGN);
    packet.extend([192, 0, 2, 99]);
    packet.extend([0; 6]);
    packet.extend(target.octets());
    frame_of(to, 0x0806, &packet)
}

/// A UDP datagram in IPv4, without a UDP checksum.
fn datagram(to: MacAddress, address: Ipv4Addr, port: u16, text: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([192, 0, 2, 99], address.octets(), 64)
        .udp(9999, port)
        .write(&mut packet, text)
        .unwrap();
    frame_of(to, 0x0800, &packet)
}

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
                let mut burst = Burst::new();
                station.port.receive(&mut station.pool, &mut burst);
                if burst.is_empty() {
                    wait(station.port.wake_descriptor().unwrap());
                }
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
            while burst.is_empty() {
                wait(inside.wake_descriptor().unwrap());
                inside.receive(&mut pool, &mut burst);
            }
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
        attachment.add_address(OTHER_ADDRESS).unwrap();
        attachment.remove_address(OUR_ADDRESS).unwrap();
        attachment.remove_address(OUR_ADDRESS).unwrap();
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

/// Frames queue up to the ring's size while the interface is down; the rest is counted and freed.
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
        ip(&format!("link set {} up", cable.near));
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
            kept.push(station.receive());
            station.assert_accounted(kept.len());
            assert!(station.pool.available() >= 64);
        }
        assert_eq!(station.port.frames_held(), 0);
        far.send(&frame(OURS, 60, 96));
        far.send(&frame(OURS, 60, 97));
        station.port.refresh_counters();
        assert_eq!(station.port.counters().no_buffer, 2);
        kept.drain(..).for_each(|packet| station.pool.free(packet));
        station.port.poll(&mut station.pool);
        far.send(&frame(OURS, 60, 98));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 98));
    });
}

#[test]
fn closing_detaches_and_the_queue_can_be_opened_again_at_once() {
    in_namespace(|| {
        let cable = Cable::new("c", 1);
        let far = Wire::new(&cable.far);
        for number in 0..5 {
            let mut station = Station::new(&settings(&cable.near));
            assert!(cable.has_program());
            // The virtual MAC address is in the filter: a veth cannot filter, so it hears all.
            assert!(cable.describe().contains("\"promiscuity\":1"));
            far.send(&frame(OURS, 60, number));
            assert_eq!(station.receive_octets(), frame(OURS, 60, number));
            drop(station);
            assert!(!cable.has_program());
            assert!(cable.describe().contains("\"promiscuity\":0"));
        }
    });
}

/// A process that holds a port, for the next test.
#[test]
fn holds_a_port_while_its_standard_input_is_open() {
    let Ok(interface) = std::env::var(HOLD) else {
        return;
    };
    let _station = Station::new(&settings(&interface));
    let mut output = std::io::stdout();
    output.write_all(b"\nholding\n").unwrap();
    output.flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// A child process that does not outlive the test.
struct Holder(Child);

impl Holder {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kill_9_detaches_and_another_process_can_take_over() {
    in_namespace(|| {
        let cable = Cable::new("x", 1);
        let (far, host) = (Wire::new(&cable.far), Wire::new(&cable.near));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_a_port_while_its_standard_input_is_open"])
            .env(HOLD, &cable.near)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = Holder(child.unwrap());
        let output = BufReader::new(holder.0.stdout.take().unwrap());
        assert!(output.lines().any(|line| line.unwrap() == "holding"));
        assert!(cable.has_program());
        far.send(&frame(OURS, 60, 1));
        far.send(&frame(cable.mac(), 60, 2));
        assert_eq!(host.receive(), frame(cable.mac(), 60, 2));

        holder.kill();
        assert!(!cable.has_program());
        assert!(cable.describe().contains("\"promiscuity\":0"));
        let mut station = Station::new(&settings(&cable.near));
        far.send(&frame(OURS, 60, 3));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 3));
    });
}

/// What opening refuses, each with its reason; nothing stays attached and no frame is lost.
#[test]
fn what_cannot_be_opened_says_why_and_leaves_nothing_behind() {
    in_namespace(|| {
        let cable = Cable::new("z", 1);
        let near = cable.near.as_str();
        let mut pool = Pool::new(1024).unwrap();
        let good = settings(near);
        let mut expect = |settings: &AfXdpSettings, start: &str| {
            let error = AfXdpPort::open(settings, &mut pool).err();
            let text = error.expect(start).to_string();
            assert!(text.starts_with(start), "{text}");
            assert_eq!(pool.available(), 1024);
            assert!(!cable.has_program());
        };
        for name in ["", "a/b", "a b", "sixteen-octets-x"] {
            expect(&settings(name), &format!("{name:?} is no interface name"));
        }
        expect(&settings("absent"), "interface absent does not exist");
        expect(&settings("lo"), "interface lo is not Ethernet");
        let mut bad = good.clone();
        bad.mac = cable.mac();
        expect(&bad, &format!("the virtual MAC address on {near} is the"));
        for mac in [[1, 0, 0x5e, 0, 0, 1], [0; 6], [0xff; 6]] {
            bad.mac = mac;
            expect(&bad, &format!("the virtual MAC address on {near} must be"));
        }
        for size in [0, 32, 65, 65536] {
            let mut bad = good.clone();
            bad.ring_size = size;
            expect(&bad, &format!("ring size {size} on {near}"));
        }
        for queue in [1, 255, 256, u32::MAX] {
            let mut bad = good.clone();
            bad.queue = queue;
            expect(&bad, &format!("interface {near} has no receive queue"));
        }
        ip(&format!("link set {near} mtu 1775"));
        expect(&good, &format!("interface {near} has MTU 1775"));
        ip(&format!("link set {near} mtu 1774"));
        drop(AfXdpPort::open(&good, &mut pool).unwrap());

        let mut small = Pool::new(100).unwrap();
        let error = AfXdpPort::open(&good, &mut small).err().unwrap();
        assert!(matches!(error, AfXdpError::PoolTooSmall { least: 128, .. }));
    });
}

/// A port that cannot be opened must not disturb the one that is.
#[test]
fn a_queue_or_interface_in_use_is_refused_and_its_owner_goes_on() {
    in_namespace(|| {
        let cable = Cable::new("u", 1);
        let far = Wire::new(&cable.far);
        let mut station = Station::new(&settings(&cable.near));
        let attachment = Arc::clone(station.port.attachment());
        let mut pool = Pool::new(256).unwrap();
        let error = AfXdpPort::join(&attachment, 0, &mut pool).err().unwrap();
        assert!(matches!(error, AfXdpError::QueueInUse { queue: 0, .. }));
        for mode in [AfXdpMode::Auto, AfXdpMode::Native, AfXdpMode::Skb] {
            let error = AfXdpPort::open(
                &AfXdpSettings {
                    mode,
                    ..settings(&cable.near)
                },
                &mut pool,
            );
            assert!(matches!(
                error.err().unwrap(),
                AfXdpError::AnotherProgram { .. }
            ));
        }
        assert_eq!(pool.available(), 256);
        far.send(&frame(OURS, 60, 1));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 1));
    });
}

/// A veth whose peer has more transmit queues cannot run the program natively: auto falls back.
#[test]
fn auto_falls_back_to_generic_mode() {
    in_namespace(|| {
        let cable = Cable::new("g", 1);
        ip(&format!("link delete {}", cable.near));
        ip(&format!(
            "link add {} numrxqueues 1 numtxqueues 1 type veth peer name {} \
             numrxqueues 2 numtxqueues 2",
            cable.near, cable.far
        ));
        ip(&format!("link set {} up", cable.near));
        ip(&format!("link set {} up", cable.far));
        let mut pool = Pool::new(1024).unwrap();
        let native = AfXdpSettings {
            mode: AfXdpMode::Native,
            ..settings(&cable.near)
        };
        let error = AfXdpPort::open(&native, &mut pool).err().unwrap();
        assert!(matches!(error, AfXdpError::NativeUnsupported { .. }));
        let mut station = Station::new(&settings(&cable.near));
        assert!(!station.port.attachment().is_native());
        let far = Wire::new(&cable.far);
        far.send(&frame(OURS, 60, 1));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 1));
    });
}

#[test]
fn a_missing_capability_is_named() {
    in_namespace(|| {
        let cable = Cable::new("n", 1);
        let mut pool = Pool::new(1024).unwrap();
        drop_capabilities();
        let error = AfXdpPort::open(&settings(&cable.near), &mut pool).err();
        let text = error.unwrap().to_string();
        assert!(text.contains("CAP_BPF and CAP_NET_ADMIN"), "{text}");
        assert_eq!(pool.available(), 1024);
    });
}
