"""Sends through the tunnel and gets it back, octet for octet.

    transfer.py serve ADDRESS          echoes UDP and TCP on port 7007, until it is ended
    transfer.py client ADDRESS SIZES   UDP of each size (a comma between), then TCP; says what failed
"""

import os
import socket
import sys
import threading

PORT = 7007
STREAM = 3_000_000
# The first datagram that is too long may be lost to teach the sender the path's MTU.
TRIES = 5


def serve(address):
    listener = socket.create_server((address, PORT))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, PORT))

    def echo_datagrams():
        while True:
            octets, sender = datagrams.recvfrom(65536)
            try:
                datagrams.sendto(octets, sender)
            except OSError:
                pass  # Too long for the path as it has just been learnt; it will be asked again.

    def echo_stream(stream):
        with stream:
            while octets := stream.recv(65536):
                stream.sendall(octets)

    threading.Thread(target=echo_datagrams, daemon=True).start()
    print("serving", flush=True)
    while True:
        threading.Thread(target=echo_stream, args=(listener.accept()[0],), daemon=True).start()


def datagram(address, size):
    """Whether a datagram came back as it was sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, PORT))
        sender.settimeout(0.4)
        octets = os.urandom(size)
        for _ in range(TRIES):
            try:
                sender.send(octets)
                if sender.recv(65536) == octets:
                    return True
            except OSError:
                continue
    return False


def stream(address):
    """Whether a stream came back as it was sent."""
    octets = os.urandom(STREAM)
    received = bytearray()
    with socket.create_connection((address, PORT), timeout=10) as sender:
        sender.settimeout(10)

        def write():
            try:
                sender.sendall(octets)
                sender.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The reader will miss it.

        threading.Thread(target=write, daemon=True).start()
        try:
            while more := sender.recv(65536):
                received += more
        except OSError as error:
            print("stream:", error)
    return bytes(received) == octets


def client(address, sizes):
    failed = [size for size in sizes if not datagram(address, size)]
    print("datagrams: %d sent, failed: %s" % (len(sizes), failed))
    whole = stream(address)
    print("stream: %d octets %s" % (STREAM, "came back" if whole else "did not come back"))
    return not failed and whole


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    sys.exit(not client(sys.argv[2], [int(size) for size in sys.argv[3].split(",")]))
