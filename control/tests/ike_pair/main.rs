//! Two IKE engines on one virtual clock.

mod certificates;
mod collisions;
mod counter_sync;
mod crash;
mod establish;
mod failover;
mod followup;
mod fragments;
mod hostile;
mod inform;
mod key_exchange;
mod lifetimes;
mod lossy;
mod mobike;
mod pki;
mod ppk;
mod reauth;
mod rekey;
mod several;
mod suites;
mod transport;
mod unique;
mod versions;
mod virtual_ip;
mod windows;
mod world;
