//! Bodies that an earlier version wrote: a standby of today takes the IKE SAs of an active of then
//! on (the upgrade path). The files never change; what is new gets a sample of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::*;

const WHEN: Instant = Instant(1_000_000_000_000);
/// An IKE SA with a Child SA that is being rekeyed; one that has been rekeyed itself; one that is no
/// more.
const SAMPLES: [&str; 3] = ["ike-sa-offer", "ike-sa-rekeyed", "ike-sa-grave"];

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(name).with_extension("hex")
}

fn golden(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    crate::ike::octets(text.trim())
}

fn imported(body: &[u8]) -> Result<Imported, ImportError> {
    let connections = settings(0).connections.into_iter();
    let connections = connections.map(|c| (c.name.clone(), Arc::new(c))).collect();
    let mut ids = Ids::new(MemberId(9), Incarnation(1), Vec::new());
    import(WHEN, &connections, &mut ids, 1, body)
}

fn again(body: &[u8]) -> Vec<u8> {
    let record = match imported(body).expect("a record of an earlier version") {
        Imported::IkeSa(ike) => export(&ike, WHEN),
        Imported::Grave(spi, grave) => grave::export(spi, &grave, WHEN),
    };
    record.body.to_vec()
}

#[test]
fn what_an_earlier_version_wrote_is_imported_and_means_the_same() {
    for name in SAMPLES {
        let body = golden(name);
        assert_eq!(again(&body), body, "{name}");
    }
    let record = IkeRecord::decode(&*golden(SAMPLES[0])).unwrap();
    assert_eq!((record.format, record.connection.as_str()), (1, "peer"));
    assert_eq!((record.local.as_str(), record.state), ("192.0.2.1:4500", 0));
    let child = &record.children[0];
    assert_eq!((child.suite.as_str(), child.esn), ("aes128gcm16", true));
    let offer = record.pending.as_ref().and_then(|p| p.offer.as_ref());
    assert!(offer.is_some_and(|offer| offer.child == "net" && !offer.key.is_empty()));
    let rekeyed = IkeRecord::decode(&*golden(SAMPLES[1])).unwrap();
    assert_eq!(rekeyed.state, 1);
    assert!(
        IkeRecord::decode(&*golden(SAMPLES[2]))
            .unwrap()
            .grave
            .is_some()
    );
}

#[test]
fn what_a_later_version_says_more_is_skipped_and_what_it_means_otherwise_is_refused() {
    for name in SAMPLES {
        let body = golden(name);
        // Fields 1023 and 1000, which nobody knows: octets and a number.
        let more = [&[0xfa, 0x3f, 3, 1, 2, 3][..], &body, &[0xc0, 0x3e, 9]].concat();
        assert_eq!(again(&more), body, "{name}");
        // Field 1 once more: the last one counts.
        let other = [&body[..], &[0x08, 2]].concat();
        assert!(matches!(imported(&other), Err(ImportError::Format(2))));
    }
}

#[test]
fn a_body_that_is_cut_or_damaged_is_refused_or_means_something_and_nothing_worse() {
    for name in SAMPLES {
        let body = golden(name);
        for cut in 0..body.len() {
            let _ = imported(&body[..cut]);
            let mut damaged = body.clone();
            damaged[cut] ^= 1 << (cut % 8);
            let _ = imported(&damaged);
        }
    }
}

/// Each field of each record, whatever it would mean together. A field that is new gets into a file of
/// its own.
const EVERY_FIELD: [&str; 5] = [
    "ike-sa-everything",
    "ike-sa-purposes",
    "ike-sa-mapping",
    "ike-sa-path",
    "ike-sa-overtaken",
];

/// Where the records are described.
const SOURCES: [&str; 6] = [
    include_str!("../record.rs"),
    include_str!("../../auth/state.rs"),
    include_str!("../../auth/grounds.rs"),
    include_str!("../../auth/path.rs"),
    include_str!("../../sessions/state.rs"),
    include_str!("../../resume/held.rs"),
];

/// Number of a field, and of which record it is one if it is.
type Fields = BTreeMap<u32, Option<&'static str>>;

/// What the records say that they have.
fn described() -> BTreeMap<&'static str, Fields> {
    let mut all: BTreeMap<&str, Fields> = BTreeMap::new();
    for source in SOURCES {
        let (mut name, mut number) = (None, None);
        for line in source.lines() {
            if let Some((_, rest)) = line.split_once("struct ") {
                name = rest.strip_suffix(" {").filter(|n| n.ends_with("Record"));
            } else if let Some((_, rest)) = line.split_once("tag = \"") {
                number = rest.split('"').next().and_then(|tag| tag.parse().ok());
            } else if let (Some(name), Some(tag)) = (name, number) {
                let mut words = line.split(|c: char| !c.is_alphanumeric());
                let inner = words.find(|word| word.ends_with("Record"));
                all.entry(name).or_default().insert(tag, inner);
                number = None;
            }
            if line == "}" {
                name = None;
            }
        }
    }
    all
}

/// Notes which fields of a record, and of those in it, an encoding has.
fn note(
    body: &[u8],
    name: &'static str,
    all: &BTreeMap<&'static str, Fields>,
    seen: &mut BTreeSet<(&'static str, u32)>,
) {
    let mut rest = body;
    while rest.has_remaining() {
        let (tag, wire) = decode_key(&mut rest).unwrap();
        seen.insert((name, tag));
        match all[name].get(&tag).copied().flatten() {
            Some(inner) => {
                assert_eq!(wire, WireType::LengthDelimited, "{name} {tag}");
                let length = decode_varint(&mut rest).unwrap() as usize;
                let (body, after) = rest.split_at(length);
                note(body, inner, all, seen);
                rest = after;
            }
            None => skip_field(wire, tag, &mut rest, DecodeContext::default()).unwrap(),
        }
    }
}

#[test]
fn every_field_of_every_record_has_the_number_and_the_type_that_it_always_had() {
    for name in EVERY_FIELD {
        let body = golden(name);
        let record = IkeRecord::decode(&*body).unwrap();
        // What has another number now is unknown, and gone.
        assert_eq!(record.encode_to_vec(), body, "{name}");
    }
    let all = described();
    let mut seen = BTreeSet::new();
    for name in SAMPLES.iter().chain(&EVERY_FIELD) {
        note(&golden(name), "IkeRecord", &all, &mut seen);
    }
    let expected: BTreeSet<_> = all
        .iter()
        .flat_map(|(name, fields)| fields.keys().map(move |tag| (*name, *tag)))
        .collect();
    assert!(all["IkeRecord"].len() >= 48, "{all:?}");
    assert_eq!(seen, expected);
}
