//! The implementations to choose from, by name.

use std::fmt;
use std::str::FromStr;

/// Which implementation computes the combined modes: AES-GCM, ChaCha20-Poly1305 and AES-GMAC. AES-CBC
/// with HMAC has one implementation, which every engine uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    #[default]
    AwsLc,
    AesGcm,
}

impl Engine {
    /// All of them.
    pub const ALL: &'static [Engine] = &[Engine::AwsLc, Engine::AesGcm];

    /// The environment variable that forces an engine.
    pub const VARIABLE: &'static str = "HITLESS_AEAD";

    /// The engine that `HITLESS_AEAD` names, or the default one if it is not set.
    pub fn from_environment() -> Result<Engine, UnknownEngine> {
        match std::env::var(Engine::VARIABLE) {
            Ok(name) => name.parse(),
            Err(std::env::VarError::NotPresent) => Ok(Engine::default()),
            Err(std::env::VarError::NotUnicode(name)) => {
                Err(UnknownEngine(name.to_string_lossy().into_owned()))
            }
        }
    }

    /// Whether this machine can run it.
    pub fn available(self) -> bool {
        match self {
            Engine::AwsLc | Engine::AesGcm => true,
        }
    }

    /// The name in `status` and in `HITLESS_AEAD`.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::AwsLc => "aws-lc",
            Engine::AesGcm => "aes-gcm",
        }
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Engine, UnknownEngine> {
        Engine::ALL
            .iter()
            .copied()
            .find(|engine| engine.name() == name)
            .ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// No engine has this name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownEngine(String);

impl fmt::Display for UnknownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no AEAD engine `{}`; use aws-lc or aes-gcm", self.0)
    }
}

impl std::error::Error for UnknownEngine {}
