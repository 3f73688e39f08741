"""A gateway with a host behind it and a peer in front of it; the peer is scapy, or the reference.

  host 10.1.0.5, fd01::5 -- [inside  gateway  outside] 192.0.2.1, 2001:db8::1 -- peer, its net behind

The gateway is ours; everything else is computed here.
"""

import struct
import unittest

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import reference
from driver import Driver

conf.verb = 0
INSIDE, OUTSIDE = 0, 1
INSIDE_MAC, OUTSIDE_MAC = "02:00:00:00:01:01", "02:00:00:00:01:02"
HOST_MAC, PEER_MAC = "02:00:00:00:00:05", "02:00:00:00:00:02"
HOST = {4: "10.1.0.5", 6: "fd01::5"}
FAR = {4: "10.2.0.5", 6: "fd02::5"}
LOCAL_NET = {4: "10.1.0.0/16", 6: "fd01::/64"}
FAR_NET = {4: "10.2.0.0/16", 6: "fd02::/64"}
OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
PEER = {4: "192.0.2.2", 6: "2001:db8::2"}
IN_SPI, OUT_SPI = 0xAAAA0001, 0xBBBB0001
# Inner and outer.
FAMILIES = [(4, 4), (6, 6), (4, 6), (6, 4)]
MTU = 1500
# Frames that the cables of the driver hold.
CABLE = 512


def ip(family, **fields):
    """An IP header of a family; ttl means hop limit and tos traffic class for both."""
    if family == 4:
        return IP(**fields)
    names = {"ttl": "hlim", "tos": "tc", "proto": "nh"}
    return IPv6(**{names.get(name, name): value for name, value in fields.items()})


def hops(packet):
    return packet.ttl if packet.version == 4 else packet.hlim


def ethernet(packet, mac):
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return bytes(Ether(src=PEER_MAC, dst=mac, type=kind)) + packet


def parse(octets):
    """An IP packet of either family, from its first octet."""
    return (IP if octets[0] >> 4 == 4 else IPv6)(octets)


class Sa:
    """Both ends of one SA pair: what the driver is told, and how the peer computes."""

    def __init__(self, suite=reference.SUITES[0], **choices):
        self.suite = suite
        self.id, self.esn, self.window = 1, True, 64
        self.inner, self.outer, self.transport = 4, 4, False
        self.udp, self.first, self.floor = None, 1, 0
        self.options = {}
        self.in_spi, self.out_spi = IN_SPI, OUT_SPI
        for name, value in choices.items():
            if not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)
        self.in_key = bytes((7 * i + self.id) & 0xFF for i in range(suite.material))
        self.out_key = bytes((11 * i + self.id + 100) & 0xFF for i in range(suite.material))
        self.next = self.floor + 1

    def config(self):
        """As `install` wants it."""
        local, remote = [LOCAL_NET[self.inner]], FAR_NET[self.inner]
        if self.transport:
            # The gateway itself, and a host behind it.
            length = "/32" if self.inner == 4 else "/128"
            local = [OWN[self.inner] + length, HOST[self.inner] + length]
            remote = PEER[self.inner] + length
        config = {
            "id": self.id,
            "transport": self.transport,
            "suite": self.suite.word,
            "esn": self.esn,
            "inbound_spi": self.in_spi,
            "outbound_spi": self.out_spi,
            "inbound_key": self.in_key.hex(),
            "outbound_key": self.out_key.hex(),
            "local": OWN[self.outer],
            "remote": PEER[self.outer],
            "local_ts": [{"prefix": prefix} for prefix in local],
            "remote_ts": [{"prefix": remote}],
            "replay_window": self.window,
            "first": self.first,
            "floor": self.floor,
            "options": self.options,
        }
        if self.udp:
            config["encapsulation"] = {"local_port": self.udp[0], "remote_port": self.udp[1]}
        return config

    def scapy(self, inbound, number=None):
        """scapy's SecurityAssociation for a direction as we see it."""
        key = self.in_key if inbound else self.out_key
        ends = (PEER, OWN) if inbound else (OWN, PEER)
        algorithms = dict(self.suite.scapy, crypt_key=key)
        if self.suite.kind == "cbc":
            algorithms.update(crypt_key=key[: self.suite.key], auth_key=key[self.suite.key :])
        header = ip(self.outer, src=ends[0][self.outer], dst=ends[1][self.outer])
        number = number or 1
        return SecurityAssociation(
            ESP,
            spi=self.in_spi if inbound else self.out_spi,
            seq_num=number & 0xFFFFFFFF,
            tunnel_header=None if self.transport else header,
            esn_en=self.esn,
            esn=number >> 32,
            **algorithms,
        )

    def scapy_knows(self):
        """scapy's ESP has no ESN under an HMAC, and no word for some suites."""
        return self.suite.scapy is not None and not (self.suite.kind == "cbc" and self.esn)

    def number(self):
        """The next number that the peer sends."""
        self.next += 1
        return self.next - 1

    def craft(self, inner, number=None, **how):
        """An outer packet from the peer, by the reference; what `how` names is done wrong."""
        number = self.number() if number is None else number
        if how.get("text") is None:
            default = 4 if inner[:1] and inner[0] >> 4 == 4 else 41
            text = reference.trailer(
                self.suite, inner, how.get("next_header", default), how.get("pad")
            )
        else:
            text = how["text"]
        key = how.get("key", self.in_key)
        spi = how.get("spi", self.in_spi)
        esp = reference.seal(self.suite, key, spi, number, text, self.esn, how.get("iv"))
        return self.outside(esp, **{k: how[k] for k in ("tos", "src", "zero") if k in how})

    def craft_transport(self, packet):
        """A packet from the peer in transport mode, by the reference."""
        packet = parse(bytes(packet))
        protocol = packet.proto if packet.version == 4 else packet.nh
        text = reference.trailer(self.suite, bytes(packet.payload), protocol)
        return self.craft(b"", text=text)

    def outside(self, esp, tos=0, src=None, zero=False):
        """The peer's outer header, and UDP if encapsulated, in front of an ESP packet."""
        header = ip(self.outer, src=src or PEER[self.outer], dst=OWN[self.outer], tos=tos)
        if self.udp is None:
            header.setfieldval("proto" if self.outer == 4 else "nh", 50)
            return bytes(header / Raw(esp))
        udp = UDP(sport=self.udp[1], dport=self.udp[0])
        if zero:
            udp.chksum = 0
        return bytes(header / udp / Raw(esp))

    def open(self, octets, high=0):
        """The reference opens our outer packet: number, IV, payload, padding, next header."""
        esp = esp_of(octets)
        spi, number, iv, text = reference.open_(self.suite, self.out_key, esp, high, self.esn)
        assert spi == self.out_spi, hex(spi)
        return (number, iv) + reference.untrail(text)


def esp_of(octets):
    """The ESP packet in an outer packet, from its SPI on."""
    packet = parse(octets)
    protocol = packet.proto if packet.version == 4 else packet.nh
    header = packet.ihl * 4 if packet.version == 4 else 40
    if protocol == 17:
        return octets[header + 8 :]
    assert protocol == 50, protocol
    return octets[header:]


class BedTest(unittest.TestCase):
    """Tests have `self.gateway`, a driver with a gateway; each starts a new one."""

    driver = None

    @classmethod
    def setUpClass(cls):
        if BedTest.driver is None:
            BedTest.driver = Driver()

    def start(self, *sas, mtu=MTU, policies=None, engine=None):
        """A gateway with these SAs, and a policy for each."""
        self.drops = {}
        sides = ((INSIDE_MAC, "10.1.0.1/16", "fd01::1/64", True),
                 (OUTSIDE_MAC, OWN[4] + "/24", OWN[6] + "/64", False))
        ports = [
            {"mac": mac, "mtu": mtu, "protected": protected, "addresses": [four, six]}
            for mac, four, six, protected in sides
        ]
        families = (4, 6)
        routes = [{"prefix": LOCAL_NET[f], "port": INSIDE} for f in families]
        routes += [{"prefix": net, "port": OUTSIDE}
                   for net in ("192.0.2.0/24", "2001:db8::/64")]
        routes += [{"prefix": FAR_NET[f], "port": OUTSIDE, "next_hop": PEER[f]} for f in families]
        neighbours = [{"port": INSIDE, "address": HOST[f], "mac": HOST_MAC} for f in families]
        neighbours += [{"port": OUTSIDE, "address": PEER[f], "mac": PEER_MAC} for f in families]
        if policies is None:
            policies = [
                {"local": local, "remote": sa.config()["remote_ts"][0],
                 "action": "protect", "sa": sa.id}
                for sa in sas for local in sa.config()["local_ts"]
            ]
        setup = {"ports": ports, "routes": routes, "neighbours": neighbours,
                 "policies": policies}
        # Packets longer than a frame: jumbo ones, and those that fragments make.
        setup["runs"] = 64 if mtu > 2000 else 8
        self.cable = 64 if mtu > 2000 else CABLE
        if engine:
            setup["engine"] = engine
        self.driver.request("start", **setup)
        for sa in sas:
            self.install(sa)
        self.answer, _ = self.driver.request("run")

    def install(self, sa):
        self.driver.request("install", **sa.config())

    def run_with(self, port, packets):
        """IP packets into a port, at once; the IP packets that come out, by port."""
        mac = INSIDE_MAC if port == INSIDE else OUTSIDE_MAC
        before, frames = self.answer, []
        for at in range(0, max(len(packets), 1), self.cable):
            for packet in packets[at : at + self.cable]:
                self.driver.frame(port, ethernet(bytes(packet), mac))
            self.answer, came = self.driver.request("run")
            frames += came
        self.assertEqual(self.answer["leaked"], 0, "frames of the pool")
        self.drops = {
            reason: count - before["drops"].get(reason, 0)
            for reason, count in self.answer["drops"].items()
            if count > before["drops"].get(reason, 0)
        }
        out = {INSIDE: [], OUTSIDE: []}
        for number, frame in frames:
            if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                out[number].append(frame[14:])
        return out

    def from_host(self, *packets):
        """The host sends; what leaves on the outside."""
        return self.run_with(INSIDE, packets)[OUTSIDE]

    def from_peer(self, *packets):
        """The peer sends; what is delivered inside."""
        return self.run_with(OUTSIDE, packets)[INSIDE]

    def assert_dropped(self, **reasons):
        """What was dropped since the last packets went in, and nothing else."""
        self.assertEqual(self.drops, {name: n for name, n in reasons.items() if n})

    def assert_sound(self, octets):
        """Lengths and checksums of all layers are as scapy computes them."""
        packet = parse(octets)
        self.assertEqual(packet.len if packet.version == 4 else packet.plen + 40, len(octets))
        again = parse(octets)
        layer = again
        while layer and not isinstance(layer, Raw):
            for name in ("chksum", "cksum", "len", "plen"):
                if name in layer.fields and not isinstance(layer, ESP):
                    del layer.fields[name]
            layer = layer.payload
        self.assertEqual(bytes(again), octets)


def fragments(octets, size, identification=7):
    """A packet's fragments, each with so many octets of payload at most; of either family."""
    header = 20 if octets[0] >> 4 == 4 else 40
    payload, found = octets[header:], []
    for at in range(0, len(payload), size):
        part, more = payload[at : at + size], at + size < len(payload)
        head = parse(octets[:header])
        if header == 20:
            head.len, head.chksum, head.id = None, None, identification
            head.frag, head.flags = at // 8, 1 if more else 0
            found.append(bytes(head / Raw(part)))
        else:
            next_header, head.plen, head.nh = head.nh, None, 44
            extension = struct.pack(">BBHI", next_header, 0, at | more, identification)
            found.append(bytes(head / Raw(extension + part)))
    return found


def outbound_inner(family, payload=b"payload", ttl=64, **fields):
    """A UDP packet from the host to the far net."""
    header = ip(family, src=HOST[family], dst=FAR[family], ttl=ttl, **fields)
    return header / UDP(sport=40000, dport=50000) / Raw(payload)


def inbound_inner(family, payload=b"payload", ttl=64, **fields):
    """A UDP packet from the far net to the host."""
    header = ip(family, src=FAR[family], dst=HOST[family], ttl=ttl, **fields)
    return header / UDP(sport=50000, dport=40000) / Raw(payload)


def later(packet, by=1):
    """An inner packet after so many routers."""
    packet = parse(bytes(packet))
    if packet.version == 4:
        packet.ttl -= by
        del packet.chksum
    else:
        packet.hlim -= by
    return bytes(packet)


__all__ = [name for name in dir() if not name.startswith("_")]
