//! What a peer may ask for in an INFORMATIONAL exchange (RFC 7296 sections 2.20 and 3.15).

use crate::ike::contents::Contents;
use crate::ike::message::{Attribute, AttributeKind, Configuration, ConfigurationKind, Payload};

/// What is of use in a request, here or in IKE_AUTH.
const SUPPORTED: [AttributeKind; 6] = [
    AttributeKind::INTERNAL_IP4_ADDRESS,
    AttributeKind::INTERNAL_IP4_DNS,
    AttributeKind::APPLICATION_VERSION,
    AttributeKind::INTERNAL_IP6_ADDRESS,
    AttributeKind::INTERNAL_IP6_DNS,
    AttributeKind::SUPPORTED_ATTRIBUTES,
];

/// Answers a CFG_REQUEST beside IKE_AUTH. Addresses are given there alone, and "unrecognized or
/// unsupported attributes MUST be ignored".
pub(in crate::ike) fn tell(contents: &Contents<'_>) -> Option<Payload> {
    let request = contents.configuration?;
    if request.kind != ConfigurationKind::REQUEST {
        return None;
    }
    let asked = |kind| request.attributes.iter().any(|a| a.kind == kind);
    // Section 2.20: who does not give its version away "MUST either return an empty string or no CP
    // payload". What is known of it is known to whoever looks for a weakness of it.
    let version = asked(AttributeKind::APPLICATION_VERSION)
        .then(|| Attribute::empty(AttributeKind::APPLICATION_VERSION));
    let supported = asked(AttributeKind::SUPPORTED_ATTRIBUTES).then(|| Attribute {
        kind: AttributeKind::SUPPORTED_ATTRIBUTES,
        value: SUPPORTED.iter().flat_map(|k| k.0.to_be_bytes()).collect(),
    });
    Some(Payload::Configuration(Configuration {
        kind: ConfigurationKind::REPLY,
        attributes: version.into_iter().chain(supported).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::pair::{C, P, Pair};
    use crate::ike::{Event, Resume};

    fn configuration(kind: ConfigurationKind, asked: &[u16]) -> Payload {
        let asked = asked.iter().map(|kind| AttributeKind(*kind));
        Payload::Configuration(Configuration {
            kind,
            attributes: asked.map(Attribute::empty).collect(),
        })
    }

    /// What one end answers to the next request of the other.
    fn answer(pair: &mut Pair, host: usize, asked: &Payload) -> Vec<Payload> {
        let next = pair.next_ids(host).1;
        let request = pair.forge(1 - host, false, next, std::slice::from_ref(asked));
        let answers = pair.give(host, &request);
        assert_eq!(pair.give(host, &request), answers, "the same again");
        pair.read(1 - host, &answers[0]).1
    }

    #[test]
    fn rfc7296_section_2_20_who_asks_for_our_version_is_told_nothing_of_it_in_either_role() {
        for mut pair in Pair::in_both_roles(1) {
            for host in [C, P] {
                let request = configuration(ConfigurationKind::REQUEST, &[7]);
                let reply = configuration(ConfigurationKind::REPLY, &[7]);
                assert_eq!(
                    answer(&mut pair, host, &request),
                    std::slice::from_ref(&reply)
                );
                // Once, however often it is in the request.
                let request = configuration(ConfigurationKind::REQUEST, &[7; 40]);
                assert_eq!(answer(&mut pair, host, &request), [reply]);
            }
        }
    }

    #[test]
    fn rfc7296_section_3_15_1_what_is_supported_is_told_and_the_rest_is_ignored() {
        for mut pair in Pair::in_both_roles(1) {
            for host in [C, P] {
                let request = configuration(ConfigurationKind::REQUEST, &[1, 14, 99, 0x7fff]);
                let payloads = answer(&mut pair, host, &request);
                let [Payload::Configuration(reply)] = payloads.as_slice() else {
                    panic!("{payloads:?}")
                };
                assert_eq!(reply.kind, ConfigurationKind::REPLY);
                let [supported] = reply.attributes.as_slice() else {
                    panic!("{reply:?}")
                };
                assert_eq!(supported.kind.0, 14);
                let kinds = [0, 1, 0, 3, 0, 7, 0, 8, 0, 10, 0, 14];
                assert_eq!(supported.value, kinds);
                // No address is given here, and nothing is taken.
                let request = configuration(ConfigurationKind::REQUEST, &[1, 8, 3, 10]);
                let nothing = configuration(ConfigurationKind::REPLY, &[]);
                assert_eq!(answer(&mut pair, host, &request), [nothing]);
                for kind in [0, 2, 3, 4, 255] {
                    let other = configuration(ConfigurationKind(kind), &[1, 7, 14]);
                    assert_eq!(answer(&mut pair, host, &other), [], "{kind}");
                }
            }
        }
    }

    /// The answer is kept as any other: a member that takes over gives the same octets.
    #[test]
    fn rfc7296_section_2_20_the_answer_outlives_a_failover() {
        for mut pair in Pair::in_both_roles(1) {
            let request = configuration(ConfigurationKind::REQUEST, &[7, 14]);
            let next = pair.next_ids(C).1;
            let request = pair.forge(P, false, next, &[request]);
            let first = pair.give(C, &request);
            pair.take_over(Resume::Exact);
            assert_eq!(pair.give(C, &request), first);
            let gone = |e: &Event| matches!(e, Event::IkeDeleted { .. });
            assert!(!pair.events[C].iter().any(gone));
        }
    }
}
