//! Beside another reader of messages, which nobody of us wrote.

use proptest::collection::vec;
use proptest::prelude::*;

use super::another_reader::readings;
use super::property::{header, payload};
use super::*;

proptest! {
    #[test]
    fn another_parser_reads_what_we_write(header in header(), payloads in vec(payload(), 0..9)) {
        let read = readings(&emit(&header, &payloads));
        prop_assert!(read.is_some_and(|(ours, theirs)| Some(ours) == theirs));
    }

    #[test]
    fn another_parser_agrees_about_what_we_accept_of_damaged_messages(
        header in header(),
        payloads in vec(payload(), 1..5),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut datagram = emit(&header, &payloads);
        for (index, octet) in damage {
            let at = index.index(datagram.len());
            datagram[at] = octet;
        }
        if let Some(cut) = cut {
            datagram.truncate(28.max(cut.index(datagram.len())));
            let length = datagram.len() as u32;
            datagram[24..28].copy_from_slice(&length.to_be_bytes());
        }
        if let Some((ours, theirs)) = readings(&datagram) {
            prop_assert_eq!(Some(ours), theirs);
        }
    }
}
