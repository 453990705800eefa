"""A relay between an upstream that does anything, an app, a caller and losses: what clients are told stays whole."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from offhook.realtime.engine import ReopenUpstream, UpstreamEvent
from offhook.realtime.outbox import ClearPlayout, PlayAudio, ServerEvent, SessionClosed
from offhook.realtime.relay_hold import HoldSentence
from testbed.protocol import check_order
from testbed.relay_line import FRAME, SESSION, RelayLine

Event = dict[str, Any]
HOLD = HoldSentence("One moment.", {"audio/pcmu": FRAME * 60})


class RelayMachine(RuleBasedStateMachine):
    """The upstream keeps its own books, as a server does; it also repeats, disorders and forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.line = RelayLine(open_now=False, hold=HOLD)
        self.line.relay.attach(1)
        self.numbers = itertools.count(100)
        self.up = False
        self.making: dict[str, str] = {}
        "Responses that are being made, and the item of each."
        self.made: list[tuple[str, str]] = []
        self.last: Event | None = None
        self.silent: set[str] = set()
        "Responses of which nothing more may be heard."
        self.queued = 0
        self.played = 0
        self.ends: dict[str, int] = {}
        "Where the sound of each response ends."
        self.seen = 0

    # The upstream.

    def say(self, kind: str, audio: bytes = b"", **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_up_{next(self.numbers)}", **fields}
        self.hand(event, audio)
        self.last = event if not audio else None

    def hand(self, event: Event, audio: bytes = b"") -> None:
        heard = len(self.line.kinds(PlayAudio))
        self.line.relay.receive_engine_event(
            UpstreamEvent(json.loads(json.dumps(event)), audio), self.line.now
        )
        self.line.take()
        if str(event.get("response_id")) in self.silent:
            assert len(self.line.kinds(PlayAudio)) == heard, "a cut response is heard"

    @precondition(lambda self: not self.up)
    @rule()
    def open(self) -> None:
        self.line.open(SESSION)
        self.up = True

    @precondition(lambda self: self.up and not self.making)
    @rule()
    def create(self) -> None:
        number = next(self.numbers)
        response_id, item_id = f"resp_{number}", f"item_{number}"
        self.making[response_id] = item_id
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        self.say("response.created", response={"id": response_id, "status": "in_progress"})
        self.say("response.output_item.added", response_id=response_id, output_index=0, item=item)
        self.say("conversation.item.added", item=item, previous_item_id=None)
        self.say("response.content_part.added", part={"type": "audio"}, **place)

    @precondition(lambda self: self.up and self.making)
    @rule(data=st.data(), frames=st.integers(1, 40))
    def sound(self, data: st.DataObject, frames: int) -> None:
        response_id = data.draw(st.sampled_from(sorted(self.making)))
        self.deliver(response_id, self.making[response_id], frames)

    @precondition(lambda self: self.up and self.made)
    @rule(data=st.data(), frames=st.integers(1, 5))
    def late_sound(self, data: st.DataObject, frames: int) -> None:
        """It came out of order, while the response is still to be heard or after it was cut."""
        response_id, item_id = data.draw(st.sampled_from(self.made))
        if self.ends.get(response_id, 0) > self.played or response_id in self.silent:
            self.deliver(response_id, item_id, frames)

    def deliver(self, response_id: str, item_id: str, frames: int) -> None:
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        self.say("response.output_audio.delta", FRAME * frames, delta="AAAA", **place)
        self.count()
        if response_id not in self.silent:
            self.ends[response_id] = self.queued

    @precondition(lambda self: self.up and self.making)
    @rule(data=st.data(), status=st.sampled_from(["completed", "cancelled", "incomplete"]))
    def done(self, data: st.DataObject, status: str) -> None:
        response_id = data.draw(st.sampled_from(sorted(self.making)))
        item_id = self.making.pop(response_id)
        self.made.append((response_id, item_id))
        item = {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": []}
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        self.say("response.content_part.done", part={"type": "audio"}, **place)
        self.say("conversation.item.done", item=item, previous_item_id=None)
        self.say("response.output_item.done", response_id=response_id, output_index=0, item=item)
        self.say("response.done", response={"id": response_id, "status": status, "output": [item]})

    @precondition(lambda self: self.up and self.last is not None)
    @rule(same_id=st.booleans())
    def repeat(self, same_id: bool) -> None:
        """It says its last word twice."""
        assert self.last is not None
        more = {} if same_id else {"event_id": f"event_up_{next(self.numbers)}"}
        if not same_id or self.last["type"].endswith(("created", "done", "added")):
            self.hand(self.last | more)

    @precondition(lambda self: self.up)
    @rule(words=st.booleans())
    def turn(self, words: bool) -> None:
        """The caller speaks, and cuts in if something sounds."""
        item_id = f"item_{next(self.numbers)}"
        before = len(self.line.kinds(ClearPlayout))
        self.say("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=0)
        self.cut(before)
        self.say("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=0)
        self.say("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        item = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        self.say("conversation.item.added", item=item, previous_item_id=None)
        self.say("conversation.item.done", item=item, previous_item_id=None)
        if words:
            kind = "conversation.item.input_audio_transcription.completed"
            self.say(kind, item_id=item_id, content_index=0, transcript="Hello.")

    @precondition(lambda self: self.up)
    @rule(kind=st.sampled_from(["error", "session.updated", "rate_limits.updated", "session.created", "x.y"]))
    def odd(self, kind: str) -> None:
        self.say(kind, response=[], error=3)

    @precondition(lambda self: self.up)
    @rule()
    def lose(self) -> None:
        before = len(self.line.kinds(ReopenUpstream))
        self.line.lose()
        self.up, self.last = False, None
        self.made += self.making.items()
        self.making.clear()
        assert len(self.line.kinds(ReopenUpstream)) == before + 1

    @precondition(lambda self: self.up)
    @rule()
    def hand_over(self) -> None:
        self.line.open(SESSION)
        self.made += self.making.items()
        self.making.clear()
        self.last = None

    # The app.

    @rule(sender=st.integers(1, 3))
    def attach(self, sender: int) -> None:
        self.line.relay.attach(sender + 10 * next(self.numbers))
        self.line.take()

    @rule(
        kind=st.sampled_from(
            [
                *("response.create", "response.cancel", "session.update", "input_audio_buffer.append"),
                *("conversation.item.create", "conversation.item.truncate", "x.y"),
            ]
        ),
        data=st.data(),
    )
    def ask(self, kind: str, data: st.DataObject) -> None:
        items = [item for _, item in self.made] + [*self.making.values(), "item_0"]
        item_id = data.draw(st.sampled_from(items))
        self.line.app(type=kind, event_id="e", item_id=item_id, audio_end_ms=40, content_index=0)

    @rule()
    def clear(self) -> None:
        before = len(self.line.kinds(ClearPlayout))
        self.line.app(type="output_audio_buffer.clear")
        self.cut(before)

    # The phone.

    def cut(self, before: int) -> None:
        if len(self.line.kinds(ClearPlayout)) > before:
            self.silent |= {*self.making, *(one for one, end in self.ends.items() if end > self.played)}
            self.queued = self.played

    @rule(ms=st.integers(20, 3000))
    def play(self, ms: int) -> None:
        self.count()
        self.played = min(self.played + ms * 8, self.queued)
        self.line.relay.playout_progress(self.played, self.line.now)
        if self.played == self.queued:
            self.line.relay.playout_drained(self.played, self.line.now)
        self.line.take()

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(5):
            self.line.relay.receive_audio(FRAME, self.line.now)
        self.line.wait(seconds)

    @rule()
    def press(self) -> None:
        if self.up or self.line.told:
            self.line.relay.receive_digit("5", self.line.now, 1.0)
            self.line.take()

    def count(self) -> None:
        for output in self.line.outputs[self.seen :]:
            if isinstance(output, PlayAudio):
                self.queued += len(output.audio)
        self.seen = len(self.line.outputs)

    # What holds.

    @invariant()
    def counted(self) -> None:
        self.count()

    @invariant()
    def nothing_comes_before_session_created(self) -> None:
        first: dict[int | None, str] = {}
        for output in self.line.outputs:
            if isinstance(output, ServerEvent) and output.to is not None:
                first.setdefault(output.to, output.event["type"])
        assert set(first.values()) <= {"session.created"}

    def teardown(self) -> None:
        if not self.up and not self.line.told:
            self.line.open(SESSION)
        self.line.relay.close("hung up", self.line.now)
        self.line.take()
        self.line.wait(2.0)
        assert len(self.line.kinds(SessionClosed)) == 1
        assert self.line.relay.next_timer() is None
        told = [
            output.event
            for output in self.line.outputs
            if isinstance(output, ServerEvent) and output.to in (None, 1)
        ]
        check_order([event for event in told if event["type"] != "response.output_audio.delta"])


RelayMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
test_whatever_happens_what_clients_are_told_is_whole = RelayMachine.TestCase
