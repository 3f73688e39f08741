//! The one place that names atomics: the standard library's, or loom's when its model checker runs
//! (`RUSTFLAGS="--cfg loom" cargo test -p hitless-dataplane --release --test loom`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A number that no other call in this process gets. Never part of a loom model.
pub(crate) fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
