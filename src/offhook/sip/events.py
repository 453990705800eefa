"""What a leg says about itself: the events that `Stack.outputs()` carries, and the values in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .message import Request, Response
from .refer import ReferUpdate
from .route import Attempt

__all__ = [
    "Acknowledged",
    "Answered",
    "Cancelled",
    "Confirmed",
    "EndCause",
    "Ended",
    "LegEnded",
    "LegEvent",
    "Offered",
    "Parted",
    "Provisional",
    "ReferUpdated",
    "Refreshed",
    "Refused",
    "Replied",
    "Requested",
]

EndCause = Literal["remote_bye", "local_bye", "no_ack", "timeout", "unreachable", "session_expired"]


@dataclass(slots=True)
class LegEnded:
    """Why a leg that was answered is over."""

    cause: EndCause
    reason_header: str | None
    "The Reason header of the BYE that was received or sent."
    text: str


@dataclass(frozen=True, slots=True)
class Provisional:
    """UAC: a response of 101 to 199."""

    response: Response


@dataclass(frozen=True, slots=True)
class Answered:
    """UAC: the first 2xx; its ACK is on its way."""

    response: Response


@dataclass(frozen=True, slots=True)
class Refused:
    """UAC: a final response that is no 2xx, or none (timeout, unreachable)."""

    response: Response | None
    reason: str
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """UAS: CANCEL, or a BYE before the answer. 200 and 487 were sent."""

    reason_header: str | None


@dataclass(slots=True)
class Confirmed:
    """UAS: the ACK to the 2xx of the leg's own INVITE."""

    ack: Request


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """UAS: the ACK to the 2xx of a re-INVITE; it holds the answer when the 2xx held the offer."""

    ack: Request


@dataclass(frozen=True, slots=True)
class Offered:
    """A re-INVITE or UPDATE that must be answered with `respond`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Requested:
    """Another request in the dialog that must be answered with `respond`."""

    request: Request


@dataclass(frozen=True, slots=True)
class ReferUpdated:
    update: ReferUpdate


@dataclass(frozen=True, slots=True)
class Parted:
    """Nothing is left to hang up, while news of a transfer may still come."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A re-INVITE of the session timer's was answered; it offered the SDP that stood."""

    offer: bytes
    response: Response


@dataclass(frozen=True, slots=True)
class Replied:
    """The final response to request number `key` that this leg sent, or why there is none."""

    key: int
    response: Response | None
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()


@dataclass(slots=True)
class Ended:
    ended: LegEnded


LegEvent = (
    Provisional
    | Answered
    | Refused
    | Cancelled
    | Confirmed
    | Acknowledged
    | Offered
    | Requested
    | Parted
    | ReferUpdated
    | Refreshed
    | Replied
    | Ended
)
