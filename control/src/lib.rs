//! The control plane of hitless: IKEv2, configuration, the gateway that joins them to the
//! dataplane and to the sync protocol, and the daemon around it.

pub mod audit;
pub mod config;
pub mod ike;
