"""What the four transactions share: states, outputs and timers as data."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..headers import Headers
from ..message import Request, Response

__all__ = [
    "AckReceived",
    "LocalProtocolError",
    "Output",
    "ResponseReceived",
    "Send",
    "State",
    "Terminated",
    "TimerValues",
    "Transaction",
    "create_ack",
    "create_cancel",
]


@dataclass(frozen=True, slots=True)
class TimerValues:
    """The base timers of RFC 3261 section 17, in seconds."""

    t1: float = 0.5
    "Estimate of the round trip; first retransmission."
    t2: float = 4.0
    "Longest interval between retransmissions."
    t4: float = 5.0
    "How long a message can stay in the network."


class State(enum.Enum):
    """The union of the states of RFC 3261 figures 5 to 8 and RFC 6026."""

    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


@dataclass(slots=True)
class Send:
    """Put this message on the wire."""

    message: Request | Response


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response for the transaction user; never a retransmission, except a 2xx to INVITE."""

    response: Response


@dataclass(frozen=True, slots=True)
class AckReceived:
    """The peer acknowledged the final response."""


@dataclass(slots=True)
class Terminated:
    """The transaction is over and can be forgotten; `timed_out` when the peer never answered."""

    timed_out: bool = False


Output = Send | ResponseReceived | AckReceived | Terminated


class LocalProtocolError(Exception):
    """Our own code asked for something the protocol does not allow."""


class Transaction:
    """State, timers and outputs. Subclasses add the inputs and fire the timers."""

    __slots__ = ("_outputs", "_reliable", "_timers", "_values", "state")

    def __init__(self, state: State, *, reliable: bool, timers: TimerValues) -> None:
        self.state = state
        self._reliable = reliable
        self._values = timers
        self._timers: dict[str, float] = {}
        self._outputs: list[Output] = []

    @property
    def is_refused(self) -> bool:
        """Return whether an INVITE got a final response other than 2xx; other requests: any final response."""
        return self.state in (State.COMPLETED, State.CONFIRMED)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` must be called, or `None` if nothing is pending."""
        return min(self._timers.values(), default=None)

    def handle_timer(self, *, now: float) -> None:
        """Fire every timer that is due."""
        for name, deadline in sorted(self._timers.items(), key=lambda item: item[1]):
            if deadline <= now and name in self._timers:
                del self._timers[name]
                self._fire(name, deadline)

    def outputs(self) -> list[Output]:
        """Take everything that happened since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def _fire(self, name: str, deadline: float) -> None:
        raise AssertionError(f"timer {name} in {type(self).__name__}")

    def _terminate(self, *, timed_out: bool = False) -> None:
        self.state = State.TERMINATED
        self._timers = {}
        self._outputs.append(Terminated(timed_out))

    def _linger(self, name: str, now: float, seconds: float) -> None:
        """Wait for retransmissions of the peer, or not at all where the transport allows none."""
        self._timers = {}
        if seconds <= 0:
            self._terminate()
        else:
            self._timers[name] = now + seconds


def create_ack(invite: Request, response: Response) -> Request:
    """Return the ACK to a final response of 300 or more: the INVITE's hop only (RFC 3261 section 17.1.1.3)."""
    items = [("Via", invite.headers.values("Via")[0])]
    items += [("Route", route) for route in invite.headers.get_all("Route")]
    items += [
        ("From", invite.headers.get("From") or ""),
        ("To", response.headers.get("To") or ""),
        ("Call-ID", invite.headers.get("Call-ID") or ""),
        ("CSeq", f"{invite.cseq.number} ACK"),
        ("Max-Forwards", "70"),
    ]
    return Request("ACK", invite.uri, headers=Headers(items))


def create_cancel(invite: Request) -> Request:
    """Return the CANCEL of an INVITE: for the same hop, under the same branch (RFC 3261 section 9.1)."""
    items = [("Via", invite.headers.values("Via")[0])]
    items += [("Route", route) for route in invite.headers.get_all("Route")]
    items += [(name, invite.headers.get(name) or "") for name in ("From", "To", "Call-ID")]
    items += [("CSeq", f"{invite.cseq.number} CANCEL"), ("Max-Forwards", "70")]
    return Request("CANCEL", invite.uri, headers=Headers(items))
