"""Sequence numbers and replay: RFC 4303 section 3.4.3 and appendix A, against a naive model."""

import itertools

from bed import *
from reference import SUITES

WINDOWS = (64, 65536)


class Window:
    """Appendix A2 of RFC 4303, with a set for the bit mask."""

    def __init__(self, size, esn, floor=0):
        self.size, self.esn, self.top, self.seen = size, esn, floor, set()
        self.floor = floor

    def infer(self, low):
        """Appendix A2.2: the number that a low half stands for."""
        if not self.esn:
            return low
        th, tl = self.top >> 32, self.top & 0xFFFFFFFF
        bottom = tl - self.size + 1
        if tl >= self.size - 1:
            return (th if low >= bottom else th + 1) << 32 | low
        if low >= bottom + (1 << 32):
            return (th - 1) << 32 | low
        return th << 32 | low

    def receive(self, number):
        """What becomes of a packet that was sealed under `number`."""
        inferred = self.infer(number & 0xFFFFFFFF)
        if inferred <= self.top - self.size or inferred <= self.floor or inferred in self.seen:
            return "replay"
        if inferred != number:
            return "integrity"
        self.seen.add(number)
        self.top = max(self.top, number)
        return None


class Replay(BedTest):
    def each(self):
        for window, esn in itertools.product(WINDOWS, (True, False)):
            yield Sa(window=window, esn=esn)

    def packet(self, sa, number, **how):
        return sa.craft(bytes(inbound_inner(4)), number=number, **how)

    def delivered(self, sa, *numbers, **how):
        return len(self.from_peer(*[self.packet(sa, number, **how) for number in numbers]))

    def test_rfc4303_section_3_4_3_replay_of_1_to_33_is_dropped_and_counted(self):
        for sa in self.each():
            self.start(sa)
            packets = [self.packet(sa, number) for number in range(1, 34)]
            self.assertEqual(len(self.from_peer(*packets)), 33)
            self.assertEqual(len(self.from_peer(*packets)), 0)
            self.assert_dropped(replay=33)

    def test_rfc4303_section_3_4_3_a_peer_that_resets_its_number_is_refused_until_it_is_beyond(self):
        # It begins at 1 again with the same keys: packets of their own, no copies. First within the
        # window, then left of it, where with ESN only the next epoch could have sent them.
        for sa in self.each():
            for top in (40, 200):
                left = top > sa.window
                with self.subTest("window=%d esn=%s top=%d" % (sa.window, sa.esn, top)):
                    self.start(sa)
                    self.assertEqual(self.delivered(sa, *range(1, top + 1)), top)
                    fresh = bytes(inbound_inner(4, b"begun anew"))
                    anew = [sa.craft(fresh, number=number) for number in range(1, 41)]
                    self.assertEqual(len(self.from_peer(*anew)), 0)
                    self.assert_dropped(**{"integrity" if left and sa.esn else "replay": 40})
                    # The window has not moved, and whoever goes on is let in.
                    self.assertEqual(self.answer["tops"], {"1": top})
                    self.assertEqual(self.delivered(sa, top + 1), 1)

    def test_rfc4303_section_3_4_3_of_8_copies_in_a_burst_one_is_accepted(self):
        for sa in self.each():
            self.start(sa)
            self.assertEqual(self.delivered(sa, *[1] * 8), 1)
            self.assert_dropped(replay=7)

    def test_rfc4303_section_3_4_3_a_jump_and_the_edges_of_the_window(self):
        for sa in self.each():
            self.start(sa)
            top = sa.window + 1000
            self.assertEqual(self.delivered(sa, top), 1)
            self.assertEqual(self.delivered(sa, top), 0)
            self.assert_dropped(replay=1)
            left = top - sa.window + 1
            self.assertEqual(self.delivered(sa, left, left), 1)
            self.assert_dropped(replay=1)
            self.assertEqual(self.delivered(sa, left - 1), 0)
            # With ESN a number left of the window is taken for one of the next epoch.
            self.assert_dropped(**{"integrity" if sa.esn else "replay": 1})
            self.assertEqual(self.delivered(sa, top - 1, top + 1, top + 1), 2)
            self.assert_dropped(replay=1)

    def test_rfc4303_section_3_4_3_a_forgery_does_not_move_the_window(self):
        for sa in self.each():
            self.start(sa)
            self.assertEqual(self.delivered(sa, 100), 1)
            wrong = bytes(len(sa.in_key))
            packets = [self.packet(sa, 100 + sa.window + 350, key=wrong)] * 17
            self.assertEqual(self.from_peer(*packets), [])
            self.assert_dropped(integrity=17)
            self.assertEqual(self.answer["tops"], {"1": 100})
            self.assertEqual(self.delivered(sa, 99, 101), 2)

    def test_rfc4303_section_3_4_2_a_runt_does_not_move_the_window(self):
        for sa, suite in itertools.product(self.each(), SUITES):
            sa = Sa(suite, window=sa.window, esn=sa.esn)
            self.start(sa)
            self.assertEqual(self.delivered(sa, 100), 1)
            whole = esp_of(self.packet(sa, 300))
            shortest = sa.suite.overhead()
            for length in range(8, shortest):
                self.assertEqual(self.from_peer(*[sa.outside(whole[:length])] * 17), [])
                self.assertEqual(sum(self.drops.values()), 17)
                self.assertLessEqual(set(self.drops), {"runt"}, length)
            self.assertEqual(self.answer["tops"], {"1": 100})

    def test_rfc4303_section_3_4_3_out_of_window_is_replay_or_with_esn_a_wrap(self):
        for sa in self.each():
            self.start(sa)
            self.assertEqual(self.delivered(sa, sa.window + 500), 1)
            self.assertEqual(self.delivered(sa, *range(1, 18)), 0)
            self.assert_dropped(**{"integrity" if sa.esn else "replay": 17})

    def test_rfc4303_section_3_4_3_one_bad_packet_does_not_affect_the_next(self):
        for sa in self.each():
            self.start(sa)
            top = sa.window + 500
            self.assertEqual(self.delivered(sa, top), 1)
            self.assertEqual(self.delivered(sa, top, 3, top + 1), 1)
            self.assertEqual(self.answer["tops"], {"1": top + 1})

    def test_rfc4303_section_3_3_3_the_last_number_without_esn_is_the_last_packet(self):
        sa = Sa(esn=False, first=0xFFFFFFFE)
        self.start(sa)
        out = self.from_host(*[outbound_inner(4)] * 5)
        self.assertEqual([sa.open(octets)[0] for octets in out], [0xFFFFFFFE, 0xFFFFFFFF])
        self.assert_dropped(sequence_overflow=3)
        self.assertEqual(self.from_host(outbound_inner(4)), [])

    def test_rfc4303_section_2_2_1_with_esn_the_high_half_becomes_1(self):
        for suite in SUITES:
            with self.subTest(suite.word):
                sa = Sa(suite, first=0xFFFFFFFE)
                self.start(sa)
                out = self.from_host(*[outbound_inner(4)] * 5)
                numbers = [sa.open(octets, high)[0] for octets, high in zip(out, (0, 0, 1, 1, 1))]
                self.assertEqual(numbers, list(range(0xFFFFFFFE, 0x100000003)))
                with self.assertRaises(reference.Forged):
                    sa.open(out[2], 0)
                if sa.scapy_knows():
                    outer = IP(src=OWN[4], dst=PEER[4]) / ESP(esp_of(out[4]))
                    opened = sa.scapy(False, 0x100000002).decrypt(parse(bytes(outer)))
                    self.assertEqual(bytes(opened), later(outbound_inner(4)))

    def test_rfc4303_appendix_a2_the_receiver_wraps(self):
        for suite, window in itertools.product(SUITES, WINDOWS):
            with self.subTest("%s window=%d" % (suite, window)):
                sa = Sa(suite, window=window, floor=0xFFFFFFF0 - 10)
                self.start(sa)
                self.assertEqual(self.delivered(sa, 0xFFFFFFF0), 1)
                self.assertEqual(self.delivered(sa, 0x1_00000005), 1)
                # Still in the window, of the epoch before.
                self.assertEqual(self.delivered(sa, 0xFFFFFFFD, 0xFFFFFFFD), 1)
                self.assert_dropped(replay=1)
                # An epoch too far.
                self.assertEqual(self.delivered(sa, 0x2_00000999), 0)
                self.assert_dropped(integrity=1)
                self.assertEqual(self.delivered(sa, 0x1_00000000 + window + 0x555), 1)
                # Now what lies left of the window can only be of the next epoch.
                self.assertEqual(self.delivered(sa, 0x2_00000444), 1)

    def test_rfc4303_appendix_a2_every_case_of_the_table_before_and_after_decryption(self):
        # Low halves below, in and above the window, which lies in one epoch (case A) or spans two
        # (case B), first and again, sealed under each epoch near.
        for window, esn in itertools.product(WINDOWS, (True, False)):
            tops = [5, window - 2, window - 1, window, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]
            if esn:
                tops += [(1 << 32) + low for low in (0, 5, window - 2, window - 1, window + 0x555)]
            for top in tops:
                with self.subTest("window=%d esn=%s top=%#x" % (window, esn, top)):
                    self.walk(window, esn, top)

    def walk(self, window, esn, top):
        floor = max(0, top - window // 2 - 1)
        sa, model = Sa(window=window, esn=esn, floor=floor), Window(window, esn, floor)
        self.start(sa)
        self.assertEqual(self.delivered(sa, top), 1)
        self.assertIsNone(model.receive(top))
        near = [d for edge in (0, -window, -window // 2, 0x40000000, -0x40000000)
                for d in (edge - 1, edge, edge + 1)]
        epochs = (0, 1 << 32, -(1 << 32)) if esn else (0,)
        numbers = [top + d + epoch for d in near for epoch in epochs]
        limit = 1 << 62 if esn else 1 << 32
        # Twice each: what was accepted must be a replay then.
        for number in [n for n in numbers if 0 < n < limit for _ in (0, 1)]:
            expected = model.receive(number)
            got = self.delivered(sa, number)
            told = "%#x on top %#x" % (number, model.top)
            self.assertEqual(got, 0 if expected else 1, told)
            self.assertEqual(self.drops, {expected: 1} if expected else {}, told)
            self.assertEqual(self.answer["tops"], {"1": model.top}, told)


if __name__ == "__main__":
    unittest.main()
