//! Inputs for `ike_established` that are well formed one by one and in no order that a peer would
//! choose: what octets at random seldom come to.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::control;

/// Type and body of a payload.
type Body = (u8, Vec<u8>);

/// A transform: type, ID, key length.
fn transform(last: bool, kind: u8, id: u16, key_length: Option<u16>) -> Vec<u8> {
    let attribute = key_length.map(|bits| [0x800e, bits]);
    let length = 8 + attribute.map_or(0, |_| 4);
    let mut octets = vec![if last { 0 } else { 3 }, 0, 0, length, kind, 0];
    octets.extend(id.to_be_bytes());
    let attribute = attribute.into_iter().flatten();
    octets.extend(attribute.flat_map(u16::to_be_bytes));
    octets
}

/// One proposal, for the IKE SA or for ESP.
fn proposal(esp: bool, group: Option<u16>, spi: u64) -> Body {
    let mut transforms = vec![(1, 20, Some(128))];
    if esp {
        transforms.push((5, 1, None));
    } else {
        transforms.push((2, 5, None));
    }
    transforms.extend(group.map(|group| (4, group, None)));
    let count = transforms.len();
    let parts = transforms.into_iter().enumerate();
    let parts = parts.flat_map(|(n, (kind, id, bits))| transform(n + 1 == count, kind, id, bits));
    let parts: Vec<u8> = parts.collect();
    let spi = spi.to_be_bytes();
    let spi = if esp { &spi[4..] } else { &spi[..] };
    let length = (8 + spi.len() + parts.len()) as u16;
    let mut body = vec![0, 0];
    body.extend(length.to_be_bytes());
    body.extend([1, if esp { 3 } else { 1 }, spi.len() as u8, count as u8]);
    body.extend(spi);
    body.extend(parts);
    (33, body)
}

/// TSi or TSr: a prefix of the configured ones, or one beside it, or everything.
fn selectors(kind: u8, net: u8, child: u8, width: u8) -> Body {
    let mut body = vec![1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 0xff, 0xff];
    match width {
        0 => body.extend([0, 0, 0, 0, 255, 255, 255, 255]),
        _ => body.extend([10, net, child, 0, 10, net, child, 255]),
    }
    (kind, body)
}

fn place(which: u8) -> [u8; 4] {
    [0xfe, 0xed, 0xfe, which]
}

fn notify(kind: u16, protocol: u8, spi: &[u8], data: &[u8]) -> Body {
    let mut body = vec![protocol, spi.len() as u8];
    body.extend(kind.to_be_bytes());
    body.extend(spi);
    body.extend(data);
    (41, body)
}

/// Errors, REKEY_SA, window size, MOBIKE, redirection, tickets, RFC 6311, and whatever else.
fn any_notify() -> impl Strategy<Value = Body> {
    let kinds = [
        1u16, 4, 5, 7, 9, 11, 14, 17, 24, 34, 35, 36, 37, 38, 39, 43, 44, 45, 16384, 16385, 16390,
        16391, 16393, 16394, 16396, 16397, 16399, 16400, 16401, 16402, 16404, 16406, 16407, 16408,
        16409, 16410, 16413, 16417, 16419, 16420, 16421, 16422, 16423, 16430, 16435, 16438, 16441,
    ];
    let kind = prop_oneof![9 => select(kinds.to_vec()), 1 => any::<u16>()];
    let spi = prop_oneof![
        3 => Just(Vec::new()),
        2 => (0u8..32).prop_map(|which| place(which).to_vec()),
        1 => vec(any::<u8>(), 0..10),
    ];
    let data = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 0..40),
        vec(0u8..4, 12..=12)
    ];
    (kind, 0u8..4, spi, data)
        .prop_map(|(kind, protocol, spi, data)| notify(kind, protocol, &spi, &data))
}

fn any_body() -> impl Strategy<Value = Body> {
    let group = prop_oneof![Just(None), Just(Some(31)), Just(Some(19))];
    let ke = (
        select(vec![31u16, 31, 31, 19, 14]),
        vec(any::<u8>(), 32..=32),
    )
        .prop_map(|(group, key)| {
            let mut body = group.to_be_bytes().to_vec();
            body.extend([0, 0]);
            body.extend(key);
            (34, body)
        });
    let delete = (select(vec![1u8, 3, 3, 3, 2]), 0u8..40).prop_map(|(protocol, which)| {
        if protocol == 1 {
            return (42, vec![1, 0, 0, 0]);
        }
        let mut body = vec![protocol, 4, 0, 1];
        body.extend(place(which));
        (42, body)
    });
    prop_oneof![
        3 => (any::<bool>(), group, 1u64..1 << 60)
            .prop_map(|(esp, group, spi)| proposal(esp, group, spi)),
        2 => vec(any::<u8>(), 16..64).prop_map(|nonce| (40, nonce)),
        2 => ke,
        4 => any_notify(),
        2 => delete,
        3 => (44u8..46, 1u8..3, 0u8..3, 0u8..3).prop_map(|(kind, net, child, width)| {
            selectors(kind, net, child, width)
        }),
        1 => (select(vec![35u8, 36, 37, 38, 39, 43, 46, 47, 48, 53, 60]), vec(any::<u8>(), 0..40)),
    ]
}

/// What a peer would say to make or to replace something.
fn sensible() -> impl Strategy<Value = Vec<Body>> {
    (0u8..4, 0u8..2, any::<[u8; 32]>(), 1u64..1 << 60, 0u8..16).prop_map(
        |(what, child, random, spi, which)| {
            let theirs = which < 8;
            let nonce = (40, random.to_vec());
            let ke = (34, [&[0, 31, 0, 0], &random[..]].concat());
            let esp = || {
                let ts = [44, 45].map(|kind| {
                    // The initiator's first: the peer's in a request, ours in a response.
                    selectors(kind, if (kind == 44) == theirs { 2 } else { 1 }, child, 1)
                });
                let mut all = vec![proposal(true, Some(31), spi), nonce.clone(), ke.clone()];
                all.extend(ts);
                all
            };
            match what {
                0 => vec![proposal(false, Some(31), spi), nonce, ke],
                1 => esp(),
                2 => {
                    let mut all = vec![notify(16393, 3, &place(which), &[])];
                    all.extend(esp());
                    all
                }
                _ => vec![notify(
                    16422,
                    0,
                    &[],
                    &[&random[..4], &[0, 0, 0, which, 0, 0, 0, 4]].concat(),
                )],
            }
        },
    )
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let bodies = prop_oneof![2 => sensible(), 2 => vec(any_body(), 0..7)];
    bodies.prop_map(|bodies| {
        let kinds: Vec<u8> = bodies.iter().map(|(kind, _)| *kind).chain([0]).collect();
        let mut content = vec![kinds[0]];
        for ((_, body), next) in bodies.iter().zip(&kinds[1..]) {
            content.extend([*next, 0]);
            content.extend((body.len() as u16 + 4).to_be_bytes());
            content.extend(body);
        }
        content
    })
}

fn step() -> impl Strategy<Value = Vec<u8>> {
    let operation = prop_oneof![6 => 0u8..8, 3 => 8u8..16];
    // CREATE_CHILD_SA and INFORMATIONAL, mostly.
    let argument = prop_oneof![3 => 0u8..4, 2 => any::<u8>()];
    (operation, 0u8..4, argument, content()).prop_map(|(operation, which, argument, content)| {
        let mut step = vec![operation | which << 4, argument];
        step.extend((content.len() as u16).to_be_bytes());
        step.extend(content);
        step
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_peer_with_the_right_keys_does_no_harm(beginning in 0u8..64, steps in vec(step(), 0..24)) {
        let mut input = vec![beginning];
        input.extend(steps.concat());
        control::ike_established(&input);
    }
}
