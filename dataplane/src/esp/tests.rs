//! ESP against published vectors, an independent decoder, and damage at every octet.

mod suites;

use std::net::IpAddr;
use std::sync::Arc;

use etherparse::{Ipv4HeaderSlice, PacketBuilder, UdpHeaderSlice};
use hitless_sa::{
    ChildSa, EspSuite, Incarnation, Instant, KeyMaterial, Lease, MemberId, Mode, SaId,
    UdpEncapsulation,
};
use proptest::prelude::*;

use super::*;
use crate::aead::{Engine, Job, open_burst, seal_burst};
use crate::cell::Cell;
use crate::sad::Admission;

const NOW: Instant = Instant(1);
const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 61_234,
};

fn child(suite: EspSuite, esn: bool, encapsulation: Option<UdpEncapsulation>) -> ChildSa {
    let material = KeyMaterial::new(&vec![0x42; suite.key_material_length()]);
    ChildSa {
        id: SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter: 1,
        },
        mode: Mode::Tunnel,
        inbound_spi: Spi(0xc000_0001),
        outbound_spi: Spi(0xc000_0001),
        suite,
        esn,
        inbound_key: material.clone(),
        outbound_key: material,
        local: IpAddr::from([192, 0, 2, 1]),
        remote: IpAddr::from([198, 51, 100, 2]),
        encapsulation,
        local_ts: vec!["10.1.0.0/16".parse().unwrap()],
        remote_ts: vec!["10.2.0.0/16".parse().unwrap()],
        replay_window: 64,
        options: hitless_sa::SaOptions::default(),
    }
}

/// Both ends of one tunnel, in one place.
struct Tunnel {
    pool: Pool,
    sender: OutboundSa,
    receiver: InboundSa,
    overhead: usize,
}

impl Tunnel {
    fn new(child: &ChildSa) -> Tunnel {
        Tunnel::with_engines(child, Engine::AwsLc, Engine::AesGcm)
    }

    fn with_engines(child: &ChildSa, sealing: Engine, opening: Engine) -> Tunnel {
        let all = SequenceNumber(u64::MAX);
        let lease = Lease {
            grant: all,
            high_water: all,
        };
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease));
        let floor = SequenceNumber(0);
        Tunnel {
            pool: Pool::new(4).unwrap(),
            sender: OutboundSa::new(child, Arc::clone(&cell), 0, sealing).unwrap(),
            receiver: InboundSa::new(child, cell, floor, 0, opening).unwrap(),
            overhead: if child.encapsulation.is_some() {
                28
            } else {
                20
            },
        }
    }

    /// The outer packet around `inner`.
    fn send(&mut self, inner: &[u8], number: u64) -> Result<Vec<u8>, DropReason> {
        let mut packet = self.pool.copy_in(inner).unwrap();
        let sent = self.encapsulate(&mut packet, SequenceNumber(number));
        let outer = self.pool.bytes(&packet).to_vec();
        self.pool.free(packet);
        sent.map(|()| outer)
    }

    /// As the worker does it, with a burst of one.
    fn encapsulate(
        &mut self,
        packet: &mut Packet,
        number: SequenceNumber,
    ) -> Result<(), DropReason> {
        let front = wrap(&mut self.pool, packet, &self.sender, number, 0)?;
        let mut ok = false;
        let job = Job {
            key: &self.sender.key,
            esp: self.pool.bytes_mut(packet),
            high: high(number, self.sender.esn),
            ok: &mut ok,
        };
        seal_burst([job].into_iter());
        assert!(ok);
        address(&mut self.pool, packet, &self.sender, number.0 as u16, front)
    }

    fn decapsulate(&mut self, packet: &mut Packet) -> Result<SequenceNumber, DropReason> {
        let (receiver, esn) = (&self.receiver, self.receiver.esn);
        let number = number(
            self.pool.bytes(packet),
            receiver.key.suite(),
            &receiver.window,
            esn,
        )?;
        let mut ok = false;
        let job = Job {
            key: &receiver.key,
            esp: self.pool.bytes_mut(packet),
            high: high(number, esn),
            ok: &mut ok,
        };
        open_burst([job].into_iter());
        if !ok {
            return Err(DropReason::Integrity);
        }
        let headers = (0, false);
        unwrap(&mut self.pool, packet, &mut self.receiver, number, headers).map(|()| number)
    }

    /// What is left of `esp`, and its number, not marked.
    fn open(&mut self, esp: &[u8]) -> Result<(u64, Vec<u8>), DropReason> {
        let mut packet = self.pool.copy_in(esp).unwrap();
        let opened = self.decapsulate(&mut packet);
        let inner = self.pool.bytes(&packet).to_vec();
        self.pool.free(packet);
        opened.map(|number| (number.0, inner))
    }

    /// Opens, admits and returns the inner packet.
    fn receive(&mut self, esp: &[u8]) -> Result<Vec<u8>, DropReason> {
        let (number, inner) = self.open(esp)?;
        match self.receiver.admit(SequenceNumber(number))? {
            Admission::Deliver => {
                self.receiver.count(inner.len(), NOW);
                Ok(inner)
            }
            Admission::Wait => Err(DropReason::HighWater),
        }
    }

    /// ESP that verifies, around any text: what a peer that holds the key could send.
    fn forge(&self, number: u64, text: &[u8]) -> Vec<u8> {
        let (sa, number) = (&self.sender, SequenceNumber(number));
        let suite = sa.key.suite();
        let (front, icv) = (vec![0; prefix(suite)], vec![0; suite.icv_length()]);
        let mut esp = [&front, text, &icv].concat();
        write_header(&sa.key, &mut esp, sa.spi, number, sa.esn).unwrap();
        assert!(sa.key.seal_packet(&mut esp, high(number, sa.esn)));
        esp
    }
}

/// UDP in IPv4 from the local to the remote network, of `length` octets in all.
fn inner_v4(length: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 2, 0, 1], [10, 1, 0, 1], 9)
        .udp(1000, 2000)
        .write(&mut packet, &vec![0xa5; length - 28])
        .unwrap();
    packet[1] = 0xb9; // DSCP EF, ECT(1)
    packet
}

fn inner_v6(length: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x30; 16], 9)
        .udp(1000, 2000)
        .write(&mut packet, &vec![0xa5; length - 48])
        .unwrap();
    packet[0] = 0x6b; // Traffic class 0xb9
    packet[1] |= 0x90;
    packet
}

fn every_tunnel() -> Vec<Tunnel> {
    let mut all = Vec::new();
    for &suite in EspSuite::ALL {
        for esn in [false, true] {
            for encapsulation in [None, Some(NAT)] {
                all.push(Tunnel::new(&child(suite, esn, encapsulation)));
            }
        }
    }
    all
}

#[test]
fn a_packet_of_every_length_goes_through_every_kind_of_tunnel() {
    for mut tunnel in every_tunnel() {
        for (number, length) in (1u64..).zip((28..1400).step_by(23).chain(48..80)) {
            let inner = if length % 2 == 0 && length >= 48 {
                inner_v6(length)
            } else {
                inner_v4(length)
            };
            let outer = tunnel.send(&inner, number).unwrap();
            assert_eq!(tunnel.receive(&outer[tunnel.overhead..]), Ok(inner));
        }
        assert_eq!(tunnel.receiver.window.lost(), 0);
        assert_eq!(
            tunnel.receiver.counters.packets(),
            tunnel.receiver.window.top().0
        );
        assert_eq!(tunnel.receiver.last_use, NOW);
    }
}

#[test]
fn rfc4303_the_packet_on_the_wire() {
    for encapsulation in [None, Some(NAT)] {
        let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, encapsulation));
        for inner in [inner_v4(49), inner_v6(61)] {
            let outer = tunnel.send(&inner, 0x1_0203_0405).unwrap();
            let header = Ipv4HeaderSlice::from_slice(&outer).unwrap();
            assert_eq!(header.source(), [192, 0, 2, 1]);
            assert_eq!(header.destination(), [198, 51, 100, 2]);
            assert_eq!(usize::from(header.total_len()), outer.len());
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert_eq!(outer[1], 0xb9, "DSCP and ECN are the inner packet's");
            assert_eq!((header.ttl(), header.dont_fragment()), (64, false));
            assert_eq!(header.identification(), 0x0405);
            match encapsulation {
                None => assert_eq!(header.protocol().0, 50),
                Some(ports) => {
                    assert_eq!(header.protocol().0, 17);
                    let udp = UdpHeaderSlice::from_slice(&outer[20..]).unwrap();
                    assert_eq!(udp.source_port(), ports.local_port);
                    assert_eq!(udp.destination_port(), ports.remote_port);
                    assert_eq!(usize::from(udp.length()), outer.len() - 20);
                    assert_eq!(udp.checksum(), 0, "RFC 3948 section 2.1");
                }
            }
            let esp = &outer[tunnel.overhead..];
            assert_eq!(spi(esp), Some(Spi(0xc000_0001)));
            assert_eq!(esp[4..8], [2, 3, 4, 5]);
            // S2: the IV is the whole number.
            assert_eq!(esp[8..16], [0, 0, 0, 1, 2, 3, 4, 5]);
            // Never more padding than the alignment needs: 49 and 61 octets need one.
            assert_eq!(esp.len(), 16 + inner.len() + 1 + TRAILER + 16);
            assert_eq!(tunnel.sender.inner_mtu(outer.len()), inner.len() + 1);
        }
    }
}

#[test]
fn inner_mtu_is_exact() {
    for &suite in EspSuite::ALL {
        let mut tunnel = Tunnel::new(&child(suite, true, Some(NAT)));
        for mtu in 200..300 {
            let most = tunnel.sender.inner_mtu(mtu);
            assert!(tunnel.send(&inner_v4(most), 1).unwrap().len() <= mtu);
            assert!(tunnel.send(&inner_v4(most + 1), 1).unwrap().len() > mtu);
        }
        assert_eq!(tunnel.sender.inner_mtu(0), 0);
    }
}

#[test]
fn rfc4303_section_3_3_3_32_bit_numbers_do_not_cycle() {
    let last = u64::from(u32::MAX);
    for &suite in EspSuite::ALL {
        for (esn, after) in [(false, Some(DropReason::SequenceOverflow)), (true, None)] {
            let mut tunnel = Tunnel::new(&child(suite, esn, None));
            assert!(tunnel.send(&inner_v4(64), last).is_ok());
            assert_eq!(tunnel.send(&inner_v4(64), last + 1).err(), after);
        }
    }
}

#[test]
fn esn_is_carried_over_the_end_of_an_epoch() {
    for &suite in EspSuite::ALL {
        let mut tunnel = Tunnel::new(&child(suite, true, None));
        tunnel.receiver.window = AntiReplay::new(64, SequenceNumber(0xffff_fff0));
        for number in [0xffff_fff8u64, 0x1_0000_0005, 0xffff_fffd, 0x1_0000_0006] {
            let outer = tunnel.send(&inner_v4(64), number).unwrap();
            assert_eq!(tunnel.open(&outer[20..]).unwrap().0, number);
            assert!(tunnel.receive(&outer[20..]).is_ok());
            assert_eq!(tunnel.receive(&outer[20..]), Err(DropReason::Replay));
        }
        // The high half is authenticated: one from another epoch does not verify.
        let outer = tunnel.send(&inner_v4(64), 0x3_0000_0009).unwrap();
        assert_eq!(tunnel.receive(&outer[20..]), Err(DropReason::Integrity));
    }
}

#[test]
fn of_eight_copies_in_a_burst_one_is_accepted() {
    let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, None));
    let outer = tunnel.send(&inner_v4(64), 5).unwrap();
    // All opened before any is admitted, as packets that wait for the high water are (B1, B3).
    let opened: Vec<_> = (0..8)
        .map(|_| tunnel.open(&outer[20..]).unwrap().0)
        .collect();
    let admitted = opened
        .into_iter()
        .filter(|&number| {
            let verdict = tunnel.receiver.admit(SequenceNumber(number));
            assert!(matches!(
                verdict,
                Ok(Admission::Deliver) | Err(DropReason::Replay)
            ));
            if verdict.is_ok() {
                tunnel.receiver.count(64, NOW);
            }
            verdict.is_ok()
        })
        .count();
    assert_eq!(
        (
            admitted,
            tunnel.receiver.counters.packets(),
            tunnel.receiver.counters.bytes()
        ),
        (1, 1, 64)
    );
}

#[test]
fn truncated_and_damaged_packets_are_refused_and_move_nothing() {
    for mut tunnel in every_tunnel() {
        let esp = tunnel
            .send(&inner_v4(90), 70)
            .unwrap()
            .split_off(tunnel.overhead);
        tunnel.receiver.window = AntiReplay::new(64, SequenceNumber(5));
        let before = tunnel.receiver.window.export();
        let suite = tunnel.sender.key.suite();
        let least = prefix(suite) + suite.alignment() + suite.icv_length();
        for length in 0..esp.len() {
            let expected = match length < least {
                true => DropReason::Runt,
                false => DropReason::Integrity,
            };
            assert_eq!(tunnel.receive(&esp[..length]), Err(expected), "{length}");
        }
        for bit in 0..esp.len() * 8 {
            let mut damaged = esp.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let refused = tunnel.receive(&damaged).unwrap_err();
            // A damaged number may land left of the window or on one that was seen.
            let in_number = (32..64).contains(&bit);
            assert!(
                refused == DropReason::Integrity || in_number && refused == DropReason::Replay,
                "bit {bit}: {refused:?}"
            );
        }
        assert_eq!(tunnel.receiver.window.export(), before);
        assert_eq!(tunnel.receiver.counters.packets(), 0);
        assert_eq!(tunnel.receiver.authenticated, SequenceNumber(0), "B6");
        assert_eq!(tunnel.receive(&esp), Ok(inner_v4(90)));
    }
}

/// Padding 1, 2, 3 of the given length, its length, next header.
fn trailer(padding: u8, next_header: u8) -> Vec<u8> {
    (1..=padding).chain([padding, next_header]).collect()
}

#[test]
fn rfc4303_section_2_4_bad_padding_is_refused_and_its_number_burned() {
    let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, None));
    let inner = inner_v4(64);
    let texts: [Vec<u8>; 6] = [
        [&inner[..], &[255, 4]].concat(),        // longer than the packet
        [&inner[..], &[65, 4]].concat(),         // by one
        [&inner[..], &[1, 2, 4, 3, 4]].concat(), // 1, 2, 4
        [&inner[..], &[0, 1, 2, 3, 4]].concat(), // from 0
        [&inner[..], &[0, 0, 2, 4]].concat(),    // zeros
        vec![1, 255, 255, 4],
    ];
    for (number, text) in (1u64..).zip(&texts) {
        let esp = tunnel.forge(number, text);
        assert_eq!(
            tunnel.receive(&esp),
            Err(DropReason::BadPadding),
            "{text:?}"
        );
        assert_eq!(tunnel.receive(&esp), Err(DropReason::Replay));
    }
    // RFC 4303 section 2.4: 0 to 255 octets of padding are the sender's choice.
    for (number, padding) in (10u64..).zip([0, 1, 2, 3, 4, 100, 255]) {
        let esp = tunnel.forge(number, &[&inner[..], &trailer(padding, 4)].concat());
        assert_eq!(tunnel.receive(&esp), Ok(inner.clone()), "{padding}");
    }
}

#[test]
fn rfc4303_section_2_7_tfc_padding_is_stripped_by_the_inner_length() {
    let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, None));
    for (number, (inner, next_header)) in (1u64..).zip([(inner_v4(64), 4), (inner_v6(64), 41)]) {
        let text = [&inner[..], &[0xee; 100], &trailer(2, next_header)].concat();
        let esp = tunnel.forge(number, &text);
        assert_eq!(tunnel.receive(&esp), Ok(inner));
    }
}

#[test]
fn inner_packets_that_contradict_themselves_are_refused() {
    let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, None));
    let (v4, v6) = (inner_v4(64), inner_v6(64));
    let with = |packet: &[u8], at: usize, value: u8| {
        let mut packet = packet.to_vec();
        packet[at] = value;
        packet
    };
    let cases = [
        (4, with(&v4, 3, 65), DropReason::Malformed), // total length beyond what is there
        (4, with(&v4, 2, 0xff), DropReason::Malformed),
        (4, with(&v4, 3, 19), DropReason::Malformed), // shorter than its header
        (4, with(&v4, 0, 0x44), DropReason::Malformed), // header of 16 octets
        (4, with(&v4, 0, 0x55), DropReason::Malformed), // version 5
        (4, v4[..19].to_vec(), DropReason::Malformed),
        (4, vec![], DropReason::Malformed),
        (4, v6.clone(), DropReason::Malformed), // family and next header disagree
        (41, v4.clone(), DropReason::Malformed),
        (41, with(&v6, 5, 25), DropReason::Malformed),
        (41, v6[..39].to_vec(), DropReason::Malformed),
        (17, v4.clone(), DropReason::BadNextHeader), // transport mode
        (50, v4.clone(), DropReason::BadNextHeader),
        (0, v4.clone(), DropReason::BadNextHeader),
        (59, v4, DropReason::Dummy), // RFC 4303 section 2.6
        (59, vec![], DropReason::Dummy),
    ];
    for (number, (next_header, payload, expected)) in (1u64..).zip(cases) {
        let padding = padding(EspSuite::Aes128Gcm16, payload.len()) as u8;
        let esp = tunnel.forge(number, &[payload, trailer(padding, next_header)].concat());
        assert_eq!(tunnel.receive(&esp), Err(expected), "{number}");
        assert_eq!(
            tunnel.receiver.window.top().0,
            number,
            "verified numbers are marked"
        );
    }
    assert_eq!(tunnel.receiver.counters.packets(), 0);
}

#[test]
fn what_cannot_be_encapsulated_is_refused() {
    let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, Some(NAT)));
    for inner in [&[0x45][..], &[0x55; 40], &[0x05; 40]] {
        assert_eq!(tunnel.send(inner, 1), Err(DropReason::Malformed));
    }
    // Nothing at all is a dummy packet (RFC 4303 section 2.6).
    let dummy = tunnel.send(&[], 1).unwrap();
    assert_eq!(tunnel.receive(&dummy[28..]), Err(DropReason::Dummy));
    let most = crate::pool::FRAME_SIZE - crate::pool::HEADROOM;
    assert_eq!(tunnel.send(&inner_v4(most), 1), Err(DropReason::TooBig));
    assert_eq!(
        tunnel.send(&inner_v4(most - 16), 1),
        Err(DropReason::TooBig)
    );
    let largest = most - 18 - 4;
    assert!(tunnel.send(&inner_v4(largest), 1).is_ok());
    assert_eq!(tunnel.pool.available(), tunnel.pool.frames());
}

#[test]
fn the_high_water_holds_packets_back_and_a_frozen_cell_stops_them() {
    // R8, B1: nothing above the high water is marked; a release asks again.
    let child = child(EspSuite::Aes128Gcm16, true, None);
    let mut tunnel = Tunnel::new(&child);
    let bound = |high_water| Lease {
        grant: SequenceNumber(0),
        high_water: SequenceNumber(high_water),
    };
    let cell = Arc::new(Cell::new(SequenceNumber(1), bound(100)));
    let floor = SequenceNumber(90);
    tunnel.receiver = InboundSa::new(&child, Arc::clone(&cell), floor, 0, Engine::AwsLc).unwrap();
    let outer = |tunnel: &mut Tunnel, number| tunnel.send(&inner_v4(64), number).unwrap();
    let (old, edge, above) = (
        outer(&mut tunnel, 90),
        outer(&mut tunnel, 100),
        outer(&mut tunnel, 101),
    );
    assert_eq!(tunnel.receive(&old[20..]), Err(DropReason::Replay), "floor");
    assert_eq!(
        tunnel.receiver.authenticated,
        SequenceNumber(0),
        "a floor is no evidence"
    );
    assert!(tunnel.receive(&edge[20..]).is_ok());
    assert_eq!(tunnel.receive(&above[20..]), Err(DropReason::HighWater));
    assert_eq!(tunnel.receiver.window.top(), SequenceNumber(100));
    assert_eq!(tunnel.receiver.authenticated, SequenceNumber(101));
    cell.raise(bound(101));
    assert!(tunnel.receive(&above[20..]).is_ok());
    cell.raise(bound(200));
    let late = outer(&mut tunnel, 150);
    cell.freeze();
    assert_eq!(tunnel.receive(&late[20..]), Err(DropReason::NotActive));
}

/// draft-mcgrew-gcm-test-01: an IPsec packet with ESN and an IV that is no counter.
#[test]
fn the_esp_vector_of_the_gcm_test_draft() {
    let octets = |hex: &str| -> Vec<u8> {
        let pairs = (0..hex.len()).step_by(2);
        pairs
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let material = octets("4c80cdefbb5d10da906ac73c3613a6342e443b68");
    let plain = octets(
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d30100000100000000000\
         0045f736970045f756470037369700963796265726369747902646b0000210001",
    );
    let sealed = octets(
        "00004321000000004956ed7e3b244cfe\
         fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34\
         cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce\
         61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
    );
    for engine in [Engine::AwsLc, Engine::AesGcm] {
        let key = EspKey::new(engine, EspSuite::Aes128Gcm16, &KeyMaterial::new(&material)).unwrap();
        let mut window = AntiReplay::new(64, SequenceNumber(0x8765_4320_ffff_fff0));
        let mut esp = sealed.clone();
        let (next_header, payload) = open_datagram(&key, true, &mut window, &mut esp).unwrap();
        assert_eq!((next_header, &esp[payload]), (1, &plain[..]));
        assert_eq!(window.top(), SequenceNumber(0x8765_4321_0000_0000));
    }
}

proptest! {
    #[test]
    fn a_sealed_datagram_opens_once_and_only_undamaged(
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        next_header: u8,
        esn: bool,
        number in 1u64..0xffff_ffff,
        damage: (usize, u8),
    ) {
        let material = KeyMaterial::new(&[7; 36]);
        let key = |engine| EspKey::new(engine, EspSuite::Aes256Gcm16, &material).unwrap();
        let number = SequenceNumber(number);
        let seal = |engine| {
            seal_datagram(&key(engine), Spi(9), number, esn, next_header, &payload).unwrap()
        };
        let sealed = seal(Engine::AwsLc);
        prop_assert_eq!(&sealed, &seal(Engine::AesGcm));
        prop_assert_eq!(sealed.len() % 4, 0);
        let mut window = AntiReplay::new(64, SequenceNumber(0));
        let mut open = |esp: &mut [u8]| open_datagram(&key(Engine::AesGcm), esn, &mut window, esp);

        let mut damaged = sealed.clone();
        let at = damage.0 % damaged.len();
        damaged[at] ^= 1 << (damage.1 % 8);
        prop_assert!(open(&mut damaged).is_err());
        prop_assert!(open(&mut sealed[..at].to_vec()).is_err());

        let mut esp = sealed.clone();
        let (got, range) = open(&mut esp).unwrap();
        prop_assert_eq!((got, &esp[range]), (next_header, &payload[..]));
        prop_assert_eq!(open(&mut sealed.clone()), Err(DropReason::Replay));
    }

    /// S7: no octets make the receiver panic, accept or move.
    #[test]
    fn garbage_is_dropped(esp in proptest::collection::vec(any::<u8>(), 0..200), esn: bool) {
        let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, esn, None));
        let before = tunnel.receiver.window.export();
        prop_assert!(tunnel.receive(&esp).is_err());
        prop_assert_eq!(tunnel.receiver.window.export(), before);
    }

    /// S7: a peer that holds the key can put any text into a packet; whatever is delivered is an IP
    /// packet of just the length that it says.
    #[test]
    fn any_authentic_text_is_handled(
        text in proptest::collection::vec(any::<u8>(), 4..200),
        version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        next_header in prop_oneof![Just(4u8), Just(41), any::<u8>()],
    ) {
        let mut tunnel = Tunnel::new(&child(EspSuite::Aes128Gcm16, true, None));
        let mut text = text;
        text[0] = version;
        text[2] = 0;
        let last = text.len() - 1;
        text[last] = next_header;
        text[last - 1] = 0;
        let esp = tunnel.forge(1, &text);
        if let Ok(inner) = tunnel.receive(&esp) {
            let length = match next_header {
                4 => u16::from_be_bytes([inner[2], inner[3]]),
                _ => 40 + u16::from_be_bytes([inner[4], inner[5]]),
            };
            prop_assert_eq!(inner.len(), usize::from(length));
            prop_assert_eq!(&inner[..], &text[..inner.len()]);
        }
        prop_assert_eq!(tunnel.receiver.window.top(), SequenceNumber(1));
    }
}
