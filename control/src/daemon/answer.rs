//! The answers to requests on the control socket. All come in their turn but four: who reads a capture
//! waits a moment for packets, so that it need not ask all the time; a reload is over when the workers
//! go by what was read; who gave an order may wait for how it comes out (`awaited.rs`); and a list of SAs
//! or policies is written a slice a turn, at the pace at which it is read.

use std::time::Duration;

use hitless_sa::Instant;

use super::Member;
use super::asked::Task;
use super::reloads::Loaded;
use crate::api::{CaptureReport, ClientId, LongReply, Reply, Request, Server, Show};
use crate::clock;
use crate::gateway::Listing;

/// How long a reader of a capture waits.
const MOMENT: Duration = Duration::from_millis(100);
/// How long one may wait for an order.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Readers that wait; one capture runs at a time, so more are strangers to it.
const READERS: usize = 4;
/// A list waits while its client has so much of it to read.
const UNREAD: usize = 1 << 20;

/// A client that waits for packets.
pub(super) struct Reader {
    client: ClientId,
    capture: u64,
    until: Instant,
}

/// A client that waits for what it has loaded.
pub(super) struct Loading {
    client: ClientId,
    publication: u64,
    said: String,
}

/// A list that a client is being told.
pub(super) struct Listed {
    listing: Listing,
    reply: LongReply,
}

impl Member {
    pub(super) fn answer(&mut self, server: &mut Server, now: Instant) {
        self.asked.add(server.poll());
        let mut began = clock::now();
        let mut later = Vec::new();
        while let Some((client, task)) = self.asked.next(began) {
            match task {
                Task::Answer(request) => {
                    if let Some(reply) = self.reply(now, client, request) {
                        server.reply_amid(client, &reply, &mut || self.gateway.beat());
                    }
                }
                Task::GoOn(listed) => {
                    let rest = self.list_on(server, now, client, listed);
                    later.extend(rest.map(|listed| (client, listed)));
                }
            }
            let ended = clock::now();
            self.asked.answered(began, ended);
            began = ended;
        }
        for (client, listed) in later {
            self.asked.go_on(client, listed);
        }
        self.tend_reloads(server, now);
        for loading in std::mem::take(&mut self.loading) {
            match self.gateway.has_published(loading.publication) {
                true => server.reply(loading.client, &done(loading.said)),
                false => self.loading.push(loading),
            }
        }
        for (client, reply) in self.awaited.due(now, &self.gateway) {
            server.reply(client, &reply);
        }
        for reader in std::mem::take(&mut self.readers) {
            match self.read(now, &reader) {
                Some(reply) => server.reply(reader.client, &reply),
                None => self.readers.push(reader),
            }
        }
    }

    fn reply(&mut self, now: Instant, client: ClientId, request: Request) -> Option<Reply> {
        Some(match request {
            Request::Status {} => Reply::Status(Box::new(self.gateway.status(now))),
            Request::ListSas { connection } => {
                match self.gateway.list_ike_sas(connection.as_deref()) {
                    Ok(listing) => self.list(client, listing),
                    Err(reason) => return Some(Reply::Refused { reason }),
                }
                return None;
            }
            Request::Show {
                what: Show::Sas { which },
            } => {
                self.list(client, Listing::of_child_sas(which));
                return None;
            }
            Request::Show {
                what: Show::Policies {},
            } => {
                self.list(client, self.gateway.list_policies());
                return None;
            }
            Request::Show { what } => match self.gateway.show(now, &what) {
                Ok(shown) => Reply::Shown { shown },
                Err(reason) => Reply::Refused { reason },
            },
            Request::TraceAdd { .. }
            | Request::TraceShow {}
            | Request::TraceClear {}
            | Request::CaptureStart { .. }
            | Request::CaptureRead { .. }
            | Request::CaptureStop { .. } => return self.watch(now, client, request),
            order @ (Request::Initiate { .. }
            | Request::Terminate { .. }
            | Request::Rekey { .. }
            | Request::Redirect { .. }
            | Request::Reload {}
            | Request::Switchover { .. }) => return self.order(now, client, order),
            Request::SwitchoverPlan {} => match self.gateway.switchover_plan(now) {
                Ok(plan) => done(plan),
                Err(reason) => Reply::Refused { reason },
            },
            Request::Metrics {} => Reply::Metrics(Box::new(self.gateway.metrics(now))),
            Request::Cluster {} => Reply::Cluster(Box::new(self.gateway.cluster(now))),
        })
    }

    /// What is asked of traces and captures.
    fn watch(&mut self, now: Instant, client: ClientId, request: Request) -> Option<Reply> {
        Some(match request {
            Request::TraceAdd { packets, filter } => {
                match self.gateway.trace_add(packets, &filter) {
                    Ok(()) => done(format!(
                        "tracing the next {packets} packets of each worker; `hitless trace show`"
                    )),
                    Err(reason) => Reply::Refused { reason },
                }
            }
            Request::TraceShow {} => Reply::Trace(Box::new(self.gateway.trace_show())),
            Request::TraceClear {} => {
                self.gateway.trace_clear();
                done("nothing is traced".to_owned())
            }
            Request::CaptureStart {
                side,
                packets,
                filter,
            } => match self.gateway.capture_start(now, side, packets, &filter) {
                Ok(capture) => Reply::CaptureStarted { capture },
                Err(reason) => Reply::Refused { reason },
            },
            Request::CaptureRead { .. } if self.readers.len() >= READERS => Reply::Refused {
                reason: "too many read a capture".to_owned(),
            },
            Request::CaptureRead { capture } => {
                let until = now + MOMENT;
                self.readers.push(Reader {
                    client,
                    capture,
                    until,
                });
                return None;
            }
            Request::CaptureStop { capture } => {
                self.gateway.capture_stop(capture);
                done("nothing is captured".to_owned())
            }
            _ => return None,
        })
    }

    /// What changes something; none while that is under way and the client waits for the end of it.
    fn order(&mut self, now: Instant, client: ClientId, order: Request) -> Option<Reply> {
        let (gateway, entropy) = (&mut self.gateway, &mut self.entropy);
        let (ordered, wait_ms) = match order {
            Request::Initiate {
                child,
                ike,
                wait_ms,
            } => {
                let ordered = gateway.initiate(now, entropy, &child, ike.as_deref());
                (ordered, wait_ms)
            }
            Request::Terminate { choice, wait_ms } => {
                (gateway.terminate(now, entropy, &choice), wait_ms)
            }
            Request::Rekey { choice, wait_ms } => (gateway.rekey(now, entropy, &choice), wait_ms),
            Request::Switchover { wait_ms } => (gateway.switch_over(now, entropy), wait_ms),
            Request::Redirect { choice, to } => {
                let said = gateway.redirect(now, entropy, &choice, to);
                return Some(said.map_or_else(|reason| Reply::Refused { reason }, done));
            }
            // `Reload`, and nothing else comes here.
            _ => {
                self.reloads.ask(client);
                return None;
            }
        };
        match ordered {
            Ok(ordered) => {
                let patience = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
                self.awaited.add(now, client, ordered, patience)
            }
            Err(reason) => Some(Reply::Refused { reason }),
        }
    }

    /// What is refused is told at once; the rest when the workers go by it.
    fn tend_reloads(&mut self, server: &mut Server, now: Instant) {
        let path = || self.gateway.config_path();
        let Some((read, clients)) = self.reloads.poll(path) else {
            return;
        };
        let done = read.and_then(|loaded| self.reload(now, loaded));
        if let (Err(reason), []) = (&done, clients.as_slice()) {
            tracing::error!("SIGHUP: nothing was reloaded: {reason}");
        }
        let publication = self.gateway.publication();
        for client in clients {
            match &done {
                Ok(said) => self.loading.push(Loading {
                    client,
                    publication,
                    said: said.clone(),
                }),
                Err(reason) => {
                    let reason = reason.clone();
                    server.reply(client, &Reply::Refused { reason });
                }
            }
        }
    }

    /// The reply to a reader, once there are packets, or the moment is over.
    fn read(&mut self, now: Instant, reader: &Reader) -> Option<Reply> {
        let report = match self.gateway.capture_read(now, reader.capture) {
            Ok(report) => report,
            Err(reason) => return Some(Reply::Refused { reason }),
        };
        let CaptureReport { packets, done, .. } = &report;
        let due = !packets.is_empty() || *done || now >= reader.until;
        due.then(|| Reply::Captured(Box::new(report)))
    }

    /// Begins to tell a client a list.
    fn list(&mut self, client: ClientId, listing: Listing) {
        let reply = LongReply::new(&listing.empty());
        self.asked
            .go_on(client, Box::new(Listed { listing, reply }));
    }

    /// Tells a slice of a list; gives it back if there is more and the client has not gone.
    fn list_on(
        &mut self,
        server: &mut Server,
        now: Instant,
        client: ClientId,
        mut listed: Box<Listed>,
    ) -> Option<Box<Listed>> {
        if server.unread(client)? > UNREAD {
            return Some(listed);
        }
        let rows = match self.gateway.list_on(now, &mut listed.listing) {
            Ok(rows) => rows,
            Err(reason) => {
                server.reply(client, &Reply::Refused { reason });
                return None;
            }
        };
        let mut text = Vec::new();
        for row in rows {
            self.gateway.beat();
            listed.reply.entry(&row, &mut text);
        }
        let over = listed.listing.is_over();
        if over {
            listed.reply.end(&mut text);
            server.reply_part(client, &text, true);
            return None;
        }
        server.reply_part(client, &text, false);
        Some(listed)
    }

    /// Goes by what was read.
    fn reload(&mut self, now: Instant, loaded: Loaded) -> Result<String, String> {
        let Loaded {
            config,
            crls,
            secret,
        } = loaded;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        self.gateway.beat();
        let entropy = &mut self.entropy;
        let done = self.gateway.reload_with(now, entropy, config, secret)?;
        self.crls = crls;
        tracing::info!("{done}");
        Ok(done)
    }
}

fn done(message: String) -> Reply {
    Reply::Done { message }
}
