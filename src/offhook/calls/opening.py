"""What an accepted call waits for before it is answered: a warm engine and a media port."""

from __future__ import annotations

from offhook.media.port import MediaPort, NoFreePort
from offhook.realtime.engine import EngineUnavailable, UpstreamUnavailable

from .agent import CallAgent
from .record import Fault, Result
from .seats import Seat

__all__ = ["NotServed", "open_line"]


class NotServed(Exception):  # noqa: N818 - a state of the node or of an upstream, not a fault
    """The call cannot be answered after all. `said` is what the caller's side may know of it."""

    def __init__(
        self, cause: str, fault: Fault, said: str = "", result: Result = Result.SERVER_ERROR
    ) -> None:
        super().__init__(cause)
        self.fault = fault
        self.said = said
        self.result = result


async def open_line(agent: CallAgent, seat: Seat, limit_s: float) -> MediaPort:
    """Warm the agent's engine, for `limit_s` at most, and bind the port. Raises `NotServed`."""
    try:
        await agent.warm(limit_s)
        return seat.open_port()
    except TimeoutError:
        raise NotServed(f"the engine was not ready within {limit_s:g} s", Fault.ENGINE_SLOW) from None
    except UpstreamUnavailable as error:
        said, result = "no engine is free", Result.UPSTREAM_ERROR
        raise NotServed(str(error), Fault.UPSTREAM_UNAVAILABLE, said, result) from None
    except (EngineUnavailable, NoFreePort) as error:
        fault = Fault.NODE_FULL if isinstance(error, NoFreePort) else Fault.ENGINE_UNAVAILABLE
        raise NotServed(str(error), fault, "no engine or no media port is free") from None
