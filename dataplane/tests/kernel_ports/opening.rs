//! Opening and closing ports: what is refused and why, and what is left behind (nothing).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_xdp::{AfXdpError, AfXdpMode, AfXdpPort, AfXdpSettings};

use crate::namespace::{Cable, Wire, in_namespace, ip, keep_capabilities};
use crate::station::{FOREIGN, OURS, Station, frame, settings};

/// An environment variable that makes a process of this test hold a port until it is killed.
const HOLD: &str = "HITLESS_TEST_HOLD_PORT";

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
            .args([
                "--exact",
                "opening::holds_a_port_while_its_standard_input_is_open",
            ])
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
        cable.light();
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
        keep_capabilities(&[]);
        let error = AfXdpPort::open(&settings(&cable.near), &mut pool).err();
        let text = error.unwrap().to_string();
        assert!(text.contains("CAP_BPF and CAP_NET_ADMIN"), "{text}");
        assert_eq!(pool.available(), 1024);
    });
}

/// CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF suffice: no CAP_PERFMON, no CAP_SYS_ADMIN. A pool above
/// the limit of locked memory needs CAP_IPC_LOCK, and the error says so.
#[test]
fn three_capabilities_suffice_while_memory_is_within_its_limit() {
    in_namespace(|| {
        let cable = Cable::new("w", 1);
        let far = Wire::new(&cable.far);
        keep_capabilities(&[12, 13, 39]);
        let mut pool = Pool::new(64 * 1024).unwrap();
        match AfXdpPort::open(&settings(&cable.near), &mut pool) {
            Ok(_) => println!("no limit of locked memory below 128 MiB here"),
            Err(error) => assert!(error.to_string().contains("CAP_IPC_LOCK"), "{error}"),
        }
        let mut station = Station::new(&settings(&cable.near));
        far.send(&frame(OURS, 60, 1));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 1));
    });
}

#[test]
fn a_port_opened_while_the_interface_is_down_works_when_it_comes_up() {
    in_namespace(|| {
        let cable = Cable::new("i", 1);
        ip(&format!("link set {} down", cable.near));
        let mut station = Station::new(&settings(&cable.near));
        cable.light();
        let far = Wire::new(&cable.far);
        far.send(&frame(OURS, 60, 1));
        assert_eq!(station.receive_octets(), frame(OURS, 60, 1));
        station.send(&[frame(FOREIGN, 60, 2)]);
        assert_eq!(far.receive(), frame(FOREIGN, 60, 2));
    });
}
