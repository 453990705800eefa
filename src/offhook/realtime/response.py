"""One response, from `response.created` to its one `response.done`, each part opened and closed (rows O03 to O11)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from offhook.realtime import server_events as events
from offhook.realtime.client_events import ResponseParams
from offhook.realtime.conversation import Conversation, Item
from offhook.realtime.engine import AudioFormat, Respond
from offhook.realtime.outbox import Outbox
from offhook.realtime.session_config import RetentionRatio, SessionConfig, refuse_stored_prompt
from offhook.realtime.sideband_audio import AudioConverter, bytes_per_ms

__all__ = ["Outcome", "Response", "ResponsePlan"]

_UNCHANGED = ResponseParams()
DELTA_MS = 500
"The longest audio in one `response.output_audio.delta`."


@dataclass(slots=True)
class ResponsePlan:
    """What one response is made by: the session's settings at its start, with the client's changes (rows E09, E14)."""

    instructions: str
    modalities: list[str]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    max_output_tokens: int | Literal["inf"]
    voice: str | dict[str, Any]
    speed: float
    format: dict[str, Any]
    in_conversation: bool = True
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio = "auto"

    @classmethod
    def create(cls, config: SessionConfig, params: ResponseParams | None = None) -> ResponsePlan:
        params = params or _UNCHANGED
        refuse_stored_prompt(params.prompt, params.instructions, "response")
        output = params.audio.output if params.audio is not None else None
        given = config.audio.output
        voice = output.voice if output is not None and output.voice is not None else given.voice
        audio_format = output.format if output is not None and output.format is not None else given.format
        tools = config.tools if params.tools is None else params.tools
        choice = config.tool_choice if params.tool_choice is None else params.tool_choice
        parallel = params.parallel_tool_calls
        return cls(
            instructions=config.instructions if params.instructions is None else params.instructions,
            modalities=list(params.output_modalities or config.output_modalities),
            tools=[{k: v for k, v in tool.model_dump().items() if v is not None} for tool in tools],
            tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
            max_output_tokens=params.max_output_tokens or config.max_output_tokens,
            voice=voice if isinstance(voice, str) else voice.model_dump(),
            speed=given.speed,
            format=audio_format.shown,
            in_conversation=params.conversation != "none",
            metadata=params.metadata,
            parallel_tool_calls=config.parallel_tool_calls if parallel is None else parallel,
            truncation=config.truncation,
        )

    @property
    def speaks(self) -> bool:
        return "audio" in self.modalities

    def forbids(self, name: str, made: int) -> str | None:
        """Return why a tool may not be called after so many calls (row G14), or `None`: not all models obey."""
        if self.tool_choice == "none":
            return "tool_choice is none"
        if isinstance(self.tool_choice, dict) and name != self.tool_choice["name"]:
            return f"tool_choice names {self.tool_choice['name']}"
        if made and self.parallel_tool_calls is False:
            return "parallel_tool_calls is false"
        return None

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else str(self.voice["id"])


@dataclass(slots=True)
class Outcome:
    """How a response ended (row O20)."""

    status: Literal["completed", "cancelled", "incomplete", "failed"] = "completed"
    reason: str | None = None
    error: Mapping[str, str] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    "Of the input."

    def details(self) -> dict[str, Any] | None:
        if self.status == "completed":
            return None
        details: dict[str, Any] = {"type": self.status}
        if self.reason is not None:
            details["reason"] = self.reason
        if self.error is not None:
            details["error"] = dict(self.error)
        return details


@dataclass(slots=True, eq=False)
class Output:
    """One output item that is being made."""

    item: Item
    index: int
    kind: Literal["audio", "text", "call"]
    open: bool = True
    converter: AudioConverter | None = field(default=None)


class Response:
    """Emits a response's events in order. The session decides when; the engine says what."""

    def __init__(
        self,
        response_id: str,
        generation: int,
        plan: ResponsePlan,
        conversation: Conversation,
        outbox: Outbox,
        audio_format: AudioFormat,
    ) -> None:
        self.id = response_id
        self.generation = generation
        self.plan = plan
        self.done = False
        self._conversation = conversation
        self._outbox = outbox
        self._audio_format = audio_format
        self._bytes_per_ms = bytes_per_ms(audio_format)
        self._outputs: list[Output] = []
        self._outcome: Outcome | None = None
        outbox.event(events.response_created(self.to_api()))
        outbox.event(events.rate_limits_updated())

    @property
    def calls(self) -> list[Item]:
        return [output.item for output in self._outputs if output.kind == "call"]

    @property
    def spoken(self) -> str:
        """What the response said or wrote."""
        texts = [part.get("transcript") or part.get("text") for o in self._outputs for part in o.item.content]
        return " ".join(text for text in texts if text)

    def respond(self, items: list[dict[str, Any]]) -> Respond:
        """Return the command that sets the engine to work."""
        plan = self.plan
        return Respond(
            self.id,
            self.generation,
            items,
            plan.instructions,
            plan.tools,
            plan.tool_choice,
            plan.speaks,
            plan.voice_name,
            plan.speed,
            plan.max_output_tokens,
            plan.parallel_tool_calls,
        )

    def to_api(self) -> dict[str, Any]:
        """Return the API's response object."""
        plan, outcome = self.plan, self._outcome
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": outcome.status if outcome is not None else "in_progress",
            "status_details": outcome.details() if outcome is not None else None,
            "output": [output.item.to_api() for output in self._outputs] if outcome is not None else [],
            "conversation_id": self._conversation.id if plan.in_conversation else None,
            "output_modalities": plan.modalities,
            "max_output_tokens": plan.max_output_tokens,
            # A custom voice by its id: here, unlike in the session, it is a string for every client (row V09).
            "audio": {"output": {"format": plan.format, "voice": plan.voice_name}},
            "usage": self._usage(outcome) if outcome is not None else None,
            "metadata": plan.metadata,
        }

    # What the engine makes.

    def open_message(self, kind: Literal["audio", "text"]) -> Item:
        """Return the message that is being made; opens one, with its content part, when there is none."""
        for output in self._outputs:
            if output.open and output.kind == kind:
                return output.item
        item = Item(self._outbox.new_id("item"), "message", "in_progress", "assistant")
        output = self._open(item, kind)
        part = (
            {"type": "output_audio", "transcript": ""}
            if kind == "audio"
            else {"type": "output_text", "text": ""}
        )
        item.content.append(part)
        added = {"type": "audio", "transcript": ""} if kind == "audio" else {"type": "text", "text": ""}
        self._outbox.event(events.content_part_added(self.id, item.id, output.index, added))
        return item

    def speak(self, text: str, audio: bytes, *, tell_audio: bool) -> None:
        """Add speech to the open message; with `tell_audio`, its sound goes to clients too (row O18)."""
        item = self.open_message("audio")
        output = self._output_of(item)
        text = _joined(item.transcript or "", text)
        item.add_speech(text, audio, self._bytes_per_ms)
        if text:
            self._outbox.event(events.transcript_delta(self.id, item.id, output.index, text))
        if tell_audio and audio:
            if output.converter is None:
                output.converter = AudioConverter(self._audio_format, self.plan.format["type"])
            self._tell_audio(output, output.converter.process(audio))

    def write(self, text: str) -> None:
        """Add text to the open message of a response that does not speak."""
        item = self.open_message("text")
        item.content[0]["text"] += text
        self._outbox.event(events.text_delta(self.id, item.id, self._output_of(item).index, text))

    def start_call(self, call_id: str, name: str) -> None:
        """Begin a function call, unless the plan forbids it; the one before it is complete."""
        if (why := self.plan.forbids(name, len(self.calls))) is not None:
            title = f"{name} is not called: {why}"
            self._outbox.note("session", title, response_id=self.id, call_id=call_id)
            return
        self._close_calls()
        item = Item(self._outbox.new_id("item"), "function_call", "in_progress", name=name, call_id=call_id)
        self._open(item, "call")

    def add_arguments(self, call_id: str, delta: str) -> None:
        """Add to a call's arguments. It is done as soon as they are one JSON object."""
        for output in self._outputs:
            item = output.item
            if output.kind == "call" and output.open and item.call_id == call_id:
                item.arguments += delta
                event = events.call_arguments_delta(self.id, item.id, output.index, call_id, delta)
                self._outbox.event(event)
                if delta.rstrip().endswith("}") and _is_object(item.arguments):
                    self._close(output, "completed")

    def finish(self, outcome: Outcome) -> None:
        """End the response: close what is open, then emit `response.done`."""
        status = "completed" if outcome.status == "completed" else "incomplete"
        for output in self._outputs:
            if output.open:
                self._close(output, status)
        self._outcome = outcome
        self.done = True
        self._outbox.event(events.response_done(self.to_api()))

    # Opening and closing.

    def _open(self, item: Item, kind: Literal["audio", "text", "call"]) -> Output:
        self._conversation.reserve(item.id)
        previous = self._conversation.append(item) if self.plan.in_conversation else None
        output = Output(item, len(self._outputs), kind)
        self._outputs.append(output)
        self._outbox.event(events.output_item_added(self.id, output.index, item.to_api()))
        if self.plan.in_conversation:
            self._outbox.event(events.item_added(item.to_api(), previous))
        return output

    def _close_calls(self) -> None:
        for output in self._outputs:
            if output.open and output.kind == "call":
                self._close(output, "completed")

    def _close(self, output: Output, status: str) -> None:
        output.open = False
        item = output.item
        item.status = status
        if output.kind == "call":
            self._close_call(output)
        elif output.kind == "audio":
            self._close_audio(output)
        else:
            text = item.content[0]["text"]
            self._outbox.event(events.text_done(self.id, item.id, output.index, text))
            part = {"type": "text", "text": text}
            self._outbox.event(events.content_part_done(self.id, item.id, output.index, part))
        if self.plan.in_conversation:
            # Others may have come or gone before it meanwhile.
            self._outbox.event(events.item_done(item.to_api(), self._conversation.before(item.id)))
        self._conversation.release(item.id)
        self._outbox.event(events.output_item_done(self.id, output.index, item.to_api()))

    def _close_audio(self, output: Output) -> None:
        item = output.item
        item.end_speech()
        if output.converter is not None:
            self._tell_audio(output, output.converter.process(b"", last=True))
        transcript = item.transcript or ""
        self._outbox.event(events.audio_done(self.id, item.id, output.index))
        self._outbox.event(events.transcript_done(self.id, item.id, output.index, transcript))
        part = {"type": "audio", "transcript": transcript}
        self._outbox.event(events.content_part_done(self.id, item.id, output.index, part))

    def _close_call(self, output: Output) -> None:
        item = output.item
        if item.status == "completed" and not item.arguments.strip():
            item.arguments = "{}"
        if not _is_object(item.arguments):
            # A client runs a call only if it is completed (row V11); half a JSON text must not be run.
            item.status = "incomplete"
        event = events.call_arguments_done(
            self.id, item.id, output.index, item.call_id, item.name, item.arguments
        )
        self._outbox.event(event)

    def _output_of(self, item: Item) -> Output:
        return next(output for output in self._outputs if output.item is item)

    def _tell_audio(self, output: Output, audio: bytes) -> None:
        step = DELTA_MS * bytes_per_ms(self.plan.format["type"])
        for start in range(0, len(audio), step):
            delta = base64.b64encode(audio[start : start + step]).decode()
            self._outbox.event(events.audio_delta(self.id, output.item.id, output.index, delta))

    def _usage(self, outcome: Outcome) -> dict[str, Any]:
        """Engines count text tokens; the fields are all there for clients that add them up (row O19)."""
        cached = {"text_tokens": outcome.cached_tokens, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": outcome.input_tokens + outcome.output_tokens,
            "input_tokens": outcome.input_tokens,
            "output_tokens": outcome.output_tokens,
            "input_token_details": {
                "text_tokens": outcome.input_tokens,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": outcome.cached_tokens,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": outcome.output_tokens, "audio_tokens": 0},
        }


def _joined(before: str, text: str) -> str:
    """Return a sentence with the space that parts it from the one before, if it brings none."""
    if text and before and before[-1] in ".!?:;,…" and text[0].isalnum():
        return " " + text
    return text


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
