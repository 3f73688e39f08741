//! AUTH of peers that know no RFC 7427: ECDSA by RFC 4754, and RSA, which means SHA-1.

use std::sync::Arc;

use hitless::ike::Event;
use hitless::ike::auth::{
    Certificate, Family, Hash, RemoteAuth, RemoteCertificates, Revocation, verify_signature,
};

use crate::pki::{Authority, NOON, Wish, auth, local, trust};
use crate::world::{A, B, SECOND, World, settings};

/// RFC 7296 section 3.8 and RFC 4754: a peer that announces no hash takes ECDSA by methods of its own,
/// and of RSA nothing that we make.
#[test]
fn rfc4754_section_3_without_rfc_7427_only_ecdsa_suits_a_peer() {
    let anchor = Authority::anchor("anchor");
    let message = b"what is signed".as_slice();
    for (algorithm, method) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Some(9)),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Some(10)),
        (&rcgen::PKCS_ED25519, None),
        (&rcgen::PKCS_RSA_SHA256, None),
    ] {
        let own = anchor.issue(&Wish::named("a.test").by(algorithm));
        assert_eq!(own.key.suits(Family::Any, &[]), method.is_some());
        assert_eq!(own.key.signs_of_old(), method.is_some());
        assert!(own.key.suits(Family::Any, &Hash::ALL));
        let Some(expected) = method else { continue };
        let (method, data) = own.key.sign(Family::Any, &[], message).expect("it can");
        assert_eq!(method, expected);
        assert!(verify_signature(&own.certificate, method, &data, message).is_ok());
    }
}

/// RFC 7427 section 4: a peer says which hashes it takes, not which padding. Whoever is refused for
/// PSS is told of the other one; who signs otherwise, or so by its file, is not.
#[test]
fn rfc7427_section_4_a_refused_pss_signature_has_a_hint() {
    let anchor = Authority::anchor("anchor");
    let b = anchor.issue(&Wish::named("b.test"));
    let of_b = auth(&b, &[], &anchor);
    let (rsa, ecdsa) = (&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256);
    for (algorithm, family, accepted, hint) in [
        (rsa, Family::Any, Family::RsaPkcs1, true),
        (rsa, Family::RsaPss, Family::RsaPkcs1, false),
        (rsa, Family::RsaPkcs1, Family::RsaPss, false),
        (ecdsa, Family::Any, Family::RsaPkcs1, false),
    ] {
        let a = anchor.issue(&Wish::named("a.test").by(algorithm));
        let mut files = [settings(A), settings(B)];
        files[A].connections[0].auth = auth(&a, &[], &anchor);
        files[A].connections[0].auth.local = local(&a, &[], family);
        files[B].connections[0].auth = of_b.clone();
        files[B].connections[0].auth.remote = RemoteAuth::Pubkey(Arc::new(RemoteCertificates {
            trust: trust(&[&anchor], Revocation::Relaxed, Vec::new()),
            family: accepted,
            crl_files: Vec::new(),
        }));
        let [file_a, file_b] = files;
        let mut world = World::new(7, file_a, file_b);
        world.set_time_of_day(NOON);
        world.run(2 * SECOND);
        let reason = world.hosts[A].events.iter().find_map(|event| match event {
            Event::AuthenticationFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        let reason = reason.expect("B refuses");
        assert!(reason.contains("AUTHENTICATION_FAILED"), "{reason}");
        assert_eq!(reason.contains("auth = \"rsa\""), hint, "{reason}");
    }
}

/// RFC 8247 section 3.2.1: what OpenSSL signed with SHA-1 is refused, and the reason says so.
#[test]
fn rfc8247_section_3_2_1_sha_1_is_refused_by_its_name() {
    let octets = |hex: &str| {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect::<Vec<u8>>()
    };
    let certificate = Certificate::parse(&octets(RSA_CERTIFICATE)).unwrap();
    let mut data = octets(SHA1_SIGNATURE);
    let refused = |data: &[u8], message: &[u8]| {
        verify_signature(&certificate, 1, data, message).map_err(|error| error.to_string())
    };
    let why = refused(&data, b"what is signed").unwrap_err();
    assert!(why.contains("SHA-1"), "{why}");
    assert_eq!(
        refused(&data, b"another"),
        Err("wrong signature".to_owned())
    );
    data[7] ^= 1;
    assert_eq!(
        refused(&data, b"what is signed"),
        Err("wrong signature".to_owned())
    );
}

const RSA_CERTIFICATE: &str = "\
    308201f830820161a00302010202143be43ac79efbb7a7f10a764ccce3f0fe41bcf244300d06092a \
    864886f70d01010b0500300e310c300a06035504030c036f6c64301e170d32363131323231393032 \
    30305a170d3336313131393139303230305a300e310c300a06035504030c036f6c6430819f300d06 \
    092a864886f70d010101050003818d0030818902818100d3f461198751270b9b81e700728405cdd0 \
    31e7fdd5a1cf9e3b50943ac546a1f6d90729545d0e6e62e1cc95003247e30f395ab56c1dd1d20a9d \
    a58e02e0834fc8f7a58093fb4ca17e7bee37d927df385df00d30e2e59a6498d2f1864e38ec1fa436 \
    392b22bac454950334c0dfc5447344785e1136bbf6742029b78c1e40e170070203010001a3533051 \
    301d0603551d0e04160414bbd904d038cee9eddd8c6f0206145f5921bdbb1c301f0603551d230418 \
    30168014bbd904d038cee9eddd8c6f0206145f5921bdbb1c300f0603551d130101ff040530030101 \
    ff300d06092a864886f70d01010b05000381810068d50252db17afe6e8d63cb98fcafce1a3908d2c \
    b0698f660faf5b97e8304d9d4596422a03a75330d89c84454e837a7ab8f3da85c3e4dbcbde0526ec \
    ab20a9ca7177e43ccdda20b7661fd6ef77a3c2636a720fed8deb49953bb252546df84f4634bbb355 \
    b3634ad0206328c1b919f99714f383a28290fcc31bac8774aa44707a";
const SHA1_SIGNATURE: &str = "\
    9b9118edec190e1df7f289bf6b658fc31fb1889dcc54d2f60ee40aa0fa765a952592812bb040c1a8 \
    5931688da3f4136c7cbf65f2d2f37ce3c3b41f4f276151f532d4f7137ef2ada6dc5d8733e7fa0301 \
    e9afca71e7771af7424028392933e342ec8ff617cf344fff26bec8b41682cb90db088e9ac8997b0c \
    f90b2f6c1286fe98";
