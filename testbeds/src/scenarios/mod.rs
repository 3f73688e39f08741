//! The scenarios, one module each.

pub mod failover_strongswan;
pub mod transfer_strongswan;
