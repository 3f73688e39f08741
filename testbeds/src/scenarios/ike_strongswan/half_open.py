"""Sends one IKE_SA_INIT request to the address that is given, and leaves it at that."""

import os
import socket
import struct
import sys


def payload(following, body):
    return struct.pack("!BBH", following, 0, 4 + len(body)) + body


def transform(last, kind, number, attributes=b""):
    return struct.pack("!BBHBBH", 0 if last else 3, 0, 8 + len(attributes), kind, 0, number) + attributes


transforms = (
    transform(False, 1, 20, struct.pack("!HH", 0x800E, 128))
    + transform(False, 2, 5)
    + transform(True, 4, 31)
)
proposal = struct.pack("!BBHBBBB", 0, 0, 8 + len(transforms), 1, 1, 0, 3) + transforms
body = (
    payload(34, proposal)
    + payload(40, struct.pack("!HH", 31, 0) + os.urandom(32))
    + payload(0, os.urandom(32))
)
header = os.urandom(8) + bytes(8) + struct.pack("!BBBBII", 33, 0x20, 34, 0x08, 0, 28 + len(body))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(5)
    udp.sendto(header + body, (sys.argv[1], 500))
    print(f"answered with {len(udp.recv(2000))} octets")
