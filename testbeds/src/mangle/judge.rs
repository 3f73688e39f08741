//! What the gateway said to a wrong message, against what the RFC says that it has to say.

use hitless::ike::message::NotifyKind;

use super::bed::{Bed, NOT_AUTHENTICATED, Stage};
use super::peer::GROUP;
use super::wire::{self, AUTH, DELETE, KE, NONCE, NOTIFY, PROTOCOL_ESP, PROTOCOL_IKE, SA};

/// The RFC's answer.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// Nothing is sent, nothing changes, and a reason is counted.
    Silence,
    /// One message whose only error is this notification, with nothing agreed on: in clear before
    /// there are keys, protected afterwards. INVALID_SYNTAX ends the IKE SA.
    Refused(NotifyKind),
    /// The same with these octets of data.
    RefusedWith(NotifyKind, &'static [u8]),
    /// In clear, although there is an IKE SA.
    InClear(NotifyKind),
    /// What a message without fault gets.
    Usual,
    /// IKE_AUTH succeeds but for the Child SA.
    ChildRefused(NotifyKind),
    /// IKE_AUTH succeeds, and no Child SA was asked for.
    Childless,
    /// The answer that the request had before, octet for octet.
    Again,
    /// An empty response.
    Empty,
    /// A Delete of the gateway's half; the Child SA is gone.
    ChildDeleted,
    /// An empty response; the IKE SA is gone.
    Gone,
    /// As initiator: IKE_SA_INIT once more.
    Retried,
    /// As initiator: the next exchange.
    NextExchange,
    /// A login goes on: one message of IKE_AUTH, with EAP and nothing else.
    GoesOn,
    /// As initiator: a Delete of the IKE SA, in which the other end believes and the gateway does not.
    WithdrawnIke,
    /// As initiator: the same of the Child SA alone; the IKE SA lives.
    WithdrawnChild,
    /// As initiator: the exchange has failed, nothing is sent, and the IKE SA lives as it was.
    FailedAlive,
    /// As initiator: nothing is sent, and there is an IKE SA without Child SA.
    FailedChildless,
    /// As initiator: nothing is sent, and nothing is left of the IKE SA.
    FailedGone,
    /// As initiator: the same request once more, octet for octet.
    Repeated,
    /// As initiator: the same request as often as it is ever sent, and then nothing is left.
    GivenUp,
    /// As initiator: one more Child SA, and nothing is sent.
    Accepted,
    /// Nothing is sent and nothing changes, but it is no error.
    Quiet,
    OneOf(&'static [Expected]),
}

/// One message of the gateway's, as far as we can read it.
pub struct Reply {
    protected: bool,
    exchange: u8,
    response: bool,
    payloads: Vec<(u8, Vec<u8>)>,
    octets: Vec<u8>,
}

impl Reply {
    pub fn read(bed: &Bed, datagram: &[u8]) -> Option<Reply> {
        let header = wire::read_header(datagram)?;
        let protected = header.first == wire::SK;
        let payloads = match protected {
            true => bed.peer.open(datagram)?,
            false => wire::read_chain(header.first, datagram.get(28..)?)?,
        };
        Some(Reply {
            protected,
            exchange: header.exchange,
            response: header.flags & wire::RESPONSE != 0,
            payloads,
            octets: datagram.to_vec(),
        })
    }

    fn has(&self, kind: u8) -> bool {
        self.payloads.iter().any(|(k, _)| *k == kind)
    }

    fn notifies(&self) -> impl Iterator<Item = (NotifyKind, Vec<u8>)> {
        let bodies = self.payloads.iter().filter(|(kind, _)| *kind == NOTIFY);
        let read = bodies.filter_map(|(_, body)| wire::read_notify(body));
        read.map(|(kind, data)| (NotifyKind(kind), data))
    }

    /// Errors, and the demand for a cookie.
    fn refusals(&self) -> Vec<(NotifyKind, Vec<u8>)> {
        let refusal =
            |(kind, _): &(NotifyKind, Vec<u8>)| kind.is_error() || *kind == NotifyKind::COOKIE;
        self.notifies().filter(refusal).collect()
    }

    fn refuses(&self, wanted: NotifyKind) -> bool {
        matches!(self.refusals().as_slice(), [(kind, _)] if *kind == wanted)
            && self.response
            && !self.has(SA)
            && !self.has(AUTH)
    }

    fn deletes(&self) -> bool {
        self.exchange == wire::INFORMATIONAL && self.has(DELETE)
    }

    /// For a person.
    fn text(&self) -> String {
        let mut words = Vec::new();
        for (kind, body) in &self.payloads {
            words.push(match *kind {
                SA => "SA".to_owned(),
                KE => "KE".to_owned(),
                NONCE => "Nonce".to_owned(),
                AUTH => "AUTH".to_owned(),
                DELETE => "D".to_owned(),
                wire::IDI | wire::IDR => "ID".to_owned(),
                wire::TSI | wire::TSR => "TS".to_owned(),
                wire::EAP => "EAP".to_owned(),
                NOTIFY => match wire::read_notify(body) {
                    // Capabilities say nothing here.
                    Some((kind, _)) if kind > 16384 && kind != 16390 => continue,
                    Some((kind, _)) => format!("N({})", NotifyKind(kind)),
                    None => "N(?)".to_owned(),
                },
                kind => format!("{kind}"),
            });
        }
        let exchange = match self.exchange {
            wire::IKE_SA_INIT => "IKE_SA_INIT".to_owned(),
            wire::IKE_AUTH => "IKE_AUTH".to_owned(),
            wire::CREATE_CHILD_SA => "CREATE_CHILD_SA".to_owned(),
            wire::INFORMATIONAL => "INFORMATIONAL".to_owned(),
            other => format!("exchange {other}"),
        };
        let side = if self.response { "response" } else { "request" };
        let content = match words.is_empty() {
            true => "empty".to_owned(),
            false => words.join(" "),
        };
        format!("{exchange} {side}: {content}")
    }
}

/// What the gateway did, as far as it can be seen from outside, and in its counters.
pub struct Outcome {
    pub replies: Vec<Reply>,
    /// Messages that nobody could read.
    unreadable: usize,
    dropped: Vec<String>,
    children: usize,
    ike_sas: usize,
    /// Nothing is left, not even what is half-open.
    empty: bool,
    /// Rekeyings of the IKE SA that were carried through.
    rekeyed: usize,
    /// How often the gateway repeats a request that nobody answers.
    tries: usize,
    before: Before,
    /// The gateway's last request, or the one that a case repeats, and the answer to it.
    last: (Vec<u8>, Vec<u8>),
}

/// How it was before the wrong message.
#[derive(Clone)]
pub struct Before {
    pub stage: Stage,
    pub children: usize,
    pub ike_sas: usize,
}

impl Outcome {
    pub fn of(bed: &Bed, before: Before) -> Outcome {
        let replies: Vec<Reply> = bed
            .sent
            .iter()
            .filter_map(|datagram| Reply::read(bed, datagram))
            .collect();
        Outcome {
            unreadable: bed.sent.len() - replies.len(),
            replies,
            dropped: bed.dropped.clone(),
            children: bed.children(),
            ike_sas: bed.ike_sas(),
            empty: bed.empty(),
            rekeyed: bed.rekeyed,
            tries: bed.tries(),
            before,
            last: bed.last.clone(),
        }
    }

    pub fn silent(&self) -> bool {
        self.replies.is_empty() && self.unreadable == 0
    }

    /// As initiator: the IKE SA does not come about.
    fn failed(&self) -> bool {
        self.dropped
            .iter()
            .any(|reason| reason == NOT_AUTHENTICATED)
    }

    /// It answered in an exchange of the IKE SA, whose window has moved.
    pub fn answered(&self) -> bool {
        let answers = |reply: &Reply| reply.protected && reply.response;
        self.replies.iter().any(answers)
    }

    /// It asks once more, with a group that is not ours.
    pub fn other_group(&self) -> bool {
        let other =
            |(kind, body): &(u8, Vec<u8>)| *kind == KE && !body.starts_with(&GROUP.to_be_bytes());
        self.replies
            .iter()
            .any(|reply| reply.payloads.iter().any(other))
    }

    fn unchanged(&self) -> bool {
        self.children == self.before.children && self.ike_sas == self.before.ike_sas
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut parts: Vec<String> = self.replies.iter().map(Reply::text).collect();
        let said = parts.len();
        parts.dedup();
        if let [only] = parts.as_mut_slice()
            && said > 1
        {
            *only += &format!(" ({said} times)");
        }
        if self.unreadable > 0 {
            parts.push(format!("{} unreadable", self.unreadable));
        }
        if parts.is_empty() {
            parts.push(match self.dropped.last() {
                Some(reason) => format!("silence ({reason})"),
                None => "silence, no reason counted".to_owned(),
            });
        }
        if !self.unchanged() {
            parts.push(format!(
                "{} IKE SAs and {} Child SAs",
                self.ike_sas, self.children
            ));
        }
        parts.join("; ")
    }

    /// Whether it is what the RFC says.
    pub fn is(&self, expected: Expected) -> bool {
        let only = match (self.replies.as_slice(), self.unreadable) {
            ([only], 0) => Some(only),
            _ => None,
        };
        let refused = |kind, clear: bool| {
            only.is_some_and(|reply| reply.refuses(kind) && reply.protected != clear)
                && self.outlasts(kind, clear)
        };
        let early = matches!(self.before.stage, Stage::Nothing | Stage::Busy);
        match expected {
            Expected::OneOf(all) => all.iter().any(|one| self.is(*one)),
            Expected::Silence => {
                let counted = !self.dropped.is_empty() && !self.failed();
                self.silent() && self.unchanged() && counted
            }
            Expected::Refused(kind) => refused(kind, early),
            Expected::InClear(kind) => refused(kind, true),
            Expected::RefusedWith(kind, data) => {
                let exact = |reply: &Reply| reply.refusals().iter().all(|(_, d)| d == data);
                refused(kind, early) && only.is_some_and(exact)
            }
            Expected::Usual => only.is_some_and(|reply| self.is_usual(reply)),
            Expected::ChildRefused(kind) => only.is_some_and(|reply| {
                let kinds: Vec<_> = reply.refusals().into_iter().map(|(k, _)| k).collect();
                let refused = kinds == [kind] && reply.has(AUTH) && !reply.has(SA);
                refused && self.children == 0 && self.ike_sas == 1
            }),
            Expected::Childless => only.is_some_and(|reply| {
                let alone = reply.has(AUTH) && !reply.has(SA) && reply.refusals().is_empty();
                alone && self.children == 0 && self.ike_sas == 1
            }),
            Expected::Again => {
                only.is_some_and(|reply| reply.octets == self.last.1) && self.unchanged()
            }
            Expected::Empty => {
                only.is_some_and(|reply| {
                    reply.response && reply.protected && reply.payloads.is_empty()
                }) && self.unchanged()
            }
            Expected::ChildDeleted => {
                let deletes = |reply: &Reply| reply.response && reply.deletes();
                only.is_some_and(deletes) && self.children == 0 && self.ike_sas == 1
            }
            Expected::Gone => {
                let empty = |reply: &Reply| reply.response && reply.payloads.is_empty();
                only.is_some_and(empty) && self.children == 0 && self.ike_sas == 0
            }
            Expected::Retried => only.is_some_and(|reply| {
                reply.exchange == wire::IKE_SA_INIT && !reply.response && reply.has(SA)
            }),
            Expected::NextExchange => {
                only.is_some_and(|reply| !reply.response && reply.protected && !reply.deletes())
            }
            Expected::GoesOn => only.is_some_and(|reply| self.goes_on(reply)),
            Expected::WithdrawnIke => self.withdrawn(PROTOCOL_IKE) && self.ike_sas == 0,
            Expected::WithdrawnChild => {
                let same = self.children == self.before.children;
                self.withdrawn(PROTOCOL_ESP) && same && self.ike_sas == 1
            }
            Expected::Accepted => self.silent() && self.children == self.before.children + 1,
            Expected::Quiet => self.silent() && self.unchanged() && self.dropped.is_empty(),
            Expected::FailedAlive => self.failed_alive(),
            Expected::FailedChildless => self.silent() && self.children == 0 && self.ike_sas == 1,
            Expected::FailedGone => self.silent() && self.gone(),
            Expected::Repeated => self.replies.len() == 1 && self.repeats() && self.unchanged(),
            Expected::GivenUp => self.replies.len() == self.tries && self.repeats() && self.gone(),
        }
    }

    /// Whether there is what is left of a refusal. RFC 7296 section 2.21.3: INVALID_SYNTAX is fatal in
    /// both peers.
    fn outlasts(&self, kind: NotifyKind, clear: bool) -> bool {
        match kind == NotifyKind::INVALID_SYNTAX && !clear {
            true => self.children == 0 && self.ike_sas == 0,
            false => self.unchanged(),
        }
    }

    /// It says what is next in a login.
    fn goes_on(&self, reply: &Reply) -> bool {
        let answers = reply.response != self.before.stage.asks();
        let in_auth = reply.exchange == wire::IKE_AUTH && reply.protected;
        let alone = matches!(reply.payloads.as_slice(), [(wire::EAP, _)]);
        answers && in_auth && alone && self.unchanged()
    }

    /// The exchange came to nothing, and the IKE SA is what it was.
    fn failed_alive(&self) -> bool {
        let alive = self.ike_sas > 0 && self.rekeyed == 0;
        self.silent() && self.unchanged() && alive
    }

    /// All that it sends is a Delete of one kind.
    fn withdrawn(&self, protocol: u8) -> bool {
        let of = |(kind, body): &(u8, Vec<u8>)| *kind == DELETE && body.first() == Some(&protocol);
        let deletes =
            |reply: &Reply| reply.deletes() && !reply.response && reply.payloads.iter().any(of);
        !self.replies.is_empty() && self.unreadable == 0 && self.replies.iter().all(deletes)
    }

    /// All that it sends is its last request.
    fn repeats(&self) -> bool {
        let same = |reply: &Reply| reply.octets == self.last.0;
        self.unreadable == 0 && self.replies.iter().all(same)
    }

    fn gone(&self) -> bool {
        self.empty && self.children == 0
    }

    /// What a message without fault gets, by what was asked.
    fn is_usual(&self, reply: &Reply) -> bool {
        let wanted: &[u8] = match reply.exchange {
            wire::IKE_SA_INIT => &[SA, KE, NONCE],
            wire::IKE_AUTH => &[AUTH, SA, wire::TSI, wire::TSR],
            wire::CREATE_CHILD_SA => &[SA, NONCE],
            _ => &[],
        };
        let complete = wanted.iter().all(|kind| reply.has(*kind));
        reply.response && complete && reply.refusals().is_empty()
    }
}

impl Expected {
    /// For a person.
    pub fn text(self) -> String {
        match self {
            Expected::Silence => "silence".to_owned(),
            Expected::Refused(kind) | Expected::RefusedWith(kind, _) => format!("N({kind})"),
            Expected::InClear(kind) => format!("N({kind}) in clear"),
            Expected::Usual => "the usual answer".to_owned(),
            Expected::ChildRefused(kind) => format!("an IKE SA, N({kind}) for the Child SA"),
            Expected::Childless => "an IKE SA alone".to_owned(),
            Expected::Again => "the same octets again".to_owned(),
            Expected::Empty => "an empty response".to_owned(),
            Expected::ChildDeleted => "D of the other half".to_owned(),
            Expected::Gone => "an empty response, IKE SA gone".to_owned(),
            Expected::Retried => "IKE_SA_INIT anew".to_owned(),
            Expected::NextExchange => "the next exchange".to_owned(),
            Expected::GoesOn => "the next message of the login".to_owned(),
            Expected::WithdrawnIke => "a Delete of the IKE SA".to_owned(),
            Expected::WithdrawnChild => "a Delete of the Child SA".to_owned(),
            Expected::Accepted => "one more Child SA".to_owned(),
            Expected::Quiet => "nothing more".to_owned(),
            Expected::FailedAlive => "the exchange fails, the IKE SA lives".to_owned(),
            Expected::FailedChildless => "no Child SA, the IKE SA lives".to_owned(),
            Expected::FailedGone => "the IKE SA fails".to_owned(),
            Expected::Repeated => "the same request again".to_owned(),
            Expected::GivenUp => "the same request some times, and the end".to_owned(),
            Expected::OneOf(all) => {
                let all: Vec<String> = all.iter().map(|one| one.text()).collect();
                all.join(" or ")
            }
        }
    }
}
