//! AES-GCM for bursts of ESP packets (RFC 4106): lanes filled across packets.
//!
//! One packet at a time leaves the latency of AES and of GHASH bare; several at once hide it. Short
//! packets go four at a time and share one reduction, long ones follow each other through a pipeline
//! that hashes one piece while it encrypts the next. What every packet brings by itself, counter block,
//! additional data and lengths, costs no operation of its own.
//!
//! - `detect`: which instructions there are; `Tier`
//! - `key`, `schedule`: a key, expanded once
//! - `job`: a packet of a burst, and what the kernels make of it
//! - `burst`: which packets go together, and to which kernel
//! - `avx512`, `avx2`, `aesni`: the kernels
//!
//! Nothing here branches on, or looks up by, a key or a text; only lengths, which key it is, and the
//! verdict decide. `unsafe` is in the kernels, in `schedule` and in `burst`, argued where it stands.

#![cfg_attr(
    not(target_arch = "x86_64"),
    expect(
        dead_code,
        unused_imports,
        reason = "no kernel for this CPU: no key is ever made, so there is no packet"
    )
)]

mod burst;
mod detect;
mod job;
mod key;

#[cfg(target_arch = "x86_64")]
mod aesni;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub mod bound;
#[cfg(not(target_arch = "x86_64"))]
#[doc(hidden)]
pub mod bound {
    /// There is no bound to measure here.
    pub fn run(_: usize, _: &mut [&mut [u8]]) -> bool {
        false
    }
}
#[cfg(target_arch = "x86_64")]
mod schedule;

#[doc(hidden)]
pub use burst::run_with_additional;
pub use burst::{open, seal};
pub use detect::{Tier, UnknownTier, tier};
pub use job::{HEADER, ICV, Job, MOST_TEXT, OVERHEAD};
pub use key::Key;
