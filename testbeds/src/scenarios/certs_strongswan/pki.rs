//! The certificates of the scenario, issued by strongSwan's `pki`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::LabError;
use crate::process::Program;

/// Certificates by who holds them: file, kind of key (its size behind it, if there are several), subject
/// alternative names.
const GATEWAY: &[(&str, &str, &[&str])] = &[
    ("gw-ecdsa", "ecdsa-256", &["gw.test"]),
    ("gw-ecdsa384", "ecdsa-384", &["gw.test"]),
    ("gw-rsa", "rsa-3072", &["gw.test"]),
    (
        "gw-long",
        "rsa-4096",
        &["gw.test", LONG[0], LONG[1], LONG[2], LONG[3]],
    ),
    ("gw-ed25519", "ed25519", &["gw.test"]),
];
/// What makes a certificate as long as some are.
const LONG: [&str; 4] = [
    "one.of-the-offices-in-a-street.of-a-town-not-far-away.of-a-country-of-its-own.test",
    "two.of-the-offices-in-a-street.of-a-town-not-far-away.of-a-country-of-its-own.test",
    "three.of-the-offices-in-a-street.of-a-town-not-far-away.of-a-country-of-its-own.test",
    "four.of-the-offices-in-a-street.of-a-town-not-far-away.of-a-country-of-its-own.test",
];
const PEER: &[(&str, &str, &[&str])] = &[
    (
        "ecdsa",
        "ecdsa-256",
        &[
            "ecdsa.test",
            "our-ecdsa.test",
            "wrong.test",
            "ppk.test",
            "no-ppk.test",
            "our-ppk.test",
            "both.test",
            "our-both.test",
        ],
    ),
    (
        "ecdsa384",
        "ecdsa-384",
        &["ecdsa384.test", "our-ecdsa384.test"],
    ),
    (
        "rsa",
        "rsa-2048",
        &[
            "rsa-pss.test",
            "our-rsa-pss.test",
            "rsa-pkcs1.test",
            "our-rsa-pkcs1.test",
        ],
    ),
    (
        "long",
        "rsa-4096",
        &[
            "rsa-whole.test",
            "our-rsa-whole.test",
            LONG[0],
            LONG[1],
            LONG[2],
            LONG[3],
        ],
    ),
    ("ed25519", "ed25519", &["ed25519.test", "our-ed25519.test"]),
    ("subject", "ecdsa-256", &["nobody.test"]),
    (
        "revoked",
        "ecdsa-256",
        &["revoked.test", "our-revoked.test"],
    ),
    (
        "expired",
        "ecdsa-256",
        &["expired.test", "our-expired.test"],
    ),
];

struct Authority<'d> {
    directory: &'d Path,
}

/// Makes everything: `root`, `sub` below it, what `sub` issued, its list of what it revoked, and
/// `other`, whom the gateway does not know.
pub fn issue(directory: &Path) -> Result<(), LabError> {
    let swanctl = directory.join("peer/swanctl");
    for part in ["x509", "x509ca", "private"] {
        std::fs::create_dir_all(swanctl.join(part)).map_err(LabError::io("making directories"))?;
    }
    let house = Authority { directory };
    for anchor in ["root", "other"] {
        house.key(anchor, "ecdsa-256")?;
        let key = house.path(&format!("{anchor}.key"));
        let subject = format!("C=CH, O=lab, CN={anchor}");
        house.keep(
            &format!("{anchor}.crt"),
            &[
                "--self",
                "--ca",
                "--in",
                &key,
                "--type",
                "ecdsa",
                "--dn",
                &subject,
                "--outform",
                "pem",
            ],
        )?;
    }
    house.key("sub", "ecdsa-256")?;
    house.certificate("sub", "root", "ecdsa-256", &[], &["--ca", "--pathlen", "0"])?;
    for (name, kind, names) in GATEWAY.iter().chain(PEER) {
        house.key(name, kind)?;
        let past: &[&str] = match *name {
            "expired" => &[
                "--not-before",
                "01.01.24 00:00:00",
                "--not-after",
                "01.02.24 00:00:00",
            ],
            _ => &[],
        };
        house.certificate(name, "sub", kind, names, past)?;
    }
    house.key("stranger", "ecdsa-256")?;
    let names = ["stranger.test", "our-stranger.test"];
    house.certificate("stranger", "other", "ecdsa-256", &names, &[])?;
    let [sub, key] = ["sub.crt", "sub.key"].map(|file| house.path(file));
    let revoked = house.path("revoked.crt");
    house.keep(
        "sub.crl",
        &[
            "--signcrl",
            "--cacert",
            &sub,
            "--cakey",
            &key,
            "--cert",
            &revoked,
            "--reason",
            "key-compromise",
            "--outform",
            "pem",
        ],
    )?;
    house.give_to_peer(&swanctl)
}

impl Authority<'_> {
    fn path(&self, file: &str) -> String {
        self.directory.join(file).display().to_string()
    }

    /// Runs `pki` and keeps what it prints.
    fn keep(&self, file: &str, words: &[&str]) -> Result<(), LabError> {
        let printed = Program::new(["pki"].iter().chain(words).copied()).run()?;
        let path = PathBuf::from(self.path(file));
        let what = path.display().to_string();
        std::fs::write(&path, printed).map_err(LabError::io(what.clone()))?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).map_err(LabError::io(what))
    }

    fn key(&self, name: &str, kind: &str) -> Result<(), LabError> {
        let mut parts = kind.split('-');
        let mut words = vec!["--gen", "--outform", "pem", "--type"];
        words.extend(parts.next());
        words.extend(parts.flat_map(|size| ["--size", size]));
        self.keep(&format!("{name}.key"), &words)
    }

    fn certificate(
        &self,
        name: &str,
        issuer: &str,
        kind: &str,
        names: &[&str],
        more: &[&str],
    ) -> Result<(), LabError> {
        let [key, certificate, issuing] = [
            self.path(&format!("{name}.key")),
            self.path(&format!("{issuer}.crt")),
            self.path(&format!("{issuer}.key")),
        ];
        // `pki` calls a key whose kind it must find out `priv`.
        let kind = match kind.split_once('-') {
            Some((kind, _)) => kind,
            None => "priv",
        };
        let subject = format!("C=CH, O=lab, CN={name}");
        let mut words = vec![
            "--issue",
            "--in",
            &key,
            "--type",
            kind,
            "--cacert",
            &certificate,
            "--cakey",
            &issuing,
            "--dn",
            &subject,
            "--outform",
            "pem",
        ];
        words.extend(names.iter().flat_map(|name| ["--san", name]));
        words.extend(more);
        self.keep(&format!("{name}.crt"), &words)
    }

    /// Puts the peer's half where charon looks for it.
    fn give_to_peer(&self, swanctl: &Path) -> Result<(), LabError> {
        let copy = |file: &str, part: &str| {
            let to = swanctl.join(part).join(file);
            std::fs::copy(self.path(file), &to)
                .map(drop)
                .map_err(LabError::io(to.display().to_string()))
        };
        for name in PEER.iter().map(|(name, ..)| *name).chain(["stranger"]) {
            copy(&format!("{name}.crt"), "x509")?;
            copy(&format!("{name}.key"), "private")?;
        }
        for name in ["root", "sub", "other"] {
            copy(&format!("{name}.crt"), "x509ca")?;
        }
        Ok(())
    }
}
