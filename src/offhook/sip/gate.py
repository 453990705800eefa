"""What a stack asks before it serves a request that belongs to nothing it knows: who sent this, and is it welcome?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .flow import Flow
from .message import Request

__all__ = ["SILENCE", "Gate", "Passed", "Turned"]


@dataclass(frozen=True, slots=True)
class Passed:
    """Serve the request. `peer` is what the gate knows of its sender; a leg keeps it."""

    peer: object | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """Turn the request away: with this response, and without a transaction. Status 0: with none."""

    status: int
    headers: Sequence[tuple[str, str]] = ()


SILENCE = Turned(0)


class Gate(Protocol):
    """
    Judges requests outside of dialogs, before any state is made for them.

    It is not asked about what belongs to a transaction or a dialog: ACK, the CANCEL of an INVITE that passed, BYE and
    all else with the tags and Call-ID of a call. Those are as good as a password, and an ACK cannot be challenged
    (RFC 3261 section 22.1).
    """

    def judge(self, request: Request, flow: Flow, *, now: float) -> Passed | Turned: ...

    def explains_to(self, flow: Flow) -> bool:
        """Whether this peer is told what was wrong with a request that could not be read."""
