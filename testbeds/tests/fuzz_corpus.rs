//! Replays the committed corpus of the fuzz targets, with every truncation of each entry and every
//! bit flipped: what once was found stays found. Then spoils entries at random; for long, without
//! cargo-fuzz and on stable:
//!   HITLESS_FUZZ=ike_established:1000000 cargo test -p hitless-testbeds --test fuzz_corpus spoilt

#[path = "../../control/fuzz/targets.rs"]
mod control;
#[path = "../../dataplane/fuzz/targets.rs"]
mod dataplane;
#[path = "fuzz_corpus/hostile.rs"]
mod hostile;
#[path = "../../sync/fuzz/targets.rs"]
mod sync;

use std::fs;
use std::path::Path;

use hitless_testbeds::mutate::Dice;

/// Longer entries are run whole, with some damage only.
const SYSTEMATIC: usize = 160;
/// The same where each input is an IKE SA of its own.
const SELDOM: usize = 16;
/// Spoilt inputs of each target.
const SPOILT: u64 = 150;

/// Targets by name.
type Targets = &'static [(&'static str, fn(&[u8]))];

/// The names in a folder of a room's `fuzz`, without what is behind a dot.
fn names(room: &str, folder: &str) -> Vec<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = own.join(format!("../{room}/fuzz/{folder}"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let stem = |path: std::path::PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(|entry| stem(entry.unwrap().path())).collect();
    names.sort();
    names
}

/// The entries of a target's corpus, by name.
fn entries(room: &str, target: &str) -> Vec<Vec<u8>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = own.join(format!("../{room}/fuzz/corpus/{target}"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Says what broke a target.
struct Tried<'a>(&'a str, u64, Vec<u8>);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} broke at seed {}: {:02x?}", self.0, self.1, self.2);
        }
    }
}

fn spoil(room: &str, targets: Targets) {
    let wish = std::env::var("HITLESS_FUZZ").ok();
    let wish = wish.as_deref().and_then(|wish| wish.split_once(':'));
    for (name, target) in targets {
        let count = match wish {
            Some((wanted, count)) if wanted == *name => count.parse().expect("a number"),
            Some(_) => continue,
            None => SPOILT,
        };
        let corpus = entries(room, name);
        for seed in 0..count {
            let mut dice = Dice::new(seed);
            let mut tried = Tried(name, seed, dice.pick(&corpus).unwrap().clone());
            let other = dice.pick(&corpus).unwrap();
            dice.mutate(&mut tried.2, 0, other);
            target(&tried.2);
        }
    }
}

fn replay(room: &str, targets: Targets) {
    let mut known: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names(room, "fuzz_targets"), known, "targets of {room}");
    assert_eq!(names(room, "corpus"), known, "corpora of {room}");
    for (name, target) in targets {
        let entries = entries(room, name);
        assert!(!entries.is_empty(), "{name} has no corpus");
        target(&[]);
        for octets in entries {
            target(&octets);
            let places = if *name == "ike_established" {
                SELDOM
            } else {
                SYSTEMATIC
            };
            let step = octets.len().div_ceil(places).max(1);
            for at in (0..octets.len()).step_by(step) {
                target(&octets[..at]);
                let mut flipped = octets.clone();
                flipped[at] ^= 1 << (at % 8);
                target(&flipped);
            }
        }
    }
}

#[test]
fn the_corpus_of_every_control_target_runs() {
    replay("control", control::ALL);
}

#[test]
fn the_corpus_of_every_dataplane_target_runs() {
    replay("dataplane", dataplane::ALL);
}

#[test]
fn the_corpus_of_every_sync_target_runs() {
    replay("sync", sync::ALL);
}

#[test]
fn spoilt_inputs_of_every_control_target_do_no_harm() {
    spoil("control", control::ALL);
}

#[test]
fn spoilt_inputs_of_every_dataplane_target_do_no_harm() {
    spoil("dataplane", dataplane::ALL);
}

#[test]
fn spoilt_inputs_of_every_sync_target_do_no_harm() {
    spoil("sync", sync::ALL);
}

/// Inputs that break nothing may also be such that are refused at the door.
#[test]
fn the_hostile_peers_of_the_corpus_make_replace_and_end_sas() {
    let mut all = control::Reached::default();
    for octets in entries("control", "ike_established") {
        let one = control::hostile_peer(&octets);
        all.installed += one.installed;
        all.removed += one.removed;
        all.rekeyed += one.rekeyed;
        all.ended += one.ended;
        all.refused += one.refused;
    }
    let least = control::Reached {
        installed: 100,
        removed: 40,
        rekeyed: 30,
        ended: 30,
        refused: 30,
    };
    let counts = |r: control::Reached| [r.installed, r.removed, r.rekeyed, r.ended, r.refused];
    let enough = counts(all)
        .iter()
        .zip(counts(least))
        .all(|(found, least)| *found >= least);
    assert!(enough, "{all:?}");
}
