"""Requests about calls that are not ours, on their way to the service that has them."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError, call_not_found
from offhook.calls.hosted import HostedCall, HostedCalls
from offhook.clock import Clock
from offhook.outbound import OPERATOR, OutboundClient, OutboundError, OutboundResponse
from offhook.realtime.engines.upstream.redaction import Redaction
from offhook.realtime.engines.upstream.target import Upstream, call_verb
from offhook.tenants import Project

from .body import read_body
from .rest_entry import rest_entry

__all__ = [
    "NOT_OURS",
    "RELAYED",
    "UPSTREAM_REQUEST_ID",
    "Destination",
    "Passthrough",
    "Screen",
    "upstream_error",
]

log = logging.getLogger("offhook.server")

TIMEOUT_S = 15.0
"For an upstream's whole answer. Hosted answers a refer that fails after some 10 s (row R17)."
MAX_ANSWER = 1024 * 1024
MAX_CALL_ID = 256
RELAYED = "x-offhook-relayed"
"On all that is relayed. What carries it is not relayed again, so two nodes that name each other make no circle."
UPSTREAM_REQUEST_ID = "x-upstream-request-id"

_UP = (
    "accept",
    "content-type",
    "openai-safety-identifier",
    "user-agent",
    "x-client-request-id",
    "x-stainless-retry-count",
)
"Of the app's headers these go up, and no other: not its keys, its project, its organization."
_DOWN = ("content-type", "content-encoding", "retry-after", "retry-after-ms", "x-should-retry")

_FAULTS = {
    "url": "its url cannot be used",
    "refused": "its url cannot be used",
    "dns": "its name cannot be resolved",
    "connect": "it cannot be connected to",
    "tls": "TLS failed",
    "protocol": "the connection broke off before an answer",
}
"What an app may know; the addresses are the operator's, and stand in the log."


Screen = Callable[[bytes], bytes]
"Judges a request's body and returns what goes up of it. Raises `CallError`."


class Destination:
    """An upstream that has calls of its own, and what a request to it needs."""

    def __init__(self, upstream: Upstream, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.name = upstream.name
        self.tls = tls
        "What verifies its certificate; with none, the system's trust store."
        self.client = OutboundClient(tls=tls)
        self._redaction = Redaction(upstream.key)

    def hide(self, said: bytes) -> bytes:
        """Return what it said without its key, should it have said it again."""
        return self._redaction.hide(said)

    def hide_in(self, said: str) -> str:
        """The same for text."""
        # A header's bytes that are no text are carried as surrogates.
        return self.hide(said.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Passthrough:
    """
    Decides which calls are another service's, and hands requests about them on.

    `owns` says whether a call is or was one of this node's, of any project: such a call is never relayed.
    """

    destinations: Mapping[str, Destination]
    "By the upstream's name."
    default: str
    "The upstream of projects that name none; empty: they have none."
    owns: Callable[[str], bool]
    hosted: HostedCalls
    clock: Clock
    timeout_s: float = TIMEOUT_S

    def destination(self, project: Project, call_id: str, headers: Headers) -> Destination | None:
        """Return who has this call, if it is not ours. The project's key must have been checked."""
        name = self.default if project.passthrough is None else project.passthrough
        if not name or self.owns(call_id) or RELAYED in headers:
            return None
        if len(call_id) > MAX_CALL_ID or call_id in ("", ".", ".."):
            raise call_not_found()
        return self.destinations[name]

    async def relay(
        self,
        destination: Destination,
        project: Project,
        call_id: str,
        verb: str,
        request: Request,
        screen: Screen | None = None,
    ) -> Response:
        """
        Send a verb up and return the answer as it came.

        `screen` says what of the body goes up, or raises. Raises `CallError` also for no answer, or a body that is too
        large.
        """
        started_at = self.clock.monotonic()
        body = await read_body(request)
        call = self.hosted.see(project.id, call_id, destination.name)
        with rest_entry(call.timeline, self.clock, verb, request, started_at=started_at) as entry:
            entry.details = {"upstream": destination.name, "upstream_request_id": None}
            answer = await self._ask(
                destination, call, verb, request, body if screen is None else screen(body)
            )
            if (upstream_id := answer.headers.get("x-request-id")) is not None:
                entry.details["upstream_request_id"] = destination.hide_in(upstream_id)[:200]
            entry.answered(answer.status)
            return _response(destination, verb, answer)

    async def _ask(
        self, destination: Destination, call: HostedCall, verb: str, request: Request, body: bytes
    ) -> OutboundResponse:
        """Send the request, note how it went, and return a whole answer. Raises `CallError`."""
        url, key = call_verb(destination.upstream, call.id, verb)
        headers = [(name, value) for name in _UP if (value := request.headers.get(name)) is not None]
        asked_at = self.clock.monotonic()
        outcome, told = "no answer", None
        try:
            answer = await destination.client.post(
                url,
                content=body,
                headers=[*headers, *key.items(), (RELAYED, "1")],
                policy=OPERATOR,
                timeout=self.timeout_s,
                max_body=MAX_ANSWER,
                once=True,
            )
            told = answer.status
            outcome = str(answer.status)
            if 300 <= answer.status < 400:
                raise upstream_error(destination, "it answered with a redirect, which is not followed")
            if answer.truncated:
                raise upstream_error(
                    destination, f"its answer broke off, or is longer than {MAX_ANSWER} bytes", retry=False
                )
            call.answered(verb, answer.status, _code(answer.body))
            return answer
        except OutboundError as error:
            log.warning(
                "upstream %s: %s",
                destination.name,
                error,
                extra={"event": "passthrough.failed", "call_id": call.id},
            )
            outcome = f"no answer, {self._fault(error)}"
            # A refer that got no answer may have been done, and a second one would be a second transfer (row R19).
            raise upstream_error(
                destination,
                self._fault(error),
                timeout=error.kind == "timeout",
                retry=verb != "refer" and not error.permanent,
            ) from None
        finally:
            took = round((self.clock.monotonic() - asked_at) * 1000, 1)
            call.timeline.record(
                "relay",
                f"POST {verb}: {outcome}" + (f" in {took:.0f} ms" if told else ""),
                at=asked_at,
                verb=verb,
                upstream=destination.name,
                upstream_status=told,
                duration_ms=took,
            )

    async def close(self) -> None:
        """Break off the requests that are under way."""
        for destination in self.destinations.values():
            await destination.client.close()

    def _fault(self, error: OutboundError) -> str:
        return _FAULTS.get(error.kind, f"no answer within {self.timeout_s:g} s")


NOT_OURS = "that may have this call, which is not this node's,"


def upstream_error(
    destination: Destination,
    fault: str,
    *,
    why: str = NOT_OURS,
    timeout: bool = False,
    retry: bool = False,
) -> CallError:
    """Return the error for an upstream that gave no answer that could be passed on: 502, or 504 when it was late."""
    return CallError(
        504 if timeout else 502,
        f"The upstream {destination.name!r} {why} did not answer: {fault}.",
        code="upstream_timeout" if timeout else "upstream_unavailable",
        type="server_error",
        details={"upstream": destination.name},
        retry=retry,
    )


def _response(destination: Destination, verb: str, answer: OutboundResponse) -> Response:
    headers = {
        name: destination.hide_in(value) for name in _DOWN if (value := answer.headers.get(name)) is not None
    }
    if verb == "refer" and answer.status >= 400:
        headers.setdefault("x-should-retry", "false")
    headers["x-offhook-upstream"] = destination.name
    if (upstream_id := answer.headers.get("x-request-id")) is not None:
        headers[UPSTREAM_REQUEST_ID] = destination.hide_in(upstream_id)
    return Response(destination.hide(answer.body), answer.status, headers)


def _code(body: bytes) -> str | None:
    try:
        code = orjson.loads(body)["error"]["code"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return code if isinstance(code, str) else None
