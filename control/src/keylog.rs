//! Keys for Wireshark: lines of its table of ESP SAs, the file `esp_sa` of a profile, and of its
//! table of IKE SAs, `ikev2_decryption_table`. Only when `control.key_log` asks for it: whoever
//! reads the lines reads the traffic (invariant S6).
//!
//! Wireshark takes one line for an IKE SA. With additional key exchanges (RFC 9370) its keys change,
//! so there is a table for each of them; `ikev2_decryption_table` has the keys of IKE_AUTH and of all
//! after it, `ikev2_decryption_table.intermediate-1` those of the first IKE_INTERMEDIATE exchange, and
//! so on. To read such an exchange, copy its table over that of a profile of its own. What is written
//! is written once the peer is authenticated, and again by who takes over, whose predecessor's files may
//! be lost. Wireshark 4.0 knows no ChaCha20-Poly1305 for IKE; such an IKE SA has no line.
//!
//! Wireshark 4.0 has eight fields and knows no extended sequence numbers; later ones have two more
//! for them, which 4.0 ignores with a warning. 4.0 does not know ChaCha20-Poly1305 and implicit IVs
//! either, and refuses their lines. No version knows AES-GMAC: its packets are shown as NULL with an
//! ICV that is not checked, and their IV stands in front of the payload.

use std::fmt::{self, Write};
use std::net::IpAddr;

use hitless_sa::{ChildSa, EspSuite, IkeSpi, KeyMaterial, Spi, Transform};
use zeroize::Zeroizing;

use crate::ike::keys::{IkeKeys, Side};
use crate::ike::proposal::{Encryption, IkeProposal, Integrity};

/// Which of Wireshark's tables a line is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyTable {
    /// `esp_sa`.
    Esp,
    /// `ikev2_decryption_table`.
    Ike,
    /// The same for the IKE_INTERMEDIATE exchange of this Message ID, from 1 on.
    Intermediate(u8),
}

/// The name of the table of IKE SAs in a profile.
const IKE_TABLE: &str = "ikev2_decryption_table";

impl KeyTable {
    /// The name of its file in a profile.
    pub fn file(self) -> String {
        match self {
            KeyTable::Esp => "esp_sa".to_owned(),
            KeyTable::Ike => IKE_TABLE.to_owned(),
            KeyTable::Intermediate(exchange) => format!("{IKE_TABLE}.intermediate-{exchange}"),
        }
    }
}

/// Lines of one table, each with its line end. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyLines {
    table: KeyTable,
    text: Zeroizing<String>,
}

impl KeyLines {
    /// The line of an IKE SA, by its initiator's and its responder's SPI; nothing for a cipher that
    /// Wireshark does not know.
    pub fn of_ike(initiator: IkeSpi, responder: IkeSpi, keys: &IkeKeys) -> KeyLines {
        let mut text = Zeroizing::new(String::new());
        if let Some((encryption, integrity)) = ike_algorithms(keys.proposal()) {
            // Room for all of it at once.
            text.reserve(1024);
            let _ = write!(text, "{:016x},{:016x},", initiator.0, responder.0);
            let sides = [Side::Initiator, Side::Responder];
            for side in sides {
                hexadecimal(&mut text, keys.sk_e(side));
                text.push(',');
            }
            let _ = write!(text, "\"{encryption}\",");
            for side in sides {
                hexadecimal(&mut text, keys.sk_a(side));
                text.push(',');
            }
            let _ = writeln!(text, "\"{integrity}\"");
        }
        KeyLines {
            table: KeyTable::Ike,
            text,
        }
    }

    /// The same of keys that protected nothing but the IKE_INTERMEDIATE exchange of this Message ID.
    pub fn of_intermediate(self, exchange: u8) -> KeyLines {
        KeyLines {
            table: KeyTable::Intermediate(exchange),
            ..self
        }
    }

    /// The table that the lines belong to.
    pub fn table(&self) -> KeyTable {
        self.table
    }

    /// The lines of a Child SA, one for each direction.
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
        KeyLines {
            table: KeyTable::Esp,
            text: lines,
        }
    }

    /// For the file.
    pub fn expose(&self) -> &str {
        &self.text
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
    // An SA was installed with these keys, so they have the suite's length.
    let Some(parts) = key.parts(child.suite) else {
        return;
    };
    // Room for all of it at once: a string that grows leaves copies of its content behind.
    out.reserve(256 + 2 * key.expose().len());
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "\"{family}\",\"{source}\",\"{destination}\",\"0x{spi}\",\"{encryption}\",\"0x"
    );
    // Encryption has the salt behind its key, as in KEYMAT (RFC 4106 section 8.1).
    hexadecimal(out, parts.key);
    hexadecimal(out, parts.salt);
    let _ = write!(out, "\",\"{authentication}\",\"0x");
    hexadecimal(out, parts.integrity);
    let _ = writeln!(out, "\"{numbers}");
}

fn hexadecimal(out: &mut String, octets: &[u8]) {
    for octet in octets {
        // Writing to a string does not fail.
        let _ = write!(out, "{octet:02x}");
    }
}

/// Wireshark's names of an IKE SA's encryption and integrity.
fn ike_algorithms(proposal: &IkeProposal) -> Option<(&'static str, &'static str)> {
    let encryption = match proposal.encryption {
        Encryption::Aes128Gcm16 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        Encryption::Aes192Gcm16 => "AES-GCM-192 with 16 octet ICV [RFC5282]",
        Encryption::Aes256Gcm16 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        Encryption::Aes128Cbc => "AES-CBC-128 [RFC3602]",
        Encryption::Aes192Cbc => "AES-CBC-192 [RFC3602]",
        Encryption::Aes256Cbc => "AES-CBC-256 [RFC3602]",
        Encryption::ChaCha20Poly1305 => return None,
    };
    let integrity = match proposal.integrity {
        None => "NONE [RFC4306]",
        Some(Integrity::HmacSha256_128) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(Integrity::HmacSha384_192) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(Integrity::HmacSha512_256) => "HMAC_SHA2_512_256 [RFC4868]",
    };
    Some((encryption, integrity))
}

/// Wireshark's names of encryption and authentication.
fn algorithms(suite: EspSuite) -> (&'static str, &'static str) {
    const CBC: &str = "AES-CBC [RFC3602]";
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
        Transform::AesCbcHmacSha256 => (CBC, "HMAC-SHA-256-128 [RFC4868]"),
        Transform::AesCbcHmacSha384 => (CBC, "HMAC-SHA-384-192 [RFC4868]"),
        Transform::AesCbcHmacSha512 => (CBC, "HMAC-SHA-512-256 [RFC4868]"),
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

    /// The form that tshark 4.0 reads: SPIs, SK_ei, SK_er, encryption, SK_ai, SK_ar, integrity.
    #[test]
    fn an_ike_sa_has_one_line_with_wireshark_s_names() {
        let line = |proposal: &str| {
            let proposal: IkeProposal = proposal.parse().unwrap();
            let inputs = crate::ike::keys::Inputs {
                initiator_nonce: &[1; 32],
                responder_nonce: &[2; 32],
                initiator_spi: IkeSpi(0xa),
                responder_spi: IkeSpi(0xb),
            };
            let keys = IkeKeys::derive(&proposal, &inputs, &[3; 32]);
            let lines = KeyLines::of_ike(IkeSpi(0xa), IkeSpi(0xb), &keys);
            assert_eq!(lines.table(), KeyTable::Ike);
            lines.expose().to_owned()
        };
        let lengths = |line: &str| {
            let words = line.trim_end().split(',').map(str::len);
            words.collect::<Vec<_>>()
        };
        let gcm = line("aes128gcm16-prfsha256-x25519");
        assert!(gcm.starts_with("000000000000000a,000000000000000b,"));
        assert!(
            gcm.ends_with(",\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"\n")
        );
        assert_eq!(lengths(&gcm), [16, 16, 40, 40, 41, 0, 0, 16]);
        let cbc = line("aes256-sha384-x25519");
        assert!(cbc.contains(",\"AES-CBC-256 [RFC3602]\","));
        assert_eq!(lengths(&cbc), [16, 16, 64, 64, 23, 96, 96, 29]);
        assert_eq!(line("chacha20poly1305-prfsha256-x25519"), "");
    }

    #[test]
    fn keys_are_not_printed() {
        let lines = KeyLines::new(&child(EspSuite::Aes256Gcm16, true));
        assert_eq!(format!("{lines:?}"), "KeyLines([redacted])");
    }
}
