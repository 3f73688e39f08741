"""scapy's IKEv2 dissector agrees with our IKE messages, octet by octet: those of `hitless demo`, and of
another vendor. The scenario ike-strongswan lets the same dissector read cookies, refused groups and
fragments of ours."""

import os
import subprocess
import tempfile
import unittest

from ike_dissector import Strange, judge, kind_of, messages

HERE = os.path.dirname(__file__)
# Beside the driver of the other suites.
DRIVER = os.environ.get("HITLESS_TESTBEDS",
                        os.path.join(HERE, "../../target/debug/hitless-testbeds"))
HITLESS = os.path.join(os.path.dirname(DRIVER), "hitless")
CLUSTER, PEER = "192.0.2.1", "192.0.2.2"
VENDOR = os.path.join(HERE, "../../control/tests/vectors/strongswan-5.9.8/strongswan-5.9.8.pcap")


class Dissected(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([HITLESS, "demo", "--pcap", directory], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            capture = os.path.join(directory, "outside.pcap")
            cls.found = {end: judge([capture], end) for end in (CLUSTER, PEER)}
            cls.ours = list(messages(capture, CLUSTER))

    def test_scapy_rebuilds_every_message_of_both_ends(self):
        for end, found in self.found.items():
            self.assertEqual(found["wrong"], [], end)
            self.assertGreater(found["counts"]["init"], 0, end)
            self.assertGreater(found["counts"]["sk"], 2, end)

    def test_the_judge_sees_a_length_that_does_not_fit(self):
        for octets in self.ours:
            # The message, and the first payload that is not the last: of an SK, the only one.
            for at in (27, 31):
                damaged = bytearray(octets)
                damaged[at] ^= 1
                with self.assertRaises(Strange, msg="octet %d of %s" % (at, octets.hex())):
                    kind_of(bytes(damaged))

    def test_the_judge_sees_octets_that_are_left_and_octets_that_are_missing(self):
        for octets in self.ours:
            for damaged in (octets + b"\0", octets[:-1]):
                with self.assertRaises(Strange):
                    kind_of(damaged)

    def test_another_vendor_s_messages_are_rebuilt_too(self):
        for end in ("10.99.0.1", "10.99.0.2"):
            found = judge([VENDOR], end)
            self.assertEqual(found["wrong"], [])
            self.assertGreater(sum(found["counts"].values()), 2)


if __name__ == "__main__":
    unittest.main()
