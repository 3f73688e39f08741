//! The one clock of the daemon. Everything else takes `now` as an argument.
#![expect(
    unsafe_code,
    reason = "clock_gettime(2) has no safe wrapper for CLOCK_BOOTTIME"
)]

use std::time::Duration;

use hitless_sa::Instant;

/// Now, on CLOCK_BOOTTIME: it never goes back, and it goes on while the machine is suspended, so
/// that a member that slept knows that its silence was long.
pub fn now() -> Instant {
    let time = read(libc::CLOCK_BOOTTIME);
    Instant(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The time of day, since the Unix epoch: for captures, and for the validity of certificates. It
/// may go back.
pub fn time_of_day() -> Duration {
    read(libc::CLOCK_REALTIME)
}

/// What this thread has had of a core so far.
pub fn thread_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid, writable timespec, and the kernel writes nothing else.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    // Linux has had these clocks since 2.6.39; without one no timer could ever be right.
    assert!(!failed, "clock {clock} is missing: hitless needs Linux");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

/// Nanoseconds since 1970, for the time stamps of files alone: nothing is decided by it.
pub fn wall() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid, writable timespec, and the kernel writes nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_does_not_go_back() {
        let first = super::now();
        assert!(first.0 > 0);
        assert!(super::now() >= first);
    }
}
