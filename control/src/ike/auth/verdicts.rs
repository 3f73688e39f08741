//! Chains that were found good, so that a peer that comes back - with a ticket, or to authenticate
//! anew - costs no signature again. Only what was good is kept: whoever shows a bad chain is refused
//! by a look at it each time, and cannot drive out what is kept of others.
//!
//! A verdict counts for the very same octets, the same anchors and the same revocation lists, not
//! before it was made, and not after the first of all that it rests on has expired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use super::chain::Verified;

/// Kept at most, for one set of anchors.
const MOST: usize = 256;

/// What names a chain: SHA-256 of its certificates.
pub(super) type Name = [u8; 32];

struct Verdict {
    since: u64,
    until: u64,
    verified: Arc<Verified>,
}

/// Verdicts by the chains that they are of.
#[derive(Default)]
pub(super) struct Verdicts {
    kept: BTreeMap<Name, Verdict>,
    /// How often the lists have been replaced.
    pub generation: u64,
}

/// The name of a chain; `None` if a certificate is longer than can be said.
pub(super) fn name(chain: &[&[u8]]) -> Option<Name> {
    let mut context = Context::new(&SHA256);
    for certificate in chain {
        // So that no other division has the same name.
        let length = u32::try_from(certificate.len()).ok()?;
        context.update(&length.to_be_bytes());
        context.update(certificate);
    }
    context.finish().as_ref().try_into().ok()
}

impl Verdicts {
    /// Other lists count from now on.
    pub fn renew(&mut self) {
        self.kept.clear();
        self.generation = self.generation.wrapping_add(1);
    }

    pub fn find(&self, name: &Name, time: Duration) -> Option<Arc<Verified>> {
        let verdict = self.kept.get(name)?;
        let counts = (verdict.since..=verdict.until).contains(&time.as_secs());
        counts.then(|| verdict.verified.clone())
    }

    /// Keeps one that was made by the lists of a generation, until what it rests on expires.
    pub fn keep(
        &mut self,
        name: Name,
        generation: u64,
        time: Duration,
        until: u64,
        verified: Arc<Verified>,
    ) {
        if generation != self.generation || until < time.as_secs() {
            return;
        }
        if self.kept.len() >= MOST && !self.kept.contains_key(&name) {
            // What expires first goes first.
            let first = self.kept.iter().min_by_key(|(_, verdict)| verdict.until);
            if let Some(first) = first.map(|(name, _)| *name) {
                self.kept.remove(&first);
            }
        }
        let since = time.as_secs();
        let verdict = Verdict {
            since,
            until,
            verified,
        };
        self.kept.insert(name, verdict);
    }
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verdicts({})", self.kept.len())
    }
}
