//! The wrong messages.

mod answers;
mod auth;
mod create;
mod fragments;
mod inform;
mod init;
mod proposals;
mod responses;

use super::Case;

/// All of them, in the order of the exchanges.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let files = [
        init::CASES,
        proposals::CASES,
        auth::CASES,
        inform::CASES,
        create::CASES,
        fragments::CASES,
        answers::CASES,
        responses::CASES,
    ];
    files.into_iter().flatten()
}
