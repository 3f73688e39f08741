//! A gateway that asks and hears nothing: it repeats its request octet for octet, and at last it gives
//! up (RFC 7296 sections 2.1 and 2.4).

use crate::mangle::judge::Expected::{GivenUp, Repeated};
use crate::mangle::{Case, case};

/// More than ever is due before a request is given up.
const PATIENCE: usize = 100;

pub const ASKED: &[Case] = &[
    case(
        "the first request is ignored",
        "RFC 7296 2.1",
        Repeated,
        |bed| {
            bed.wait();
            Vec::new()
        },
    ),
    case("every request is ignored", "RFC 7296 2.4", GivenUp, |bed| {
        for _ in 0..PATIENCE {
            if bed.empty() || !bed.wait() {
                break;
            }
        }
        Vec::new()
    }),
];
