//! No copy of this process's memory is written anywhere: it holds the keys of every tunnel.
#![expect(
    unsafe_code,
    reason = "setrlimit(2) and prctl(2) have no safe wrapper in what we depend on"
)]

use std::io;

/// A crash leaves no core file and gives none to a collector of them, and nobody but root may attach to
/// the process or read its memory.
pub(super) fn keep_memory_here() {
    if let Err(error) = forbid_dumps() {
        tracing::warn!(
            "a crash of this process may write its memory, with all keys, to disk: {error}"
        );
    }
}

fn forbid_dumps() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` is a valid rlimit that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: PR_SET_DUMPABLE takes one number and touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
