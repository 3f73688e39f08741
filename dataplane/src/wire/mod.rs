//! Headers as they lie in a packet: views that check once when they are made and read in place.
//! Nothing outside this folder knows an offset of these formats, and no view can read outside its
//! octets.

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod udp;

/// The Internet checksum (RFC 1071) of `octets`, starting from the one's complement sum `seed`.
pub fn checksum(seed: u32, octets: &[u8]) -> u16 {
    let mut pairs = octets.chunks_exact(2);
    let mut sum = u64::from(seed);
    for pair in &mut pairs {
        if let [high, low] = pair {
            sum += u64::from(u16::from_be_bytes([*high, *low]));
        }
    }
    if let [last] = pairs.remainder() {
        sum += u64::from(u16::from_be_bytes([*last, 0]));
    }
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
