//! The arithmetic of MS-CHAPv2 (RFC 2759 section 8) and of the keys that come out of it (RFC 3079
//! section 3): MD4, DES and SHA-1, none of which would be chosen today. What protects them is the IKE
//! SA and the gateway's signature, which the client verifies before it answers.

use aws_lc_rs::digest;
use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use zeroize::Zeroizing;

use super::Msk;

/// NtPasswordHash: MD4 of the password in UTF-16, little endian (RFC 2759 section 8.3).
pub(super) fn password_hash(password: &str) -> Zeroizing<[u8; 16]> {
    // Reserved in full: growing would leave unwiped copies behind.
    let mut unicode = Zeroizing::new(Vec::with_capacity(2 * password.len()));
    for unit in password.encode_utf16() {
        unicode.extend(unit.to_le_bytes());
    }
    hash(&unicode)
}

/// HashNtPasswordHash (RFC 2759 section 8.4).
pub(super) fn hash(octets: &[u8]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(Md4::digest(octets).into())
}

fn sha1(parts: &[&[u8]]) -> Zeroizing<[u8; 20]> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut out = Zeroizing::new([0; 20]);
    let digest = context.finish();
    out.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(out, octet)| *out = *octet);
    out
}

/// The user's name without a domain in front (RFC 2759 section 4).
pub(super) fn without_domain(name: &[u8]) -> &[u8] {
    let backslash = name.iter().position(|octet| *octet == b'\\');
    backslash.and_then(|at| name.get(at + 1..)).unwrap_or(name)
}

/// ChallengeHash (RFC 2759 section 8.2).
pub(super) fn challenge_hash(peer: &[u8; 16], gateway: &[u8; 16], name: &[u8]) -> [u8; 8] {
    let whole = sha1(&[peer, gateway, without_domain(name)]);
    let mut half = [0; 8];
    half.iter_mut()
        .zip(*whole)
        .for_each(|(out, octet)| *out = octet);
    half
}

/// ChallengeResponse (RFC 2759 section 8.5): the challenge under three keys that the hash fills up.
pub(super) fn nt_response(password_hash: &[u8; 16], challenge: &[u8; 8]) -> [u8; 24] {
    let mut padded = Zeroizing::new([0; 21]);
    padded
        .iter_mut()
        .zip(password_hash)
        .for_each(|(out, octet)| *out = *octet);
    let mut response = [0; 24];
    let (blocks, _) = response.as_chunks_mut::<8>();
    for (block, key) in blocks.iter_mut().zip(padded.as_chunks::<7>().0) {
        *block = *challenge;
        let cipher = Des::new((&*des_key(key)).into());
        cipher.encrypt_block(block.into());
    }
    response
}

/// 56 bits as DES wants them: seven in each octet, above a parity bit that nobody looks at.
fn des_key(key: &[u8; 7]) -> Zeroizing<[u8; 8]> {
    let bits = key
        .iter()
        .fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
    let mut out = Zeroizing::new([0; 8]);
    for (index, octet) in (0_u32..).zip(out.iter_mut()) {
        *octet = (bits >> (49 - 7 * index) & 0x7f) as u8 * 2;
    }
    out
}

/// GenerateAuthenticatorResponse (RFC 2759 section 8.7), from the hash of the password's hash.
pub(super) fn authenticator_response(
    hash_hash: &[u8; 16],
    nt_response: &[u8; 24],
    challenge: &[u8; 8],
) -> [u8; 20] {
    let signing = b"Magic server to client signing constant";
    let pad = b"Pad to make it do more than one iteration";
    let digest = sha1(&[hash_hash, nt_response, signing]);
    *sha1(&[&*digest, challenge, pad])
}

/// The MSK: what the gateway receives with, what it sends with (RFC 3079 section 3.4), and zeros up to
/// the 64 octets that an MSK has (RFC 3748 section 7.10).
pub(super) fn msk(hash_hash: &[u8; 16], nt_response: &[u8; 24]) -> Msk {
    let start = b"This is the MPPE Master Key";
    let gateway_receives =
        b"On the client side, this is the send key; on the server side, it is the receive key.";
    let gateway_sends =
        b"On the client side, this is the receive key; on the server side, it is the send key.";
    let master = sha1(&[hash_hash, nt_response, start]);
    let master = master.first_chunk::<16>().map_or(&[][..], |key| key);
    let mut msk = Zeroizing::new(Vec::with_capacity(64));
    for magic in [gateway_receives, gateway_sends] {
        let key = sha1(&[master, &[0; 40], magic, &[0xf2; 40]]);
        msk.extend(key.iter().take(16));
    }
    msk.resize(64, 0);
    msk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::octets;

    fn array<const N: usize>(hex: &str) -> [u8; N] {
        octets(hex).try_into().unwrap()
    }

    /// RFC 2759 section 9.2, every value of it; RFC 3079 section 3.5.3 goes on with the same ones.
    #[test]
    fn rfc2759_section_9_2_and_rfc3079_section_3_5_3_vectors() {
        let gateway = array("5b5d7c7d7b3f2f3e3c2c602132262628");
        let peer = array("21402324255e262a28295f2b3a337c7e");
        let challenge = challenge_hash(&peer, &gateway, b"User");
        assert_eq!(challenge, array("d02e4386bce91226"));
        let password = password_hash("clientPass");
        assert_eq!(*password, array("44ebba8d5312b8d611474411f56989ae"));
        let response = nt_response(&password, &challenge);
        let expected = "82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df";
        assert_eq!(response, array(expected));
        let hash_hash = hash(&*password);
        assert_eq!(*hash_hash, array("41c00c584bd2d91c4017a2a12fa59f3f"));
        let proof = authenticator_response(&hash_hash, &response, &challenge);
        assert_eq!(proof, array("407a5589115fd0d6209f510fe9c04566932cda56"));
        let receive = "d5f0e9521e3ea9589645e86051c82226";
        let send = "8b7cdc149b993a1ba118cb153f56dccb";
        let zeros = "00".repeat(32);
        let key = msk(&hash_hash, &response);
        assert_eq!(*key, octets(&format!("{receive}{send}{zeros}")));
    }

    /// RFC 2759 section 9.3: the keys of DES, without the parity that it does not use.
    #[test]
    fn rfc2759_section_9_3_des_keys() {
        let without_parity = |key: [u8; 8]| key.map(|octet| octet & 0xfe);
        for (raw, expanded) in [
            ("fc156af7edcd6c", "fd0b5b5e7f6e34d9"),
            ("0eddE3337d427f", "0e6e796737ea08fe"),
        ] {
            let key = des_key(&array(&raw.to_lowercase()));
            assert_eq!(*key, without_parity(array(expanded)));
        }
    }

    #[test]
    fn rfc2759_section_4_a_domain_in_front_is_not_part_of_the_name() {
        assert_eq!(without_domain(b"User"), b"User");
        assert_eq!(without_domain(b"DOMAIN\\User"), b"User");
        assert_eq!(without_domain(b"User@example.org"), b"User@example.org");
        assert_eq!(without_domain(b"DOMAIN\\"), b"");
    }
}
