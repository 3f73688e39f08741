//! Which instructions this CPU offers, found out at run time: the build needs no flag.

use std::fmt;
use std::str::FromStr;

/// A set of instructions that the kernels are written for, the better the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// No kernel for this CPU: use another AES-GCM.
    None,
    /// AES-NI and PCLMULQDQ, one block an instruction.
    AesNi,
    /// VAES and VPCLMULQDQ on 256 bits, two blocks an instruction.
    Avx2,
    /// VAES and VPCLMULQDQ on 512 bits, four blocks an instruction.
    Avx512,
}

impl Tier {
    /// Every tier that has a kernel, the best first.
    pub const KERNELS: [Tier; 3] = [Tier::Avx512, Tier::Avx2, Tier::AesNi];

    /// The name in `status` and in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::None => "none",
            Tier::AesNi => "aes-ni",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
        }
    }

    /// Whether this CPU, and its operating system, can run the tier.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        // Each is the list in the `target_feature` attributes of the tier's functions.
        let aes_ni = || {
            is_x86_feature_detected!("aes")
                && is_x86_feature_detected!("pclmulqdq")
                && is_x86_feature_detected!("sse4.1")
                && is_x86_feature_detected!("ssse3")
        };
        let avx2 = || {
            aes_ni()
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("vaes")
                && is_x86_feature_detected!("vpclmulqdq")
        };
        match self {
            Tier::None => true,
            Tier::AesNi => aes_ni(),
            Tier::Avx2 => avx2(),
            Tier::Avx512 => {
                avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("popcnt")
            }
        }
    }

    /// Whether this CPU can run the tier: only x86-64 has kernels.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Tier::None
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(name: &str) -> Result<Tier, UnknownTier> {
        [Tier::None, Tier::AesNi, Tier::Avx2, Tier::Avx512]
            .into_iter()
            .find(|tier| tier.name() == name)
            .ok_or_else(|| UnknownTier(name.to_owned()))
    }
}

/// No tier has this name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownTier(String);

impl fmt::Display for UnknownTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no tier `{}`; use avx512, avx2, aes-ni or none", self.0)
    }
}

impl std::error::Error for UnknownTier {}

/// The best tier of this CPU.
pub fn tier() -> Tier {
    Tier::KERNELS
        .into_iter()
        .find(|tier| tier.is_available())
        .unwrap_or(Tier::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_tier_is_available_and_no_better_one_is() {
        assert!(tier().is_available());
        for better in Tier::KERNELS.into_iter().filter(|kernel| *kernel > tier()) {
            assert!(!better.is_available());
        }
    }

    #[test]
    fn tiers_are_found_by_name() {
        for tier in [Tier::None, Tier::AesNi, Tier::Avx2, Tier::Avx512] {
            assert_eq!(tier.name().parse(), Ok(tier));
            assert_eq!(tier.to_string(), tier.name());
        }
        assert_eq!("sse2".parse::<Tier>(), Err(UnknownTier("sse2".to_owned())));
    }
}
