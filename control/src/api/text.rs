//! The reports as text for people. `list_sas` has strongSwan's layout to the letter
//! (`swanctl --list-sas`), because eyes and scripts know it.

use std::fmt::{Arguments, Write};

use super::report::{ChildSaStatus, GatewayStatus, IkeSaStatus, LeaseStatus};
use super::table::filled;

/// Text that grows by `writeln!`, which cannot fail here.
#[derive(Default)]
pub(super) struct Text(pub String);

impl Text {
    /// What `write!` and `writeln!` call.
    pub fn write_fmt(&mut self, text: Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(text);
    }
}

/// As `swanctl --list-sas` prints them.
pub fn list_sas(sas: &[IkeSaStatus]) -> String {
    let mut out = Text::default();
    for sa in sas {
        ike_sa(&mut out, sa);
    }
    out.0
}

/// Text that came from a peer cannot move the cursor of a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape = c.is_control();
            let escaped = escape.then(|| c.escape_default()).into_iter().flatten();
            escaped.chain((!escape).then_some(c))
        })
        .collect()
}

fn ike_sa(out: &mut Text, sa: &IkeSaStatus) {
    let (ours, theirs) = if sa.initiator { ("*", "") } else { ("", "*") };
    writeln!(
        out,
        "{}: #{}, {}, IKEv2, {}_i{ours} {}_r{theirs}",
        plain(&sa.name),
        sa.unique_id,
        sa.state.name(),
        plain(&sa.initiator_spi),
        plain(&sa.responder_spi)
    );
    let (local, remote) = (&sa.local_vips, &sa.remote_vips);
    let user = sa.remote_eap_id.as_ref();
    for (side, id, host, port, user, vips) in [
        (
            "local ",
            &sa.local_id,
            &sa.local_host,
            sa.local_port,
            None,
            local,
        ),
        (
            "remote",
            &sa.remote_id,
            &sa.remote_host,
            sa.remote_port,
            user,
            remote,
        ),
    ] {
        // As swanctl has it.
        let user = user.map_or_else(String::new, |user| format!(" EAP: '{user}'"));
        let vips = match vips.is_empty() {
            true => String::new(),
            false => format!(" [{}]", vips.join(" ")),
        };
        writeln!(
            out,
            "  {side} '{}' @ {}[{port}]{}{}",
            plain(id),
            plain(host),
            plain(&user),
            plain(&vips)
        );
    }
    if !sa.algorithms.is_empty() {
        writeln!(out, "  {}", plain(&sa.algorithms));
    }
    if let Some(established) = sa.established {
        let rekeying =
            seconds(", rekeying in ", sa.rekey_time) + &seconds(", reauth in ", sa.reauth_time);
        writeln!(out, "  established {established}s ago{rekeying}");
    }
    for child in &sa.children {
        child_sa(out, child);
    }
}

fn child_sa(out: &mut Text, child: &ChildSaStatus) {
    writeln!(
        out,
        "  {}: #{}, reqid {}, {}, {}{}, ESP:{}{}",
        plain(&child.name),
        child.unique_id,
        child.reqid,
        plain(&child.state),
        plain(&child.mode),
        if child.encapsulated { "-in-UDP" } else { "" },
        plain(&child.algorithms),
        if child.esn { "/ESN" } else { "" }
    );
    writeln!(
        out,
        "    installed {}s ago{}{}",
        child.installed,
        seconds(", rekeying in ", child.rekey_time),
        seconds(", expires in ", child.life_time)
    );
    for (side, spi, bytes, packets, used) in [
        (
            "in ",
            &child.spi_in,
            child.bytes_in,
            child.packets_in,
            child.used_in,
        ),
        (
            "out",
            &child.spi_out,
            child.bytes_out,
            child.packets_out,
            child.used_out,
        ),
    ] {
        let used = used.map_or_else(String::new, |used| format!(", {used:>5}s ago"));
        writeln!(
            out,
            "    {side} {}, {bytes:>6} bytes, {packets:>5} packets{used}",
            plain(spi)
        );
    }
    for (side, selectors) in [("local ", &child.local_ts), ("remote", &child.remote_ts)] {
        writeln!(out, "    {side} {}", plain(&selectors.join(" ")));
    }
}

fn seconds(what: &str, value: Option<u64>) -> String {
    value.map_or_else(String::new, |value| format!("{what}{value}s"))
}

/// The answer to `hitless status`.
pub fn status(s: &GatewayStatus) -> String {
    let mut text = Text::default();
    let out = &mut text;
    writeln!(
        out,
        "hitless {}, cluster {}, member {}, up {}s",
        plain(&s.version),
        plain(&s.cluster),
        s.member,
        s.uptime
    );
    let epoch = s.epoch.as_deref().unwrap_or("none");
    let leader = match s.leader {
        Some(leader) if leader == s.member => ", led by us".to_owned(),
        Some(leader) => format!(", led by member {leader}"),
        None => String::new(),
    };
    let degraded = if s.degraded { ", DEGRADED" } else { "" };
    writeln!(
        out,
        "  role {}, epoch {}{leader}, incarnation {}{degraded}",
        s.role.name(),
        plain(epoch),
        s.incarnation
    );
    writeln!(
        out,
        "  sas {} IKE, {} child; in {} packets, {} bytes; out {} packets, {} bytes",
        s.ike_sas, s.child_sas, s.packets_in, s.bytes_in, s.packets_out, s.bytes_out
    );
    writeln!(
        out,
        "  aead {}, {} worker{}",
        plain(&s.aead),
        s.workers,
        if s.workers == 1 { "" } else { "s" }
    );
    if let Some(path) = &s.key_log {
        writeln!(out, "  WARNING: every key is written to {}", plain(path));
    }
    members(out, s);
    leases(out, &s.leases, s.child_sas);
    ports(out, s);
    drops(out, s);
    text.0
}

fn members(out: &mut Text, s: &GatewayStatus) {
    if s.members.is_empty() {
        writeln!(out, "members: no other");
        return;
    }
    writeln!(out, "members:");
    for member in &s.members {
        let role = member.role.map_or("never seen", |role| role.name());
        let heard = match member.silent_for {
            Some(silent) => format!(", heard {silent} ms ago"),
            None => String::new(),
        };
        let bound = if member.able { ", may take over" } else { "" };
        let health = if member.healthy || member.role.is_none() {
            ""
        } else {
            ", UNHEALTHY"
        };
        let backlog = match member.backlog {
            0 => String::new(),
            records => format!(", {records} records behind"),
        };
        writeln!(
            out,
            "  {} {}, {role}{heard}{bound}{backlog}{health}",
            member.id,
            plain(&member.address)
        );
    }
    writeln!(
        out,
        "  sync: {} objects, {} held, lag {} ms{}",
        s.sync.objects,
        s.sync.held,
        s.sync.lag,
        if s.sync.vouched { ", vouched" } else { "" }
    );
}

/// `all` is how many Child SAs there are.
fn leases(out: &mut Text, leases: &[LeaseStatus], all: u64) {
    if leases.is_empty() {
        return;
    }
    writeln!(out, "leases:");
    for lease in leases {
        writeln!(
            out,
            "  {} ({}): next {}, grant {} ({} left); in {}, high water {}; {} stalls",
            plain(&lease.child),
            plain(&lease.sa),
            lease.next,
            lease.grant,
            lease.remaining(),
            lease.inbound_top,
            lease.high_water,
            lease.stalls
        );
    }
    let more = all.saturating_sub(leases.len() as u64);
    if more > 0 {
        writeln!(
            out,
            "  and {more} more, further from their end: hitless show sa"
        );
    }
}

fn ports(out: &mut Text, s: &GatewayStatus) {
    writeln!(out, "ports:");
    for port in &s.ports {
        let side = if port.protected { "protected" } else { "peers" };
        let mode = match port.mode.as_str() {
            "" => String::new(),
            mode => format!(" {}", plain(mode)),
        };
        writeln!(
            out,
            "  {} ({side}): {} {}{mode}, {}, {}",
            plain(&port.name),
            plain(&port.interface),
            plain(&port.driver),
            plain(&port.mac),
            plain(&port.addresses.join(" "))
        );
        writeln!(
            out,
            "    in {} packets, {} bytes; out {} packets, {} bytes; {} dropped",
            port.rx_packets, port.rx_bytes, port.tx_packets, port.tx_bytes, port.dropped
        );
    }
}

fn drops(out: &mut Text, s: &GatewayStatus) {
    if s.drops.is_empty() {
        writeln!(out, "drops: none");
        return;
    }
    writeln!(out, "drops:");
    for drop in &s.drops {
        writeln!(
            out,
            "  {:<20} {:<24} {}",
            plain(&drop.reason),
            plain(filled(&drop.xfrm)),
            drop.packets
        );
    }
}
