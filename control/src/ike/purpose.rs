//! What the configuration said of an SA when it was made, in few octets, and in its record: whoever
//! reads another file, or the same one anew, sees whether that is still what it is for.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};
use std::num::NonZeroU64;

use aws_lc_rs::digest::{Context, SHA256};
use hitless_sa::{Mode, TrafficSelector};

use super::proposal::Identification;
use super::settings::{Child, Connection};

/// A hash of it, the same in every version of this software.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Purpose(NonZeroU64);

impl Purpose {
    /// Between whom an IKE SA is.
    pub fn of_ends(connection: &Connection) -> Purpose {
        let Connection {
            local_id,
            local_addrs,
            remote_id,
            remote_addrs,
            ..
        } = connection;
        let mut text = Text::default();
        // One of our addresses, which is another at each member, is no more than where we are.
        let ours = local_addrs.iter().map(|a| Identification::Address(*a));
        if !ours.into_iter().any(|address| address == *local_id) {
            text.list("id", local_id.to_body());
        }
        text.list("id", remote_id.to_body());
        // They are tried in turn: in which order is nothing to an IKE SA that stands.
        text.list("remote_addrs", remote_addrs.iter().collect::<BTreeSet<_>>());
        text.purpose()
    }

    /// At which addresses of ours its peer finds us.
    pub fn of_addresses(connection: &Connection) -> Purpose {
        let mut text = Text::default();
        text.list("local_addrs", &connection.local_addrs);
        text.purpose()
    }

    /// What a Child SA protects, and how.
    pub fn of_child(child: &Child) -> Purpose {
        let mut text = Text::default();
        let mode = match child.mode {
            Mode::Tunnel => "tunnel",
            Mode::Transport => "transport",
        };
        text.list("mode", [mode]);
        text.list("local_ts", protected(&child.local_ts, &child.dynamic.local));
        text.list(
            "remote_ts",
            protected(&child.remote_ts, &child.dynamic.remote),
        );
        text.list("esp_proposals", &child.esp_proposals);
        text.purpose()
    }

    /// What a record has of it; zero if an older version wrote that.
    pub fn recorded(number: u64) -> Option<Purpose> {
        NonZeroU64::new(number).map(Purpose)
    }

    pub fn record(purpose: Option<Purpose>) -> u64 {
        purpose.map_or(0, |purpose| purpose.0.get())
    }
}

/// Those of a child, without what an address of the IKE SA comes to stand for: members may have
/// different ones, and not as many.
fn protected(all: &[TrafficSelector], dynamic: &[TrafficSelector]) -> Vec<String> {
    let shown = all.iter().map(|selector| Protected {
        selector,
        dynamic: dynamic.contains(selector),
    });
    let mut shown: Vec<String> = shown.map(|selector| selector.to_string()).collect();
    shown.dedup();
    shown
}

struct Protected<'a> {
    selector: &'a TrafficSelector,
    dynamic: bool,
}

impl Display for Protected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.dynamic {
            return self.selector.fmt(f);
        }
        let TrafficSelector {
            protocol,
            start_port,
            end_port,
            ..
        } = self.selector;
        write!(f, "dynamic[{protocol}/{start_port}-{end_port}]")
    }
}

/// What is hashed.
struct Text(Context);

impl Default for Text {
    fn default() -> Text {
        Text(Context::new(&SHA256))
    }
}

impl Text {
    fn list<T: Display>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.0.update(name.as_bytes());
        for item in items {
            // Writing to a hash does not fail.
            let _ = write!(self, " {item}");
        }
        self.0.update(b"\n");
    }

    fn purpose(self) -> Purpose {
        let hash = self.0.finish();
        let first = hash.as_ref().first_chunk().copied();
        let number = first.map_or(0, u64::from_be_bytes);
        Purpose(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::export::tests::settings;

    /// Records carry them: another version must not take every tunnel for one of another file.
    #[test]
    fn they_are_the_same_in_every_version() {
        let connection = &settings(0).connections[0];
        let all = [
            Purpose::of_ends(connection),
            Purpose::of_addresses(connection),
            Purpose::of_child(&connection.children[0]),
        ];
        let golden = [
            0x204d_d805_3513_2386,
            0xc26b_cb9e_d59c_4328,
            0xc39f_328e_377f_513b,
        ];
        assert_eq!(all.map(|purpose| Purpose::record(Some(purpose))), golden);
    }

    #[test]
    fn an_identity_that_is_an_address_of_ours_is_another_at_each_member() {
        let of = |local_id: &str, addresses: [&str; 2]| {
            let mut connection = settings(0).connections[0].clone();
            connection.local_id = local_id.parse().unwrap();
            connection.local_addrs = vec![addresses[0].parse().unwrap()];
            connection.remote_addrs = addresses.map(|a| a.parse().unwrap()).to_vec();
            Purpose::of_ends(&connection)
        };
        let here = ["192.0.2.1", "192.0.2.7"];
        let there = ["192.0.2.7", "192.0.2.1"];
        assert_eq!(of("192.0.2.1", here), of("192.0.2.7", there));
        assert_ne!(of("192.0.2.1", here), of("192.0.2.9", here));
        assert_ne!(of("gw.test", here), of("gw2.test", here));
    }

    #[test]
    fn whatever_a_child_protects_is_in_its_purpose() {
        let child = settings(0).connections[0].children[0].clone();
        let changes: [&dyn Fn(&mut Child); 6] = [
            &|child| child.mode = Mode::Transport,
            &|child| child.local_ts = vec!["10.1.0.0/17".parse().unwrap()],
            &|child| child.remote_ts = child.local_ts.clone(),
            &|child| child.dynamic.local = child.local_ts.clone(),
            &|child| child.dynamic.remote = child.remote_ts.clone(),
            &|child| child.esp_proposals = vec!["aes256gcm16-x25519-esn".parse().unwrap()],
        ];
        let mut all = vec![Purpose::of_child(&child)];
        for change in changes {
            let mut changed = child.clone();
            change(&mut changed);
            all.push(Purpose::of_child(&changed));
        }
        // Elsewhere our addresses are others, and not as many.
        for addresses in [&["192.0.2.7/32"][..], &["192.0.2.7/32", "2001:db8::7/128"]] {
            let mut elsewhere = child.clone();
            for selectors in [&mut elsewhere.local_ts, &mut elsewhere.dynamic.local] {
                *selectors = addresses.iter().map(|a| a.parse().unwrap()).collect();
            }
            assert_eq!(Purpose::of_child(&elsewhere), all[4]);
        }
        for (n, purpose) in all.iter().enumerate() {
            assert!(!all[..n].contains(purpose), "{n}");
        }
    }
}
