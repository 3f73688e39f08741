//! Clients that wait for how it comes out what they ordered.

use std::time::Duration;

use hitless_sa::Instant;

use crate::api::{ClientId, Reply};
use crate::gateway::{Event, Gateway, Ordered, Progress};

/// How often one is looked at.
const EVERY: Duration = Duration::from_millis(10);
/// As many as there are clients; more are left by clients that went away.
const MOST: usize = crate::api::MOST_CLIENTS;

struct Waiting {
    client: ClientId,
    ordered: Ordered,
    until: Instant,
}

#[derive(Default)]
pub(super) struct Awaited {
    waiting: Vec<Waiting>,
    next: Instant,
}

impl Awaited {
    /// The reply to what was just ordered, if it is due now.
    pub fn add(
        &mut self,
        now: Instant,
        client: ClientId,
        ordered: Ordered,
        patience: Duration,
    ) -> Option<Reply> {
        if patience.is_zero() || self.waiting.len() >= MOST {
            return Some(done(ordered.to_string()));
        }
        let until = now + patience;
        self.waiting.push(Waiting {
            client,
            ordered,
            until,
        });
        None
    }

    pub fn hears(&mut self, event: &Event) {
        for one in &mut self.waiting {
            one.ordered.hears(event);
        }
    }

    /// The replies that are due.
    pub fn due(&mut self, now: Instant, gateway: &Gateway) -> Vec<(ClientId, Reply)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + EVERY;
        let mut replies = Vec::new();
        self.waiting.retain_mut(|one| {
            let reply = match gateway.progress(now, &mut one.ordered) {
                Progress::Done(message) => done(message),
                Progress::Failed(reason) => Reply::Refused { reason },
                Progress::Waits if now < one.until => return true,
                Progress::Waits => Reply::Refused {
                    reason: one.ordered.given_up(),
                },
            };
            replies.push((one.client, reply));
            false
        });
        replies
    }
}

fn done(message: String) -> Reply {
    Reply::Done { message }
}
