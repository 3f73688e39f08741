//! The nouns that the dataplane, the sync protocol and the control plane share.
//!
//! This is the leaf of the workspace: no I/O, no threads, no clock, no cryptography. Numbers that
//! mean something are types of their own (`Spi`, `SequenceNumber`, `MessageId`, `Epoch`), so that
//! a grant cannot be passed where a cursor is wanted. Read `id.rs` first, then `child.rs`.

mod child;
mod entropy;
mod id;
mod lease;
mod options;
mod selector;
mod suite;
mod time;

pub use child::{ChildSa, Mode, UdpEncapsulation};
pub use entropy::Entropy;
pub use id::{Epoch, IkeSpi, Incarnation, MemberId, MessageId, SaId, SequenceNumber, Spi};
pub use lease::Lease;
pub use options::{DontFragment, Dscp, MssClamp, SaOptions, TfcPadding, Workers};
pub use selector::{SelectorError, TrafficSelector};
pub use suite::{EspSuite, KeyMaterial, KeyParts, Transform};
pub use time::Instant;
