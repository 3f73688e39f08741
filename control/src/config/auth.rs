//! `local` and `remote` of a connection: pre-shared keys or certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::credentials;
use super::document::{Located, Section};
use super::report::{Problems, Refusal, Span};
use super::secrets::Secrets;
use super::value;
use crate::ike::auth::{
    Certificate, DistinguishedName, Family, LocalAuth, LocalCertificate, LocalCertificates,
    RemoteAuth, RemoteCertificates, Revocation, SendCertificate, Trust,
};
use crate::ike::proposal::Identification;

/// By which time of day certificates are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AsOf {
    /// Not by time at all.
    #[default]
    Never,
    /// What has expired is warned of: the other connections should come up.
    Warn(Duration),
    /// What has expired is an error.
    Refuse(Duration),
}

/// What `local` and `remote` are checked against.
pub(super) struct Keys<'k> {
    /// `None` where the secrets have errors of their own.
    pub secrets: Option<&'k Secrets>,
    /// Where relative paths start.
    pub base: &'k Path,
    pub as_of: AsOf,
}

/// Something was there, was wrong, and was reported.
pub(super) struct Refused;

/// One end of a connection.
pub(super) struct End<A> {
    pub id: Option<Located<Identification>>,
    pub auth: A,
}

/// swanctl's `auth`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Psk,
    Pubkey(Family),
}

fn word(value: &DeValue<'_>) -> Result<Word, Refusal> {
    if value.as_str().is_some_and(|word| word.starts_with("eap")) {
        return Err(Refusal::new(
            "EAP is not spoken",
            "use auth = \"pubkey\" with a certificate for each client, or \"psk\"",
        ));
    }
    value::word(&[
        ("psk", Word::Psk),
        ("pubkey", Word::Pubkey(Family::Any)),
        ("rsa", Word::Pubkey(Family::RsaPkcs1)),
        ("rsa/pss", Word::Pubkey(Family::RsaPss)),
        ("ecdsa", Word::Pubkey(Family::Ecdsa)),
        ("ed25519", Word::Pubkey(Family::Ed25519)),
    ])(value)
}

fn id(section: &Section<'_>) -> Result<Option<Located<Identification>>, Refused> {
    let id = section.optional("id", value::parsed("moon.example.org"));
    match section.has("id") && id.is_none() {
        true => Err(Refused),
        false => Ok(id),
    }
}

/// `local = { auth = "pubkey", certs = ["gw.pem"], id = "..." }`.
pub(super) fn local(
    connection: &Section<'_>,
    keys: &Keys<'_>,
    anchors: Option<&RemoteAuth>,
) -> Result<End<LocalAuth>, Refused> {
    let send = connection.or(
        "send_cert",
        SendCertificate::default(),
        value::word(&[
            ("ifasked", SendCertificate::IfAsked),
            ("always", SendCertificate::Always),
            ("never", SendCertificate::Never),
        ]),
    );
    let psk = End {
        id: None,
        auth: LocalAuth::Psk,
    };
    let Some(section) = connection.section("local") else {
        return if connection.has("local") {
            Err(Refused)
        } else {
            Ok(psk)
        };
    };
    let auth = section.optional("auth", word);
    let files = section.list("certs", value::text);
    let id = id(&section);
    section.finish(&[(
        "cacerts",
        "intermediate certificates go into `certs`, after our own; whom we believe into remote.cacerts",
    )]);
    let family = match (auth.map(|a| a.value), files.is_some()) {
        (None, _) if section.has("auth") => return Err(Refused),
        (None | Some(Word::Psk), false) => {
            return Ok(End { id: id?, ..psk });
        }
        (Some(Word::Psk), true) => {
            let refusal = Refusal::new(
                format!("{}: certificates with auth = \"psk\"", section.path),
                "write auth = \"pubkey\", or leave certs out",
            );
            section.refuse("certs", refusal);
            return Err(Refused);
        }
        (Some(Word::Pubkey(family)), _) => family,
        (None, true) => Family::Any,
    };
    let Some(files) = files.filter(|files| !files.is_empty()) else {
        if !section.has("certs") || section.list("certs", value::text).is_some() {
            section.missing("certs", "certs = [\"gw.pem\"]");
        }
        return Err(Refused);
    };
    let found = Certificates {
        section: &section,
        keys,
        family,
    };
    let certificates = found.all(&files, anchors)?;
    let mut id = id?;
    let first = certificates.first().ok_or(Refused)?;
    match &id {
        Some(id) => found.confirm(&certificates, id)?,
        None => id = Some(found.default_id(first)?),
    }
    Ok(End {
        id,
        auth: LocalAuth::Pubkey(Arc::new(LocalCertificates {
            certificates,
            family,
            send,
        })),
    })
}

/// The certificates of `local`.
struct Certificates<'s> {
    section: &'s Section<'s>,
    keys: &'s Keys<'s>,
    family: Family,
}

impl Certificates<'_> {
    fn refuse(&self, span: &Span, title: String, help: impl Into<String>) -> Refused {
        let title = format!("{}: {title}", self.section.name("certs"));
        let problems = self.section.problems();
        problems.refuse(span, Refusal::new(title, help));
        Refused
    }

    /// Reads every file, finds the key and the chain of each certificate that is not an
    /// authority's.
    fn all(
        &self,
        files: &[Located<String>],
        remote: Option<&RemoteAuth>,
    ) -> Result<Vec<LocalCertificate>, Refused> {
        let mut read = Vec::new();
        let mut refused = false;
        for file in files {
            match credentials::certificates(&self.keys.base.join(&file.value)) {
                Ok(list) => read.extend(list.into_iter().map(|c| (&file.span, c))),
                Err(refusal) => {
                    self.refuse(&file.span, refusal.title, refusal.help);
                    refused = true;
                }
            }
        }
        let Some(secrets) = self.keys.secrets.filter(|_| !refused) else {
            return Err(Refused);
        };
        let own: Vec<_> = read.iter().filter(|(_, c)| !c.is_ca).collect();
        let pool: Vec<&Certificate> = read.iter().map(|(_, c)| c).filter(|c| c.is_ca).collect();
        if own.is_empty() {
            let span = files.first().map_or(0..0, |file| file.span.clone());
            return Err(self.refuse(
                &span,
                "only certificates of authorities".to_owned(),
                "name the gateway's own certificate, which is not a CA's",
            ));
        }
        let made: Vec<_> = own
            .into_iter()
            .map(|(span, certificate)| self.one(span, certificate, &pool, secrets, remote))
            .collect();
        made.into_iter().collect()
    }

    fn one(
        &self,
        span: &Span,
        certificate: &Certificate,
        pool: &[&Certificate],
        secrets: &Secrets,
        remote: Option<&RemoteAuth>,
    ) -> Result<LocalCertificate, Refused> {
        let shown = format!("{certificate:?}");
        let mut keys = secrets.keys.iter();
        let Some(key) = keys.find(|key| key.public_key() == certificate.public_key()) else {
            return Err(self.refuse(
                span,
                format!("no private key for {shown}"),
                "add [secrets.private-gw] with file = \"gw.key\": the key that the certificate was made for",
            ));
        };
        if !key.serves(self.family) {
            return Err(self.refuse(
                span,
                format!("the key of {shown} makes no signature of the kind that `auth` names"),
                "write auth = \"pubkey\"",
            ));
        }
        if !certificate.may_sign() {
            return Err(self.refuse(
                span,
                format!("{shown} is not for signatures (key usage)"),
                "have one issued with digitalSignature",
            ));
        }
        let intermediates = chain(certificate, pool);
        for judged in std::iter::once(certificate).chain(intermediates.iter().copied()) {
            judge(self.section.problems(), span, judged, self.keys.as_of);
        }
        let anchor = self.anchor(span, certificate, &intermediates, remote)?;
        Ok(LocalCertificate {
            certificate: certificate.clone(),
            intermediates: intermediates.into_iter().cloned().collect(),
            anchor,
            key: key.clone(),
        })
    }

    /// Where the chain ends: at an anchor in `remote.cacerts`, if the peer's authority is ours too.
    fn anchor(
        &self,
        span: &Span,
        certificate: &Certificate,
        intermediates: &[&Certificate],
        remote: Option<&RemoteAuth>,
    ) -> Result<Option<[u8; 20]>, Refused> {
        let last = intermediates.last().copied().unwrap_or(certificate);
        let shown = issuer(last);
        let anchors = match remote {
            Some(RemoteAuth::Pubkey(remote)) => remote.trust.anchors().collect(),
            _ => Vec::new(),
        };
        let found = anchors.iter().find(|a| last.is_issued_by(a));
        let Some(anchor) = found else {
            if !anchors.is_empty() {
                self.section.problems().warn(format!(
                    "{}: the chain of {certificate:?} ends at {shown}, which is not in remote.cacerts: \
                     the peer must have that certificate, or put it into `certs`",
                    self.section.name("certs"),
                ));
            }
            return Ok(None);
        };
        let mut trust = Trust::new(Revocation::Relaxed);
        let added = trust.add_anchor((*anchor).clone());
        let chain: Vec<&[u8]> = std::iter::once(certificate)
            .chain(intermediates.iter().copied())
            .map(|c| &c.der()[..])
            .collect();
        // As of when all of it was young: what has expired is judged elsewhere.
        let issued = std::iter::once(certificate)
            .chain(intermediates.iter().copied())
            .chain([*anchor])
            .map(Certificate::not_before);
        let time = Duration::from_secs(issued.max().unwrap_or(0));
        let verified = added.and_then(|()| trust.verify(&chain, time));
        match verified {
            Ok(_) => Ok(Some(anchor.authority())),
            Err(error) => Err(self.refuse(
                span,
                format!("{certificate:?} does not chain to {shown}: {error}"),
                "name the certificates that were issued to this gateway, its own first",
            )),
        }
    }

    /// Every peer will want to see the identity in the certificate.
    fn confirm(
        &self,
        certificates: &[LocalCertificate],
        id: &Located<Identification>,
    ) -> Result<(), Refused> {
        let Some(other) = certificates.iter().find(|c| !c.certificate.confirms(id)) else {
            return Ok(());
        };
        let known: Vec<_> = other
            .certificate
            .identities()
            .iter()
            .map(|i| format!("\"{i}\""))
            .collect();
        let title = format!(
            "{}: {:?} is not for {}",
            self.section.name("id"),
            other.certificate,
            id.value
        );
        let help = match known.is_empty() {
            true => "have one issued with a subjectAltName".to_owned(),
            false => format!("it is for {}: write one of these", known.join(", ")),
        };
        let problems = self.section.problems();
        problems.refuse(&id.span, Refusal::new(title, help));
        Err(Refused)
    }

    /// As strongSwan does: the subject.
    fn default_id(&self, first: &LocalCertificate) -> Result<Located<Identification>, Refused> {
        let ids = first.certificate.identities();
        let subject = ids
            .iter()
            .rev()
            .find(|id| matches!(id, Identification::Dn(_)));
        let Some(id) = subject.or(ids.first()) else {
            self.section.missing("id", "id = \"gw.example.org\"");
            return Err(Refused);
        };
        Ok(Located {
            span: self.section.span.clone(),
            value: id.clone(),
        })
    }
}

fn issuer(certificate: &Certificate) -> String {
    let name = certificate.issuer().map(DistinguishedName::to_string);
    name.unwrap_or_else(|| "nobody".to_owned())
}

/// The intermediates of a certificate out of a pool, its issuer first; without anchors, which the
/// peer has.
fn chain<'c>(certificate: &Certificate, pool: &[&'c Certificate]) -> Vec<&'c Certificate> {
    let mut out: Vec<&Certificate> = Vec::new();
    let mut last = certificate;
    while let Some(next) = pool.iter().find(|c| last.is_issued_by(c)) {
        let looped = out.iter().any(|known| known.der() == next.der());
        if looped || next.is_issued_by(next) {
            break;
        }
        out.push(next);
        last = next;
    }
    out
}

/// Whether a certificate is in time.
fn judge(problems: &Problems, span: &Span, certificate: &Certificate, as_of: AsOf) {
    let (AsOf::Warn(time) | AsOf::Refuse(time)) = as_of else {
        return;
    };
    if certificate.is_valid_at(time.as_secs()) {
        return;
    }
    let title = match time.as_secs() > certificate.not_after() {
        true => format!("{certificate:?} has expired"),
        false => format!("{certificate:?} is not valid yet"),
    };
    match as_of {
        AsOf::Refuse(_) => {
            let help = "have a new one issued, and see that the clock is right (`date`)";
            problems.refuse(span, Refusal::new(title, help));
        }
        _ => problems.warn(title),
    }
}

/// `remote = { auth = "pubkey", cacerts = ["ca.pem"], id = "..." }`.
pub(super) fn remote(
    connection: &Section<'_>,
    keys: &Keys<'_>,
) -> Result<End<RemoteAuth>, Refused> {
    let psk = End {
        id: None,
        auth: RemoteAuth::Psk,
    };
    let Some(section) = connection.section("remote") else {
        return if connection.has("remote") {
            Err(Refused)
        } else {
            Ok(psk)
        };
    };
    let auth = section.optional("auth", word);
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
    section.finish(&[
        (
            "certs",
            "name the authority that issued the peer's certificate: cacerts = [\"ca.pem\"]",
        ),
        (
            "ca_id",
            "name the authority's certificate: cacerts = [\"ca.pem\"]",
        ),
        ("eap_id", "EAP is not spoken"),
    ]);
    let family = match auth.map(|a| a.value) {
        None if section.has("auth") => return Err(Refused),
        None if anchors.is_some() => Family::Any,
        Some(Word::Pubkey(family)) => family,
        None | Some(Word::Psk) => {
            for key in ["cacerts", "crls", "revocation"]
                .into_iter()
                .filter(|k| section.has(k))
            {
                let title = format!("{}: {key} with auth = \"psk\"", section.path);
                section.refuse(
                    key,
                    Refusal::new(title, "write auth = \"pubkey\", or leave it out"),
                );
            }
            return Ok(End { id: id?, ..psk });
        }
    };
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
