//! A burst: up to 32 packets at a time are looked at, and handed to the kernels of their keys' tier,
//! those with equally many rounds together.

#![expect(
    unsafe_code,
    reason = "kernels need instructions that only some CPUs have"
)]

use std::mem::MaybeUninit;

use crate::detect::Tier;
use crate::job::{HEADER, Job, Task, fits};

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
                wipe(job);
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
        Tier::Avx2 | Tier::AesNi | Tier::None => 0,
    }
}

/// There is no key here, so there is no packet.
#[cfg(not(target_arch = "x86_64"))]
fn run_class<const OPEN: bool>(_: &[Task<'_>], _: u32) -> u32 {
    0
}

#[cold]
#[inline(never)]
fn wipe(job: &mut Job<'_>) {
    let end = job.esp.len().saturating_sub(crate::job::ICV);
    if let Some(text) = job.esp.get_mut(HEADER..end) {
        text.fill(0);
    }
}
