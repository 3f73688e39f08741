//! The one place that names atomics: the standard library's, or loom's when its model checker runs
//! (`RUSTFLAGS="--cfg loom" cargo test -p hitless-dataplane --release --test loom`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
