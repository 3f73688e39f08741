"""scapy's own IKEv2 dissector on IKE messages of ours: it must name every layer, take each length as it
would have written it, and build the same octets again from what it has read.

  ike_dissector.py ADDRESS CAPTURE...

prints, as JSON, how many messages from that address there were of each kind, and what was wrong:
IKE_SA_INIT, clear messages that are nothing but notifications, SK, and SKF (RFC 7383). What SK and SKF
hold is closed to it.
"""

import json
import sys

from scapy.config import conf
from scapy.contrib import ikev2
from scapy.fields import FieldLenField
from scapy.packet import NoPayload, Padding, Raw
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

conf.verb = 0
NATT = 4500
KINDS = ("init", "clear-notifies", "sk", "skf")


class Strange(Exception):
    """What scapy makes of a message is not what the message is."""


def layers(packet):
    """The chain of payloads, and the packets that are fields of them."""
    while packet and not isinstance(packet, NoPayload):
        yield packet
        for value in packet.fields.values():
            for inner in value if isinstance(value, list) else [value]:
                if hasattr(inner, "fields_desc"):
                    yield from layers(inner)
        packet = packet.payload


def rebuilt(packet):
    """From the fields alone: without the octets that were read, and with every length made anew."""
    packet = packet.copy()
    for layer in layers(packet):
        layer.raw_packet_cache = None
        layer.raw_packet_cache_fields = None
        layer.explicit = 0
        for field in layer.fields_desc:
            if isinstance(field, FieldLenField):
                layer.fields[field.name] = None
    packet.fields["length"] = None
    return bytes(packet)


def kind_of(octets):
    """Which of KINDS, and that scapy agrees with every octet. Raises Strange."""
    packet = ikev2.IKEv2(octets)
    chain = list(layers(packet))
    odd = [layer.name for layer in chain if isinstance(layer, (Raw, Padding))]
    unnamed = [layer.name for layer in chain if type(layer) is ikev2.IKEv2_payload]
    if odd or unnamed:
        raise Strange("not dissected: %s" % ", ".join(odd + unnamed))
    if packet.length != len(octets):
        raise Strange("a length of %d, but %d octets" % (packet.length, len(octets)))
    again = rebuilt(packet)
    if again != octets:
        at = next((n for n, (a, b) in enumerate(zip(again, octets)) if a != b), len(again))
        raise Strange("rebuilt with a difference from octet %d on: %s" % (at, packet.summary()))
    payloads = [type(layer) for layer in chain[1:]]
    if ikev2.IKEv2_payload_Encrypted_Fragment in payloads:
        return "skf"
    if ikev2.IKEv2_payload_Encrypted in payloads:
        return "sk"
    if payloads and all(payload is ikev2.IKEv2_payload_Notify for payload in payloads):
        return "clear-notifies"
    if packet.exch_type == 34 and ikev2.IKEv2_payload_SA in payloads:
        return "init"
    raise Strange("a message of no kind that we send: %s" % packet.summary())


def messages(capture, address):
    """The octets of the IKE messages from an address."""
    with PcapReader(capture) as frames:
        for frame in frames:
            ip = frame.getlayer(IP) or frame.getlayer(IPv6)
            if ip is None or ip.src != address or type(ip.payload) is not UDP:
                continue
            # As they lay on the wire: scapy has taken them apart already.
            datagram = bytes(ip.payload.original)
            ports, body = datagram[:4], datagram[8:ip.payload.len]
            if NATT in (int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")):
                if body[:4] != bytes(4) or len(body) == 1:
                    continue
                body = body[4:]
            elif 500 not in (int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")):
                continue
            yield body


def judge(captures, address):
    counts, wrong = dict.fromkeys(KINDS, 0), []
    for capture in captures:
        for octets in messages(capture, address):
            try:
                counts[kind_of(octets)] += 1
            except Strange as strange:
                wrong.append(str(strange))
    return {"counts": counts, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(judge(sys.argv[2:], sys.argv[1])))
