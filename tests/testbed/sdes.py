"""
SRTP written from the RFCs, on AES and HMAC alone: what the product's libsrtp is compared with.

RFC 3711 sections 3.3, 3.4, 4.1.1, 4.2 and 4.3; RFC 7714 sections 8 and 9. No replay window, and the rollover counter is
handed in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["LENGTHS", "Sdes", "aes_cm", "derive", "gcm_nonce"]

LENGTHS = {
    "AES_CM_128_HMAC_SHA1_80": (16, 14),
    "AES_CM_128_HMAC_SHA1_32": (16, 14),
    "AEAD_AES_128_GCM": (16, 12),
    "AEAD_AES_256_GCM": (32, 12),
}


def aes_cm(key: bytes, iv: int, length: int) -> bytes:
    """Return keystream of AES in counter mode (RFC 3711 section 4.1.1)."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(iv.to_bytes(16))).encryptor()
    return encryptor.update(bytes(length))


def derive(key: bytes, salt: bytes, label: int, length: int) -> bytes:
    """Return a session key (RFC 3711 section 4.3.1; RFC 7714 section 11 pads its salt of 96 bits)."""
    padded = int.from_bytes(salt.ljust(14, b"\0"))
    return aes_cm(key, (padded ^ label << 48) << 16, length)


def gcm_nonce(salt: bytes, ssrc: int, index: int) -> bytes:
    """Return the IV of RFC 7714 section 8.1 (index: rollover counter and number) or 9.1 (index: SRTCP's)."""
    return (int.from_bytes(salt) ^ (ssrc << 48 | index)).to_bytes(12)


class Sdes:
    """One direction under one key."""

    def __init__(self, suite: str, key: bytes) -> None:
        self.suite, self.key = suite, key
        length, salt_length = LENGTHS[suite]
        master, salt = key[:length], key[length:]
        assert len(salt) == salt_length
        self._gcm = suite.startswith("AEAD")
        self._rtp, self._rtcp = (
            tuple(derive(master, salt, base + at, size) for at, size in enumerate((length, 20, salt_length)))
            for base in (0, 3)
        )

    def crypto(self, tag: int = 1, tail: str = "") -> str:
        """Return the line that names this key."""
        return f"a=crypto:{tag} {self.suite} inline:{base64.b64encode(self.key).decode()}{tail}\r\n"

    def protect(self, packet: bytes, roc: int = 0) -> bytes:
        """Protect an RTP packet whose header has 12 octets."""
        head, body = packet[:12], packet[12:]
        key, auth, salt = self._rtp
        sequence, ssrc = struct.unpack("!2xH4xI", head)
        index = roc << 16 | sequence
        if self._gcm:
            return head + AESGCM(key).encrypt(gcm_nonce(salt, ssrc, index), body, head)
        protected = head + _xor(body, aes_cm(key, _iv(salt, ssrc, index), len(body)))
        return protected + self._tag(
            auth, protected + roc.to_bytes(4), 4 if self.suite.endswith("32") else 10
        )

    def unprotect(self, packet: bytes, roc: int = 0) -> bytes:
        """Open an RTP packet. Raises an exception when it is not authentic."""
        head, body = packet[:12], packet[12:]
        key, auth, salt = self._rtp
        sequence, ssrc = struct.unpack("!2xH4xI", head)
        index = roc << 16 | sequence
        if self._gcm:
            return head + AESGCM(key).decrypt(gcm_nonce(salt, ssrc, index), body, head)
        size = 4 if self.suite.endswith("32") else 10
        body, tag = body[:-size], body[-size:]
        assert tag == self._tag(auth, head + body + roc.to_bytes(4), size), "not authentic"
        return head + _xor(body, aes_cm(key, _iv(salt, ssrc, index), len(body)))

    def protect_rtcp(self, packet: bytes, index: int) -> bytes:
        """Protect a compound RTCP packet; `index` counts them, from 1."""
        head, body = packet[:8], packet[8:]
        key, auth, salt = self._rtcp
        (ssrc,) = struct.unpack("!4xI", head)
        trailer = (0x80000000 | index).to_bytes(4)
        if self._gcm:
            return head + AESGCM(key).encrypt(gcm_nonce(salt, ssrc, index), body, head + trailer) + trailer
        protected = head + _xor(body, aes_cm(key, _iv(salt, ssrc, index), len(body))) + trailer
        return protected + self._tag(auth, protected, 10)

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """Open a compound RTCP packet. Raises an exception when it is not authentic."""
        key, auth, salt = self._rtcp
        head = packet[:8]
        (ssrc,) = struct.unpack("!4xI", head)
        if self._gcm:
            body, trailer = packet[8:-4], packet[-4:]
            index = int.from_bytes(trailer) & 0x7FFFFFFF
            return head + AESGCM(key).decrypt(gcm_nonce(salt, ssrc, index), body, head + trailer)
        body, trailer, tag = packet[8:-14], packet[-14:-10], packet[-10:]
        assert tag == self._tag(auth, packet[:-10], 10), "not authentic"
        index = int.from_bytes(trailer) & 0x7FFFFFFF
        return head + _xor(body, aes_cm(key, _iv(salt, ssrc, index), len(body)))

    @staticmethod
    def _tag(key: bytes, data: bytes, size: int) -> bytes:
        return hmac.digest(key, data, hashlib.sha1)[:size]


def _iv(salt: bytes, ssrc: int, index: int) -> int:
    return int.from_bytes(salt) << 16 ^ ssrc << 64 ^ index << 16


def _xor(data: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))
