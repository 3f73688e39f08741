//! `[ike]`: what those may cost that are not authenticated, how many SAs the others may have, in
//! strongswan.conf's words, and what a takeover asks at once.

use std::time::Duration;

use super::document::Section;
use super::report::Refusal;
use super::value;
use crate::ike::settings::{Cookies, Limits};

/// strongswan.conf's words that mean nothing here.
const FOREIGN: &[(&str, &str)] = &[
    (
        "dos_protection",
        "write cookies = \"busy\" (yes) or cookies = \"never\" (no)",
    ),
    ("init_limit_job_load", "leave it out: there are no jobs"),
];

const COOKIES: &[(&str, Cookies)] = &[
    ("busy", Cookies::Busy),
    ("always", Cookies::Always),
    ("never", Cookies::Never),
];

/// Every key has a default, and so has the whole section.
pub(super) fn read(root: &Section<'_>) -> Option<Limits> {
    let section = root.section_or_empty("ike")?;
    let default = Limits::default();
    let count = |key, default: usize, least| {
        section.or(key, default as u64, value::integer(least, 1 << 20)) as usize
    };
    let rate =
        |key, default: u32| section.or(key, u64::from(default), value::integer(0, 1 << 20)) as u32;
    let limits = Limits {
        init_limit_half_open: count("init_limit_half_open", default.init_limit_half_open, 1),
        half_open_timeout: section.or(
            "half_open_timeout",
            default.half_open_timeout,
            value::duration_within(Duration::from_secs(1), Duration::from_secs(600)),
        ),
        cookies: section.or("cookies", default.cookies, value::word(COOKIES)),
        cookie_threshold: count("cookie_threshold", default.cookie_threshold, 0),
        cookie_threshold_ip: count("cookie_threshold_ip", default.cookie_threshold_ip, 0),
        block_threshold: count("block_threshold", default.block_threshold, 1),
        init_rate: rate("init_rate", default.init_rate),
        init_rate_ip: rate("init_rate_ip", default.init_rate_ip),
        ikesa_limit: count("ikesa_limit", default.ikesa_limit, 0),
        ikesa_limit_id: count("ikesa_limit_id", default.ikesa_limit_id, 0),
        children_per_ike: count("children_per_ike", default.children_per_ike, 1),
        waiting_fragments: default.waiting_fragments,
        takeover_sync_limit: count("takeover_sync_limit", default.takeover_sync_limit, 1),
        takeover_sync_rate: rate("takeover_sync_rate", default.takeover_sync_rate),
    };
    section.finish(FOREIGN);
    if limits.cookies == Cookies::Never {
        section.problems().warn(
            "ike.cookies = \"never\": whoever forges addresses can keep every peer from beginning \
             an IKE SA"
                .to_owned(),
        );
        return Some(limits);
    }
    let below = [
        (
            "cookie_threshold",
            limits.cookie_threshold,
            "init_limit_half_open",
            limits.init_limit_half_open,
        ),
        (
            "cookie_threshold_ip",
            limits.cookie_threshold_ip,
            "block_threshold",
            limits.block_threshold,
        ),
    ];
    for (lower, threshold, upper, limit) in below {
        if threshold >= limit {
            let refusal = Refusal::new(
                format!("ike.{lower} is {threshold}, and {upper} is {limit}"),
                format!(
                    "make {upper} greater: what is between the two is for peers that bring a \
                     cookie, and no forger can take it"
                ),
            );
            section.refuse(if section.has(lower) { lower } else { upper }, refusal);
        }
    }
    Some(limits)
}
