//! The control plane of hitless: IKEv2, configuration, the gateway that joins them to the
//! dataplane and to the sync protocol, and the daemon around it.

pub mod api;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod durable;
pub mod entropy;
pub mod gateway;
pub mod ike;
pub mod keylog;
pub mod lab;
pub mod log;
pub mod pcapng;
