//! Requests of operators that wait for their turn. Whoever may ask may ask all the time, and a list of
//! ten thousand SAs takes long: answers get half of the control thread's time at most, and of each long
//! one a slice is made in a turn, whatever the number of clients.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::Instant;

use super::answer::Listed;
use crate::api::{ClientId, Request};

/// Answers go on in one turn until they took this long.
const A_SHARE: Duration = Duration::from_millis(1);

/// What is to be done for a client.
pub(super) enum Task {
    Answer(Request),
    /// A long list goes on.
    GoOn(Box<Listed>),
}

/// Of each client one at most: until it has its reply nothing more of it is read.
#[derive(Default)]
pub(super) struct Asked {
    waiting: VecDeque<(ClientId, Task)>,
    spent: Duration,
    rests_until: Instant,
}

impl Asked {
    pub fn add(&mut self, requests: Vec<(ClientId, Request)>) {
        let requests = requests.into_iter();
        self.waiting
            .extend(requests.map(|(client, request)| (client, Task::Answer(request))));
    }

    /// A list that is not over waits for its turn behind all others.
    pub fn go_on(&mut self, client: ClientId, listed: Box<Listed>) {
        self.waiting.push_back((client, Task::GoOn(listed)));
    }

    /// The next one, if it is time for one.
    pub fn next(&mut self, now: Instant) -> Option<(ClientId, Task)> {
        if now < self.rests_until {
            return None;
        }
        self.waiting.pop_front()
    }

    /// One was answered in this time. After some time of answers as much is for other work.
    pub fn answered(&mut self, began: Instant, ended: Instant) {
        self.spent += ended.since(began);
        if self.spent >= A_SHARE {
            self.rests_until = ended + std::mem::take(&mut self.spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: u64) -> Instant {
        Instant(1_000_000_000) + Duration::from_micros(microseconds)
    }

    #[test]
    fn a_long_answer_is_followed_by_as_long_a_rest_and_short_ones_by_others() {
        let mut asked = Asked::default();
        asked.add((0..9).map(|n| (ClientId(n), Request::Status {})).collect());
        let next = |asked: &mut Asked, now| asked.next(now).map(|(client, _)| client.0);
        // Short ones: three of 400 us are a share.
        for n in 0..3 {
            assert_eq!(next(&mut asked, at(400 * n)), Some(n));
            asked.answered(at(400 * n), at(400 * (n + 1)));
        }
        assert_eq!(next(&mut asked, at(1_200)), None);
        assert_eq!(next(&mut asked, at(2_399)), None);
        // A long one of 50 ms.
        assert_eq!(next(&mut asked, at(2_400)), Some(3));
        asked.answered(at(2_400), at(52_400));
        assert_eq!(next(&mut asked, at(102_399)), None);
        assert_eq!(next(&mut asked, at(102_400)), Some(4));
    }

    #[test]
    fn sixteen_clients_that_never_stop_get_half_of_the_time() {
        let mut asked = Asked::default();
        let (mut now, mut answering) = (at(0), Duration::ZERO);
        let long = Duration::from_millis(100);
        while now < at(60_000_000) {
            let waiting = asked.waiting.len() as u64;
            asked.add(
                (waiting..16)
                    .map(|n| (ClientId(n), Request::Status {}))
                    .collect(),
            );
            while asked.next(now).is_some() {
                asked.answered(now, now + long);
                now += long;
                answering += long;
            }
            now += Duration::from_millis(1);
        }
        assert!(answering <= Duration::from_secs(31), "{answering:?}");
        assert!(answering >= Duration::from_secs(29), "{answering:?}");
    }
}
