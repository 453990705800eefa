"""Hypothesis strategies for what clients send: each of the eleven events, and frames that are no events."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import strategies as st

__all__ = ["CONFIGS", "item_event", "item_to_create", "response_params", "wrong_frames"]

Frame = dict[str, Any]

_FORMATS = ["audio/pcm", "audio/pcmu", "audio/pcma"]
_TOOL = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}
_TURN_DETECTION: list[Any] = [
    None,
    {"type": "server_vad"},
    {"type": "server_vad", "interrupt_response": False, "silence_duration_ms": 200},
    {"type": "server_vad", "create_response": False, "idle_timeout_ms": 5000},
    {"type": "server_vad", "idle_timeout_ms": 6000, "prefix_padding_ms": 0},
    {"type": "semantic_vad", "eagerness": "high"},
]
_OUTPUT: list[Frame] = [
    {"voice": "ash"},
    {"voice": {"id": "voice_1"}},
    {"speed": 1.25},
    {"format": None, "voice": "coral"},
    *({"format": {"type": name}} for name in _FORMATS),
]
_RETENTION: Frame = {"type": "retention_ratio", "retention_ratio": 0.5}
CONFIGS: list[Frame] = [
    *({"audio": {"input": {"turn_detection": turn}}} for turn in _TURN_DETECTION),
    *({"audio": {"input": {"format": {"type": name}}}} for name in _FORMATS),
    *({"audio": {"output": output}} for output in _OUTPUT),
    {"audio": {"input": {"transcription": None}}},
    {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
    {"model": "another", "tracing": "auto"},
    {"instructions": "", "tools": [_TOOL], "tool_choice": "required", "output_modalities": ["text"]},
    {"output_modalities": ["audio"], "tools": []},
    {"truncation": "disabled"},
    {"truncation": _RETENTION | {"token_limits": {"post_instructions": 20}}},
]
"Session objects, but for `type`, that change something while a session runs."

_AUDIO = base64.b64encode(b"\x10\x20" * 2400).decode()
_CONTENT: dict[str, list[Frame]] = {
    "system": [{"type": "input_text", "text": "Be kind."}],
    "user": [{"type": "input_text", "text": "Hi."}, {"type": "input_audio", "audio": _AUDIO}],
    "assistant": [
        {"type": "output_text", "text": "Yes."},
        {"type": "output_audio", "audio": _AUDIO, "transcript": "Yes, I am here."},
        {"type": "output_audio", "transcript": None},
    ],
}
_OTHER_ITEMS: list[Frame] = [
    {"type": "function_call", "name": "look_up", "arguments": "{}", "call_id": "call_1"},
    {"type": "function_call_output", "call_id": "call_1", "output": "done"},
]
_MESSAGES: list[Frame] = [
    {"type": "message", "role": role, "content": [part]} for role, parts in _CONTENT.items() for part in parts
]
_FRESH = [f"mine_{number}" for number in range(6)]


def _some_id(known: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from([*known, *_FRESH[:2], "nobody"])


def item_to_create(known: Sequence[str]) -> st.SearchStrategy[Frame]:
    """Return an event that adds an item: with an id of its own, a used one or none, in any place, also an unknown."""
    ids = st.none() | st.sampled_from([*_FRESH, *known])
    places = st.sampled_from([None, None, "root"]) | _some_id(known)

    def build(item: Frame, item_id: str | None, place: str | None, says_place: bool) -> Frame:
        given = item | ({"id": item_id} if item_id else {})
        event: Frame = {"type": "conversation.item.create", "item": given}
        return event | ({"previous_item_id": place} if says_place else {})

    return st.builds(build, st.sampled_from(_MESSAGES + _OTHER_ITEMS), ids, places, st.booleans())


def item_event(known: Sequence[str]) -> st.SearchStrategy[Frame]:
    """Return an event that retrieves, deletes or truncates an item, which may not be there."""

    def build(verb: str, item_id: str, content_index: int, audio_end_ms: int) -> Frame:
        event: Frame = {"type": f"conversation.item.{verb}", "item_id": item_id}
        where = {"content_index": content_index, "audio_end_ms": audio_end_ms}
        return event | (where if verb == "truncate" else {})

    return st.builds(
        build,
        st.sampled_from(["retrieve", "delete", "truncate", "truncate"]),
        _some_id(known),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 40, 400, 100_000]),
    )


def response_params(known: Sequence[str]) -> st.SearchStrategy[Frame | None]:
    """Return the `response` of a `response.create`."""
    contexts = st.lists(
        st.sampled_from(_MESSAGES)
        | st.builds(lambda one: {"type": "item_reference", "id": one}, _some_id(known)),
        max_size=2,
    )
    return st.none() | st.fixed_dictionaries(
        {},
        optional={
            "conversation": st.sampled_from(["none", "none", "auto"]),
            "output_modalities": st.sampled_from([["audio"], ["text"]]),
            "input": contexts,
            "metadata": st.just({"topic": "x"}),
            "tools": st.just([_TOOL]),
            "tool_choice": st.sampled_from(["none", "auto"]),
            "parallel_tool_calls": st.booleans(),
            "max_output_tokens": st.sampled_from([1, "inf"]),
            "audio": st.builds(
                lambda name: {"output": {"format": {"type": name}, "voice": "verse"}},
                st.sampled_from(_FORMATS),
            ),
        },
    )


_WRONG: list[Any] = [
    "{",
    "",
    "[]",
    '"response.create"',
    b'{"type":"response.create"}',
    b"\xff\x00",
    {},
    {"type": None},
    {"type": 7},
    {"type": "nonsense"},
    {"type": "response.make"},
    {"type": "session.update"},
    {"type": "session.update", "session": None},
    {"type": "session.update", "session": {}},
    {
        "type": "session.update",
        "session": {"type": "realtime", "tools": [{"type": "mcp"}], "instructions": "x"},
    },
    {"type": "session.update", "session": {"type": "realtime", "voice": "ash"}},
    {"type": "input_audio_buffer.append"},
    {"type": "input_audio_buffer.append", "audio": 1},
    {"type": "input_audio_buffer.append", "audio": "?"},
    {"type": "input_audio_buffer.append", "audio": "AAAA", "more": 1},
    {"type": "input_audio_buffer.commit", "item": 1},
    {"type": "input_audio_buffer.clear", "all": True},
    {"type": "output_audio_buffer.clear", "now": True},
    {"type": "conversation.item.create"},
    {"type": "conversation.item.create", "item": "Hi."},
    {"type": "conversation.item.create", "item": {"type": "message", "role": "robot", "content": []}},
    {"type": "conversation.item.create", "item": _MESSAGES[0], "previous_item_id": 3},
    {"type": "conversation.item.delete"},
    {"type": "conversation.item.retrieve", "item_id": None},
    {"type": "conversation.item.truncate", "item_id": "x", "content_index": -1, "audio_end_ms": 0},
    {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0},
    {"type": "response.create", "response": {"voice": "ash"}},
    {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "nobody"}]}},
    {"type": "response.create", "response": {"metadata": {"a": 1}}},
    {"type": "response.cancel", "response_id": 1},
    {"type": "response.cancel", "response_id": "resp_nobody"},
]


def wrong_frames() -> st.SearchStrategy[tuple[str | bytes, str | None]]:
    """Return frames that are wrong whatever the session is at, with the `event_id` that the error must echo."""

    def build(wrong: Any, event_id: str | None) -> tuple[str | bytes, str | None]:
        if not isinstance(wrong, dict):
            return wrong, None
        given = wrong | ({"event_id": event_id} if event_id else {})
        return orjson.dumps(given).decode(), event_id

    return st.builds(build, st.sampled_from(_WRONG), st.sampled_from([None, "e1"]))
