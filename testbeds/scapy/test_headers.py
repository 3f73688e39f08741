"""The outer header and what crosses between the two: DSCP, ECN, DF, hop limit, flow label, path MTU,
TFC padding of ours, MSS, and packets larger than a frame of the pool."""

import itertools

from bed import *
from reference import SUITES

# RFC 6040 figure 4: what leaves the tunnel, by the ECN of the inner (row) and outer header (column);
# None is a drop. 0 is Not-ECT, 1 is ECT(1), 2 is ECT(0), 3 is CE.
ECN = {
    0: {0: 0, 2: 0, 1: 0, 3: None},
    2: {0: 2, 2: 2, 1: 1, 3: 3},
    1: {0: 1, 2: 1, 1: 1, 3: 3},
    3: {0: 3, 2: 3, 1: 3, 3: 3},
}


def tos(packet):
    packet = parse(bytes(packet))
    return packet.tos if packet.version == 4 else packet.tc


class Headers(BedTest):
    def sealed(self, sa, **fields):
        self.start(sa)
        out = self.from_host(outbound_inner(sa.inner, **fields))
        self.assertEqual(len(out), 1, self.drops)
        return parse(out[0])

    def pairs(self, **options):
        for inner, outer in FAMILIES:
            yield Sa(inner=inner, outer=outer, options=options)

    def test_rfc6040_section_4_1_copying_dscp_and_ecn(self):
        for sa in self.pairs():
            self.assertEqual(tos(self.sealed(sa, tos=5)), 5)

    def test_rfc6040_section_4_3_copying_dscp_alone(self):
        for sa in self.pairs(copy_ecn=False):
            self.assertEqual(tos(self.sealed(sa, tos=5)), 4)

    def test_rfc4301_section_5_1_2_a_fixed_dscp_on_the_sa(self):
        for sa in self.pairs(dscp=46):
            self.assertEqual(tos(self.sealed(sa, tos=5)), 46 << 2 | 1)

    def test_rfc6040_section_4_2_every_pair_of_ecn_leaves_the_tunnel_as_figure_4_says(self):
        for sa, inside, outside in itertools.product(self.pairs(), ECN, ECN):
            self.start(sa)
            inner = inbound_inner(sa.inner, tos=inside)
            delivered = self.from_peer(sa.craft(bytes(inner), tos=outside))
            expected = ECN[inside][outside]
            if expected is None:
                self.assertEqual(delivered, [])
                self.assert_dropped(congestion=1)
            else:
                self.assertEqual([tos(packet) & 3 for packet in delivered], [expected])
                self.assert_sound(delivered[0])

    def test_rfc4301_section_5_1_2_hop_limit_and_flow_label_of_the_outer_header(self):
        for sa in self.pairs(hop_limit=77, flow_label=0x12345):
            packet = self.sealed(sa)
            self.assertEqual(hops(packet), 77)
            if sa.outer == 6:
                self.assertEqual(packet.fl, 0x12345)

    def test_rfc4301_section_8_1_df_of_the_outer_header_by_policy(self):
        for policy, inner, expected in (
            ("copy", 2, 2), ("copy", 0, 0), ("set", 0, 2), ("set", 2, 2), ("clear", 2, 0),
        ):
            sa = Sa(options={"dont_fragment": policy})
            packet = self.sealed(sa, flags=inner)
            self.assertEqual(int(packet.flags), expected, (policy, inner))

    def test_rfc4303_section_2_7_our_tfc_padding_hides_the_length(self):
        for suite in SUITES:
            for inner, outer in FAMILIES:
                sa = Sa(suite, inner=inner, outer=outer, options={"tfc": 700})
                self.start(sa)
                out = self.from_host(*[outbound_inner(inner, bytes(n)) for n in (0, 1, 99, 500)])
                self.assertEqual(len(out), 4, self.drops)
                self.assertEqual(len({len(octets) for octets in out}), 1, suite)
                for octets, size in zip(out, (0, 1, 99, 500)):
                    whole = later(outbound_inner(inner, bytes(size)))
                    payload = sa.open(octets)[2]
                    self.assertEqual(payload[: len(whole)], whole)
                    self.assertGreaterEqual(len(payload), 700)
                    self.assertEqual(payload[len(whole) :].strip(b"\0"), b"")

    def test_rfc4301_section_8_2_1_a_path_mtu_that_was_learnt_is_told_to_the_sender(self):
        for outer in (4, 6):
            sa = Sa(inner=4, outer=outer)
            self.start(sa)
            sealed = self.from_host(outbound_inner(4, bytes(1200), flags=2))[0]
            if outer == 4:
                error = IP(src="192.0.2.9", dst=OWN[4]) / ICMP(type=3, code=4, nexthopmtu=1280)
            else:
                error = IPv6(src="2001:db8::9", dst=OWN[6]) / ICMPv6PacketTooBig(mtu=1280)
            self.run_with(OUTSIDE, [error / Raw(sealed[: 28 if outer == 4 else 200])])
            told = self.run_with(INSIDE, [outbound_inner(4, bytes(1280), flags=2)])
            self.assertEqual(told[OUTSIDE], [], self.drops)
            self.assertEqual(len(told[INSIDE]), 1, self.drops)
            answer = IP(told[INSIDE][0])
            self.assertEqual((answer[ICMP].type, answer[ICMP].code), (3, 4))
            self.assertLess(answer[ICMP].nexthopmtu, 1280 - sa.suite.overhead())
            # What fits goes, and is no longer than the way allows.
            fits = bytes(answer[ICMP].nexthopmtu - 28)
            out = self.from_host(outbound_inner(4, fits, flags=2))
            self.assertEqual(len(out), 1, self.drops)
            self.assertLessEqual(len(out[0]), 1280)

    def test_rfc4459_section_3_2_tcp_is_told_a_segment_size_that_fits(self):
        for inner, outer in FAMILIES:
            sa = Sa(inner=inner, outer=outer, options={"mss": 1200})
            self.start(sa)
            syn = ip(inner, src=HOST[inner], dst=FAR[inner])
            syn /= TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460)])
            out = self.from_host(syn)
            opened = parse(sa.open(out[0])[2])
            self.assertEqual(opened[TCP].options[0], ("MSS", 1200))
            self.assert_sound(bytes(opened))

    def test_rfc4303_section_2_payloads_larger_than_a_frame_both_ways(self):
        for suite in SUITES:
            sa = Sa(suite)
            self.start(sa, mtu=9000)
            for size in (1970, 2004, 2020, 4010, 4020, 8880):
                inner = outbound_inner(4, bytes(size))
                out = self.from_host(inner)
                self.assertEqual(len(out), 1, (suite, size, self.drops))
                self.assertEqual(sa.open(out[0])[2], later(inner))
                back = inbound_inner(4, bytes(size))
                self.assertEqual(self.from_peer(sa.craft(bytes(back))), [later(back)])


if __name__ == "__main__":
    unittest.main()
