"""tshark 4.0 (Debian 12) decrypts captures of our traffic and reports every ICV good.

Its table of ESP SAs has no extended numbers, so that under ESN only numbers whose high half does
not enter the ICV would verify: none. These captures are made without ESN; the scapy suite has both.
It knows neither ChaCha20-Poly1305 for ESP nor AES-GMAC nor implicit IVs (SUITES says which it knows).
"""

import os
import subprocess
import tempfile

from bed import *
from reference import SUITES
from scapy.utils import PcapWriter

# Encryption and integrity in tshark's words, by the kind of a suite.
WORDS = {
    "gcm": ("AES-GCM with 16 octet ICV [RFC4106]", "NULL"),
    "cbc": ("AES-CBC [RFC3602]", None),
}
# Of an HMAC, by the octets of its ICV.
HMACS = {16: "HMAC-SHA-256-128 [RFC4868]", 24: "HMAC-SHA-384-192 [RFC4868]",
         32: "HMAC-SHA-512-256 [RFC4868]"}
FIELDS = ["esp.spi", "esp.sequence", "esp.icv_good", "esp.icv_bad", "udp.dstport", "udp.length",
          "ip.src", "ipv6.src", "data.data"]


def known():
    return [suite for suite in SUITES if suite.kind in WORDS and not suite.implicit]


def entries(sa):
    """The lines of tshark's table for both directions."""
    encryption, integrity = WORDS[sa.suite.kind]
    integrity = integrity or HMACS[sa.suite.icv]
    version = "IPv%d" % sa.outer
    for (source, destination), spi, key in (
        ((OWN, PEER), sa.out_spi, sa.out_key),
        ((PEER, OWN), sa.in_spi, sa.in_key),
    ):
        cipher, mac = key, b""
        if sa.suite.kind == "cbc":
            cipher, mac = key[: sa.suite.key], key[sa.suite.key :]
        quoted = [version, source[sa.outer], destination[sa.outer], "0x%08x" % spi, encryption,
                  "0x" + cipher.hex(), integrity, "0x" + mac.hex() if mac else ""]
        yield "uat:esp_sa:" + ",".join('"%s"' % word for word in quoted)


def tshark(sas, packets):
    """One dictionary of FIELDS for each packet; lists, since layers repeat."""
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, "esp.pcap")
        writer = PcapWriter(path, linktype=1)
        for packet in packets:
            writer.write(Ether(ethernet(bytes(packet), OUTSIDE_MAC)))
        writer.close()
        command = ["tshark", "-r", path, "-n", "-T", "fields", "-E", "separator=;",
                   "-E", "occurrence=a", "-o", "esp.enable_encryption_decode:TRUE",
                   "-o", "esp.enable_authentication_check:TRUE"]
        for field in FIELDS:
            command += ["-e", field]
        for sa in sas:
            for entry in entries(sa):
                command += ["-o", entry]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=dict(os.environ, HOME=home), check=True)
    return [dict(zip(FIELDS, (column.split(",") if column else [] for column in line.split(";"))))
            for line in done.stdout.splitlines()]


class Captures(BedTest):
    def each(self):
        for suite in known():
            for inner, outer in FAMILIES:
                for udp in (None, (4500, 4500)):
                    # Key lengths and forms have nothing to do with each other.
                    if suite.key != 16 and (inner, outer, udp) != (4, 4, None):
                        continue
                    sa = Sa(suite, inner=inner, outer=outer, udp=udp, esn=False)
                    self.start(sa)
                    yield sa

    def test_every_icv_of_ours_is_good_and_the_inner_packet_decoded(self):
        for sa in self.each():
            payloads = [bytes([n]) * (n * 9 + 1) for n in range(8)]
            out = self.from_host(*[outbound_inner(sa.inner, text) for text in payloads])
            back = [sa.craft(bytes(inbound_inner(sa.inner, text))) for text in payloads]
            self.assertEqual(len(self.from_peer(*back)), 8)
            rows = tshark([sa], out + back)
            self.assertEqual(len(rows), 16)
            for number, (row, text) in enumerate(zip(rows, payloads + payloads)):
                self.assertEqual(row["esp.icv_good"], ["1"], row)
                self.assertEqual(row["esp.sequence"], [str(number % 8 + 1)])
                self.assertEqual(row["data.data"], [text.hex()], row)
                self.assertIn("50000" if number < 8 else "40000", row["udp.dstport"])

    def test_a_damaged_packet_is_reported_bad(self):
        for sa in self.each():
            whole = self.from_host(outbound_inner(sa.inner, b"x" * 40))[0]
            damaged = []
            # The ICV, the text, the number.
            for at in (len(whole) - 1, len(whole) - 30, len(whole) - len(esp_of(whole)) + 7):
                octets = bytearray(whole)
                octets[at] ^= 1
                damaged.append(bytes(octets))
            rows = tshark([sa], damaged + [whole])
            self.assertEqual([row["esp.icv_bad"] for row in rows], [["1"]] * 3 + [["0"]], rows)
            self.assertEqual([row["esp.icv_good"] for row in rows], [["0"]] * 3 + [["1"]], rows)


if __name__ == "__main__":
    unittest.main()
