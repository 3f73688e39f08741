//! The scenarios, one module each.

pub mod failover_strongswan;
