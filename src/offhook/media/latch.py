"""
Which source a stream listens to, and where it therefore sends (symmetric RTP, made safe).

The address in the SDP came by the signalling, which was checked; it is believed at once. If nothing comes from there,
but from elsewhere, one source is learned when it has sent for a while, with packets that follow each other, and is then
kept until the next re-INVITE. Where the host of the signalling is not that of the SDP, the peer is behind a NAT, and
its sound comes from that host too: it need not wait. Others are counted and dropped. Nothing is ever sent to an address
that is neither the SDP's nor has sent us such packets. While the peer holds the call it may be silent, so that nothing
can be told from its silence: nobody is learned then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from offhook.media.negotiate import UNSPECIFIED, Address

__all__ = ["Latch", "Source"]

Source = tuple[Any, ...]
"""An address as sockets give it: (host, port), and two more for IPv6."""

PROBATION: Final = 4
"""So many packets must follow each other."""
PROBATION_S: Final = 0.5
"""So long must a source send with nothing from the SDP's address, or whoever guesses a port gets in first."""
MAX_STEP: Final = 50
"""A candidate that left out more packets than this begins anew."""
MAX_CANDIDATES: Final = 8


@dataclass(slots=True)
class _Candidate:
    ssrc: int
    sequence: int
    since: float
    count: int = 0
    run: int = 0
    packets: deque[tuple[bytes, float]] = field(default_factory=lambda: deque(maxlen=PROBATION))


class Latch:
    """
    The lock of one stream.

    `source` is who is listened to, compared by the hot path itself; every other source goes through `admit`.
    """

    __slots__ = (
        "_candidates",
        "_previous",
        "authentic",
        "expected",
        "foreign",
        "learns",
        "signalling_host",
        "source",
    )

    def __init__(self, expected: Address, signalling_host: str = "", *, learns: bool = True) -> None:
        self.expected = expected
        self.signalling_host = signalling_host
        "Where the peer's SIP comes from; empty when not known."
        self.learns = learns
        "Whether a source may be learned; not while the peer may be silent without being elsewhere (hold)."
        self.authentic = False
        "Packets come here only when they have proved that they are the peer's (SRTP): no source need wait then."
        self.source: Source | None = None
        "The locked source, or `None` before there is one."
        self.foreign = 0
        "Packets from sources that are not listened to."
        self._previous: Source | None = None
        self._candidates: dict[Source, _Candidate] = {}

    @property
    def destination(self) -> Source:
        """Where to send: the locked source, or the one before a re-INVITE, or what the SDP says."""
        return self.source or self._previous or self.expected

    @property
    def learned(self) -> bool:
        """Whether the locked source is another than the SDP's."""
        return self.source is not None and self.source[:2] != self.expected

    def renegotiate(self, expected: Address, *, learns: bool = True) -> None:
        """
        Go on after a re-INVITE.

        Another address opens the lock. The same one opens it for a peer that had to be learned, which may have moved
        behind its NAT, and stays good. The address that means silence says nothing of where the peer is.
        """
        self.learns = learns
        self._candidates.clear()
        stays = expected == self.expected
        if expected[0] in UNSPECIFIED or (stays and self.source is not None and not self.learned):
            return
        self._previous = self.destination if stays else None
        if self._previous == self.expected:
            self._previous = None
        self.expected = expected
        self.source = None

    def may_admit(self, source: Source) -> bool:
        """Return whether `admit` would look at a packet from here at all."""
        if self.source is None:
            return self.learns or self.authentic or self._is_peer(source)
        return self.learned and source[:2] == self.expected

    def _is_peer(self, source: Source) -> bool:
        return source[:2] == self.expected or source == self._previous

    def admit(
        self, source: Source, ssrc: int, sequence: int, data: bytes, now: float
    ) -> list[tuple[bytes, float]] | None:
        """
        Judge an acceptable packet from a source that is not the locked one.

        Returns the (datagram, arrival) pairs to take now that its source is locked, the last being this one, or
        `None` while it is not.
        """
        if self.source is None and self._is_peer(source):
            self._lock(source)
            return [(data, now)]
        # The SDP's address may still take over from one that was learned, but not the other way round.
        if not self.may_admit(source):
            self.foreign += 1
            return None
        return self._try(source, ssrc, sequence, data, now)

    def _try(
        self, source: Source, ssrc: int, sequence: int, data: bytes, now: float
    ) -> list[tuple[bytes, float]] | None:
        candidate = self._candidates.get(source)
        if candidate is None and len(self._candidates) >= MAX_CANDIDATES:
            # The one that got least far makes room: one packet each from many sources must not keep a caller out.
            del self._candidates[min(self._candidates, key=lambda each: self._candidates[each].count)]
        ahead = 0 if candidate is None else sequence - candidate.sequence & 0xFFFF
        if candidate is None or candidate.ssrc != ssrc or ahead > MAX_STEP:
            candidate = self._candidates[source] = _Candidate(ssrc, sequence, now)
        elif ahead and candidate.run < PROBATION:
            candidate.run = 0
            candidate.packets.clear()
        candidate.packets.append((data, now))
        candidate.sequence = sequence + 1 & 0xFFFF
        candidate.count += 1
        candidate.run += 1
        if candidate.run < PROBATION or now - candidate.since < self._probation_s(source):
            self.foreign += 1
            return None
        self.foreign -= len(candidate.packets) - 1
        self._lock(source)
        return list(candidate.packets)

    def _probation_s(self, source: Source) -> float:
        """Return how long a source must send, beside its packets: the SDP's and a NAT's need not wait."""
        behind_nat = source[0] == self.signalling_host != self.expected[0]
        return 0.0 if self.authentic or behind_nat or source[:2] == self.expected else PROBATION_S

    def _lock(self, source: Source) -> None:
        self.source = source
        self._previous = None
        self._candidates.clear()
