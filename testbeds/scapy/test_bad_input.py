"""What an enemy, or a peer gone wrong, may send; the reasons are those of `hitless status`."""

import struct

from bed import *
from reference import SUITES


class BadInput(BedTest):
    def each(self, **choices):
        for suite in SUITES:
            sa = Sa(suite, **choices)
            self.start(sa)
            yield sa

    def aligned(self, sa, text):
        """Text as it is, with the last octets moved to its aligned end."""
        fill = -len(text) % sa.suite.align
        return text[:-2] + bytes(fill) + text[-2:]

    def test_rfc4303_section_2_4_a_pad_length_beyond_the_packet(self):
        for sa in self.each():
            inner = bytes(inbound_inner(4, b""))
            text = self.aligned(sa, inner + bytes([0xFF, 4]))
            self.assertEqual(self.from_peer(*[sa.craft(b"", text=text) for _ in range(5)]), [])
            self.assert_dropped(bad_padding=5)

    def test_rfc4303_section_2_4_padding_that_is_not_1_2_3(self):
        for sa in self.each():
            inner = bytes(inbound_inner(4, b"1234"))
            whole = reference.trailer(sa.suite, inner, 4)
            pad = whole[-2]
            for at in range(pad):
                text = bytearray(whole)
                text[-3 - at] ^= 0x40
                self.assertEqual(self.from_peer(sa.craft(b"", text=bytes(text))), [])
                self.assert_dropped(bad_padding=1)

    def test_rfc4301_section_5_2_an_inner_length_beyond_what_is_there(self):
        for sa in self.each():
            for extra in (1, 4, 1000, 60000):
                inner = bytearray(bytes(inbound_inner(4, b"x" * 20)))
                struct.pack_into(">H", inner, 2, len(inner) + extra)
                packet = IP(bytes(inner))
                del packet.chksum
                self.assertEqual(self.from_peer(sa.craft(bytes(packet)[: len(inner)])), [])
                self.assertEqual(sum(self.drops.values()), 1, self.drops)

    def test_rfc4303_section_2_1_spi_0_and_an_unknown_spi_are_counted_apart(self):
        for sa in self.each():
            inner = bytes(inbound_inner(4))
            self.assertEqual(self.from_peer(sa.craft(inner, spi=0), sa.craft(inner, spi=0x12345)), [])
            self.assert_dropped(spi_zero=1, unknown_spi=1)

    def test_rfc4303_section_2_6_an_unknown_next_header(self):
        for sa in self.each():
            inner = bytes(inbound_inner(4))
            wrong = [0, 1, 6, 17, 47, 50, 51, 58, 60, 61, 200, 255]
            sent = [sa.craft(inner, next_header=number) for number in wrong]
            self.assertEqual(self.from_peer(*sent), [])
            self.assert_dropped(bad_next_header=len(wrong))

    def test_rfc4301_section_5_2_an_inner_packet_outside_the_selectors(self):
        for sa in self.each():
            far = IP(src="10.3.0.5", dst=HOST[4]) / UDP(sport=1, dport=2)
            near = IP(src=FAR[4], dst="10.9.0.5") / UDP(sport=1, dport=2)
            self.assertEqual(self.from_peer(sa.craft(bytes(far)), sa.craft(bytes(near))), [])
            self.assert_dropped(selector_mismatch=2)

    def test_rfc4301_section_5_2_clear_text_that_policy_protects(self):
        sa = Sa()
        self.start(sa)
        self.assertEqual(self.from_peer(inbound_inner(4)), [])
        self.assert_dropped(clear_text=1)

    def test_rfc4301_section_5_what_no_policy_matches_is_dropped_both_ways(self):
        sa = Sa()
        self.start(sa)
        stranger = IP(src="198.51.100.7", dst=HOST[4]) / UDP(sport=1, dport=2)
        self.assertEqual(self.from_peer(stranger), [])
        self.assert_dropped(no_policy=1)
        elsewhere = IP(src=HOST[4], dst="198.51.100.7") / UDP(sport=1, dport=2)
        self.assertEqual(self.from_host(elsewhere), [])
        self.assert_dropped(no_policy=1)

    def test_rfc3948_section_2_keepalives_short_payloads_and_the_non_esp_marker(self):
        sa = Sa(udp=(4500, 4500))
        self.start(sa)
        header = IP(src=PEER[4], dst=OWN[4]) / UDP(sport=4500, dport=4500)
        self.assertEqual(self.from_peer(header / Raw(b"\xff")), [])
        self.assert_dropped(nat_keepalive=1)
        for length in range(0, 8):
            self.assertEqual(self.from_peer(header / Raw(b"\xfe" * length)), [])
            self.assertEqual(sum(self.drops.values()), 1, (length, self.drops))
        self.assertEqual(self.from_peer(header / Raw(bytes(4) + bytes(28))), [])
        self.assertEqual(self.answer["punted"], 1)

    def test_rfc4303_section_3_4_4_every_flipped_bit_is_refused(self):
        for sa in self.each():
            esp = esp_of(sa.craft(bytes(inbound_inner(4, b"abcdefg"))))
            total = 0
            for bit in range(8 * len(esp)):
                octets = bytearray(esp)
                octets[bit // 8] ^= 0x80 >> bit % 8
                self.assertEqual(self.from_peer(sa.outside(bytes(octets))), [], bit)
                total += sum(self.drops.values())
                self.assertLessEqual(set(self.drops), {"integrity", "unknown_spi", "replay"}, bit)
            self.assertEqual(total, 8 * len(esp))
            self.assertEqual(len(self.from_peer(sa.outside(esp))), 1, "and the whole one is good")

    def test_rfc4303_section_3_4_every_truncation_is_refused(self):
        for sa in self.each():
            esp = esp_of(sa.craft(bytes(inbound_inner(4, b"abcdefg"))))
            for length in range(len(esp)):
                self.assertEqual(self.from_peer(sa.outside(esp[:length])), [], length)
                self.assertEqual(sum(self.drops.values()), 1, (length, self.drops))
            self.assertEqual(self.answer["tops"], {"1": 0})
            self.assertEqual(len(self.from_peer(sa.outside(esp))), 1)

    def test_rfc4303_section_3_4_ethernet_padding_is_not_part_of_the_packet(self):
        for sa in self.each():
            packet = sa.craft(bytes(inbound_inner(4)))
            self.assertEqual(len(self.from_peer(packet + bytes(18))), 1, self.drops)


if __name__ == "__main__":
    unittest.main()
