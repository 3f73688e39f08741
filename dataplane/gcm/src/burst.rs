//! A burst: up to 32 packets at a time are looked at, and handed to the kernels of their keys' tier,
//! those with equally many rounds together.

#![expect(
    unsafe_code,
    reason = "kernels need instructions that only some CPUs have"
)]

use std::mem::MaybeUninit;

use crate::detect::Tier;
use crate::job::{HEADER, ICV, Job, Task, fits};
use crate::key::Key;

/// Packets that the kernels see at once; a longer burst is several. A set of them is a `u32`.
const BURST: usize = u32::BITS as usize;

/// Encrypts the text of each packet and writes its ICV.
///
/// One IV must never be used twice with one key: draw the numbers of the whole burst before. A packet
/// that is too short for header and ICV, or has more than `MOST_TEXT` octets of text, is not `ok`, and
/// wiped behind its header.
pub fn seal(jobs: &mut [Job<'_>]) {
    run::<false>(jobs);
}

/// Verifies each packet and decrypts its text. Where the ICV is wrong `ok` is false, and the text has
/// been wiped.
pub fn open(jobs: &mut [Job<'_>]) {
    run::<true>(jobs);
}

/// Seals or opens one packet with additional data that it does not hold itself, of up to 16 octets, for
/// published vectors that have not the shape of ESP. `None` if that is longer, or the packet does not
/// fit.
#[doc(hidden)]
pub fn run_with_additional<const OPEN: bool>(
    key: &Key,
    esp: &mut [u8],
    additional: &[u8],
) -> Option<bool> {
    let task = Task::with_additional(key, esp, additional)?;
    let good = run_class::<OPEN>(std::slice::from_ref(&task), 1) == 1;
    if !good {
        wipe(esp);
    }
    Some(good)
}

fn run<const OPEN: bool>(jobs: &mut [Job<'_>]) {
    for jobs in jobs.chunks_mut(BURST) {
        let mut good = run_tasks::<OPEN>(jobs);
        for job in jobs {
            job.ok = fits(job.esp);
            if job.ok {
                job.ok = good & 1 != 0;
                good >>= 1;
            }
            if !job.ok {
                wipe(job.esp);
            }
        }
    }
}

/// Runs the packets that fit, and says of each of them whether it is good.
#[inline]
fn run_tasks<const OPEN: bool>(jobs: &mut [Job<'_>]) -> u32 {
    let mut places = [const { MaybeUninit::<Task<'_>>::uninit() }; BURST];
    let mut count = 0;
    let mut classes = 0u32;
    for (place, task) in places.iter_mut().zip(jobs.iter_mut().filter_map(Task::new)) {
        classes |= 1 << class(&task);
        place.write(task);
        count += 1;
    }
    // SAFETY: the loop has written the first `count` places.
    let tasks = unsafe { places[..count].assume_init_ref() };
    if count == 0 {
        return 0;
    }
    let all = u32::MAX >> (BURST - count);
    if classes.is_power_of_two() {
        return run_class::<OPEN>(tasks, all);
    }
    let mut good = 0;
    for wanted in (0..u32::BITS).filter(|one| classes >> one & 1 != 0) {
        let set = (0..count)
            .filter(|&i| class(&tasks[i]) == wanted)
            .fold(0, |set, i| set | 1 << i);
        good |= run_class::<OPEN>(tasks, set);
    }
    good
}

/// Packets of one class go to the kernels together: same tier, same number of rounds.
#[inline]
fn class(task: &Task<'_>) -> u32 {
    let key = task.key();
    ((key.tier() as u32) << 2) | ((key.rounds() - 10) / 2)
}

/// Runs the packets in `set`, which is not empty and of one class.
#[inline]
#[cfg(target_arch = "x86_64")]
fn run_class<const OPEN: bool>(tasks: &[Task<'_>], set: u32) -> u32 {
    let Some(first) = tasks.get(set.trailing_zeros() as usize) else {
        return 0;
    };
    match first.key().tier() {
        // SAFETY: a key of a tier is made only where the tier is available.
        Tier::Avx512 => unsafe { crate::avx512::run::<OPEN>(tasks, set) },
        // SAFETY: likewise.
        Tier::Avx2 => unsafe { crate::avx2::run::<OPEN>(tasks, set) },
        // SAFETY: likewise.
        Tier::AesNi => unsafe { crate::aesni::run::<OPEN>(tasks, set) },
        Tier::None => 0,
    }
}

/// There is no key here, so there is no packet.
#[cfg(not(target_arch = "x86_64"))]
fn run_class<const OPEN: bool>(_: &[Task<'_>], _: u32) -> u32 {
    0
}

#[cold]
#[inline(never)]
fn wipe(esp: &mut [u8]) {
    let end = esp.len().saturating_sub(ICV);
    if let Some(text) = esp.get_mut(HEADER..end) {
        text.fill(0);
    }
}
