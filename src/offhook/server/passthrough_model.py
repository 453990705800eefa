"""A session without a call whose model an upstream serves: its own WebSocket, as it is (API row S03)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from offhook.calls.errors import CallError
from offhook.calls.hosted import HostedCall
from offhook.clock import Clock
from offhook.realtime.engines.upstream.target import handshake
from offhook.realtime.session_config import DEFAULT_MODEL
from offhook.tenants import Project

from .context import request_id_of
from .passthrough import RELAYED, Destination
from .plain import TRANSCRIPTION, engine_unavailable, model_asked_for
from .sideband_limits import SidebandLimits
from .socket_relay import OPEN_S, Attempt, SocketRelay

__all__ = ["ModelUpstreams", "PassthroughModel"]

ModelUpstreams = Callable[[str], Sequence[Destination]]
"Who serves a model, in the order to try; nobody for a model of an engine of ours."


class PassthroughModel:
    """
    Relays plain sessions to the first upstream of the model's list that takes them.

    There is no call that the session could be shown with: what is noted of it goes to the log, under the request's id.
    """

    def __init__(
        self, upstreams: ModelUpstreams, clock: Clock, limits: SidebandLimits, *, max_sessions: int
    ) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._relay = SocketRelay(clock, limits)
        self._max_sessions = max_sessions
        self._open: Counter[str] = Counter()
        self._draining = False

    async def close(self, *, grace_s: float) -> None:
        """Take no new sessions, wait for the present ones up to `grace_s`, then end them."""
        self._draining = True
        await self._relay.close(grace_s=grace_s)

    def relays(self, model: str) -> bool:
        """Whether sessions of this model are an upstream's."""
        return bool(self._upstreams(model))

    async def serve(self, project: Project, scope: Scope, receive: Receive, send: Send) -> bool:
        """
        Serve a WebSocket whose `websocket.connect` has come; returns False, and does nothing, for any other.

        Raises `CallError`, before the upgrade only.
        """
        query = QueryParams(scope["query_string"])
        model = model_asked_for(scope)
        intent = query.get("intent")
        if "call_id" in query or not (model or intent) or RELAYED in Headers(scope=scope):
            return False
        if intent not in (None, TRANSCRIPTION):
            return False
        destinations = self._upstreams(model or DEFAULT_MODEL)
        if not destinations:
            return False
        if self._draining:
            raise engine_unavailable("The node is draining.")
        attempts = [
            Attempt(
                one,
                *handshake(one.upstream, model, intent),
                min(OPEN_S, one.upstream.silence_s),
                "of this model",
            )
            for one in destinations
        ]
        record = HostedCall(
            project.id, request_id_of(scope), destinations[0].name, self._clock, what="relayed session"
        )
        await self._relay.serve(record, attempts, self._place(project), scope, receive, send)
        return True

    @contextlib.contextmanager
    def _place(self, project: Project) -> Iterator[None]:
        """Hold one of the places. Raises `CallError` 429 when the project or the node has none left."""
        full = project.max_calls and self._open[project.id] >= project.max_calls
        if full or self._open.total() >= self._max_sessions:
            raise CallError(
                429,
                f"{self._open[project.id]} sessions of this project are open, and no more are taken now.",
                code="rate_limit_exceeded",
                type="rate_limit_error",
                retry=True,
            )
        self._open[project.id] += 1
        try:
            yield
        finally:
            self._open[project.id] -= 1
            if not self._open[project.id]:
                del self._open[project.id]
