//! The cryptography of IKE: pseudorandom functions, key exchange, and the SK payload.
//!
//! Nothing here draws randomness of its own or keeps a clock; all keys are wiped when dropped.

pub mod kex;
pub mod prf;
pub mod sk;

pub use kex::{KexError, KeyPair};
pub use sk::{IvCounter, IvSource, KeyLengthError, Opened, SkKeys};
