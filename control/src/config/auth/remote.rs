//! `remote`: whose certificates are accepted, or which users.

use std::sync::Arc;
use std::time::Duration;

use super::{End, Keys, Refused, Word, eap, id, judge, word};
use crate::config::credentials;
use crate::config::document::{Located, Section};
use crate::config::report::{Refusal, Span};
use crate::config::value;
use crate::ike::auth::{Family, RemoteAuth, RemoteCertificates, Revocation, Trust};
use crate::ike::proposal::Identification;

/// swanctl's words that mean nothing here.
const FOREIGN: &[(&str, &str)] = &[
    (
        "certs",
        "name the authority that issued the peer's certificate: cacerts = [\"ca.pem\"]",
    ),
    (
        "ca_id",
        "name the authority's certificate: cacerts = [\"ca.pem\"]",
    ),
];

/// `remote = { auth = "pubkey", cacerts = ["ca.pem"], id = "..." }`.
pub(in crate::config) fn remote(
    connection: &Section<'_>,
    keys: &Keys<'_>,
) -> Result<End<RemoteAuth>, Refused> {
    let psk = End {
        id: None,
        auth: RemoteAuth::Psk,
    };
    let Some(section) = connection.given_section("remote")? else {
        return Ok(psk);
    };
    let auth = section.given("auth", word);
    let anchors = section.list("cacerts", value::text);
    let lists = section.list("crls", value::text).unwrap_or_default();
    let revocation = section.or(
        "revocation",
        Revocation::default(),
        value::word(&[
            ("relaxed", Revocation::Relaxed),
            ("ifuri", Revocation::IfUri),
            ("strict", Revocation::Strict),
        ]),
    );
    let id = id(&section);
    let users = eap::remote_users(&section);
    section.finish(FOREIGN);
    let family = match auth?.map(|a| a.value) {
        None if anchors.is_some() => Family::Any,
        Some(Word::Pubkey(family)) => family,
        None | Some(Word::Psk) => {
            without_certificates(&section, Word::Psk);
            eap::without_users(&section)?;
            return Ok(End { id: id?, ..psk });
        }
        Some(Word::Eap) => {
            without_certificates(&section, Word::Eap);
            let (id, users) = (id?, users?);
            return eap::remote(&section, keys, id, users);
        }
    };
    eap::without_users(&section)?;
    let Some(anchors) = anchors.filter(|anchors| !anchors.is_empty()) else {
        section.missing("cacerts", "cacerts = [\"ca.pem\"]");
        return Err(Refused);
    };
    let trust = trust(&section, keys, &anchors, &lists, revocation)?;
    let crl_files = lists
        .iter()
        .map(|file| keys.base.join(&file.value))
        .collect();
    Ok(End {
        id: Some(id?.unwrap_or(Located {
            span: section.span.clone(),
            value: Identification::Any,
        })),
        auth: RemoteAuth::Pubkey(Arc::new(RemoteCertificates {
            trust,
            family,
            crl_files,
        })),
    })
}

/// A list is looked at when a peer authenticates, which may be once and never again.
pub(in crate::config) fn warn_of_lists(
    connection: &Section<'_>,
    remote: &RemoteAuth,
    reauth_time: Duration,
) {
    let listed = matches!(remote, RemoteAuth::Pubkey(remote) if !remote.crl_files.is_empty());
    if listed && reauth_time.is_zero() {
        connection.problems().warn(format!(
            "{}: crls without reauth_time: an IKE SA whose peer's certificate is revoked stays until \
             that certificate expires; write reauth_time = \"3h\" beside them",
            connection.path
        ));
    }
}

/// Nothing of certificates belongs beside a secret.
fn without_certificates(section: &Section<'_>, word: Word) {
    let keys = ["cacerts", "crls", "revocation"];
    for key in keys.into_iter().filter(|key| section.has(key)) {
        let title = format!("{}: {key} with auth = \"{}\"", section.path, word.text());
        let help = "write auth = \"pubkey\", or leave it out";
        section.refuse(key, Refusal::new(title, help));
    }
}

fn trust(
    section: &Section<'_>,
    keys: &Keys<'_>,
    anchors: &[Located<String>],
    lists: &[Located<String>],
    revocation: Revocation,
) -> Result<Trust, Refused> {
    let mut trust = Trust::new(revocation);
    let before = section.problems().count();
    let refuse = |key, span: &Span, refusal: Refusal| {
        let title = format!("{}: {}", section.name(key), refusal.title);
        let problems = section.problems();
        problems.refuse(span, Refusal::new(title, refusal.help));
    };
    for file in anchors {
        let read = credentials::certificates(&keys.base.join(&file.value));
        for certificate in read.unwrap_or_else(|refusal| {
            refuse("cacerts", &file.span, refusal);
            Vec::new()
        }) {
            judge(section.problems(), &file.span, &certificate, keys.as_of);
            let usable = certificate.is_ca && certificate.may_certify();
            let added = usable.then(|| trust.add_anchor(certificate.clone()));
            if !matches!(added, Some(Ok(()))) {
                let title = format!("{certificate:?} is not an authority's");
                let help = "name the certificate that issued the peer's, or that one's issuer";
                refuse("cacerts", &file.span, Refusal::new(title, help));
            }
        }
    }
    let mut crls = Vec::new();
    for file in lists {
        match credentials::revocation_lists(&keys.base.join(&file.value)) {
            Ok(read) => crls.extend(read),
            Err(refusal) => refuse("crls", &file.span, refusal),
        }
    }
    trust.replace_crls(crls);
    if revocation == Revocation::Strict && lists.is_empty() {
        let title = "strict, and no revocation lists".to_owned();
        let help = "add crls = [\"ca.crl\"] beside cacerts: hitless fetches none by itself";
        section.refuse(
            "revocation",
            Refusal::new(format!("{}: {title}", section.name("revocation")), help),
        );
    }
    match section.problems().count() == before {
        true => Ok(trust),
        false => Err(Refused),
    }
}
