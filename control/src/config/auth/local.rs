//! `local`: our certificates with their chains and keys, or the user that we log in as.

use std::sync::Arc;
use std::time::Duration;

use super::{End, Keys, Refused, Word, eap, id, judge, word};
use crate::config::credentials;
use crate::config::document::{Located, Section};
use crate::config::report::{Refusal, Span};
use crate::config::secrets::Secrets;
use crate::config::value;
use crate::ike::auth::{
    Certificate, DistinguishedName, Family, LocalAuth, LocalCertificate, LocalCertificates,
    RemoteAuth, Revocation, SendCertificate, Trust,
};
use crate::ike::proposal::Identification;

/// `local = { auth = "pubkey", certs = ["gw.pem"], id = "..." }`.
pub(in crate::config) fn local(
    connection: &Section<'_>,
    keys: &Keys<'_>,
    anchors: Option<&RemoteAuth>,
) -> Result<End<LocalAuth>, Refused> {
    let send = connection.or(
        "send_cert",
        unless_said(anchors),
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
    let Some(section) = connection.given_section("local")? else {
        return Ok(psk);
    };
    let files = section.given_list("certs", value::text);
    let id = id(&section);
    let user = eap::local_user(&section);
    let certified = matches!(files, Ok(Some(_)));
    let family = match kind(&section, certified)? {
        Kind::Psk => {
            eap::without_users(&section)?;
            return Ok(End { id: id?, ..psk });
        }
        Kind::Eap => {
            let (id, user) = (id?, user?);
            let auth = eap::local(&section, keys, id.as_ref(), user)?;
            return Ok(End { id, auth });
        }
        Kind::Certificates(family) => family,
    };
    eap::without_users(&section)?;
    let Some(files) = files?.filter(|files| !files.is_empty()) else {
        section.missing("certs", "certs = [\"gw.pem\"]");
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

/// Clients that log in with EAP know a gateway by its certificate, and not all of them ask for it:
/// those of iOS and macOS send no CERTREQ.
fn unless_said(remote: Option<&RemoteAuth>) -> SendCertificate {
    match remote {
        Some(RemoteAuth::Eap(_)) => SendCertificate::Always,
        _ => SendCertificate::default(),
    }
}

/// What `local` is about.
enum Kind {
    Psk,
    Eap,
    /// Which signatures we make.
    Certificates(Family),
}

fn kind(section: &Section<'_>, certified: bool) -> Result<Kind, Refused> {
    let auth = section.given("auth", word);
    section.finish(&[(
        "cacerts",
        "intermediate certificates go into `certs`, after our own; whom we believe into remote.cacerts",
    )]);
    match (auth?.map(|a| a.value), certified) {
        (None | Some(Word::Psk), false) => Ok(Kind::Psk),
        (Some(Word::Eap), false) => Ok(Kind::Eap),
        (Some(word @ (Word::Psk | Word::Eap)), true) => {
            let refusal = Refusal::new(
                format!(
                    "{}: certificates with auth = \"{}\"",
                    section.path,
                    word.text()
                ),
                "write auth = \"pubkey\", or leave certs out",
            );
            section.refuse("certs", refusal);
            Err(Refused)
        }
        (Some(Word::Pubkey(family)), _) => Ok(Kind::Certificates(family)),
        (None, true) => Ok(Kind::Certificates(Family::Any)),
    }
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
