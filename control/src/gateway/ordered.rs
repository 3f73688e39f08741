//! How it comes out what an operator ordered. Whoever waits for it hears what IKE tells, and asks now
//! and then: it is done, it has failed, or it goes on.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use hitless_sa::{Instant, SaId};

use super::operate::Chosen;
use super::{Event, Gateway};
use crate::ike;

/// An order that was taken.
#[derive(Debug)]
pub struct Ordered {
    aim: Aim,
    /// `closing 2 IKE_SAs`, and what to know beside.
    doing: String,
    beside: String,
    /// `closed 2 IKE_SAs`.
    done: String,
    /// What went wrong last, in the words of the log.
    trouble: Option<String>,
}

/// When an order is done.
#[derive(Debug)]
enum Aim {
    /// A Child SA of this name is in use.
    Up {
        connection: String,
        child: String,
        peers: Vec<IpAddr>,
    },
    /// None of these is left.
    Gone(BTreeSet<Chosen>),
    /// Each of these has a successor.
    Replaced(BTreeSet<Chosen>),
    /// Another member leads.
    Followed,
}

/// How far an order is.
#[derive(PartialEq, Eq, Debug)]
pub enum Progress {
    Done(String),
    Failed(String),
    Waits,
}

/// What is said to one who does not wait for the end of it.
impl fmt::Display for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.doing, self.beside)
    }
}

impl Ordered {
    fn new(aim: Aim, doing: String, done: String) -> Ordered {
        Ordered {
            aim,
            doing,
            beside: String::new(),
            done,
            trouble: None,
        }
    }

    pub(super) fn up(connection: String, child: String, peers: Vec<IpAddr>) -> Ordered {
        let name = format!("{connection}.{child}");
        let aim = Aim::Up {
            connection,
            child,
            peers,
        };
        let ordered = Ordered::new(aim, format!("initiating {name}"), format!("{name} is up"));
        ordered.with("; `hitless list-sas` shows it".to_owned())
    }

    /// `what` says which these are.
    pub(super) fn gone(chosen: BTreeSet<Chosen>, what: &str) -> Ordered {
        let (doing, done) = (format!("closing {what}"), format!("closed {what}"));
        Ordered::new(Aim::Gone(chosen), doing, done)
    }

    pub(super) fn replaced(chosen: BTreeSet<Chosen>, what: &str) -> Ordered {
        let (doing, done) = (format!("rekeying {what}"), format!("rekeyed {what}"));
        Ordered::new(Aim::Replaced(chosen), doing, done)
    }

    pub(super) fn followed(successor: hitless_sa::MemberId) -> Ordered {
        let doing = format!("handing over to member {successor}");
        Ordered::new(Aim::Followed, doing, String::new())
    }

    pub(super) fn with(self, beside: String) -> Ordered {
        Ordered { beside, ..self }
    }

    /// What happens while somebody waits.
    pub fn hears(&mut self, event: &Event) {
        use ike::Event as I;
        let Event::Ike(event) = event else { return };
        match (&mut self.aim, event) {
            (
                Aim::Up { peers, .. },
                I::AuthenticationFailed { peer, reason } | I::NegotiationFailed { peer, reason },
            ) if peers.contains(&peer.ip()) => self.trouble = Some(format!("{peer}: {reason}")),
            (Aim::Replaced(open), I::IkeRekeyed { old, .. }) => {
                open.remove(&Chosen::Ike(*old));
            }
            (Aim::Replaced(open), I::ChildRekeyed { old, .. }) => {
                open.remove(&Chosen::Child(*old));
            }
            _ => {}
        }
    }

    /// Nobody waits any longer.
    pub fn given_up(&self) -> String {
        let trouble = self.trouble.as_deref().unwrap_or("no answer yet");
        match &self.aim {
            Aim::Up { .. } => format!("still {}: {trouble}", self.doing),
            Aim::Gone(open) | Aim::Replaced(open) => {
                format!("still {}: {} left; no answer yet", self.doing, open.len())
            }
            Aim::Followed => format!("still {}", self.doing),
        }
    }

    fn is_done(&self) -> Progress {
        Progress::Done(format!("{}{}", self.done, self.beside))
    }
}

impl Gateway {
    /// How far an order is; work for what was done since it was asked last.
    pub fn progress(&self, now: Instant, ordered: &mut Ordered) -> Progress {
        match &mut ordered.aim {
            Aim::Up {
                connection, child, ..
            } => {
                if self.carries(connection, child) {
                    return Progress::Done(ordered.done.clone());
                }
                if self.engine.is_making(now, connection, child) {
                    return Progress::Waits;
                }
                let trouble = ordered.trouble.as_deref();
                let trouble = trouble.unwrap_or("the log says why");
                Progress::Failed(format!("{connection}.{child} is not up: {trouble}"))
            }
            Aim::Gone(open) => {
                while let Some(first) = open.first().filter(|one| !self.has(**one)).copied() {
                    open.remove(&first);
                }
                match open.is_empty() {
                    true => ordered.is_done(),
                    false => Progress::Waits,
                }
            }
            Aim::Replaced(open) => match open.first() {
                None => ordered.is_done(),
                Some(first) if self.has(*first) => Progress::Waits,
                Some(first) => Progress::Failed(format!("{first} was closed, not rekeyed")),
            },
            Aim::Followed => {
                let me = self.settings.config().cluster.id;
                let leader = self.node.status(now).leader;
                match leader.filter(|leader| *leader != me) {
                    Some(leader) => Progress::Done(format!("member {leader} leads")),
                    None if self.leading() && !self.handing_over => {
                        Progress::Failed("this member leads still; its log says why".to_owned())
                    }
                    None => Progress::Waits,
                }
            }
        }
    }

    /// Whether traffic of a child is carried.
    fn carries(&self, connection: &str, child: &str) -> bool {
        let made = self.engine.child_sas_of(connection, child);
        let mut carried = made.filter_map(|sa: SaId| self.children.get(sa));
        carried.any(|child| child.send)
    }

    fn has(&self, one: Chosen) -> bool {
        match one {
            Chosen::Ike(ike) => self.engine.connection(ike).is_some(),
            Chosen::Child(sa) => self.children.get(sa).is_some(),
        }
    }
}
