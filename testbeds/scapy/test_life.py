"""The life of SAs: rekeying, removal, several at once, ports that change; and the outer header."""

from bed import *
from reference import SUITES


class Life(BedTest):
    def test_rfc7296_section_2_8_old_and_new_sa_overlap_then_the_old_one_is_gone(self):
        for suite in SUITES:
            with self.subTest(suite.word):
                old = Sa(suite)
                new = Sa(suite, id=2, in_spi=IN_SPI + 1, out_spi=OUT_SPI + 1)
                policy = [{"local": old.config()["local_ts"][0],
                           "remote": old.config()["remote_ts"][0], "action": "protect", "sa": 1}]
                self.start(old, new, policies=policy)
                inner = bytes(inbound_inner(4))
                sent = [sa.craft(inner) for _ in range(10) for sa in (old, new)]
                self.assertEqual(len(self.from_peer(*sent)), 20)
                self.assertEqual(self.answer["tops"], {"1": 10, "2": 10})
                self.assertEqual(old.open(self.from_host(outbound_inner(4))[0])[0], 1)
                policy[0]["sa"] = 2
                self.driver.request("policies", policies=policy)
                self.assertEqual(new.open(self.from_host(outbound_inner(4))[0])[0], 1)
                self.driver.request("remove", sa=1)
                self.assertEqual(len(self.from_peer(old.craft(inner), new.craft(inner))), 1)
                self.assert_dropped(unknown_spi=1)

    def test_rfc4301_section_5_1_without_its_sa_nothing_leaves_in_clear(self):
        sa = Sa()
        self.start(sa)
        self.assertEqual(len(self.from_host(outbound_inner(4))), 1)
        self.driver.request("remove", sa=1)
        self.assertEqual(self.from_host(*[outbound_inner(4)] * 3), [])
        self.assert_dropped(no_sa=3)
        again = Sa(first=1000, floor=1000)
        self.install(again)
        self.assertEqual(again.open(self.from_host(outbound_inner(4))[0])[0], 1000)
        self.assertEqual(len(self.from_peer(again.craft(bytes(inbound_inner(4))))), 1)

    def test_rfc4303_section_3_3_2046_packets_over_2_and_3_sas_packet_by_packet(self):
        for count in (2, 3):
            sas = [Sa(SUITES[n % len(SUITES)], id=n + 1, in_spi=IN_SPI + n, out_spi=OUT_SPI + n)
                   for n in range(count)]
            policies = [
                {"local": {"prefix": LOCAL_NET[4]},
                 "remote": {"prefix": "10.2.%d.0/24" % n}, "action": "protect", "sa": n + 1}
                for n in range(count)
            ]
            self.start(*sas, policies=policies)
            inner = [bytes(IP(src=HOST[4], dst="10.2.%d.5" % n) / UDP(sport=1, dport=2))
                     for n in range(count)]
            out = self.from_host(*[inner[i % count] for i in range(2046)])
            self.assertEqual(len(out), 2046, self.drops)
            for i, octets in enumerate(out):
                number, _, payload, _, _ = sas[i % count].open(octets)
                self.assertEqual((number, payload), (i // count + 1, later(inner[i % count])))
            back = bytes(inbound_inner(4))
            delivered = self.from_peer(*[sas[i % count].craft(back) for i in range(2046)])
            self.assertEqual(len(delivered), 2046, self.drops)

    def test_rfc3948_udp_ports_change_on_a_live_sa(self):
        sa = Sa(udp=(4500, 4500))
        self.start(sa)
        self.assertEqual(len(self.from_host(outbound_inner(4))), 1)
        sa.udp = (4500, 61234)
        self.driver.request("update", sa=1, local=OWN[4], remote=PEER[4],
                            encapsulation={"local_port": 4500, "remote_port": 61234})
        out = self.from_host(outbound_inner(4))
        self.assertEqual((parse(out[0])[UDP].sport, parse(out[0])[UDP].dport), (4500, 61234))
        self.assertEqual(sa.open(out[0])[0], 2)
        self.assertEqual(len(self.from_peer(sa.craft(bytes(inbound_inner(4))))), 1)

    def test_rfc3948_section_2_1_a_zero_udp_checksum_over_ipv4(self):
        sa = Sa(udp=(4500, 4500))
        self.start(sa)
        inner = bytes(inbound_inner(4))
        self.assertEqual(len(self.from_peer(sa.craft(inner, zero=True), sa.craft(inner))), 2)

    def test_rfc4301_section_5_1_2_ttl_and_header_of_the_outer_packet(self):
        sa = Sa()
        self.start(sa)
        out = self.from_host(outbound_inner(4, ttl=2), outbound_inner(4, ttl=1))
        self.assertEqual(len(out), 1)
        self.assertEqual(IP(sa.open(out[0])[2]).ttl, 1)
        self.assertGreaterEqual(IP(out[0]).ttl, 64)
        self.assert_dropped(ttl_exceeded=1)

    def test_rfc4301_section_8_2_what_is_too_long_becomes_two_and_both_are_counted(self):
        sa = Sa()
        self.start(sa)
        inner = bytes(outbound_inner(4, bytes(1472)))
        out = self.from_host(inner)
        self.assertEqual(len(out), 2, self.drops)
        self.assertEqual(self.answer["packets_out"], 2)
        whole = b"".join(sa.open(octets)[2][20:] for octets in out)
        self.assertEqual(whole, inner[20:])

    def test_ha_who_does_not_lead_sends_and_delivers_nothing(self):
        sa = Sa()
        self.start(sa)
        self.driver.request("lead", leading=False)
        self.assertEqual(self.from_host(outbound_inner(4)), [])
        self.assertEqual(self.from_peer(sa.craft(bytes(inbound_inner(4)))), [])
        self.assertEqual(sum(self.drops.values()), 1)


if __name__ == "__main__":
    unittest.main()
