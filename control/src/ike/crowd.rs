//! Who of many strangers is served: half-open limits, rates, and when a cookie is demanded.
//!
//! An IKE_SA_INIT request costs its sender nothing, and its source may be forged. So whoever has not
//! shown that it receives at its address gets at most half of everything: while the crowd is small
//! it is served at once, then it is asked for a cookie (RFC 7296 section 2.6), for which nothing is
//! kept. Whoever brings the cookie has the other half, which no forger can take away.
//!
//! # What unauthenticated input can make grow, and how far
//!
//! | table | bound |
//! |---|---|
//! | half-open IKE SAs (`initial/half_open.rs`) | `init_limit_half_open`, `block_threshold` of them for each address; then the network with most gives way |
//! | errors that are told in clear (`dispatch.rs`) | 256 a second |
//! | the IKE_SA_INIT request and response that each keeps | [`LONGEST_FIRST_REQUEST`], and what we say |
//! | fragments that wait in them | `waiting_fragments` octets in all, 64 KiB each, half a minute |
//! | rates by source (here) | [`MOST_SOURCES`]; full ones are forgotten |
//! | cookies (`cookie.rs`) | none is kept; two secrets |
//! | reasons of drops (`gateway/counts.rs`) | the program's own words |
//! | failures that are told of, not only counted (`gateway/counts.rs`) | 16 a second |
//! | SPIs that are watched (`gateway/foreign.rs`) | 4,096 |
//! | questions to peers about them (`takeover.rs`) | 256 that wait in an IKE SA, for one request; 2,000 of those a second |
//! | IVs drawn (`crypto/sk.rs`) | 131,072 IKE SAs; then all but the far ahead go on from one value |
//! | the workers' ring of punted packets | 256 each, a half of it for IKE_SA_INIT |
//!
//! # What authenticated peers can make grow
//!
//! | table | bound |
//! |---|---|
//! | IKE SAs (`room.rs`) | `ikesa_limit`, `ikesa_limit_id` of them for each identity; one where `unique` says so |
//! | IKE SAs left behind by rekeying (`room.rs`) | 4 for each IKE_AUTH, until they are deleted |
//! | Child SAs (`room.rs`) | `children_per_ike` in each, as many more that wait for a Delete; 131,072 in the dataplane |
//! | the record of an IKE SA, on every member | 57,344 octets; what makes it longer is not made |
//! | responses that are kept, requests under way (`window.rs`) | `window_size`, 64 at most |
//! | fragments of established IKE SAs (`fragments.rs`) | two messages each, 128 parts of one, half a minute |
//! | half-made Child SAs (`followup.rs`) | a window of them, until the next key exchange is due |
//! | virtual addresses (`virtual_ip/`) | 8 for each IKE SA, from the pools |
//! | peer's other addresses (`mobike/`) | 16 for each IKE SA |
//! | certificates that were verified (`auth/verdicts.rs`) | 256 |
//! | answers of IKE SAs that are no more (`graves.rs`) | 8,192, a minute |
//! | IKE SAs that ended of late (`gateway/retrieve.rs`) | those of five minutes: `init_rate` of them a second |
//! | commits that wait for a standby (`gateway/commit.rs`) | the messages of one round trip, or until it is given up |
//!
//! # What members and operators can
//!
//! | table | bound |
//! |---|---|
//! | records and leases of a standby (`hitless_sync::store`) | those of its leader, which is held to the above |
//! | records on their way (`hitless_sync::session`) | 64, and 256 KiB; the others wait as names |
//! | packets that a new active holds (`gateway/late.rs`) | 4,096 |
//! | SPIs that others are asked for (`gateway/retrieve.rs`) | 64, one each 100 ms |
//! | commands for a worker, packets for it (`gateway/dataplane.rs`) | 524,288 and 8,192; then it is replaced, or they are dropped |
//! | clients of the control socket (`api/server.rs`) | 16, 64 KiB for a request |
//! | traces and captures (`hitless_dataplane::watch`) | 1,000 packets, 1,024 frames |
//!
//! What the workers keep of strangers is bounded in `hitless_dataplane`: for each port 1,024 neighbours,
//! 256 routers and 32 packets that wait for each of them, 512 of those in all; 64 datagrams in fragments,
//! 8 of one source, 128 fragments in all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use hitless_sa::Instant;

use super::settings::{Cookies, Limits};

/// IKE_SA_INIT requests are a few hundred octets; with every proposal and every group that there is
/// they stay below this. Longer ones are dropped before they are read.
pub(super) const LONGEST_FIRST_REQUEST: usize = 8 * 1024;
/// Sources whose rate is known at a time.
pub(super) const MOST_SOURCES: usize = 8 * 1024;
/// A rate's credit is that of so long a time.
const DEPTH: Duration = Duration::from_secs(2);
/// What is left for those that brought a cookie.
const RESERVE: Duration = Duration::from_secs(1);
/// Answers that are sent again for the price of a request.
const REPETITIONS: u32 = 4;
/// What a login with EAP costs besides, in requests: we sign, for whoever asks.
const LOGIN: u32 = 2;
/// What one costs that fails: passwords are not guessed by the hundreds in a second.
const GUESS: u32 = 50;
/// The least time between two looks for sources that can be forgotten.
const SWEEP: Duration = Duration::from_millis(100);

/// One sender, as far as it can be told apart from others: an IPv4 address, or an IPv6 /64, of which
/// anybody may have every address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Source(IpAddr);

impl Source {
    pub fn of(address: IpAddr) -> Source {
        Source(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(six) => {
                let [a, b, c, d, ..] = six.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

/// What becomes of an IKE_SA_INIT request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Serve,
    DemandCookie,
    Drop(&'static str),
}

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub source: Source,
    /// It brought a cookie of ours: its source is not forged.
    pub verified: bool,
    /// Its key exchange costs us a multiple.
    pub costly: bool,
    /// Half-open IKE SAs, in all and of its source.
    pub half_open: usize,
    pub of_source: usize,
    /// One of a network that has more of them would give way to it.
    pub displaces: bool,
}

/// Credit for requests, in the time that it takes to earn.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    credit: Duration,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Bucket {
        Bucket {
            credit: DEPTH,
            at: now,
        }
    }

    fn credit(&self, now: Instant) -> Duration {
        self.credit.saturating_add(now.since(self.at)).min(DEPTH)
    }

    /// The bucket after one more request; `None` if that would leave less than the reserve.
    fn drawn(self, now: Instant, rate: u32, reserve: Duration) -> Option<Bucket> {
        self.paid(now, Duration::from_secs(1).checked_div(rate), reserve)
    }

    /// The same at a price; none where any number is served.
    fn paid(self, now: Instant, price: Option<Duration>, reserve: Duration) -> Option<Bucket> {
        let Some(price) = price else {
            return Some(Bucket::full(now));
        };
        let credit = self.credit(now).checked_sub(price)?;
        (credit >= reserve).then_some(Bucket { credit, at: now })
    }
}

/// The rates of IKE_SA_INIT requests.
pub(super) struct Crowd {
    all: Option<Bucket>,
    sources: BTreeMap<Source, Bucket>,
    swept: Option<Instant>,
}

impl Crowd {
    pub fn new() -> Crowd {
        Crowd {
            all: None,
            sources: BTreeMap::new(),
            swept: None,
        }
    }

    /// Decides on a request, and counts it if it is served.
    pub fn judge(&mut self, now: Instant, limits: &Limits, request: Request) -> Verdict {
        let full = request.half_open >= limits.init_limit_half_open;
        let trusted = request.verified || limits.cookies == Cookies::Never;
        if !trusted && (limits.cookies == Cookies::Always || full || busy(limits, request)) {
            return Verdict::DemandCookie;
        }
        // Of those that are nowhere to be found any number may come, from as many networks.
        if full && !(request.verified && request.displaces) {
            return Verdict::Drop("too many half-open IKE SAs");
        }
        if request.of_source >= limits.block_threshold {
            return Verdict::Drop("too many half-open IKE SAs of one address");
        }
        let reserve = if trusted { Duration::ZERO } else { RESERVE };
        let all = self.all.unwrap_or(Bucket::full(now));
        let Some(all) = all.drawn(now, limits.init_rate, reserve) else {
            return too_fast(trusted, "IKE_SA_INIT above init_rate");
        };
        let known = self.sources.get(&request.source).copied();
        if known.is_none() && !self.has_room(now) && !trusted {
            return Verdict::DemandCookie;
        }
        let source = known.unwrap_or(Bucket::full(now));
        let Some(source) = source.drawn(now, limits.init_rate_ip, reserve) else {
            return too_fast(trusted, "IKE_SA_INIT above init_rate_ip");
        };
        if known.is_some() || self.sources.len() < MOST_SOURCES {
            self.sources.insert(request.source, source);
        }
        self.all = Some(all);
        Verdict::Serve
    }

    /// Whether a repetition of a request gets the answer that it had: it costs us no more than the
    /// octets, and whoever forges its source would have us send them there. So it draws on what its
    /// source has left beside the half that is for those who brought a cookie.
    pub fn repeats(&mut self, now: Instant, limits: &Limits, source: Source) -> bool {
        let known = self.sources.get(&source).copied();
        if known.is_none() && !self.has_room(now) {
            return false;
        }
        let price = Duration::from_secs(1).checked_div(limits.init_rate_ip);
        let price = price.map(|price| price / REPETITIONS);
        let bucket = known.unwrap_or(Bucket::full(now));
        let paid = bucket.paid(now, price, RESERVE);
        if let Some(bucket) = paid {
            self.sources.insert(source, bucket);
        }
        paid.is_some()
    }

    /// Whether a source can pay for a login with EAP (RFC 7296 section 2.16). It has shown where it is.
    pub fn may_log_in(&self, now: Instant, limits: &Limits, source: Source) -> bool {
        let price = price(limits, LOGIN).unwrap_or_default();
        let known = self.sources.get(&source);
        known.is_none_or(|bucket| bucket.credit(now) >= price)
    }

    /// It pays, as far as it can: for a login that began, or for one that failed.
    pub fn logs_in(&mut self, now: Instant, limits: &Limits, source: Source, failed: bool) {
        let price = price(limits, if failed { GUESS } else { LOGIN });
        let known = self.sources.get(&source).copied();
        if let Some(price) = price
            && (known.is_some() || self.has_room(now))
        {
            let credit = known.unwrap_or(Bucket::full(now)).credit(now);
            let credit = credit.saturating_sub(price);
            self.sources.insert(source, Bucket { credit, at: now });
        }
    }

    /// Whether one more source can be remembered; those whose credit is full need not be.
    fn has_room(&mut self, now: Instant) -> bool {
        let due = self.swept.is_none_or(|at| now.since(at) >= SWEEP);
        if self.sources.len() >= MOST_SOURCES && due {
            self.swept = Some(now);
            self.sources.retain(|_, bucket| bucket.credit(now) < DEPTH);
        }
        self.sources.len() < MOST_SOURCES
    }
}

/// Of so many requests of one source; none where any number is served.
fn price(limits: &Limits, requests: u32) -> Option<Duration> {
    let one = Duration::from_secs(1).checked_div(limits.init_rate_ip);
    one.map(|one| one * requests)
}

/// Whether there are so many half-open IKE SAs that a stranger has to show where it is. The more a
/// request costs us, the earlier.
fn busy(limits: &Limits, request: Request) -> bool {
    let threshold = limits.cookie_threshold / if request.costly { 4 } else { 1 };
    request.half_open >= threshold || request.of_source >= limits.cookie_threshold_ip
}

fn too_fast(trusted: bool, reason: &'static str) -> Verdict {
    if trusted {
        Verdict::Drop(reason)
    } else {
        Verdict::DemandCookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000_000);

    fn source(n: u32) -> Source {
        Source::of(IpAddr::V4(n.into()))
    }

    fn request(n: u32, verified: bool) -> Request {
        Request {
            source: source(n),
            verified,
            costly: false,
            half_open: 0,
            of_source: 0,
            displaces: false,
        }
    }

    fn limits() -> Limits {
        Limits {
            init_rate: 100,
            init_rate_ip: 10,
            ..Limits::default()
        }
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_64() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::9"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
    }

    #[test]
    fn a_forger_takes_half_of_the_rate_of_one_source_and_its_owner_the_rest() {
        let (mut crowd, limits) = (Crowd::new(), limits());
        let served = |crowd: &mut Crowd, verified| {
            let verdicts = (0..50).map(|_| crowd.judge(START, &limits, request(7, verified)));
            verdicts.filter(|v| *v == Verdict::Serve).count()
        };
        assert_eq!(served(&mut crowd, false), 10);
        assert_eq!(
            crowd.judge(START, &limits, request(7, false)),
            Verdict::DemandCookie
        );
        assert_eq!(served(&mut crowd, true), 10);
        assert_eq!(
            crowd.judge(START, &limits, request(7, true)),
            Verdict::Drop("IKE_SA_INIT above init_rate_ip")
        );
        // Another address is not touched, and time heals.
        assert_eq!(
            crowd.judge(START, &limits, request(8, false)),
            Verdict::Serve
        );
        let later = START + Duration::from_millis(100);
        assert_eq!(
            crowd.judge(later, &limits, request(7, true)),
            Verdict::Serve
        );
        assert_eq!(
            crowd.judge(later, &limits, request(7, false)),
            Verdict::DemandCookie
        );
    }

    /// RFC 7296 section 2.1: a repetition gets the answer again; a flood of them does not.
    #[test]
    fn rfc7296_section_2_1_repetitions_cost_less_and_are_bounded_for_each_source() {
        let (mut crowd, limits) = (Crowd::new(), limits());
        let repeated = |crowd: &mut Crowd, n| {
            let answers = (0..200).map(|_| crowd.repeats(START, &limits, source(n)));
            answers.filter(|answered| *answered).count()
        };
        assert_eq!(repeated(&mut crowd, 7), 40);
        assert_eq!(repeated(&mut crowd, 8), 40);
        // Whoever shows where it is has its half still.
        let owner = crowd.judge(START, &limits, request(7, true));
        assert_eq!(owner, Verdict::Serve);
        let later = START + Duration::from_millis(200);
        assert!(crowd.repeats(later, &limits, source(7)));
        let any = Limits {
            init_rate_ip: 0,
            ..limits
        };
        assert!((0..500).all(|_| crowd.repeats(START, &any, source(9))));
    }

    #[test]
    fn forged_sources_take_half_of_the_rate_in_all() {
        let (mut crowd, limits) = (Crowd::new(), limits());
        let served = |crowd: &mut Crowd, from: u32, verified| {
            let verdicts =
                (from..from + 1000).map(|n| crowd.judge(START, &limits, request(n, verified)));
            verdicts.filter(|v| *v == Verdict::Serve).count()
        };
        assert_eq!(served(&mut crowd, 0, false), 100);
        assert_eq!(served(&mut crowd, 5000, true), 100);
        assert_eq!(
            crowd.judge(START, &limits, request(1, true)),
            Verdict::Drop("IKE_SA_INIT above init_rate")
        );
        assert_eq!(crowd.sources.len(), 200);
    }

    #[test]
    fn the_table_of_sources_is_bounded_and_forgets_those_that_are_quiet() {
        let mut crowd = Crowd::new();
        let limits = Limits {
            init_rate: 0,
            ..limits()
        };
        for n in 0..3 * MOST_SOURCES as u32 {
            let verdict = crowd.judge(START, &limits, request(n, false));
            let room = (n as usize) < MOST_SOURCES;
            let expected = if room {
                Verdict::Serve
            } else {
                Verdict::DemandCookie
            };
            assert_eq!(verdict, expected);
            assert!(crowd.sources.len() <= MOST_SOURCES);
        }
        // Whoever brings a cookie is served all the same.
        assert_eq!(
            crowd.judge(START, &limits, request(u32::MAX, true)),
            Verdict::Serve
        );
        assert_eq!(crowd.sources.len(), MOST_SOURCES);
        let later = START + DEPTH;
        assert_eq!(
            crowd.judge(later, &limits, request(u32::MAX, false)),
            Verdict::Serve
        );
        assert_eq!(crowd.sources.len(), 1);
    }

    #[test]
    fn rfc7296_section_2_6_a_cookie_is_demanded_when_busy_and_earlier_for_costly_groups() {
        let limits = Limits::default();
        let judge = |half_open, of_source, costly| {
            let request = Request {
                half_open,
                of_source,
                costly,
                ..request(1, false)
            };
            Crowd::new().judge(START, &limits, request)
        };
        let (busy, own) = (limits.cookie_threshold, limits.cookie_threshold_ip);
        assert_eq!(judge(busy - 1, 0, false), Verdict::Serve);
        assert_eq!(judge(busy, 0, false), Verdict::DemandCookie);
        assert_eq!(judge(busy / 4 - 1, 0, true), Verdict::Serve);
        assert_eq!(judge(busy / 4, 0, true), Verdict::DemandCookie);
        assert_eq!(judge(0, own - 1, false), Verdict::Serve);
        assert_eq!(judge(0, own, false), Verdict::DemandCookie);
        let full = judge(limits.init_limit_half_open, 0, false);
        assert_eq!(full, Verdict::DemandCookie);
    }

    #[test]
    fn rfc8019_section_4_when_full_one_that_shows_where_it_is_takes_the_place_of_one_of_many() {
        let judge = |cookies, verified, displaces| {
            let limits = Limits {
                cookies,
                ..Limits::default()
            };
            let request = Request {
                half_open: limits.init_limit_half_open,
                displaces,
                ..request(1, verified)
            };
            Crowd::new().judge(START, &limits, request)
        };
        let full = Verdict::Drop("too many half-open IKE SAs");
        for cookies in [Cookies::Busy, Cookies::Always] {
            assert_eq!(judge(cookies, false, true), Verdict::DemandCookie);
            assert_eq!(judge(cookies, true, true), Verdict::Serve);
            assert_eq!(judge(cookies, true, false), full);
        }
        assert_eq!(judge(Cookies::Never, false, true), full);
    }

    #[test]
    fn rfc7296_section_2_6_cookies_always_and_never() {
        let always = Limits {
            cookies: Cookies::Always,
            ..limits()
        };
        let mut crowd = Crowd::new();
        assert_eq!(
            crowd.judge(START, &always, request(1, false)),
            Verdict::DemandCookie
        );
        assert_eq!(
            crowd.judge(START, &always, request(1, true)),
            Verdict::Serve
        );
        let never = Limits {
            cookies: Cookies::Never,
            ..limits()
        };
        let mut crowd = Crowd::new();
        let verdicts = (0..30).map(|_| crowd.judge(START, &never, request(1, false)));
        let served = verdicts.filter(|v| *v == Verdict::Serve).count();
        assert_eq!(served, 20);
        let blocked = Request {
            of_source: never.block_threshold,
            ..request(2, false)
        };
        assert_eq!(
            crowd.judge(START, &never, blocked),
            Verdict::Drop("too many half-open IKE SAs of one address")
        );
    }
}
