//! What is no ESP packet, what the lists of features are, and bursts that are not all of a kind.

use std::fs;
use std::path::Path;

use hitless_gcm::{HEADER, ICV, Job, Key, MOST_TEXT, OVERHEAD, Tier, open, seal};

fn tiers() -> impl Iterator<Item = Tier> {
    Tier::KERNELS.into_iter().filter(|tier| tier.is_available())
}

fn jobs<'a>(key: &'a Key, packets: &'a mut [Vec<u8>]) -> Vec<Job<'a>> {
    packets
        .iter_mut()
        .map(|esp| Job {
            key,
            esp,
            high: None,
            ok: true,
        })
        .collect()
}

#[test]
fn packets_that_do_not_fit_are_refused_and_wiped_and_the_others_are_done() {
    for tier in tiers() {
        let key = Key::with_tier(tier, &[3; 16], [4; 4]).unwrap();
        let octets = [
            100,
            0,
            1,
            OVERHEAD - 1,
            OVERHEAD,
            OVERHEAD + MOST_TEXT + 1,
            200,
            HEADER + 1,
            OVERHEAD + MOST_TEXT,
        ];
        let fits = |octets: usize| (OVERHEAD..=OVERHEAD + MOST_TEXT).contains(&octets);
        let plain: Vec<Vec<u8>> = octets.iter().map(|&octets| vec![7; octets]).collect();
        let mut packets = plain.clone();
        for work in [seal, open] {
            let mut jobs = jobs(&key, &mut packets);
            work(&mut jobs);
            for job in &jobs {
                assert_eq!(job.ok, fits(job.esp.len()), "{tier} {}", job.esp.len());
            }
        }
        for (packet, plain) in packets.iter().zip(&plain) {
            let end = packet.len().saturating_sub(ICV);
            if fits(packet.len()) {
                assert_eq!(packet[..end], plain[..end]);
            } else if let Some(text) = packet.get(HEADER..end) {
                assert!(text.iter().all(|&octet| octet == 0));
            }
        }
    }
}

#[test]
fn what_one_tier_seals_another_opens() {
    for sealer in tiers() {
        for opener in tiers() {
            let key = Key::with_tier(sealer, &[5; 32], [6; 4]).unwrap();
            let plain: Vec<Vec<u8>> = (0..40).map(|i| vec![9; OVERHEAD + i * 37]).collect();
            let mut packets = plain.clone();
            seal(&mut jobs(&key, &mut packets));
            let key = Key::with_tier(opener, &[5; 32], [6; 4]).unwrap();
            let mut jobs = jobs(&key, &mut packets);
            open(&mut jobs);
            assert!(jobs.iter().all(|job| job.ok));
            for (packet, plain) in packets.iter().zip(&plain) {
                let end = packet.len() - ICV;
                assert_eq!(packet[..end], plain[..end]);
            }
        }
    }
}

#[test]
fn every_packet_of_a_burst_with_wrong_icvs_is_wiped() {
    for tier in tiers() {
        let key = Key::with_tier(tier, &[1; 24], [2; 4]).unwrap();
        for bit in 0..8 * ICV {
            let mut packets: Vec<Vec<u8>> = (0..9).map(|i| vec![8; OVERHEAD + i * 61]).collect();
            seal(&mut jobs(&key, &mut packets));
            for packet in &mut packets {
                let icv = packet.len() - ICV;
                packet[icv + bit / 8] ^= 1 << (bit % 8);
            }
            let mut jobs = jobs(&key, &mut packets);
            open(&mut jobs);
            assert!(jobs.iter().all(|job| !job.ok), "{tier} bit {bit}");
            for packet in &packets {
                let text = &packet[HEADER..packet.len() - ICV];
                assert!(text.iter().all(|&octet| octet == 0));
            }
        }
    }
}

/// A helper whose list differs from its caller's is not inlined, and nothing says so but the time.
#[test]
fn every_function_of_a_kernel_has_the_features_of_its_tier() {
    let lists = [
        (
            "avx512.rs",
            "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt",
        ),
        (
            "avx512/short.rs",
            "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt",
        ),
        (
            "avx512/long.rs",
            "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt",
        ),
        ("avx2.rs", "aes,pclmulqdq,sse4.1,ssse3,avx2,vaes,vpclmulqdq"),
        ("aesni.rs", "aes,pclmulqdq,sse4.1,ssse3"),
        ("schedule.rs", "aes,pclmulqdq,sse4.1,ssse3"),
    ];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, features) in lists {
        let text = fs::read_to_string(sources.join(file)).unwrap();
        let mut found = 0;
        for line in text.lines().filter(|line| line.contains("enable = \"")) {
            assert_eq!(line.split('"').nth(1), Some(features), "{file}");
            found += 1;
        }
        assert!(found > 0, "{file}");
    }
}
