//! Two IKE engines on one virtual clock.

mod counter_sync;
mod establish;
mod failover;
mod hostile;
mod inform;
mod lossy;
mod rekey;
mod suites;
mod virtual_ip;
mod world;
