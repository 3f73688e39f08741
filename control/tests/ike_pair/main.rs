//! Two IKE engines on one virtual clock.

mod counter_sync;
mod establish;
mod failover;
mod followup;
mod fragments;
mod hostile;
mod inform;
mod key_exchange;
mod lossy;
mod rekey;
mod suites;
mod world;
