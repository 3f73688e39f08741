//! Certificate revocation lists: read again when their files change, so that a fresh list takes
//! effect without a restart. Whoever fetches lists (a cron job) puts a new file in the old one's
//! place.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::Instant;

use crate::config::{Config, read_crls};
use crate::ike::auth::{RemoteAuth, RemoteCertificates};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(60);

/// What tells one version of a file from another: device and inode, size, and time of change.
type Version = Option<(u64, u64, u64, i64, i64)>;

/// Every connection's lists.
pub struct CrlFiles {
    watched: Vec<(Arc<RemoteCertificates>, Vec<Version>)>,
    look_at: Option<Instant>,
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
        }
    }

    /// Looks at the files if it is time to. What cannot be read leaves the lists as they were.
    pub fn look(&mut self, now: Instant) {
        if self.watched.is_empty() || self.look_at.is_some_and(|at| now < at) {
            return;
        }
        self.look_at = Some(now + EVERY);
        for (remote, known) in &mut self.watched {
            let found = versions(&remote.crl_files);
            if found == *known {
                continue;
            }
            *known = found;
            match read_crls(&remote.crl_files) {
                Ok(lists) => {
                    tracing::info!(lists = lists.len(), "revocation lists read again");
                    remote.trust.replace_crls(lists);
                }
                Err(reason) => tracing::warn!("revocation lists left as they were: {reason}"),
            }
        }
    }
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
        };
        let now = Instant(5);
        files.look(now);
        assert_eq!(files.watched[0].1, first);
        fs::write(&file, "another").unwrap();
        files.look(now + Duration::from_secs(1));
        assert_eq!(files.watched[0].1, first, "not yet");
        files.look(now + EVERY);
        assert_ne!(files.watched[0].1, first);
        fs::remove_file(&file).unwrap();
        files.look(now + EVERY * 2);
        assert_eq!(files.watched[0].1, [None]);
    }
}
