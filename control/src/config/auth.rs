//! `local` and `remote` of a connection: pre-shared keys, certificates, or users with EAP.

mod eap;
mod local;
mod remote;

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::document::{Located, Section};
use super::report::{Problems, Refusal, Span};
use super::secrets::Secrets;
use super::value;
use crate::ike::auth::{Certificate, Family};
use crate::ike::proposal::Identification;

pub(super) use super::document::Refused;
pub(super) use eap::{check, user};
pub(super) use local::local;
pub(super) use remote::{remote, warn_of_lists};

/// By which time of day certificates are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AsOf {
    /// Not by time at all.
    #[default]
    Never,
    /// What has expired is warned of: the other connections should come up.
    Warn(Duration),
    /// What has expired is an error.
    Refuse(Duration),
}

/// What `local` and `remote` are checked against.
pub(super) struct Keys<'k> {
    /// `None` where the secrets have errors of their own.
    pub secrets: Option<&'k Secrets>,
    /// Where relative paths start.
    pub base: &'k Path,
    pub as_of: AsOf,
}

/// One end of a connection.
pub(super) struct End<A> {
    pub id: Option<Located<Identification>>,
    pub auth: A,
}

/// swanctl's `auth`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Psk,
    Pubkey(Family),
    Eap,
}

impl Word {
    /// As it is written, in errors about what does not belong beside it.
    fn text(self) -> &'static str {
        match self {
            Word::Psk => "psk",
            Word::Pubkey(_) => "pubkey",
            Word::Eap => "eap-mschapv2",
        }
    }
}

fn word(value: &DeValue<'_>) -> Result<Word, Refusal> {
    let other_eap = |word: &str| word.starts_with("eap") && word != "eap-mschapv2";
    if value.as_str().is_some_and(other_eap) {
        return Err(Refusal::new(
            "of EAP only MSCHAPv2 is spoken",
            "use auth = \"eap-mschapv2\", or \"pubkey\" with a certificate for each client",
        ));
    }
    value::word(&[
        ("psk", Word::Psk),
        ("eap-mschapv2", Word::Eap),
        ("pubkey", Word::Pubkey(Family::Any)),
        ("rsa", Word::Pubkey(Family::RsaPkcs1)),
        ("rsa/pss", Word::Pubkey(Family::RsaPss)),
        ("ecdsa", Word::Pubkey(Family::Ecdsa)),
        ("ed25519", Word::Pubkey(Family::Ed25519)),
    ])(value)
}

fn id(section: &Section<'_>) -> Result<Option<Located<Identification>>, Refused> {
    section.given("id", value::parsed("moon.example.org"))
}

/// Whether a certificate is in time.
fn judge(problems: &Problems, span: &Span, certificate: &Certificate, as_of: AsOf) {
    let (AsOf::Warn(time) | AsOf::Refuse(time)) = as_of else {
        return;
    };
    if certificate.is_valid_at(time.as_secs()) {
        return;
    }
    let title = match time.as_secs() > certificate.not_after() {
        true => format!("{certificate:?} has expired"),
        false => format!("{certificate:?} is not valid yet"),
    };
    match as_of {
        AsOf::Refuse(_) => {
            let help = "have a new one issued, and see that the clock is right (`date`)";
            problems.refuse(span, Refusal::new(title, help));
        }
        _ => problems.warn(title),
    }
}
