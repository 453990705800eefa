"""A sideband of a call that is not ours."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from offhook.realtime.engines.upstream.target import call_sideband
from offhook.tenants import Project

from .passthrough import NOT_OURS, Destination, Passthrough
from .sideband_limits import SidebandLimits, SidebandPlaces
from .socket_relay import OPEN_S, Attempt, SocketRelay

__all__ = ["PassthroughSideband"]

_OURS = ("events", "api-key", "call_id")
"""
What does not go up of a query as it is: an extension of ours, where some clients put their key, and a call's id, which
goes up once, as it was judged.
"""


class PassthroughSideband:
    """Relays sidebands to the service that has the call, as many for each call as an own one may have."""

    def __init__(self, passthrough: Passthrough, limits: SidebandLimits) -> None:
        self._passthrough = passthrough
        self._relay = SocketRelay(passthrough.clock, limits)
        self._places = SidebandPlaces(limits)

    async def attach(
        self,
        destination: Destination,
        project: Project,
        call_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Serve a WebSocket whose `websocket.connect` has come. Raises `CallError`, before the upgrade only."""
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        kept = [pair for pair in given if pair[0].lower() not in _OURS]
        url, key = call_sideband(destination.upstream, [("call_id", call_id), *kept])
        timeout_s = min(OPEN_S, self._passthrough.timeout_s)
        attempt = Attempt(destination, url, key, timeout_s, NOT_OURS)
        record = self._passthrough.hosted.see(project.id, call_id, destination.name)
        await self._relay.serve(
            record, [attempt], self._places.one_at(project.id, call_id), scope, receive, send
        )
