//! Real time, for scenarios that watch real processes: the testbeds' one clock, and the one way to
//! wait, which a signal cuts short so that namespaces and processes are always cleaned up.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::LabError;

static INTERRUPTED: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

/// How often a condition in another process is looked at.
const PROBE: Duration = Duration::from_millis(20);

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the testbeds' one clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch, as captures and ping stamp it.
#[expect(clippy::disallowed_methods, reason = "the testbeds' one wall clock")]
pub fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// From now on SIGINT, SIGTERM and SIGHUP end every wait with [`LabError::Interrupted`], so that
/// scenarios unwind and remove what they made.
pub fn watch_signals() -> Result<(), LabError> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(LabError::io("watching for signals"))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            *INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner) = true;
            CHANGED.notify_all();
        }
    });
    Ok(())
}

/// Lets `duration` pass, unless a signal comes.
pub fn pass(duration: Duration) -> Result<(), LabError> {
    let guard = INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner);
    let (interrupted, _) = CHANGED
        .wait_timeout_while(guard, duration, |interrupted| !*interrupted)
        .unwrap_or_else(PoisonError::into_inner);
    if *interrupted {
        return Err(LabError::Interrupted);
    }
    Ok(())
}

/// Probes until there is a value, at most for `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    let deadline = now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if now() >= deadline {
            return Err(LabError::Late {
                what: what.to_owned(),
                limit,
            });
        }
        pass(PROBE)?;
    }
}
