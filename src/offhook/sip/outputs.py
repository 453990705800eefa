"""What the stack hands its driver: bytes to send, calls that came, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .events import LegEvent
from .flow import Flow
from .ways import Reach

if TYPE_CHECKING:
    from .uas import UasUsage
    from .usage import InviteUsage

__all__ = ["Incoming", "Output", "Released", "Transmit", "UsageEvent"]


@dataclass(slots=True)
class Transmit:
    """Put these bytes on that flow."""

    flow: Flow
    data: bytes


@dataclass(slots=True)
class Incoming:
    """A new call; 100 was sent."""

    usage: UasUsage


@dataclass(slots=True)
class UsageEvent:
    usage: InviteUsage
    event: LegEvent


@dataclass(slots=True)
class Released:
    """A usage is forgotten: nothing will happen to it any more."""

    usage: InviteUsage


Output = Transmit | Reach | Incoming | UsageEvent | Released
