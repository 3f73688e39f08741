//! S6 and the nonces of the sync link, judged from the octets on both wires.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use hitless::audit::wire::Ike;
use hitless::lab::MAGIC;

/// Exchanges that are not protected (RFC 7296 section 1.2, RFC 5723 section 4.3.1).
const IN_CLEAR: [u8; 2] = [34, 38];
const INFORMATIONAL: u8 = 37;
/// Where the first payload's type is in an IKE message (RFC 7296 section 3.1), where its version, its
/// exchange and its flags; and behind the header the type of the payload that follows.
const NEXT_PAYLOAD: usize = 16;
const EXCHANGE: usize = 18;
const FLAGS: usize = 19;
const FOLLOWING: usize = 28;
const RESPONSE: u8 = 0x20;
const NOTIFY: u8 = 41;
/// The type of a notification, from its payload's beginning (RFC 7296 section 3.10), and a token that
/// proves a restart, which goes beside an error (RFC 6290 section 4.3).
const NOTIFY_TYPE: usize = 6;
const QCD_TOKEN: [u8; 2] = 16419_u16.to_be_bytes();
const SK: u8 = 46;
const SKF: u8 = 53;
/// Between an IKE message and ESP on one port (RFC 3948 section 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// SPI, number and IV of an ESP packet (RFC 4303 section 2, RFC 4106 section 3).
const ESP_HEADER: usize = 16;

/// Watches one run.
#[derive(Default)]
pub struct Secrecy {
    /// What every sync message has in it, inside its protection; one for each cluster.
    marks: Vec<[u8; 32]>,
    /// The last number of each SA of the sync link, by its sender.
    numbers: BTreeMap<(SocketAddr, [u8; 4]), u64>,
    found: Vec<String>,
}

impl Secrecy {
    /// A cluster's sync messages all name its configuration by this digest.
    pub fn marked(&mut self, digest: &[u8; 32]) {
        if !self.marks.contains(digest) {
            self.marks.push(*digest);
        }
    }

    pub fn marks(&self) -> &[[u8; 32]] {
        &self.marks
    }

    /// What was found first: more of it tells no more.
    pub fn found(&self) -> impl Iterator<Item = String> {
        self.found.iter().take(3).cloned()
    }

    /// A frame on the outside.
    pub fn outside(&mut self, who: u8, frame: &[u8]) {
        if contains(frame, MAGIC) {
            self.complain(format!("machine {who}: a probe's text on the outside"));
        }
        self.no_sync_message(frame, format_args!("of machine {who} on the outside"));
    }

    /// An IKE message, on either wire: protected, or of a kind that cannot be.
    pub fn ike(&mut self, from: &str, message: &[u8]) {
        if !may_be_in_clear(message) {
            let exchange = message.get(EXCHANGE).copied().unwrap_or(0);
            self.complain(format!("{from}: exchange {exchange} of IKE in clear"));
        }
    }

    /// A datagram between members.
    pub fn between_members(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.no_sync_message(datagram, format_args!("from {from}"));
        if let Some(message) = datagram.strip_prefix(&NON_ESP_MARKER) {
            return self.ike(&from.to_string(), message);
        }
        let head = datagram.first_chunk::<ESP_HEADER>();
        let Some([s0, s1, s2, s3, _, _, _, _, iv @ ..]) = head else {
            return self.complain(format!("{from}: neither ESP nor IKE between members"));
        };
        let (sa, number) = ((from, [*s0, *s1, *s2, *s3]), u64::from_be_bytes(*iv));
        // One sender, one counter: the numbers of an SA only rise.
        let last = self.numbers.insert(sa, number);
        if last.is_some_and(|last| last >= number) {
            let what = format!("S2: {from} uses IV {number} of a sync SA again");
            self.found.push(what);
        }
    }

    /// `whose` is only spelled out for what is found: this is asked of every frame.
    fn no_sync_message(&mut self, octets: &[u8], whose: fmt::Arguments<'_>) {
        if self.marks.iter().any(|mark| contains(octets, mark)) {
            self.complain(format!("a sync message in clear, {whose}"));
        }
    }

    fn complain(&mut self, what: String) {
        self.found.push(format!("S6: {what}"));
    }
}

/// An exchange without keys, or a lone error to whoever has none of ours (RFC 7296 sections 1.5 and
/// 2.21).
fn may_be_in_clear(message: &[u8]) -> bool {
    let octet = |at: usize| message.get(at).copied().unwrap_or(0);
    let (first, exchange) = (octet(NEXT_PAYLOAD), octet(EXCHANGE));
    let answer = octet(FLAGS) & RESPONSE != 0 || exchange == INFORMATIONAL;
    matches!(first, SK | SKF)
        || IN_CLEAR.contains(&exchange)
        || is_error_in_clear(message) && answer
}

/// A message of one notification and nothing else, but for tokens that prove a restart.
pub fn is_error_in_clear(message: &[u8]) -> bool {
    let mut kind = message.get(NEXT_PAYLOAD).copied();
    let mut at = FOLLOWING;
    let mut errors = 0;
    while kind == Some(NOTIFY) {
        let Some([next, _, long, short, ..]) = message.get(at..) else {
            return false;
        };
        let told = message.get(at + NOTIFY_TYPE..at + NOTIFY_TYPE + 2);
        errors += u32::from(told != Some(&QCD_TOKEN));
        kind = Some(*next);
        at += usize::from(u16::from_be_bytes([*long, *short])).max(4);
    }
    kind == Some(0) && errors <= 1 && at > FOLLOWING
}

/// The IV of a message's encrypted payload, behind its header; that of a fragment is longer (RFC 7383
/// section 2.5).
pub fn iv<'a>(ike: &Ike<'a>) -> Option<&'a [u8]> {
    let from = match *ike.message.get(NEXT_PAYLOAD)? {
        SK => FOLLOWING + 4,
        SKF => FOLLOWING + 8,
        _ => return None,
    };
    ike.message.get(from..from + 8)
}

/// What is said only of a whole message.
pub fn digest(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

fn contains<const N: usize>(octets: &[u8], what: &[u8; N]) -> bool {
    let mut rest = octets;
    while let Some(at) = rest.iter().position(|octet| *octet == what[0]) {
        rest = &rest[at..];
        if rest.starts_with(what) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike(exchange: u8, first: u8, flags: u8, following: u8) -> Vec<u8> {
        let mut message = vec![7; 60];
        message[FOLLOWING + 2..FOLLOWING + 4].copy_from_slice(&[0, 32]);
        (message[NEXT_PAYLOAD], message[EXCHANGE]) = (first, exchange);
        (message[FLAGS], message[FOLLOWING]) = (flags, following);
        message
    }

    fn found(show: impl FnOnce(&mut Secrecy)) -> Vec<String> {
        let mut secrecy = Secrecy::default();
        secrecy.marked(&[0xab; 32]);
        show(&mut secrecy);
        secrecy.found
    }

    const MEMBER: &str = "192.0.2.9:4510";

    #[test]
    fn s6_text_in_clear_is_noticed_wherever_it_is_in_a_packet() {
        let mut frame = vec![1; 90];
        assert!(found(|s| s.outside(1, &frame)).is_empty());
        frame.splice(70..70, MAGIC.iter().copied());
        assert_eq!(found(|s| s.outside(1, &frame)).len(), 1);
        let mut datagram = vec![1; 40];
        let from = MEMBER.parse().unwrap();
        assert!(found(|s| s.between_members(from, &datagram)).is_empty());
        datagram.extend_from_slice(&[0xab; 32]);
        assert_eq!(found(|s| s.between_members(from, &datagram)).len(), 1);
        assert_eq!(found(|s| s.between_members(from, &[1; 9])).len(), 1);
    }

    #[test]
    fn s6_ike_in_clear_is_noticed_unless_it_cannot_be_otherwise() {
        for (exchange, first, flags, following) in [
            (34, 33, 0, 34),
            (38, 40, 0, 41),
            (35, SK, 0, 35),
            (36, SKF, 0, 0),
            (37, NOTIFY, 0, 0),
            (35, NOTIFY, RESPONSE, 0),
        ] {
            let message = ike(exchange, first, flags, following);
            assert!(found(|s| s.ike("x", &message)).is_empty(), "{message:?}");
        }
        for (exchange, first, flags, following) in [
            (35, 35, 0, 39),
            (36, 33, RESPONSE, 40),
            (37, 42, 0, 0),
            (36, NOTIFY, 0, 0),
            (35, NOTIFY, RESPONSE, 33),
        ] {
            let message = ike(exchange, first, flags, following);
            assert_eq!(found(|s| s.ike("x", &message)).len(), 1, "{message:?}");
        }
    }

    #[test]
    fn rfc6290_section_4_3_a_token_may_be_beside_an_error_and_nothing_else_may() {
        let message = |second: [u8; 2]| {
            let mut message = ike(36, NOTIFY, RESPONSE, NOTIFY);
            message[FOLLOWING + 3] = 8;
            message.truncate(FOLLOWING + 8);
            message.extend_from_slice(&[0, 0, 0, 24, 0, 0, second[0], second[1]]);
            message.resize(FOLLOWING + 32, 1);
            message
        };
        assert!(is_error_in_clear(&message(QCD_TOKEN)));
        assert!(!is_error_in_clear(&message([0, 4])));
        assert!(!is_error_in_clear(&message(QCD_TOKEN)[..FOLLOWING + 10]));
    }

    #[test]
    fn s2_an_iv_of_the_sync_link_is_used_once() {
        let datagram = |spi: u8, number: u64| {
            let mut datagram = vec![spi; 8];
            datagram.extend_from_slice(&number.to_be_bytes());
            datagram.resize(60, 9);
            datagram
        };
        let from: SocketAddr = MEMBER.parse().unwrap();
        let sent = |numbers: &[(u8, u64)]| {
            found(|s| {
                for (spi, number) in numbers {
                    s.between_members(from, &datagram(*spi, *number));
                }
            })
        };
        assert!(sent(&[(1, 1), (1, 2), (2, 1), (1, 3)]).is_empty());
        assert_eq!(sent(&[(1, 1), (1, 2), (1, 2)]).len(), 1);
    }
}
