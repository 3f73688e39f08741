//! What is fuzzed in the dataplane: every parser that the wire reaches, and a worker as a whole. The
//! same functions run over the committed corpus as an ordinary test
//! (`testbeds/tests/fuzz_corpus.rs`). Each takes any octets and must neither panic nor break what it
//! asserts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes128Gcm, KeyInit};
use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::classify::{Addresses, classify};
use hitless_dataplane::command::Command;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::flow::Flow;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::replay::{ReplayWindow, WindowState};
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::wire::{arp::Arp, ethernet::Ethernet, icmp, icmpv6, ip::Ip, udp::Udp};
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};
use hitless_sa::{
    ChildSa, EspSuite, Incarnation, Instant, KeyMaterial, Lease, MemberId, Mode, SaId, SaOptions,
    SequenceNumber, Spi, TrafficSelector,
};

/// What handles the octets of one input.
pub type Target = fn(&[u8]);

/// Every target with its name, which is that of its folder in the corpus.
pub const ALL: &[(&str, Target)] = &[
    ("headers", headers),
    ("worker", frames),
    ("esp_content", esp_content),
    ("replay_import", replay_import),
    ("selectors", selectors),
];

const PLENTY: Lease = Lease {
    grant: SequenceNumber(1 << 40),
    high_water: SequenceNumber(1 << 40),
};
const OUTSIDE: usize = 1;
const ADDRESSES: [[u8; 4]; 2] = [[10, 1, 0, 1], [192, 0, 2, 1]];
const SPI: u32 = 0xaaaa_0001;
const KEY: [u8; 20] = [7; 20];

/// Every header that the packet path reads, and the class of the whole.
pub fn headers(octets: &[u8]) {
    let own: Vec<(IpAddr, u8)> = vec![
        (IpAddr::from(ADDRESSES[1]), 24),
        ("2001:db8::1".parse().unwrap_or(IpAddr::from([0; 16])), 64),
    ];
    if let Ok((_, length)) = classify(octets, &Addresses::new(&own)) {
        assert!(length <= octets.len(), "a packet longer than its frame");
    }
    let _ = (
        Flow::parse(octets),
        Arp::parse(octets),
        Ethernet::parse(octets),
    );
    if let Some(udp) = Udp::parse(octets) {
        assert!(udp.payload().len() <= octets.len());
    }
    match Ip::parse(octets) {
        Ok(Ip::V4(packet)) => {
            let _ = icmp::may_complain_about(packet);
            let mut answer = octets.to_vec();
            let _ = icmp::answer_echo(&mut answer);
        }
        Ok(Ip::V6(packet)) => {
            let _ = (packet.upper(), icmpv6::verify(packet));
            let _ = icmpv6::may_complain_about(packet);
            let _ = hitless_dataplane::wire::ndp::parse(packet);
            let mut answer = octets.to_vec();
            let _ = icmpv6::answer_echo(&mut answer);
        }
        Err(_) => {}
    }
}

/// A gateway with one SA whose peer is the fuzzer.
struct Gateway {
    worker: Worker,
    handle: WorkerHandle,
    cables: [MemoryPort; 2],
}

fn child() -> Option<ChildSa> {
    let net = |second| TrafficSelector::prefix(Ipv4Addr::new(10, second, 0, 0).into(), 16);
    Some(ChildSa {
        id: SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter: 1,
        },
        mode: Mode::Tunnel,
        inbound_spi: Spi(SPI),
        outbound_spi: Spi(0xbbbb_0001),
        suite: EspSuite::Aes128Gcm16,
        esn: true,
        inbound_key: KeyMaterial::new(&KEY),
        outbound_key: KeyMaterial::new(&[9; 20]),
        local: IpAddr::from(ADDRESSES[1]),
        remote: IpAddr::from([192, 0, 2, 2]),
        encapsulation: None,
        local_ts: vec![net(1)?],
        remote_ts: vec![net(2)?],
        replay_window: 64,
        options: SaOptions::default(),
    })
}

impl Gateway {
    fn new() -> Option<Gateway> {
        let child = child()?;
        let interface = |port: usize| Interface {
            mac: [2, 0, 0, 0, 1, port as u8],
            addresses: vec![(IpAddr::from(ADDRESSES[port]), [16, 24][port])],
            mtu: 1500,
            protected: port != OUTSIDE,
        };
        let [(inside, host), (outside, wire)] = [memory::link(64, 1500), memory::link(64, 1500)];
        let settings = WorkerSettings {
            id: 0,
            interfaces: vec![interface(0), interface(1)],
            pool_frames: 128,
            pool_runs: 0,
            checkpoint: CheckpointSettings::default(),
            sa_capacity: 2,
        };
        let ports: Vec<Box<dyn hitless_dataplane::port::Port>> =
            vec![Box::new(inside), Box::new(outside)];
        let (worker, handle) = worker(settings, ports, Leadership::new(true)).ok()?;
        let mut gateway = Gateway {
            worker,
            handle,
            cables: [host, wire],
        };
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        let floor = SequenceNumber(0);
        let engine = Engine::default();
        let inbound = InboundSa::new(&child, Arc::clone(&cell), floor, 0, engine).ok()?;
        let outbound = OutboundSa::new(&child, cell, 0, engine).ok()?;
        let route = |address: [u8; 4], port| Route {
            prefix: (IpAddr::from(address), 16),
            port,
            next_hop: None,
        };
        let policy = Policy {
            local: child.local_ts[0],
            remote: child.remote_ts[0],
            action: Action::Protect(Some(child.id)),
        };
        for command in [
            Command::InstallInbound(Box::new(inbound)),
            Command::InstallOutbound(Box::new(outbound)),
            Command::Routes(Arc::new(Fib::new(&[
                route([10, 1, 0, 0], 0),
                route([192, 0, 0, 0], 1),
            ]))),
            Command::Policies(Arc::new(Spd::new(vec![policy]))),
        ] {
            gateway.handle.send(command).ok()?;
        }
        Some(gateway)
    }

    /// Lets the worker do everything, and throws away what comes out.
    fn run(&mut self, now: Instant) {
        for _ in 0..64 {
            if self.worker.turn(now) == 0 {
                break;
            }
        }
        for cable in &mut self.cables {
            while cable.pop_frame(|_| ()) {}
        }
        while self.handle.punt.pop_frame(|_| ()) {}
        while self.handle.poll_event().is_some() {}
    }

    fn assert_nothing_lost(&self) {
        let account = self.worker.frame_account();
        let found = account.free + account.in_ports + account.parked + account.held;
        assert_eq!(found, account.total, "frames of the pool: {account:?}");
    }

    fn received(&self) -> u64 {
        self.handle.counters.esp().packets_in
    }
}

/// Frames into both ports of a worker: a length and a port (two octets), the frame, and so on.
pub fn frames(octets: &[u8]) {
    let Some(mut gateway) = Gateway::new() else {
        panic!("no gateway");
    };
    let (mut rest, mut now) = (octets, Instant(1));
    while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes([*high & 7, *low])).min(after.len());
        let (frame, behind) = after.split_at(length);
        gateway.cables[usize::from(*high >> 7)].push_frame(frame);
        if *high & 0x40 != 0 {
            now += Duration::from_secs(1);
        }
        gateway.run(now);
        rest = behind;
    }
    gateway.assert_nothing_lost();
    // Without the key nobody can have sealed anything.
    assert_eq!(gateway.received(), 0, "a forgery was accepted");
}

/// Any content, trailer included, sealed under the right key.
pub fn esp_content(octets: &[u8]) {
    let (Some(mut gateway), Ok(cipher)) = (Gateway::new(), Aes128Gcm::new_from_slice(&KEY[..16]))
    else {
        panic!("no gateway");
    };
    let text = octets.get(..1400).unwrap_or(octets);
    let (number, mut sealed) = (1u64, text.to_vec());
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&KEY[16..]);
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    let aad = [&SPI.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let buffer = InOutBuf::from(sealed.as_mut_slice());
    let Ok(tag) = cipher.encrypt_inout_detached(&nonce.into(), &aad, buffer) else {
        panic!("no tag");
    };
    let esp = [
        &SPI.to_be_bytes()[..],
        &1u32.to_be_bytes(),
        &number.to_be_bytes(),
        &sealed,
        &tag,
    ];
    let esp = esp.concat();
    let length = (20 + esp.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 50, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend([192, 0, 2, 2]);
    packet.extend(ADDRESSES[1]);
    let sum = hitless_dataplane::wire::checksum(0, &packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let header = [&[2, 0, 0, 0, 1, 1][..], &[2, 0, 0, 0, 9, 9], &[8, 0]].concat();
    let frame = [header, packet, esp].concat();
    // A second copy must be refused whatever became of the first.
    for _ in 0..2 {
        gateway.cables[OUTSIDE].push_frame(&frame);
    }
    gateway.run(Instant(1));
    gateway.assert_nothing_lost();
    assert!(gateway.received() <= 1, "delivered twice");
    let counters = &gateway.handle.counters;
    let dropped: u64 = counters.drops().map(|(_, count)| count).sum();
    assert!(dropped >= 1, "a replay without a reason");
}

/// A window's state as another member might send it, then numbers.
pub fn replay_import(octets: &[u8]) {
    let Some((head, rest)) = octets.split_first_chunk::<10>() else {
        return;
    };
    let top = head
        .iter()
        .take(8)
        .fold(0u64, |top, octet| top << 8 | u64::from(*octet));
    let (words, numbers) = rest.split_at(rest.len() / 2);
    let bitmap = words
        .chunks_exact(8)
        .map(|word| word.iter().fold(0, |w, octet| w << 8 | u64::from(*octet)))
        .collect();
    // Numbers end at 2^63 (cell.rs).
    let state = WindowState {
        top: SequenceNumber(top >> 2),
        bitmap,
    };
    let mut window = ReplayWindow::new(64 << (head[8] % 11));
    if !window.import(&state) {
        return;
    }
    assert!(window.top() >= state.top);
    for low in numbers.chunks_exact(4) {
        let low = low
            .iter()
            .fold(0, |low, octet| low << 8 | u32::from(*octet));
        let number = window.infer(low, head[9] & 1 == 1);
        let fresh = window.check(number).is_ok();
        let before = window.top();
        assert_eq!(window.mark(number), fresh, "what check says, mark does");
        assert!(window.top() >= before && window.check(number).is_err());
    }
    let mut copy = ReplayWindow::new(window.size());
    assert!(copy.import(&window.export()));
    assert_eq!(copy.export(), window.export());
}

/// Selectors in text, as configuration has them.
pub fn selectors(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    for (a, b) in text.lines().zip(text.lines().skip(1)) {
        let (Ok(a), Ok(b)) = (a.parse::<TrafficSelector>(), b.parse::<TrafficSelector>()) else {
            continue;
        };
        assert!(a.contains_address(a.start) && a.contains_address(a.end));
        if let Some(both) = a.intersection(&b) {
            assert!(a.contains_address(both.start) && b.contains_address(both.end));
        }
        assert_eq!(a.to_string().parse(), Ok(a), "printed and read again");
    }
}
