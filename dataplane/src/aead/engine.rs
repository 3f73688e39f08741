//! The implementations to choose from, by name.

use std::fmt;
use std::str::FromStr;

use hitless_gcm::Tier;

/// Which implementation computes the combined modes: AES-GCM, ChaCha20-Poly1305 and AES-GMAC. AES-CBC
/// with HMAC has one implementation, which every engine uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// hitless-gcm: bursts of AES-GCM with an explicit IV, by the kernels of one tier. The rest is
    /// `AwsLc`'s. The fastest, where the CPU has a tier.
    Burst(Tier),
    /// aws-lc-rs: assembler, one packet at a time.
    AwsLc,
    /// RustCrypto: portable, and the oracle of the others.
    AesGcm,
}

impl Engine {
    /// The environment variable that forces an engine.
    pub const VARIABLE: &'static str = "HITLESS_AEAD";

    /// Every engine that there is, on this CPU or another.
    pub fn all() -> impl Iterator<Item = Engine> {
        let tiers = Tier::KERNELS.into_iter().map(Engine::Burst);
        tiers.chain([Engine::AwsLc, Engine::AesGcm])
    }

    /// `Burst` with the best tier of this CPU, which may be none.
    pub fn burst() -> Engine {
        Engine::Burst(hitless_gcm::tier())
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        match self {
            Engine::Burst(tier) => tier != Tier::None && tier.is_available(),
            Engine::AwsLc | Engine::AesGcm => true,
        }
    }

    /// The engine that `HITLESS_AEAD` names, if it is set.
    pub fn from_environment() -> Result<Option<Engine>, EngineError> {
        let engine: Engine = match std::env::var(Engine::VARIABLE) {
            Ok(name) => name.parse()?,
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(name)) => {
                return Err(EngineError::Unknown(name.to_string_lossy().into_owned()));
            }
        };
        engine.checked().map(Some)
    }

    /// Itself, if this CPU can run it.
    pub fn checked(self) -> Result<Engine, EngineError> {
        match self.is_available() {
            true => Ok(self),
            false => Err(EngineError::Unavailable(self)),
        }
    }

    /// The name in `status` and in `HITLESS_AEAD`.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Burst(Tier::None) => "burst",
            Engine::Burst(Tier::AesNi) => "burst-aesni",
            Engine::Burst(Tier::Avx2) => "burst-avx2",
            Engine::Burst(Tier::Avx512) => "burst-avx512",
            Engine::AwsLc => "aws-lc",
            Engine::AesGcm => "aes-gcm",
        }
    }
}

/// The fastest that this CPU can run.
impl Default for Engine {
    fn default() -> Engine {
        Engine::burst().checked().unwrap_or(Engine::AwsLc)
    }
}

impl FromStr for Engine {
    type Err = EngineError;

    /// `burst` alone is the best tier of this CPU.
    fn from_str(name: &str) -> Result<Engine, EngineError> {
        if name == Engine::Burst(Tier::None).name() {
            return Ok(Engine::burst());
        }
        let tiers = [Tier::Avx512, Tier::Avx2, Tier::AesNi].map(Engine::Burst);
        tiers
            .into_iter()
            .chain([Engine::AwsLc, Engine::AesGcm])
            .find(|engine| engine.name() == name)
            .ok_or_else(|| EngineError::Unknown(name.to_owned()))
    }
}

/// Why there is no such engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EngineError {
    Unknown(String),
    /// Not on this CPU.
    Unavailable(Engine),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Unknown(name) => write!(
                f,
                "no AEAD engine `{name}`; use burst, burst-avx512, burst-avx2, burst-aesni, aws-lc \
                 or aes-gcm"
            ),
            EngineError::Unavailable(engine) => write!(
                f,
                "this CPU cannot run the AEAD engine `{}`; use aws-lc, or leave the choice out",
                engine.name()
            ),
        }
    }
}

impl std::error::Error for EngineError {}
