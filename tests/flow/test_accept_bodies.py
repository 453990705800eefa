"""Every kind of wrong accept body, over a real socket: each is a 400 in words, and the phone rings on (decision 3)."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband

_TOOL = {"type": "function", "name": "look_up"}


def _nested(depth: int, innermost: Any = None) -> Any:
    value = {} if innermost is None else innermost
    for _ in range(depth):
        value = {"properties": value}
    return value


def _vad(**fields: Any) -> dict[str, Any]:
    return {"audio": {"input": {"turn_detection": {"type": "server_vad", **fields}}}}


# Bodies that are no JSON object, as bytes; each with the `param` that the error names.
NO_SESSION = {
    "no JSON": (b"{type: realtime}", None),
    "cut off": (b'{"type": "realtime"', None),
    "two values": (b'{"type": "realtime"} {}', None),
    "NaN": (b'{"type": "realtime", "audio": {"output": {"speed": NaN}}}', None),
    "infinity": (b'{"type": "realtime", "audio": {"output": {"speed": 1e999}}}', None),
    "a number of 5,000 digits": (b'{"type": "realtime", "max_output_tokens": ' + b"1" * 5000 + b"}", None),
    "half a surrogate pair": (b'{"type": "realtime", "instructions": "\\ud83d"}', None),
    "no UTF-8": (b'{"type": "realtime", "instructions": "\xff"}', None),
    "a NUL byte": (b'{"type": "realtime"}\0', None),
    "50,000 open brackets": (b"[" * 50_000, None),
    "50,000 nested objects": (b'{"a":' * 50_000, None),
    "nothing": (b"", "session.type"),
    "blanks": (b" \r\n ", "session.type"),
    "null": (b"null", "session.type"),
    "an array": (b'[{"type": "realtime"}]', "session"),
    "a string": (b'"realtime"', "session"),
    "a number": (b"1", "session"),
    "a boolean": (b"true", "session"),
}

# Session objects with one fault each: the fields beside `type`, the code, the `param`.
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"type": None}, "missing_required_parameter", "session.type"),
    ({"type": 1}, "invalid_type", "session.type"),
    ({"type": {"type": "realtime"}}, "invalid_type", "session.type"),
    ({"type": "live"}, "invalid_value", "session.type"),
    ({"session": {"type": "realtime"}}, "unknown_parameter", "session.session"),
    ({"modalities": ["audio"]}, "unknown_parameter", "session.modalities"),
    ({"": 1}, "unknown_parameter", "session."),
    ({"model": 1}, "invalid_type", "session.model"),
    ({"model": ""}, "invalid_value", "session.model"),
    ({"instructions": ["be brief"]}, "invalid_type", "session.instructions"),
    ({"instructions": _nested(800)}, "invalid_type", "session.instructions"),
    ({"output_modalities": "audio"}, "invalid_type", "session.output_modalities"),
    ({"output_modalities": ["audio", "text"]}, "invalid_value", "session.output_modalities"),
    ({"output_modalities": ["video"]}, "invalid_value", "session.output_modalities[0]"),
    ({"audio": "loud"}, "invalid_type", "session.audio"),
    ({"audio": []}, "invalid_type", "session.audio"),
    ({"audio": {"input": 1}}, "invalid_type", "session.audio.input"),
    ({"audio": {"output": 1}}, "invalid_type", "session.audio.output"),
    ({"audio": {"both": {}}}, "unknown_parameter", "session.audio.both"),
    ({"audio": {"input": {"format": "pcm16"}}}, "invalid_type", "session.audio.input.format"),
    ({"audio": {"input": {"format": {}}}}, "missing_required_parameter", "session.audio.input.format.type"),
    ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "invalid_value", "session.audio.input.format.type"),
    ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}}, "invalid_value",
     "session.audio.input.format.rate"),
    ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": _nested(800)}}}}, "invalid_value",
     "session.audio.input.format.rate"),
    ({"audio": {"output": {"format": {"type": ["audio/pcm"]}}}}, "invalid_type", "session.audio.output.format.type"),
    ({"audio": {"input": {"turn_detection": True}}}, "invalid_type", "session.audio.input.turn_detection"),
    ({"audio": {"input": {"turn_detection": {}}}}, "missing_required_parameter",
     "session.audio.input.turn_detection.type"),
    ({"audio": {"input": {"turn_detection": {"type": "psychic_vad"}}}}, "invalid_value",
     "session.audio.input.turn_detection.type"),
    (_vad(threshold="0.5"), "invalid_type", "session.audio.input.turn_detection.threshold"),
    (_vad(threshold=1.01), "invalid_value", "session.audio.input.turn_detection.threshold"),
    (_vad(threshold=1e308), "invalid_value", "session.audio.input.turn_detection.threshold"),
    (_vad(prefix_padding_ms=-1), "invalid_value", "session.audio.input.turn_detection.prefix_padding_ms"),
    (_vad(prefix_padding_ms=0.5), "invalid_type", "session.audio.input.turn_detection.prefix_padding_ms"),
    (_vad(silence_duration_ms=True), "invalid_type", "session.audio.input.turn_detection.silence_duration_ms"),
    (_vad(silence_duration_ms=2**63), "invalid_value", "session.audio.input.turn_detection.silence_duration_ms"),
    (_vad(silence_duration_ms=10**40), "invalid_type", "session.audio.input.turn_detection.silence_duration_ms"),
    (_vad(idle_timeout_ms=4999), "invalid_value", "session.audio.input.turn_detection.idle_timeout_ms"),
    (_vad(create_response=1), "invalid_type", "session.audio.input.turn_detection.create_response"),
    (_vad(interrupt_response="yes"), "invalid_type", "session.audio.input.turn_detection.interrupt_response"),
    (_vad(eagerness="low"), "unknown_parameter", "session.audio.input.turn_detection.eagerness"),
    ({"audio": {"input": {"noise_reduction": {"type": "no_field"}}}}, "invalid_value",
     "session.audio.input.noise_reduction.type"),
    ({"audio": {"input": {"transcription": "whisper-1"}}}, "invalid_type", "session.audio.input.transcription"),
    ({"audio": {"input": {"transcription": {"model": 1}}}}, "invalid_type",
     "session.audio.input.transcription.model"),
    ({"audio": {"input": {"transcription": {"keywords": "Offhook"}}}}, "invalid_type",
     "session.audio.input.transcription.keywords"),
    ({"audio": {"output": {"voice": 7}}}, "invalid_type", "session.audio.output.voice"),
    ({"audio": {"output": {"voice": ""}}}, "invalid_value", "session.audio.output.voice"),
    ({"audio": {"output": {"voice": {}}}}, "missing_required_parameter", "session.audio.output.voice.id"),
    ({"audio": {"output": {"speed": 1.6}}}, "invalid_value", "session.audio.output.speed"),
    ({"audio": {"output": {"speed": "fast"}}}, "invalid_type", "session.audio.output.speed"),
    ({"tools": {}}, "invalid_type", "session.tools"),
    ({"tools": ["look_up"]}, "invalid_type", "session.tools[0]"),
    ({"tools": [{}]}, "missing_required_parameter", "session.tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "session.tools[0].name"),
    ({"tools": [_TOOL, {"type": "mcp", "server_label": "x"}]}, "invalid_value", "session.tools[1].type"),
    ({"tools": [_TOOL | {"name": "look up"}]}, "invalid_value", "session.tools[0].name"),
    ({"tools": [_TOOL | {"parameters": []}]}, "invalid_type", "session.tools[0].parameters"),
    ({"tools": [_TOOL | {"parameters": _nested(300)}]}, "invalid_value", "session.tools[0].parameters"),
    ({"tools": [_TOOL | {"parameters": _nested(800)}]}, "invalid_value", "session.tools[0].parameters"),
    ({"tools": [_TOOL | {"strict": True}]}, "unknown_parameter", "session.tools[0].strict"),
    ({"tool_choice": "maybe"}, "invalid_value", "session.tool_choice"),
    ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "session.tool_choice.name"),
    ({"tool_choice": 3}, "invalid_type", "session.tool_choice"),
    ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
    ({"max_output_tokens": 4097}, "invalid_value", "session.max_output_tokens"),
    ({"max_output_tokens": 10**30}, "invalid_type", "session.max_output_tokens"),
    ({"max_output_tokens": "many"}, "invalid_value", "session.max_output_tokens"),
    ({"truncation": "never"}, "invalid_value", "session.truncation"),
    ({"truncation": {"type": "retention_ratio", "retention_ratio": 2}}, "invalid_value",
     "session.truncation.retention_ratio"),
    ({"tracing": "manual"}, "invalid_value", "session.tracing"),
    ({"tracing": {"metadata": _nested(300)}}, "invalid_value", "session.tracing.metadata"),
    ({"prompt": "pmpt_1"}, "invalid_type", "session.prompt"),
    ({"prompt": {"id": "pmpt_1", "variables": _nested(300)}}, "invalid_value", "session.prompt.variables"),
    ({"include": ["everything"]}, "invalid_value", "session.include[0]"),
    ({"parallel_tool_calls": "no"}, "invalid_type", "session.parallel_tool_calls"),
    ({"reasoning": {"effort": "heroic"}}, "invalid_value", "session.reasoning.effort"),
]  # fmt: skip


class Ringing:
    """A call that rings, and a plain HTTP client."""

    def __init__(self, app: DeveloperApp, call: PhoneCall, call_id: str, http: httpx2.AsyncClient) -> None:
        self.app, self.call, self.call_id, self.http = app, call, call_id, http

    async def accept(self, body: bytes) -> httpx2.Response:
        return await self.http.post(
            f"{self.app.node.base_url}/realtime/calls/{self.call_id}/accept",
            content=body,
            headers={"Authorization": f"Bearer {self.app.seat.api_key}", "Content-Type": "application/json"},
        )


@pytest.fixture
async def ringing(app: DeveloperApp, phone: Phone):
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    async with httpx2.AsyncClient(timeout=30) as http:
        yield Ringing(app, call, call_id, http)


def _judge(response: httpx2.Response, what: object, code: str | None, param: str | None) -> None:
    assert response.status_code == 400, (what, response.text[:200])
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param), what
    assert len(error["message"]) < 400, what
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-request-id"]


async def test_what_is_no_session_object(ringing: Ringing) -> None:
    for what, (body, param) in NO_SESSION.items():
        response = await ringing.accept(body)
        code = {None: None, "session": "invalid_type"}.get(param, "missing_required_parameter")
        _judge(response, what, code, param)

    assert not ringing.call.received("200 INVITE")
    assert (await ringing.accept(b'{"type": "realtime"}')).status_code == 200
    await ringing.call.answered()


async def test_each_field_with_a_wrong_value(ringing: Ringing) -> None:
    for fields, code, param in FAULTS:
        response = await ringing.accept(json.dumps({"type": "realtime"} | fields).encode())
        _judge(response, str(fields)[:200], code, param)

    assert not ringing.call.received("200 INVITE")
    assert (await ringing.accept(b'{"type": "realtime"}')).status_code == 200
    await ringing.call.answered()


async def test_of_a_repeated_key_the_last_counts(ringing: Ringing) -> None:
    """RFC 8259 section 4 leaves it open; the hosted service's own JSON reader does the same."""
    body = b'{"type": 1, "instructions": "first", "type": "realtime", "instructions": "last"}'
    assert (await ringing.accept(body)).status_code == 200
    async with Sideband(ringing.app.client, ringing.call_id) as sideband:
        created = await sideband.wait_for("session.created")
    assert created["session"]["instructions"] == "last"


async def test_a_huge_name_is_not_repeated_in_full(ringing: Ringing, node: Node) -> None:
    response = await ringing.accept(json.dumps({"type": "realtime", "x" * 900_000: 1}).encode())
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "unknown_parameter"
    assert len(response.content) < 2_000
    timeline = json.dumps(await node.timeline(ringing.app.seat, ringing.call_id))
    assert len(timeline) < 20_000


async def test_odd_but_right_bodies_are_taken(ringing: Ringing, node: Node) -> None:
    """A byte order mark, blanks, integers for decimals, strange but legal text, tools of a sensible depth."""
    instructions = "\0\x1b[31m\u202e\U0001f600 line\u2028separator"
    session = {
        "type": "realtime",
        "instructions": instructions,
        "audio": {
            "output": {"speed": 1},
            "input": {"turn_detection": {"type": "server_vad", "threshold": 1}},
        },
        "tools": [_TOOL | {"parameters": _nested(40)}],
        "prompt": None,
        "tracing": None,
    }
    response = await ringing.accept(b"\xef\xbb\xbf \n" + json.dumps(session).encode() + b"\n")
    assert (response.status_code, response.content) == (200, b"")
    async with Sideband(ringing.app.client, ringing.call_id) as sideband:
        created = await sideband.wait_for("session.created")
    assert created["session"]["instructions"] == instructions
    assert created["session"]["tools"][0]["parameters"] == _nested(40)
    described = await node.describe(ringing.app.seat, ringing.call_id)
    assert described["session"]["instructions"] == instructions
