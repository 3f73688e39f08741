//! The lane from ESP to the inner packet (RFC 4301 section 5.2, RFC 4303 section 3.4).

use hitless_sa::Instant;

use super::{Enterings, Rest};
use crate::path::Sorted;
use crate::worker::Worker;

impl Worker {
    /// Takes what it can; the rest goes the plain way as it came. What turns out odd after it has been
    /// decrypted goes on by the steps of the plain way.
    pub(super) fn express_inbound(
        &mut self,
        _now: Instant,
        entering: &mut Enterings,
        _sorted: &mut Sorted,
        rest: &mut Rest,
    ) {
        for packet in entering.drain(..) {
            rest.take(packet.packet, packet.place);
        }
    }
}
