"""
What is wrong is told with its code, place and the client's `event_id`, and the session goes on (rows S21, C07 to C13).

On a real node: a phone call's sideband, a session without a call, and REST.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection

from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.model_session import ModelSession

Frame = dict[str, Any]
Fault = tuple[Frame, str, str | None]
Open = Callable[[], "contextlib.AbstractAsyncContextManager[Errors]"]
MINE = "event_of_mine"


class Errors:
    """A session in which one thing after another is done wrong."""

    def __init__(self, session: Sideband) -> None:
        self.session = session
        self._rounds = 0

    @property
    def socket(self) -> ClientConnection:
        return self.session.connection._connection  # type: ignore[return-value]

    async def after(self, frame: str | bytes) -> Frame:
        """Send a frame that is wrong, and return its error; nothing else happens, and the session answers on."""
        start = len(self.session.events)
        await self.socket.send(frame)
        error = await self.session.wait_for("error", after=start)
        await self.lives()
        came = [event["type"] for event in self.session.events[start:]]
        assert came == ["error", "session.updated"], (frame[:200], came)
        assert error["error"]["message"], frame[:200]
        assert len(error["error"]["message"]) < 1000
        return dict(error["error"])

    async def of(self, event: Frame) -> Frame:
        """Send an event that is wrong, with an id of ours, which its error repeats."""
        error = await self.after(json.dumps(event | {"event_id": MINE}))
        assert error["event_id"] == MINE, event
        return error

    async def lives(self) -> None:
        self._rounds += 1
        start = len(self.session.events)
        words = f"Round {self._rounds}."
        await self.session.connection.session.update(session={"type": "realtime", "instructions": words})
        updated = await self.session.wait_for("session.updated", after=start)
        assert updated["session"]["instructions"] == words

    async def answers(self) -> None:
        """Have a whole response."""
        start = len(self.session.events)
        await self.session.connection.response.create()
        done = await self.session.wait_for("response.done", after=start)
        assert done["response"]["status"] == "completed"


@pytest.fixture
def on_a_call(app: DeveloperApp, phone: Phone) -> Open:
    @contextlib.asynccontextmanager
    async def open_it() -> AsyncIterator[Errors]:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        async with Sideband(app.client, call_id) as sideband:
            await sideband.wait_for("session.created")
            yield Errors(sideband)
        assert call.alive

    return open_it


@pytest.fixture
def without_a_call(app: DeveloperApp) -> Open:
    @contextlib.asynccontextmanager
    async def open_it() -> AsyncIterator[Errors]:
        async with ModelSession(app.client) as session:
            yield Errors(session)

    return open_it


@pytest.fixture(params=["on_a_call", "without_a_call"])
def either(request: pytest.FixtureRequest) -> Open:
    found: Open = request.getfixturevalue(request.param)
    return found


def nested(depth: int) -> Frame:
    value: Frame = {}
    for _ in range(depth):
        value = {"in": value}
    return value


# Frames that are no events.


async def test_frames_that_are_no_events(either: Open) -> None:
    """Row S21."""
    async with either() as errors:
        for frame, code, param in (
            ("", "invalid_json", None),
            ("{", "invalid_json", None),
            ("{'type': 'response.create'}", "invalid_json", None),
            ('{"type": "response.create"} {}', "invalid_json", None),
            ('{"type": "response.create", "n": NaN}', "invalid_json", None),
            ('{"type": "response.cancel", "response_id": "\\ud800"}', "invalid_json", None),
            ("[" * 100_000, "invalid_json", None),
            ('{"a":' * 100_000, "invalid_json", None),
            ("[]", "invalid_type", None),
            ("null", "invalid_type", None),
            ('"response.create"', "invalid_type", None),
            ("7", "invalid_type", None),
            ("{}", "missing_required_parameter", "type"),
            ('{"type": null}', "missing_required_parameter", "type"),
            ('{"type": ["response.create"]}', "invalid_type", "type"),
            (b'{"type": "response.create"}', "invalid_value", None),
            (b"\xff\xfe\x00", "invalid_value", None),
            (b"", "invalid_value", None),
        ):
            error = await errors.after(frame)
            assert (error["type"], error["code"]) == ("invalid_request_error", code), frame[:200]
            assert (error["param"], error["event_id"]) == (param, None), frame[:200]
        await errors.answers()


async def test_an_event_id_that_is_none_is_an_error_and_not_repeated(either: Open) -> None:
    async with either() as errors:
        for given in (5, {"id": "x"}, "x" * 513, "x" * 1_000_000):
            error = await errors.after(json.dumps({"type": "response.cancel", "event_id": given}))
            assert (error["param"], error["event_id"]) == ("event_id", None)
        longest = "x" * 512
        error = await errors.after(json.dumps({"type": "response.cancel", "event_id": longest}))
        assert (error["code"], error["event_id"]) == ("response_cancel_not_active", longest)


# Events that are wrong, in every session.

MESSAGE: Frame = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
IMAGE: Frame = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
MCP: Frame = {"type": "mcp", "server_label": "deepwiki", "server_url": "https://mcp.example.com/mcp"}


def update(**session: Any) -> Frame:
    return {"type": "session.update", "session": {"type": "realtime"} | session}


def create(item: Any, **more: Any) -> Frame:
    return {"type": "conversation.item.create", "item": item} | more


def respond(**response: Any) -> Frame:
    return {"type": "response.create", "response": response}


def said(*content: Any, role: str = "user") -> Frame:
    return {"type": "message", "role": role, "content": list(content)}


FAULTS: list[Fault] = [
    # Kinds of events.
    ({"type": "session.dance"}, "invalid_value", "type"),
    ({"type": "transcription_session.update", "session": {}}, "invalid_value", "type"),
    ({"type": "response.create", "more": 1}, "unknown_parameter", "more"),
    # E01 to E10.
    ({"type": "session.update"}, "missing_required_parameter", "session"),
    ({"type": "session.update", "session": None}, "invalid_type", "session"),
    ({"type": "session.update", "session": []}, "invalid_type", "session"),
    ({"type": "session.update", "session": {}}, "missing_required_parameter", "session.type"),
    ({"type": "session.update", "session": {"type": "live"}}, "invalid_value", "session.type"),
    (update(voice="ash"), "unknown_parameter", "session.voice"),
    (update(instructions=1), "invalid_type", "session.instructions"),
    (update(audio={"output": {"speed": 9}}), "invalid_value", "session.audio.output.speed"),
    (update(audio={"input": {"turn_detection": {"threshold": 2}}}), "invalid_value",
     "session.audio.input.turn_detection.threshold"),
    (update(tools=[{"type": "function", "name": "f", "parameters": nested(300)}]), "invalid_value",
     "session.tools[0].parameters"),
    # E14, E15.
    ({"type": "response.create", "response": "now"}, "invalid_type", "response"),
    (respond(voice="ash"), "unknown_parameter", "response.voice"),
    (respond(conversation="both"), "invalid_value", "response.conversation"),
    (respond(output_modalities=["audio", "text"]), "invalid_value", "response.output_modalities"),
    (respond(max_output_tokens=0), "invalid_value", "response.max_output_tokens"),
    (respond(metadata={"k": 1}), "invalid_type", "response.metadata.k"),
    (respond(metadata={f"k{n}": "v" for n in range(17)}), "invalid_value", "response.metadata"),
    (respond(input={}), "invalid_type", "response.input"),
    (respond(input=[{"type": "item_reference"}]), "missing_required_parameter", "response.input[0].id"),
    (respond(input=[{"type": "item_reference", "id": "item_x"}]), "invalid_value", "response.input[0].id"),
    (respond(input=[said({"type": "input_text"})]), "missing_required_parameter", "response.input[0].content[0].text"),
    # E16.
    ({"type": "response.cancel"}, "response_cancel_not_active", None),
    ({"type": "response.cancel", "response_id": "resp_x"}, "response_cancel_not_active", None),
    ({"type": "response.cancel", "response_id": 1}, "invalid_type", "response_id"),
    # E18, E19.
    ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
    (create("hello"), "invalid_type", "item"),
    (create({}), "missing_required_parameter", "item.type"),
    (create({"type": "poem"}), "invalid_value", "item.type"),
    (create(MESSAGE | {"role": "robot"}), "invalid_value", "item.role"),
    (create(MESSAGE | {"content": "Hello."}), "invalid_type", "item.content"),
    (create(said({"type": "text", "text": "x"})), "invalid_value", "item.content[0].type"),
    (create(said({"type": "input_text", "text": nested(500)})), "invalid_type", "item.content[0].text"),
    (create(said({"type": "input_audio", "audio": "?"})), "invalid_value", "item.content[0].audio"),
    (create(MESSAGE | {"id": ""}), "invalid_value", "item.id"),
    (create(MESSAGE | {"id": "x" * 129}), "invalid_value", "item.id"),
    (create(MESSAGE, previous_item_id="item_x"), "item_create_invalid_previous_item_id", "previous_item_id"),
    (create({"type": "function_call_output", "output": "x"}), "missing_required_parameter", "item.call_id"),
    # E20 to E22.
    ({"type": "conversation.item.retrieve", "item_id": "item_x"}, "item_retrieve_invalid_item_id", "item_id"),
    ({"type": "conversation.item.retrieve"}, "missing_required_parameter", "item_id"),
    ({"type": "conversation.item.delete", "item_id": "item_x"}, "item_delete_invalid_item_id", "item_id"),
    ({"type": "conversation.item.delete", "item_id": 1}, "invalid_type", "item_id"),
    ({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": 0},
     "item_truncate_invalid_item_id", "item_id"),
    ({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0},
     "missing_required_parameter", "audio_end_ms"),
    ({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": -1},
     "invalid_value", "audio_end_ms"),
    ({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": 1.5},
     "invalid_type", "audio_end_ms"),
]  # fmt: skip

UNSUPPORTED: list[tuple[Frame, str, str]] = [
    (update(tools=[MCP]), "session.tools[0].type", "MCP"),
    (update(tool_choice={"type": "mcp", "server_label": "deepwiki"}), "session.tool_choice.type", "MCP"),
    (respond(tools=[MCP]), "response.tools[0].type", "MCP"),
    (create({"type": "mcp_approval_response", "id": "x", "approve": True}), "item.type", "MCP"),
    (create({"type": "mcp_list_tools", "server_label": "x", "tools": []}), "item.type", "MCP"),
    (create(said(MESSAGE["content"][0], IMAGE)), "item.content[1].type", "input_text"),
    (respond(input=[said(IMAGE)]), "response.input[0].content[0].type", "input_text"),
    (update(prompt={"id": "pmpt_1"}), "session.prompt", "'session.instructions'"),
    (respond(prompt={"id": "pmpt_1", "version": "2"}), "response.prompt", "'response.instructions'"),
]
"Each with a word of its remedy."


async def test_events_that_are_wrong(either: Open) -> None:
    """Rows E01 to E22, S21: each has its code and its place, changes nothing, and says whose it is."""
    async with either() as errors:
        for event, code, param in FAULTS:
            error = await errors.of(event)
            found = (error["type"], error["code"], error["param"])
            assert found == ("invalid_request_error", code, param), event
        await errors.answers()


async def test_what_is_not_supported_is_refused_by_name(either: Open) -> None:
    """Rows E26, G13, G14, G18, E19: MCP, images and prompts that are stored elsewhere."""
    async with either() as errors:
        for event, param, remedy in UNSUPPORTED:
            error = await errors.of(event)
            found = (error["type"], error["code"], error["param"])
            assert found == ("invalid_request_error", "invalid_value", param), event
            assert remedy in error["message"]
        await errors.answers()


async def test_tracing_and_a_prompt_with_its_instructions_are_taken_and_echoed(either: Open) -> None:
    """Rows E08, G17, G18: tracing has nowhere to go here; of a prompt the instructions count."""
    prompt = {"id": "pmpt_1", "version": "2", "variables": {"name": "Zoë"}}
    async with either() as errors:
        start = len(errors.session.events)
        session: Any = {"type": "realtime", "instructions": "Be kind.", "prompt": prompt, "tracing": "auto"}
        await errors.session.connection.session.update(session=session)
        updated = await errors.session.wait_for("session.updated", after=start)
        assert {name: updated["session"][name] for name in session} == session
        await errors.lives()
        await errors.answers()


async def test_what_the_conversation_already_has(either: Open) -> None:
    """Rows E18, E21."""
    async with either() as errors:
        connection = errors.session.connection
        await connection.conversation.item.create(item=MESSAGE | {"id": "first"})  # type: ignore[arg-type]
        await errors.session.wait_for("conversation.item.done")
        for event, code, param in (
            (create(MESSAGE | {"id": "first"}), "item_create_duplicate_item_id", "item.id"),
            ({"type": "conversation.item.truncate", "item_id": "first", "content_index": 0, "audio_end_ms": 0},
             "invalid_value", "item_id"),
        ):  # fmt: skip
            error = await errors.of(event)
            assert (error["code"], error["param"]) == (code, param), event
        await errors.answers()


async def test_a_voice_that_was_heard_cannot_change(either: Open) -> None:
    """Row E07."""
    async with either() as errors:
        await errors.answers()
        start = len(errors.session.events)
        event = update(instructions="Be brief.", audio={"output": {"voice": "cedar"}})
        await errors.socket.send(json.dumps(event | {"event_id": MINE}))
        error = (await errors.session.wait_for("error", after=start))["error"]
        assert (error["code"], error["param"]) == ("cannot_update_voice", "session.audio.output.voice")
        assert error["event_id"] == MINE
        updated = await errors.session.wait_for("session.updated", after=start)
        assert updated["session"]["instructions"] == "Be brief."
        assert updated["session"]["audio"]["output"]["voice"] == "marin"


# Sound.


def append(size: int) -> Frame:
    """An append with so many characters of base64."""
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(size // 4 * 3)).decode()}


MIB = 1024 * 1024


async def test_appended_sound_that_is_wrong(without_a_call: Open) -> None:
    """Rows E17, E23, E24, S19."""
    async with without_a_call() as errors:
        for audio, code in (
            ("!", "invalid_value"),
            ("AAA", "invalid_value"),
            ("AA==", "invalid_value"),
            (1, "invalid_type"),
            (None, "invalid_type"),
            (["AAAA"], "invalid_type"),
        ):
            error = await errors.of({"type": "input_audio_buffer.append", "audio": audio})
            assert (error["code"], error["param"]) == (code, "audio"), audio
        error = await errors.of({"type": "input_audio_buffer.append"})
        assert (error["code"], error["param"]) == ("missing_required_parameter", "audio")
        error = await errors.of({"type": "input_audio_buffer.append", "audio": "AAAA", "more": 1})
        assert (error["code"], error["param"]) == ("unknown_parameter", "more")
        error = await errors.of({"type": "input_audio_buffer.commit"})
        assert (error["code"], error["param"]) == ("input_audio_buffer_commit_empty", None)
        error = await errors.of({"type": "output_audio_buffer.clear"})
        assert (error["code"], error["param"]) == ("unsupported_event", "type")
        await errors.answers()


async def test_an_append_of_16_mib_is_taken_and_one_over_the_limit_is_an_error(without_a_call: Open) -> None:
    """Row S19: 15 MiB of sound, which are 20 in base64; nothing of a longer one is heard."""
    async with without_a_call() as errors:
        error = await errors.of(append(20 * MIB + 400))
        assert (error["code"], error["param"]) == ("invalid_value", "audio")
        assert "15 MiB" in error["message"]
        error = await errors.of({"type": "input_audio_buffer.commit"})
        assert error["code"] == "input_audio_buffer_commit_empty"
        error = await errors.of(append(16 * MIB) | {"audio": "A" * (16 * MIB - 2) + "!!"})
        assert (error["code"], error["param"]) == ("invalid_value", "audio")
        await errors.socket.send(json.dumps(append(16 * MIB)))
        await errors.lives()
        await errors.answers()


async def test_a_phone_call_takes_no_sound_from_clients(on_a_call: Open) -> None:
    """Row E23, whatever its size."""
    async with on_a_call() as errors:
        for size in (4, 16 * MIB):
            error = await errors.of(append(size))
            assert (error["code"], error["param"]) == ("unsupported_event", "type")
        await errors.answers()


# REST.

REFER = "/v1/realtime/calls/{call_id}/refer"
REQUESTS: list[tuple[str, str, bytes, int, str | None, str | None]] = [
    ("POST", REFER, b"{", 400, None, None),
    ("POST", REFER, b"\xff", 400, None, None),
    ("POST", REFER, b"[" * 50_000, 400, None, None),
    ("POST", REFER, b"[]", 400, "invalid_type", None),
    ("POST", REFER, b"", 400, "missing_required_parameter", "target_uri"),
    ("POST", REFER, b'{"target_uri": 7}', 400, "invalid_type", "target_uri"),
    ("POST", REFER, b'{"target_uri": "mailto:x@example.com"}', 400, "invalid_value", "target_uri"),
    ("POST", REFER, b'{"target_uri": "tel:+1555", "now": true}', 400, "unknown_parameter", "now"),
    ("POST", REFER, b'{"target_uri": "' + b"x" * MIB + b'"}', 413, "request_too_large", None),
    ("POST", REFER + "?wait_for_playout=perhaps", b"{}", 400, "invalid_value", "wait_for_playout"),
    ("POST", "/v1/realtime/calls/{call_id}/reject", b'{"status_code": 200}', 400, "invalid_value", "status_code"),
    ("POST", "/v1/realtime/calls/{call_id}/reject", b"{}", 409, "call_already_accepted", None),
    ("POST", "/v1/realtime/calls/{call_id}/dtmf", b'{"digits": "x"}', 400, "invalid_value", "digits"),
    ("POST", "/v1/realtime/calls/{call_id}/recording", b'{"action": "eat"}', 400, "invalid_value", "action"),
    ("PUT", "/v1/realtime/calls/{call_id}/hangup", b"", 405, "method_not_supported", None),
    ("POST", "/v1/realtime/calls", b"v=0", 501, "not_supported", None),
    ("POST", "/v1/realtime/client_secrets", b'{"expires_after": {"seconds": 9}}', 400, "invalid_value",
     "expires_after.seconds"),
    ("POST", "/v1/realtime/client_secrets", b'{"session": {"type": "realtime", "tools": [{"type": "mcp"}]}}', 400,
     "invalid_value", "session.tools[0].type"),
    ("POST", "/v1/realtime/client_secrets", b'{"session": {"prompt": {"id": "pmpt_1"}}}', 400, "invalid_value",
     "session.prompt"),
    ("POST", "/v1/webhook_endpoints", b'{"name": "x"}', 400, "missing_required_parameter", "event_types"),
    ("GET", "/v1/realtime/calls?limit=0", b"", 400, "invalid_value", "limit"),
    ("GET", "/v1/realtime", b"", 426, "upgrade_required", None),
    ("GET", "/v1/realtime/sessions", b"", 404, "unknown_url", None),
    ("POST", "/v1/realtime/transcription_sessions", b"{}", 404, "unknown_url", None),
    ("POST", "/v1/live/sessions/live_1/accept", b"{}", 404, "unknown_url", None),
]  # fmt: skip


async def test_requests_that_are_wrong(app: DeveloperApp, phone: Phone) -> None:
    """Rows C04, C07, C09, C13: one shape, the request's id, whether to try again; the call is not harmed."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    headers = {"Authorization": f"Bearer {app.seat.api_key}", "Content-Type": "application/json"}
    ids = set()
    base = app.node.base_url.removesuffix("/v1")
    async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=30) as client:
        for method, path, body, status, code, param in REQUESTS:
            answer = await client.request(method, path.format(call_id=call_id), content=body)
            error = answer.json()["error"]
            where = (method, path, body[:80])
            assert (answer.status_code, error["code"], error["param"]) == (status, code, param), where
            assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error"), where
            assert {"message", "type", "param", "code"} == error.keys(), where
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["openai-version"] == "2020-10-01"
            assert int(answer.headers["openai-processing-ms"]) >= 0
            ids.add(answer.headers["x-request-id"])
    assert len(ids) == len(REQUESTS)
    assert call.alive


@pytest.mark.parametrize(
    ("key", "headers", "body", "raised", "code"),
    [
        (None, {}, {"session": {"type": "live"}}, openai.BadRequestError, "invalid_value"),
        ("sk-wrong", {}, {}, openai.AuthenticationError, "invalid_api_key"),
        (None, {"OpenAI-Project": "proj_else"}, {}, openai.AuthenticationError, "mismatched_project"),
    ],
)
async def test_statuses_become_the_sdks_exceptions(
    node: Node, key: str | None, headers: dict[str, str], body: Frame, raised: type[Exception], code: str
) -> None:
    """Rows C08, C10."""
    async with AsyncOpenAI(api_key=key or node.seats[0].api_key, base_url=node.base_url) as client:
        with pytest.raises(raised) as caught:
            await client.post(
                "/realtime/client_secrets", body=body, cast_to=dict, options={"headers": headers}
            )
    error: Any = caught.value
    assert (error.code, bool(error.request_id)) == (code, True)
