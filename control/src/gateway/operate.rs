//! What an operator asks of IKE: initiate, terminate, rekey, redirect, reload. Only the active member does
//! any of it, but for `reload`, which each member does for itself.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use hitless_sa::{Entropy, IkeSpi, Instant, SaId};

use super::ordered::Ordered;
use super::{ClusterSecret, Gateway};
use crate::api::Choice;
use crate::config::Config;
use crate::ike::Input;
use crate::ike::status::IkeSaStatus;

const NOT_ACTIVE: &str = "this member is not active; ask the one that is (`hitless status`)";

impl Gateway {
    /// `--initiate`: brings a child up, with its IKE SA if there is none.
    pub fn initiate(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        child: &str,
        ike: Option<&str>,
    ) -> Result<Ordered, String> {
        self.active()?;
        let connections = self.settings.config().connections.iter();
        let having = connections.filter(|connection| {
            let named = ike.is_none_or(|ike| ike == connection.name);
            named && connection.children.iter().any(|c| c.name == child)
        });
        let having: Vec<_> = having.collect();
        let connection = match having.as_slice() {
            [one] => one,
            [] => return Err(unknown_child(child, ike)),
            [first, ..] => {
                return Err(format!(
                    "several connections have a child {child}: add --ike, such as --ike {}",
                    first.name
                ));
            }
        };
        if connection.remote_addrs.is_empty() {
            return Err(format!(
                "connection {} names no remote_addrs: the peer has to begin",
                connection.name
            ));
        }
        let peers = connection.remote_addrs.clone();
        let (connection, child) = (connection.name.clone(), child.to_owned());
        let ordered = Ordered::up(connection.clone(), child.clone(), peers);
        let child = Some(child);
        self.ike(now, entropy, Input::Initiate { connection, child });
        Ok(ordered)
    }

    /// `--terminate`: closes SAs; this member does not start them again. One that leads after it, or a
    /// file that is read anew, knows what `start_action` says and not what was closed: the answer says so.
    pub fn terminate(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        choice: &Choice,
    ) -> Result<Ordered, String> {
        let chosen = self.chosen(now, choice)?;
        let started: BTreeSet<String> = chosen.iter().flat_map(|one| self.started(*one)).collect();
        self.order(now, entropy, &chosen, |chosen| match chosen {
            Chosen::Ike(ike) => Input::Terminate { ike },
            Chosen::Child(sa) => Input::TerminateChild(sa),
        });
        let what = so_many(&chosen, choice);
        let closing = Ordered::gone(chosen, &what);
        let Some(first) = started.first() else {
            return Ok(closing);
        };
        let more = match started.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        Ok(closing.with(format!(
            "; start_action starts {first}{more} again at a takeover or a reload"
        )))
    }

    /// `--rekey`: replaces SAs by such with fresh keys.
    pub fn rekey(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        choice: &Choice,
    ) -> Result<Ordered, String> {
        let chosen = self.chosen(now, choice)?;
        self.order(now, entropy, &chosen, |chosen| match chosen {
            Chosen::Ike(ike) => Input::RekeyIke(ike),
            Chosen::Child(sa) => Input::RekeyChild(sa),
        });
        let what = so_many(&chosen, choice);
        Ok(Ordered::replaced(chosen, &what))
    }

    /// Another member is to lead.
    pub fn switch_over(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<Ordered, String> {
        let successor = self.can_switch_over(now)?;
        self.switchover(now, entropy);
        Ok(Ordered::followed(successor))
    }

    /// Sends clients to another gateway (RFC 5685 section 5).
    pub fn redirect(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        choice: &Choice,
        to: IpAddr,
    ) -> Result<String, String> {
        self.active()?;
        if choice.is_of_children() {
            return Err("a client goes with all its SAs: name its IKE_SA alone".to_owned());
        }
        if to.is_unspecified() || to.is_multicast() || to.is_loopback() {
            return Err(format!("{to} is no address of a gateway"));
        }
        let mut chosen = Vec::new();
        self.each_ike_sa(now, |ike| {
            if !choose(ike, choice).is_empty() {
                chosen.push((ike.local_spi, ike.local.ip() == to));
            }
        });
        if chosen.is_empty() {
            return Err("no such SA; `hitless list-sas` shows what there is".to_owned());
        }
        let (mut asked, mut left) = (0, 0);
        for (ike, here) in chosen {
            if here || !self.engine.can_be_redirected(ike) {
                left += 1;
                continue;
            }
            asked += 1;
            self.ike(now, entropy, Input::Redirect { ike, to });
        }
        match (asked, left) {
            (0, _) => Err(format!(
                "none was redirected to {to}: clients go that began the IKE_SA, said that they can be \
                 redirected, and are not there already"
            )),
            (_, 0) => Ok(format!("redirecting {} to {to}", ike_sas(asked))),
            _ => Ok(format!(
                "redirecting {} to {to}; {} cannot be redirected",
                ike_sas(asked),
                ike_sas(left)
            )),
        }
    }

    /// What is meant, if this member may do anything with it.
    fn chosen(&mut self, now: Instant, choice: &Choice) -> Result<BTreeSet<Chosen>, String> {
        self.active()?;
        let mut chosen = BTreeSet::new();
        self.each_ike_sa(now, |ike| chosen.extend(choose(ike, choice)));
        match chosen.is_empty() {
            true => Err("no such SA; `hitless list-sas` shows what there is".to_owned()),
            false => Ok(chosen),
        }
    }

    /// Looks at every IKE SA, heartbeats in between.
    fn each_ike_sa(&mut self, now: Instant, mut each: impl FnMut(&IkeSaStatus)) {
        for (_, ike) in self.engine.by_age() {
            self.beat();
            if let Some(sa) = self.engine.status_of(now, ike) {
                each(&sa);
            }
        }
    }

    /// The children of it that `start_action` starts.
    fn started(&self, one: Chosen) -> Vec<String> {
        let (ike, only) = match one {
            Chosen::Ike(ike) => (Some(ike), None),
            Chosen::Child(sa) => (self.engine.ike_of(sa), self.children.get(sa)),
        };
        let Some(connection) = ike.and_then(|ike| self.engine.connection(ike)) else {
            return Vec::new();
        };
        let children = connection.children.iter().filter(|child| child.start);
        let closed = children.filter(|child| only.is_none_or(|only| only.name == child.name));
        closed
            .map(|child| format!("{}.{}", connection.name, child.name))
            .collect()
    }

    fn order(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        chosen: &BTreeSet<Chosen>,
        input: impl Fn(Chosen) -> Input<'static>,
    ) {
        for one in chosen {
            self.ike(now, entropy, input(*one));
        }
    }

    fn active(&self) -> Result<(), String> {
        let active = self.leading() && !self.handing_over;
        active.then_some(()).ok_or_else(|| NOT_ACTIVE.to_owned())
    }

    /// The file that the configuration was read from.
    pub fn config_path(&self) -> Option<std::path::PathBuf> {
        self.settings.config().path.clone()
    }

    /// `reload`: takes connections and secrets anew. What did not change goes on undisturbed; what
    /// the file has no more is closed.
    pub fn reload(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        config: Config,
    ) -> Result<String, String> {
        self.reload_with(now, entropy, config, ClusterSecret::default())
    }

    /// The same with what is slow to derive from it, if that is at hand.
    pub fn reload_with(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        config: Config,
        secret: ClusterSecret,
    ) -> Result<String, String> {
        let changed = self.settings.config().needs_restart(&config);
        if !changed.is_empty() {
            return Err(format!(
                "nothing was reloaded: {} changed, which needs a restart",
                changed.join(", ")
            ));
        }
        if self.handing_over {
            return Err("this member hands over; ask again in a moment".to_owned());
        }
        self.settings.reload(config, secret);
        let engine = self
            .settings
            .engine(self.node.status(now).durable.incarnation);
        let (beats, node) = (&mut self.beats, &mut self.node);
        let mut link = self.link.as_mut();
        let mut beat = || beats.look(node, link.as_deref_mut());
        let report = self.engine.reload_amid(now, entropy, engine, &mut beat);
        self.policies_changed = true;
        self.publication.urgent = true;
        let mut report = report.to_string();
        self.compare_again(now);
        let whole = self.read_again(now);
        if whole > 0 {
            report.push_str(&format!("; {} can be read now", ike_sas(whole)));
        }
        self.settle(now, entropy);
        Ok(report)
    }

    /// Revocation lists have changed: peers that are believed no more are closed by whoever leads them.
    pub fn relist(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let (beats, node) = (&mut self.beats, &mut self.node);
        let mut link = self.link.as_mut();
        let mut beat = || beats.look(node, link.as_deref_mut());
        self.engine.relist(now, entropy, &mut beat);
        self.settle(now, entropy);
    }
}

fn plural(count: usize, kind: &str) -> String {
    format!("{count} {kind}{}", if count == 1 { "" } else { "s" })
}

fn ike_sas(count: usize) -> String {
    plural(count, "IKE_SA")
}

fn so_many(chosen: &BTreeSet<Chosen>, choice: &Choice) -> String {
    match choice.is_of_children() {
        true => plural(chosen.len(), "CHILD_SA"),
        false => ike_sas(chosen.len()),
    }
}

/// One SA that is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Chosen {
    Ike(IkeSpi),
    Child(SaId),
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chosen::Ike(ike) => write!(f, "IKE_SA {ike}"),
            Chosen::Child(sa) => write!(f, "CHILD_SA {{{sa}}}"),
        }
    }
}

/// What is meant of an IKE SA.
fn choose(ike: &IkeSaStatus, choice: &Choice) -> Vec<Chosen> {
    let named = choice.ike.as_ref().is_none_or(|name| *name == ike.name);
    let unique = u64::from(ike.unique_id);
    if !named || choice.ike_id.is_some_and(|id| id != unique) {
        return Vec::new();
    }
    if !choice.is_of_children() {
        let meant = choice.ike.is_some() || choice.ike_id.is_some();
        let meant = meant.then_some(Chosen::Ike(ike.local_spi));
        return meant.into_iter().collect();
    }
    let children = ike.children.iter().filter(|child| {
        let named = choice.child.as_ref().is_none_or(|name| *name == child.name);
        let unique = u64::from(child.sa.counter);
        named && choice.child_id.is_none_or(|id| id == unique)
    });
    children.map(|child| Chosen::Child(child.sa)).collect()
}

fn unknown_child(child: &str, ike: Option<&str>) -> String {
    match ike {
        Some(ike) => {
            format!("connection {ike} has no child {child}, or there is none of that name")
        }
        None => format!("no connection has a child {child}"),
    }
}
