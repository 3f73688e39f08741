//! The rules of the lease protocol as a model, searched exhaustively within bounds.
//!
//! ```text
//!  rules.rs (what can be left out) -> cluster.rs (members, messages, steps)    -> every state
//!                                     session.rs (how a standby leaves and joins anew)
//!                                     handover.rs (the same two, looked at closely)
//! ```
//!
//! With all rules no number is ever sent twice; with any one of them left out the search finds a
//! history in which one is. The simulator (`sim/`) runs the code; this runs the thought behind it.
//!
//! `cluster.rs` has two members and three, crashes, restarts, votes. `handover.rs` has the inbound
//! mirror, the exact ends of a planned switchover, and the first grants of an SA.

mod cluster;
mod handover;
mod rules;
mod session;

use std::fmt;

use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model};

use cluster::Cluster;
use handover::Handover;
pub use rules::Rule;

const REPEATED: &str = "no number is sent twice";
const DELIVERED: &str = "no packet is delivered twice";
const CARRIED_ON: &str = "a successor sends";

/// How far to search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Half a minute: for tests.
    Quick,
    /// All that was searched before a release.
    Full,
}

/// One search.
#[derive(Serialize, Clone, Default, Debug)]
pub struct Search {
    /// With switchovers, pausing workers and inbound packets.
    pub closely: bool,
    pub members: u8,
    pub takeovers: u8,
    pub restarts: u8,
    /// How often a member leaves its session within one incarnation.
    pub leaves: u8,
    /// How often a leader renames its epoch without a vote.
    pub renames: u8,
    /// Standbys are admitted first, and learn until then.
    pub admission: bool,
    /// The SA may be deleted meanwhile.
    pub deletes: bool,
    pub numbers: u8,
    /// The rule left out, if any.
    pub without: Option<Rule>,
    pub states: usize,
    /// A number was sent twice, or a packet delivered twice.
    pub repeated: bool,
    /// Somebody took over and sent.
    pub carried_on: bool,
    /// How it came about, a line a step; empty unless a number was repeated.
    pub history: Vec<String>,
}

impl Search {
    /// Whether the search found what it should: nothing with all rules, something without one.
    pub fn as_expected(&self) -> bool {
        match self.without {
            None => !self.repeated && self.carried_on,
            Some(_) => self.repeated,
        }
    }
}

/// All searches.
#[derive(Serialize, Clone, Debug)]
pub struct Summary {
    pub searches: Vec<Search>,
}

impl Summary {
    pub fn as_expected(&self) -> bool {
        self.searches.iter().all(Search::as_expected)
    }
}

fn bounds(members: u8, takeovers: u8, restarts: u8, numbers: u8) -> Cluster {
    Cluster {
        members,
        numbers,
        epochs: takeovers + 1,
        restarts,
        leaves: 0,
        renames: 0,
        admission: false,
        deletes: false,
        lease: 2,
        without: None,
    }
}

/// Leases of one size make histories of the same length fewer.
fn equal_leases(cluster: Cluster) -> Cluster {
    Cluster {
        lease: 1,
        ..cluster
    }
}

/// A member leaves once and comes back, and a leader may rename its epoch.
fn leaving(cluster: Cluster) -> Cluster {
    Cluster {
        leaves: 1,
        renames: 1,
        ..cluster
    }
}

fn admitting(cluster: Cluster) -> Cluster {
    Cluster {
        admission: true,
        ..cluster
    }
}

/// A leader may delete the SA while a standby learns.
fn deleting(cluster: Cluster) -> Cluster {
    Cluster {
        deletes: true,
        ..admitting(cluster)
    }
}

/// Bounds within which the search is to find what a rule is good for.
fn attempts(rule: Rule) -> Vec<Cluster> {
    match rule {
        Rule::AckOfThisEpoch => return vec![bounds(3, 2, 0, 2)],
        Rule::AckOfThisIncarnation => return vec![bounds(2, 1, 1, 2), bounds(2, 2, 1, 3)],
        Rule::RightAtAdmit => return vec![admitting(bounds(2, 2, 0, 3))],
        Rule::DeletionIsOwed | Rule::DeletionIsTheLast => {
            return vec![deleting(bounds(2, 2, 0, 3))];
        }
        Rule::GrantNamesSession
        | Rule::AckOfThisSession
        | Rule::LeavingEndsRights
        | Rule::ReleaseNeedsFreshWord
        | Rule::ReleaseNotAboveLed
        | Rule::RenameOnlyUnbound => return vec![leaving(bounds(2, 2, 0, 3))],
        _ => {}
    }
    match rule.needs_three() {
        true => vec![bounds(3, 1, 0, 3), bounds(3, 2, 0, 3), bounds(3, 2, 1, 3)],
        false => vec![bounds(2, 2, 1, 3), bounds(2, 3, 2, 3), bounds(3, 2, 0, 3)],
    }
}

/// The same among three members, for rules that two need already: the vote takes none of them away.
fn among_three(rule: Rule) -> Option<Cluster> {
    match rule {
        Rule::FirstOfferBinds | Rule::RecordBeforeAck | Rule::OneAboveTheGrant => {
            Some(equal_leases(bounds(3, 1, 0, 3)))
        }
        Rule::GrantNamesSession
        | Rule::LeavingEndsRights
        | Rule::ReleaseNeedsFreshWord
        | Rule::RenameOnlyUnbound => Some(leaving(equal_leases(bounds(3, 1, 0, 2)))),
        Rule::RightAtAdmit => Some(admitting(equal_leases(bounds(3, 1, 0, 2)))),
        Rule::LowerEpochRefused => Some(equal_leases(bounds(3, 2, 0, 3))),
        _ => None,
    }
}

/// Searches with all rules, then once without each. `tell` hears of each search as it ends.
pub fn run(depth: Depth, mut tell: impl FnMut(&Search)) -> Summary {
    let whole = match depth {
        Depth::Quick => vec![
            bounds(2, 2, 1, 3),
            leaving(bounds(2, 2, 0, 3)),
            admitting(bounds(2, 2, 0, 3)),
            deleting(bounds(2, 2, 0, 3)),
            leaving(admitting(equal_leases(bounds(2, 2, 0, 2)))),
            equal_leases(bounds(3, 1, 0, 3)),
            leaving(equal_leases(bounds(3, 1, 0, 2))),
        ],
        Depth::Full => vec![
            bounds(2, 3, 1, 4),
            bounds(2, 2, 2, 4),
            leaving(bounds(2, 2, 0, 3)),
            leaving(bounds(2, 2, 1, 2)),
            admitting(bounds(2, 2, 0, 3)),
            deleting(bounds(2, 2, 0, 3)),
            leaving(admitting(equal_leases(bounds(2, 2, 0, 2)))),
            leaving(equal_leases(bounds(3, 1, 0, 2))),
            bounds(3, 1, 0, 3),
            equal_leases(bounds(3, 2, 0, 3)),
            equal_leases(bounds(3, 1, 1, 2)),
        ],
    };
    let mut searches = Vec::new();
    for cluster in &whole {
        searches.push(search(cluster));
        searches.last().into_iter().for_each(&mut tell);
    }
    let close = close_searches().map(|model| search_closely(&model));
    for search in close {
        tell(&search);
        searches.push(search);
    }
    for rule in Rule::ALL {
        let mut found = None;
        // The smallest bounds first: most rules are missed at once.
        for mut cluster in attempts(*rule) {
            cluster.without = Some(*rule);
            let search = search(&cluster);
            let enough = search.repeated;
            found = Some(search);
            if enough {
                break;
            }
        }
        let three = among_three(*rule).map(|mut cluster| {
            cluster.without = Some(*rule);
            search(&cluster)
        });
        for search in found.into_iter().chain(three) {
            tell(&search);
            searches.push(search);
        }
    }
    Summary { searches }
}

/// Handovers, whole and without each of the rules that matter there.
fn close_searches() -> impl Iterator<Item = Handover> {
    let each = Rule::CLOSER.iter().map(|rule| Some(*rule));
    let all = std::iter::once(None).chain(each);
    all.map(|without| Handover {
        numbers: 2,
        epochs: 2,
        without,
    })
}

fn search(cluster: &Cluster) -> Search {
    let shape = Search {
        members: cluster.members,
        takeovers: cluster.epochs - 1,
        restarts: cluster.restarts,
        leaves: cluster.leaves,
        renames: cluster.renames,
        admission: cluster.admission,
        deletes: cluster.deletes,
        numbers: cluster.numbers,
        without: cluster.without,
        ..Search::default()
    };
    explore(cluster.clone(), shape)
}

fn search_closely(model: &Handover) -> Search {
    let shape = Search {
        members: 2,
        takeovers: model.epochs - 1,
        numbers: model.numbers,
        without: model.without,
        closely: true,
        ..Search::default()
    };
    explore(model.clone(), shape)
}

/// Visits every state, or one that should not be if a rule is left out.
fn explore<M>(model: M, shape: Search) -> Search
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + PartialEq + Send + Sync + std::hash::Hash + fmt::Debug + 'static,
    M::Action: fmt::Debug + PartialEq + Clone,
{
    let mut builder = model.checker().threads(2);
    if shape.without.is_some() {
        builder = builder
            .finish_when(HasDiscoveries::AnyFailures)
            .target_state_count(30_000_000);
    }
    let checker = builder.spawn_bfs().join();
    let wrong = [REPEATED, DELIVERED]
        .into_iter()
        .find_map(|property| checker.discovery(property));
    let history = wrong.map(|path| {
        let steps = path.into_actions();
        steps.iter().map(|step| format!("{step:?}")).collect()
    });
    Search {
        states: checker.unique_state_count(),
        repeated: history.is_some(),
        carried_on: checker.discovery(CARRIED_ON).is_some(),
        history: history.unwrap_or_default(),
        ..shape
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = match (self.closely, self.admission, self.deletes) {
            (true, ..) => "all rules, with handovers and inbound packets",
            (false, true, true) => "all rules, with learners and a deletion",
            (false, true, false) => "all rules, with learners",
            (false, false, _) => "all rules",
        };
        let what = self.without.map_or(all, Rule::says);
        let found = match (self.repeated, self.carried_on) {
            (true, _) => "a repetition",
            (false, true) => "no repetition",
            (false, false) => "nobody took over",
        };
        let verdict = if self.as_expected() { "ok  " } else { "FAIL" };
        write!(
            f,
            "{verdict} {} members, {} takeovers, {} restarts, {} leaves, {} renames: {:>9} states, \
             {found:<18}  {}{what}",
            self.members,
            self.takeovers,
            self.restarts,
            self.leaves,
            self.renames,
            self.states,
            if self.without.is_some() {
                "without "
            } else {
                ""
            },
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for search in &self.searches {
            writeln!(f, "{search}")?;
        }
        let states: usize = self.searches.iter().map(|search| search.states).sum();
        let missed = self.searches.iter().filter(|search| !search.as_expected());
        write!(
            f,
            "{states} states in all, {} searches not as expected",
            missed.count()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_a_handover_matters() {
        for model in close_searches().filter(|model| model.without.is_some()) {
            let search = search_closely(&model);
            assert!(search.as_expected(), "{search}");
        }
    }

    #[test]
    fn each_rule_of_a_session_matters() {
        for whole in [leaving, admitting, deleting].map(|with| with(bounds(2, 2, 0, 3))) {
            let search = search(&whole);
            assert!(search.as_expected(), "{search}");
        }
        for rule in Rule::ALL {
            for mut cluster in attempts(*rule) {
                cluster.without = Some(*rule);
                if cluster.leaves > 0 || cluster.admission {
                    let search = search(&cluster);
                    assert!(search.as_expected(), "{search}");
                }
            }
        }
    }
}
