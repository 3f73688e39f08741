//! What a burst must not change: its packets are judged as if each had come alone (RFC 4303 section
//! 3.4.3), although all of them are decrypted before the first is marked.

use std::sync::Arc;

use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::esp::seal_datagram;
use hitless_dataplane::port::BURST;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{ChildSa, KeyMaterial, SequenceNumber, Spi};

use crate::bed::*;

const ESP: u8 = 50;
const IPV4: u8 = 4;
const SLOTS: u32 = 3;

/// B with SAs in several slots; the test is the peer that sends on them.
struct Receiver {
    bed: Bed,
    peers: Vec<(EspKey, Spi)>,
}

/// One of several Child SAs between A and B, which differ in everything but their selectors.
fn child(bed: &Bed, side_a: bool, slot: u32) -> ChildSa {
    let key = |seed: u8| KeyMaterial::new(&[seed + slot as u8 * 16; 36]);
    let own = bed.child(side_a);
    let (receives, sends) = if side_a { (1, 2) } else { (2, 1) };
    ChildSa {
        id: sa_id(1 + slot),
        inbound_spi: Spi(own.inbound_spi.0 + slot),
        outbound_spi: Spi(own.outbound_spi.0 + slot),
        inbound_key: key(receives),
        outbound_key: key(sends),
        ..own
    }
}

fn install(gateway: &mut Gateway, child: &ChildSa, slot: u32, first: u64) {
    let cell = Arc::new(Cell::new(SequenceNumber(first), PLENTY));
    let (floor, engine) = (SequenceNumber(0), Engine::default());
    let inbound = InboundSa::new(child, Arc::clone(&cell), floor, slot, engine).unwrap();
    let outbound = OutboundSa::new(child, cell, slot, engine).unwrap();
    gateway.send(Command::InstallInbound(Box::new(inbound)));
    gateway.send(Command::InstallOutbound(Box::new(outbound)));
}

impl Receiver {
    fn new() -> Receiver {
        Receiver::with(Settings::default())
    }

    fn with(settings: Settings) -> Receiver {
        let mut bed = Bed::with(settings);
        bed.warm_up();
        let mut peers = Vec::new();
        for slot in 0..SLOTS {
            let child = child(&bed, false, slot);
            install(&mut bed.b, &child, slot, 1);
            let key = EspKey::new(Engine::default(), child.suite, &child.inbound_key).unwrap();
            peers.push((key, child.inbound_spi));
        }
        bed.settle();
        Receiver { bed, peers }
    }

    /// A packet on an SA, whose payload says which one and its number.
    fn packet(&self, slot: u32, number: u64) -> Vec<u8> {
        let inner = udp(
            HOST_A,
            HOST_B,
            &[&[slot as u8][..], &number.to_be_bytes()].concat(),
        );
        self.around(slot, number, IPV4, &inner)
    }

    fn around(&self, slot: u32, number: u64, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let (key, spi) = &self.peers[slot as usize];
        let esn = self.bed.child(false).esn;
        let number = SequenceNumber(number);
        let esp = seal_datagram(key, *spi, number, esn, next_header, payload).unwrap();
        raw(OUTSIDE_A, OUTSIDE_B, ESP, &esp)
    }

    /// All of them in one burst. Returns slot and number of what was delivered, in order.
    fn receive(&mut self, packets: &[Vec<u8>]) -> Vec<(u8, u64)> {
        assert!(packets.len() <= BURST);
        for packet in packets {
            self.bed.b.wire_brings(packet);
        }
        self.bed.settle();
        let delivered = std::mem::take(&mut self.bed.b.delivered);
        delivered
            .iter()
            .map(|frame| {
                (
                    frame[42],
                    u64::from_be_bytes(frame[43..51].try_into().unwrap()),
                )
            })
            .collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.bed.b.dropped(reason)
    }

    fn drops(&self) -> u64 {
        self.bed
            .b
            .handle
            .counters
            .drops()
            .map(|(_, count)| count)
            .sum()
    }
}

#[test]
fn rfc4303_section_3_4_3_of_eight_copies_in_a_burst_one_is_accepted_and_seven_are_replays() {
    let mut b = Receiver::new();
    let packet = b.packet(0, 5);
    assert_eq!(b.receive(&vec![packet; 8]), [(0, 5)]);
    assert_eq!((b.dropped(DropReason::Replay), b.drops()), (7, 7));
}

#[test]
fn rfc4303_section_3_4_3_replayed_too_old_and_legitimate_in_one_burst_gives_exactly_one() {
    // With ESN a number left of the window may be one of the next epoch, which the ICV refutes.
    for (esn, replays, forgeries) in [(false, 2, 0), (true, 1, 1)] {
        let mut b = Receiver::with(Settings {
            esn,
            ..Settings::default()
        });
        let earlier: Vec<_> = [3000, 2900].map(|number| b.packet(0, number)).into();
        assert_eq!(b.receive(&earlier), [(0, 3000), (0, 2900)]);
        let replayed = b.packet(0, 2900);
        let too_old = b.packet(0, 3000 - 1024);
        let legitimate = b.packet(0, 3001);
        assert_eq!(b.receive(&[replayed, too_old, legitimate]), [(0, 3001)]);
        assert_eq!(b.dropped(DropReason::Replay), replays);
        assert_eq!(b.dropped(DropReason::Integrity), forgeries);
        assert_eq!(b.drops(), 2);
    }
}

#[test]
fn one_bad_packet_in_a_burst_does_not_affect_those_around_it() {
    let mut b = Receiver::new();
    let good = |b: &Receiver, number| b.packet(0, number);
    let mut flipped = good(&b, 20);
    *flipped.last_mut().unwrap() ^= 1;
    let mut later = good(&b, 900);
    later[20 + 20] ^= 0x80;
    let runt = raw(OUTSIDE_A, OUTSIDE_B, ESP, &good(&b, 21)[20..50]);
    let stranger = raw(OUTSIDE_A, OUTSIDE_B, ESP, &[9; 64]);
    let long_padding = b.around(0, 22, IPV4, &[0, 255, 4]);
    let dummy = b.around(0, 23, 59, &[0; 40]);
    let bad = [flipped, later, runt, stranger, long_padding, dummy];
    let mut burst = vec![good(&b, 1)];
    for (number, bad) in (2..).zip(bad) {
        burst.push(bad);
        burst.push(good(&b, number));
    }
    let expected: Vec<_> = (1..=7).map(|number| (0, number)).collect();
    assert_eq!(b.receive(&burst), expected);
    let reasons = [
        (DropReason::Integrity, 2),
        (DropReason::Runt, 1),
        (DropReason::UnknownSpi, 1),
        (DropReason::Malformed, 1),
        (DropReason::Dummy, 1),
    ];
    for (reason, count) in reasons {
        assert_eq!(b.dropped(reason), count, "{reason:?}");
    }
    assert_eq!(b.drops(), 6);
    // The damaged number 900 moved nothing: 8 is still in the window, and not seen.
    let packet = good(&b, 8);
    assert_eq!(b.receive(&[packet]), [(0, 8)]);
}

#[test]
fn a_packet_that_was_in_the_window_before_its_burst_and_is_not_after_it_is_a_replay() {
    let mut b = Receiver::new();
    let first = b.packet(0, 1);
    assert_eq!(b.receive(&[first]), [(0, 1)]);
    // When the burst comes, 2 lies within the window; once 5000 is marked it does not any more.
    let burst: Vec<_> = [5000, 2, 5000 - 1023, 5000 - 1024]
        .map(|number| b.packet(0, number))
        .into();
    assert_eq!(b.receive(&burst), [(0, 5000), (0, 5000 - 1023)]);
    assert_eq!((b.dropped(DropReason::Replay), b.drops()), (2, 2));
    // In the other order both are right.
    let burst: Vec<_> = [5001 - 1023, 9000].map(|number| b.packet(0, number)).into();
    assert_eq!(b.receive(&burst), [(0, 5001 - 1023), (0, 9000)]);
}

#[test]
fn rfc4303_section_2_2_1_numbers_of_both_epochs_in_one_burst_are_inferred_from_before_it() {
    let mut b = Receiver::new();
    let near_the_end = b.packet(0, 0xffff_fff0);
    assert_eq!(b.receive(&[near_the_end]).len(), 1);
    let numbers = [
        0xffff_fff8,
        0x1_0000_0005,
        0xffff_fffd,
        0x1_0000_0006,
        0x1_0000_0005,
    ];
    let burst: Vec<_> = numbers.map(|number| b.packet(0, number)).into();
    let expected: Vec<_> = numbers[..4].iter().map(|&number| (0, number)).collect();
    assert_eq!(b.receive(&burst), expected);
    assert_eq!((b.dropped(DropReason::Replay), b.drops()), (1, 1));
}

#[test]
fn several_sas_interleaved_in_a_burst_keep_their_own_keys_numbers_and_windows() {
    let mut b = Receiver::new();
    let mut burst = Vec::new();
    let mut expected = Vec::new();
    for number in 1..=BURST as u64 / 4 {
        for slot in 0..SLOTS {
            burst.push(b.packet(slot, number));
            expected.push((slot as u8, number));
        }
        // A copy, on the SA in the middle.
        burst.push(b.packet(1, number));
    }
    assert_eq!(b.receive(&burst), expected);
    assert_eq!((b.dropped(DropReason::Replay), b.drops()), (8, 8));
    // Under the SPI of another SA a packet does not verify.
    let mut foreign = b.packet(1, 100);
    foreign[20..24].copy_from_slice(&b.peers[2].1.0.to_be_bytes());
    let honest = b.packet(2, 100);
    assert_eq!(b.receive(&[foreign, honest]), [(2, 100)]);
    assert_eq!(b.dropped(DropReason::Integrity), 1);
}

#[test]
fn a_burst_that_goes_out_on_several_sas_draws_for_each_and_keeps_its_order() {
    let mut bed = Bed::new();
    bed.warm_up();
    for slot in 0..2 {
        let (child_a, child_b) = (child(&bed, true, slot), child(&bed, false, slot));
        install(&mut bed.a, &child_a, slot, 100 + u64::from(slot) * 1000);
        install(&mut bed.b, &child_b, slot, 1);
    }
    let policy = |remote: &str, slot: u32| Policy {
        local: "10.1.0.0/16".parse().unwrap(),
        remote: remote.parse().unwrap(),
        action: Action::Protect(Some(sa_id(1 + slot))),
    };
    let mut policies = vec![policy("10.2.0.5", 0), policy("10.2.0.0/16", 1)];
    (policies[0].remote.start_port, policies[0].remote.end_port) = (5000, 5000);
    policies[0].remote.protocol = 17;
    policies[0].local.protocol = 17;
    bed.a.send(Command::Policies(Arc::new(Spd::new(policies))));
    bed.settle();
    for n in 0..BURST as u8 {
        let port = if n % 3 == 0 { 5000 } else { 5001 };
        bed.a
            .host_sends(&udp_ports(HOST_A, HOST_B, 4000, port, &[n; 40]));
    }
    bed.settle();
    let bodies: Vec<u8> = bed.b.delivered.iter().map(|frame| frame[42]).collect();
    assert_eq!(bodies, (0..BURST as u8).collect::<Vec<_>>());
    let spi_and_number = |frame: &Vec<u8>| {
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        (word(34), word(38))
    };
    let mut next = [100, 1100];
    for (n, frame) in bed.wire.iter().enumerate() {
        let slot = usize::from(n % 3 != 0);
        assert_eq!(
            spi_and_number(frame),
            (0xbbbb_0001 + slot as u32, next[slot])
        );
        next[slot] += 1;
    }
    assert_eq!(bed.b.handle.counters.drops().count(), 0);
}

#[test]
fn copies_of_one_packet_that_waits_do_not_take_the_room_of_other_sas_r8() {
    let mut receiver = Receiver::new();
    let waiting = |slot: u32| {
        let child = child(&receiver.bed, false, slot);
        let cell = Arc::new(Cell::new(SequenceNumber(1), hitless_sa::Lease::default()));
        let floor = SequenceNumber(0);
        let half = InboundSa::new(&child, Arc::clone(&cell), floor, slot, Engine::default());
        (cell, Command::InstallInbound(Box::new(half.unwrap())))
    };
    let (cells, halves): (Vec<_>, Vec<_>) = (0..SLOTS).map(waiting).unzip();
    for half in halves {
        receiver.bed.b.send(half);
    }
    receiver.bed.settle();
    let parked = |receiver: &Receiver| receiver.bed.b.worker.frame_account().parked;
    // Captured once, replayed 256 times.
    let captured = receiver.packet(0, 5);
    for _ in 0..8 {
        receiver.receive(&vec![captured.clone(); BURST]);
    }
    let copies = 8 * BURST as u64 - 1;
    assert_eq!(parked(&receiver), 1);
    assert_eq!(receiver.dropped(DropReason::Replay), copies);
    // A quarter of the room is the most that one SA gets.
    for begin in [100, 120, 140, 160, 180] {
        let packets = (begin..begin + 20).map(|number| receiver.packet(0, number));
        let packets: Vec<_> = packets.collect();
        receiver.receive(&packets);
    }
    assert_eq!(parked(&receiver), 64);
    assert_eq!(receiver.dropped(DropReason::HighWater), 101 - 64);
    for slot in 1..SLOTS {
        let packet = receiver.packet(slot, 1);
        receiver.receive(&[packet]);
    }
    assert_eq!(parked(&receiver), 66);
    for cell in cells {
        cell.raise(PLENTY);
    }
    assert_eq!(receiver.receive(&[]).len(), 66);
    assert_eq!(receiver.drops(), copies + 37);
}

#[test]
fn forgeries_below_the_floor_of_one_sa_do_not_silence_another_ones_peer() {
    let mut receiver = Receiver::new();
    for slot in 0..2 {
        let child = child(&receiver.bed, false, slot);
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        let floor = SequenceNumber(1 << 20);
        let half = InboundSa::new(&child, cell, floor, slot, Engine::default()).unwrap();
        receiver.bed.b.send(Command::InstallInbound(Box::new(half)));
    }
    receiver.bed.settle();
    receiver.bed.b.events();
    let mut forged = receiver.packet(0, 5);
    *forged.last_mut().unwrap() ^= 1;
    receiver.receive(&vec![forged; BURST]);
    let told = |receiver: &mut Receiver| {
        let events = receiver.bed.b.events().into_iter();
        let below = events.filter_map(|event| match event {
            Event::BelowFloor { sa } => Some(sa),
            _ => None,
        });
        below.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut receiver), []);
    let genuine = [receiver.packet(0, 6), receiver.packet(1, 6)];
    receiver.receive(&genuine);
    assert_eq!(
        told(&mut receiver),
        [sa_id(2)],
        "the first has spent its share"
    );
}
