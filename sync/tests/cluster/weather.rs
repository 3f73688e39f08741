//! How much goes wrong.

use super::MILLISECOND;
use super::random::Random;

/// How bad the world is, per mille and per millisecond or packet.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u64,
    pub duplicate: u64,
    /// Packets that arrive up to `long_delay` late.
    pub straggle: u64,
    pub long_delay: u64,
    pub partition: u64,
    pub crash: u64,
    pub pause: u64,
    pub write_failure: u64,
    /// How long a write takes at most.
    pub write_delay: u64,
    pub switchover: u64,
    /// A new leader dies within 40 ms.
    pub short_life: u64,
}

impl Weather {
    pub const CALM: Weather = Weather {
        loss: 0,
        duplicate: 0,
        straggle: 0,
        long_delay: 0,
        partition: 0,
        crash: 0,
        pause: 0,
        write_failure: 0,
        write_delay: 2 * MILLISECOND,
        switchover: 0,
        short_life: 0,
    };

    /// Anything from a mild day to a storm.
    pub fn of(random: &mut Random) -> Weather {
        Weather {
            loss: random.below(300),
            duplicate: random.below(200),
            straggle: random.below(150),
            long_delay: random.range(5, 400) * MILLISECOND,
            partition: random.below(12),
            crash: random.below(6),
            pause: random.below(8),
            write_failure: random.below(100),
            write_delay: if random.chance(700) { 3 } else { 80 } * MILLISECOND,
            switchover: random.below(4),
            short_life: random.below(500),
        }
    }
}
