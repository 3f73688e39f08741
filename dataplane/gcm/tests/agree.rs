//! Every tier gives the octets that aws-lc and aes-gcm give, in every shape of burst.

mod reference;

use reference::{Burst, Dice, Keys, Wanted, tiers};

/// Octets of the three AES keys.
const SIZES: [usize; 3] = [16, 24, 32];

fn keys(tier: hitless_gcm::Tier, dice: &mut Dice) -> Vec<Keys> {
    [16, 24, 32, 16, 32, 16]
        .into_iter()
        .map(|octets| Keys::random(tier, octets, dice))
        .collect()
}

#[test]
fn every_length_to_2200_with_every_key_size_and_both_kinds_of_number() {
    for tier in tiers() {
        let mut dice = Dice(1);
        let keys = keys(tier, &mut dice);
        for (key, octets) in SIZES.into_iter().enumerate() {
            for length in 0..=2200 {
                // Alone, and four of them.
                for packets in [1, 4] {
                    let wanted = Wanted {
                        length,
                        skip: length % 65,
                        key,
                        extended: (length + packets) % 2 == 0,
                    };
                    let both = packets == 1 && length % 4 == octets % 4;
                    Burst::draw(&vec![wanted; packets], &mut dice).check(&keys, both, &mut dice);
                }
            }
        }
    }
}

/// Jumbo frames too: every tail, in every place of the pipeline. Alone, as each packet here is long.
#[test]
fn every_length_to_9000() {
    for tier in tiers() {
        let mut dice = Dice(6);
        let keys = keys(tier, &mut dice);
        for length in 2201..=9000 {
            let wanted = Wanted {
                length,
                skip: length % 65,
                key: length % 3,
                extended: length % 2 == 0,
            };
            Burst::draw(&[wanted], &mut dice).check(&keys, false, &mut dice);
        }
    }
}

#[test]
fn every_alignment() {
    for tier in tiers() {
        let mut dice = Dice(2);
        let keys = keys(tier, &mut dice);
        for skip in 0..=64 {
            for length in [0, 1, 15, 16, 17, 64, 76, 80, 100, 128, 180, 500, 1400, 4100] {
                let wanted = Wanted {
                    length,
                    skip,
                    key: 0,
                    extended: skip % 2 == 0,
                };
                Burst::draw(&[wanted; 2], &mut dice).check(&keys, false, &mut dice);
            }
        }
    }
}

#[test]
fn every_burst_size_to_70_with_one_key_and_with_mixed_keys() {
    for tier in tiers() {
        let mut dice = Dice(3);
        let keys = keys(tier, &mut dice);
        for packets in 0..=70 {
            for (most, one_key) in [(60, true), (200, false), (2200, true), (2200, false)] {
                let wanted: Vec<Wanted> = (0..packets)
                    .map(|_| Wanted {
                        length: dice.below(most),
                        skip: dice.below(65),
                        key: if one_key { 3 } else { dice.below(keys.len()) },
                        extended: dice.below(2) == 0,
                    })
                    .collect();
                Burst::draw(&wanted, &mut dice).check(&keys, false, &mut dice);
            }
        }
    }
}

#[test]
fn random_bursts_with_jumbo_frames_and_all_tiers_in_one_burst() {
    let mut dice = Dice(4);
    let keys: Vec<Keys> = tiers()
        .into_iter()
        .flat_map(|tier| keys(tier, &mut dice))
        .collect();
    if keys.is_empty() {
        return;
    }
    for round in 0..200 {
        let most = [100, 600, 2000, 9001][round % 4];
        let packets = dice.below(40);
        let wanted: Vec<Wanted> = (0..packets)
            .map(|_| Wanted {
                length: dice.below(most),
                skip: dice.below(65),
                key: dice.below(keys.len()),
                extended: dice.below(2) == 0,
            })
            .collect();
        Burst::draw(&wanted, &mut dice).check(&keys, round % 8 == 0, &mut dice);
    }
}

#[test]
fn the_longest_texts_count_blocks_past_two_octets_of_counter() {
    for tier in tiers() {
        let mut dice = Dice(5);
        let keys = keys(tier, &mut dice);
        for length in [4_063, 4_064, 4_065, 16_000, 65_519, 65_520, 65_535] {
            let wanted = Wanted {
                length,
                skip: 3,
                key: 2,
                extended: true,
            };
            Burst::draw(&[wanted; 3], &mut dice).check(&keys, true, &mut dice);
        }
    }
}
