//! `[dataplane]` and `[control]`.

use std::path::PathBuf;
use std::time::Duration;

use hitless_dataplane::aead::{Engine, Tier};
use hitless_dataplane::worker::CheckpointSettings;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use super::document::Section;
use super::model::{Aead, ControlConfig, DEFAULT_SOCKET, DataplaneConfig, IdlePolicy};
use super::report::Refusal;
use super::value;

/// `sun_path` without its zero.
const LONGEST_SOCKET: usize = 107;

/// Packet buffers of a worker: rings of two ports, and what waits.
const DEFAULT_FRAMES: u32 = 16 * 1024;

/// Every key has a default, and so has the whole section.
pub(super) fn read(root: &Section<'_>) -> Option<DataplaneConfig> {
    let section = root.section_or_empty("dataplane")?;
    let workers = section.optional("workers", value::integer(1, 64));
    let cores = section.list("cores", value::integer(0, 1023));
    let aead = section.or(
        "aead",
        Aead::default(),
        value::word(&[
            ("auto", Aead::Auto),
            ("burst", Aead::Burst),
            ("burst-avx512", Aead::Only(Engine::Burst(Tier::Avx512))),
            ("burst-avx2", Aead::Only(Engine::Burst(Tier::Avx2))),
            ("burst-aesni", Aead::Only(Engine::Burst(Tier::AesNi))),
            ("aws-lc", Aead::Only(Engine::AwsLc)),
            ("aws-lc-rs", Aead::Only(Engine::AwsLc)),
            ("aes-gcm", Aead::Only(Engine::AesGcm)),
        ]),
    );
    let frames = section.or(
        "frames",
        u64::from(DEFAULT_FRAMES),
        value::integer(1024, 1 << 22),
    );
    let jumbo_packets = section.or("jumbo_packets", 0, value::integer(0, 1 << 20));
    let checkpoint = checkpoint(&section);
    let idle = section.or(
        "idle",
        IdlePolicy::default(),
        value::word(&[
            ("adaptive", IdlePolicy::Adaptive),
            ("spin", IdlePolicy::Spin),
        ]),
    );
    section.finish(&[]);

    let cores: Vec<usize> = cores
        .unwrap_or_default()
        .iter()
        .map(|core| core.value as usize)
        .collect();
    let count = match &workers {
        Some(workers) => workers.value as usize,
        None => cores.len().max(1),
    };
    let mut distinct = cores.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if !cores.is_empty() && (cores.len() != count || distinct.len() != count) {
        section.refuse(
            "cores",
            Refusal::new(
                format!(
                    "dataplane.cores: {} core(s) for {count} worker(s)",
                    distinct.len()
                ),
                "give each worker one core of its own, or leave `workers` out",
            ),
        );
        return None;
    }
    Some(DataplaneConfig {
        workers: count,
        cores,
        frames: frames as u32,
        jumbo_packets: jumbo_packets as u32,
        aead,
        checkpoint,
        idle,
    })
}

/// How often workers report counters: after so many packets or so much time, whichever is first
/// (RFC 6027 section 3.3 gives the magnitudes).
fn checkpoint(section: &Section<'_>) -> CheckpointSettings {
    let default = CheckpointSettings::default();
    let Some(section) = section.section("checkpoint") else {
        return default;
    };
    let most = u64::from(u32::MAX);
    let checkpoint = CheckpointSettings {
        packets: section.or("packets", default.packets.into(), value::integer(1, most)) as u32,
        interval: section.or(
            "interval",
            default.interval,
            value::duration_within(Duration::from_millis(1), Duration::from_secs(60)),
        ),
    };
    section.finish(&[]);
    checkpoint
}

pub(super) fn read_control(root: &Section<'_>) -> Option<ControlConfig> {
    let section = root.section_or_empty("control")?;
    let socket = section.or("socket", PathBuf::from(DEFAULT_SOCKET), socket);
    let log = section.or("log", "info".to_owned(), log);
    let key_log = section.optional("key_log", value::absolute_path);
    let grant_log = section.optional("grant_log", value::absolute_path);
    section.finish(&[]);
    let key_log = key_log.map(|path| path.value);
    if let Some(path) = &key_log {
        section.problems().warn(format!(
            "control.key_log: THE KEYS OF EVERY TUNNEL ARE WRITTEN TO {}; whoever reads that file \
             reads all traffic. Remove the key once you have seen what you need",
            path.display()
        ));
    }
    Some(ControlConfig {
        socket,
        log,
        key_log,
        grant_log: grant_log.map(|path| path.value),
    })
}

fn socket(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    let path = value::absolute_path(value)?;
    if path.as_os_str().len() > LONGEST_SOCKET {
        return Err(Refusal::new(
            format!("longer than {LONGEST_SOCKET} octets"),
            "the kernel takes no longer path for a socket",
        ));
    }
    Ok(path)
}

fn log(value: &DeValue<'_>) -> Result<String, Refusal> {
    let _: EnvFilter = value::parsed("info,hitless::ike=debug")(value)?;
    value::text(value)
}
