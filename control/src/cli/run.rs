//! `hitless run`: one member, in the foreground, until SIGTERM or SIGINT.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::clock;
use crate::config::{AsOf, Config, DEFAULT_CONFIG};
use crate::log;

/// Run one member of a cluster
#[derive(Args, Debug)]
#[command(
    long_about = "Run one member of a cluster, in the foreground, until SIGTERM or SIGINT.\n\n\
        The configuration is checked first; `hitless config example` documents the keys. The log \
        goes to stderr; HITLESS_LOG overrides its filter.",
    after_help = "Example:\n  hitless run --config /etc/hitless/hitless.toml"
)]
pub struct RunOptions {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

impl RunOptions {
    /// Reads the configuration and starts the log.
    pub fn prepare(&self) -> Result<Config, Failure> {
        let config = Config::load_as_of(&self.config, AsOf::Warn(clock::time_of_day()))
            .map_err(|e| Failure::config(&e))?;
        log::start(&config.control.log).map_err(|e| {
            Failure::usage(format!(
                "HITLESS_LOG: {e}; write a level such as info, or info,hitless::ike=debug"
            ))
        })?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}
