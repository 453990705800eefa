"""What is known about one RTP source: sequence, loss and jitter (RFC 3550 appendix A.1, A.3, A.8)."""

from __future__ import annotations

import enum
from typing import Final

from offhook.audio.frames import SAMPLE_RATE

__all__ = ["Order", "Reception"]

MAX_DROPOUT: Final = 3000
MAX_MISORDER: Final = 100
_REMEMBERED: Final = 2**128 - 1
_NEVER: Final = float("inf")


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
    """Counts one source's packets. In order, a packet costs one write: all else is kept by what did not come."""

    __slots__ = (
        "_bad",
        "_base",
        "_cycles",
        "_expected_prior",
        "_highest",
        "_lost_before",
        "_missing",
        "_missing_prior",
        "_received_before",
        "_seen",
        "_seen_at",
        "_transit",
        "duplicates",
        "jitter",
        "reordered",
        "ssrc",
    )

    def __init__(self, ssrc: int, sequence: int) -> None:
        """`sequence` is that of the first packet, which is yet to be received."""
        self.ssrc = ssrc
        self.reordered = 0
        self.duplicates = 0
        self.jitter = 0.0
        "In units of the RTP clock."
        self._lost_before = 0
        self._received_before = 0
        self._restart(sequence)

    def _restart(self, sequence: int) -> None:
        self._base = sequence
        self._highest = sequence - 1 & 0xFFFF
        self._cycles = 0 if sequence else -0x10000
        self._missing = 0
        # Which of the packets up to `_seen_at` have come, bit by bit; those from there to the newest all have.
        self._seen = 0
        self._seen_at = sequence - 1
        self._bad: int | None = None
        self._expected_prior = 0
        self._missing_prior = 0
        self._transit = _NEVER

    def receive(self, sequence: int) -> Order:
        """Take a packet's sequence number into account, and say how it stands."""
        ahead = sequence - self._highest & 0xFFFF
        if ahead == 1:
            self._highest = sequence
            if not sequence:
                self._cycles += 0x10000
            return _NEWEST
        if ahead == 0:
            self.duplicates += 1
            return _DUPLICATE
        if ahead < MAX_DROPOUT:
            self._leave_gap(sequence, ahead)
            return _NEWEST
        if ahead >= 0x10000 - MAX_MISORDER:
            return self._overtaken(0x10000 - ahead)
        if sequence == self._bad:
            self._lost_before, self._received_before = max(self.lost, 0), self.received
            self._restart(sequence)
            return self._first(sequence)
        self._bad = sequence + 1 & 0xFFFF
        return Order.JUMPED

    def _first(self, sequence: int) -> Order:
        self.receive(sequence)
        return Order.RESTARTED

    def _leave_gap(self, sequence: int, ahead: int) -> None:
        self._catch_up()
        self._seen = (self._seen << ahead | 1) & _REMEMBERED
        self._missing += ahead - 1
        if sequence < self._highest:
            self._cycles += 0x10000
        self._highest = sequence
        self._seen_at = self.highest_sequence

    def _catch_up(self) -> None:
        """Mark the packets that came in order since the last irregularity."""
        highest = self.highest_sequence
        run = highest - self._seen_at
        if run:
            self._seen = (self._seen << run | (1 << run) - 1) & _REMEMBERED if run < 128 else _REMEMBERED
            self._seen_at = highest

    def _overtaken(self, behind: int) -> Order:
        self._catch_up()
        bit = 1 << behind
        if self._seen & bit:
            self.duplicates += 1
            return _DUPLICATE
        self._seen |= bit
        self._missing -= 1
        self.reordered += 1
        return _OVERTAKEN

    def measure(self, timestamp: int, now: float) -> None:
        """Take an arrival into the jitter estimate (appendix A.8). Not for events, whose timestamps stand still."""
        transit = now * SAMPLE_RATE - timestamp
        difference = transit - self._transit
        self._transit = transit
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
    def received(self) -> int:
        """Packets that have come, without duplicates."""
        return self._received_before + self.expected - self._missing

    @property
    def lost(self) -> int:
        """Packets that have not come. Those overtaken are lost until they arrive."""
        return self._lost_before + self._missing

    def fraction_lost(self) -> int:
        """Return the share lost since the last call, in 1/256 (appendix A.3)."""
        expected = self.expected - self._expected_prior
        lost = self._missing - self._missing_prior
        self._expected_prior, self._missing_prior = self.expected, self._missing
        return 0 if expected <= 0 or lost <= 0 else min(255, (lost << 8) // expected)
