//! EAP-MSCHAPv2 within IKE_AUTH (RFC 7296 section 2.16), for clients that have a name and a password.
//!
//! ```text
//!  packet.rs    EAP and MS-CHAPv2 messages, read and written      mschapv2.rs  the arithmetic
//!  server.rs    who asks (we, as responder)                       client.rs    who is asked
//!
//!  client                              gateway
//!  IDi, SAi2, TSi, TSr, CP        ->   no AUTH: wants EAP
//!                                 <-   IDr, CERT, AUTH (a signature), EAP Request/Identity
//!  EAP Response/Identity          ->
//!                                 <-   EAP Request/Challenge
//!  EAP Response/Response          ->
//!                                 <-   EAP Request/Success, or E=691 R=0
//!  EAP Response/Success           ->
//!                                 <-   EAP Success
//!  AUTH (of the MSK)              ->
//!                                 <-   AUTH (of the MSK), SAr2, TSi, TSr, CP
//! ```
//!
//! Sans-IO: a packet and some randomness go in, a packet comes out. All of it happens while the IKE SA
//! is half open, which no record knows: a client whose login a takeover interrupts begins again. From
//! then on the EAP identity is in the record of the IKE SA.
//!
//! One attempt for each IKE SA, and no sign of whether a name exists: a name without a secret goes
//! through the same messages and the same arithmetic.

mod client;
mod mschapv2;
mod packet;
mod server;

use zeroize::Zeroizing;

use super::message::{Payload, PayloadKind};
use super::proposal::Identification;
use super::settings::Secret;

pub(super) use client::{Client, Reply};
pub use packet::is_consistent;
pub(super) use server::{Accounts, Answer, Login, Server};

/// The key that both ends have after a login, in the place of a pre-shared one.
pub(super) type Msk = Zeroizing<Vec<u8>>;

/// An EAP payload (RFC 7296 section 3.16).
pub(super) fn payload(packet: Vec<u8>) -> Payload {
    Payload::Unknown {
        kind: PayloadKind::EAP,
        critical: false,
        body: packet,
    }
}

/// The password of a user, and the user as the configuration writes it. Every entry is looked at, so
/// that the time says nothing.
pub(super) fn account<'s>(
    secrets: &'s [Secret],
    user: &Identification,
) -> Option<(&'s Identification, &'s Zeroizing<Vec<u8>>)> {
    let mut found = None;
    for secret in secrets {
        for id in &secret.ids {
            if user.is_eap() && user.matches(id) {
                found.get_or_insert((id, &secret.secret));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
