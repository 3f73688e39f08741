//! `hitless-testbeds mutate`.

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::mutate;

use super::{json, print};

/// Send damaged packets through a worker and watch that they do no harm. Needs nothing.
#[derive(Args)]
#[command(after_help = "Example: hitless-testbeds mutate --packets 5000000 --seed 7")]
pub struct Mutate {
    /// How many packets.
    #[arg(long, default_value_t = 200_000)]
    packets: u64,
    /// Where chance starts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Mutate {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let wish = mutate::Wish {
            packets: self.packets,
            seed: self.seed,
        };
        let mut told = 0;
        let summary = mutate::run(wish, |done| {
            if done / 1_000_000 > told {
                told = done / 1_000_000;
                eprintln!("{done} of {} packets", wish.packets);
            }
        });
        let summary = summary.map_err(|refused| LabError::Usage(refused.to_string()))?;
        match self.json {
            true => print(&json(&summary, "the summary")?)?,
            false => print(summary.to_string().trim_end())?,
        }
        Ok(summary.faults.is_empty())
    }
}
