//! A reply with a long list, whose text is made a few entries at a time: on the wire it is the reply in
//! one piece.

use serde::Serialize;

use super::Reply;

/// The text of a reply under way.
pub struct LongReply {
    /// What stands before the first entry, until that is written.
    head: String,
    tail: String,
    any: bool,
}

impl LongReply {
    /// Of what is this reply without an entry; its list is the last one in it.
    pub fn new(empty: &Reply) -> LongReply {
        // Our own types always have a JSON form.
        let text = serde_json::to_string(empty).unwrap_or_default();
        let (head, tail) = text.rsplit_once("[]").unwrap_or_default();
        LongReply {
            head: format!("{head}["),
            tail: format!("]{tail}"),
            any: false,
        }
    }

    /// Writes an entry.
    pub fn entry<T: Serialize>(&mut self, entry: &T, out: &mut Vec<u8>) {
        self.begin(out);
        if std::mem::replace(&mut self.any, true) {
            out.push(b',');
        }
        let written = serde_json::to_writer(&mut *out, entry);
        debug_assert!(written.is_ok(), "an entry without a JSON form");
    }

    /// Writes the end.
    pub fn end(mut self, out: &mut Vec<u8>) {
        self.begin(out);
        out.extend_from_slice(self.tail.as_bytes());
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(std::mem::take(&mut self.head).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PolicyReport, Shown};

    #[test]
    fn the_text_is_that_of_the_reply_in_one_piece() {
        let policy = |policy| PolicyReport {
            policy,
            local: "10.1.0.0/16[]".to_owned(),
            remote: "\"[]\"".to_owned(),
            action: "PROTECT".to_owned(),
            sa: None,
            traffic: Default::default(),
        };
        for count in 0..4 {
            let policies: Vec<_> = (0..count).map(policy).collect();
            let reply = |policies| Reply::Shown {
                shown: Shown::Policies { policies },
            };
            let mut long = LongReply::new(&reply(Vec::new()));
            let mut text = Vec::new();
            for policy in &policies {
                long.entry(policy, &mut text);
            }
            long.end(&mut text);
            let whole = serde_json::to_string(&reply(policies)).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), whole);
        }
        let mut text = Vec::new();
        LongReply::new(&Reply::Sas { sas: Vec::new() }).end(&mut text);
        assert_eq!(text, br#"{"reply":"sas","sas":[]}"#);
    }
}
