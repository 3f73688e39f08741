"""The gateway's worker as a process: hitless-testbeds esp-peer over a pipe (testbeds/src/esp_peer)."""

import json
import os
import struct
import subprocess

_DEFAULT = os.path.join(os.path.dirname(__file__), "../../target/debug/hitless-testbeds")


class Refused(Exception):
    """The driver did not obey a request; the text says why."""


class Driver:
    """One process for all tests: `start` makes a new gateway in it."""

    def __init__(self):
        program = os.environ.get("HITLESS_TESTBEDS", _DEFAULT)
        self.process = subprocess.Popen(
            [program, "esp-peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def frame(self, port, octets):
        """Puts an Ethernet frame onto a port's cable, for the next `request`."""
        self._write(b"F", bytes([port]) + octets)

    def request(self, op, **fields):
        """Obeyed: the answer and the frames that came out, as (port, octets). Else `Refused`."""
        self._write(b"J", json.dumps({"op": op, **fields}).encode())
        self.process.stdin.flush()
        frames = []
        while True:
            length = struct.unpack(">I", self._read(4))[0]
            message = self._read(length)
            if message[:1] == b"F":
                frames.append((message[1], message[2:]))
                continue
            answer = json.loads(message[1:])
            if "refused" in answer:
                raise Refused(answer["refused"])
            return answer, frames

    def _write(self, kind, body):
        self.process.stdin.write(struct.pack(">I", len(body) + 1) + kind + body)

    def _read(self, count):
        octets = self.process.stdout.read(count)
        if len(octets) < count:
            raise EOFError("the driver has ended: status %s" % self.process.wait())
        return octets

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
