//! ESP algorithm suites and the keys that they need.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Octets of salt that follow the key in the key material (RFC 4106 section 8.1).
pub const SALT_LENGTH: usize = 4;
/// Octets of explicit IV in each packet (RFC 4106 section 3.1).
pub const IV_LENGTH: usize = 8;
/// Octets of ICV (RFC 4106 section 6).
pub const ICV_LENGTH: usize = 16;

/// The combined-mode algorithms of an ESP SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspSuite {
    Aes128Gcm16,
    Aes256Gcm16,
}

impl EspSuite {
    /// Octets of the AES key, without the salt.
    pub const fn key_length(self) -> usize {
        match self {
            EspSuite::Aes128Gcm16 => 16,
            EspSuite::Aes256Gcm16 => 32,
        }
    }

    /// Octets of key material to derive: key, then salt.
    pub const fn key_material_length(self) -> usize {
        self.key_length() + SALT_LENGTH
    }

    /// The name in `list-sas`, as strongSwan prints it.
    pub const fn name(self) -> &'static str {
        match self {
            EspSuite::Aes128Gcm16 => "AES_GCM_16-128",
            EspSuite::Aes256Gcm16 => "AES_GCM_16-256",
        }
    }

    /// The word in `esp_proposals`.
    pub const fn keyword(self) -> &'static str {
        match self {
            EspSuite::Aes128Gcm16 => "aes128gcm16",
            EspSuite::Aes256Gcm16 => "aes256gcm16",
        }
    }
}

/// Key and salt of one direction of an SA. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial(Box<[u8]>);

impl KeyMaterial {
    /// Key, then salt, as the KEYMAT of RFC 7296 section 2.17 yields them.
    pub fn new(octets: &[u8]) -> KeyMaterial {
        KeyMaterial(octets.into())
    }

    /// All octets: for derivation, installation and replication only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({} octets, redacted)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_material_is_not_printed() {
        let printed = format!("{:?}", KeyMaterial::new(&[0xab; 20]));
        assert_eq!(printed, "KeyMaterial(20 octets, redacted)");
    }
}
