"""Keys that the caller presses, as SIP INFO says them and as they are joined with those that come by RTP."""

from __future__ import annotations

from collections import deque
from typing import Final

from offhook.media.dtmf import DIGITS

__all__ = ["INFO_TYPES", "InfoError", "Presses", "parse_info"]

INFO_TYPES: Final = ("application/dtmf-relay", "application/dtmf")

PAIR_S: Final = 2.0
"""How far apart the two reports of one press may come."""
MAX_UNPAIRED: Final = 32
MAX_DURATION_MS: Final = 60_000

_FLASH: Final = frozenset({"16", "!", "F", "HF", "FLASH"})


class InfoError(ValueError):
    """The body says no digit; the message says why."""


def parse_info(body: bytes) -> tuple[str | None, int]:
    """
    Return the digit and its duration in milliseconds (0: not told) from an INFO's body; no digit for a hook flash.

    The body is `Signal=5` and `Duration=160` on lines of their own, in any case and order, or the bare digit. `*` and
    `#` may be said as 10 and 11, `A` to `D` as 12 to 15. Raises `InfoError`.
    """
    text = body.decode("latin-1").strip()
    if not text:
        raise InfoError("the body is empty")
    if "=" not in text and ":" not in text:
        return _digit(text), 0
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.replace(":", "=", 1).partition("=")
        fields.setdefault(name.strip().lower(), value.strip())
    if "signal" not in fields:
        raise InfoError("no Signal line")
    duration = fields.get("duration", "")
    whole = int(duration) if duration.isascii() and duration.isdigit() and len(duration) <= 6 else 0
    return _digit(fields["signal"]), min(whole, MAX_DURATION_MS)


def _digit(signal: str) -> str | None:
    signal = signal.strip('"').upper()
    if signal in _FLASH:
        return None
    if len(signal) == 2 and signal.isascii() and signal.isdigit() and 10 <= int(signal) < len(DIGITS):
        return DIGITS[int(signal)]
    if len(signal) != 1 or signal not in DIGITS:
        raise InfoError(f"{signal[:20]!r} is no digit")
    return signal


class Presses:
    """
    Tells a new press from the second report of one that is known.

    Some peers say each press by telephone-event and by INFO too. A press by one way is the same as the oldest one of
    the same key by the other way that has no partner yet, if the two come close together.
    """

    def __init__(self) -> None:
        self._unpaired: dict[str, deque[tuple[str, float]]] = {}

    def is_new(self, digit: str, way: str, now: float, *, duration_ms: int = 0) -> bool:
        """
        Take a press into account.

        `way` names where it comes from; `duration_ms` is how long the key was down before it was told.
        """
        reach = PAIR_S + duration_ms / 1000
        for other, waiting in self._unpaired.items():
            if other == way:
                continue
            for each in waiting:
                if each[0] == digit and now - each[1] <= reach:
                    waiting.remove(each)
                    return False
        self._unpaired.setdefault(way, deque(maxlen=MAX_UNPAIRED)).append((digit, now))
        return True
