//! ESP keys for Wireshark: lines of its table of SAs, the file `esp_sa` of a profile. Only when
//! `control.key_log` asks for it: whoever reads the lines reads the traffic (invariant S6).
//!
//! Wireshark 4.0 has eight fields and knows no extended sequence numbers; later ones have two more
//! for them, which 4.0 ignores with a warning. 4.0 does not know ChaCha20-Poly1305 and implicit IVs
//! either, and refuses their lines. No version knows AES-GMAC: its packets are shown as NULL with an
//! ICV that is not checked, and their IV stands in front of the payload.

use std::fmt::{self, Write};
use std::net::IpAddr;

use hitless_sa::{ChildSa, EspSuite, KeyMaterial, Spi, Transform};
use zeroize::Zeroizing;

/// Both directions of one SA, each a line with its line end. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyLines(Zeroizing<String>);

impl KeyLines {
    /// The lines of a Child SA.
    pub fn new(child: &ChildSa) -> KeyLines {
        let mut lines = Zeroizing::new(String::new());
        let inbound = (
            child.remote,
            child.local,
            child.inbound_spi,
            &child.inbound_key,
        );
        let outbound = (
            child.local,
            child.remote,
            child.outbound_spi,
            &child.outbound_key,
        );
        for half in [inbound, outbound] {
            line(&mut lines, child, half);
        }
        KeyLines(lines)
    }

    /// For the file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLines([redacted])")
    }
}

fn line(
    out: &mut String,
    child: &ChildSa,
    (source, destination, spi, key): (IpAddr, IpAddr, Spi, &KeyMaterial),
) {
    let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    let (encryption, authentication) = algorithms(child.suite);
    let numbers = if child.esn { ",\"64-bit\",\"0\"" } else { "" };
    // An SA was installed with these keys, so they have the suite's length. Encryption has the salt
    // behind its key, as in KEYMAT (RFC 4106 section 8.1).
    let octets = key.expose();
    let cipher = child.suite.key_length() + child.suite.salt_length();
    let (cipher, integrity) = octets.split_at_checked(cipher).unwrap_or((octets, &[]));
    // Room for all of it at once: a string that grows leaves copies of its content behind.
    out.reserve(256 + 2 * octets.len());
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "\"{family}\",\"{source}\",\"{destination}\",\"0x{spi}\",\"{encryption}\",\"0x"
    );
    hexadecimal(out, cipher);
    let _ = write!(out, "\",\"{authentication}\",\"0x");
    hexadecimal(out, integrity);
    let _ = writeln!(out, "\"{numbers}");
}

fn hexadecimal(out: &mut String, octets: &[u8]) {
    for octet in octets {
        // Writing to a string does not fail.
        let _ = write!(out, "{octet:02x}");
    }
}

/// Wireshark's names of encryption and authentication.
fn algorithms(suite: EspSuite) -> (&'static str, &'static str) {
    const UNCHECKED: &str = "ANY 128 bit authentication [no checking]";
    match suite.transform() {
        Transform::AesGcm16 => ("AES-GCM with 16 octet ICV [RFC4106]", "NULL"),
        Transform::AesGcm16ImplicitIv => (
            "AES-GCM with IIV and 16 octet ICV [RFC4106 & RFC8750]",
            "NULL",
        ),
        Transform::ChaCha20Poly1305 => ("ChaCha20 with Poly1305 [RFC7634]", "NULL"),
        Transform::ChaCha20Poly1305ImplicitIv => {
            ("ChaCha20 with Poly1305 and IIV [RFC7634 & RFC8750]", "NULL")
        }
        Transform::AesGmac => ("NULL", UNCHECKED),
        Transform::AesCbcHmacSha256 => ("AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hitless_sa::{Incarnation, MemberId, Mode, SaId};

    pub fn child(suite: EspSuite, esn: bool) -> ChildSa {
        let length = suite.key_material_length() as u8;
        let key = |first: u8| KeyMaterial::new(&(first..first + length).collect::<Vec<_>>());
        ChildSa {
            id: SaId {
                creator: MemberId(1),
                incarnation: Incarnation(1),
                counter: 1,
            },
            mode: Mode::Tunnel,
            inbound_spi: Spi(0xc1),
            outbound_spi: Spi(0xdead_beef),
            suite,
            esn,
            inbound_key: key(0),
            outbound_key: key(0x80),
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            encapsulation: None,
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            replay_window: 64,
            options: hitless_sa::SaOptions::default(),
        }
    }

    #[test]
    fn aes_gcm_has_its_salt_behind_the_key_rfc_4106() {
        let lines = KeyLines::new(&child(EspSuite::Aes128Gcm16, false));
        let wanted = "\
            \"IPv4\",\"192.0.2.2\",\"192.0.2.1\",\"0x000000c1\",\"AES-GCM with 16 octet ICV [RFC4106]\",\
            \"0x000102030405060708090a0b0c0d0e0f10111213\",\"NULL\",\"0x\"\n\
            \"IPv4\",\"192.0.2.1\",\"192.0.2.2\",\"0xdeadbeef\",\"AES-GCM with 16 octet ICV [RFC4106]\",\
            \"0x808182838485868788898a8b8c8d8e8f90919293\",\"NULL\",\"0x\"\n";
        assert_eq!(lines.expose(), wanted);
    }

    #[test]
    fn aes_cbc_has_an_integrity_key_of_its_own_rfc_4868() {
        let lines = KeyLines::new(&child(EspSuite::Aes128CbcHmacSha256, false));
        let wanted = "\"AES-CBC [RFC3602]\",\"0x000102030405060708090a0b0c0d0e0f\",\
            \"HMAC-SHA-256-128 [RFC4868]\",\"0x101112131415161718191a1b1c1d1e1f";
        assert!(lines.expose().contains(wanted), "{}", lines.expose());
    }

    #[test]
    fn extended_numbers_are_told_of_rfc_4303_section_2_2_1() {
        let lines = KeyLines::new(&child(EspSuite::Aes256Gcm16, true));
        for line in lines.expose().lines() {
            assert!(
                line.ends_with(",\"NULL\",\"0x\",\"64-bit\",\"0\""),
                "{line}"
            );
        }
    }

    #[test]
    fn every_suite_has_wireshark_s_names_and_each_key_in_its_place() {
        for (suite, encryption, key, authentication, integrity) in [
            (
                EspSuite::Aes192Gcm16,
                "AES-GCM with 16 octet ICV [RFC4106]",
                28,
                "NULL",
                0,
            ),
            (
                EspSuite::Aes256Gcm16ImplicitIv,
                "AES-GCM with IIV and 16 octet ICV [RFC4106 & RFC8750]",
                36,
                "NULL",
                0,
            ),
            (
                EspSuite::ChaCha20Poly1305,
                "ChaCha20 with Poly1305 [RFC7634]",
                36,
                "NULL",
                0,
            ),
            (
                EspSuite::ChaCha20Poly1305ImplicitIv,
                "ChaCha20 with Poly1305 and IIV [RFC7634 & RFC8750]",
                36,
                "NULL",
                0,
            ),
            (
                EspSuite::Aes128Gmac,
                "NULL",
                20,
                "ANY 128 bit authentication [no checking]",
                0,
            ),
            (
                EspSuite::Aes256CbcHmacSha256,
                "AES-CBC [RFC3602]",
                32,
                "HMAC-SHA-256-128 [RFC4868]",
                32,
            ),
        ] {
            let lines = KeyLines::new(&child(suite, false));
            let first = lines.expose().lines().next().unwrap();
            let hex = |range: std::ops::Range<u8>| {
                range
                    .map(|octet| format!("{octet:02x}"))
                    .collect::<String>()
            };
            let wanted = format!(
                "\"IPv4\",\"192.0.2.2\",\"192.0.2.1\",\"0x000000c1\",\"{encryption}\",\"0x{}\",\
                 \"{authentication}\",\"0x{}\"",
                hex(0..key),
                hex(key..key + integrity)
            );
            assert_eq!(first, wanted);
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let lines = KeyLines::new(&child(EspSuite::Aes256Gcm16, true));
        assert_eq!(format!("{lines:?}"), "KeyLines([redacted])");
    }
}
