//! Every ESP suite through two workers, with every engine, and several of them in one burst.

use std::sync::Arc;

use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::esp::seal_datagram;
use hitless_dataplane::sad::InboundSa;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{ChildSa, EspSuite, KeyMaterial, SequenceNumber, Spi, UdpEncapsulation};

use crate::bed::*;

const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4500,
};

fn engines() -> impl Iterator<Item = Engine> {
    Engine::all().filter(|engine| engine.is_available())
}

/// Sends from both hosts, in bursts of so many packets, and checks what comes out at the other end.
fn cross(bed: &mut Bed, bursts: &[usize]) {
    for &burst in bursts {
        let body = |n: usize| vec![n as u8; 8 + n * 37 % 1300];
        let to_b: Vec<_> = (0..burst).map(|n| udp(HOST_A, HOST_B, &body(n))).collect();
        let to_a: Vec<_> = (0..burst).map(|n| udp(HOST_B, HOST_A, &body(n))).collect();
        // The cables take 256 frames.
        for (to_b, to_a) in to_b.chunks(200).zip(to_a.chunks(200)) {
            to_b.iter().for_each(|packet| bed.a.host_sends(packet));
            to_a.iter().for_each(|packet| bed.b.host_sends(packet));
            bed.settle();
        }
        for (gateway, sent) in [(&mut bed.b, &to_b), (&mut bed.a, &to_a)] {
            let delivered = std::mem::take(&mut gateway.delivered);
            assert_eq!(delivered.len(), sent.len());
            for (delivered, sent) in delivered.iter().zip(sent) {
                assert_eq!(delivered[14..], hops_later(sent, 2));
            }
        }
    }
}

/// One packet, one more than our bursts hold, and 257, one more than others' do: every suite, both
/// directions, both sizes of numbers, bare and in UDP.
#[test]
fn rfc4303_every_suite_carries_bursts_both_ways_and_counts_them_exactly() {
    for &suite in EspSuite::ALL {
        for (esn, encapsulation) in [(true, None), (false, Some(NAT))] {
            let mut bed = Bed::with(Settings {
                suite,
                esn,
                encapsulation,
                ..Settings::default()
            });
            bed.warm_up();
            cross(&mut bed, &[1, 33, 257]);
            for gateway in [&bed.a, &bed.b] {
                assert_eq!(gateway.handle.counters.drops().count(), 0, "{suite:?}");
                let esp = gateway.handle.counters.esp();
                assert_eq!((esp.packets_in, esp.packets_out), (292, 292), "{suite:?}");
            }
        }
    }
}

/// What one engine sends another opens, and an SA goes on when its engine changes.
#[test]
fn an_engine_that_changes_while_the_sa_is_up_is_not_noticed_by_the_peer() {
    let all: Vec<Engine> = engines().collect();
    for suite in [
        EspSuite::Aes128Gcm16,
        EspSuite::ChaCha20Poly1305,
        EspSuite::Aes192Gmac,
    ] {
        let mut bed = Bed::with(Settings {
            suite,
            ..Settings::default()
        });
        bed.warm_up();
        let pairs = all
            .iter()
            .flat_map(|&one| all.iter().map(move |&two| [one, two]));
        for (step, engines) in (1..).zip(pairs) {
            bed.set_engines(engines);
            bed.install_from(SequenceNumber(step * 1000), PLENTY, PLENTY);
            cross(&mut bed, &[40]);
        }
        assert_eq!(bed.b.handle.counters.drops().count(), 0);
    }
}

/// Seven SAs with seven suites and all engines, alternating packet by packet in one burst, a damaged
/// one of each among them.
#[test]
fn suites_and_engines_interleaved_in_one_burst_do_not_touch_each_other() {
    let all: Vec<Engine> = engines().collect();
    for suites in EspSuite::ALL.chunks(7) {
        let mut bed = Bed::new();
        bed.warm_up();
        let mut peers = Vec::new();
        for (slot, &suite) in (0u32..).zip(suites) {
            let material = KeyMaterial::new(&vec![slot as u8 + 9; suite.key_material_length()]);
            let child = ChildSa {
                id: sa_id(1 + slot),
                inbound_spi: Spi(0xbbbb_0001 + slot),
                suite,
                inbound_key: material.clone(),
                ..bed.child(false)
            };
            let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
            let engine = all[slot as usize % all.len()];
            let sa = InboundSa::new(&child, cell, SequenceNumber(0), slot, engine).unwrap();
            bed.b.send(Command::InstallInbound(Box::new(sa)));
            let key = EspKey::new(Engine::default(), suite, &material).unwrap();
            peers.push((key, child.inbound_spi));
        }
        bed.settle();
        let (mut expected, mut damaged) = (Vec::new(), 0);
        for number in 1..=4u64 {
            for (index, (key, spi)) in peers.iter().enumerate() {
                let inner = udp(HOST_A, HOST_B, &[index as u8, number as u8, 7, 7, 7]);
                let number = SequenceNumber(number);
                let mut esp = seal_datagram(key, *spi, number, true, 4, &inner).unwrap();
                match number.0 == 3 {
                    true => {
                        *esp.last_mut().unwrap() ^= 4;
                        damaged += 1;
                    }
                    false => expected.push([index as u8, number.0 as u8]),
                }
                bed.b.wire_brings(&raw(OUTSIDE_A, OUTSIDE_B, 50, &esp));
            }
        }
        bed.settle();
        let bodies: Vec<_> = bed
            .b
            .delivered
            .iter()
            .map(|frame| [frame[42], frame[43]])
            .collect();
        assert_eq!(bodies, expected);
        assert_eq!(bed.b.dropped(DropReason::Integrity), damaged);
        assert_eq!(bed.b.handle.counters.drops().count(), 1);
    }
}

/// RFC 4303 section 2.3 and S2: with every suite each packet on the wire has an IV of its own, the
/// number itself where it is a counter; and two packets with one content share no block.
#[test]
fn gcm_iv_uniqueness_on_the_wire_with_every_suite() {
    for &suite in EspSuite::ALL {
        let mut bed = Bed::with(Settings {
            suite,
            ..Settings::default()
        });
        bed.warm_up();
        let packet = udp(HOST_A, HOST_B, &[0x55; 64]);
        for _ in 0..100 {
            bed.a.host_sends(&packet);
        }
        bed.settle();
        let iv = 34 + 8..34 + 8 + suite.iv_length();
        let text = iv.end..iv.end + 32;
        let (mut ivs, mut texts) = (Vec::new(), Vec::new());
        for frame in &bed.wire {
            if suite.iv_length() == 8 {
                assert_eq!(frame[iv.start + 4..iv.end], frame[38..42]);
            }
            ivs.push(frame[iv.clone()].to_vec());
            texts.push(frame[text.clone()].to_vec());
        }
        let count = |mut all: Vec<Vec<u8>>| {
            all.sort_unstable();
            all.dedup();
            all.len()
        };
        assert_eq!(count(ivs), if suite.iv_length() == 0 { 1 } else { 100 });
        // AES-GMAC does not encrypt, and says so by its name.
        let clear = suite.name().starts_with("NULL");
        assert_eq!(count(texts), if clear { 1 } else { 100 }, "{suite:?}");
    }
}
