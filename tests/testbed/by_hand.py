"""
A session on a clock that the test turns by hand: no socket, no waiting.

`Caller` is a call by phone, with the session's runner and the scripted engine; `Desk` is the pure session, with an
engine that the test plays. Each event is judged by the types of three SDKs as it comes.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import orjson
import pydantic
from agents.realtime.openai_realtime import get_server_event_type_adapter
from openai.types.realtime import RealtimeServerEvent

from offhook.realtime.conversation import ConversationRules
from offhook.realtime.engine import EngineStart, Respond, ResponseFinished, ResponseSpeech, VoiceActivity
from offhook.realtime.engines.scripted import Script, ScriptedEngine
from offhook.realtime.runner import SessionRunner
from offhook.realtime.session import RetrievedItem, ServerEvent, Session, SessionNote
from offhook.realtime.session_config import parse_accept

from . import agents_js

__all__ = [
    "SPOKEN",
    "TRANSCRIBED",
    "Caller",
    "Client",
    "Desk",
    "assert_complete",
    "check",
    "encoded",
    "send",
    "types",
]

OPENAI = pydantic.TypeAdapter(Annotated[RealtimeServerEvent, pydantic.Field(discriminator="type")])
AGENTS = get_server_event_type_adapter()
LOUD, QUIET = b"\x00" * 160, b"\xff" * 160


def check(event: dict[str, Any]) -> None:
    """Judge an event as openai-python types it and as both openai-agents validate it."""
    OPENAI.validate_python(event)
    # openai-agents does this itself before it validates.
    AGENTS.validate_python(
        event | {"previous_item_id": ""} if event.get("previous_item_id", 0) is None else event
    )
    assert not (passed_over := agents_js.faults(event)), passed_over


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000 + self.now


class Speaker:
    """A media port that plays 160 bytes for every 20 ms."""

    def __init__(self) -> None:
        self.played_samples = 0
        self.queue = b""
        self.cleared = 0

    @property
    def queued_samples(self) -> int:
        return len(self.queue)

    def play(self, audio: bytes) -> None:
        self.queue += audio

    def clear(self) -> int:
        dropped, self.queue = len(self.queue), b""
        self.cleared += 1
        return dropped

    def tick(self) -> bool:
        """Play a frame; tell whether that was the last of the queue."""
        had = bool(self.queue)
        self.played_samples += min(160, len(self.queue))
        self.queue = self.queue[160:]
        return had and not self.queue


class Client:
    """A sideband that checks each event it gets."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None

    def send(self, frame: bytes) -> None:
        assert self.closed is None
        event = orjson.loads(frame)
        if not event["type"].startswith("call."):
            check(event)
        self.events.append(event)

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None
        self.closed = (code, reason)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def take(self) -> list[dict[str, Any]]:
        taken, self.events = self.events, []
        return taken


class Caller:
    """One call with a caller who speaks when told to."""

    def __init__(self, script: Script, *, accept: dict[str, Any] | None = None, **options: Any) -> None:
        counter = itertools.count(1)
        self.clock = Clock()
        self.speaker = Speaker()
        self.notes: list[SessionNote] = []
        self.session = Session(
            parse_accept({"type": "realtime"} | (accept or {})),
            session_id="sess_1",
            audio_format="audio/pcmu",
            new_id=lambda prefix: f"{prefix}_{next(counter):04}",
            sip=True,
            **options,
        )
        self.expired = 0
        self.runner = SessionRunner(
            self.session,
            ScriptedEngine(script),
            clock=self.clock,
            playout=self.speaker,
            on_note=self.notes.append,
            on_expired=self._expire,
        )

    async def start(self) -> Caller:
        await self.runner.start(EngineStart("sess_1", "audio/pcmu", "gpt-realtime-2.1"))
        return self

    def attach(self, *events: str) -> tuple[Client, Any]:
        client = Client()
        return client, self.runner.attach(client, events=frozenset(events))

    def wait(self, ms: int, *, loud: bool = False) -> None:
        for _ in range(ms // 20):
            self.clock.now += 0.02
            if self.speaker.tick():
                self.runner.playout_drained()
            self.runner.receive_audio(LOUD if loud else QUIET)
            deadline = self.session.next_timer()
            if deadline is not None and deadline <= self.clock.now:
                self.runner.handle_timer()

    def say(self, ms: int = 600) -> None:
        self.wait(ms, loud=True)

    def _expire(self) -> None:
        self.expired += 1


def send(attachment: Any, kind: str, **fields: Any) -> None:
    attachment.receive(orjson.dumps({"type": kind, **fields}).decode())


def assert_complete(events: list[dict[str, Any]]) -> None:
    """One done for each created and added, and nothing of a response after its done (decision 8)."""
    open_responses: set[str] = set()
    open_items: set[str] = set()
    for event, following in zip(events, [*events[1:], {}], strict=True):
        kind = event["type"]
        if kind == "response.created":
            assert following["type"] == "rate_limits.updated"
            assert event["response"]["id"] not in open_responses
            open_responses.add(event["response"]["id"])
        elif kind == "response.done":
            open_responses.remove(event["response"]["id"])
        elif kind == "conversation.item.added":
            open_items.add(event["item"]["id"])
        elif kind == "conversation.item.done":
            open_items.remove(event["item"]["id"])
        elif kind.startswith("response."):
            assert event["response_id"] in open_responses, event
    assert open_responses == set()
    assert open_items == set()
    ids = [event["event_id"] for event in events if "event_id" in event]
    assert len(ids) == len(set(ids))


TRANSCRIBED = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}

SPOKEN = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "output_audio_buffer.started",
    "response.output_audio_transcript.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


def encoded(item: RetrievedItem) -> dict[str, Any]:
    while not item.encode_next():
        pass
    event: dict[str, Any] = orjson.loads(item.frame())
    return event


class Desk:
    """A session with one client, number 1, and an engine that the test plays."""

    def __init__(
        self,
        *,
        sip: bool = True,
        audio_format: Any = "audio/pcmu",
        rules: ConversationRules | None = None,
        **accept: Any,
    ) -> None:
        counter = itertools.count(1)
        self.session = Session(
            parse_accept({"type": "realtime", **accept}),
            session_id="sess_1",
            audio_format=audio_format,
            new_id=lambda prefix: f"{prefix}_{next(counter):04}",
            sip=sip,
            rules=rules,
        )
        self.now = 10.0
        self.heard_ms = 0.0
        self.session.attach(1)
        self.session.outputs()
        self.outputs: list[Any] = []

    def drain(self) -> list[dict[str, Any]]:
        """Take the outputs; return the events among them, each judged by both SDKs."""
        self.outputs = self.session.outputs()
        events = [
            output.event if isinstance(output, ServerEvent) else encoded(output)
            for output in self.outputs
            if isinstance(output, ServerEvent | RetrievedItem)
        ]
        for event in events:
            check(event)
        return events

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        frame = orjson.dumps({"type": kind, **fields}).decode()
        self.session.receive_client_event(frame, sender=1, now=self.now)
        return self.drain()

    def engine(self, *events: Any) -> list[dict[str, Any]]:
        for event in events:
            self.session.receive_engine_event(event, self.now)
        return self.drain()

    def commands(self, kind: type) -> list[Any]:
        return [output for output in self.outputs if isinstance(output, kind)]

    def error(self, kind: str, **fields: Any) -> dict[str, Any]:
        (event,) = self.send(kind, **fields)
        assert event["type"] == "error"
        error: dict[str, Any] = event["error"]
        return error

    def respond(self, **response: Any) -> Respond:
        self.send("response.create", **({"response": response} if response else {}))
        (command,) = self.commands(Respond)
        assert isinstance(command, Respond)
        return command

    def say(self, command: Respond, text: str, ms: int = 1000) -> list[dict[str, Any]]:
        return self.engine(ResponseSpeech(command.response_id, command.generation, text, b"\x10" * 8 * ms))

    def finish(self, command: Respond, **fields: Any) -> list[dict[str, Any]]:
        return self.engine(ResponseFinished(command.response_id, command.generation, **fields))

    def hear(self, ms: int, probability: float = 0.0) -> list[dict[str, Any]]:
        events = []
        for _ in range(ms // 20):
            self.now += 0.02
            self.heard_ms += 20
            self.session.receive_audio(b"\xff" * 160, self.now)
            events += self.engine(VoiceActivity(probability, self.heard_ms))
        return events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]
