//! What is fuzzed in the sync protocol: the datagrams between members, before and after a session.
//! The same function runs over the committed corpus as an ordinary test
//! (`testbeds/tests/fuzz_corpus.rs`).

use hitless_sa::{Entropy, Instant, MemberId};
use hitless_sync::{Durable, Input, Member, Node, Settings};

/// What handles the octets of one input.
pub type Target = fn(&[u8]);

/// Every target with its name, which is that of its folder in the corpus.
pub const ALL: &[(&str, Target)] = &[("datagrams", datagrams)];

/// Always the same, so that an entry of the corpus always means the same.
struct Same;

impl Entropy for Same {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0x5a);
    }
}

/// As members write it in front of a packet (FNV-1a, `message.rs`): without it nothing would be read.
fn with_checksum(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, octet| {
        (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    [&sum.to_be_bytes()[..], body].concat()
}

/// Packets from the other member: a length (two octets), the packet without its checksum, and so
/// on. Between them time passes.
pub fn datagrams(octets: &[u8]) {
    let member = |id| Member {
        id: MemberId(id),
        priority: 100,
    };
    let settings = Settings::new(MemberId(1), vec![member(1), member(2)], [0; 32]);
    let (mut now, mut rest) = (Instant(1), octets);
    let mut node = Node::new(settings, Durable::default(), now);
    while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes([*high & 7, *low])).min(after.len());
        let (body, behind) = after.split_at(length);
        let payload = &with_checksum(body);
        let from = MemberId(2);
        node.handle(now, &mut Same, Input::Datagram { from, payload });
        while node.poll_output().is_some() {}
        if high & 0x80 != 0
            && let Some(due) = node.poll_timeout()
        {
            now = now.max(due);
            node.handle(now, &mut Same, Input::Timeout);
            while node.poll_output().is_some() {}
        }
        rest = behind;
    }
}
