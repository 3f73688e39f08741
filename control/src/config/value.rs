//! One value of the configuration: from TOML to what it means.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::Prefix;
use super::document::Parse;
use super::report::Refusal;
use super::suggest::nearest;

/// The user's own words in a message: escaped and of bounded length.
pub(super) fn quoted(text: &str) -> String {
    let escaped: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    let more = if text.chars().count() > 64 { ".." } else { "" };
    format!("`{escaped}{more}`")
}

/// A message that may hold the user's own words: without control characters.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A value's kind in a message.
pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text in quotes",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

fn wrong_kind(expected: &str, example: &str, value: &DeValue<'_>) -> Refusal {
    Refusal::new(
        format!("expected {expected}, found {}", found(value)),
        format!("write {example}"),
    )
}

/// Text that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Refusal> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Err(Refusal::new("empty", "write something here")),
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong_kind("text", "it in double quotes", value)),
    }
}

/// A path that does not depend on where the daemon was started.
pub(super) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Refusal::new(
        format!(
            "{} does not start with /",
            quoted(&path.display().to_string())
        ),
        "write the whole path",
    ))
}

/// Text that becomes a pre-shared key; swanctl's prefixes `0x` (hex) and `0s` (base64) count.
pub(super) fn secret(value: &DeValue<'_>) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match value.as_str() {
        Some(text) => decode_secret(text),
        None => Err(wrong_kind("text", "the secret in double quotes", value)),
    }
}

/// A pre-shared key as swanctl writes it.
pub(super) fn decode_secret(text: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let octets = if let Some(hex) = text.strip_prefix("0x") {
        decode_hex(hex).ok_or_else(|| {
            Refusal::new(
                "not hexadecimal after 0x",
                "give an even number of digits 0-9 and a-f, or leave 0x out",
            )
        })?
    } else if let Some(base64) = text.strip_prefix("0s") {
        decode_base64(base64).ok_or_else(|| {
            Refusal::new(
                "not base64 after 0s",
                "give base64 as `openssl rand -base64 32` prints it, or leave 0s out",
            )
        })?
    } else {
        Zeroizing::new(text.as_bytes().to_vec())
    };
    if octets.is_empty() {
        return Err(Refusal::new(
            "the secret is empty",
            "make one with `openssl rand -hex 32` and write it as 0x...",
        ));
    }
    Ok(octets)
}

fn decode_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits: Zeroizing<Vec<u8>> = Zeroizing::new(
        text.chars()
            .map(|c| c.to_digit(16).map(|d| d as u8))
            .collect::<Option<_>>()?,
    );
    let (pairs, rest) = digits.as_chunks::<2>();
    let octets = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    rest.is_empty().then_some(Zeroizing::new(octets))
}

/// Base64 of RFC 4648 section 4, padding optional, bits left over zero.
fn decode_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = text.trim_end_matches('=');
    if text.len() - body.len() > 2 || body.len() % 4 == 1 {
        return None;
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(body.len()));
    let (mut held, mut bits) = (0u32, 0);
    for character in body.bytes() {
        let sextet = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(sextet);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            octets.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0).then_some(octets)
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Refusal> {
    value
        .as_bool()
        .ok_or_else(|| wrong_kind("true or false", "true or false, without quotes", value))
}

/// A whole number within a range.
pub(super) fn integer(least: u64, most: u64) -> impl Parse<u64> {
    move |value| {
        let DeValue::Integer(number) = value else {
            return Err(wrong_kind("a number", "it without quotes", value));
        };
        u64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .ok()
            .filter(|n| (least..=most).contains(n))
            .ok_or_else(|| {
                Refusal::new(
                    format!("{} is out of range", quoted(number.as_str())),
                    format!("it must lie between {least} and {most}"),
                )
            })
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(known: &'static [(&'static str, T)]) -> impl Parse<T> {
    move |value| {
        let words = || known.iter().map(|(word, _)| *word);
        let all = || {
            words()
                .map(|w| format!("\"{w}\""))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let Some(text) = value.as_str() else {
            return Err(wrong_kind(
                "a word in quotes",
                &format!("one of {}", all()),
                value,
            ));
        };
        match known.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(Refusal::new(
                format!("{} is not known", quoted(text)),
                match nearest(text, words()) {
                    Some(near) => format!("did you mean \"{near}\"? Known are {}", all()),
                    None => format!("write one of {}", all()),
                },
            )),
        }
    }
}

/// Text that a type of ours reads itself; `example` shows how it is written.
pub(super) fn parsed<T>(example: &'static str) -> impl Parse<T>
where
    T: FromStr<Err: Display>,
{
    move |value| {
        let text = value
            .as_str()
            .ok_or_else(|| wrong_kind("text in quotes", &format!("\"{example}\""), value))?;
        text.trim().parse().map_err(|e: T::Err| {
            let why = plain(&e.to_string());
            let title = if why.contains(&quoted(text)) {
                why
            } else {
                format!("{}: {why}", quoted(text))
            };
            Refusal::new(title, format!("write it like \"{example}\""))
        })
    }
}

/// A span of time: a number and one of the units ms, s, m, h, d; or 0.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Refusal> {
    const HELP: &str = "write a number and its unit: \"10ms\", \"30s\", \"5m\", \"4h\" or \"1d\"";
    if let DeValue::Integer(number) = value {
        return match number.as_str() {
            "0" => Ok(Duration::ZERO),
            other => Err(Refusal::new(format!("`{other}` has no unit"), HELP)),
        };
    }
    let text = value.as_str().ok_or_else(|| {
        Refusal::new(format!("expected a duration, found {}", found(value)), HELP)
    })?;
    parse_duration(text)
        .ok_or_else(|| Refusal::new(format!("{} is not a duration", quoted(text)), HELP))
}

/// `10ms`, `30s`, `5m`, `4h`, `1d` or `0`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (unit, scale) = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ]
    .into_iter()
    .find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    if number.is_empty() || !number.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    // A hundred years: far beyond use, far below overflow.
    let milliseconds = number
        .checked_mul(scale)
        .filter(|ms| *ms < 3_155_760_000_000)?;
    Some(Duration::from_millis(milliseconds))
}

/// A duration that must lie within bounds.
pub(super) fn duration_within(least: Duration, most: Duration) -> impl Parse<Duration> {
    move |value| {
        let duration = duration(value)?;
        if (least..=most).contains(&duration) {
            return Ok(duration);
        }
        Err(Refusal::new(
            format!("{duration:?} is out of range"),
            format!("it must lie between {least:?} and {most:?}"),
        ))
    }
}

/// The address of one station; never an IPv4 address in IPv6's clothes (RFC 4291 section 2.5.5),
/// which no packet carries.
fn station(address: IpAddr) -> Result<IpAddr, Refusal> {
    if let IpAddr::V6(six) = address
        && let Some(four) = six.to_ipv4_mapped()
    {
        return Err(Refusal::new(
            format!("`{address}` is an IPv4 address written as IPv6"),
            format!("write {four}"),
        ));
    }
    if address.is_multicast() {
        return Err(Refusal::new(
            format!("`{address}` is the address of a group"),
            "give the address of one station",
        ));
    }
    Ok(address)
}

/// An address of either family.
pub(super) fn address(value: &DeValue<'_>) -> Result<IpAddr, Refusal> {
    station(parsed("203.0.113.1")(value)?)
}

/// The family of an address, in a message.
pub(super) fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// An address and a UDP port.
pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, Refusal> {
    let address: SocketAddr = parsed("10.0.0.2:4510")(value)?;
    if address.port() == 0 {
        return Err(Refusal::new(
            "port 0 names no port",
            "write one such as 4510",
        ));
    }
    Ok(address)
}

/// `203.0.113.1/24`: an address within its network.
pub(super) fn prefix(value: &DeValue<'_>) -> Result<Prefix, Refusal> {
    let text = value
        .as_str()
        .ok_or_else(|| wrong_kind("an address and its prefix", "\"203.0.113.1/24\"", value))?;
    let prefix = parse_prefix(text)?;
    station(prefix.address)?;
    Ok(prefix)
}

/// `203.0.113.1/24`.
pub(super) fn parse_prefix(text: &str) -> Result<Prefix, Refusal> {
    let refuse = |why: &str| {
        Refusal::new(
            format!("{} {why}", quoted(text)),
            "write address/length, such as \"203.0.113.1/24\"",
        )
    };
    let (address, length) = text
        .trim()
        .split_once('/')
        .ok_or_else(|| refuse("has no prefix length"))?;
    let address: IpAddr = address
        .parse()
        .map_err(|_| refuse("has no IP address before the slash"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length
        .parse()
        .ok()
        .filter(|length| *length <= most)
        .ok_or_else(|| refuse(&format!("has no length from 0 to {most} after the slash")))?;
    Ok(Prefix { address, length })
}

/// `02:00:5e:00:00:01`: a unicast Ethernet address.
pub(super) fn mac(value: &DeValue<'_>) -> Result<[u8; 6], Refusal> {
    let text = value
        .as_str()
        .ok_or_else(|| wrong_kind("an Ethernet address", "\"02:00:5e:00:00:01\"", value))?;
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    let complete = mac.iter_mut().all(|octet| {
        parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))
            .and_then(|part| u8::from_str_radix(part, 16).ok())
            .map(|read| *octet = read)
            .is_some()
    });
    if !complete || parts.next().is_some() {
        return Err(Refusal::new(
            format!("{} is not an Ethernet address", quoted(text)),
            "write six pairs of digits, such as \"02:00:5e:00:00:01\"",
        ));
    }
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(Refusal::new(
            format!("{} is not the address of one station", quoted(text)),
            "the first pair must be even; 02 is right for an address that you make up",
        ));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("10ms"), Some(Duration::from_millis(10)));
        assert_eq!(parse_duration("4h"), Some(Duration::from_secs(14_400)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "+1s",
            "1.5s",
            "1 y",
            "99999999999999999999s",
            "9999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_may_be_text_hex_or_base64() {
        assert_eq!(*decode_secret("0x6869").unwrap(), b"hi");
        assert_eq!(*decode_secret("0saGk=").unwrap(), b"hi");
        assert_eq!(*decode_secret("0saGk").unwrap(), b"hi");
        assert_eq!(*decode_secret("0saGkh").unwrap(), b"hi!");
        assert_eq!(*decode_secret("hi").unwrap(), b"hi");
        for text in [
            "", "0x", "0x123", "0xzz", "0s", "0sa", "0saGk===", "0saG k", "0saGl=",
        ] {
            let refusal = decode_secret(text).unwrap_err();
            if text.len() > 4 {
                assert!(!format!("{refusal:?}").contains(&text[2..]), "{refusal:?}");
            }
        }
    }

    #[test]
    fn an_ethernet_address_names_one_station() {
        let read = |text: &str| mac(&DeValue::String(text.to_owned().into()));
        assert_eq!(read("02:00:5e:00:00:0f"), Ok([2, 0, 0x5e, 0, 0, 15]));
        for text in [
            "",
            "02:00:5e:00:00",
            "02:00:5e:00:00:01:02",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:00:5e:00:00:01",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_user_wrote_is_quoted_without_control_characters() {
        assert_eq!(quoted("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
        assert!(quoted(&"x".repeat(1000)).len() < 80);
    }
}
