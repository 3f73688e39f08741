//! Two IKE engines on one virtual clock.

mod counter_sync;
mod establish;
mod failover;
mod hostile;
mod inform;
mod lossy;
mod mobike;
mod rekey;
mod several;
mod suites;
mod transport;
mod virtual_ip;
mod world;
