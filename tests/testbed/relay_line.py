"""A relay with nothing around it, in virtual time: what went in and what came out."""

from __future__ import annotations

import itertools
import json
from typing import Any

from offhook.realtime.engine import SendUpstream, UpstreamEvent, UpstreamLost, UpstreamOpened
from offhook.realtime.outbox import ServerEvent, SessionNote
from offhook.realtime.relay import Relay
from offhook.realtime.session_config import parse_accept

__all__ = ["FRAME", "SESSION", "RelayLine"]

SESSION = {
    "type": "realtime",
    "id": "sess_up",
    "instructions": "Be kind.",
    "audio": {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": True}}},
}
FRAME = b"\x55" * 160


class RelayLine:
    """A relay, what came out of it by kind, and a played clock in 8 kHz samples."""

    def __init__(self, *, open_now: bool = True, **settings: Any) -> None:
        counter = itertools.count(1)
        self.relay = Relay(
            parse_accept({"type": "realtime", "instructions": "Be kind."}),
            session_id="sess_1",
            audio_format="audio/pcmu",
            new_id=lambda prefix: f"{prefix}_{next(counter)}",
            max_duration_s=7200.0,
            **settings,
        )
        self.outputs: list[Any] = []
        self.now = 0.0
        self.relay.start(0.0, 1_000.0)
        if open_now:
            self.relay.attach(1)
            self.open()

    def take(self) -> RelayLine:
        self.outputs += self.relay.outputs()
        return self

    def open(self, session: dict[str, Any] = SESSION) -> None:
        self.relay.receive_engine_event(UpstreamOpened("main", session, "event_up_1"), self.now)
        self.take()

    def up(self, kind: str, audio: bytes = b"", **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_up_{len(self.outputs)}", **fields}
        self.relay.receive_engine_event(UpstreamEvent(event, audio), self.now)
        self.take()

    def app(self, *, sender: int = 1, **event: Any) -> None:
        self.relay.receive_client_event(json.dumps(event), sender=sender, now=self.now)
        self.take()

    def played(self, ms: int) -> None:
        self.relay.playout_progress(ms * 8, self.now)
        self.take()

    def speak(self, frames: int = 10, response: str = "resp_1", item: str = "item_1") -> None:
        place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        self.up("response.created", response={"id": response, "status": "in_progress"})
        self.up("response.output_audio.delta", FRAME * frames, delta="AAAA", **place)

    def done(self, response: str = "resp_1", **fields: Any) -> None:
        self.up("response.done", response={"id": response, "status": "completed", **fields})

    @property
    def told(self) -> list[str]:
        return [output.event["type"] for output in self.outputs if isinstance(output, ServerEvent)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        events = [output.event for output in self.outputs if isinstance(output, ServerEvent)]
        return [event for event in events if event["type"] == kind]

    @property
    def sent(self) -> list[Any]:
        return [output.event for output in self.outputs if isinstance(output, SendUpstream)]

    def kinds(self, kind: type) -> list[Any]:
        return [output for output in self.outputs if isinstance(output, kind)]

    @property
    def titles(self) -> list[str]:
        """What the timeline says of the upstream."""
        return [note.title for note in self.kinds(SessionNote) if note.kind == "upstream"]

    def item(self, item_id: str, previous: str | None = None, **item: Any) -> None:
        """Have the upstream add an item that is whole."""
        item = {"id": item_id, "type": "message", "status": "completed", **item}
        self.up("conversation.item.added", item=item, previous_item_id=previous)
        self.up("conversation.item.done", item=item, previous_item_id=previous)

    def wait(self, seconds: float) -> None:
        """Let time pass, with each timer at its own time."""
        until = self.now + seconds
        while (due := self.relay.next_timer()) is not None and due <= until:
            self.now = due
            self.relay.handle_timer(due)
            self.take()
        self.now = until

    def lose(self, reason: str = "main closed with 1006") -> None:
        self.relay.receive_engine_event(UpstreamLost(reason), self.now)
        self.take()

    def reopen(self) -> list[Any]:
        """Have another upstream take over; return what is sent to it at once."""
        before = len(self.sent)
        self.open(SESSION | {"id": "sess_2"})
        return self.sent[before:]
