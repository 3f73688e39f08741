//! What a connection says of its session, and how long SAs live.

use std::time::Duration;

use toml::de::DeValue;

use super::connections::lifetime;
use super::document::Section;
use super::report::Refusal;
use super::value;
use crate::ike::sessions::{Lifetimes, SessionSettings, Tickets, Volume};

/// swanctl's: hard limits lie a tenth behind soft ones.
const MARGIN: u32 = 10;

/// Of tickets.
const TICKET_TIME: Duration = Duration::from_secs(12 * 3600);
const SHORTEST_TICKET: Duration = Duration::from_secs(60);
const LONGEST_TICKET: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long they may follow one another, where nothing else bounds it.
const RESUMPTION_TIME: Duration = Duration::from_secs(24 * 3600);
const LONGEST_RESUMPTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Of a connection.
pub(super) fn read(
    section: &Section<'_>,
    rekey_time: Duration,
    reauth_time: Duration,
) -> SessionSettings {
    let over_time = rekey_time.max(reauth_time) / MARGIN;
    let over_time = section.or("over_time", over_time, lifetime);
    let rand_time = section.optional("rand_time", value::duration);
    let rand_time = rand_time.map(|time| time.value);
    let sooner = |time: Duration| !time.is_zero() && rand_time.is_some_and(|rand| rand >= time);
    if sooner(rekey_time) {
        too_random(section, "rand_time", "rekey_time");
    }
    let resumption = section.or("resumption", false, value::boolean);
    let tickets = tickets(section, reauth_time);
    SessionSettings {
        tickets: resumption.then_some(tickets),
        crash_detection: section.or("crash_detection", false, value::boolean),
        over_time: (!over_time.is_zero()).then_some(over_time),
        rand_time,
    }
}

/// `ticket_time` and `resumption_time`.
fn tickets(section: &Section<'_>, reauth_time: Duration) -> Tickets {
    let times = value::duration_within(SHORTEST_TICKET, LONGEST_TICKET);
    let ticket_time = section.optional("ticket_time", times);
    let ticket_time = ticket_time.map(|time| time.value);
    let default = match reauth_time.is_zero() {
        true => RESUMPTION_TIME.max(ticket_time.unwrap_or_default()),
        false => reauth_time,
    };
    let times = value::duration_within(SHORTEST_TICKET, LONGEST_RESUMPTION);
    let resumption_time = section.optional("resumption_time", times);
    let resumption_time = resumption_time.map(|time| time.value);
    let shorter = |resumption| ticket_time.is_some_and(|ticket| ticket > resumption);
    if resumption_time.is_some_and(shorter) {
        let refusal = Refusal::new(
            format!("{}: tickets count longer", section.name("resumption_time")),
            "make it no shorter than ticket_time, or leave ticket_time out",
        );
        section.refuse("resumption_time", refusal);
    }
    let resumption_time = resumption_time.unwrap_or(default);
    Tickets {
        ticket_time: ticket_time.unwrap_or(TICKET_TIME).min(resumption_time),
        resumption_time,
    }
}

/// Of a child.
pub(super) fn lifetimes(section: &Section<'_>, rekey_time: Duration) -> Lifetimes {
    let life_time = section.or("life_time", rekey_time + rekey_time / MARGIN, lifetime);
    if !life_time.is_zero() && life_time < rekey_time {
        too_short(section, "life_time", "rekey_time");
    }
    let rand_time = section.optional("rand_time", value::duration);
    let rand_time = rand_time.map(|time| time.value);
    if !rekey_time.is_zero() && rand_time.is_some_and(|rand| rand >= rekey_time) {
        too_random(section, "rand_time", "rekey_time");
    }
    Lifetimes {
        life_time: (!life_time.is_zero()).then_some(life_time),
        rand_time,
        bytes: limits(section, ["rekey_bytes", "life_bytes", "rand_bytes"]),
        packets: limits(section, ["rekey_packets", "life_packets", "rand_packets"]),
    }
}

fn limits(section: &Section<'_>, [soft, hard, chance]: [&'static str; 3]) -> Volume {
    let rekey = section.or(soft, 0, volume);
    let life = section.or(
        hard,
        rekey.saturating_add(rekey / u64::from(MARGIN)),
        volume,
    );
    if life != 0 && life < rekey {
        too_short(section, hard, soft);
    }
    let rand = section.or(chance, life.saturating_sub(rekey).min(rekey / 2), volume);
    if rekey != 0 && rand >= rekey {
        too_random(section, chance, soft);
    }
    Volume {
        rekey,
        life,
        rand: if rekey == 0 { 0 } else { rand },
    }
}

fn too_short(section: &Section<'_>, hard: &'static str, soft: &'static str) {
    let refusal = Refusal::new(
        format!(
            "{}: ends the SA before {soft} replaces it",
            section.name(hard)
        ),
        format!("make it longer than {soft}, or leave it out: a tenth longer"),
    );
    section.refuse(hard, refusal);
}

fn too_random(section: &Section<'_>, chance: &'static str, soft: &'static str) {
    let refusal = Refusal::new(
        format!("{}: leaves nothing of {soft}", section.name(chance)),
        format!("make it shorter than {soft}, or leave it out"),
    );
    section.refuse(chance, refusal);
}

/// A number, or swanctl's `500k`, `10m`, `2g`.
fn volume(value: &DeValue<'_>) -> Result<u64, Refusal> {
    let Some(text) = value.as_str() else {
        return value::integer(0, u64::MAX)(value);
    };
    let text = text.trim();
    let units = [("k", 10), ("m", 20), ("g", 30)];
    let scaled = units.iter().find_map(|(unit, shift)| {
        let number = text.to_ascii_lowercase();
        let number: u64 = number.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    scaled.or_else(|| text.parse().ok()).ok_or_else(|| {
        Refusal::new(
            format!("{} is no amount", value::quoted(text)),
            "write a number, or one with k, m or g: \"500m\"",
        )
    })
}
