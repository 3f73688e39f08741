//! What tells a repetition of a request from another request (RFC 7296 section 2.1).
//!
//! Two members of a cluster that both believe to lead can use one Message ID for two requests, and
//! the answer to one would give the other wrong keys. So a response is remembered with a digest of
//! its request, which is exported with it: a successor knows the difference too.

use aws_lc_rs::digest::{self, SHA256};

/// The first half of SHA-256: every member and every build finds the same, and only the peer itself
/// could make two messages that share it, for both are authenticated.
pub(super) type Digest = [u8; 16];

/// What is remembered of a request that was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    /// Digest of the datagram, or of its first fragment's.
    pub datagram: Digest,
    /// How many fragments it had; one if it was none.
    pub total: u16,
    /// Digest of what was inside.
    pub content: Digest,
}

impl Asked {
    /// `datagram` is the first fragment if there are several.
    pub fn new(datagram: &[u8], total: u16, content: &[u8]) -> Asked {
        Asked {
            datagram: digest(datagram),
            total,
            content: digest(content),
        }
    }

    /// Whether a request is the same once more: "bitwise identical", or divided into other
    /// fragments (RFC 7383 section 2.5.2), where only its content is the same.
    pub fn repeats(&self, other: &Asked) -> bool {
        self == other || self.total != other.total && self.content == other.content
    }

    /// Whether this began with the datagram.
    pub fn began_with(&self, datagram: &[u8]) -> bool {
        self.datagram == digest(datagram)
    }
}

fn digest(message: &[u8]) -> Digest {
    let mut half = Digest::default();
    let whole = digest::digest(&SHA256, message);
    for (to, from) in half.iter_mut().zip(whole.as_ref()) {
        *to = *from;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_divided_anew_is_the_same_request_rfc7383_2_5_2() {
        let whole = Asked::new(b"datagram", 1, b"content");
        assert!(whole.repeats(&Asked::new(b"datagram", 1, b"content")));
        assert!(!whole.repeats(&Asked::new(b"other", 1, b"content")));
        assert!(whole.repeats(&Asked::new(b"first of two", 2, b"content")));
        assert!(!whole.repeats(&Asked::new(b"first of two", 2, b"other")));
        assert!(whole.began_with(b"datagram") && !whole.began_with(b"other"));
    }

    #[test]
    fn every_build_finds_the_same_digest() {
        // The first half of the SHA-256 of nothing.
        let nothing = Asked::new(&[], 1, &[]).content;
        assert_eq!(nothing[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
