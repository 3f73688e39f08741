//! `[cluster]`: who we are, who the others are, and how we reach them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hitless_sa::MemberId;
use hitless_sync::Degraded;
use zeroize::Zeroizing;

use super::document::{Located, Refused, Section};
use super::model::{ClusterConfig, DEFAULT_STATE_DIR, OwnSecret, Peer, SyncConfig};
use super::report::Refusal;
use super::{secrets, value};

const EXAMPLE: &str = "[cluster]\nname = \"hq\"\nid = 1\nmembers = [\n  { id = 1, sync_addr = \"10.0.0.1:4510\" },\n  { id = 2, sync_addr = \"10.0.0.2:4510\" },\n]\nsecret_file = \"/etc/hitless/cluster.psk\"";
const MEMBER: &str = "members = [{ id = 1, sync_addr = \"10.0.0.1:4510\" }]";
/// A key that a person types; anything shorter can be guessed from one recorded handshake.
const SHORTEST_SECRET: usize = 16;

struct Member {
    id: Located<u64>,
    priority: u8,
    witness: bool,
    address: Result<Option<Located<SocketAddr>>, Refused>,
}

pub(super) fn read(root: &Section<'_>, base: &Path) -> Option<ClusterConfig> {
    let section = root.required_section("cluster", EXAMPLE)?;
    let name = section.required("name", "name = \"hq\"", value::text);
    let id = section.required("id", "id = 1", value::integer(1, 255));
    let members = section
        .tables("members", MEMBER)
        .map(|tables| tables.iter().filter_map(member).collect::<Vec<_>>());
    let listen = section.optional("sync_listen", value::socket_address);
    let secret = secrets::secret_of(&section, base);
    let heartbeat = section.or(
        "heartbeat",
        Duration::from_millis(10),
        value::duration_within(Duration::from_millis(1), Duration::from_secs(10)),
    );
    let missed = section.or("missed", 3, value::integer(1, 1000)) as u32;
    let degraded = section.or(
        "degraded",
        Degraded::default(),
        value::word(&[
            ("rekey", Degraded::Rekey),
            ("strict", Degraded::Strict),
            ("witness", Degraded::Witness),
        ]),
    );
    let preempt = section.or("preempt", false, value::boolean);
    let hold = section.or("hold", Duration::from_secs(2), value::duration);
    let late = section.or(
        "late",
        Duration::from_millis(250),
        value::duration_within(Duration::ZERO, Duration::from_secs(10)),
    );
    let state_dir = section.or(
        "state_dir",
        PathBuf::from(DEFAULT_STATE_DIR),
        value::absolute_path,
    );
    section.finish(&[(
        "mac",
        "each port has an address of its own: move it to [ports.NAME]",
    )]);

    let (name, id) = (name?, id?);
    let members = members.unwrap_or_default();
    check_members(&section, &id, &members);
    let witness = witness(&section, degraded, &members);
    let mut alone = OwnSecret::default();
    let sync = if members.len() < 2 {
        alone = own_secret(&section, secret);
        None
    } else {
        sync(&section, &id, &members, listen, secret)
    };
    Some(ClusterConfig {
        own_secret: alone,
        priority: own(&id, &members).map_or(DEFAULT_PRIORITY, |member| member.priority),
        name: name.value,
        id: MemberId(id.value as u8),
        sync,
        heartbeat,
        missed,
        degraded,
        witness,
        preempt,
        hold,
        late,
        state_dir,
    })
}

/// A gateway alone has nobody to share a secret with but itself after a restart.
fn own_secret(section: &Section<'_>, secret: secrets::Found) -> OwnSecret {
    let secrets::Found::Secret(secret) = secret else {
        return OwnSecret::default();
    };
    let long = check_length(section, &secret);
    OwnSecret(long.map(|()| secret.value))
}

fn check_length(section: &Section<'_>, secret: &Located<Zeroizing<Vec<u8>>>) -> Option<()> {
    if secret.value.len() >= SHORTEST_SECRET {
        return Some(());
    }
    let refusal = Refusal::new(
        "cluster: the secret is too short",
        format!("take {SHORTEST_SECRET} octets or more: `openssl rand -hex 32`"),
    );
    section.problems().refuse(&secret.span, refusal);
    None
}

const DEFAULT_PRIORITY: u8 = 100;

fn member(section: &Section<'_>) -> Option<Member> {
    let id = section.required("id", "id = 1", value::integer(1, 255));
    let priority = section.or(
        "priority",
        u64::from(DEFAULT_PRIORITY),
        value::integer(0, 255),
    ) as u8;
    let witness = section.or("witness", false, value::boolean);
    let address = section.given("sync_addr", value::socket_address);
    section.finish(&[]);
    Some(Member {
        id: id?,
        priority,
        witness,
        address,
    })
}

/// The one member that only votes, if there is one.
fn witness(section: &Section<'_>, degraded: Degraded, members: &[Member]) -> Option<MemberId> {
    let mut witnesses = members.iter().filter(|member| member.witness);
    let witness = witnesses.next();
    if let Some(second) = witnesses.next() {
        let refusal = Refusal::new(
            "cluster.members: two members are witnesses",
            "one is enough: it makes a majority with either of two members",
        );
        section.problems().refuse(&second.id.span, refusal);
    }
    match witness {
        None if degraded == Degraded::Witness => section.refuse(
            "degraded",
            Refusal::new(
                "cluster.degraded: there is no witness",
                "write witness = true in the entry of one of cluster.members, and start that one \
                 with `hitless witness`",
            ),
        ),
        Some(witness) if members.len() < 3 => {
            let refusal = Refusal::new(
                "cluster.members: a witness beside one member",
                "a witness decides between two members or more: add the other one",
            );
            section.problems().refuse(&witness.id.span, refusal);
        }
        _ => {}
    }
    witness.map(|member| MemberId(member.id.value as u8))
}

fn own<'m>(id: &Located<u64>, members: &'m [Member]) -> Option<&'m Member> {
    members.iter().find(|member| member.id.value == id.value)
}

fn check_members(section: &Section<'_>, id: &Located<u64>, members: &[Member]) {
    let problems = section.problems();
    let mut ids = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for member in members {
        if ids.insert(member.id.value, ()).is_some() {
            let refusal = Refusal::new(
                format!(
                    "cluster.members: two members have the id {}",
                    member.id.value
                ),
                "give each member a number of its own, and never reuse one",
            );
            problems.refuse(&member.id.span, refusal);
        }
        let Ok(Some(address)) = &member.address else {
            continue;
        };
        if let Some(other) = addresses.insert(address.value, member.id.value) {
            let refusal = Refusal::new(
                format!(
                    "cluster.members: members {other} and {} have the same sync_addr",
                    member.id.value
                ),
                "give each member its own address on the sync network",
            );
            problems.refuse(&address.span, refusal);
        }
    }
    if !members.is_empty() && own(id, members).is_none() {
        let known: Vec<_> = ids.keys().map(u64::to_string).collect();
        let refusal = Refusal::new(
            format!("cluster.id: no member has the id {}", id.value),
            format!(
                "this member must be one of cluster.members: {}",
                known.join(", ")
            ),
        );
        problems.refuse(&id.span, refusal);
    }
}

fn sync(
    section: &Section<'_>,
    id: &Located<u64>,
    members: &[Member],
    listen: Option<Located<SocketAddr>>,
    secret: secrets::Found,
) -> Option<SyncConfig> {
    let problems = section.problems();
    let mut peers = Vec::new();
    let mut listen = listen.map(|l| l.value);
    for member in members {
        let address = match &member.address {
            Ok(Some(address)) => address,
            Err(Refused) => continue,
            Ok(None) => {
                let title = format!(
                    "cluster.members: member {} has no sync_addr",
                    member.id.value
                );
                let help = "add sync_addr = \"10.0.0.2:4510\", where the others reach it";
                problems.refuse(&member.id.span, Refusal::new(title, help));
                continue;
            }
        };
        if member.id.value == id.value {
            listen = listen.or(Some(address.value));
        } else {
            peers.push(Peer {
                id: MemberId(member.id.value as u8),
                priority: member.priority,
                address: address.value,
            });
        }
    }
    peers.sort_by_key(|peer| peer.id);
    let secret = match secret {
        secrets::Found::Secret(secret) => secret,
        secrets::Found::Refused => return None,
        secrets::Found::Absent => {
            section.missing("secret_file", "secret_file = \"/etc/hitless/cluster.psk\" (make it with `openssl rand -hex 32`, the same on every member, mode 600)");
            return None;
        }
    };
    check_length(section, &secret)?;
    Some(SyncConfig {
        listen: listen?,
        peers,
        secret: secret.value,
    })
}
