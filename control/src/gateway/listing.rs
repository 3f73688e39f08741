//! Lists of what an operator sees. Tens of thousands of SAs take longer to describe than a lease
//! lasts, and than a peer waits for IKE: a turn describes a slice of them, and what comes or goes
//! between two slices may be missed.

use std::ops::Bound;
use std::sync::Arc;
use std::vec;

use hitless_dataplane::spd::Spd;
use hitless_sa::{IkeSpi, Instant, SaId};
use serde::Serialize;

use super::Gateway;
use super::show::is_called;
use crate::api::{IkeSaStatus, PolicyReport, Reply, SaReport, Shown};

/// What a slice looks at, at most.
pub const SLICE: usize = 64;

/// A list under way.
pub struct Listing {
    of: Of,
    /// Something was shown.
    found: bool,
    over: bool,
}

enum Of {
    IkeSas {
        left: vec::IntoIter<(u32, IkeSpi)>,
        connection: Option<String>,
    },
    ChildSas {
        behind: Bound<SaId>,
        which: Option<String>,
    },
    Policies {
        all: Arc<Spd>,
        next: usize,
    },
}

/// One entry, as the whole answer has it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Row {
    IkeSa(Box<IkeSaStatus>),
    ChildSa(Box<SaReport>),
    Policy(Box<PolicyReport>),
}

impl Listing {
    fn new(of: Of) -> Listing {
        Listing {
            of,
            found: false,
            over: false,
        }
    }

    /// Begins `hitless show sa`.
    pub fn of_child_sas(which: Option<String>) -> Listing {
        Listing::new(Of::ChildSas {
            behind: Bound::Unbounded,
            which,
        })
    }

    /// The answer without an entry.
    pub fn empty(&self) -> Reply {
        let shown = match &self.of {
            Of::IkeSas { .. } => return Reply::Sas { sas: Vec::new() },
            Of::ChildSas { .. } => Shown::Sas { sas: Vec::new() },
            Of::Policies { .. } => Shown::Policies {
                policies: Vec::new(),
            },
        };
        Reply::Shown { shown }
    }

    /// Whether everything has been looked at.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl Row {
    pub(super) fn into_ike_sa(self) -> Option<IkeSaStatus> {
        match self {
            Row::IkeSa(sa) => Some(*sa),
            _ => None,
        }
    }

    pub(super) fn into_child_sa(self) -> Option<SaReport> {
        match self {
            Row::ChildSa(sa) => Some(*sa),
            _ => None,
        }
    }

    pub(super) fn into_policy(self) -> Option<PolicyReport> {
        match self {
            Row::Policy(policy) => Some(*policy),
            _ => None,
        }
    }
}

impl Gateway {
    /// Begins `hitless list-sas`: the oldest first, of one connection or of all.
    pub fn list_ike_sas(&self, connection: Option<&str>) -> Result<Listing, String> {
        if let Some(name) = connection.filter(|name| !self.has_connection(name)) {
            return Err(format!("the configuration has no connection {name:?}"));
        }
        Ok(Listing::new(Of::IkeSas {
            left: self.engine.by_age().into_iter(),
            connection: connection.map(ToOwned::to_owned),
        }))
    }

    /// Begins `hitless show policies`.
    pub fn list_policies(&self) -> Listing {
        Listing::new(Of::Policies {
            all: Arc::clone(&self.policies),
            next: 0,
        })
    }

    /// The next slice of a list, or what is wrong with the question.
    pub fn list_on(&mut self, now: Instant, listing: &mut Listing) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        let mut looked = 0;
        match &mut listing.of {
            Of::IkeSas { left, connection } => {
                for (_, ike) in left.by_ref().take(SLICE) {
                    looked += 1;
                    let sa = self.engine.status_of(now, ike);
                    let asked = |name: &str| connection.as_deref().is_none_or(|of| of == name);
                    if let Some(sa) = sa.filter(|sa| asked(&sa.name)) {
                        rows.push(Row::IkeSa(Box::new(self.ike_sa(now, sa))));
                    }
                }
            }
            Of::ChildSas { behind, which } => {
                for carried in self.children.behind(*behind).take(SLICE) {
                    looked += 1;
                    *behind = Bound::Excluded(carried.child.id);
                    if which
                        .as_deref()
                        .is_none_or(|which| is_called(carried, which))
                    {
                        rows.push(Row::ChildSa(Box::new(self.sa_report(now, carried))));
                    }
                }
            }
            Of::Policies { all, next } => {
                let slice = all.policies().iter().enumerate().skip(*next).take(SLICE);
                for (index, policy) in slice {
                    looked += 1;
                    let report = self.policy_report(all, index, policy);
                    rows.push(Row::Policy(Box::new(report)));
                }
                *next += SLICE;
            }
        }
        listing.over = looked < SLICE;
        listing.found |= !rows.is_empty();
        match &listing.of {
            Of::ChildSas {
                which: Some(which), ..
            } if listing.over && !listing.found => Err(nobody(which)),
            _ => Ok(rows),
        }
    }

    /// All of a list at once, heartbeats in between.
    pub(super) fn list_all(
        &mut self,
        now: Instant,
        mut listing: Listing,
    ) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        while !listing.is_over() {
            self.beat();
            rows.extend(self.list_on(now, &mut listing)?);
        }
        Ok(rows)
    }
}

fn nobody(which: &str) -> String {
    format!(
        "no Child SA is called {which:?}; name a connection, a child, connection.child, an SPI (8 \
         hexadecimal digits) or an SA as `hitless show sa` prints them"
    )
}
