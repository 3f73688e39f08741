//! `hitless config`: check a configuration, or print one to start from.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, print, print_json};
use crate::clock;
use crate::config::{AsOf, Config, ConfigError, DEFAULT_CONFIG, Driver, EXAMPLE};

/// Check a configuration, or print one to start from
#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  hitless config check /etc/hitless/hitless.toml\n  hitless config example > hitless.toml"
)]
pub enum ConfigCommand {
    Check(Check),
    Example(Example),
}

/// Say everything that is wrong with a configuration, and how to set it right
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  hitless config check /etc/hitless/hitless.toml && systemctl restart hitless"
)]
pub struct Check {
    /// The configuration
    #[arg(value_name = "FILE", default_value = DEFAULT_CONFIG)]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Print a documented configuration to start from
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless config example > hitless.toml")]
pub struct Example {}

impl ConfigCommand {
    pub fn execute(&self) -> Outcome {
        match self {
            ConfigCommand::Check(check) => check.execute(),
            ConfigCommand::Example(_) => print(EXAMPLE),
        }
    }
}

impl Check {
    fn execute(&self) -> Outcome {
        let file = self.file.display().to_string();
        match Config::load_as_of(&self.file, AsOf::Refuse(clock::time_of_day())) {
            Err(e) if self.json => {
                print_json(&problems(&e))?;
                Ok(ExitCode::from(2))
            }
            Err(e) => Err(Failure::config(&e)),
            Ok(config) if self.json => print_json(&json!({
                "file": file,
                "problems": [],
                "warnings": warnings(&config),
            })),
            Ok(config) => {
                let mut text = String::new();
                for warning in &warnings(&config) {
                    text.push_str(&format!("warning: {warning}\n"));
                }
                text.push_str(&format!(
                    "{file}: good; member {} of cluster {}, {}, {}\n",
                    config.cluster.id,
                    config.cluster.name,
                    counted(config.ports.len(), "port"),
                    counted(config.connections.len(), "connection")
                ));
                print(&text)
            }
        }
    }
}

/// What is legal and probably not meant, and what this host lacks: the file may be for another one.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.warnings.clone();
    let state_dir = &config.cluster.state_dir;
    if !state_dir.is_dir() {
        warnings.push(format!(
            "cluster.state_dir: {} does not exist on this host; `hitless run` makes it, and it \
             must survive a restart",
            state_dir.display()
        ));
    }
    for port in &config.ports {
        // A tap that is not there yet is made.
        let tap = matches!(port.driver, Driver::Tap { .. });
        let Some(interface) = port.kernel_interface().filter(|_| !tap) else {
            continue;
        };
        if !Path::new("/sys/class/net").join(interface).exists() {
            warnings.push(format!(
                "ports.{}: this host has no interface {interface:?}; see `ip link`",
                port.name
            ));
        }
    }
    warnings
}

/// `1 port`, `2 ports`.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn problems(error: &ConfigError) -> serde_json::Value {
    let problems: Vec<_> = error
        .located()
        .map(|(line, column, title, help)| {
            json!({ "line": line, "column": column, "title": title, "help": help })
        })
        .collect();
    json!({ "file": error.file(), "problems": problems, "warnings": [] })
}
