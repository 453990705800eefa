"""
A Realtime API on loopback that a call is handed up to: made from the published event tables, not from our server.

It judges what comes as a strict server would, answers what such a server answers by itself, and says the rest when a
test tells it to, in the bursts, trickles and orders that the test chooses.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import http
import itertools
import json
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .waiting import PATIENCE_S

__all__ = ["Handshake", "Upstream", "UpstreamSession"]

Event = dict[str, Any]
Form = Literal["openai", "azure", "azure-legacy"]

FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "conversation.item.create": ({"item"}, {"previous_item_id"}),
    "conversation.item.delete": ({"item_id"}, set()),
    "conversation.item.retrieve": ({"item_id"}, set()),
    "conversation.item.truncate": ({"audio_end_ms", "content_index", "item_id"}, set()),
    "input_audio_buffer.append": ({"audio"}, set()),
    "input_audio_buffer.clear": (set(), set()),
    "input_audio_buffer.commit": (set(), set()),
    "output_audio_buffer.clear": (set(), set()),
    "response.cancel": (set(), {"response_id"}),
    "response.create": (set(), {"response"}),
    "session.update": ({"session"}, set()),
}
"What a client may send (rows CE01 to CE11): required fields, and optional ones beside `type` and `event_id`."

UPDATABLE = {
    *(
        "type",
        "model",
        "instructions",
        "output_modalities",
        "audio",
        "tools",
        "tool_choice",
        "max_output_tokens",
    ),
    *("truncation", "tracing", "prompt", "include", "parallel_tool_calls", "reasoning"),
}
"What a client may say of a session (rows G01 to G20); `id`, `object` and `expires_at` are the server's."

CONTENTS = {
    "user": {"input_text", "input_audio", "input_image"},
    "assistant": {"output_text"},
    "system": {"input_text"},
}
"The parts that a client may put into a message (row E19)."

SESSION: Event = {
    "type": "realtime",
    "object": "realtime.session",
    "instructions": "You are a helpful assistant.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
                "create_response": True,
                "interrupt_response": True,
            },
            "noise_reduction": None,
            "transcription": None,
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
    },
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
}
"What a session is before a client updates it."

_numbers = itertools.count(1)

_log = logging.getLogger("testbed.upstream")
_log.setLevel(logging.CRITICAL)  # handshakes fail because tests want them to


def new_id(kind: str) -> str:
    """Return an id that tells where it came from."""
    return f"{kind}_upstream{next(_numbers):013d}"


@dataclass(frozen=True)
class Handshake:
    """One attempt to connect, also those that were refused."""

    at: float
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    status: int


@dataclass(frozen=True)
class Refusal:
    status: int
    code: str
    message: str


@dataclass
class _Spoken:
    """An assistant's item, as this server remembers it."""

    item: Event
    response_id: str
    audio_ms: float = 0.0


class UpstreamSession:
    """
    One connection. `received` is each event that came, in order; `heard` the audio of the appends, decoded.

    What a server does by itself is done: `session.updated`, items added and done, `conversation.item.truncated`. What
    a client must not send is answered with an `error` and kept in `faults`, which the test is failed for.
    """

    def __init__(self, connection: ServerConnection, handshake: Handshake) -> None:
        self.handshake = handshake
        self.id = new_id("sess")
        self.session: Event = copy.deepcopy(SESSION) | {"id": self.id}
        self.received: list[Event] = []
        self.at: list[float] = []
        self.sent: list[Event] = []
        self.heard = bytearray()
        self.items: dict[str, Event] = {}
        self.faults: list[str] = []
        self.updates = True
        "Whether `session.update` is answered."
        self.closed: tuple[int, str] | None = None
        "Code and reason of the client's close frame; 1006 when there was none."
        self._connection = connection
        self._spoken: dict[str, _Spoken] = {}
        self._changed = asyncio.Event()

    # What came.

    def of_type(self, event_type: str) -> list[Event]:
        return [event for event in self.received if event["type"] == event_type]

    async def until(self, holds: Callable[[], Any], what: str, timeout: float = PATIENCE_S) -> None:
        """Wait for something that is true once an event came, or once the client is gone."""
        try:
            async with asyncio.timeout(timeout):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            came = [event["type"] for event in self.received if event["type"] != "input_audio_buffer.append"]
            raise AssertionError(f"upstream: no {what} within {timeout} s; came: {came}") from None

    async def wait_for(
        self,
        event_type: str,
        where: Callable[[Event], bool] = lambda event: True,
        *,
        after: int = 0,
        timeout: float = PATIENCE_S,
    ) -> Event:
        """Return the first such event at or after index `after`, past or to come."""

        def found() -> Event | None:
            return next(
                (one for one in self.received[after:] if one["type"] == event_type and where(one)), None
            )

        await self.until(found, event_type, timeout)
        event = found()
        assert event is not None
        return event

    async def gone(self, timeout: float = PATIENCE_S) -> tuple[int, str]:
        """Return how the client closed."""
        await self.until(lambda: self.closed is not None, "close", timeout)
        assert self.closed is not None
        return self.closed

    # What a test has it say.

    async def send(self, event_type: str, **fields: Any) -> Event:
        """Send an event with an id of its own, which `fields` may replace."""
        event = {"type": event_type, "event_id": new_id("event"), **fields}
        self.sent.append(event)
        await self.send_raw(json.dumps(event))
        return event

    async def send_raw(self, frame: str | bytes) -> None:
        await self._connection.send(frame)

    async def created(self, **session: Any) -> Event:
        """Send `session.created`, which servers send once and first."""
        self.session |= session
        return await self.send("session.created", session=self.session)

    async def error(self, message: str, code: str, *, event_id: str | None = None) -> Event:
        fault = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
        return await self.send("error", error=fault | {"event_id": event_id})

    async def begin(self) -> str:
        """Begin a response that speaks; return the id of its item."""
        response_id, item_id = new_id("resp"), new_id("item")
        item = {"id": item_id, "object": "realtime.item", "type": "message", "role": "assistant"}
        item |= {"status": "in_progress", "content": []}
        self._spoken[item_id] = _Spoken(item, response_id)
        await self.send("response.created", response=self._response(response_id, "in_progress", []))
        await self.send("response.output_item.added", response_id=response_id, output_index=0, item=item)
        await self._added(item)
        await self.send(
            "response.content_part.added", **self._place(item_id), part={"type": "audio", "transcript": ""}
        )
        return item_id

    async def say(self, item_id: str, audio: bytes, *, piece: int = 0, gap_s: float = 0.0) -> None:
        """Send audio in deltas of `piece` bytes (0: one) with a pause between them."""
        for start in range(0, len(audio), piece or len(audio)):
            if start and gap_s:
                await asyncio.sleep(gap_s)
            part = audio[start : start + (piece or len(audio))]
            self._spoken[item_id].audio_ms += len(part) * 1000 / self._bytes_per_s()
            delta = base64.b64encode(part).decode()
            await self.send("response.output_audio.delta", **self._place(item_id), delta=delta)

    async def finish(
        self,
        item_id: str,
        transcript: str = "Good morning.",
        *,
        status: str = "completed",
        calls: Sequence[tuple[str, str]] = (),
    ) -> Event:
        """
        End a response that speaks; return its `response.done`. `status` may be `cancelled` too.

        `calls` are tools, by name and arguments, that the same response calls after its words (row O07).
        """
        place, spoken = self._place(item_id), self._spoken[item_id]
        await self.send("response.output_audio_transcript.delta", **place, delta=transcript)
        await self.send("response.output_audio.done", **place)
        await self.send("response.output_audio_transcript.done", **place, transcript=transcript)
        part = {"type": "audio", "transcript": transcript}
        await self.send("response.content_part.done", **place, part=part)
        item_status = "completed" if status == "completed" else "incomplete"
        content = [{"type": "output_audio", "transcript": transcript}]
        item = spoken.item | {"status": item_status, "content": content}
        await self._item_done(item, spoken.response_id, 0)
        called = [
            await self._call(spoken.response_id, index, *call) for index, call in enumerate(calls, start=1)
        ]
        return await self._done(spoken.response_id, status, [item, *called])

    async def call_tool(self, name: str, arguments: str) -> Event:
        """Send a response that calls a tool (row O07); return the call's item."""
        response_id = new_id("resp")
        await self.send("response.created", response=self._response(response_id, "in_progress", []))
        item = await self._call(response_id, 0, name, arguments)
        await self._done(response_id, "completed", [item])
        return item

    async def _call(self, response_id: str, index: int, name: str, arguments: str) -> Event:
        item_id = new_id("item")
        item = {"id": item_id, "object": "realtime.item", "type": "function_call", "status": "in_progress"}
        item |= {"name": name, "call_id": new_id("call"), "arguments": ""}
        place = {
            "response_id": response_id,
            "item_id": item_id,
            "output_index": index,
            "call_id": item["call_id"],
        }
        await self.send("response.output_item.added", response_id=response_id, output_index=index, item=item)
        await self._added(item)
        for half in (arguments[:5], arguments[5:]):
            await self.send("response.function_call_arguments.delta", **place, delta=half)
        await self.send("response.function_call_arguments.done", **place, name=name, arguments=arguments)
        item = item | {"status": "completed", "arguments": arguments}
        await self._item_done(item, response_id, index)
        return item

    async def interrupt(self, item_id: str | None = None, *, audio_start_ms: int = 1000) -> Event:
        """Hear the caller speak; with an item, that item's response is still being made and is cancelled by it."""
        user = new_id("item")
        started = await self.send(
            "input_audio_buffer.speech_started", item_id=user, audio_start_ms=audio_start_ms
        )
        if item_id is not None:
            await self.finish(item_id, status="cancelled")
        return started

    async def turn(self, transcript: str) -> Event:
        """Hear the caller out (row O02), with the words after it (O06); return the caller's item."""
        item_id = new_id("item")
        part = {"type": "input_audio", "transcript": None}
        item = {"id": item_id, "object": "realtime.item", "type": "message", "role": "user"}
        item |= {"status": "completed", "content": [part]}
        await self.send("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=1000)
        await self.send("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=2000)
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        self.items[item_id] = item
        await self._added(item)
        await self.send("conversation.item.done", item=item, previous_item_id=None)
        usage = {"type": "duration", "seconds": 1}
        heard = "conversation.item.input_audio_transcription"
        await self.send(f"{heard}.delta", item_id=item_id, content_index=0, delta=transcript)
        await self.send(
            f"{heard}.completed", item_id=item_id, content_index=0, transcript=transcript, usage=usage
        )
        return item

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code; 1006 cuts the connection without a word."""
        if code == 1006:
            self._connection.transport.abort()
        else:
            await self._connection.close(code, reason)

    async def expire(self) -> None:
        """Reach the cap of 60 minutes (row S20)."""
        await self.error("Your session hit the maximum duration of 60 minutes.", "session_expired")
        await self.close(1001)

    # What it does by itself.

    async def run(self) -> None:
        """Take what comes until the connection is over."""
        try:
            while True:
                await self._take(await self._connection.recv())
        except ConnectionClosed as closed:
            self.closed = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            self._changed.set()

    async def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            await self._refuse("binary frames are not taken", None)
            return
        event = json.loads(frame)
        self.received.append(event)
        self.at.append(time.monotonic())
        event_id = event.get("event_id")
        required, optional = FIELDS.get(event.get("type"), (None, set()))
        if required is None:
            await self._refuse(f"unknown type: {event.get('type')!r}", event_id)
        elif missing := required - event.keys():
            await self._refuse(f"{event['type']} lacks {sorted(missing)}", event_id)
        elif extra := event.keys() - required - optional - {"type", "event_id"}:
            await self._refuse(f"{event['type']} has unknown fields {sorted(extra)}", event_id)
        else:
            await self._answer(event)
        self._changed.set()

    async def _answer(self, event: Event) -> None:
        match event["type"]:
            case "input_audio_buffer.append":
                self.heard += base64.b64decode(event["audio"], validate=True)
            case "session.update" if self.updates:
                await self._update(event)
            case "conversation.item.create":
                await self._create(event)
            case "conversation.item.delete":
                await self.send("conversation.item.deleted", item_id=event["item_id"])
            case "conversation.item.truncate":
                await self._truncate(event)
            case "input_audio_buffer.clear":
                await self.send("input_audio_buffer.cleared")
            case "output_audio_buffer.clear":
                await self._refuse(
                    "output_audio_buffer.clear is for WebRTC and SIP only", event.get("event_id")
                )

    async def _update(self, event: Event) -> None:
        changes, event_id = event["session"], event.get("event_id")
        if changes.get("type") != "realtime":
            await self._refuse("Missing required parameter: 'session.type'.", event_id)
        elif unknown := changes.keys() - UPDATABLE:
            await self._refuse(
                f"Unknown parameter: {sorted(f'session.{name}' for name in unknown)}.", event_id
            )
        else:
            _merge(self.session, changes)
            await self.send("session.updated", session=self.session)

    async def _create(self, event: Event) -> None:
        given, event_id = event["item"], event.get("event_id")
        parts = {part["type"] for part in given.get("content", ())}
        if given.get("id") in self.items:
            await self._refuse(f"an item {given['id']} exists already", event_id)
        elif wrong := parts - CONTENTS.get(given.get("role"), set()):
            await self._refuse(f"{given.get('role')} has no parts {sorted(wrong)}", event_id)
        else:
            item = {"id": new_id("item"), "object": "realtime.item", "status": "completed"} | given
            self.items[item["id"]] = item
            await self._added(item)
            await self.send("conversation.item.done", item=item, previous_item_id=None)

    async def _truncate(self, event: Event) -> None:
        spoken, end_ms = self._spoken.get(event["item_id"]), event["audio_end_ms"]
        if spoken is None:
            await self._refuse(f"truncate: no item {event['item_id']}", event.get("event_id"))
        elif event["content_index"] != 0 or not 0 <= end_ms <= spoken.audio_ms:
            await self._refuse(f"{end_ms} ms of {spoken.audio_ms} ms of audio", event.get("event_id"))
        else:
            fields = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
            await self.send("conversation.item.truncated", **fields)

    async def _refuse(self, message: str, event_id: str | None) -> None:
        self.faults.append(message)
        await self.error(message, "invalid_value", event_id=event_id)

    async def _added(self, item: Event) -> None:
        await self.send("conversation.item.added", item=item, previous_item_id=None)

    async def _item_done(self, item: Event, response_id: str, index: int) -> None:
        self.items[item["id"]] = item
        await self.send("conversation.item.done", item=item, previous_item_id=None)
        await self.send("response.output_item.done", response_id=response_id, output_index=index, item=item)

    async def _done(self, response_id: str, status: str, output: list[Event]) -> Event:
        return await self.send("response.done", response=self._response(response_id, status, output))

    def _response(self, response_id: str, status: str, output: list[Event]) -> Event:
        response: Event = {
            "id": response_id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": output,
            "conversation_id": "conv_upstream",
            "output_modalities": ["audio"],
            "metadata": None,
            "usage": None,
        }
        if status == "cancelled":
            response["status_details"] = {"type": "cancelled", "reason": "turn_detected"}
        if status != "in_progress":
            response["usage"] = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20}
        return response

    def _place(self, item_id: str) -> Event:
        response_id = self._spoken[item_id].response_id
        return {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}

    def _bytes_per_s(self) -> int:
        return 48_000 if self.session["audio"]["output"]["format"]["type"] == "audio/pcm" else 8_000


class Upstream:
    """
    Listens on a socket that is bound already. Use as an async context manager; leaving it fails for faulty clients.

    Each attempt to connect is answered by the next of `plan`: a status refuses it, `"hang"` leaves the request without
    an answer, `"silent"` takes it and says nothing, `"late"` leaves `session.created` to the test. With no plan left,
    `session.created` is sent at once.
    """

    def __init__(
        self,
        bound: socket.socket,
        *,
        key: str,
        form: Form = "openai",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.plan: deque[int | Literal["hang", "silent", "late"]] = deque()
        self.handshakes: list[Handshake] = []
        self.sessions: list[UpstreamSession] = []
        self._socket, self._key, self._form, self._tls = bound, key, form, tls
        self._opened: asyncio.Queue[UpstreamSession] = asyncio.Queue()
        self._server: Server | None = None

    async def __aenter__(self) -> Upstream:
        # A copy, since the server closes what it listens on and the next test needs the address again.
        self._server = await serve(
            self._serve,
            sock=self._socket.dup(),
            ssl=self._tls,
            process_request=self._judge,
            compression=None,
            logger=_log,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        for session in self.sessions:
            if session.closed is None:
                session._connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()
        if error is None:
            faults = [fault for session in self.sessions for fault in session.faults]
            assert not faults, f"the upstream was sent what it does not take: {faults}"

    async def opened(self, timeout: float = PATIENCE_S) -> UpstreamSession:
        """Return the next connection that was taken."""
        try:
            return await asyncio.wait_for(self._opened.get(), timeout)
        except TimeoutError:
            raise AssertionError(
                f"nobody connected within {timeout} s; attempts: {self.handshakes}"
            ) from None

    async def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        step = self.plan[0] if self.plan else None
        split = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        refusal = self._refusal(split.path, query, headers)
        if refusal is None and isinstance(step, int):
            refusal = _REFUSALS[step]
        if refusal is not None and refusal.status == 401:
            # Real servers say the key again, and nobody must repeat that.
            given = headers.get("authorization") or headers.get("api-key")
            refusal = replace(refusal, message=f"Incorrect API key provided: {given}.")
        status = 101 if refusal is None else refusal.status
        self.handshakes.append(Handshake(time.monotonic(), split.path, query, headers, status))
        if refusal is not None:
            if isinstance(step, int):
                self.plan.popleft()
            return _respond(connection, refusal)
        if step == "hang":
            self.plan.popleft()
            await connection.wait_closed()
        return None

    def _refusal(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Refusal | None:
        """Check the address and the key as the kind of server does whose form this is (sections 3 and 8)."""
        if self._form == "openai":
            keyed = headers.get("authorization") == f"Bearer {self._key}"
            placed = path == "/v1/realtime" and "model" in query
        else:
            keyed = headers.get("api-key") == self._key and "authorization" not in headers
            if self._form == "azure":
                placed = path == "/openai/v1/realtime" and "model" in query and "api-version" not in query
            else:
                placed = path == "/openai/realtime" and {"api-version", "deployment"} <= query.keys()
        if not keyed:
            return _REFUSALS[401]
        return None if placed else Refusal(404, "not_found", f"nothing is at {path} with {sorted(query)}")

    async def _serve(self, connection: ServerConnection) -> None:
        session = _create_session(self._form, connection, self.handshakes[-1])
        self.sessions.append(session)
        step = self.plan.popleft() if self.plan else None
        if "openai-beta" in session.handshake.headers:
            await session.error("The Realtime Beta API is no longer supported.", "beta_api_shape_disabled")
            await connection.close(4000, "invalid_request_error.beta_api_shape_disabled")
            session.faults.append("asked for the beta's shapes")
            return
        session.session["model"] = session.handshake.query.get("model", "")
        self._opened.put_nowait(session)
        if step is None:
            await session.created()
        await session.run()


def _create_session(form: Form, connection: ServerConnection, handshake: Handshake) -> UpstreamSession:
    if form == "azure-legacy":
        from testbed.beta_upstream import BetaSession

        return BetaSession(connection, handshake)
    return UpstreamSession(connection, handshake)


_REFUSALS = {
    401: Refusal(401, "invalid_api_key", "Incorrect API key provided."),
    404: Refusal(404, "model_not_found", "The model does not exist or you do not have access to it."),
    429: Refusal(429, "rate_limit_exceeded", "Too many concurrent sessions."),
    500: Refusal(500, "server_error", "The server had an error."),
    503: Refusal(503, "server_error", "The server is overloaded."),
}


def _respond(connection: ServerConnection, refusal: Refusal) -> Response:
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    fault = {"message": refusal.message, "type": kind, "code": refusal.code, "param": None}
    response = connection.respond(http.HTTPStatus(refusal.status), json.dumps({"error": fault}))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response


def _merge(into: Event, changes: Event) -> None:
    """Merge only the fields that are present (row E01)."""
    for name, value in changes.items():
        there = into.get(name)
        another = (
            isinstance(there, dict) and isinstance(value, dict) and there.get("type") != value.get("type")
        )
        if name == "turn_detection" and another and "type" in value:
            # The other kind of detection has fields of its own.
            into[name] = {"create_response": True, "interrupt_response": True} | copy.deepcopy(value)
        elif isinstance(value, dict) and isinstance(there, dict) and name != "format":
            _merge(there, value)
        else:
            into[name] = copy.deepcopy(value)
