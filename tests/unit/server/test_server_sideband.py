"""The sideband, by the openai package and by `websockets` (API rows S01 to S21)."""

import asyncio
import contextlib
import json
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from offhook.clock import SystemClock
from offhook.server import ServerServices
from offhook.server.sideband import SidebandRoute
from offhook.tenants import ConfiguredProjects, Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = {"Authorization": "Bearer sk-a"}
NOT_FOUND = {
    "error": {
        "message": "No session found for the provided call_id",
        "type": "invalid_request_error",
        "code": "call_id_not_found",
        "param": "",
    }
}


def sideband(node, query="?call_id=rtc_u0_1", *, path="/v1/realtime", headers=KEY, **options):
    return connect(f"{node.ws_url}{path}{query}", additional_headers=headers, compression=None, **options)


async def refused(node, *args, **kwargs):
    """Return the HTTP response to a handshake that must fail."""
    with pytest.raises(InvalidStatus) as caught:
        await sideband(node, *args, **kwargs)
    response = caught.value.response
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-should-retry"] == "false"
    return response.status_code, json.loads(response.body)


async def until(condition):
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def test_openai_attaches_hears_and_speaks(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with node.openai() as client, client.realtime.connect(call_id="rtc_u0_1") as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.response.create()
        await call.runner.heard.wait()
        call.runner.say({"type": "error", "event_id": "e", "error": {"type": "x", "message": "Grüße"}})
        assert (await connection.recv()).error.message == "Grüße"
    attached = call.timeline.entries()[0]
    assert (attached.kind, attached.title) == ("sideband", "attached")
    await until(lambda: call.timeline.entries()[-1].title == "detached")


async def test_the_call_id_wins_over_the_model(node):
    node.calls.add("rtc_u0_1", state="active")
    async with (
        node.openai() as client,
        client.realtime.connect(model="gpt-realtime", call_id="rtc_u0_1") as connection,
    ):
        assert (await connection.recv()).type == "session.created"


async def test_events_are_text_frames(node):
    node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as ws:
        assert isinstance(await ws.recv(), str)


async def test_handshake_headers_that_sdks_send_are_borne(node):
    node.calls.add("rtc_u0_1", state="active")
    headers = {
        **KEY,
        "accept": "application/json",
        "content-type": "application/json",
        "x-stainless-lang": "python",
        "openai-project": "proj_a",
        "X-OpenAI-Agents-SDK": "1",
    }
    async with sideband(node, headers=headers) as ws:
        assert ws.response.headers["x-request-id"].startswith("req_")
        assert ws.response.headers["openai-version"] == "2020-10-01"
        await ws.recv()


# Refused before the upgrade.


async def test_an_unknown_call(node, caplog):
    assert await refused(node) == (404, NOT_FOUND)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_another_projects_call(node):
    node.calls.add("rtc_u0_1", "proj_b", state="active")
    assert await refused(node) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_api_key"),
        ({"Authorization": "Bearer sk-wrong"}, "invalid_api_key"),
        ({"Authorization": "Bearer ek_1"}, "invalid_api_key"),
        ({**KEY, "OpenAI-Project": "proj_b"}, "mismatched_project"),
    ],
)
async def test_a_wrong_key(node, headers, code):
    node.calls.add("rtc_u0_1", state="active")
    status, body = await refused(node, headers=headers)
    assert (status, body["error"]["code"]) == (401, code)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "missing_required_parameter"),
        ("?call_id=", 400, "missing_required_parameter"),
        ("?model=gpt-realtime", 501, "not_supported"),
        ("?intent=transcription", 501, "not_supported"),
        ("?call_id=rtc_u0_1&events=call,video", 400, "invalid_value"),
    ],
)
async def test_a_wrong_query(node, query, status, code):
    node.calls.add("rtc_u0_1", state="active")
    found, body = await refused(node, query)
    assert (found, body["error"]["code"]) == (status, code)


async def test_an_unknown_path(node):
    status, body = await refused(node, path="/v1/realtime/translations")
    assert (status, body["error"]["code"]) == (404, "unknown_url")


async def test_a_fault_of_ours_before_the_upgrade_is_a_500_in_json(node):
    call = node.calls.add("rtc_u0_1", state="active")
    call.session = None
    status, body = await refused(node)
    assert (status, body["error"]["type"]) == (500, "server_error")


async def test_more_sidebands_than_a_call_may_have(strict_node):
    strict_node.calls.add("rtc_u0_1", state="active")
    async with sideband(strict_node) as first, sideband(strict_node):
        status, body = await refused(strict_node)
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        await first.close()
        await until(lambda: len(strict_node.calls.calls["rtc_u0_1"].runner.attachments) == 1)
        async with sideband(strict_node) as third:
            await third.recv()


# Before the accept.


async def test_an_attach_before_the_accept_waits_for_it(node):
    call = node.calls.add("rtc_u0_1")
    attaching = asyncio.create_task(sideband(node).__aenter__())
    await until(lambda: call.waiting)
    assert not attaching.done()
    async with node.raw() as http:
        await http.post("/v1/realtime/calls/rtc_u0_1/accept", json={"type": "realtime"})
    ws = await attaching
    assert json.loads(await ws.recv())["type"] == "session.created"
    await ws.close()
    assert call.asked == [("accept", {"type": "realtime"})]


async def test_those_that_wait_for_the_accept_count_too(strict_node):
    call = strict_node.calls.add("rtc_u0_1")
    waiting = [asyncio.create_task(sideband(strict_node).__aenter__()) for _ in range(2)]
    await until(lambda: call.waiting == 2)
    status, body = await refused(strict_node)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    call.decided.set()
    for ws in await asyncio.gather(*waiting):
        await ws.close()
    await until(lambda: not call.runner.attachments)
    # Their places are free again, as are those of clients whom nobody answered.
    call.decided.clear()
    call.attach_timeout_s = 0.05
    for _ in range(3):
        assert await refused(strict_node) == (404, NOT_FOUND)
    call.decided.set()
    async with sideband(strict_node), sideband(strict_node):
        pass


async def test_an_attach_that_nobody_accepts_is_a_404(node):
    node.calls.add("rtc_u0_1").attach_timeout_s = 0.05
    assert await refused(node) == (404, NOT_FOUND)


# Subprotocols and the beta.


async def test_a_key_as_subprotocol_selects_realtime_and_is_never_echoed(node):
    node.calls.add("rtc_u0_1", state="active")
    offered = ["realtime", "openai-insecure-api-key.sk-a", "openai-project.proj_a", "openai-beta.realtime-v1"]
    async with sideband(node, headers={}, subprotocols=offered) as ws:
        assert ws.subprotocol == "realtime"
        assert "sk-a" not in str(ws.response.headers)
        assert json.loads(await ws.recv())["type"] == "session.created"


async def test_no_subprotocol_offered_none_selected(node):
    node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as ws:
        assert ws.subprotocol is None


async def test_a_project_as_subprotocol_must_be_the_keys(node):
    node.calls.add("rtc_u0_1", state="active")
    offered = ["realtime", "openai-insecure-api-key.sk-a", "openai-project.proj_b"]
    status, body = await refused(node, headers={}, subprotocols=offered)
    assert (status, body["error"]["code"]) == (401, "mismatched_project")


async def test_the_beta_header_is_closed_with_4000(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node, headers={**KEY, "OpenAI-Beta": "realtime=v1"}) as ws:
        event = json.loads(await ws.recv())
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
    assert (event["type"], event["error"]["code"]) == ("error", "beta_api_shape_disabled")
    assert caught.value.rcvd.code == 4000
    assert caught.value.rcvd.reason == "invalid_request_error.beta_api_shape_disabled"
    assert call.runner.attachments == []


# While attached.


@pytest.mark.parametrize(
    ("query", "events"),
    [("", set()), ("&events=call", {"call"}), ("&events=call,audio", {"call", "audio"}), ("&events=", set())],
)
async def test_extensions_are_asked_for_in_the_url(node, query, events):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node, f"?call_id=rtc_u0_1{query}") as ws:
        await ws.recv()
        assert call.runner.attachments[0].events == events


async def test_several_sidebands_each_get_all_and_may_leave(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as first:
        async with sideband(node) as second:
            await first.recv(), await second.recv()
            call.runner.say({"type": "one"})
            assert [json.loads(await ws.recv())["type"] for ws in (first, second)] == ["one", "one"]
        await until(lambda: len(call.runner.attachments) == 1)
        call.runner.say({"type": "two"})
        assert json.loads(await first.recv())["type"] == "two"
    assert call.asked == []


async def test_a_sideband_may_come_back(node):
    call = node.calls.add("rtc_u0_1", state="active")
    for _ in range(2):
        async with sideband(node) as ws:
            assert json.loads(await ws.recv())["type"] == "session.created"
        await until(lambda: not call.runner.attachments)


async def test_frames_go_to_the_session_as_they_came(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as ws:
        await ws.recv()
        await ws.send('{"type":"response.create"}')
        await ws.send("not json")
        await ws.send(b"\x00\x01")
        await ws.send(["frag", "mented ü"])
        received = call.runner.attachments[0].received
        await until(lambda: len(received) == 4)
    assert received == ['{"type":"response.create"}', "not json", b"\x00\x01", "fragmented ü"]


@pytest.mark.parametrize("frame", ["x" * (15 * 1024 * 1024), "xü€" * 100_000])
async def test_a_large_frame_is_taken_whole(node, frame):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as ws:
        await ws.recv()
        await ws.send(frame)
        await until(call.runner.heard.is_set)
        (attachment,) = call.runner.attachments
        assert [str(one) for one in attachment.received] == [frame]


async def test_a_large_text_that_is_none_costs_its_sender_the_connection(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as good, sideband(node) as ws:
        await ws.recv(), await good.recv()
        with contextlib.suppress(ConnectionClosed):
            await ws.send(b"x" * 300_000 + b"\xff" + b"x" * 900_000, text=True)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd.code == 1007
        await until(lambda: len(call.runner.attachments) == 1)
        call.runner.say({"type": "one"})
        assert json.loads(await good.recv())["type"] == "one"


async def test_the_end_of_a_call_drains_what_is_queued_and_closes_1000(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as ws:
        await ws.recv()
        for number in range(500):
            call.runner.say({"type": "event", "number": number})
        call.runner.close()
        call.runner.say({"type": "too late"})
        events = [json.loads(frame) async for frame in ws]
    assert [event["number"] for event in events] == list(range(500))
    assert ws.close_code == 1000


async def test_openai_ends_its_loop_in_silence_when_the_call_ends(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with node.openai() as client, client.realtime.connect(call_id="rtc_u0_1") as connection:
        call.runner.close()
        assert [event.type async for event in connection] == ["session.created"]


async def test_pings_are_answered_while_events_flow(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node, ping_interval=None, max_queue=None) as ws:
        for _ in range(5):
            for _ in range(100):
                call.runner.say({"type": "event"})
            pong = await ws.ping()
            async with asyncio.timeout(15):
                await pong


async def test_a_fault_of_ours_in_a_session_closes_1011(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with sideband(node) as ws:
        await ws.recv()
        await ws.send("raise")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
    assert caught.value.rcvd.code == 1011
    assert call.runner.attachments == []


async def test_a_sideband_whose_server_is_cancelled_leaves_no_task_behind(node):
    """As uvicorn does with what still runs when its grace is over."""
    call = node.calls.add("rtc_u0_1", state="active")
    projects = ConfiguredProjects([Project("proj_a", api_keys=("sk-a",))])
    route = SidebandRoute(ServerServices(projects=projects, calls=node.calls, clock=SystemClock()))
    silent, sent, before = asyncio.Event(), [], asyncio.all_tasks()

    async def receive():
        if sent:
            await silent.wait()
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {
        "type": "websocket",
        "path": "/v1/realtime",
        "headers": [(b"authorization", b"Bearer sk-a")],
        "query_string": b"call_id=rtc_u0_1",
        "subprotocols": [],
        "state": {"request_id": "req_1"},
    }
    serving = asyncio.create_task(route(scope, receive, send))
    await until(lambda: sent == ["websocket.accept", "websocket.send"])
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert call.runner.attachments == []
    assert asyncio.all_tasks() == before


async def test_a_peer_that_vanishes_is_forgotten(node):
    call = node.calls.add("rtc_u0_1", state="active")
    ws = await sideband(node)
    await ws.recv()
    ws.transport.abort()
    await until(lambda: not call.runner.attachments)


# Slow readers.


@contextlib.asynccontextmanager
async def slow_reader(node):
    """A sideband whose socket nobody reads."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", node.port))
    handshake = (
        "GET /v1/realtime?call_id=rtc_u0_1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer sk-a\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(raw, handshake.encode())
    try:
        yield raw
    finally:
        raw.close()


async def test_a_slow_reader_is_dropped_and_the_others_are_not(strict_node):
    call = strict_node.calls.add("rtc_u0_1", state="active")
    async with slow_reader(strict_node) as raw, sideband(strict_node) as good:
        await good.recv()
        await until(lambda: len(call.runner.attachments) == 2)
        heard = 0
        for _ in range(2000):
            call.runner.say({"type": "event", "padding": "x" * 20_000})
            await good.recv()
            heard += 1
            if len(call.runner.attachments) == 1:
                break
        assert heard > 50
        await until(lambda: any("dropped: the reader is" in entry.title for entry in call.timeline.entries()))
        call.runner.say({"type": "after"})
        assert json.loads(await good.recv())["type"] == "after"
        raw.setblocking(True)
        raw.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(1_000_000):
                pass  # ends, because the connection was cut
    assert call.asked == []


async def test_a_reader_that_stops_at_the_end_of_the_call_is_not_waited_for(strict_node):
    call = strict_node.calls.add("rtc_u0_1", state="active")
    async with slow_reader(strict_node):
        await until(lambda: call.runner.attachments)
        for _ in range(40):
            call.runner.say({"type": "event", "padding": "x" * 200_000})
        call.runner.close()
        await until(lambda: not call.runner.attachments)
    assert "not read within" in call.timeline.entries()[-1].title
