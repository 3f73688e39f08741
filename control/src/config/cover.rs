//! Covers secrets in the source text before an error quotes it.
//!
//! Two ways, because a file that does not parse has no values to look at: by value where the text
//! parsed, by line where it did not. Both err on the side of covering too much. A cover has the
//! length of what it hides, so that positions stay true.

use toml::de::{DeTable, DeValue};

use super::report::Span;

const COVER: char = '*';

/// Covers the values of a parsed document that are, or may have been meant to be, secret.
pub(super) fn by_value(text: &str, document: &DeTable<'_>) -> String {
    let mut spans = Vec::new();
    for (key, value) in document {
        if looks_like_secrets(key.get_ref()) {
            collect_in_secrets(value.get_ref(), &value.span(), &mut spans, 0);
        } else {
            collect(key.get_ref(), value.get_ref(), &value.span(), &mut spans);
        }
    }
    cover(text, &spans)
}

/// Covers the right side of every line that may hold a secret.
pub(super) fn by_line(text: &str) -> String {
    let mut spans = Vec::new();
    let mut in_secrets = false;
    let mut in_multiline = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let trimmed = line.trim_start();
        if trimmed.starts_with('[') {
            in_secrets = looks_secret(trimmed);
            in_multiline = false;
        }
        if in_multiline {
            spans.push(start..end);
        } else if in_secrets || looks_secret(line) {
            if let Some(at) = line.find('=') {
                spans.push(start + at + 1..end);
            } else if !trimmed.starts_with('[') {
                spans.push(start..end);
            }
            in_multiline |= line.contains("\"\"\"") || line.contains("'''");
        }
        start = end;
    }
    cover(text, &spans)
}

fn looks_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["secr", "sercet", "psk", "pass", "key", "shared"]
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
    let secret = looks_secret(key) && key != "secret_file" && !key.starts_with("rekey");
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
        let public = depth > 0 && matches!(key.get_ref().as_ref(), "id" | "ids" | "secret_file");
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
        let covered = by_value(text, document.get_ref());
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
