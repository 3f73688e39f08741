//! The wrong messages.

mod answers;
mod auth;
mod create;
mod crossing;
mod fragments;
mod inform;
mod init;
mod login;
mod proposals;
mod responses;
mod unanswered;

use super::Case;
use super::bed::Stage;

/// All of them, in the order of the exchanges, each with the stage that it is sent at.
pub fn all() -> impl Iterator<Item = (Stage, &'static Case)> {
    let groups = [
        (Stage::Nothing, init::NOTHING),
        (Stage::HalfOpen, init::HALF_OPEN),
        (Stage::Busy, init::BUSY),
        (Stage::Nothing, proposals::NOTHING),
        (Stage::HalfOpen, auth::HALF_OPEN),
        (Stage::Established, auth::ESTABLISHED),
        (Stage::Established, inform::ESTABLISHED),
        (Stage::Established, create::ESTABLISHED),
        (Stage::Established, fragments::ESTABLISHED),
        (Stage::HalfOpen, fragments::HALF_OPEN),
        (Stage::Nothing, fragments::NOTHING),
        (Stage::AskedInit, answers::ASKED_INIT),
        (Stage::AskedAuth, responses::ASKED_AUTH),
        (Stage::AskedChild, responses::ASKED_CHILD),
        (Stage::AskedRekey, responses::ASKED_REKEY),
        (Stage::AskedLife, responses::ASKED_LIFE),
        (Stage::AskedChild, crossing::ASKED_CHILD),
        (Stage::AskedChild, crossing::CLOSED),
        (Stage::AskedRekey, crossing::ASKED_REKEY),
        (Stage::AskedLife, crossing::ASKED_LIFE),
        (Stage::AskedLife, crossing::CLOSED),
        (Stage::LogIn, login::LOG_IN),
        (Stage::Challenged, login::CHALLENGED),
        (Stage::AskedLogin, login::ASKED_LOGIN),
        (Stage::AskedUser, login::ASKED_USER),
        (Stage::AskedInit, unanswered::ASKED),
        (Stage::AskedAuth, unanswered::ASKED),
        (Stage::AskedChild, unanswered::ASKED),
        (Stage::AskedRekey, unanswered::ASKED),
        (Stage::AskedLife, unanswered::ASKED),
    ];
    let at = |(stage, cases): (Stage, &'static [Case])| cases.iter().map(move |case| (stage, case));
    groups.into_iter().flat_map(at)
}
