//! The configuration: a TOML file in swanctl's words, read once into a validated [`Config`].
//!
//! ```text
//!  file -> document (tables with positions) -> one file for each section -> Config
//!                       \-> Problem, many at once -> report (carets, secrets covered) -> stderr
//! ```
//!
//! What leaves this module holds: every value is in range, every reference resolves, every
//! connection has a proposal, a secret and an address of ours. Nothing later checks again.
//! Secrets are never printed, not even in the source lines that an error quotes.
//! `control/examples/gateway.toml` shows every key.

mod auth;
mod children;
mod cluster;
mod connections;
mod cover;
mod credentials;
mod dataplane;
mod document;
mod drivers;
mod limits;
mod model;
mod overlap;
mod pools;
mod ports;
mod reload;
mod report;
mod room;
mod secrets;
mod selectors;
mod sessions;
mod suggest;
mod value;

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::digest;
use toml::de::DeTable;

use document::Section;
use report::{Problem, Problems, Refusal};

/// Words of the configuration that are settings of the parts that act on them.
pub use hitless_dataplane::port::af_xdp::AfXdpMode;
pub use hitless_sync::Degraded;

pub use auth::AsOf;
pub use credentials::read_crls;
pub use model::{
    Aead, AfXdpConfig, ClusterConfig, Config, ControlConfig, DEFAULT_CONFIG, DEFAULT_SOCKET,
    DEFAULT_STATE_DIR, DataplaneConfig, Driver, IdlePolicy, OwnSecret, PcapConfig, Peer,
    PortConfig, Prefix, RouteConfig, SyncConfig,
};
pub use report::ConfigError;

/// The documented example.
pub const EXAMPLE: &str = include_str!("../../examples/gateway.toml");

/// A configuration is read by people: this is thousands of connections.
const LARGEST_FILE: u64 = 16 << 20;
const FILE: &str = "name the file that you mean; `hitless config example` prints one to start from";

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::load_as_of(path, AsOf::Never)
    }

    /// As `load`; certificates are judged as of a time of day.
    pub fn load_as_of(path: &Path, as_of: AsOf) -> Result<Config, ConfigError> {
        let name = path.display().to_string();
        let unreadable = |refusal: Refusal| {
            let problem = Problem {
                span: 0..0,
                title: refusal.title,
                label: String::new(),
                help: refusal.help,
            };
            ConfigError::new(&name, String::new(), vec![problem])
        };
        let (octets, mode) = credentials::read(path, LARGEST_FILE, FILE).map_err(unreadable)?;
        let text = std::str::from_utf8(&octets).map_err(|error| {
            let shown = value::quoted(&name);
            unreadable(Refusal::new(format!("{shown} is not text: {error}"), FILE))
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        let mut config = Config::parse_as_of(&name, text, base, as_of)?;
        config.path = Some(path.to_owned());
        if mode & 0o077 != 0 && config.has_inline_secrets {
            config.warnings.push(format!(
                "others than its owner may read the secrets in {name} (mode {mode:03o}): chmod 600 {name}, or use secret_file"
            ));
        }
        Ok(config)
    }

    /// Validates a text. `name` is how errors call it; relative paths in it start at `base`.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Config, ConfigError> {
        Config::parse_as_of(name, text, base, AsOf::Never)
    }

    /// As `parse`; certificates are judged as of a time of day.
    pub fn parse_as_of(
        name: &str,
        text: &str,
        base: &Path,
        as_of: AsOf,
    ) -> Result<Config, ConfigError> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problems = Problems::default();
            for error in errors {
                problems.refuse(
                    &error.span().unwrap_or(0..0),
                    Refusal::new(
                        error.message(),
                        "the file must be TOML 1.0: https://toml.io",
                    ),
                );
            }
            return Err(ConfigError::new(
                name,
                cover::by_line(text),
                problems.into_sorted(),
            ));
        }
        let problems = Problems::default();
        let config = read(document.get_ref(), &problems, base, as_of);
        match config {
            Some(mut config) if problems.count() == 0 => {
                config.warnings = problems.warnings();
                Ok(config)
            }
            _ => Err(ConfigError::new(
                name,
                cover::by_value(text, document.get_ref(), problems.covers()),
                problems.into_sorted(),
            )),
        }
    }

    /// A fingerprint of what every member must have alike: who the members are and how they
    /// decide. Members that differ in it must not form a cluster (`lease-holes` A10).
    pub fn cluster_hash(&self) -> [u8; 32] {
        let cluster = &self.cluster;
        let mut members = vec![(cluster.id.0, cluster.priority)];
        if let Some(sync) = &cluster.sync {
            members.extend(sync.peers.iter().map(|peer| (peer.id.0, peer.priority)));
        }
        members.sort_unstable();
        let text = format!(
            "hitless cluster 1\n{:?}\n{members:?}\n{:?}\n{:?} {}\n{}",
            cluster.name, cluster.degraded, cluster.heartbeat, cluster.missed, cluster.preempt,
        );
        let text = match cluster.witness {
            Some(witness) => format!("{text}\nwitness {witness}"),
            // As members without this key reckon it.
            None => text,
        };
        sha256(&text)
    }

    /// A fingerprint of which networks the ports are on, on either side: where it differs, a takeover
    /// loses what only one member reaches. Names, interfaces, and addresses of a member's own may differ.
    /// 0 without ports.
    pub fn layout(&self) -> u64 {
        let networks = self.ports.iter().flat_map(|port| {
            let (protected, networks) = port.place();
            networks
                .into_iter()
                .map(move |network| (protected, network))
        });
        let networks: BTreeSet<_> = networks.collect();
        if networks.is_empty() {
            return 0;
        }
        let hash = sha256(&format!("hitless ports 1\n{networks:?}"));
        let first = hash.first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(first).max(1)
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    for (octet, hashed) in hash.iter_mut().zip(digest.as_ref()) {
        *octet = *hashed;
    }
    hash
}

fn read(table: &DeTable<'_>, problems: &Problems, base: &Path, as_of: AsOf) -> Option<Config> {
    let root = Section::root(table, problems);
    let cluster = cluster::read(&root, base);
    let dataplane = dataplane::read(&root);
    let votes_only = cluster.as_ref().is_some_and(ClusterConfig::votes_only);
    let ports = match votes_only && !root.has("ports") {
        true => Some(Vec::new()),
        false => ports::read(
            &root,
            cluster.as_ref().map(|c| c.name.as_str()),
            dataplane.as_ref().map(|d| d.workers),
        ),
    };
    let before = problems.count();
    let secrets = secrets::read(&root, base);
    let pools = pools::read(&root);
    let context = connections::Context {
        pools: &pools,
        workers: dataplane.as_ref().map_or(1, |d| d.workers),
        ports: ports.as_deref(),
        keys: auth::Keys {
            secrets: (problems.count() == before).then_some(&secrets),
            base,
            as_of,
        },
    };
    let connections = match votes_only && !root.has("connections") {
        true => connections::Connections::default(),
        false => connections::read(&root, &context),
    };
    let ike = limits::read(&root);
    let control = dataplane::read_control(&root);
    root.finish(&[]);
    let cluster = cluster?;
    let mut secrets_needed = connections.list.iter().filter(|c| c.session.needs_secret());
    if let (None, Some(connection)) = (cluster.secret(), secrets_needed.next()) {
        problems.warn(format!(
            "connections.{}: crash_detection and resumption give nothing without a secret: add \
             cluster.secret_file",
            connection.name
        ));
    }
    let mut config = Config {
        has_inline_secrets: secrets.inline,
        cluster,
        ports: ports?,
        dataplane: dataplane?,
        connections: connections.list,
        pools,
        on_demand: connections.on_demand,
        secrets: secrets.list,
        ike: ike?,
        control: control?,
        warnings: Vec::new(),
        path: None,
    };
    let workers = u16::try_from(config.dataplane.workers.max(1)).unwrap_or(u16::MAX);
    let connections = config.connections.iter_mut();
    for child in connections.flat_map(|connection| &mut connection.children) {
        child.per_cpu_sas = child.per_cpu_sas.min(workers);
    }
    if config.cluster.votes_only() {
        // Whatever its file says of them: it carries nothing.
        config.dataplane.workers = 0;
        config.ports.clear();
        config.connections.clear();
        config.secrets.clear();
    }
    Some(config)
}
