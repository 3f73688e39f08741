//! The control plane of hitless: IKEv2, configuration, the gateway that joins them to the
//! dataplane and to the sync protocol, and the daemon around it.

// A reader of messages that the fuzz targets share calls this crate by its name.
#[cfg(test)]
extern crate self as hitless;

mod allowance;
pub mod api;
mod aside;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod durable;
pub mod entropy;
pub mod file_error;
pub mod gateway;
pub mod ike;
pub mod keylog;
pub mod lab;
pub mod log;

// Lifetimes, checkpoints and every account of a drop rest on the counters.
const _: () = assert!(
    hitless_dataplane::counters::COUNTED,
    "the feature `uncounted` of hitless-dataplane is for measurements alone: build without it"
);
