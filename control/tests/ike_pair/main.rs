//! Two IKE engines on one virtual clock.

mod counter_sync;
mod establish;
mod failover;
mod inform;
mod rekey;
mod world;
