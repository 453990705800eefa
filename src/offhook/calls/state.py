"""
The life of a call, and which verbs fit which part of it.

Pure: everything that decides a call's state is in this file. The machine:

    RINGING ──accept──▶ ACCEPTED ──200 OK sent──▶ ANSWERED ──ACK──▶ ACTIVE
       │                   │                         │                │
       └───────────────────┴────────── end ──────────┴────────────────┴──▶ ENDED
"""

from __future__ import annotations

from enum import StrEnum

from .errors import CallError, call_not_found
from .record import Termination

__all__ = ["CallState", "Lifecycle"]


class CallState(StrEnum):
    RINGING = "ringing"
    ACCEPTED = "accepted"
    "The app said yes; the engine warms while the phone rings on."
    ANSWERED = "answered"
    "200 OK is on its way; the ACK is not in yet."
    ACTIVE = "active"
    ENDED = "ended"


class Lifecycle:
    """Moves a call from state to state. A verb that does not fit raises `CallError` and changes nothing."""

    def __init__(self) -> None:
        self.state = CallState.RINGING
        self.termination: Termination | None = None

    def check_accept(self) -> bool:
        """Return True for a first accept, False for one to be answered 200 and otherwise ignored (API row R06)."""
        self._refuse_if_over()
        return self.state is CallState.RINGING

    def accept(self) -> None:
        assert self.state is CallState.RINGING
        self.state = CallState.ACCEPTED

    def check_reject(self) -> None:
        self._refuse_if_over()
        if self.state is not CallState.RINGING:
            raise CallError(
                409,
                "The call has been accepted and can no longer be rejected. Use hangup to end it.",
                code="call_already_accepted",
            )

    def check_accepted(self, what: str) -> None:
        """`what` is asked of the call, for the error's text: `refer it`."""
        self._refuse_if_over()
        if self.state is CallState.RINGING:
            raise CallError(
                409,
                f"The call has not been accepted yet. Accept it before you {what}.",
                code="call_not_accepted",
            )

    def check_hangup(self) -> None:
        self._refuse_if_over()

    def answered(self) -> None:
        assert self.state is CallState.ACCEPTED
        self.state = CallState.ANSWERED

    def confirmed(self) -> None:
        if self.state is CallState.ANSWERED:
            self.state = CallState.ACTIVE

    def end(self, termination: Termination) -> bool:
        """Return False if the call had ended before: the first end is the one that counts."""
        if self.state is CallState.ENDED:
            return False
        self.state = CallState.ENDED
        self.termination = termination
        return True

    def _refuse_if_over(self) -> None:
        if self.state is CallState.ENDED:
            raise call_not_found()
