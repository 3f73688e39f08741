"""ESP by hand with Python's cryptography, where scapy's SecurityAssociation has no word for it.

scapy 2.5.0 (Debian 12) knows AES-GCM, ChaCha20-Poly1305, AES-CBC and HMAC-SHA2-256-128, and the
extended sequence number (ESN) in the additional data of AEADs. It does not know: ESN under an HMAC
(ESP's implied high half), AES-GMAC (RFC 4543), implicit IVs (RFC 8750), padding of more than the
minimum, TFC padding, a trailer that lies. Those are computed here, from the RFCs alone.
"""

import hashlib
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305


class Suite:
    """A transform: its word in esp_proposals, sizes, and scapy's names if scapy knows it."""

    def __init__(self, word, kind, key, iv, icv=16, align=4, scapy=None, implicit=False):
        self.word, self.kind, self.key, self.iv = word, kind, key, iv
        self.icv, self.align, self.scapy, self.implicit = icv, align, scapy, implicit

    def __repr__(self):
        return self.word

    @property
    def material(self):
        """Octets of key material: key and salt, or cipher key and integrity key."""
        return self.key + (2 * self.icv if self.kind == "cbc" else 4)

    @property
    def hash(self):
        """That of the HMAC; half of what it gives is the ICV (RFC 4868 section 2.3)."""
        return {16: hashlib.sha256, 24: hashlib.sha384, 32: hashlib.sha512}[self.icv]

    def overhead(self):
        return 8 + self.iv + 2 + self.icv


_GCM, _CHACHA = {"crypt_algo": "AES-GCM"}, {"crypt_algo": "CHACHA20-POLY1305"}

_CBC = {"crypt_algo": "AES-CBC", "auth_algo": "SHA2-256-128"}
_LONGER = (("sha384", 24), ("sha512", 32))
_AES = ((128, 16), (192, 24), (256, 32))

SUITES = (
    [Suite("aes%dgcm16" % bits, "gcm", key, 8, scapy=_GCM) for bits, key in _AES]
    + [Suite("chacha20poly1305", "chacha", 32, 8, scapy=_CHACHA)]
    + [Suite("aes%dgmac" % bits, "gmac", key, 8) for bits, key in _AES]
    + [Suite("aes%d-sha256" % bits, "cbc", key, 16, align=16, scapy=_CBC) for bits, key in _AES]
    + [
        Suite("aes%d-%s" % (bits, word), "cbc", key, 16, icv=icv, align=16)
        for word, icv in _LONGER
        for bits, key in _AES
    ]
    + [Suite("aes%dgcm16iiv" % bits, "gcm", key, 0, implicit=True) for bits, key in _AES]
    + [Suite("chacha20poly1305iiv", "chacha", 32, 0, implicit=True)]
)


class Forged(Exception):
    """An ICV did not verify."""


def _halves(suite, material):
    return material[: suite.key], material[suite.key :]


def _aad(spi, number, esn):
    """RFC 4106 section 5: SPI, then the number in 32 or, extended, in 64 bits."""
    return struct.pack(">IQ" if esn else ">II", spi, number & (2**64 - 1 if esn else 2**32 - 1))


def trailer(suite, payload, next_header, pad=None):
    """Payload, padding 1, 2, 3 and so on, its length, next header (RFC 4303 section 2.4)."""
    if pad is None:
        pad = -(len(payload) + 2) % suite.align
    return payload + bytes(i & 0xFF for i in range(1, pad + 1)) + bytes([pad, next_header])


def seal(suite, material, spi, number, text, esn, iv=None):
    """A whole ESP packet around `text`, which has its trailer already."""
    key, rest = _halves(suite, material)
    header = struct.pack(">II", spi, number & 0xFFFFFFFF)
    if suite.implicit:
        # RFC 8750 section 4: the IV is the number in 64 bits and is not sent.
        iv = struct.pack(">Q", number if esn else number & 0xFFFFFFFF)
    elif iv is None:
        iv = os.urandom(suite.iv)
    shown = b"" if suite.implicit else iv
    aad = _aad(spi, number, esn)
    if suite.kind == "gcm":
        return header + shown + AESGCM(key).encrypt(rest + iv, text, aad)
    if suite.kind == "chacha":
        return header + shown + ChaCha20Poly1305(key).encrypt(rest + iv, text, aad)
    if suite.kind == "gmac":
        # RFC 4543 section 3.3: everything is additional data, the IV included.
        tag = AESGCM(key).encrypt(rest + iv, b"", aad + iv + text)
        return header + iv + text + tag
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    covered = header + iv + encryptor.update(text) + encryptor.finalize()
    return covered + _hmac(suite, rest, covered, number, esn)


def _hmac(suite, key, covered, number, esn):
    """RFC 4303 section 2.2.1: the high half follows the payload, in the computation alone."""
    high = struct.pack(">I", number >> 32) if esn else b""
    return hmac.new(key, covered + high, suite.hash).digest()[: suite.icv]


def open_(suite, material, packet, high, esn):
    """SPI, number, IV as it was sent, and the text with its trailer."""
    key, rest = _halves(suite, material)
    spi, low = struct.unpack(">II", packet[:8])
    number = (high << 32 if esn else 0) | low
    shown = packet[8 : 8 + suite.iv]
    iv = struct.pack(">Q", number) if suite.implicit else shown
    body, aad = packet[8 + suite.iv :], _aad(spi, number, esn)
    try:
        if suite.kind == "gcm":
            text = AESGCM(key).decrypt(rest + iv, body, aad)
        elif suite.kind == "chacha":
            text = ChaCha20Poly1305(key).decrypt(rest + iv, body, aad)
        elif suite.kind == "gmac":
            text = body[:-16]
            AESGCM(key).decrypt(rest + iv, body[-16:], aad + iv + text)
        else:
            covered, icv = packet[: -suite.icv], packet[-suite.icv :]
            if not hmac.compare_digest(_hmac(suite, rest, covered, number, esn), icv):
                raise Forged(suite.word)
            decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
            text = decryptor.update(body[: -suite.icv]) + decryptor.finalize()
    except InvalidTag:
        raise Forged(suite.word) from None
    return spi, number, shown, text


def untrail(text):
    """Payload, padding, next header."""
    pad, next_header = text[-2], text[-1]
    end = len(text) - 2 - pad
    return text[:end], text[end:-2], next_header
