//! A certification authority for tests.

use std::sync::Arc;
use std::time::Duration;

use hitless::ike::auth::{
    AuthSettings, Certificate, Family, LocalAuth, LocalCertificate, LocalCertificates, PrivateKey,
    RemoteAuth, RemoteCertificates, Revocation, RevocationList, SendCertificate, Trust,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::PrivateKeyDer;

/// 2026-06-01: within the validity of all that does not say otherwise.
pub const NOON: Duration = Duration::from_secs(1_780_315_200);

/// An authority: an anchor, or one below it.
pub struct Authority {
    pub certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// Who is certified, and how.
pub struct Wish {
    pub params: CertificateParams,
    pub algorithm: &'static rcgen::SignatureAlgorithm,
}

impl Wish {
    /// For a name in the subjectAltName and as the CN.
    pub fn named(name: &str) -> Wish {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = subject(name);
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        Wish {
            params,
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Wish {
        change(&mut self.params);
        self
    }

    pub fn by(mut self, algorithm: &'static rcgen::SignatureAlgorithm) -> Wish {
        self.algorithm = algorithm;
        self
    }
}

pub fn subject(name: &str) -> rcgen::DistinguishedName {
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::CountryName, "CH");
    subject.push(DnType::OrganizationName, "lab");
    subject.push(DnType::CommonName, name);
    subject
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = Wish::named(name).params;
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn parsed(certificate: &rcgen::Certificate) -> Certificate {
    Certificate::parse(certificate.der()).unwrap()
}

impl Authority {
    /// A self-signed one.
    pub fn anchor(name: &str) -> Authority {
        let params = authority_params(name);
        let key = KeyPair::generate().unwrap();
        Authority {
            certificate: parsed(&params.self_signed(&key).unwrap()),
            issuer: Issuer::new(params, key),
        }
    }

    /// One below this one.
    pub fn below(&self, name: &str) -> Authority {
        self.below_with(name, |_| {})
    }

    pub fn below_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = authority_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Authority {
            certificate: parsed(&params.signed_by(&key, &self.issuer).unwrap()),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn issue(&self, wish: &Wish) -> Issued {
        let key = KeyPair::generate_for(wish.algorithm).unwrap();
        Issued {
            certificate: parsed(&wish.params.signed_by(&key, &self.issuer).unwrap()),
            key: private_key(&key),
        }
    }

    /// A CRL of these serial numbers, fresh until a date.
    pub fn revoke(&self, serials: &[u64], until: Date) -> RevocationList {
        self.revoke_at(serials, until, None)
    }

    /// The same for those certificates alone that name a place.
    pub fn revoke_at(
        &self,
        serials: &[u64],
        until: Date,
        issuing_distribution_point: Option<CrlIssuingDistributionPoint>,
    ) -> RevocationList {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 2, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 2, 1),
            next_update: date_time_ymd(until.0, until.1, until.2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        RevocationList::from_der(list.der()).unwrap()
    }
}

/// Where a CRL is to be had.
pub fn place(name: &str) -> CrlDistributionPoint {
    CrlDistributionPoint {
        uris: vec![format!("http://{name}.test/crl")],
    }
}

/// Year, month, day.
#[derive(Clone, Copy)]
pub struct Date(pub i32, pub u8, pub u8);

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    pub certificate: Certificate,
    pub key: Arc<PrivateKey>,
}

pub fn private_key(key: &KeyPair) -> Arc<PrivateKey> {
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Arc::new(PrivateKey::from_der(&der).unwrap())
}

/// We show this certificate with these intermediates.
pub fn local(issued: &Issued, intermediates: &[&Authority], family: Family) -> LocalAuth {
    LocalAuth::Pubkey(Arc::new(LocalCertificates {
        certificates: vec![LocalCertificate {
            certificate: issued.certificate.clone(),
            intermediates: intermediates
                .iter()
                .map(|a| a.certificate.clone())
                .collect(),
            anchor: None,
            key: issued.key.clone(),
        }],
        family,
        send: SendCertificate::IfAsked,
    }))
}

/// We believe these authorities.
pub fn trust(anchors: &[&Authority], revocation: Revocation, lists: Vec<RevocationList>) -> Trust {
    let mut trust = Trust::new(revocation);
    for anchor in anchors {
        trust.add_anchor(anchor.certificate.clone()).unwrap();
    }
    trust.replace_crls(lists);
    trust
}

pub fn remote(trust: Trust) -> RemoteAuth {
    RemoteAuth::Pubkey(Arc::new(RemoteCertificates {
        trust,
        family: Family::Any,
        crl_files: Vec::new(),
    }))
}

/// Both ends by certificates of one anchor.
pub fn auth(issued: &Issued, intermediates: &[&Authority], anchor: &Authority) -> AuthSettings {
    AuthSettings {
        local: local(issued, intermediates, Family::Any),
        remote: remote(trust(&[anchor], Revocation::Relaxed, Vec::new())),
        ..AuthSettings::default()
    }
}
