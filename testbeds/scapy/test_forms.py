"""Every transform in every form, both ways, with scapy at the other end."""

import itertools
import struct

from bed import *
from reference import SUITES


SIZES = (0, 1, 19, 50, 777)


def forms():
    """Every suite, pair of families, encapsulation, ESN, and two windows."""
    for suite, (inner, outer), udp, esn in itertools.product(
        SUITES, FAMILIES, (None, (4500, 4500)), (True, False)
    ):
        # The widest window changes nothing on the wire.
        window = 64 if (inner, udp) != (4, None) else 65536
        yield Sa(suite, inner=inner, outer=outer, udp=udp, esn=esn, window=window)


def told(sa):
    return "%s %din%d udp=%s esn=%s" % (sa.suite, sa.inner, sa.outer, sa.udp, sa.esn)


class Forms(BedTest):
    def check_outbound(self, sa, octets, inner, number):
        """One ESP packet of ours: outer header, number, IV, padding, and what scapy makes of it."""
        self.assert_sound(octets)
        packet = parse(octets)
        self.assertEqual((packet.src, packet.dst), (OWN[sa.outer], PEER[sa.outer]))
        if sa.udp:
            self.assertEqual((packet[UDP].sport, packet[UDP].dport), sa.udp)
            if sa.outer == 6:
                self.assertNotEqual(packet[UDP].chksum, 0)
        found, iv, payload, padding, next_header = sa.open(octets, number >> 32)
        self.assertEqual(found, number)
        if sa.suite.kind != "cbc" and not sa.suite.implicit:
            self.assertEqual(iv, struct.pack(">Q", number), "the IV is the number")
        self.assertEqual(next_header, 4 if sa.inner == 4 else 41)
        self.assertEqual(payload, later(inner))
        self.assertEqual(len(padding), -(len(payload) + 2) % sa.suite.align)
        self.assertEqual(padding, bytes(range(1, len(padding) + 1)))
        if sa.scapy_knows():
            outer = ip(sa.outer, src=OWN[sa.outer], dst=PEER[sa.outer]) / ESP(esp_of(octets))
            opened = sa.scapy(False, number).decrypt(parse(bytes(outer)))
            self.assertEqual(bytes(opened), later(inner))

    def scapy_sends(self, sa, inner):
        """An outer packet by scapy, or by the reference if scapy does not know the form."""
        if not sa.scapy_knows():
            return sa.craft_transport(inner) if sa.transport else sa.craft(bytes(inner))
        number = sa.number()
        association = sa.scapy(True, number)
        if sa.udp:
            association.nat_t_header = UDP(sport=sa.udp[1], dport=sa.udp[0])
        packet = association.encrypt(parse(bytes(inner)), seq_num=number & 0xFFFFFFFF)
        if sa.udp and sa.outer == 6:
            # RFC 3948 wants zero, which IPv6 forbids (RFC 8200 section 8.1); scapy leaves it so.
            return sa.outside(esp_of(bytes(packet)))
        return bytes(packet)

    def test_rfc4303_section_3_3_tunnel_mode_out_of_every_transform(self):
        for sa in forms():
            with self.subTest(told(sa)):
                self.start(sa)
                inners = [outbound_inner(sa.inner, bytes(size)) for size in SIZES]
                out = self.from_host(*inners)
                self.assertEqual(len(out), len(inners), self.drops)
                for number, (octets, inner) in enumerate(zip(out, inners), 1):
                    self.check_outbound(sa, octets, inner, number)
                self.assertEqual(self.answer["packets_out"], len(SIZES))
                self.assertEqual(self.answer["bytes_out"], sum(len(bytes(i)) for i in inners))

    def test_rfc4303_section_3_4_tunnel_mode_in_of_every_transform(self):
        for sa in forms():
            with self.subTest(told(sa)):
                self.start(sa)
                inners = [inbound_inner(sa.inner, bytes(size)) for size in SIZES]
                delivered = self.from_peer(*[self.scapy_sends(sa, inner) for inner in inners])
                self.assertEqual(delivered, [later(inner) for inner in inners], self.drops)
                self.assertEqual(self.answer["packets_in"], len(SIZES))
                self.assertEqual(self.answer["bytes_in"], sum(len(bytes(i)) for i in inners))
                for octets in delivered:
                    self.assert_sound(octets)

    def test_rfc4303_section_3_1_1_transport_mode_of_every_transform_both_ways(self):
        # The peer asks for an echo under ESP, and the gateway answers under ESP; so does a host.
        for suite, family, udp, esn in itertools.product(
            SUITES, (4, 6), (None, (4500, 4500)), (True, False)
        ):
            sa = Sa(suite, inner=family, outer=family, transport=True, udp=udp, esn=esn)
            with self.subTest(told(sa)):
                self.start(sa)
                request = ip(family, src=PEER[family], dst=OWN[family])
                if family == 4:
                    request /= ICMP(id=7, seq=8) / Raw(b"abcdefgh")
                else:
                    request /= ICMPv6EchoRequest(id=7, seq=8, data=b"abcdefgh")
                out = self.run_with(OUTSIDE, [self.scapy_sends(sa, request)])[OUTSIDE]
                self.assertEqual(len(out), 1, self.drops)
                answer = self.transport_opened(sa, out[0], 1)
                self.assertEqual((answer.src, answer.dst), (OWN[family], PEER[family]))
                kind = answer[ICMP].type if family == 4 else answer[ICMPv6EchoReply].type
                self.assertEqual(kind, 0 if family == 4 else 129)
                self.assert_sound(bytes(answer))
                sent = ip(family, src=HOST[family], dst=PEER[family]) / UDP(sport=40000, dport=50000)
                out = self.from_host(sent / Raw(b"from a host"))
                self.assertEqual(len(out), 1, self.drops)
                opened = self.transport_opened(sa, out[0], 2)
                self.assertEqual(bytes(opened), later(sent / Raw(b"from a host")))

    def transport_opened(self, sa, octets, number):
        """Our packet as it was before ESP: its own header, and what the reference decrypts."""
        self.assert_sound(octets)
        found, _, payload, padding, protocol = sa.open(octets)
        self.assertEqual(found, number)
        self.assertEqual(padding, bytes(range(1, len(padding) + 1)))
        packet = parse(octets)
        self.assertEqual(packet.haslayer(UDP), sa.udp is not None)
        packet.remove_payload()
        names = ("proto", "len", "chksum") if packet.version == 4 else ("nh", "plen")
        for name in names:
            delattr(packet, name)
        packet.setfieldval(names[0], protocol)
        whole = parse(bytes(packet / Raw(payload)))
        if sa.scapy_knows():
            bare = parse(octets)
            bare.remove_payload()
            for name in names:
                delattr(bare, name)
            bare.setfieldval(names[0], 50)
            opened = sa.scapy(False, number).decrypt(parse(bytes(bare / ESP(esp_of(octets)))))
            self.assertEqual(bytes(opened), bytes(whole))
        return whole

    def test_rfc4303_section_3_bursts_of_257_both_ways(self):
        for inner, outer in FAMILIES:
            with self.subTest("%din%d" % (inner, outer)):
                sa = Sa(inner=inner, outer=outer)
                self.start(sa)
                inners = [outbound_inner(inner, struct.pack(">I", n)) for n in range(257)]
                out = self.from_host(*inners)
                self.assertEqual(len(out), 257, self.drops)
                for number, (octets, packet) in enumerate(zip(out, inners), 1):
                    found, _, payload, _, _ = sa.open(octets)
                    self.assertEqual((found, payload), (number, later(packet)))
                inners = [inbound_inner(inner, struct.pack(">I", n)) for n in range(257)]
                delivered = self.from_peer(*[sa.craft(bytes(packet)) for packet in inners])
                self.assertEqual(delivered, [later(packet) for packet in inners])
                self.assertEqual(self.answer["packets_in"], 257)

    def test_rfc4303_section_3_4_1_esp_in_fragments_is_put_together_and_then_opened(self):
        for suite, outer, udp in itertools.product(SUITES, (4, 6), (None, (4500, 4500))):
            with self.subTest("%s over IPv%d udp=%s" % (suite, outer, udp)):
                sa = Sa(suite, outer=outer, udp=udp)
                self.start(sa)
                inner = inbound_inner(4, bytes(1472))
                parts = [fragments(sa.craft(bytes(inner)), 1352, n) for n in (1, 2, 3)]
                self.assertEqual([len(each) for each in parts], [2, 2, 2])
                # In order, the other way round, and one of them missing.
                self.assertTrue(self.from_peer(*parts[0]) == [later(inner)], self.drops)
                self.assertTrue(self.from_peer(*parts[1][::-1]) == [later(inner)], self.drops)
                self.assertEqual(self.from_peer(parts[2][0]), [])
                self.assertEqual(self.answer["tops"], {"1": 2})

    def test_rfc5722_section_4_fragments_that_overlap_are_dropped(self):
        for outer in (4, 6):
            sa = Sa(outer=outer)
            self.start(sa)
            inner = bytes(inbound_inner(4, bytes(1472)))
            whole = sa.craft(inner)
            first, last = fragments(whole, 1352)
            other = fragments(whole, 1344)[1]
            self.assertEqual(self.from_peer(first, other, last), [])
            self.assertIn("fragment_overlap", self.drops)
            # Later ones of that datagram too; another datagram is another matter.
            self.assertEqual(self.from_peer(first, last), [])
            self.assertEqual(len(self.from_peer(*fragments(whole, 1352, 8))), 1, self.drops)

    def test_rfc4303_section_2_4_every_payload_length_is_padded_to_the_alignment_and_no_more(self):
        for suite in SUITES:
            with self.subTest(suite.word):
                sa = Sa(suite)
                self.start(sa)
                # 49 octets is VPP's odd case; 0 to 8 blocks of 16, and one to each side.
                sizes = sorted({*range(0, 40), 49, *(16 * n + d for n in range(9) for d in (-1, 0, 1)
                                                    if 16 * n + d >= 0)})
                inners = [ip(4, src=HOST[4], dst=FAR[4], proto=200) / Raw(bytes(n)) for n in sizes]
                out = self.from_host(*inners)
                self.assertEqual(len(out), len(sizes), self.drops)
                for octets, inner in zip(out, inners):
                    _, _, payload, padding, _ = sa.open(octets)
                    self.assertEqual(payload, later(inner))
                    self.assertEqual(len(padding), -(len(payload) + 2) % suite.align)
                    self.assertEqual(padding, bytes(range(1, len(padding) + 1)))

    def test_rfc4303_section_2_4_padding_of_0_to_255_octets_from_the_peer(self):
        for suite in SUITES:
            with self.subTest(suite.word):
                sa = Sa(suite)
                self.start(sa)
                sent, wanted = [], []
                for pad in range(256):
                    # The payload makes up for the pad, so that the whole is aligned as it must be.
                    extra = -(28 + pad + 2) % suite.align
                    inner = bytes(inbound_inner(4, bytes(extra)))
                    sent.append(sa.craft(inner, pad=pad))
                    wanted.append(later(inner))
                self.assertEqual(self.from_peer(*sent), wanted, self.drops)
                self.assert_dropped()

    def test_rfc4303_section_2_7_tfc_padding_from_the_peer_is_stripped(self):
        for suite, (inner, outer), udp in itertools.product(SUITES, FAMILIES, (None, (4500, 4500))):
            with self.subTest("%s %din%d udp=%s" % (suite, inner, outer, udp)):
                sa = Sa(suite, inner=inner, outer=outer, udp=udp)
                self.start(sa)
                packet = bytes(inbound_inner(inner, b"x" * 40))
                next_header = 4 if inner == 4 else 41
                sent = [
                    sa.craft(packet + bytes(tfc), next_header=next_header)
                    for tfc in (1, 4, 100, 1000)
                ]
                self.assertEqual(self.from_peer(*sent), [later(packet)] * 4, self.drops)

    def test_rfc4303_section_2_6_dummy_packets_are_dropped_in_silence(self):
        for suite in SUITES:
            with self.subTest(suite.word):
                sa = Sa(suite)
                self.start(sa)
                dummies = [sa.craft(bytes(n), next_header=59) for n in (0, 1, 20, 333)]
                self.assertEqual(self.from_peer(*dummies), [])
                self.assert_dropped(dummy=4)
                # They count as received: the window moved.
                self.assertEqual(self.answer["tops"], {"1": 4})


if __name__ == "__main__":
    unittest.main()
