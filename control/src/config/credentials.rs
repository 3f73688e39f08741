//! Files of certificates, revocation lists and private keys: PEM or DER.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer,
    PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use zeroize::Zeroizing;

use super::report::Refusal;
use super::value::{self, quoted};
use crate::ike::auth::{Certificate, PrivateKey, RevocationList};

/// A file of certificates or revocation lists: a large authority's list has some megabytes.
const LARGEST_PUBLIC: u64 = 64 << 20;
/// An RSA key of 16,384 bits has 13 kB.
const LARGEST_KEY: u64 = 64 << 10;

/// What hitless reads from a file that only its owner may touch.
pub(super) fn read_owned(
    path: &Path,
    largest: u64,
    how: &str,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let shown = quoted(&path.display().to_string());
    let (mut octets, mode) = read(path, largest, how)?;
    let octets = Zeroizing::new(std::mem::take(&mut *octets));
    if mode & 0o077 != 0 {
        return Err(Refusal::new(
            format!("others than its owner may touch {shown} (mode {mode:03o})"),
            format!("chmod 600 {}", path.display()),
        ));
    }
    Ok(octets)
}

/// The octets of a file, and its permissions.
pub(super) fn read(
    path: &Path,
    largest: u64,
    how: &str,
) -> Result<(Zeroizing<Vec<u8>>, u32), Refusal> {
    let shown = quoted(&path.display().to_string());
    let failed = |e: std::io::Error| Refusal::new(format!("cannot read {shown}: {e}"), how);
    // Non-blocking, so that a FIFO cannot hold the daemon up.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Refusal::new(format!("{shown} is not a file"), how));
    }
    if metadata.len() > largest {
        return Err(Refusal::new(
            format!("{shown} is larger than {largest} octets"),
            how,
        ));
    }
    // Reserved in full: growing would leave copies of a secret behind.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut octets = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(largest)
        .read_to_end(&mut octets)
        .map_err(failed)?;
    Ok((octets, metadata.mode() & 0o777))
}

/// What a file in PEM holds of one kind; in DER it is one thing.
fn ders<T: PemObject + From<Vec<u8>>>(path: &Path, how: &str) -> Result<Vec<T>, Refusal> {
    let (octets, _) = read(path, LARGEST_PUBLIC, how)?;
    if !is_pem(&octets) {
        return Ok(vec![T::from(octets.to_vec())]);
    }
    let shown = quoted(&path.display().to_string());
    T::pem_slice_iter(&octets)
        .collect::<Result<_, _>>()
        .map_err(|e| Refusal::new(format!("{shown}: {e}"), how))
}

/// The certificates of a file, in its order; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<Certificate>, Refusal> {
    let how = "name a file with certificates in PEM or DER";
    let shown = quoted(&path.display().to_string());
    let ders: Vec<CertificateDer<'_>> = ders(path, how)?;
    if ders.is_empty() {
        return Err(Refusal::new(format!("{shown} holds no certificate"), how));
    }
    let parsed = ders.iter().map(|der| Certificate::parse(der));
    parsed.collect::<Result<_, _>>().map_err(|_| {
        Refusal::new(
            format!("{shown} holds something that is no X.509 certificate of version 3"),
            format!(
                "`openssl x509 -in {} -noout -text` shows what it is",
                path.display()
            ),
        )
    })
}

/// The revocation lists of a file; at least one.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<RevocationList>, Refusal> {
    let how = "name a file with certificate revocation lists in PEM or DER";
    let shown = quoted(&path.display().to_string());
    let ders: Vec<CertificateRevocationListDer<'_>> = ders(path, how)?;
    if ders.is_empty() {
        return Err(Refusal::new(
            format!("{shown} holds no revocation list"),
            how,
        ));
    }
    let parsed = ders.iter().map(|der| RevocationList::from_der(der));
    parsed
        .collect::<Result<_, _>>()
        .map_err(|e| Refusal::new(format!("{shown}: no revocation list of ours: {e}"), how))
}

/// The private key of a file that nobody but its owner may touch.
pub(super) fn private_key(path: &Path) -> Result<PrivateKey, Refusal> {
    let how = "name a private key in PEM or DER, readable by the user that hitless runs as alone";
    let shown = quoted(&path.display().to_string());
    let octets = read_owned(path, LARGEST_KEY, how)?;
    let unusable = || {
        Refusal::new(
            format!("{shown} holds no private key that can be used"),
            "RSA of 2048 bits or more, ECDSA on P-256 or P-384, or Ed25519: PKCS #8, PKCS #1 or SEC 1",
        )
    };
    if !is_pem(&octets) {
        let kinds = [
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&octets[..])),
            PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(&octets[..])),
            PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(&octets[..])),
        ];
        let mut read = kinds.iter().map(PrivateKey::from_der);
        return read.find_map(Result::ok).ok_or_else(unusable);
    }
    let text = std::str::from_utf8(&octets).map_err(|_| unusable())?;
    if text.contains("ENCRYPTED") {
        return Err(Refusal::new(
            format!("{shown} is encrypted with a passphrase"),
            format!(
                "`openssl pkey -in {} -out NEW` decrypts it; then chmod 600 NEW and name that",
                path.display()
            ),
        ));
    }
    // Decoded here and not by a parser of PEM, so that no copy of the key stays behind.
    let section = |label: &str| -> Option<Zeroizing<Vec<u8>>> {
        let begin = format!("-----BEGIN {label}-----");
        let (_, rest) = text.split_once(begin.as_str())?;
        let (body, _) = rest.split_once("-----END")?;
        let mut joined = Zeroizing::new(String::with_capacity(body.len() + 2));
        joined.push_str("0s");
        joined.extend(body.chars().filter(|c| !c.is_whitespace()));
        value::decode_secret(&joined).ok()
    };
    let read = if let Some(der) = section("PRIVATE KEY") {
        PrivateKey::from_der(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&der[..])))
    } else if let Some(der) = section("RSA PRIVATE KEY") {
        PrivateKey::from_der(&PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(&der[..])))
    } else if let Some(der) = section("EC PRIVATE KEY") {
        PrivateKey::from_der(&PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(&der[..])))
    } else {
        return Err(unusable());
    };
    read.map_err(|_| unusable())
}

fn is_pem(octets: &[u8]) -> bool {
    octets.windows(11).any(|window| window == b"-----BEGIN ")
}

/// Reads revocation lists again; the error says what is wrong with which file.
pub fn read_crls(files: &[PathBuf]) -> Result<Vec<RevocationList>, String> {
    let mut lists = Vec::new();
    for file in files {
        let read = revocation_lists(file);
        lists.extend(read.map_err(|refusal| format!("{}; {}", refusal.title, refusal.help))?);
    }
    Ok(lists)
}
