//! Headers as they lie in a packet: views that check once when they are made and read in place.
//! Nothing outside this folder knows an offset of these formats, and no view can read outside its
//! octets.

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub(crate) mod ike;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod udp;

/// The Internet checksum (RFC 1071) of `octets`, starting from the one's complement sum `seed`.
///
/// It adds words of four octets: 2^16 is 1 modulo 2^16 - 1, so that each counts as its two halves.
#[inline]
pub fn checksum(seed: u32, octets: &[u8]) -> u16 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut sum = u64::from(seed);
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    let last = match *rest {
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        _ => [0; 4],
    };
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn checksum_of_the_example_in_rfc_1071_section_3() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(0, &octets), !0xddf2);
    }

    #[test]
    fn an_odd_octet_is_padded_with_zero_rfc_1071() {
        assert_eq!(checksum(0, &[0xab]), checksum(0, &[0xab, 0]));
        assert_eq!(checksum(0, &[]), 0xffff);
    }
}
