//! `[secrets.NAME]`: pre-shared keys and whose they are; and how a secret is read anywhere.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::document::{Located, Section};
use super::report::{Problems, Refusal};
use super::value;
use crate::ike::proposal::Identification;
use crate::ike::settings::Secret;

/// A file with a secret is a line, not a disk.
const LARGEST_FILE: u64 = 4096;

/// What became of a section's secret.
pub(super) enum Found {
    Secret(Located<Zeroizing<Vec<u8>>>),
    /// It is there, and wrong; that was reported.
    Refused,
    Absent,
}

/// What became of `[secrets]`.
#[derive(Default)]
pub(super) struct Secrets {
    pub list: Vec<Secret>,
    /// Whether any secret stands in the configuration itself.
    pub inline: bool,
}

pub(super) fn read(root: &Section<'_>, base: &Path) -> Secrets {
    let mut secrets = Secrets::default();
    if let Some(section) = root.section("secrets") {
        for (_, section) in section.named() {
            secrets.inline |= section.has("secret");
            secrets.list.extend(one(&section, base));
        }
    }
    secrets
}

fn one(section: &Section<'_>, base: &Path) -> Option<Secret> {
    let example = "moon.example.org";
    let mut ids: Vec<Identification> = Vec::new();
    ids.extend(
        section
            .optional("id", value::parsed(example))
            .map(|id| id.value),
    );
    ids.extend(
        section
            .list("ids", value::parsed(example))
            .unwrap_or_default()
            .into_iter()
            .map(|id| id.value),
    );
    let secret = secret_of(section, base);
    section.finish(&[]);
    match secret {
        Found::Secret(secret) => Some(Secret {
            // `%any` names nobody: the same as no identity at all.
            ids: if ids.contains(&Identification::Any) {
                Vec::new()
            } else {
                ids
            },
            secret: secret.value,
        }),
        Found::Refused => None,
        Found::Absent => {
            section.missing(
                "secret",
                "secret = \"0x...\", or secret_file = \"peer.psk\"",
            );
            None
        }
    }
}

/// Reads `secret` or `secret_file` of a section. A relative path starts at the configuration's
/// own directory, `base`.
pub(super) fn secret_of(section: &Section<'_>, base: &Path) -> Found {
    let problems: &Problems = section.problems();
    let inline = section.optional("secret", value::secret);
    let file = section.optional("secret_file", value::text);
    match (inline, file) {
        (Some(_), Some(file)) => {
            let refusal = Refusal::new(
                format!("{}: both `secret` and `secret_file`", section.path),
                "keep one of them; the file is the safer place",
            );
            problems.refuse(&file.span, refusal);
            Found::Refused
        }
        (Some(secret), None) => Found::Secret(secret),
        (None, Some(file)) => {
            let path: PathBuf = base.join(&file.value);
            match read_file(&path) {
                Ok(value) => Found::Secret(Located {
                    span: file.span,
                    value,
                }),
                Err(refusal) => {
                    let title = format!("{}: {}", section.name("secret_file"), refusal.title);
                    problems.refuse(&file.span, Refusal::new(title, refusal.help));
                    Found::Refused
                }
            }
        }
        (None, None) if section.has("secret") || section.has("secret_file") => Found::Refused,
        (None, None) => Found::Absent,
    }
}

/// Reads a secret from a file that nobody but its owner may touch.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let shown = value::quoted(&path.display().to_string());
    let failed = |e: std::io::Error| {
        Refusal::new(
            format!("cannot read {shown}: {e}"),
            "make it with `umask 077; openssl rand -hex 32 > FILE`, readable by the user that hitless runs as",
        )
    };
    // Non-blocking, so that a FIFO cannot hold the daemon up.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Refusal::new(
            format!("{shown} is not a file"),
            "name a regular file that holds the secret alone",
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Refusal::new(
            format!("others than its owner may touch {shown} (mode {mode:03o})"),
            format!("chmod 600 {}", path.display()),
        ));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(Refusal::new(
            format!("{shown} is larger than {LARGEST_FILE} octets"),
            "name a file that holds the secret alone",
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(LARGEST_FILE as usize));
    file.take(LARGEST_FILE)
        .read_to_string(&mut text)
        .map_err(failed)?;
    value::decode_secret(text.trim_end_matches(['\n', '\r']))
        .map_err(|refusal| Refusal::new(format!("{shown}: {}", refusal.title), refusal.help))
}
