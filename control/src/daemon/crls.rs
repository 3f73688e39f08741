//! Certificate revocation lists: read again when their files change, so that a fresh list takes
//! effect without a restart. Whoever fetches lists (a cron job) puts a new file in the old one's
//! place. They may be large, and the control thread has heartbeats to send: a thread of its own looks
//! at the files and reads them, each once however many connections name it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hitless_sa::Instant;

use crate::config::{Config, read_crls};
use crate::ike::auth::{RemoteAuth, RemoteCertificates, RevocationList};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(60);

/// What tells one version of a file from another: device and inode, size, and time of change.
type Version = Option<(u64, u64, u64, i64, i64)>;

/// Of each connection, its lists and the versions of their files that they come from.
type Watched = Vec<(Arc<RemoteCertificates>, Vec<Version>)>;

/// Every connection's lists.
pub struct CrlFiles {
    watched: Watched,
    look_at: Option<Instant>,
    /// Has what is watched while it looks; gives whether any list is another now.
    looking: Option<JoinHandle<(Watched, bool)>>,
}

fn versions(files: &[PathBuf]) -> Vec<Version> {
    let version = |file: &PathBuf| {
        let found = fs::metadata(file).ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.size(),
            found.ctime(),
            found.ctime_nsec(),
        ))
    };
    files.iter().map(version).collect()
}

impl CrlFiles {
    pub fn of(config: &Config) -> CrlFiles {
        let remotes = config
            .connections
            .iter()
            .filter_map(|c| match &c.auth.remote {
                RemoteAuth::Pubkey(remote) if !remote.crl_files.is_empty() => Some(remote.clone()),
                RemoteAuth::Pubkey(_) | RemoteAuth::Psk | RemoteAuth::Eap(_) => None,
            });
        let watched = remotes.map(|remote| {
            let versions = versions(&remote.crl_files);
            (remote, versions)
        });
        CrlFiles {
            watched: watched.collect(),
            look_at: None,
            looking: None,
        }
    }

    /// Has the files looked at if it is time to, and says whether they brought other lists since it was
    /// asked last. What cannot be read leaves the lists as they were.
    pub fn look(&mut self, now: Instant) -> bool {
        let mut replaced = false;
        if let Some(thread) = self.looking.take_if(|thread| thread.is_finished()) {
            // One that panicked has said so: what it was to look at is looked at again.
            if let Ok(looked) = thread.join() {
                (self.watched, replaced) = looked;
            }
        }
        if self.looking.is_some()
            || self.watched.is_empty()
            || self.look_at.is_some_and(|at| now < at)
        {
            return replaced;
        }
        self.look_at = Some(now + EVERY);
        let watched = self.watched.clone();
        let thread = thread::Builder::new().name("crls".to_owned());
        match thread.spawn(move || read_again(watched)) {
            Ok(thread) => self.looking = Some(thread),
            Err(error) => tracing::warn!("revocation lists not looked at: no thread: {error}"),
        }
        replaced
    }
}

/// Puts what changed in the place of what was there.
fn read_again(mut watched: Watched) -> (Watched, bool) {
    let mut replaced = false;
    let mut read: BTreeMap<PathBuf, Result<Vec<RevocationList>, String>> = BTreeMap::new();
    for (remote, known) in &mut watched {
        let found = versions(&remote.crl_files);
        if found == *known {
            continue;
        }
        *known = found;
        let lists = remote.crl_files.iter().map(|file| {
            let lists = read.entry(file.clone());
            lists
                .or_insert_with(|| read_crls(slice::from_ref(file)))
                .clone()
        });
        match lists.collect::<Result<Vec<_>, _>>() {
            Ok(lists) => {
                let lists = lists.concat();
                tracing::info!(lists = lists.len(), "revocation lists read again");
                remote.trust.replace_crls(lists);
                replaced = true;
            }
            Err(reason) => tracing::warn!("revocation lists left as they were: {reason}"),
        }
    }
    (watched, replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::auth::{Family, Revocation, Trust};

    #[test]
    fn a_file_that_changed_is_noticed_and_garbage_changes_nothing() {
        let file = std::env::temp_dir().join(format!("hitless-crl-{}", std::process::id()));
        fs::write(&file, "first").unwrap();
        let remote = Arc::new(RemoteCertificates {
            trust: Trust::new(Revocation::Relaxed),
            family: Family::Any,
            crl_files: vec![file.clone()],
        });
        let first = versions(&remote.crl_files);
        let mut files = CrlFiles {
            watched: vec![(remote, first.clone())],
            look_at: None,
            looking: None,
        };
        let now = Instant(5);
        let mut replaced = false;
        let mut seen = |files: &mut CrlFiles, now| {
            replaced |= files.look(now);
            while files.looking.is_some() {
                thread::yield_now();
                replaced |= files.look(now);
            }
            (files.watched[0].1.clone(), std::mem::take(&mut replaced))
        };
        assert_eq!(seen(&mut files, now), (first.clone(), false));
        fs::write(&file, "another").unwrap();
        let soon = now + Duration::from_secs(1);
        assert_eq!(seen(&mut files, soon).0, first, "not yet");
        let (another, replaced) = seen(&mut files, now + EVERY);
        assert!(another != first && !replaced, "garbage is no list");
        fs::write(&file, list()).unwrap();
        let (listed, replaced) = seen(&mut files, now + EVERY * 2);
        assert!(listed != another && replaced, "a list is");
        assert_eq!(seen(&mut files, now + EVERY * 3), (listed, false));
        fs::remove_file(&file).unwrap();
        assert_eq!(seen(&mut files, now + EVERY * 4), (vec![None], false));
    }

    fn list() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 2, 1),
            next_update: rcgen::date_time_ymd(2026, 3, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&rcgen::Issuer::new(params, key)).unwrap();
        list.der().to_vec()
    }
}
