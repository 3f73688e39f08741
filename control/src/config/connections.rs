//! `[connections.NAME]`, in swanctl's words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::auth::{self, Keys};
use super::children;
use super::document::{Located, Section};
use super::model::PortConfig;
use super::overlap;
use super::pools::{self, Surroundings};
use super::report::{Refusal, Span};
use super::room;
use super::sessions;
use super::suggest::nearest;
use super::value::{self, quoted};
use crate::ike::auth::{AuthSettings, LocalAuth, PpkSettings, RemoteAuth};
use crate::ike::fragments::{DEFAULT_FRAGMENT_SIZE, Fragmentation};
use crate::ike::proposal::{Identification, IkeProposal, is_keyword};
use crate::ike::settings::{Child, Connection, Pool, Takeover, TakeoverInbound};

const EXAMPLE: &str = "[connections.office]\nremote_addrs = [\"198.51.100.7\"]\nproposals = [\"aes128gcm16-prfsha256-x25519\"]\n\n[connections.office.children.net]\nesp_proposals = [\"aes128gcm16-x25519-esn\"]\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]";
const IKE_PROPOSAL: &str = "aes128gcm16-prfsha256-x25519";
/// swanctl's default.
const IKE_REKEY_TIME: Duration = Duration::from_secs(4 * 3600);

/// swanctl's words for a connection that mean nothing here.
const FOREIGN: &[(&str, &str)] = &[
    (
        "keyingtries",
        "leave it out: `start_action = \"start\"` tries until it succeeds",
    ),
    (
        "dpd_timeout",
        "leave it out: retransmissions decide (RFC 7296 section 2.4)",
    ),
    ("local_port", "leave it out: UDP 500 and 4500 are served"),
    (
        "local-1",
        "one round of authentication only: name it `local`",
    ),
    (
        "remote-1",
        "one round of authentication only: name it `remote`",
    ),
];
/// What connections are checked against; `None` where that has errors of its own.
pub(super) struct Context<'c> {
    pub ports: Option<&'c [PortConfig]>,
    pub pools: &'c [Pool],
    /// Of this gateway.
    pub workers: usize,
    pub keys: Keys<'c>,
}

/// What became of `[connections]`.
#[derive(Default)]
pub(super) struct Connections {
    pub list: Vec<Connection>,
    pub on_demand: BTreeSet<(String, String)>,
}

pub(super) fn read(root: &Section<'_>, context: &Context<'_>) -> Connections {
    let Some(section) = root.required_section("connections", EXAMPLE) else {
        return Connections::default();
    };
    let mut out = Connections::default();
    let mut policies = BTreeMap::new();
    for (name, section) in section.named() {
        check_name(&section, &name);
        if let Some(connection) = connection(&section, name, context, &mut out.on_demand) {
            children::warn_of_twins(&section, &connection, &mut policies);
            out.list.push(connection);
        }
    }
    overlap::warn(section.problems(), &out.list);
    if out.list.is_empty() && section.named().is_empty() {
        let refusal = Refusal::new("connections: empty", format!("add\n{EXAMPLE}"));
        section.problems().refuse(&section.span, refusal);
    }
    out
}

/// Names stand in one-line reports between colons and commas.
pub(super) fn check_name(section: &Section<'_>, name: &str) {
    let legal = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if !legal {
        let refusal = Refusal::new(
            format!("{} cannot be a name", quoted(name)),
            "use letters, digits, `-`, `_` and `.`, at most 64",
        );
        section.problems().refuse(&section.span, refusal);
    }
}

fn connection(
    section: &Section<'_>,
    name: String,
    context: &Context<'_>,
    on_demand: &mut BTreeSet<(String, String)>,
) -> Option<Connection> {
    section.optional("version", version);
    let remote_addrs = remote_addrs(section);
    let local_addrs = local_addrs(section, context, remote_addrs.as_deref());
    let remote_port = section.or("remote_port", 500, value::integer(1, 65535)) as u16;
    let proposals = proposals::<IkeProposal>(section, "proposals", IKE_PROPOSAL);
    let remote = auth::remote(section, &context.keys);
    let expected = remote.as_ref().ok().map(|end| &end.auth);
    let local = auth::local(section, &context.keys, expected);
    let ppk = ppk(section, &context.keys);
    let encap = section.or("encap", false, value::boolean);
    let [dpd_delay, rekey_time, reauth_time] = times(section);
    let (takeover, inbound) = takeover(section);
    let (fragmentation, fragment_size) = fragmentation(section);
    let roads = pools::roads(section, context.pools);
    let session = sessions::read(section, rekey_time, reauth_time);
    let surroundings = Surroundings {
        local_addrs: local_addrs.as_deref(),
        remote_addrs: remote_addrs.as_deref(),
        roads: roads.as_ref(),
        pools: context.pools,
    };
    let children = children::read(section, &name, &surroundings, on_demand);
    room::check(section, children.as_deref(), context.workers);
    section.finish(FOREIGN);
    let (local_addrs, remote_addrs) = (local_addrs?, remote_addrs?);
    let (local, remote) = (local.ok()?, remote.ok()?);
    let ends = (&local.auth, &remote.auth);
    let local_id = match &local.id {
        Some(id) => id.value.clone(),
        None => Identification::Address(*local_addrs.first()?),
    };
    check_sendable(section, &local_id);
    let remote_id = remote_id(remote.id.as_ref(), &remote_addrs);
    let begun = begun(&name, children.as_deref(), on_demand);
    auth::check(section, ends, &remote_id, begun);
    auth::warn_of_lists(section, &remote.auth, reauth_time);
    let place = remote.id.map_or(section.span.clone(), |id| id.span);
    check_secret(section, ends, &place, (&local_id, &remote_id), context);
    Some(Connection {
        name,
        local_addrs,
        remote_addrs,
        remote_port,
        proposals: proposals?,
        fragmentation,
        fragment_size,
        local_id,
        remote_id,
        encap,
        dpd_delay,
        rekey_time,
        takeover,
        inbound,
        roads: roads?,
        session,
        auth: AuthSettings {
            local: local.auth,
            remote: remote.auth,
            ppk: ppk.ok()?,
            reauth_time,
        },
        children: children?,
    })
}

/// `dpd_delay`, `rekey_time`, `reauth_time`.
fn times(section: &Section<'_>) -> [Duration; 3] {
    let dpd_delay = section.or("dpd_delay", Duration::ZERO, value::duration);
    let rekey_time = section.or("rekey_time", IKE_REKEY_TIME, lifetime);
    let reauth_time = section.or("reauth_time", Duration::ZERO, lifetime);
    [dpd_delay, rekey_time, reauth_time]
}

/// A child that we start.
fn begun<'c>(
    name: &str,
    children: Option<&'c [Child]>,
    on_demand: &BTreeSet<(String, String)>,
) -> Option<&'c str> {
    let begun =
        |child: &&Child| child.start || on_demand.contains(&(name.to_owned(), child.name.clone()));
    let child = children.unwrap_or_default().iter().find(begun);
    child.map(|child| child.name.as_str())
}

/// Who the peer has to be: what is configured, else the address that it has if it has one alone.
fn remote_id(configured: Option<&Located<Identification>>, addrs: &[IpAddr]) -> Identification {
    match (configured, addrs) {
        (Some(id), _) => id.value.clone(),
        (None, [one]) => Identification::Address(*one),
        (None, _) => Identification::Any,
    }
}

/// `takeover` and `takeover_inbound`.
fn takeover(section: &Section<'_>) -> (Takeover, TakeoverInbound) {
    let words = value::word(TAKEOVERS_INBOUND);
    let inbound = section.or("takeover_inbound", TakeoverInbound::default(), words);
    let words = value::word(TAKEOVERS);
    let takeover = section.or("takeover", Takeover::default(), words);
    (takeover, inbound)
}

/// `fragmentation` and `fragment_size` (RFC 7383).
fn fragmentation(section: &Section<'_>) -> (Fragmentation, u16) {
    let words = value::word(FRAGMENTATIONS);
    let fragmentation = section.or("fragmentation", Fragmentation::default(), words);
    let sizes = value::integer(576, 65535);
    let size = section.or("fragment_size", DEFAULT_FRAGMENT_SIZE.into(), sizes);
    (fragmentation, size as u16)
}

const TAKEOVERS: &[(&str, Takeover)] = &[
    ("auto", Takeover::Auto),
    ("exact", Takeover::Exact),
    ("message-id-sync", Takeover::MessageIdSync),
    ("probe", Takeover::Probe),
    ("rekey", Takeover::Rekey),
];

const TAKEOVERS_INBOUND: &[(&str, TakeoverInbound)] = &[
    ("strict", TakeoverInbound::Strict),
    ("learn", TakeoverInbound::Learn),
    ("rekey", TakeoverInbound::Rekey),
];

const FRAGMENTATIONS: &[(&str, Fragmentation)] = &[
    ("yes", Fragmentation::Yes),
    ("accept", Fragmentation::Accept),
    ("no", Fragmentation::No),
];

/// Patterns name others, never ourselves.
fn check_sendable(section: &Section<'_>, local_id: &Identification) {
    let pattern = match local_id {
        Identification::Any => true,
        Identification::Fqdn(name) | Identification::Email(name) => name.starts_with('*'),
        Identification::Dn(name) => name.is_pattern(),
        _ => false,
    };
    if pattern {
        let refusal = Refusal::new(
            format!(
                "{}: {local_id} matches many, and we are one",
                section.name("local")
            ),
            "give local.id a name of its own, such as \"hq.example.org\"",
        );
        section.refuse("local", refusal);
    }
}

/// `version = 2`; there is no other.
fn version(value: &DeValue<'_>) -> Result<(), Refusal> {
    value::integer(0, u64::MAX)(value).and_then(|version| {
        if version == 2 {
            Ok(())
        } else {
            Err(Refusal::new(
                format!("version {version} is not spoken"),
                "hitless speaks IKEv2: write version = 2, or leave it out",
            ))
        }
    })
}

/// Ours must be addresses of ports that face the peers; all of those if none is named.
fn local_addrs(
    section: &Section<'_>,
    context: &Context<'_>,
    remote: Option<&[IpAddr]>,
) -> Option<Vec<IpAddr>> {
    let listed = section
        .given_list("local_addrs", value::address)
        .ok()?
        .unwrap_or_default();
    // The family of the connection; the peers that name none may come over either.
    let mut families = remote.unwrap_or_default().iter();
    let family = families
        .next()
        .or(listed.first().map(|a| &a.value))
        .copied();
    one_family(section, "local_addrs", &listed, family)?;
    let Some(ports) = context.ports else {
        return Some(listed.into_iter().map(|a| a.value).collect());
    };
    let ours: Vec<IpAddr> = ports
        .iter()
        .filter(|port| !port.protected)
        .flat_map(|port| port.addresses.iter().map(|prefix| prefix.address))
        .collect();
    if listed.is_empty() {
        return reachable_from(section, ours, family);
    }
    for address in listed.iter().filter(|a| !ours.contains(&a.value)) {
        let known: Vec<_> = ours.iter().map(IpAddr::to_string).collect();
        let refusal = Refusal::new(
            format!(
                "{}: {} is not an address of a port that faces the peers",
                section.name("local_addrs"),
                address.value
            ),
            format!("take one of {}, or add it to a port", known.join(", ")),
        );
        section.problems().refuse(&address.span, refusal);
    }
    Some(listed.into_iter().map(|a| a.value).collect())
}

/// Empty or `%any`: whoever knows the secret.
fn remote_addrs(section: &Section<'_>) -> Option<Vec<IpAddr>> {
    let read = |value: &DeValue<'_>| match value.as_str() {
        Some("%any") => Ok(None),
        _ => value::address(value).map(Some),
    };
    let listed = section
        .given_list("remote_addrs", read)
        .ok()?
        .unwrap_or_default();
    if listed.iter().any(|a| a.value.is_none()) {
        return Some(Vec::new());
    }
    let named = listed.into_iter().filter_map(|a| {
        let Located { span, value } = a;
        value.map(|value| Located { span, value })
    });
    let named: Vec<Located<IpAddr>> = named.collect();
    one_family(
        section,
        "remote_addrs",
        &named,
        named.first().map(|a| a.value),
    )?;
    Some(named.into_iter().map(|a| a.value).collect())
}

/// IKE and ESP of a connection travel between addresses of one family.
fn one_family(
    section: &Section<'_>,
    key: &str,
    listed: &[Located<IpAddr>],
    first: Option<IpAddr>,
) -> Option<()> {
    let Some(first) = first else { return Some(()) };
    let other = listed.iter().find(|a| a.value.is_ipv4() != first.is_ipv4());
    let Some(other) = other else { return Some(()) };
    let (ours, theirs) = (value::family(other.value), value::family(first));
    let refusal = Refusal::new(
        format!(
            "{}: {} is {ours}, and {first} is {theirs}",
            section.name(key),
            other.value
        ),
        format!(
            "a connection has one family: keep its {theirs} addresses here, and write a second \
             connection for {ours}"
        ),
    );
    section.problems().refuse(&other.span, refusal);
    None
}

/// Of our addresses those that a connection of this family can use.
fn reachable_from(
    section: &Section<'_>,
    ours: Vec<IpAddr>,
    family: Option<IpAddr>,
) -> Option<Vec<IpAddr>> {
    let Some(remote) = family else {
        return Some(ours);
    };
    let fitting = ours.iter().filter(|a| a.is_ipv4() == remote.is_ipv4());
    let fitting: Vec<IpAddr> = fitting.copied().collect();
    if fitting.is_empty() && !ours.is_empty() {
        let family = value::family(remote);
        let refusal = Refusal::new(
            format!(
                "{}: {remote} is {family}, and no port that faces the peers has an {family} address",
                section.name("remote_addrs")
            ),
            format!("add an {family} address to a port with protected = false"),
        );
        section.refuse("remote_addrs", refusal);
        return None;
    }
    Some(fitting)
}

pub(super) fn proposals<T>(
    section: &Section<'_>,
    key: &'static str,
    example: &'static str,
) -> Option<Vec<T>>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let listed = section.required_list(
        key,
        ("propose something", example),
        |value: &DeValue<'_>| {
            value::parsed::<T>(example)(value).map_err(|refusal| Refusal {
                help: meant(value.as_str().unwrap_or_default()).unwrap_or(refusal.help),
                ..refusal
            })
        },
    )?;
    Some(listed.into_iter().map(|p| p.value).collect())
}

/// The proposal that a mistyped word was meant to make.
fn meant(text: &str) -> Option<String> {
    let mut changed = false;
    let words: Option<Vec<_>> = text
        .trim()
        .split('-')
        .map(|word| {
            if is_keyword(word) {
                return Some(word);
            }
            changed = true;
            nearest(&word.to_ascii_lowercase(), KEYWORDS.iter().copied())
        })
        .collect();
    words
        .filter(|_| changed)
        .map(|words| format!("did you mean \"{}\"?", words.join("-")))
}

/// The words of proposals that one is likely to have meant.
const KEYWORDS: &[&str] = &[
    "aes128gcm16",
    "aes256gcm16",
    "aes128",
    "aes256",
    "sha256",
    "sha384",
    "sha512",
    "prfsha256",
    "prfsha384",
    "prfsha512",
    "x25519",
    "curve25519",
    "ecp256",
    "ecp384",
    "ecp521",
    "modp2048",
    "modp3072",
    "modp4096",
    "mlkem768",
    "ke1_mlkem768",
    "chacha20poly1305",
    "esn",
    "noesn",
];

/// `ppk_id` and `ppk_required` (RFC 8784).
fn ppk(section: &Section<'_>, keys: &Keys<'_>) -> Result<Option<PpkSettings>, auth::Refused> {
    let id = section.given("ppk_id", value::parsed::<Identification>("ppk.example.org"));
    let required = section.or("ppk_required", false, value::boolean);
    let Some(id) = id? else {
        if required {
            section.missing("ppk_id", "ppk_id = \"ppk.example.org\"");
        }
        return Ok(None);
    };
    let Some(secrets) = keys.secrets else {
        return Ok(None);
    };
    let fitting = secrets.ppks.iter().filter(|ppk| ppk.id.matches(&id.value));
    let keys: Vec<_> = fitting.cloned().collect();
    if keys.is_empty() {
        let refusal = Refusal::new(
            format!("{}: no PPK is called {}", section.name("ppk_id"), id.value),
            format!(
                "add [secrets.ppk-peer] with id = \"{}\" and secret_file",
                id.value
            ),
        );
        section.problems().refuse(&id.span, refusal);
        return Err(auth::Refused);
    }
    Ok(Some(PpkSettings {
        id: id.value,
        keys,
        required,
    }))
}

/// Zero is for ever.
pub(super) fn lifetime(value: &DeValue<'_>) -> Result<Duration, Refusal> {
    let time = value::duration(value)?;
    if time.is_zero() || time >= Duration::from_secs(1) {
        return Ok(time);
    }
    Err(Refusal::new(
        format!("{time:?} is too short"),
        "give a second at least, or 0 for never",
    ))
}

/// A connection with pre-shared keys has a secret: one that names either end, or names nobody.
fn check_secret(
    section: &Section<'_>,
    ends: (&LocalAuth, &RemoteAuth),
    place: &Span,
    (local, remote): (&Identification, &Identification),
    context: &Context<'_>,
) {
    if !matches!(ends.0, LocalAuth::Psk) && !matches!(ends.1, RemoteAuth::Psk) {
        return;
    }
    let Some(secrets) = context.keys.secrets else {
        return;
    };
    let usable = secrets.list.iter().any(|secret| {
        let users = secret.ids.iter().any(Identification::is_eap);
        secret.ids.is_empty()
            || *remote == Identification::Any && !users
            || secret
                .ids
                .iter()
                .any(|id| remote.matches(id) || id.matches(remote) || local.matches(id))
    });
    if !usable {
        let refusal = Refusal::new(
            format!("{}: no secret for peer {remote}", section.path),
            format!(
                "add [secrets.{}] with ids = [\"{remote}\"] and secret_file",
                section.path.rsplit('.').next().unwrap_or("peer")
            ),
        );
        section.problems().refuse(place, refusal);
    }
}
