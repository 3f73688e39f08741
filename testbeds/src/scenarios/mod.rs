//! The scenarios, one module each.

pub mod certs_strongswan;
pub mod eap_strongswan;
pub mod failover_strongswan;
pub mod flood_strongswan;
pub mod ike_strongswan;
pub mod libreswan;
pub mod mobike_strongswan;
pub mod nat_strongswan;
pub mod roads_strongswan;
pub mod transfer_strongswan;
pub mod tunnels_strongswan;
