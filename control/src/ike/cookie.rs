//! Cookies against floods of IKE_SA_INIT requests from forged addresses (RFC 7296 section 2.6).
//!
//! Each member has secrets of its own: a peer whose cookie is of the member that died is asked for
//! another one, which costs it a round trip. Secrets that a standby could make, too, would have to
//! come from the cluster's secret, and every stranger has a cookie to try guesses of that at.

use std::net::SocketAddr;
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant};
use zeroize::Zeroizing;

use super::crypto::prf::{equal, prf};
use super::proposal::Prf;

/// A secret serves this long, and its cookies once more as long.
const SECRET_LIFETIME: Duration = Duration::from_secs(60);

/// `<version of the secret> | prf(secret, Ni | IPi | SPIi)`.
pub(super) struct Cookies {
    secrets: Vec<(u8, Zeroizing<Vec<u8>>)>,
    next_version: u8,
    renew_at: Instant,
}

impl Cookies {
    pub fn new() -> Cookies {
        Cookies {
            secrets: Vec::new(),
            next_version: 0,
            renew_at: Instant(0),
        }
    }

    fn renew(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if now < self.renew_at && !self.secrets.is_empty() {
            return;
        }
        let mut secret = Zeroizing::new(vec![0; 32]);
        entropy.fill(&mut secret);
        self.secrets.insert(0, (self.next_version, secret));
        self.secrets.truncate(2);
        self.next_version = self.next_version.wrapping_add(1);
        self.renew_at = now + SECRET_LIFETIME;
    }

    /// The cookie that this initiator must bring back.
    pub fn issue(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        remote: SocketAddr,
        spi: IkeSpi,
        nonce: &[u8],
    ) -> Option<Vec<u8>> {
        self.renew(now, entropy);
        let (version, secret) = self.secrets.first()?;
        Some(cookie(*version, secret, remote, spi, nonce))
    }

    /// Whether it brought back one of ours.
    pub fn verify(&self, remote: SocketAddr, spi: IkeSpi, nonce: &[u8], brought: &[u8]) -> bool {
        let mut secrets = self.secrets.iter();
        let named = secrets.find(|(version, _)| brought.first() == Some(version));
        named.is_some_and(|(version, secret)| {
            equal(&cookie(*version, secret, remote, spi, nonce), brought)
        })
    }
}

fn cookie(version: u8, secret: &[u8], remote: SocketAddr, spi: IkeSpi, nonce: &[u8]) -> Vec<u8> {
    let address = remote.to_string();
    let parts = [nonce, address.as_bytes(), &spi.0.to_be_bytes()];
    let mut cookie = vec![version];
    cookie.extend_from_slice(&prf(Prf::HmacSha256, secret, &parts));
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Entropy for Counting {
        fn fill(&mut self, out: &mut [u8]) {
            for octet in out {
                self.0 = self.0.wrapping_add(1);
                *octet = self.0;
            }
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_address_spi_and_nonce_only_rfc7296_2_6() {
        let (a, b): (SocketAddr, SocketAddr) = (
            "192.0.2.1:500".parse().unwrap(),
            "192.0.2.2:500".parse().unwrap(),
        );
        let entropy = &mut Counting(0);
        let mut cookies = Cookies::new();
        let now = Instant(5);
        let cookie = cookies.issue(now, entropy, a, IkeSpi(1), &[7; 16]).unwrap();
        assert!(cookies.verify(a, IkeSpi(1), &[7; 16], &cookie));
        assert!(!cookies.verify(b, IkeSpi(1), &[7; 16], &cookie));
        assert!(!cookies.verify(a, IkeSpi(2), &[7; 16], &cookie));
        assert!(!cookies.verify(a, IkeSpi(1), &[8; 16], &cookie));
        assert!(!cookies.verify(a, IkeSpi(1), &[7; 16], &cookie[1..]));

        let later = now + SECRET_LIFETIME;
        cookies
            .issue(later, entropy, a, IkeSpi(1), &[7; 16])
            .unwrap();
        assert!(
            cookies.verify(a, IkeSpi(1), &[7; 16], &cookie),
            "one renewal"
        );
        let later = later + SECRET_LIFETIME;
        cookies
            .issue(later, entropy, a, IkeSpi(1), &[7; 16])
            .unwrap();
        assert!(
            !cookies.verify(a, IkeSpi(1), &[7; 16], &cookie),
            "two renewals"
        );
    }
}
