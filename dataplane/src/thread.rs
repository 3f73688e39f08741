//! A worker on a thread of its own: pinned if asked, spinning while there is work, and out of the
//! way when there is none. On a machine with few cores a worker that never slept would starve the
//! control thread that feeds it.
#![expect(
    unsafe_code,
    reason = "poll(2), to sleep until a port has packets or a time has passed"
)]

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::worker::Worker;

/// Descriptors that can wake a sleeper.
const WAKE_LIMIT: usize = 32;

/// What a worker does in turns without work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idle {
    /// So many turns at full speed,
    pub spin: u32,
    /// then so many with the core offered to others in between,
    pub yields: u32,
    /// then sleeping so long each, or until a port has packets. Milliseconds; 0 never sleeps.
    pub sleep: Duration,
}

impl Idle {
    /// For a core that the worker has to itself.
    pub const DEDICATED: Idle = Idle {
        spin: u32::MAX,
        yields: 0,
        sleep: Duration::ZERO,
    };
}

impl Default for Idle {
    /// For cores that are shared.
    fn default() -> Idle {
        Idle {
            spin: 200,
            yields: 200,
            sleep: Duration::from_millis(1),
        }
    }
}

/// What to do after so many turns without work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    Spin,
    Yield,
    Sleep,
}

impl Idle {
    fn after(&self, turns: u32) -> Rest {
        if turns <= self.spin {
            Rest::Spin
        } else if turns - self.spin <= self.yields || self.sleep.is_zero() {
            Rest::Yield
        } else {
            Rest::Sleep
        }
    }
}

/// Runs a worker until `stop` is set, and gives it back. `clock` is read once a turn. If `core` is
/// given and cannot be had, the worker runs unpinned.
///
/// # Errors
/// If the thread cannot be started.
pub fn spawn(
    mut worker: Worker,
    core: Option<usize>,
    clock: impl Fn() -> Instant + Send + 'static,
    idle: Idle,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<Worker>> {
    std::thread::Builder::new()
        .name(format!("worker-{}", worker.id()))
        .spawn(move || {
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            run(&mut worker, clock, idle, &stop);
            worker
        })
}

fn run(worker: &mut Worker, clock: impl Fn() -> Instant, idle: Idle, stop: &AtomicBool) {
    let mut empty_turns: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        if worker.turn(clock()) > 0 {
            empty_turns = 0;
            continue;
        }
        empty_turns = empty_turns.saturating_add(1);
        match idle.after(empty_turns) {
            Rest::Spin => std::hint::spin_loop(),
            Rest::Yield => std::thread::yield_now(),
            Rest::Sleep => sleep(worker, idle.sleep),
        }
    }
}

/// What to wait for at a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    Read,
    Write,
}

/// Waits until a port has packets or the time is over.
fn sleep(worker: &Worker, longest: Duration) {
    let ports = worker.wake_descriptors().map(|fd| (fd, Readiness::Read));
    wait(ports, longest);
}

/// Waits until one of the descriptors is ready or the time, at least a millisecond, is over. Only
/// the first 32 descriptors are waited for. It may end early: whoever waits looks again.
pub fn wait(descriptors: impl IntoIterator<Item = (RawFd, Readiness)>, longest: Duration) {
    let mut descriptors: SmallVec<[libc::pollfd; WAKE_LIMIT]> = descriptors
        .into_iter()
        .take(WAKE_LIMIT)
        .map(|(fd, readiness)| libc::pollfd {
            fd,
            events: match readiness {
                Readiness::Read => libc::POLLIN,
                Readiness::Write => libc::POLLOUT,
            },
            revents: 0,
        })
        .collect();
    let milliseconds = i32::try_from(longest.as_millis()).unwrap_or(1).max(1);
    // SAFETY: the pointer and the count describe `descriptors`, which lives across the call. An
    // error (EINTR, a closed descriptor) only means that the sleep ends early.
    unsafe {
        libc::poll(
            descriptors.as_mut_ptr(),
            descriptors.len() as libc::nfds_t,
            milliseconds,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_spin_then_yield_then_sleep() {
        let idle = Idle {
            spin: 2,
            yields: 1,
            sleep: Duration::from_millis(1),
        };
        let rests: Vec<Rest> = (1..6).map(|turns| idle.after(turns)).collect();
        let expected = [
            Rest::Spin,
            Rest::Spin,
            Rest::Yield,
            Rest::Sleep,
            Rest::Sleep,
        ];
        assert_eq!(rests, expected);
        assert_eq!(Idle::DEDICATED.after(u32::MAX), Rest::Spin);
    }
}
