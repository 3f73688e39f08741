//! `auth = "eap-mschapv2"`: users with passwords, here or at the gateway that we are a client of.

use toml::de::DeValue;

use super::{End, Keys, Refused};
use crate::config::document::{Located, Section};
use crate::config::report::Refusal;
use crate::config::value::{self, quoted};
use crate::ike::auth::{EapUsers, LocalAuth, RemoteAuth};
use crate::ike::proposal::Identification;
use crate::ike::settings::Secret;

/// The name of one user.
pub(in crate::config) fn user(value: &DeValue<'_>) -> Result<Identification, Refusal> {
    let name = value::text(value)?;
    Identification::user(name.as_bytes()).ok_or_else(|| {
        Refusal::new(
            format!("{} is no user's name", quoted(&name)),
            "write letters, digits and signs without blanks: \"alice\", \"alice@example.org\"",
        )
    })
}

/// `%any`, a name, or `*` and the end of names.
fn users(value: &DeValue<'_>) -> Result<Identification, Refusal> {
    let text = value::text(value)?;
    if text == "%any" {
        return Ok(Identification::Any);
    }
    match text.strip_prefix('*') {
        Some(tail) if Identification::user(tail.as_bytes()).is_some() => {
            Ok(Identification::Eap(text))
        }
        _ => user(value),
    }
}

type Name = Option<Located<Identification>>;

pub(super) fn local_user(section: &Section<'_>) -> Result<Name, Refused> {
    section.given("eap_id", user)
}

pub(super) fn remote_users(section: &Section<'_>) -> Result<Name, Refused> {
    section.given("eap_id", users)
}

/// `eap_id` is for EAP.
pub(super) fn without_users(section: &Section<'_>) -> Result<(), Refused> {
    if !section.has("eap_id") {
        return Ok(());
    }
    let title = format!("{}: eap_id without EAP", section.path);
    let help = "write auth = \"eap-mschapv2\", or leave eap_id out";
    section.refuse("eap_id", Refusal::new(title, help));
    Err(Refused)
}

fn has_account(secrets: &[Secret], fits: impl Fn(&Identification) -> bool) -> bool {
    let mut ids = secrets.iter().flat_map(|secret| &secret.ids);
    ids.any(|id| id.is_eap() && fits(id))
}

/// `local = { auth = "eap-mschapv2", id = "...", eap_id = "alice" }`.
pub(super) fn local(
    section: &Section<'_>,
    keys: &Keys<'_>,
    id: Option<&Located<Identification>>,
    user: Name,
) -> Result<LocalAuth, Refused> {
    let by_id = || match id.map(|id| &id.value) {
        Some(Identification::Fqdn(name) | Identification::Email(name)) => {
            Identification::user(name.as_bytes())
        }
        _ => None,
    };
    let Some(user) = user.map(|user| user.value).or_else(by_id) else {
        section.missing("eap_id", "eap_id = \"alice\"");
        return Err(Refused);
    };
    let secrets = keys.secrets.ok_or(Refused)?;
    if !has_account(&secrets.list, |id| user.matches(id)) {
        let title = format!("{}: no password of {user}", section.path);
        let help = format!("add [secrets.eap-{user}] with id = \"{user}\" and secret_file");
        section.refuse("eap_id", Refusal::new(title, help));
        return Err(Refused);
    }
    Ok(LocalAuth::Eap(user))
}

/// `remote = { auth = "eap-mschapv2", id = "%any", eap_id = "%any" }`.
pub(super) fn remote(
    section: &Section<'_>,
    keys: &Keys<'_>,
    id: Name,
    users: Name,
) -> Result<End<RemoteAuth>, Refused> {
    let users = match users {
        Some(users) => EapUsers::Asked(users.value),
        None => EapUsers::ByIkeIdentity,
    };
    let secrets = keys.secrets.ok_or(Refused)?;
    if !has_account(&secrets.list, |id| users.may_include(id)) {
        let title = format!("{}: no user has a password", section.path);
        let help =
            "add [secrets.eap-alice] with id = \"alice\" and secret_file = \"alice.password\"";
        section.refuse("auth", Refusal::new(title, help));
        return Err(Refused);
    }
    Ok(End {
        id: Some(id.unwrap_or(Located {
            span: section.span.clone(),
            value: Identification::Any,
        })),
        auth: RemoteAuth::Eap(users),
    })
}

/// What a connection with EAP needs besides, and cannot have (RFC 7296 section 2.16). `gateway`:
/// who the peer has to be; `starts`: a child that we begin.
pub(in crate::config) fn check(
    section: &Section<'_>,
    (local, remote): (&LocalAuth, &RemoteAuth),
    gateway: &Identification,
    starts: Option<&str>,
) {
    let asks = matches!(remote, RemoteAuth::Eap(_));
    if asks && !matches!(local, LocalAuth::Pubkey(_)) {
        let title = format!("{}: users want to see a certificate of ours", section.path);
        let help =
            "write local = { auth = \"pubkey\", certs = [\"gw.pem\"], id = \"gw.example.org\" }";
        section.refuse("local", Refusal::new(title, help));
    }
    if let (true, LocalAuth::Pubkey(own)) = (asks, local)
        && own.needs_rfc_7427()
    {
        section.problems().warn(format!(
            "{}: clients without RFC 7427, as those of Windows and Apple are, take RSA with SHA-1 alone, \
             which is not used here: they need an ECDSA certificate in local.certs",
            section.path
        ));
    }
    if let (true, Some(child)) = (asks, starts) {
        let title = format!("{}: nobody asks users to log in", section.path);
        let help = format!("users begin: write start_action = \"none\" in children.{child}");
        section.refuse("children", Refusal::new(title, help));
    }
    let logs_in = matches!(local, LocalAuth::Eap(_));
    if logs_in && !matches!(remote, RemoteAuth::Pubkey(_)) {
        let title = format!(
            "{}: a password is for a gateway with a certificate",
            section.path
        );
        let help =
            "write remote = { auth = \"pubkey\", cacerts = [\"ca.pem\"], id = \"gw.example.org\" }";
        section.refuse("remote", Refusal::new(title, help));
    } else if logs_in && *gateway == Identification::Any {
        let title = format!(
            "{}: whoever has a certificate of the authority could ask for the password",
            section.path
        );
        let help = "name the gateway: remote = { .., id = \"gw.example.org\" }";
        section.refuse("remote", Refusal::new(title, help));
    }
    if (asks || logs_in) && section.has("ppk_id") {
        let title = format!("{}: ppk_id beside EAP", section.path);
        let help = "leave ppk_id out: a PPK goes with certificates and pre-shared keys";
        section.refuse("ppk_id", Refusal::new(title, help));
    }
}
