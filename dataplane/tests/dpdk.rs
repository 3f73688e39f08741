//! The DPDK port on DPDK's virtual devices, without huge pages: `cargo test -p hitless-dataplane
//! --features dpdk --test dpdk`. EAL starts once for a process, so this is one test.
#![cfg(feature = "dpdk")]
#![expect(unsafe_code, reason = "unshare")]

use std::path::PathBuf;
use std::time::Duration;

use hitless_dataplane::pcap::{PcapReader, PcapWriter};
use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_packet::{AfPacketPort, AfPacketSettings};
use hitless_dataplane::port::dpdk::{DpdkError, DpdkPort, DpdkSettings, Eal, open, start};
use hitless_dataplane::port::{BURST, Burst, Port, PortCounters};

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn frame(length: usize, number: u8) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ number).collect()
}

/// A port with its pool.
struct Station {
    port: DpdkPort,
    pool: Pool,
}

impl Station {
    fn new(eal: Eal, settings: &DpdkSettings) -> Station {
        let pool = Pool::with_runs(256, 16).unwrap();
        let mut ports = open(eal, settings, &pool).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(ports.len(), 1);
        let port = ports.remove(0);
        Station { port, pool }
    }

    fn assert_accounted(&self, in_hand: usize) {
        let sum = self.pool.available() + self.port.frames_held() + in_hand;
        assert_eq!(sum, self.pool.packets());
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

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.port.receive(&mut self.pool, &mut burst);
        assert!(burst.len() <= BURST);
        self.assert_accounted(burst.len());
        let octets = burst.iter().map(|packet| self.pool.bytes(packet).to_vec());
        let octets = octets.collect();
        burst.into_iter().for_each(|packet| self.pool.free(packet));
        octets
    }

    fn close(mut self) {
        assert_eq!(Box::new(self.port).close(&mut self.pool), 0);
        assert_eq!(self.pool.available(), self.pool.packets());
    }
}

#[test]
fn ports_on_virtual_devices() {
    let scratch =
        Scratch(std::env::temp_dir().join(format!("hitless-dpdk-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).unwrap();
    let (input, output) = (scratch.0.join("in.pcap"), scratch.0.join("out.pcap"));
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    let captured: Vec<_> = (0..40).map(|n| frame(60 + 100 * n, n as u8)).collect();
    for frame in &captured {
        writer.write(Duration::from_secs(1), frame).unwrap();
    }
    std::fs::write(&input, writer.finish().unwrap()).unwrap();
    let capture = format!(
        "net_pcap0,rx_pcap={},tx_pcap={}",
        input.display(),
        output.display()
    );
    let prefix = format!("hitless-{}", std::process::id());
    let arguments = [
        "--no-huge",
        "--no-pci",
        "--no-telemetry",
        "-m",
        "128",
        "-l",
        "0",
        "--file-prefix",
        &prefix,
        "--vdev",
        "net_ring0",
        "--vdev",
        "net_ring1",
        "--vdev",
        "net_null0,size=128",
        "--vdev",
        &capture,
    ];
    let mut arguments = arguments.to_vec();
    // A TAP where interfaces may be made: in a network namespace that goes with this thread.
    // SAFETY: no pointers; only this thread changes its namespace.
    let namespace = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    match namespace {
        true => arguments.extend(["--vdev", "net_tap0,iface=dtap0"]),
        false => println!("without net_tap: making a network namespace is not permitted"),
    }
    let eal = start(&arguments).unwrap_or_else(|error| panic!("{error}"));

    a_ring_gives_back_what_is_sent_and_no_mbuf_is_lost(eal);
    what_does_not_fit_is_counted(eal);
    a_closed_device_is_gone(eal);
    captures_in_and_out(eal, &captured, &output);
    a_thread_that_dpdk_did_not_make_may_use_a_port(eal);
    if namespace {
        the_kernel_at_the_far_end_of_a_tap(eal);
    }
    what_cannot_be_opened_says_why(eal, &arguments);
}

fn a_ring_gives_back_what_is_sent_and_no_mbuf_is_lost(eal: Eal) {
    let settings = DpdkSettings {
        mtu: Some(9216),
        mbufs: 255,
        ..DpdkSettings::new("net_ring0")
    };
    let mut station = Station::new(eal, &settings);
    assert_eq!(station.port.mtu(), 9216);
    let before = station.port.mbufs_available();
    for round in 0..100 {
        let lengths = [60, 61, 1514, 1792, 1793, 2004, 4010, 4020, 9000, 9230];
        let sent: Vec<_> = lengths.iter().map(|length| frame(*length, round)).collect();
        station.send(&sent);
        assert_eq!(station.port.mbufs_available(), before - sent.len());
        assert_eq!(station.receive(), sent);
        assert_eq!(station.port.mbufs_available(), before);
        assert!(station.receive().is_empty());
    }
    assert_eq!(station.port.counters(), PortCounters::default());
    station.close();
}

fn what_does_not_fit_is_counted(eal: Eal) {
    // The device is gone once it was closed, so this takes one that is not: null.
    let mut station = Station::new(eal, &DpdkSettings::new("net_null0"));
    let longest = station.port.mtu() + 14;
    let good = frame(longest, 1);
    station.send(&[vec![1; 13], Vec::new(), good]);
    assert_eq!(station.port.counters().malformed, 2);
    let before = station.port.mbufs_available();
    // All frames of the pool are in use: what comes is lost and counted, and no mbuf is.
    let mut kept = Vec::new();
    while let Some(packet) = station.pool.allocate() {
        kept.push(packet);
    }
    let mut burst = Burst::new();
    station.port.receive(&mut station.pool, &mut burst);
    assert!(burst.is_empty());
    assert_eq!(station.port.counters().no_buffer, BURST as u64);
    assert_eq!(station.port.mbufs_available(), before);
    kept.into_iter()
        .for_each(|packet| station.pool.free(packet));
    for _ in 0..100 {
        let received = station.receive();
        assert_eq!(received.len(), BURST);
        assert!(received.iter().all(|frame| frame.len() == 128));
        station.send(&received);
    }
    assert_eq!(station.port.mbufs_available(), before);
    station.close();
}

fn a_closed_device_is_gone(eal: Eal) {
    let pool = Pool::new(64).unwrap();
    let error = open(eal, &DpdkSettings::new("net_null0"), &pool).err();
    let text = error.expect("the device was closed").to_string();
    assert!(
        text.contains("net_null0") && text.contains("--vdev"),
        "{text}"
    );
}

fn captures_in_and_out(eal: Eal, captured: &[Vec<u8>], output: &std::path::Path) {
    let mut station = Station::new(eal, &DpdkSettings::new("net_pcap0"));
    let mut received = Vec::new();
    loop {
        let some = station.receive();
        if some.is_empty() {
            break;
        }
        received.extend(some);
    }
    // Long ones come in several mbufs, and are one slice here.
    assert_eq!(received, captured);
    let short: Vec<_> = received.iter().take(10).cloned().collect();
    station.send(&short);
    station.close();
    let octets = std::fs::read(output).unwrap();
    let written: Vec<_> = PcapReader::new(&octets)
        .unwrap()
        .map(|record| record.unwrap().frame.to_vec())
        .collect();
    assert_eq!(written, short);
}

fn what_cannot_be_opened_says_why(eal: Eal, arguments: &[&str]) {
    let pool = Pool::new(64).unwrap();
    let error = open(eal, &DpdkSettings::new("net_absent0"), &pool).err();
    let text = error.unwrap().to_string();
    assert!(
        text.contains("net_absent0") && text.contains("--vdev"),
        "{text}"
    );
    let wide = DpdkSettings {
        mtu: Some(9000),
        ..DpdkSettings::new("net_absent0")
    };
    let error = open(eal, &wide, &pool).err().unwrap();
    assert!(
        matches!(error, DpdkError::Mtu { limit: 1774, .. }),
        "{error}"
    );
    // EAL starts once: the same again is the same, anything else is refused.
    assert!(start(arguments).is_ok());
    let error = start(&["--no-huge"]).err().unwrap();
    assert!(error.to_string().contains("net_ring0"), "{error}");
}

/// Workers have threads of their own.
fn a_thread_that_dpdk_did_not_make_may_use_a_port(eal: Eal) {
    let mut station = Station::new(eal, &DpdkSettings::new("net_ring1"));
    let worker = std::thread::spawn(move || {
        let sent: Vec<_> = (0..BURST).map(|n| frame(60 + n, n as u8)).collect();
        for _ in 0..100 {
            station.send(&sent);
            assert_eq!(station.receive(), sent);
        }
        station
    });
    worker.join().unwrap().close();
}

/// Our own packet-socket port plays the kernel's side.
fn the_kernel_at_the_far_end_of_a_tap(eal: Eal) {
    const OURS: [u8; 6] = [2, 0, 0x5e, 0, 1, 1];
    let mut station = Station::new(eal, &DpdkSettings::new("net_tap0"));
    let settings = AfPacketSettings {
        interface: "dtap0".to_owned(),
        mac: OURS,
        addresses: Vec::new(),
        queues: 1,
    };
    let mut pool = Pool::new(64).unwrap();
    let mut kernel = AfPacketPort::open(&settings, &pool).unwrap_or_else(|e| panic!("{e}"));
    for length in [60, 777, 1514] {
        let mut sent = frame(length, 3);
        sent[..6].copy_from_slice(&OURS);
        sent[12..14].copy_from_slice(&[0x88, 0xb5]);
        station.send(std::slice::from_ref(&sent));
        let mut burst = Burst::new();
        while burst.is_empty() {
            kernel.receive(&mut pool, &mut burst);
        }
        assert_eq!(pool.bytes(&burst[0]), sent);
        kernel.transmit(&mut pool, &mut burst);
        // The kernel has things of its own to say.
        let received = std::iter::repeat_with(|| station.receive())
            .flatten()
            .find(|frame| frame[12..14] == [0x88, 0xb5]);
        assert_eq!(received, Some(sent));
    }
    assert_eq!(pool.available(), 64);
    station.close();
}
