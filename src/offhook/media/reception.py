"""What is known about one RTP source: sequence, loss and jitter (RFC 3550 appendix A.1, A.3, A.8)."""

from __future__ import annotations

import enum
from typing import Final

from offhook.audio.frames import SAMPLE_RATE

__all__ = ["Order", "Reception"]

MAX_DROPOUT: Final = 3000
MAX_MISORDER: Final = 100
_REMEMBERED: Final = 2**128 - 1


class Order(enum.IntEnum):
    """How a packet's sequence number stands to those before it."""

    NEWEST = 0
    "It goes on from the newest, whether or not some are missing between."
    OVERTAKEN = 1
    "It comes after younger ones, for the first time."
    DUPLICATE = 2
    JUMPED = 3
    "Far from the rest: not to be believed before the next one follows it."
    RESTARTED = 4
    "It follows one that jumped: the sender counts anew."


# As plain names, since the enum's attributes cost more than the arithmetic.
_NEWEST = Order.NEWEST
_OVERTAKEN = Order.OVERTAKEN
_DUPLICATE = Order.DUPLICATE


class Reception:
    """Counts one source's packets."""

    def __init__(self, ssrc: int, sequence: int) -> None:
        self.ssrc = ssrc
        self.received = 0
        self.reordered = 0
        self.duplicates = 0
        self.jitter = 0.0
        "In units of the RTP clock."
        self._lost_before = 0
        self._transit: float | None = None
        self._restart(sequence)
        # The first packet is yet to be received.
        self._highest = sequence - 1 & 0xFFFF
        self._cycles = 0 if sequence else -0x10000

    def _restart(self, sequence: int) -> None:
        self._base = sequence
        self._highest = sequence
        self._cycles = 0
        self._seen = 1
        self._bad: int | None = None
        self._received_since = 0
        self._expected_prior = 0
        self._received_prior = 0

    def receive(self, sequence: int) -> Order:
        """Take a packet's sequence number into account, and say how it stands."""
        ahead = sequence - self._highest & 0xFFFF
        if ahead == 1:
            self._seen = (self._seen << 1 | 1) & _REMEMBERED
            order = _NEWEST
        elif ahead == 0:
            self.duplicates += 1
            return _DUPLICATE
        elif ahead < MAX_DROPOUT:
            self._seen = (self._seen << ahead | 1) & _REMEMBERED
            order = _NEWEST
        elif ahead >= 0x10000 - MAX_MISORDER:
            return self._overtaken(0x10000 - ahead)
        elif sequence == self._bad:
            self._lost_before += max(self.lost, 0)
            self._restart(sequence)
            self._received_since = 1
            self.received += 1
            self._transit = None
            return Order.RESTARTED
        else:
            self._bad = sequence + 1 & 0xFFFF
            return Order.JUMPED
        if sequence < self._highest:
            self._cycles += 0x10000
        self._highest = sequence
        self.received += 1
        self._received_since += 1
        return order

    def _overtaken(self, behind: int) -> Order:
        bit = 1 << behind
        if self._seen & bit:
            self.duplicates += 1
            return _DUPLICATE
        self._seen |= bit
        self.received += 1
        self._received_since += 1
        self.reordered += 1
        return _OVERTAKEN

    def measure(self, timestamp: int, now: float) -> None:
        """Take an arrival into the jitter estimate (appendix A.8). Not for events, whose timestamps stand still."""
        transit = now * SAMPLE_RATE - timestamp
        before = self._transit
        self._transit = transit
        if before is not None:
            difference = transit - before
            if difference < 0:
                difference = -difference
            # A jump of the sender's clock, or its wrap, is no jitter.
            if difference < SAMPLE_RATE:
                self.jitter += (difference - self.jitter) / 16

    @property
    def highest_sequence(self) -> int:
        """The extended highest sequence number received."""
        return self._cycles + self._highest

    @property
    def expected(self) -> int:
        """How many packets the sender has sent since it (re)started, as far as we can tell."""
        return self.highest_sequence - self._base + 1

    @property
    def lost(self) -> int:
        """Packets that have not come. Those overtaken are lost until they arrive."""
        return self._lost_before + self.expected - self._received_since

    def fraction_lost(self) -> int:
        """Return the share lost since the last call, in 1/256 (appendix A.3)."""
        expected = self.expected - self._expected_prior
        lost = expected - (self._received_since - self._received_prior)
        self._expected_prior, self._received_prior = self.expected, self._received_since
        return 0 if expected <= 0 or lost <= 0 else min(255, (lost << 8) // expected)
