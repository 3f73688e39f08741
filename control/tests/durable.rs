//! The epoch file: what is written is read back, one process at a time, and damage is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hitless::durable::{DurableError, DurableFile, Identity};
use hitless_sa::{Epoch, Incarnation, MemberId};
use hitless_sync::Durable;
use proptest::prelude::*;

/// A directory of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("durable-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }
    fn epoch(&self) -> PathBuf {
        self.0.join("epoch")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn identity() -> Identity {
    Identity {
        cluster: "hq".to_owned(),
        member: MemberId(1),
    }
}

fn epoch(counter: u64) -> Option<Epoch> {
    Some(Epoch {
        counter,
        leader: MemberId(2),
        incarnation: Incarnation(3),
    })
}

#[test]
fn each_start_is_a_new_incarnation_and_epochs_are_kept() {
    let scratch = Scratch::new("starts");
    let mut file = DurableFile::open(&scratch.0, identity()).unwrap();
    assert_eq!(file.state().incarnation, Incarnation(1));
    assert_eq!(file.state().led, None);
    let state = Durable {
        promised: epoch(7),
        led: epoch(5),
        ..file.state()
    };
    file.store(state).unwrap();
    assert_eq!(file.state(), state);
    drop(file);
    let file = DurableFile::open(&scratch.0, identity()).unwrap();
    assert_eq!(
        file.state(),
        Durable {
            incarnation: Incarnation(2),
            ..state
        }
    );
}

#[test]
fn two_processes_cannot_share_an_identity() {
    let scratch = Scratch::new("lock");
    let first = DurableFile::open(&scratch.0, identity()).unwrap();
    let error = DurableFile::open(&scratch.0, identity()).unwrap_err();
    assert!(matches!(error, DurableError::Locked { .. }), "{error}");
    assert!(
        error.to_string().contains("another hitless runs"),
        "{error}"
    );
    drop(first);
    DurableFile::open(&scratch.0, identity()).unwrap();
}

#[test]
fn nothing_is_readable_by_others() {
    let scratch = Scratch::new("mode");
    let _file = DurableFile::open(&scratch.0, identity()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    assert_eq!(mode(&scratch.epoch()), 0o600);
    assert_eq!(mode(&scratch.0.join("lock")), 0o600);
}

#[test]
fn a_led_epoch_and_an_incarnation_are_never_lowered() {
    let scratch = Scratch::new("lowered");
    let mut file = DurableFile::open(&scratch.0, identity()).unwrap();
    let state = Durable {
        promised: epoch(7),
        led: epoch(7),
        ..file.state()
    };
    file.store(state).unwrap();
    for wrong in [
        Durable {
            led: epoch(6),
            ..state
        },
        Durable { led: None, ..state },
        Durable {
            incarnation: Incarnation(0),
            ..state
        },
    ] {
        let error = file.store(wrong).unwrap_err();
        assert!(matches!(error, DurableError::Lowered { .. }), "{error}");
    }
    // A vote may be forsworn (R10).
    file.store(Durable {
        promised: epoch(5),
        ..state
    })
    .unwrap();
}

#[test]
fn the_file_of_another_member_is_refused() {
    let scratch = Scratch::new("foreign");
    drop(DurableFile::open(&scratch.0, identity()).unwrap());
    for other in [
        Identity {
            member: MemberId(2),
            ..identity()
        },
        Identity {
            cluster: "branch".to_owned(),
            ..identity()
        },
    ] {
        let error = DurableFile::open(&scratch.0, other).unwrap_err();
        assert!(matches!(error, DurableError::Foreign { .. }), "{error}");
        assert!(
            error.to_string().contains("member 1 of cluster hq"),
            "{error}"
        );
    }
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_state() {
    let scratch = Scratch::new("crash");
    drop(DurableFile::open(&scratch.0, identity()).unwrap());
    fs::write(scratch.0.join("epoch.new"), "hitless ep").unwrap();
    let file = DurableFile::open(&scratch.0, identity()).unwrap();
    assert_eq!(file.state().incarnation, Incarnation(2));
}

#[test]
fn damage_of_any_octet_and_truncation_at_any_length_is_refused() {
    let scratch = Scratch::new("damage");
    let mut file = DurableFile::open(&scratch.0, identity()).unwrap();
    file.store(Durable {
        promised: epoch(7),
        led: epoch(5),
        ..file.state()
    })
    .unwrap();
    drop(file);
    let good = fs::read(scratch.epoch()).unwrap();
    let refused = |octets: &[u8]| {
        fs::write(scratch.epoch(), octets).unwrap();
        let error = DurableFile::open(&scratch.0, identity()).unwrap_err();
        assert!(matches!(error, DurableError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("never used"), "{error}");
        assert_eq!(fs::read(scratch.epoch()).unwrap(), octets, "it was touched");
    };
    for length in 0..good.len() {
        refused(&good[..length]);
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            refused(&bad);
        }
    }
    refused(&[good.as_slice(), b"x"].concat());
    refused(&vec![b'x'; 1 << 20]);
}

#[test]
fn an_identity_that_has_used_up_its_incarnations_is_refused() {
    let scratch = Scratch::new("exhausted");
    drop(DurableFile::open(&scratch.0, identity()).unwrap());
    // Only a file with a right checksum gets that far; make one as the last incarnation would.
    let text = fs::read_to_string(scratch.epoch()).unwrap();
    let (body, _) = text.rsplit_once("checksum ").unwrap();
    let body = body.replace("incarnation 1\n", "incarnation 16777215\n");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let sum: String = hash.as_ref().iter().map(|o| format!("{o:02x}")).collect();
    fs::write(scratch.epoch(), format!("{body}checksum {sum}\n")).unwrap();
    let error = DurableFile::open(&scratch.0, identity()).unwrap_err();
    assert!(matches!(error, DurableError::Exhausted { .. }), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let error = DurableFile::open(Path::new("/proc/hitless"), identity()).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot create /proc/hitless"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_name_and_state_survives(
        cluster in "\\PC{0,12}|[\\n\\r\\\\ \"'{}é\u{1F600}]{0,12}",
        counter: u64, leader: u8, incarnation: u32,
    ) {
        let scratch = Scratch::new("any");
        let identity = Identity { cluster, member: MemberId(9) };
        let mut file = DurableFile::open(&scratch.0, identity.clone()).unwrap();
        let epoch = Some(Epoch { counter, leader: MemberId(leader), incarnation: Incarnation(incarnation) });
        let state = Durable { promised: epoch, led: epoch, ..file.state() };
        file.store(state).unwrap();
        drop(file);
        let file = DurableFile::open(&scratch.0, identity).unwrap();
        prop_assert_eq!(file.state(), Durable { incarnation: Incarnation(2), ..state });
    }
}

/// A takeover waits for the write: it must not fail because the disk is full. What is written in
/// place needs no room.
#[test]
fn a_write_takes_no_new_file() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new("room");
    let mut file = DurableFile::open(&scratch.0, identity()).unwrap();
    let mut inodes = std::collections::BTreeSet::new();
    for counter in [1, 2, u64::MAX, 3, 4] {
        let state = Durable {
            promised: epoch(counter),
            ..file.state()
        };
        file.store(state).unwrap();
        for name in ["epoch", "epoch.new"] {
            inodes.insert(fs::metadata(scratch.0.join(name)).unwrap().ino());
        }
    }
    assert_eq!(inodes.len(), 2, "{inodes:?}");
    assert!(!scratch.0.join("epoch.old").exists());
    let last = file.state();
    drop(file);
    let file = DurableFile::open(&scratch.0, identity()).unwrap();
    assert_eq!(file.state().promised, last.promised);
}
