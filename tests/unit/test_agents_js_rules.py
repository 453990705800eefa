"""`tests/testbed/agents_js.py` finds what the JavaScript Agents SDK would pass over (API rows V03, V09 to V11)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from testbed import agents_js

PART = {
    "type": "response.content_part.added",
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 0,
    "content_index": 0,
    "part": {"type": "audio", "transcript": ""},
}
HEARD: dict[str, Any] = {
    "type": "conversation.item.added",
    "event_id": "event_1",
    "previous_item_id": None,
    "item": {
        "id": "item_1",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_audio", "transcript": None}],
    },
}
CALLED = {
    "type": "response.output_item.done",
    "event_id": "event_1",
    "response_id": "resp_1",
    "output_index": 0,
    "item": {
        "id": "item_1",
        "type": "function_call",
        "status": "completed",
        "name": "look_up",
        "call_id": "call_1",
        "arguments": "{}",
    },
}
NOT_HEARD = {
    "type": "conversation.item.input_audio_transcription.failed",
    "event_id": "event_1",
    "item_id": "item_1",
    "content_index": 0,
    "error": {"type": "server_error", "message": "It failed."},
}
DONE = {
    "type": "response.done",
    "event_id": "event_1",
    "response": {
        "id": "resp_1",
        "object": "realtime.response",
        "status": "completed",
        "status_details": None,
        "output": [],
        "audio": {"output": {"voice": "marin"}},
        "metadata": None,
    },
}


@pytest.mark.parametrize("event", [PART, HEARD, CALLED, NOT_HEARD, DONE], ids=lambda event: event["type"])
def test_what_the_sdk_takes(event: dict[str, Any]) -> None:
    assert agents_js.faults(event) == []


@pytest.mark.parametrize(
    ("event", "path", "value", "where"),
    [
        (PART, ("part", "type"), "output_audio", "part.type"),
        (PART, ("part", "transcript"), None, "part.transcript"),
        (HEARD, ("item", "id"), None, "item.id"),
        (HEARD, ("item", "role"), "tool", "item.role"),
        (HEARD, ("item", "content", 0), {"type": "input_audio"}, "in the history"),
        (HEARD, ("event_id",), None, "event_id"),
        (CALLED, ("item", "arguments"), None, "item.arguments"),
        (CALLED, ("item", "status"), "done", "item.status"),
        (NOT_HEARD, ("error", "code"), None, "error.code"),
        (DONE, ("response", "audio", "output", "voice"), {"id": "voice_1"}, "voice"),
        (DONE, ("response", "usage"), {"input_tokens": None}, "usage.input_tokens"),
    ],
)
def test_what_the_sdk_passes_over(
    event: dict[str, Any], path: tuple[Any, ...], value: Any, where: str
) -> None:
    broken = copy.deepcopy(event)
    inner: Any = broken
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    assert where in " ".join(agents_js.faults(broken))


def test_a_field_that_must_be_there() -> None:
    broken = {name: value for name, value in PART.items() if name != "response_id"}
    assert agents_js.faults(broken) == ["response.content_part.added has no response_id"]


def test_an_event_that_the_sdk_does_not_know_is_a_generic_one_anyway() -> None:
    assert agents_js.faults({"type": "input_audio_buffer.dtmf_event_received", "event": "1"}) == []


def test_what_only_upstreams_have_is_not_judged() -> None:
    image = copy.deepcopy(HEARD)
    image["item"]["content"] = [{"type": "input_image", "image_url": "data:,"}]
    tools = {"type": "mcp_list_tools", "tools": [{"name": "buy", "input_schema": {}}]}
    assert agents_js.faults(image) == agents_js.faults({**CALLED, "item": tools}) == []
