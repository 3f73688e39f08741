//! Random bursts against aws-lc-rs and aes-gcm for as long as you like.
//!
//! `cargo run --release -p hitless-gcm --example soak -- [--cases 100000000] [--seed 1] [--tier NAME]`

#[path = "../tests/reference/mod.rs"]
mod reference;

use std::env;
use std::error::Error;

use hitless_gcm::Tier;
use reference::{Burst, Dice, Keys, Wanted, tiers};

/// Bursts with one set of keys.
const BURSTS: usize = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut cases, mut seed, mut used) = (1_000_000u64, 1, tiers());
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--cases" => cases = value.parse()?,
            "--seed" => seed = value.parse()?,
            "--tier" => used = vec![value.parse::<Tier>()?],
            _ => return Err(format!("unknown word {word}").into()),
        }
    }
    if !used.iter().all(|tier| tier.is_available()) || used.is_empty() {
        return Err("this CPU cannot run the tier".into());
    }
    let mut dice = Dice(seed);
    let mut done = 0;
    let mut told = 0;
    while done < cases {
        let keys: Vec<Keys> = used
            .iter()
            .flat_map(|tier| [16, 24, 32, 16].map(|octets| (*tier, octets)))
            .map(|(tier, octets)| Keys::random(tier, octets, &mut dice))
            .collect();
        for round in 0..BURSTS {
            let wanted = draw(keys.len(), &mut dice);
            done += wanted.len() as u64;
            Burst::draw(&wanted, &mut dice).check(&keys, round % 8 == 0, &mut dice);
        }
        if done / 1_000_000 > told {
            told = done / 1_000_000;
            eprint!("\r{told} million of {}", cases / 1_000_000);
        }
    }
    println!("\n{done} packets sealed and opened, seed {seed}, tiers {used:?}: none wrong");
    Ok(())
}

/// Up to 40 packets of up to 9,000 octets, most of them short; with one key or with many.
fn draw(keys: usize, dice: &mut Dice) -> Vec<Wanted> {
    let packets = 1 + dice.below(40);
    let one_key = (dice.below(2) == 0).then(|| dice.below(keys));
    let most = [90, 250, 700, 2_200, 9_001][dice.below(5)];
    (0..packets)
        .map(|_| Wanted {
            length: dice.below(most),
            skip: dice.below(65),
            key: one_key.unwrap_or_else(|| dice.below(keys)),
            extended: dice.below(2) == 0,
        })
        .collect()
}
