//! Replays the committed corpus of the fuzz targets, with every truncation of each entry and every
//! bit flipped: what once was found stays found.

#[path = "../../control/fuzz/targets.rs"]
mod control;
#[path = "../../dataplane/fuzz/targets.rs"]
mod dataplane;
#[path = "../../sync/fuzz/targets.rs"]
mod sync;

use std::fs;
use std::path::Path;

/// Longer entries are run whole, with some damage only.
const SYSTEMATIC: usize = 160;

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

fn replay(room: &str, targets: Targets) {
    let mut known: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names(room, "fuzz_targets"), known, "targets of {room}");
    assert_eq!(names(room, "corpus"), known, "corpora of {room}");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../{room}/fuzz/corpus"));
    for (name, target) in targets {
        let folder = corpus.join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{name} has no corpus");
        target(&[]);
        for path in paths {
            let octets = fs::read(&path).unwrap();
            target(&octets);
            let step = octets.len().div_ceil(SYSTEMATIC).max(1);
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
