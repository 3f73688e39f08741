//! ML-KEM-768 (FIPS 203) as an additional key exchange (RFC 9370, draft-ietf-ipsecme-ikev2-mlkem).
//!
//! The crate `ml-kem` makes keys and ciphertexts from randomness that it is given, so that a
//! pending exchange fails over as its seed of 64 octets. aws-lc-rs draws by itself; the tests have
//! each read what the other wrote.

use ml_kem::kem::Decapsulate;
use ml_kem::{B32, DecapsulationKey, EncapsulationKey, KeyExport, MlKem768, Seed};
use zeroize::{Zeroize, Zeroizing};

/// Octets of the seed of a key pair, d and z (FIPS 203 section 7.1).
pub const SEED_LENGTH: usize = 64;
/// Octets of the randomness of an encapsulation, m (FIPS 203 section 7.2).
pub const MESSAGE_LENGTH: usize = 32;
/// Octets of an encapsulation key, what the initiator sends.
pub const ENCAPSULATION_KEY_LENGTH: usize = 1184;
/// Octets of a ciphertext, what the responder sends.
pub const CIPHERTEXT_LENGTH: usize = 1088;

fn key(seed: &[u8]) -> Option<DecapsulationKey<MlKem768>> {
    let mut seed = Seed::try_from(seed).ok()?;
    let key = DecapsulationKey::from_seed(seed);
    seed.zeroize();
    Some(key)
}

/// The encapsulation key of a seed.
pub fn public(seed: &[u8]) -> Option<Vec<u8>> {
    Some(key(seed)?.encapsulation_key().to_bytes().to_vec())
}

/// The ciphertext to send and the shared secret; `None` if `public` is no encapsulation key
/// (FIPS 203 section 7.2: the type check and the modulus check).
pub fn encapsulate(public: &[u8], message: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let public = EncapsulationKey::<MlKem768>::new(&public.try_into().ok()?).ok()?;
    let mut message = B32::try_from(message).ok()?;
    let (ciphertext, mut shared) = public.encapsulate_deterministic(&message);
    message.zeroize();
    let secret = Zeroizing::new(shared.to_vec());
    shared.zeroize();
    Some((ciphertext.to_vec(), secret))
}

/// The shared secret of a ciphertext. A damaged one gives another secret and no error (FIPS 203
/// section 6.3, implicit rejection): authentication fails later.
pub fn decapsulate(seed: &[u8], ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut shared = key(seed)?.decapsulate(&ciphertext.try_into().ok()?);
    let secret = Zeroizing::new(shared.to_vec());
    shared.zeroize();
    Some(secret)
}
