//! `hitless-testbeds faults`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::faults;
use hitless_testbeds::scenario::Bench;

use super::bench::on_a_bench;
use super::json;

/// Do one fault after another to a cluster that carries many tunnels to strongSwan, and print
/// what each of them cost. Needs root.
#[derive(Args)]
#[command(
    after_help = "Example: hitless-testbeds faults --with-ha --plots /tmp/plots\n\
        All faults: kill, zombie, switchover, restarts, standby-down, sync-to-standby, sync-to-active,\n\
        sync-cut, sync-loss, sync-size, stuck-worker, protected-down, outside-down, next-hop, disk-full, clock-step\n\
        How long takeovers take: hitless-testbeds faults none --takeovers 9 --crowd 50000"
)]
pub struct Faults {
    /// Only these faults, by name, or "none"; all without it.
    faults: Vec<String>,
    /// Tunnels to strongSwan.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=i64::from(faults::MOST_TUNNELS)))]
    tunnels: u16,
    /// Datagrams a second each way, over all tunnels.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Failovers in a row, after the faults.
    #[arg(long, default_value_t = 0)]
    failovers: u32,
    /// Kills with 1, 200 and 1,000 tunnels each: how long a takeover takes, 50 ms at most.
    #[arg(long, default_value_t = 0, value_name = "KILLS")]
    takeovers: u32,
    /// Three kills with so many SAs each of peers of ours, up to 65,000; takes minutes.
    #[arg(long, value_delimiter = ',', value_name = "SAS,SAS,...", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    crowd: Vec<u32>,
    /// Side by side: the same kill to strongSwan's ha plugin.
    #[arg(long)]
    with_ha: bool,
    /// The members' heartbeat, and how many of them are missed before a takeover.
    #[arg(long, default_value_t = 10)]
    heartbeat_ms: u32,
    #[arg(long, default_value_t = 3)]
    missed: u32,
    /// What an active does without a standby.
    #[arg(long, default_value = "rekey", value_parser = ["rekey", "strict", "witness"])]
    degraded: String,
    /// Seconds that a fault lasts.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Seconds after it within which every tunnel must carry traffic.
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Where to write a plot of each fault, and its figures for `hitless-perf report --faults`.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Keep logs and captures even if all passed.
    #[arg(long)]
    keep: bool,
}

impl Faults {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let wish = faults::Wish {
            tunnels: self.tunnels,
            busy: None,
            rate: self.rate,
            faults: self.chosen()?,
            failovers: self.failovers,
            takeovers: self.takeovers,
            crowd: self.crowd.clone(),
            with_ha: self.with_ha,
            heartbeat_ms: self.heartbeat_ms,
            missed: self.missed,
            degraded: self.degraded.clone(),
            after: Duration::from_secs(self.seconds),
            patience: Duration::from_secs(self.patience),
            plots: self.plots.clone(),
        };
        let run = |bench: &Bench| faults::run(bench, &wish, |row| eprintln!("{row}"));
        let table = on_a_bench(self.keep, run, faults::Table::passed)?;
        match self.json {
            true => println!("{}", json(&table, "the table")?),
            false => println!("{table}"),
        }
        Ok(table.passed())
    }

    fn chosen(&self) -> Result<Vec<faults::Fault>, LabError> {
        let all = faults::Fault::ALL;
        if self.faults.is_empty() {
            return Ok(all.to_vec());
        }
        if self.faults == ["none"] {
            return Ok(Vec::new());
        }
        let names = || all.iter().map(|fault| fault.name()).collect::<Vec<_>>();
        let find = |name: &String| {
            let fault = all.iter().find(|fault| fault.name() == name).copied();
            let unknown = || format!("no fault {name:?}; there are {}", names().join(", "));
            fault.ok_or_else(|| LabError::Usage(unknown()))
        };
        self.faults.iter().map(find).collect()
    }
}
