"""Every event of the protocol, made from the table of its fields (`realtime_events.txt`)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["EventType", "Field", "read"]

Event = dict[str, Any]
Side = Literal["server", "client"]

_numbers = itertools.count(1)


def _new_id(kind: str) -> str:
    return f"{kind}_table{next(_numbers):016d}"


@dataclass(frozen=True)
class Field:
    name: str
    types: tuple[str, ...]
    "Any one of these; `null` is not among them."
    required: bool


@dataclass(frozen=True)
class EventType:
    """One heading of the table."""

    side: Side
    name: str
    fields: tuple[Field, ...]

    def examples(self) -> Iterator[Event]:
        """Yield the event with no more than it must have; whole; then once for each other type of a field."""
        yield self._example(lambda field: field.required)
        if not all(field.required for field in self.fields):
            yield self._example(lambda field: True)
        for field in self.fields:
            for other in field.types[1:]:
                event = self._example(lambda field: True)
                event[field.name] = _sample(field.name, other)
                yield event

    def _example(self, has: Any) -> Event:
        given = [field for field in self.fields if has(field) and field.name != "type"]
        return {"type": self.name} | {field.name: _sample(field.name, field.types[0]) for field in given}


def read() -> list[EventType]:
    """Return the table."""
    found: list[EventType] = []
    side: Side = "server"
    for part in re.split(r"^#+ ", Path(__file__).with_name("realtime_events.txt").read_text(), flags=re.M):
        heading, _, rest = part.partition("\n")
        if heading in ("SERVER", "CLIENT"):
            side = "server" if heading == "SERVER" else "client"
        elif "." in heading.split("  (")[0] or heading.startswith("error "):
            lines = re.findall(r"^  - (\w+): (.+) \[(req|opt)\]$", rest, flags=re.M)
            if lines:
                fields = tuple(Field(name, _types(types), need == "req") for name, types, need in lines)
                found.append(EventType(side, heading.split("  (")[0], fields))
    return found


def _types(text: str) -> tuple[str, ...]:
    return tuple(one for one in text.split(" | ") if one != "null")


def _sample(name: str, kind: str) -> Any:
    if kind.startswith("["):
        return [_sample(name, kind[1:-1])]
    if kind == "str":
        return _text(name)
    if kind == "int":
        return 1_760_000_000 if name == "received_at" else 0 if name.endswith("_index") else 1340
    if kind == "float":
        return 1.25
    return _OBJECTS[kind]()


def _text(name: str) -> str:
    if name == "delta":
        return "AAAA"
    if name == "arguments":
        return '{"day": "monday", "ü": [1, 2.50]}'
    if name == "event":
        return "5"
    if name == "obfuscation":
        return "x8Fq"
    if name == "id" or name.endswith("_id"):
        return _new_id(name.removesuffix("_id"))
    return f"Good morning, „{name}“\n\t— \\ / é"


def _message(role: str, part: Event) -> Event:
    item = {"id": _new_id("item"), "object": "realtime.item", "type": "message", "role": role}
    return item | {"status": "completed", "content": [part]}


def _session() -> Event:
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": _new_id("sess"),
        "model": "gpt-realtime",
        "instructions": "Be brief.",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "turn_detection": {
                    "type": "semantic_vad",
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
        },
        "tools": [],
    }


def _response() -> Event:
    return {
        "id": _new_id("resp"),
        "object": "realtime.response",
        "status": "completed",
        "status_details": None,
        "output": [_message("assistant", {"type": "output_audio", "transcript": "Good morning."})],
        "conversation_id": _new_id("conv"),
        "output_modalities": ["audio"],
        "metadata": {"a": "b"},
        "usage": {
            "total_tokens": 30,
            "input_tokens": 10,
            "output_tokens": 20,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 6, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 5, "audio_tokens": 15},
        },
    }


def _error() -> Event:
    fault = {"type": "server_error", "code": "odd", "message": "It did not work.", "param": None}
    return fault | {"event_id": None}


_OBJECTS: dict[str, Any] = {
    "Conversation": lambda: {"id": _new_id("conv"), "object": "realtime.conversation"},
    "RealtimeConversationItemSystemMessage": lambda: _message(
        "system", {"type": "input_text", "text": "Hm."}
    ),
    "RealtimeConversationItemUserMessage": lambda: _message("user", {"type": "input_text", "text": "Hello"}),
    "RealtimeConversationItemAssistantMessage": lambda: _message(
        "assistant", {"type": "output_text", "text": "Good morning."}
    ),
    "RealtimeConversationItemFunctionCall": lambda: {
        "id": _new_id("item"),
        "object": "realtime.item",
        "type": "function_call",
        "status": "completed",
        "call_id": _new_id("call"),
        "name": "look_up",
        "arguments": "{}",
    },
    "RealtimeConversationItemFunctionCallOutput": lambda: {
        "id": _new_id("item"),
        "object": "realtime.item",
        "type": "function_call_output",
        "call_id": _new_id("call"),
        "output": "nine to five",
    },
    "RealtimeMcpApprovalResponse": lambda: {
        "id": _new_id("mcpr"),
        "type": "mcp_approval_response",
        "approval_request_id": _new_id("mcpr"),
        "approve": True,
    },
    "RealtimeMcpListTools": lambda: {
        "id": _new_id("mcpl"),
        "type": "mcp_list_tools",
        "server_label": "shop",
        "tools": [{"name": "buy", "input_schema": {"type": "object"}}],
    },
    "RealtimeMcpToolCall": lambda: {
        "id": _new_id("mcp"),
        "type": "mcp_call",
        "server_label": "shop",
        "name": "buy",
        "arguments": "{}",
    },
    "RealtimeMcpApprovalRequest": lambda: {
        "id": _new_id("mcpr"),
        "type": "mcp_approval_request",
        "server_label": "shop",
        "name": "buy",
        "arguments": "{}",
    },
    "UsageTranscriptTextUsageTokens": lambda: {
        "type": "tokens",
        "total_tokens": 3,
        "input_tokens": 2,
        "output_tokens": 1,
        "input_token_details": {"text_tokens": 1, "audio_tokens": 1},
    },
    "UsageTranscriptTextUsageDuration": lambda: {"type": "duration", "seconds": 1.5},
    "TranscriptionLanguage": lambda: {"code": "de"},
    "LogProbProperties": lambda: {"token": "Hi", "bytes": [72, 105], "logprob": -0.125},
    "Error": lambda: {"type": "server_error", "code": "odd", "message": "It did not work."},
    "RealtimeError": _error,
    "RateLimit": lambda: {"name": "tokens", "limit": 100, "remaining": 99, "reset_seconds": 0.5},
    "Part": lambda: {"type": "audio", "transcript": "Good"},
    "RealtimeResponse": _response,
    "RealtimeSessionCreateRequest": _session,
    "RealtimeTranscriptionSessionCreateRequest": lambda: {
        "type": "transcription",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}},
    },
    "RealtimeResponseCreateParams": lambda: {
        "instructions": "Greet the caller.",
        "output_modalities": ["audio"],
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "cedar"}},
        "metadata": {"purpose": "greeting"},
        "tool_choice": "none",
    },
}
