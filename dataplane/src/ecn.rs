//! Explicit congestion notification out of a tunnel (RFC 6040 section 4.2), and DSCP where that is
//! wanted (RFC 2983). Into the tunnel both are copied as configured, which `outer.rs` does.

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// Carries the outer header's ECN field over into the inner packet that came out of it. False if
/// the packet must be dropped: it met congestion, and its sender would not understand the mark.
///
/// `outer_tos` is the outer header's traffic class; its DSCP counts only if `copy_dscp`. The inner
/// packet has been authenticated and begins with its IP header.
#[inline]
#[must_use]
pub fn leave_tunnel(outer_tos: u8, inner: &mut [u8], copy_dscp: bool) -> bool {
    let [first, second, ..] = *inner else {
        return true;
    };
    let is_v6 = first >> 4 == 6;
    let tos = match is_v6 {
        true => first << 4 | second >> 4,
        false => second,
    };
    let ecn = match (tos & 3, outer_tos & 3) {
        (NOT_ECT, CE) => return false,
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (kept, _) => kept,
    };
    let dscp = if copy_dscp { outer_tos } else { tos };
    let new = dscp & !3 | ecn;
    if new == tos {
        return true;
    }
    let replaced = match is_v6 {
        true => {
            inner[0] = first & 0xf0 | new >> 4;
            second & 0x0f | new << 4
        }
        false => new,
    };
    inner[1] = replaced;
    if let (false, Some([_, _, high, low])) = (is_v6, inner.get(8..12)) {
        // RFC 1624: HC' = ~(~HC + ~m + m'), where the word changed by less than 256.
        let checksum = u16::from_be_bytes([*high, *low]);
        let sum = u32::from(!checksum) + u32::from(replaced) + 0xffff - u32::from(second);
        let folded = (sum & 0xffff) + (sum >> 16);
        let updated = !((folded + (folded >> 16)) as u16);
        inner[10..12].copy_from_slice(&updated.to_be_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::Ipv4Header;

    #[test]
    fn rfc6040_figure_4() {
        // Rows: inner Not-ECT, ECT(1), ECT(0), CE. Columns: outer the same.
        const DROP: Option<u8> = None;
        let expected = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), DROP],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for (inner, row) in (0u8..).zip(expected) {
            for (outer, expected) in (0u8..).zip(row) {
                let mut v6 = [0; 40];
                (v6[0], v6[1]) = (0x6b, 0x8f | inner << 4);
                let kept = leave_tunnel(0xfc | outer, &mut v6, false);
                assert_eq!(kept.then_some(v6[1] >> 4 & 3), expected);
                assert_eq!((v6[0], v6[1] & 0xcf), (0x6b, 0x8f));

                for identification in 0..=u16::MAX {
                    let mut header = Ipv4Header {
                        identification,
                        ..Ipv4Header::default()
                    };
                    (header.dscp, header.ecn) = (46.try_into().unwrap(), inner.try_into().unwrap());
                    header.header_checksum = header.calc_header_checksum();
                    let mut v4: [u8; 20] = header.to_bytes().as_slice().try_into().unwrap();
                    let kept = leave_tunnel(outer, &mut v4, false);
                    assert_eq!(kept.then_some(v4[1] & 3), expected);
                    assert_eq!(v4[1] >> 2, 46);
                    let (after, _) = Ipv4Header::from_slice(&v4).unwrap();
                    assert_eq!(after.header_checksum, after.calc_header_checksum());
                }
            }
        }
    }

    #[test]
    fn rfc2983_section_3_the_outer_dscp_comes_in_where_it_is_wanted() {
        for (dscp, ecn) in (0..64).flat_map(|dscp| [(dscp, NOT_ECT), (dscp, ECT_0)]) {
            for identification in [0, 1, 0x1234, 0xffff] {
                let mut header = Ipv4Header {
                    identification,
                    ..Ipv4Header::default()
                };
                (header.dscp, header.ecn) = (46.try_into().unwrap(), 2.try_into().unwrap());
                header.header_checksum = header.calc_header_checksum();
                let mut v4: [u8; 20] = header.to_bytes().as_slice().try_into().unwrap();
                assert!(leave_tunnel(dscp << 2 | ecn, &mut v4, true));
                assert_eq!(v4[1], dscp << 2 | ECT_0);
                let (after, _) = Ipv4Header::from_slice(&v4).unwrap();
                assert_eq!(after.header_checksum, after.calc_header_checksum());
            }
            let mut v6 = [0; 40];
            (v6[0], v6[1], v6[2]) = (0x6b, 0xa5, 0x67);
            assert!(leave_tunnel(dscp << 2 | ecn, &mut v6, true));
            assert_eq!(
                (v6[0] << 4 | v6[1] >> 4, v6[1] & 0x0f),
                (dscp << 2 | ECT_0, 5)
            );
        }
    }

    #[test]
    fn short_packets_are_left_alone() {
        for length in 0..12 {
            assert!(leave_tunnel(0, &mut vec![0x45; length], true));
            assert!(leave_tunnel(CE, &mut vec![0x46; length], false));
        }
    }
}
