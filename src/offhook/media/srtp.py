"""
SRTP and SRTCP of one call (RFC 3711, RFC 7714): libsrtp's contexts, one for each direction.

Nothing is believed of a packet before it is authenticated and found to be no replay; libsrtp keeps the window and
the rollover counter of each SSRC, and changes neither for a packet that fails.
"""

from __future__ import annotations

from typing import Final

import pylibsrtp
from pylibsrtp import Policy

from offhook.media.crypto import SrtpKeys

__all__ = ["Srtp"]

MAX_SSRCS: Final = 64
"""SSRCs of a peer that a context is kept for, under one key. The oldest goes: whoever has the key could make more."""
WINDOW: Final = 1024
"""Packets that one may come late by (RFC 3711 section 3.3.2), 20 s of sound."""


_PROFILES: Final = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


class Srtp:
    """Protects what is sent and opens what comes."""

    __slots__ = ("_before", "_inbound", "_last_ssrc", "_outbound", "_ssrcs", "failed", "keys", "replayed")

    def __init__(self, keys: SrtpKeys) -> None:
        self.keys = keys
        self.failed = 0
        "Packets that were not authentic, or no SRTP at all."
        self.replayed = 0
        "Authentic packets, or what says so, that were here before or came too late to tell."
        self._outbound = _context(keys, keys.send, Policy.SSRC_ANY_OUTBOUND)
        # What stood before the peer's key changed, until the new key is used.
        self._before: tuple[pylibsrtp.Session, dict[bytes, None]] | None = None
        self._open_inbound()

    def renegotiate(self, keys: SrtpKeys) -> None:
        """
        Go on by these keys. A direction whose key is the same keeps its counters (RFC 4568 section 7.1.4).

        Packets under the old key, which may be on their way, are taken until the first under the new one.
        """
        before, self.keys = self.keys, keys
        if (keys.suite, keys.send) != (before.suite, before.send):
            self._outbound = _context(keys, keys.send, Policy.SSRC_ANY_OUTBOUND)
        if (keys.suite, keys.receive) != (before.suite, before.receive):
            self._before = (self._inbound, self._ssrcs)
            self._open_inbound()

    def protect(self, packet: bytes) -> bytes:
        """Return an RTP packet as SRTP."""
        return self._outbound.protect(packet)

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Return a compound RTCP packet as SRTCP."""
        return self._outbound.protect_rtcp(packet)

    def unprotect(self, packet: bytes) -> bytes | None:
        """Return the RTP packet, or `None` for what is to be dropped, which is counted."""
        try:
            plain = self._inbound.unprotect(packet)
        except (pylibsrtp.Error, ValueError) as error:
            return self._failed(error, packet, packet[8:12])
        if (ssrc := packet[8:12]) != self._last_ssrc:
            self._heard_from(ssrc)
        return plain

    def unprotect_rtcp(self, packet: bytes) -> bytes | None:
        """Return the compound RTCP packet, or `None` for what is to be dropped, which is counted."""
        try:
            plain = self._inbound.unprotect_rtcp(packet)
        except (pylibsrtp.Error, ValueError) as error:
            return self._failed(error, packet, packet[4:8], rtcp=True)
        if (ssrc := packet[4:8]) != self._last_ssrc:
            self._heard_from(ssrc)
        return plain

    def _open_inbound(self) -> None:
        self._inbound = _context(self.keys, self.keys.receive, Policy.SSRC_ANY_INBOUND)
        self._last_ssrc = b""
        self._ssrcs: dict[bytes, None] = {}

    def _heard_from(self, ssrc: bytes) -> None:
        """Note an authentic packet's SSRC; libsrtp has made a stream for it if it is new."""
        self._last_ssrc = ssrc
        self._before = None
        self._ssrcs.pop(ssrc, None)
        self._ssrcs[ssrc] = None
        if len(self._ssrcs) > MAX_SSRCS:
            oldest = next(iter(self._ssrcs))
            del self._ssrcs[oldest]
            self._inbound.remove_stream(int.from_bytes(oldest))

    def _failed(self, error: Exception, packet: bytes, ssrc: bytes, *, rtcp: bool = False) -> bytes | None:
        """Try a packet by what stood before, if that may still be; else count it."""
        if self._before is not None and ssrc in self._before[1]:
            old = self._before[0]
            try:
                return old.unprotect_rtcp(packet) if rtcp else old.unprotect(packet)
            except (pylibsrtp.Error, ValueError) as by_the_old:
                error = by_the_old
        text = str(error)
        if "replay" in text or "too old" in text:
            self.replayed += 1
        else:
            self.failed += 1
        return None


def _context(keys: SrtpKeys, key: bytes, direction: int) -> pylibsrtp.Session:
    policy = Policy(key=key, ssrc_type=direction, srtp_profile=_PROFILES[keys.suite.name])
    policy.window_size = WINDOW
    return pylibsrtp.Session(policy)
