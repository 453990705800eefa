"""
Digits as named telephone events (RFC 4733).

An event is a run of packets with one timestamp, that of its start, and a growing duration; the last is sent three
times with the end bit set. Any of them may be lost.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from offhook.audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE

__all__ = ["DIGITS", "EVENT_SIZE", "PAUSES_MS", "DtmfReceiver", "DtmfSender", "check_digits"]

DIGITS: Final = "0123456789*#ABCD"
"""The event codes 0 to 15, in order (section 3.2)."""

PAUSES_MS: Final = {"w": 500, ",": 2000}
"""What stands between digits to be sent, and how long nothing is sent then, as on dialling strings elsewhere."""
_PAUSE: Final = -1

#  0                   1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |     event     |E|R| volume    |          duration             |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
_EVENT: Final = struct.Struct("!BBH")
EVENT_SIZE: Final = _EVENT.size
_END: Final = 0x80
_VOLUME: Final = 10
_ENDS: Final = 3
_LONGEST: Final = 0xFFFF
_STEPS: Final = 2 * FRAME_MS * 48
"""Two packets' worth of the fastest clock that events come with; at 8 kHz it is a quarter of a second."""

_STALE: Final = 10 * SAMPLE_RATE
"""How far an event may lie before the last one and still be its late companion; beyond it, the clock was set anew."""


def check_digits(digits: str, *, pauses: bool = False) -> str:
    """
    Return digits in capitals. Raises `ValueError` for anything but `0`-`9`, `*`, `#`, `A`-`D`.

    With `pauses`, `w` and `,` stand as they are.
    """
    taken = "".join(PAUSES_MS) if pauses else ""
    if wrong := next((each for each in digits if each not in taken and each.upper() not in DIGITS), None):
        more = ", and w or , for a pause" if pauses else ""
        raise ValueError(f"{wrong!r} is no DTMF digit: use 0-9, *, #, A-D{more}")
    return "".join(each if each in taken else each.upper() for each in digits)


class DtmfReceiver:
    """Turns event packets into digits: each press once, as soon as any packet of it is here."""

    __slots__ = (
        "_duration",
        "_ended",
        "_event",
        "_timestamp",
    )

    def __init__(self) -> None:
        self._timestamp: int | None = None
        self._event = 0
        self._duration = 0
        self._ended = True

    def receive(self, payload: bytes, timestamp: int, *, marker: bool = False) -> str | None:
        """Return the digit when a packet is the first that we see of a press, else `None`."""
        if len(payload) < 4:
            return None
        event, flags, duration = _EVENT.unpack_from(payload)
        ended = bool(flags & _END)
        if not self._is_new(event, timestamp, duration, marker, ended):
            self._ended = self._ended or ended
            return None
        self._timestamp, self._event, self._duration, self._ended = timestamp, event, duration, ended
        return DIGITS[event] if event < len(DIGITS) else None

    def _is_new(self, event: int, timestamp: int, duration: int, marker: bool, ended: bool) -> bool:
        if self._timestamp is None:
            return True
        advance = timestamp - self._timestamp & 0xFFFFFFFF
        if advance == 0:
            self._duration = max(self._duration, duration)
            return event != self._event
        if advance >= 0x80000000:
            # Before the last event: a packet that was overtaken.
            return 0x100000000 - advance > _STALE
        if event != self._event or marker:
            return True
        if self._ended:
            # A gateway that moves the timestamp repeats the end so. A press of its own cannot begin before the last
            # one has ended.
            return not (ended and duration == self._duration and advance < duration)
        return not self._continues(advance, timestamp, duration)

    def _continues(self, advance: int, timestamp: int, duration: int) -> bool:
        """
        Return whether an event goes on under a new timestamp.

        A press longer than 0xFFFF units comes in segments, each with the timestamp at which the one before
        ended (section 2.5.1.3). And some gateways move the timestamp with each packet, against section 2.5.1.2,
        which shows as a duration that goes on growing.
        """
        segment = self._duration >= _LONGEST - _STEPS and advance <= _LONGEST + _STEPS
        moving = duration > self._duration and advance <= 2 * (duration - self._duration)
        if segment or moving:
            self._timestamp, self._duration = timestamp, duration
            return True
        return False


class DtmfSender:
    """Digits to be sent, one event packet every 20 ms."""

    __slots__ = (
        "_event",
        "_step",
        "_timestamp",
        "_waiting",
    )

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._event: tuple[int, int, int] | None = None
        self._step = 0
        self._timestamp = 0

    def __bool__(self) -> bool:
        """Whether anything is left to be sent, closing gaps included."""
        return self._event is not None or bool(self._waiting)

    def send(self, digits: str, duration_ms: int = 100, gap_ms: int = 60) -> None:
        """
        Queue digits and pauses. Times are rounded up to whole frames; the press lasts 40 ms or more.

        Raises `ValueError`.
        """
        if not 0 < duration_ms <= 8000 or not 0 <= gap_ms <= 8000:
            raise ValueError(f"duration_ms={duration_ms}, gap_ms={gap_ms}: give 1 to 8000 and 0 to 8000")
        frames = max(2, -(-duration_ms // FRAME_MS))
        gap = max(_ENDS - 1, -(-gap_ms // FRAME_MS))
        for each in check_digits(digits, pauses=True):
            if each in PAUSES_MS:
                self._waiting.append((_PAUSE, 0, PAUSES_MS[each] // FRAME_MS))
            else:
                self._waiting.append((DIGITS.index(each), frames, gap))

    def clear(self) -> None:
        """Drop what was not begun."""
        self._waiting.clear()

    def next(self, timestamp: int) -> tuple[bytes, int, bool] | None:
        """
        Return the packet for this frame as (payload, timestamp, marker), or `None` in the gap after a digit.

        Call it once per frame, while the sender is true, with the audio's running timestamp.
        """
        if self._event is None:
            self._event, self._step, self._timestamp = self._waiting.popleft(), 0, timestamp
        code, frames, gap = self._event
        self._step += 1
        step = self._step
        if step >= frames + gap:
            self._event = None
        if step >= frames + _ENDS or code == _PAUSE:
            return None
        # Packet n covers n frames; the last is repeated, to survive loss (section 2.5.1.4).
        ending = _END if step >= frames else 0
        payload = _EVENT.pack(code, ending | _VOLUME, min(step, frames) * FRAME_SAMPLES)
        return payload, self._timestamp, step == 1
