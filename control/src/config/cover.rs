//! Covers secrets in the source text before an error quotes it.
//!
//! Two ways, because a file that does not parse has no values to look at: by value where the text
//! parsed, by line where it did not. Both err on the side of covering too much. A cover has the
//! length of what it hides, so that positions stay true.

use std::collections::BTreeSet;

use toml::de::{DeTable, DeValue};

use super::EXAMPLE;
use super::report::Span;

const COVER: char = '*';

/// Covers the values of a parsed document that are, or may have been meant to be, secret; and
/// `more`, the values of keys that nobody knows.
pub(super) fn by_value(text: &str, document: &DeTable<'_>, more: Vec<Span>) -> String {
    let mut spans = more;
    for (key, value) in document {
        if looks_like_secrets(key.get_ref()) {
            collect_in_secrets(value.get_ref(), &value.span(), &mut spans, 0);
        } else {
            collect(key.get_ref(), value.get_ref(), &value.span(), &mut spans);
        }
    }
    cover(text, &spans)
}

/// Covers every line but those that are surely harmless: section headers, and known keys outside
/// of `[secrets]`. Of the others the part left of `=` stays.
pub(super) fn by_line(text: &str) -> String {
    let public = public_keys();
    let mut spans = Vec::new();
    let mut in_secrets = false;
    let mut in_multiline = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let header = is_header(line);
        if header {
            in_secrets = looks_secret(line);
            in_multiline = false;
        }
        let key = line.split('=').next().unwrap_or(line);
        let harmless =
            header || (!in_secrets && public.contains(key.trim()) && !looks_secret(line));
        if in_multiline {
            spans.push(start..end);
        } else if !harmless {
            let bare = key.len() < line.len() && key.chars().all(is_bare);
            spans.push(start + if bare { key.len() + 1 } else { 0 }..end);
        }
        in_multiline |= line.contains("\"\"\"") || line.contains("'''");
        start = end;
    }
    cover(text, &spans)
}

/// The keys whose values may be shown although the file does not parse: the documented example has
/// them. What is secret of those is covered by its name or its section.
fn public_keys() -> BTreeSet<&'static str> {
    let before = EXAMPLE.split('=').map(str::trim_end);
    let words = before.filter_map(|text| text.rsplit(|c: char| !is_bare(c) || c == ' ').next());
    words.filter(|word| !word.is_empty()).collect()
}

/// `[ports.outside]`, perhaps unclosed, but without quotes that could hold anything.
fn is_header(line: &str) -> bool {
    let name = line.trim();
    name.starts_with('[') && name.chars().all(|c| is_bare(c) || matches!(c, '[' | ']'))
}

fn is_bare(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | ' ' | '\t')
}

fn looks_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["secr", "sercet", "psk", "pass", "shared"]
        .iter()
        .any(|word| text.contains(word))
        || super::suggest::distance(text.trim(), "secret") <= 2
}

fn looks_like_secrets(key: &str) -> bool {
    super::suggest::distance(&key.to_ascii_lowercase(), "secrets") <= 2
}

/// Outside of `[secrets]`: only what is named like a secret.
fn collect(key: &str, value: &DeValue<'_>, span: &Span, spans: &mut Vec<Span>) {
    // `secret_file` names a file; the key's own text is not secret.
    let secret = looks_secret(key) && key != "secret_file";
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                collect(key.get_ref(), value.get_ref(), &value.span(), spans);
            }
        }
        DeValue::Array(array) if !secret => {
            for value in array.iter() {
                collect("", value.get_ref(), &value.span(), spans);
            }
        }
        _ if secret => spans.push(span.clone()),
        _ => {}
    }
}

/// Within `[secrets]`: everything but what is known to be public.
fn collect_in_secrets(value: &DeValue<'_>, span: &Span, spans: &mut Vec<Span>, depth: usize) {
    let DeValue::Table(table) = value else {
        spans.push(span.clone());
        return;
    };
    for (key, value) in table {
        let public = depth > 0
            && matches!(
                key.get_ref().as_ref(),
                "id" | "ids" | "secret_file" | "file"
            );
        if !public {
            collect_in_secrets(value.get_ref(), &value.span(), spans, depth + 1);
        }
    }
}

/// Each octet under a span becomes one asterisk, line ends excepted.
fn cover(text: &str, spans: &[Span]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|span| span.start);
    let mut next = sorted.iter().peekable();
    let mut covered_to = 0;
    for (at, character) in text.char_indices() {
        while let Some(span) = next.next_if(|span| span.start <= at) {
            covered_to = covered_to.max(span.end);
        }
        if at < covered_to && character != '\n' && character != '\r' {
            out.extend(std::iter::repeat_n(COVER, character.len_utf8()));
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(text: &str) -> String {
        let document = DeTable::parse(text).unwrap();
        let covered = by_value(text, document.get_ref(), Vec::new());
        assert_eq!(covered.len(), text.len());
        covered
    }

    #[test]
    fn secrets_are_covered_wherever_they_were_meant_to_stand() {
        for text in [
            "[cluster]\nsecret = \"hunter2é\"",
            "[cluster]\nsercet = \"hunter2é\"",
            "[cluster]\npsk = [\"hunter2é\"]",
            "[secrets.a]\nsecret = '''\nhunter2é\n'''",
            "[secrets.a]\nvalue = \"hunter2é\"",
            "[secrets]\na = \"hunter2é\"",
            "secrets = { a = { id = \"x\", sekret = \"hunter2é\" } }",
            "secrets = \"hunter2é\"",
            "[secret.a]\nvalue = \"hunter2é\"",
            "[connections.a]\nlocal = { auth = \"psk\", secret = \"hunter2é\" }",
        ] {
            assert!(!covered(text).contains("hunter2"), "{}", covered(text));
            let by_line = by_line(text);
            assert_eq!(by_line.len(), text.len());
            assert!(!by_line.contains("hunter2"), "{by_line}");
        }
    }

    #[test]
    fn what_is_public_stays_readable() {
        let text = "[secrets.a]\nids = [\"moon\"]\nsecret_file = \"/x\"\n[cluster]\nrekey_time = 1";
        assert_eq!(covered(text), text);
    }

    #[test]
    fn keys_of_the_example_are_shown_in_a_file_that_does_not_parse() {
        for key in ["name", "queues", "local_ts", "init_rate", "pace", "set_df"] {
            let text = format!("[section]\n{key} = 1 2\n");
            assert_eq!(by_line(&text), text);
        }
        for key in ["mine", "", "number", "AEAD", "ids and"] {
            assert!(
                !by_line(&format!("{key} = visible")).contains("visible"),
                "{key}"
            );
        }
    }

    #[test]
    fn secrets_in_a_file_that_does_not_parse_are_covered() {
        for text in [
            "[cluster]\nsecret = hunter2",
            "[cluster]\nsecret = \"hunter2",
            "[secrets.a]\nid = [\nsecret = \"hunter2\"",
            "[secrets.a]\nhunter2",
            "[cluster]\nsecret = \"\"\"\nhunter2",
        ] {
            assert!(!by_line(text).contains("hunter2"), "{}", by_line(text));
        }
    }
}
