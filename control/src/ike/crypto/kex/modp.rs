//! MODP groups 14, 15 and 16 (RFC 3526), with `crypto-bigint`: its exponentiation takes the same
//! time for every exponent of a length. aws-lc-rs has no public interface for these groups.
//!
//! A modular exponentiation costs as much as forty of X25519, so that a responder under load asks
//! for a cookie before it does one (`cookie.rs`).

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U384, U2048, U3072, U4096, Uint};
use zeroize::{Zeroize, Zeroizing};

/// The generator of all three groups (RFC 3526).
const GENERATOR: u8 = 2;

type Group<const LIMBS: usize> = FixedMontyParams<LIMBS>;

fn group<const LIMBS: usize>(modulus: Odd<Uint<LIMBS>>) -> Group<LIMBS> {
    FixedMontyParams::new_vartime(modulus)
}

/// 2^2048 - 2^1984 - 1 + 2^64 * ([2^1918 pi] + 124476).
static P2048: LazyLock<Group<{ U2048::LIMBS }>> = LazyLock::new(|| {
    group(Odd::<U2048>::from_be_hex(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
     514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
     F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
     C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
     9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
     9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    ))
});

/// 2^3072 - 2^3008 - 1 + 2^64 * ([2^2942 pi] + 1690314).
static P3072: LazyLock<Group<{ U3072::LIMBS }>> = LazyLock::new(|| {
    group(Odd::<U3072>::from_be_hex(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
     514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
     F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
     C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
     9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
     9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
     B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
     D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
     43DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    ))
});

/// 2^4096 - 2^4032 - 1 + 2^64 * ([2^3966 pi] + 240904).
static P4096: LazyLock<Group<{ U4096::LIMBS }>> = LazyLock::new(|| {
    group(Odd::<U4096>::from_be_hex(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
     514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
     F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
     C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
     9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
     9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
     B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
     D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
     43DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C\
     1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D\
     99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
     93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
    ))
});

/// One of the groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modp {
    Bits2048,
    Bits3072,
    Bits4096,
}

impl Modp {
    /// Octets of a public value and of the shared secret: those of the modulus (RFC 7296 sections
    /// 2.14 and 3.4: "prepending zero bits if necessary").
    pub const fn length(self) -> usize {
        match self {
            Modp::Bits2048 => 256,
            Modp::Bits3072 => 384,
            Modp::Bits4096 => 512,
        }
    }

    /// Octets of an exponent: twice the strength of the group and more (RFC 3526 section 8).
    pub const fn exponent_length(self) -> usize {
        match self {
            Modp::Bits2048 => 32,
            Modp::Bits3072 => 40,
            Modp::Bits4096 => 48,
        }
    }

    /// g^x; `None` unless `exponent` has the right length and is not zero.
    pub fn public(self, exponent: &[u8]) -> Option<Vec<u8>> {
        let usable = exponent.len() == self.exponent_length() && exponent.iter().any(|o| *o != 0);
        let mut base = vec![0; self.length()];
        *base.last_mut()? = GENERATOR;
        usable
            .then(|| self.power(&base, exponent))
            .map(|v| v.to_vec())
    }

    /// g^xy; `None` unless 1 < `peer` < p - 1 (RFC 6989 section 2.1: "the received value MUST be
    /// greater than 1 and less than p - 1"). That is all for these groups: p = 2q + 1, and a value
    /// of order 2q tells one bit of an exponent that is used once.
    pub fn agree(self, exponent: &[u8], peer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.admits(peer).then(|| self.power(peer, exponent))
    }

    /// Whether that can be a peer's value; it has the length of the modulus.
    pub fn admits(self, peer: &[u8]) -> bool {
        match self {
            Modp::Bits2048 => in_range(&P2048, peer),
            Modp::Bits3072 => in_range(&P3072, peer),
            Modp::Bits4096 => in_range(&P4096, peer),
        }
    }

    fn power(self, base: &[u8], exponent: &[u8]) -> Zeroizing<Vec<u8>> {
        match self {
            Modp::Bits2048 => power(&P2048, base, exponent),
            Modp::Bits3072 => power(&P3072, base, exponent),
            Modp::Bits4096 => power(&P4096, base, exponent),
        }
    }
}

/// `octets` has the length of the modulus.
fn in_range<const LIMBS: usize>(group: &Group<LIMBS>, octets: &[u8]) -> bool {
    let value = Uint::<LIMBS>::from_be_slice(octets);
    let most = group.modulus().as_ref().wrapping_sub(&Uint::ONE);
    value > Uint::ONE && value < most
}

/// `base` has the length of the modulus, `exponent` at most that of U384.
fn power<const LIMBS: usize>(
    group: &Group<LIMBS>,
    base: &[u8],
    exponent: &[u8],
) -> Zeroizing<Vec<u8>> {
    let bits = u32::try_from(exponent.len() * 8).unwrap_or(u32::MAX);
    let mut padded = Zeroizing::new([0; 48]);
    let start = padded.len() - exponent.len().min(padded.len());
    if let Some(tail) = padded.get_mut(start..) {
        tail.copy_from_slice(exponent);
    }
    let mut exponent = U384::from_be_slice(padded.as_slice());
    let base = FixedMontyForm::new(&Uint::<LIMBS>::from_be_slice(base), group);
    let mut result = base.pow_bounded_exp(&exponent, bits);
    exponent.zeroize();
    let mut number = result.retrieve();
    result.zeroize();
    let octets = Zeroizing::new(number.to_be_bytes().as_ref().to_vec());
    number.zeroize();
    octets
}
