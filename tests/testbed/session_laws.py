"""
What holds for the outputs of any session, whatever was done to it (API rows O01 to O12, V01 to V14).

A second, simple mind beside the session's own: it knows only what was told, and compares.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import orjson

from offhook.realtime.engine import CancelResponse, Respond, Transcribe
from offhook.realtime.outbox import (
    ClearPlayout,
    HearAudio,
    Output,
    PlayAudio,
    RetrievedItem,
    ServerEvent,
    SessionClosed,
    SessionExpired,
    SessionNote,
)
from offhook.realtime.session import Session
from offhook.realtime.sideband_audio import bytes_per_ms, sample_bytes

from .by_hand import OPENAI, check
from .protocol import unknown_fields

__all__ = ["SessionLaws"]

_WHOLE_SPEECH = ["response.output_audio.done", "response.output_audio_transcript.done"]
_DELTAS = {
    "response.output_audio.delta": "response.output_audio.done",
    "response.output_audio_transcript.delta": "response.output_audio.done",
    "response.output_text.delta": "response.output_text.done",
    "response.function_call_arguments.delta": "response.function_call_arguments.done",
}


@dataclass
class MakingItem:
    """An output item that a response has begun; `ahead`: what must come for it, in this order (row O03)."""

    response_id: str
    index: int
    item: dict[str, Any]
    ahead: list[str]
    text: str = ""
    "What its deltas said."
    truncated: bool = False


@dataclass
class ToldResponse:
    created: dict[str, Any]
    outputs: list[MakingItem] = field(default_factory=list)
    own_context: bool = False
    asked: Respond | None = None
    done: bool = False

    @property
    def in_conversation(self) -> bool:
        return self.created["conversation_id"] is not None


class SessionLaws:
    """Give it each output of the session, in order, to `take`, and call `settle` when there are no more just now."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sip = session.sip
        self.clients: set[int] = set()
        "Who is attached; the caller of `Session.attach` adds and removes."
        self.greeted: set[int] = set()
        self.closing = self.closed = False
        self.event_ids: set[str] = set()
        self.item_ids: dict[str, None] = {}
        "All that were ever told, in order."
        self.order: list[str] = []
        "The conversation, as a client would put it together."
        self.items_open: set[str] = set()
        self.transcribed: set[str] = set()
        self.revisions: dict[str, int] = {}
        "The newest `Transcribe` of each item."
        self.responses: dict[str, ToldResponse] = {}
        self.making: dict[str, MakingItem] = {}
        self.speech: tuple[str, int] | None = None
        "The item of the speech that goes on, and where it began."
        self.ear_ms = 0.0
        "Where the engine's ear stands."
        self.sounding: str | None = None
        self.sounded: set[str] = set()
        self.queue: list[list[Any]] = []
        "Sound on its way to the caller: its response and how many bytes are left."
        self.heard: dict[str, int] = {}
        "How many bytes of each response's sound the caller has heard."
        self.brings_context = False
        "Whether the present input asks for a response with a context of its own; set by the caller."
        self.speaker: str | None = None
        "The response whose sound the engine hands over now; set by the caller."
        self.cleared = False
        "Whether the caller's sound was stopped, in the present input."
        self._silenced: str | None = None
        "What sounded then, and is not told to be cleared yet."
        self._cut_at: dict[str, int] = {}
        "Where items were truncated that got no words since."
        self._touched: set[str] = set()
        "Items that were ever truncated."
        self._roles: dict[str, str] = {}
        self._maker: dict[str, str] = {}
        "Which response made an item."
        self._timed_out: str | None = None
        self._limits_are_next = False
        self._must: list[tuple[str, str]] = []
        self._model = session.config.model
        self._expires_at: int | None = None

    @property
    def live(self) -> list[ToldResponse]:
        return [told for told in self.responses.values() if not told.done]

    def take(self, output: Output) -> None:
        assert not self.closed, f"after the end: {output}"
        match output:
            case ServerEvent():
                self._judge(orjson.dumps(output.event), output.to)
            case RetrievedItem():
                while not output.encode_next():
                    pass
                self._judge(output.frame(), None)
            case Respond():
                self._ask(output)
            case CancelResponse():
                told = self.responses[output.response_id]
                assert told.asked, "the engine was not asked"
                assert not told.done, "a response was cancelled that is over"
            case Transcribe():
                assert output.revision > self.revisions.get(output.item_id, 0), "a revision came again"
                self.revisions[output.item_id] = output.revision
            case PlayAudio():
                assert self.sip, "a client plays the sound itself"
                assert not self.closing, "sound for nobody"
                assert self.speaker is not None
                assert not self.responses[self.speaker].done, "sound of a response that is over"
                self.queue.append([self.speaker, len(output.audio)])
                for made in self.responses[self.speaker].outputs:
                    self._cut_at.pop(made.item["id"], None)
            case ClearPlayout():
                assert self.sip
                self.cleared, self._silenced = True, self.sounding
                self.queue.clear()
            case HearAudio():
                assert not self.sip
                assert not self.closing
                assert len(output.audio) == 20 * bytes_per_ms(self.session.audio_format)
            case SessionClosed():
                self._close()
            case _:
                assert isinstance(output, SessionNote | SessionExpired)

    def settle(self) -> None:
        """All outputs of one input were taken."""
        assert not self._must, f"never came: {self._must}"
        assert self.order == [item.id for item in self.session.conversation], "not the session's own order"
        assert self.items_open <= set(self.making), "an item was added and not done, and no response makes it"
        assert sum(told.in_conversation for told in self.live) <= 1, "two responses in the conversation"
        assert self._silenced is None, "sound was dropped and nobody was told"
        self.cleared = False

    def _judge(self, frame: bytes, to: int | None) -> None:
        event = orjson.loads(frame)
        kind = event["type"]
        check(event)
        parsed = OPENAI.validate_json(frame, strict=True)
        assert not unknown_fields(parsed), f"fields that the types do not know: {frame.decode()}"
        assert ("event_id" in event) == (kind != "input_audio_buffer.dtmf_event_received")
        assert event.get("event_id") not in self.event_ids, "an event id came twice"
        self.event_ids |= {event["event_id"]} if "event_id" in event else set()
        if to is not None:
            assert kind in ("error", "session.created"), "all clients are told of what happens to the session"
        if self._must and to is None:
            # Row O02.
            item_id = event["item"]["id"] if "item" in event else event.get("item_id")
            assert self._must.pop(0) == (kind, item_id), f"{kind} came in between"
        assert (kind == "rate_limits.updated") == self._limits_are_next, "right behind response.created"
        self._limits_are_next = kind == "response.created"
        head, _, rest = kind.partition(".")
        match head:
            case "session":
                self._judge_session(event, to)
            case "conversation":
                self._judge_conversation(event)
            case "input_audio_buffer":
                self._judge_input(event)
            case "output_audio_buffer":
                self._judge_sound(event, rest)
            case "response":
                self._judge_response(event)
            case _:
                assert kind in ("error", "rate_limits.updated")

    def _judge_session(self, event: dict[str, Any], to: int | None) -> None:
        session = event["session"]
        assert session == orjson.loads(orjson.dumps(self.session.describe())), "not what is in force"
        assert session["model"] == self._model
        assert session["expires_at"] == (self._expires_at or session["expires_at"])
        self._expires_at = session["expires_at"]
        if event["type"] == "session.created":
            assert to in self.clients - self.greeted, "session.created is for who has just come"
            self.greeted.add(to)
        else:
            assert to is None
            if session["audio"]["input"]["turn_detection"] is None:
                self.speech = None

    def _judge_conversation(self, event: dict[str, Any]) -> None:
        kind = event["type"].removeprefix("conversation.")
        item_id = event["item"]["id"] if "item" in event else event["item_id"]
        if kind == "item.added":
            self._add(item_id, event)
        elif kind == "item.done":
            self._advance("conversation.item.done", item_id, event["item"])
            assert item_id in self.items_open, "done again, or never added"
            self.items_open.discard(item_id)
            assert event["previous_item_id"] == self._before(item_id)
        else:
            assert item_id in self.order, f"{kind} of what is not in the conversation"
        if kind == "item.deleted":
            self.order.remove(item_id)
        elif kind == "item.truncated":
            self._truncate(item_id, event["audio_end_ms"])
        elif kind == "item.retrieved":
            assert (event["item"]["status"] == "in_progress") == (item_id in self.making)
        elif kind.startswith("item.input_audio_transcription"):
            assert item_id not in self.transcribed, "more words for what has its words"
            if not kind.endswith("delta"):
                self.transcribed.add(item_id)

    def _add(self, item_id: str, event: dict[str, Any]) -> None:
        self._advance("conversation.item.added", item_id, event["item"])
        assert item_id not in self.order, "an id is in the conversation twice"
        assert item_id not in self.items_open, "an id that another item still has"
        assert self.speech is None or item_id != self.speech[0], "the id of somebody's speech"
        previous = event["previous_item_id"]
        assert previous is None or previous in self.order, f"behind {previous}, which is not there"
        self.order.insert(0 if previous is None else self.order.index(previous) + 1, item_id)
        self.item_ids[item_id] = None
        self.items_open.add(item_id)
        self._roles[item_id] = event["item"].get("role", "")
        for told in (self.transcribed, self._touched):
            told.discard(item_id)
        self._cut_at.pop(item_id, None)
        if item_id not in self.making:
            self._must = self._must or [("conversation.item.done", item_id)]

    def _before(self, item_id: str) -> str | None:
        index = self.order.index(item_id) if item_id in self.order else 0
        return self.order[index - 1] if index else None

    def _truncate(self, item_id: str, audio_end_ms: int) -> None:
        before = self._cut_at.get(item_id)
        assert before is None or audio_end_ms <= before, "longer than it was cut before"
        self._cut_at[item_id] = audio_end_ms
        if self.cleared and before is None and item_id not in self._touched:
            # The server's own boundary is what was played (row O09).
            response_id = self._maker[item_id]
            assert audio_end_ms == self.heard.get(response_id, 0) // 8, "not where the sound was stopped"
        if item_id in self.making:
            self.making[item_id].truncated = True
        self._touched.add(item_id)

    def _judge_input(self, event: dict[str, Any]) -> None:
        kind, item_id = event["type"].removeprefix("input_audio_buffer."), event.get("item_id")
        if kind == "speech_started":
            assert not self.closing, "nobody speaks any more"
            assert self.speech is None, "speech in speech"
            assert event["audio_start_ms"] <= self.ear_ms, "speech where nobody has listened yet"
            self._name(event["item_id"])
            self.speech = (event["item_id"], event["audio_start_ms"])
        elif kind == "speech_stopped":
            assert self.speech is not None
            assert self.speech[0] == item_id
            assert self.speech[1] <= event["audio_end_ms"]
            self._must = [("input_audio_buffer.committed", self.speech[0])]
        elif kind == "timeout_triggered":
            assert not self.closing
            assert (self.speech, self.sounding, self.live) == (None, None, []), "somebody speaks"
            assert event["audio_start_ms"] <= event["audio_end_ms"]
            self._name(event["item_id"])
            self._timed_out = event["item_id"]
            self._must = [("input_audio_buffer.committed", event["item_id"])]
        elif kind == "committed":
            self._commit(event)
        elif kind == "cleared":
            self.speech = None

    def _commit(self, event: dict[str, Any]) -> None:
        item_id = event["item_id"]
        if self.speech is not None:
            assert item_id == self.speech[0], "another id than its speech had"
        elif item_id != self._timed_out:
            self._name(item_id)
        self.speech = self._timed_out = None
        assert event["previous_item_id"] == (self.order[-1] if self.order else None)
        self._must = [("conversation.item.added", item_id), ("conversation.item.done", item_id)]

    def _name(self, item_id: str) -> None:
        assert item_id not in self.item_ids, "an item's id came again"
        self.item_ids[item_id] = None

    # Responses.

    def _judge_response(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "response.created":
            response = event["response"]
            assert response["id"] not in self.responses, "a response's id came twice"
            assert response["status"] == "in_progress"
            assert response["output"] == []
            self.responses[response["id"]] = ToldResponse(response, own_context=self.brings_context)
        elif kind == "response.done":
            self._end_response(event["response"])
        elif kind == "response.output_item.added":
            self._open_output(event)
        else:
            self._judge_output(event)

    def _open_output(self, event: dict[str, Any]) -> None:
        told, item = self.responses[event["response_id"]], event["item"]
        assert told.asked, "of a response that nobody makes"
        assert not told.done, "of a response that is over"
        assert event["output_index"] == len(told.outputs)
        self._name(item["id"])
        assert item["status"] == "in_progress"
        assert item.get("content", []) == []
        ahead = ["conversation.item.added"] if told.in_conversation else []
        if item["type"] == "function_call":
            calls = sum(made.item["type"] == "function_call" for made in told.outputs)
            assert told.asked.tool_choice != "none", "a call, where none was wanted"
            assert not calls or told.asked.parallel_tool_calls is not False, "a second call"
            ahead += ["response.function_call_arguments.done", *self._ends(told)]
        else:
            ahead.append("response.content_part.added")
        made = MakingItem(event["response_id"], event["output_index"], item, ahead)
        told.outputs.append(made)
        self.making[item["id"]] = made
        self._maker[item["id"]] = made.response_id

    def _ends(self, told: ToldResponse) -> list[str]:
        return [*(["conversation.item.done"] if told.in_conversation else []), "response.output_item.done"]

    def _judge_output(self, event: dict[str, Any]) -> None:
        kind, told = event["type"], self.responses[event["response_id"]]
        item_id = event["item"]["id"] if "item" in event else event["item_id"]
        made = self.making.get(item_id)
        assert made is not None, f"{kind} of what is not being made"
        assert not told.done
        assert (made.response_id, made.index) == (event["response_id"], event["output_index"])
        assert event.get("content_index", 0) == 0
        if kind in _DELTAS:
            assert made.ahead[0] == _DELTAS[kind], f"{kind} before {made.ahead}"
            if kind == "response.output_audio.delta":
                self._judge_sound_delta(told, event["delta"])
            else:
                made.text += event["delta"]
            self._cut_at.pop(item_id, None)
            return
        self._advance(kind, item_id, event.get("item"))
        if kind == "response.content_part.added":
            self._open_part(made, told, event["part"]["type"])
        elif kind == "response.output_item.done":
            self._end_item(made, event["item"])
        else:
            whole = event.get("transcript", event.get("text", event.get("arguments")))
            if "part" in event:
                whole = event["part"].get("transcript", event["part"].get("text"))
            if whole is not None:
                self._compare(made, whole)

    def _open_part(self, made: MakingItem, told: ToldResponse, kind: str) -> None:
        assert (kind == "audio") == ("audio" in told.created["output_modalities"])
        dones = _WHOLE_SPEECH if kind == "audio" else ["response.output_text.done"]
        made.ahead = [*dones, "response.content_part.done", *self._ends(told)]

    def _judge_sound_delta(self, told: ToldResponse, delta: str) -> None:
        audio = base64.b64decode(delta, validate=True)
        audio_format = told.created["audio"]["output"]["format"]["type"]
        assert audio
        assert len(audio) % sample_bytes(audio_format) == 0
        assert len(audio) <= 500 * bytes_per_ms(audio_format)

    def _advance(self, kind: str, item_id: str, item: dict[str, Any] | None) -> None:
        made = self.making.get(item_id)
        if made is None:
            return
        assert made.ahead[:1] == [kind], f"{kind}, where {made.ahead} was due"
        del made.ahead[0]
        if item is not None:
            same = ("id", "type", "role", "name", "call_id")
            assert [item.get(name) for name in same] == [made.item.get(name) for name in same]
            made.item = item

    def _compare(self, made: MakingItem, whole: str) -> None:
        if made.item["type"] == "function_call":
            assert whole == made.text or (whole == "{}" and not made.text.strip())
        elif self.cleared:
            assert made.truncated or made.text.startswith(whole), "more than was said"
        elif not made.truncated:
            assert whole == made.text, "its deltas said something else"
        made.text = whole
        made.truncated = False

    def _end_item(self, made: MakingItem, item: dict[str, Any]) -> None:
        assert item["status"] in ("completed", "incomplete")
        if item["type"] == "function_call":
            assert item["arguments"] == made.text
            if item["status"] == "completed":
                # A client runs it now (row V11).
                assert isinstance(orjson.loads(item["arguments"]), dict)
        else:
            (part,) = item["content"]
            assert part.get("transcript", part.get("text")) == made.text
        del self.making[item["id"]]

    def _end_response(self, response: dict[str, Any]) -> None:
        told = self.responses[response["id"]]
        assert not told.done, "a second response.done"
        told.done = True
        assert not any(made.response_id == response["id"] for made in self.making.values()), "parts are open"
        assert response["output"] == [made.item for made in told.outputs]
        changed = ("status", "status_details", "output", "usage")
        for name in response.keys() - changed:
            assert response[name] == told.created[name], f"{name} changed on the way"
        status, details = response["status"], response["status_details"]
        assert (details is None) == (status == "completed")
        assert details is None or details["type"] == status
        assert status != "failed" or details["error"]["message"]

    def _ask(self, command: Respond) -> None:
        told = self.responses[command.response_id]
        assert not told.done, "asked too late"
        assert told.asked is None, "asked twice"
        told.asked = command
        if told.own_context:
            return
        # All that was said, in order; what an assistant has begun and nobody has heard was not said, and a
        # conversation that became too long has lost its beginning (row G16).
        given = [item["id"] for item in command.items]
        assert given == [item_id for item_id in self.order if item_id in given]
        left_out = {item.id for item in self.session.conversation if item.left_out}
        assert not left_out.intersection(given), "what was left out came again"
        assert left_out.isdisjoint(self.order[-1:]), "the newest was left out"
        missing = set(self.order) - set(given) - left_out
        assert all(self._roles[item_id] == "assistant" for item_id in missing)

    def _judge_sound(self, event: dict[str, Any], kind: str) -> None:
        response_id = event["response_id"]
        assert self.sip
        told = self.responses[response_id]
        if kind == "started":
            assert self.sounding is None
            assert response_id not in self.sounded
            announced = any(_WHOLE_SPEECH[0] in made.ahead for made in told.outputs)
            assert told.done or announced, "sound before its part"
            self.sounding = response_id
            self.sounded.add(response_id)
            return
        assert self.sounding == response_id, f"{kind}, and it did not sound"
        self.sounding = self._silenced = None
        if kind == "stopped":
            assert told.done, "played to its end before it was made"
            left = [entry for entry in self.queue if entry[0] == response_id]
            assert not left, "told to be over, and more is queued"

    def play(self, most: int) -> int:
        """The caller hears up to so many bytes; return how many there were."""
        heard = 0
        while self.queue and heard < most:
            entry = self.queue[0]
            now = min(most - heard, entry[1])
            self.heard[entry[0]] = self.heard.get(entry[0], 0) + now
            entry[1] -= now
            heard += now
            if not entry[1]:
                del self.queue[0]
        return heard

    def _close(self) -> None:
        assert self.closing, "nobody asked for the end"
        self.closed = True
        assert not self.live, "responses are not done"
        assert not self.making, "outputs are not done"
        assert not self.items_open, "items are not done"
        assert self.sounding is None, "still sounding"
        assert self.speech is None, "still speaking"
