//! The command line of the testbeds: `list`, `run NAME`, `sim`, `model`, `mutate`, `conformance`;
//! `esp-peer` is for the suites in other languages, `guard` for `run` alone.
//!
//! Exit status: 0 if nothing failed (what is skipped says so), 1 if a check failed, 2 if nothing could be run.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use hitless_testbeds::error::LabError;
use hitless_testbeds::guard::{self, Guard};
use hitless_testbeds::scenario::{ALL, Bench, Report, Scenario};
use hitless_testbeds::{
    clock, conformance, esp_peer, faults, mangle, matrix, model, mutate, netns, sim, strongswan,
};

/// Scenarios for hitless, with real peers in network namespaces.
#[derive(Parser)]
#[command(name = "hitless-testbeds", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the scenarios.
    List,
    /// Run one scenario. Needs root.
    Run(Run),
    /// Do one fault after another to a cluster that carries many tunnels to strongSwan, and print
    /// what each of them cost. Needs root.
    #[command(
        after_help = "Example: hitless-testbeds faults --with-ha --plots /tmp/plots\n\
        All faults: kill, zombie, switchover, restarts, standby-down, sync-to-standby, sync-to-active,\n\
        sync-cut, protected-down, outside-down, next-hop, disk-full, clock-step\n\
        How long takeovers take: hitless-testbeds faults none --takeovers 9 --crowd 50000"
    )]
    Faults(Faults),
    /// Run the gateway in a simulated network that misbehaves, once for each seed. Needs nothing.
    #[command(
        after_help = "Examples:\n  hitless-testbeds sim --for 30m --json > night.1.json\n  \
        hitless-testbeds sim --for 30m --json --first NEXT > night.2.json\n  \
        hitless-testbeds sim --merge night.1.json night.2.json\n  \
        hitless-testbeds sim --with redirect --seeds 300"
    )]
    Sim(Sim),
    /// Search the lease rules as a model, whole and with each rule left out: a minute or two, and
    /// a gigabyte. Needs nothing.
    #[command(after_help = "Example: hitless-testbeds model --full")]
    Model(Model),
    /// Send damaged packets through a worker and watch that they do no harm. Needs nothing.
    Mutate(Mutate),
    /// Speak IKEv2 to a gateway with real keys, each message wrong in another way, and print what
    /// comes back beside what the RFC says. Needs nothing.
    #[command(
        after_help = "Examples:\n  hitless-testbeds mangle fragment\n  sudo testbeds/responder mangle -- sh -c 'hitless-testbeds mangle --against 192.0.2.1 \\\n    --from 192.0.2.101 --socket $HITLESS_SOCKET'"
    )]
    Mangle(Mangle),
    /// Print peer x feature x role, from what `run` has printed.
    #[command(after_help = "Example: hitless-testbeds matrix OUTPUT...")]
    Matrix(Matrix),
    /// Print the table of the checklist, from what test runners have printed.
    Conformance(Conformance),
    /// Drive one worker for a suite in another language, over stdin and stdout.
    EspPeer,
    /// Remove what the process with this id leaves when it is killed; its pipe is our stdin.
    #[command(hide = true)]
    Guard { runner: u32 },
}

#[derive(Args)]
struct Model {
    /// As far as before a release: some minutes and gigabytes.
    #[arg(long)]
    full: bool,
    /// Print one JSON object instead of text, with the history of each repeated number.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Sim {
    /// How many seeds; without it 100, all crash points, or with --for as many as there is time for.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them; one below which a run stopped goes on from there.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Stop after so long (90s, 30m, 8h), and say which seed comes next.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    limit: Option<Duration>,
    /// Run nothing: sum up what earlier runs printed with --json.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["seeds", "limit", "mutants"])]
    merge: Vec<PathBuf>,
    /// From one seed to the next.
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Give each seed's tunnel this as well, with what may happen to it.
    #[arg(long, value_name = "FEATURE", value_parser = sim::features::Feature::named)]
    with: Option<&'static sim::features::Feature>,
    /// Not random faults: one crash after each single output of each exchange, enumerated.
    #[arg(long, visible_alias = "enumerate", conflicts_with = "with")]
    crash_points: bool,
    /// Tell on stderr what happens.
    #[arg(long)]
    verbose: bool,
    /// Not the gateway as it is: with one bug at a time planted, until a seed shows it.
    #[arg(long, conflicts_with_all = ["crash_points", "verbose", "first"])]
    mutants: bool,
}

#[derive(Args)]
struct Faults {
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

#[derive(Args)]
struct Conformance {
    /// Outputs of `cargo test`, of `python3 -m unittest -v` and of `hitless-testbeds run`.
    #[arg(required = true)]
    outputs: Vec<PathBuf>,
    /// A test that was not run is a failure.
    #[arg(long)]
    complete: bool,
}

#[derive(Args)]
struct Mutate {
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

#[derive(Args)]
struct Matrix {
    /// Outputs of `hitless-testbeds run`.
    outputs: Vec<PathBuf>,
    /// A check that was not run is a failure.
    #[arg(long)]
    complete: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Mangle {
    /// Only the cases with this in their name.
    #[arg(default_value = "")]
    filter: String,
    /// Not an engine in this process but this daemon, which has been told of the mangling peer
    /// (testbeds/responder does that).
    #[arg(long, value_name = "ADDRESS", requires_all = ["from", "socket"])]
    against: Option<Ipv4Addr>,
    /// Our own address then.
    #[arg(long, value_name = "ADDRESS", requires = "against")]
    from: Option<Ipv4Addr>,
    /// The daemon's control socket then.
    #[arg(long, value_name = "PATH", requires = "against")]
    socket: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Run {
    /// A name that `list` shows.
    name: String,
    /// Only this variant.
    #[arg(long)]
    variant: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Keep logs and captures even if all passed.
    #[arg(long)]
    keep: bool,
}

/// Of the simulator, if nothing bounds them.
const DEFAULT_SEEDS: u64 = 100;

/// A time such as `90s`, `30m` or `8h`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 90s, 30m or 8h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let all = number.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(all))
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List => exit(list()),
        Command::Run(run) => exit(run.carry_out()),
        Command::Faults(faults) => exit(faults.carry_out()),
        Command::Sim(sim) => exit(sim.carry_out()),
        Command::Model(model) => exit(model.carry_out()),
        Command::Mutate(mutate) => exit(mutate.carry_out()),
        Command::Matrix(matrix) => exit(matrix.carry_out()),
        Command::Mangle(mangle) => exit(mangle.carry_out()),
        Command::Conformance(table) => exit(table.carry_out()),
        Command::EspPeer => exit(serve()),
        Command::Guard { runner } => exit(guard::watch(runner).map(|()| true)),
    }
}

fn serve() -> Result<bool, LabError> {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    esp_peer::serve(input, std::io::BufWriter::new(output))
        .map(|()| true)
        .map_err(LabError::io("the pipe"))
}

fn exit(outcome: Result<bool, LabError>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("hitless-testbeds: {error}");
            ExitCode::from(2)
        }
    }
}

/// Writes a result. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), LabError> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(LabError::io("stdout")(error))
        }
        _ => Ok(()),
    }
}

fn list() -> Result<bool, LabError> {
    let line = |scenario: &Scenario| {
        let variants = scenario.variants.join(", ");
        let (name, about) = (scenario.name, scenario.about);
        format!("{name:<24} {about}\n{:<24} variants: {variants}", "")
    };
    let lines: Vec<String> = ALL.iter().map(line).collect();
    print(&lines.join("\n")).map(|()| true)
}

impl Model {
    fn carry_out(&self) -> Result<bool, LabError> {
        let depth = match self.full {
            true => model::Depth::Full,
            false => model::Depth::Quick,
        };
        let summary = model::run(depth, |search| eprintln!("{search}"));
        match self.json {
            true => print(&json(&summary, "the searches")?)?,
            false => print(&summary.to_string())?,
        }
        Ok(summary.as_expected())
    }
}

impl Sim {
    fn carry_out(&self) -> Result<bool, LabError> {
        if self.mutants {
            return self.hunt_mutants();
        }
        let summary = match self.merge.is_empty() {
            true => self.run()?,
            false => self.sum_up()?,
        };
        if self.json {
            print(&json(&summary, "the summary")?)?;
        } else {
            print(&summary.to_string())?;
        }
        Ok(summary.violations.is_empty())
    }

    fn run(&self) -> Result<sim::Summary, LabError> {
        let seeds = match (self.seeds, self.limit) {
            (None, None) if self.crash_points => {
                Some(sim::plan::crash_points() / self.every.max(1))
            }
            (None, None) => Some(DEFAULT_SEEDS),
            (seeds, _) => seeds,
        };
        let mut wish = sim::Wish::seeds(self.first, seeds.unwrap_or(u64::MAX));
        wish.every = self.every;
        wish.crash_points = self.crash_points;
        wish.verbose = self.verbose;
        wish.with = self.with;
        clock::watch_signals()?;
        let mut watch = sim::Watch::begin(seeds, self.limit);
        let summary = sim::run(wish, |so_far| watch.goes_on(so_far));
        if seeds.is_none_or(|seeds| summary.seeds < seeds)
            && let Some(next) = summary.next()
        {
            eprintln!("to go on: --first {next}");
        }
        Ok(summary)
    }

    fn sum_up(&self) -> Result<sim::Summary, LabError> {
        let mut whole = sim::Summary::default();
        for path in &self.merge {
            let shown = path.display().to_string();
            let text = std::fs::read(path).map_err(LabError::io(shown.clone()))?;
            let unreadable = |detail: String| LabError::Unreadable {
                what: shown,
                detail,
            };
            let part = serde_json::from_slice(&text);
            let part: sim::Summary = part.map_err(|error| unreadable(error.to_string()))?;
            whole
                .join(part)
                .map_err(|overlap| LabError::Usage(format!("{}: {overlap}", path.display())))?;
        }
        Ok(whole)
    }

    fn hunt_mutants(&self) -> Result<bool, LabError> {
        let seeds = self.seeds.unwrap_or(DEFAULT_SEEDS);
        let table = sim::run_mutants(seeds, |caught| eprintln!("{caught}"));
        match self.json {
            true => println!("{}", json(&table, "the table")?),
            false => println!("{table}"),
        }
        Ok(table.all_caught())
    }
}

impl Mutate {
    fn carry_out(&self) -> Result<bool, LabError> {
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

impl Mangle {
    fn carry_out(&self) -> Result<bool, LabError> {
        let table = match (self.against, self.from, &self.socket) {
            (Some(gateway), Some(from), Some(socket)) => {
                let socket = socket.clone();
                let target = mangle::Target {
                    gateway,
                    from,
                    socket,
                };
                mangle::run_against(&target, &self.filter, |row| {
                    if !row.passed {
                        eprintln!("{}: {}", row.action, row.seen);
                    }
                })
            }
            _ => mangle::run(&self.filter),
        };
        match self.json {
            true => print(&json(&table, "the table")?)?,
            false => print(&table.to_string())?,
        }
        Ok(table.passed)
    }
}

impl Matrix {
    fn carry_out(&self) -> Result<bool, LabError> {
        let list = matrix::list().map_err(|error| LabError::Unreadable {
            what: "testbeds/matrix.toml".to_owned(),
            detail: error.to_string(),
        })?;
        let mut results = matrix::Results::default();
        for path in &self.outputs {
            let shown = path.display().to_string();
            let output = std::fs::read(path).map_err(LabError::io(shown))?;
            results.read(&String::from_utf8_lossy(&output));
        }
        let matrix = matrix::matrix(&list, &results, self.complete);
        match self.json {
            true => print(&json(&matrix, "the matrix")?)?,
            false => print(&matrix.to_string())?,
        }
        Ok(matrix.passed)
    }
}

impl Conformance {
    fn carry_out(&self) -> Result<bool, LabError> {
        let list = conformance::checklist().map_err(|error| LabError::Unreadable {
            what: "testbeds/conformance.toml".to_owned(),
            detail: error.to_string(),
        })?;
        let mut results = conformance::Results::default();
        for path in &self.outputs {
            let shown = path.display().to_string();
            let output = std::fs::read(path).map_err(LabError::io(shown))?;
            results.read(&String::from_utf8_lossy(&output));
        }
        let (text, sound) = conformance::table(&list, &results, self.complete);
        print(&text)?;
        Ok(sound)
    }
}

fn json(value: &impl serde::Serialize, what: &str) -> Result<String, LabError> {
    serde_json::to_string(value).map_err(|error| LabError::Unreadable {
        what: what.to_owned(),
        detail: error.to_string(),
    })
}

/// Runs something in namespaces: a guard removes them whatever happens, and the logs stay if
/// something failed.
fn on_a_bench<T>(
    keep: bool,
    run: impl FnOnce(&Bench) -> Result<T, LabError>,
    passed: impl Fn(&T) -> bool,
) -> Result<T, LabError> {
    clock::watch_signals()?;
    require_programs()?;
    let _guard = Guard::start()?;
    let bench = Bench::new()?;
    for name in netns::remove_leftovers()? {
        bench.say(&format!(
            "removed {name}, left behind by a run that was killed"
        ));
    }
    let outcome = run(&bench);
    let interrupted = matches!(outcome, Err(LabError::Interrupted));
    if keep || !interrupted && !outcome.as_ref().is_ok_and(passed) {
        bench.say(&format!(
            "logs and captures: {}",
            bench.directory().display()
        ));
    } else {
        bench.discard()?;
    }
    outcome
}

impl Faults {
    fn carry_out(&self) -> Result<bool, LabError> {
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

impl Run {
    fn carry_out(&self) -> Result<bool, LabError> {
        let scenario = self.scenario()?;
        let variants = self.variants(scenario)?;
        let run = |bench: &Bench| Self::run_variants(bench, scenario, &variants);
        let report = on_a_bench(self.keep, run, |report| !report.failed())?;
        self.print(&report)?;
        Ok(!report.failed())
    }

    fn run_variants(
        bench: &Bench,
        scenario: &Scenario,
        variants: &[&str],
    ) -> Result<Report, LabError> {
        let mut reports = Vec::new();
        for variant in variants {
            bench.say(&format!("{} / {variant}", scenario.name));
            let report = match (scenario.run)(bench, variant) {
                Ok(report) => report,
                Err(LabError::Interrupted) => return Err(LabError::Interrupted),
                Err(error) => Report::broken(scenario.name, variant, &error),
            };
            reports.push(report);
        }
        Ok(Report::join(scenario.name, reports))
    }

    fn scenario(&self) -> Result<&'static Scenario, LabError> {
        let found = ALL.iter().find(|scenario| scenario.name == self.name);
        let text = || format!("no scenario {:?}; see `hitless-testbeds list`", self.name);
        found.ok_or_else(|| LabError::Usage(text()))
    }

    fn variants(&self, scenario: &'static Scenario) -> Result<Vec<&'static str>, LabError> {
        let wanted = |name: &&&str| self.variant.as_deref().is_none_or(|only| only == **name);
        let variants: Vec<_> = scenario.variants.iter().filter(wanted).copied().collect();
        if variants.is_empty() {
            let known = scenario.variants.join(", ");
            return Err(LabError::Usage(format!(
                "--variant: {} has {known}",
                scenario.name
            )));
        }
        Ok(variants)
    }

    fn print(&self, report: &Report) -> Result<(), LabError> {
        if !self.json {
            print(&report.text())?;
            return Ok(());
        }
        print(&json(report, "the report")?)?;
        Ok(())
    }
}

/// All scenarios need the same programs.
fn require_programs() -> Result<(), LabError> {
    // It belongs to whom this process runs as.
    if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        return Err(LabError::NotRoot);
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("tcpdump", "tcpdump"),
        ("ping", "iputils-ping"),
        ("python3", "python3"),
        ("ethtool", "ethtool"),
        ("sysctl", "procps"),
        ("setpriv", "util-linux"),
        ("setsid", "util-linux"),
    ] {
        hitless_testbeds::process::require(program, package)?;
    }
    strongswan::require()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn a_time_has_a_unit() {
        let seconds = |text| super::span(text).map(|span| span.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("8h"), Ok(28_800));
        for wrong in ["", "s", "30", "-1s", "1d", "9999999999999999999h", "3ü"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_fits_together() {
        super::Arguments::command().debug_assert();
    }
}
