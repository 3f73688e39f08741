//! Fragments: their limits, order and repetition.

use super::*;
use hitless_sa::IkeSpi;

fn header(id: u32, response: bool) -> Header {
    Header {
        initiator_spi: IkeSpi(1),
        responder_spi: IkeSpi(2),
        exchange: Exchange::CreateChildSa,
        initiator: true,
        response,
        message_id: MessageId(id),
    }
}

fn add(
    reassembly: &mut Reassembly,
    now: u64,
    header: &Header,
    (number, total): (u16, u16),
    content: &[u8],
) -> Result<Option<Vec<u8>>, &'static str> {
    let place = FragmentPlace { number, total };
    reassembly.wants(header, place)?;
    let opened = Opened {
        place: Some(place),
        first: PayloadKind(40),
        content: Zeroizing::new(content.to_vec()),
    };
    let now = Instant(now * 1_000_000_000);
    let whole = reassembly.add(now, header, place, &[number as u8], opened)?;
    Ok(whole.map(|whole| whole.content.to_vec()))
}

#[test]
fn rfc7383_section_2_6_fragments_come_in_any_order_and_each_counts_once() {
    let (mut reassembly, request) = (Reassembly::default(), header(4, false));
    assert_eq!(add(&mut reassembly, 0, &request, (3, 3), b"c"), Ok(None));
    assert_eq!(add(&mut reassembly, 0, &request, (1, 3), b"a"), Ok(None));
    let again = add(&mut reassembly, 0, &request, (1, 3), b"x");
    assert_eq!(again, Err("fragment seen before"));
    // A response is another message.
    assert_eq!(
        add(&mut reassembly, 0, &header(4, true), (2, 3), b"z"),
        Ok(None)
    );
    let whole = add(&mut reassembly, 0, &request, (2, 3), b"b");
    assert_eq!(whole, Ok(Some(b"abc".to_vec())));
}

/// RFC 7383 section 2.6: "if the Total Fragments field is greater ... discard the stored; if it is
/// less, discard the received".
#[test]
fn rfc7383_section_2_6_a_finer_division_replaces_a_coarser_one() {
    let (mut reassembly, request) = (Reassembly::default(), header(4, false));
    assert_eq!(add(&mut reassembly, 0, &request, (1, 2), b"aaaa"), Ok(None));
    assert_eq!(add(&mut reassembly, 0, &request, (2, 4), b"aa"), Ok(None));
    let coarse = add(&mut reassembly, 0, &request, (2, 2), b"bbbb");
    assert_eq!(coarse, Err("fragment of a coarser division"));
    for number in [1, 3] {
        assert_eq!(
            add(&mut reassembly, 0, &request, (number, 4), b"aa"),
            Ok(None)
        );
    }
    let whole = add(&mut reassembly, 0, &request, (4, 4), b"bb");
    assert_eq!(whole, Ok(Some(b"aaaaaabb".to_vec())));
}

#[test]
fn what_waits_is_bounded_in_number_octets_and_time() {
    let (mut reassembly, request) = (Reassembly::default(), header(4, false));
    let many = add(&mut reassembly, 0, &request, (1, MAX_FRAGMENTS + 1), b"a");
    assert_eq!(many, Err("too many fragments"));
    let long = vec![0; MAX_MESSAGE_LENGTH / 2 + 1];
    assert_eq!(add(&mut reassembly, 0, &request, (1, 3), &long), Ok(None));
    let longer = add(&mut reassembly, 0, &request, (2, 3), &long);
    assert_eq!(longer, Err("fragments of too long a message"));
    assert_eq!(reassembly.deadline(), None, "all of it is gone");
    assert_eq!(add(&mut reassembly, 7, &request, (1, 3), b"a"), Ok(None));
    // The next message takes the place of one that was never complete.
    assert_eq!(
        add(&mut reassembly, 9, &header(5, false), (1, 3), b"a"),
        Ok(None)
    );
    assert_eq!(reassembly.deadline(), Some(Instant(39_000_000_000)));
    reassembly.expire(Instant(38_999_999_999));
    assert!(reassembly.deadline().is_some());
    reassembly.expire(Instant(39_000_000_000));
    assert_eq!(reassembly.deadline(), None);
}

#[test]
fn a_flight_comes_apart_into_its_datagrams_whatever_it_holds() {
    let datagram = |octets: usize, fill: u8| {
        let mut datagram = vec![fill; octets];
        datagram[24..28].copy_from_slice(&(octets as u32).to_be_bytes());
        datagram
    };
    let parts = [datagram(28, 1), datagram(99, 2), datagram(40, 3)];
    let flight = parts.concat();
    assert!(datagrams(&flight).eq(parts.iter().map(Vec::as_slice)));
    for length in 0..flight.len() {
        let cut = &flight[..length];
        assert_eq!(datagrams(cut).flatten().copied().collect::<Vec<_>>(), cut);
    }
    // A length that lies does not make it run on for ever.
    for lie in [0u32, 27, u32::MAX] {
        let mut flight = flight.clone();
        flight[24..28].copy_from_slice(&lie.to_be_bytes());
        assert_eq!(
            datagrams(&flight).map(<[u8]>::len).sum::<usize>(),
            flight.len()
        );
    }
}
