//! `[secrets.NAME]`: pre-shared keys and whose they are, private keys (`file`), and postquantum
//! pre-shared keys and passwords of users (names that start with `ppk` and `eap`, as in swanctl); and
//! how a secret is read anywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::document::{Located, Section};
use super::report::{Problems, Refusal};
use super::{credentials, value};
use crate::ike::auth::{Ppk, PrivateKey};
use crate::ike::proposal::Identification;
use crate::ike::settings::Secret;

/// A file with a secret is a line, not a disk.
const LARGEST_FILE: u64 = 4096;
/// Characters of a user's password.
const LONGEST_PASSWORD: usize = 256;

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
    pub keys: Vec<Arc<PrivateKey>>,
    pub ppks: Vec<Ppk>,
    /// Whether any secret stands in the configuration itself.
    pub inline: bool,
}

pub(super) fn read(root: &Section<'_>, base: &Path) -> Secrets {
    let mut secrets = Secrets::default();
    if let Some(section) = root.section("secrets") {
        for (name, section) in section.named() {
            secrets.inline |= section.has("secret");
            if section.has("file") {
                secrets
                    .keys
                    .extend(private_key(&section, base).map(Arc::new));
            } else if name.starts_with("ppk") {
                secrets.ppks.extend(ppks(&section, base));
            } else if name.starts_with("eap") {
                secrets.list.extend(account(&section, base));
            } else {
                secrets.list.extend(one(&section, base));
            }
        }
    }
    secrets
}

/// `file = "gw.key"`: the certificate that it belongs to is found by its public half.
fn private_key(section: &Section<'_>, base: &Path) -> Option<PrivateKey> {
    let file = section.optional("file", value::text);
    section.finish(&[(
        "secret",
        "keys with a passphrase are not read: `openssl pkey -in OLD -out NEW` decrypts one",
    )]);
    let file = file?;
    match credentials::private_key(&base.join(&file.value)) {
        Ok(key) => Some(key),
        Err(refusal) => {
            let title = format!("{}: {}", section.name("file"), refusal.title);
            let problems = section.problems();
            problems.refuse(&file.span, Refusal::new(title, refusal.help));
            None
        }
    }
}

/// A postquantum pre-shared key for each of its identities (RFC 8784).
fn ppks(section: &Section<'_>, base: &Path) -> Vec<Ppk> {
    let secret = one(section, base);
    let Some(secret) = secret else {
        return Vec::new();
    };
    if secret.ids.is_empty() {
        section.missing(
            "id",
            "id = \"ppk.example.org\": both ends call the key by it",
        );
    }
    let named = secret.ids.into_iter().map(|id| Ppk {
        id,
        key: secret.secret.clone(),
    });
    named.collect()
}

/// A user's password (RFC 2759 section 4: up to 256 characters).
fn account(section: &Section<'_>, base: &Path) -> Option<Secret> {
    let before = section.problems().count();
    let mut ids = section.list("ids", super::auth::user).unwrap_or_default();
    ids.extend(section.optional("id", super::auth::user));
    let secret = secret_of(section, base);
    section.finish(&[]);
    if ids.is_empty() && section.problems().count() == before {
        section.missing("id", "id = \"alice\": the name that the user logs in with");
    }
    let secret = match secret {
        Found::Secret(secret) => secret,
        Found::Refused => return None,
        Found::Absent => {
            section.missing(
                "secret",
                "secret = \"...\", or secret_file = \"alice.password\"",
            );
            return None;
        }
    };
    let text = std::str::from_utf8(&secret.value);
    if !text.is_ok_and(|text| text.encode_utf16().count() <= LONGEST_PASSWORD) {
        let title = format!("{}: no password that can be typed", section.path);
        let help = "write text, of at most 256 characters";
        section
            .problems()
            .refuse(&secret.span, Refusal::new(title, help));
        return None;
    }
    Some(Secret {
        ids: ids.into_iter().map(|id| id.value).collect(),
        secret: secret.value,
    })
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
    let inline = section.given("secret", value::secret);
    let file = section.given("secret_file", value::text);
    let (Ok(inline), Ok(file)) = (inline, file) else {
        return Found::Refused;
    };
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
        (None, None) => Found::Absent,
    }
}

/// Reads a secret from a file that nobody but its owner may touch.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let shown = value::quoted(&path.display().to_string());
    let how = "make it with `umask 077; openssl rand -hex 32 > FILE`, readable by the user that hitless runs as";
    let octets = credentials::read_owned(path, LARGEST_FILE, how)?;
    let text = std::str::from_utf8(&octets).map_err(|_| {
        Refusal::new(
            format!("{shown} is not text in UTF-8"),
            "write the secret as text, 0x and hex, or 0s and base64",
        )
    })?;
    value::decode_secret(text.trim_end_matches(['\n', '\r']))
        .map_err(|refusal| Refusal::new(format!("{shown}: {}", refusal.title), refusal.help))
}
