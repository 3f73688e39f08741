//! Which features a plan's tunnel has beyond the plain one: a few at a time, the dear ones rarely.

use hitless::lab::Extras;
use hitless_sa::Entropy;

use super::plan::{below, pick};

/// How many at once.
const AT_ONCE: [u32; 8] = [0, 0, 1, 1, 1, 2, 2, 3];

/// What a seed has: from its stream behind all else, so that its faults stay what they were.
pub fn draw(entropy: &mut dyn Entropy) -> Extras {
    let mut extras = Extras::default();
    for _ in 0..pick(entropy, &AT_ONCE) {
        add(&mut extras, entropy);
    }
    // What the configuration refuses.
    extras.transport &= !extras.virtual_ip;
    extras
}

fn add(extras: &mut Extras, entropy: &mut dyn Entropy) {
    match below(entropy, 19) {
        0..=2 => extras.more_children = 2,
        3..=4 => extras.transport = true,
        5..=6 => extras.ppk = true,
        7..=8 => extras.virtual_ip = true,
        9..=10 => extras.encap = true,
        11..=12 => extras.small_fragments = true,
        13 => extras.crash_detection = true,
        14 => extras.resumption = true,
        15..=17 => extras.packets = Some(pick(entropy, &[200, 600, 2000])),
        _ => extras.ml_kem = true,
    }
}

#[cfg(test)]
mod tests {
    use hitless::entropy::SeededEntropy;

    use super::super::plan::Plan;
    use super::*;

    #[test]
    fn two_hundred_seeds_have_each_feature_and_some_have_none() {
        let plans: Vec<Plan> = (1..=200_u64)
            .map(|seed| Plan::draw(&mut SeededEntropy::new(!seed)))
            .collect();
        let some = |what: fn(&Extras) -> bool| plans.iter().any(|plan| what(&plan.extras));
        assert!(some(|extras| *extras == Extras::default()));
        for (feature, what) in FEATURES {
            assert!(some(*what), "{feature}");
        }
    }

    type Feature = (&'static str, fn(&Extras) -> bool);

    const FEATURES: &[Feature] = &[
        ("children", |extras| extras.more_children > 0),
        ("transport mode", |extras| extras.transport),
        ("PPK", |extras| extras.ppk),
        ("virtual IP", |extras| extras.virtual_ip),
        ("ESP in UDP", |extras| extras.encap),
        ("fragments", |extras| extras.small_fragments),
        ("crash detection", |extras| extras.crash_detection),
        ("resumption", |extras| extras.resumption),
        ("lifetimes by packets", |extras| extras.packets.is_some()),
        ("ML-KEM", |extras| extras.ml_kem),
        ("two at once", |extras| {
            extras.more_children > 0 && extras.ppk
        }),
    ];
}
