"""Sessions without a call whose model an upstream serves, by the openai package (API row S03)."""

import asyncio
import contextlib
import json
import socket

import pytest
import pytest_asyncio
from openai import APIStatusError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from offhook import ids
from offhook.clock import SystemClock
from offhook.realtime.client_secrets import ClientSecrets
from offhook.realtime.engines.upstream.target import Upstream
from offhook.realtime.session_config import DEFAULT_MODEL
from offhook.server import Destination, PassthroughModel
from offhook.server.sideband_limits import SidebandLimits
from offhook.tenants import Project
from testbed.hosted import HostedApi

KEY, AZURE_KEY = "sk-upstream-77Qx1", "azurekey-77Qx1"


@pytest_asyncio.fixture
async def apis():
    """Two services; the second has Azure's form."""
    async with HostedApi(key=KEY) as first, HostedApi(key=AZURE_KEY, form="azure") as second:
        yield first, second


@pytest_asyncio.fixture
async def relaying(start_node, apis):
    first, second = apis
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        down = Destination(Upstream("down", f"http://127.0.0.1:{closed.getsockname()[1]}/v1"))
        one = Destination(Upstream("one", first.url, key=KEY, silence_s=1.0))
        two = Destination(
            Upstream(
                "two", f"http://127.0.0.1:{second.port}", key=AZURE_KEY, kind="azure", deployment="theirs"
            )
        )
        table = {
            "m": [one],
            DEFAULT_MODEL: [one],
            "listed": [one, two],
            "far": [down, two],
            "down": [down],
            "on-azure": [two],
        }
        models = PassthroughModel(
            lambda model: table.get(model, ()), SystemClock(), SidebandLimits(), max_sessions=3
        )
        projects = [
            Project("proj_a", api_keys=("sk-a",)),
            Project("proj_b", api_keys=("sk-b",)),
            Project("proj_small", api_keys=("sk-small",), max_calls=1),
        ]
        secrets = ClientSecrets(wall=SystemClock().wall, new_id=ids.opaque_id, new_value=ids.api_key)
        async with start_node(projects, models=models, client_secrets=secrets) as node:
            node.models = models
            yield node


def plain(node, query, key="sk-a", **headers):
    return connect(
        f"{node.ws_url}/v1/realtime?{query}", additional_headers={"Authorization": f"Bearer {key}", **headers}
    )


async def test_a_session_of_a_model_is_the_upstreams_own(relaying, apis):
    first, _ = apis
    async with relaying.openai() as client, client.realtime.connect(model="m") as connection:
        created = await connection.recv()
        assert (created.type, created.session.id) == ("session.created", "sess_hosted")
        upstream = await first.opened()
        assert upstream.request.query == [("model", "m")]
        assert upstream.request.headers["authorization"] == f"Bearer {KEY}"
        await connection.input_audio_buffer.append(audio="AAAA")
        await upstream.until(lambda: upstream.received, "append")
        assert json.loads(upstream.received[0]) == {"type": "input_audio_buffer.append", "audio": "AAAA"}
        await upstream.close(1001, "limit")
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv_bytes()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "limit")


@pytest.mark.parametrize(
    ("asked", "number", "goes_up"),
    [
        # No kind that the hosted services are: others may choose by the model.
        ("intent=transcription&model=m", 0, [("model", "m"), ("intent", "transcription")]),
        ("intent=transcription", 0, [("intent", "transcription")]),
        ("intent=transcription&model=on-azure", 1, [("intent", "transcription")]),
    ],
)
async def test_a_transcription_session_is_the_upstreams_own_too(relaying, apis, asked, number, goes_up):
    async with plain(relaying, asked) as app:
        assert json.loads(await app.recv())["session"]["object"] == "realtime.transcription_session"
        upstream = await apis[number].opened()
        assert upstream.request.query == goes_up
        update = '{"type":"session.update","session":{"type":"transcription"}}'
        await app.send(update)
        await upstream.until(lambda: upstream.received, "update")
        assert upstream.received == [update]


@pytest.mark.parametrize("step", [(429, b"", {}), (500, b"", {}), (401, KEY.encode(), {}), "hang"])
async def test_the_next_of_a_list_is_tried(relaying, apis, step):
    first, second = apis
    first.plan.append(step)
    async with plain(relaying, "model=listed") as app:
        assert json.loads(await app.recv())["session"]["model"] == "theirs"
        assert app.response.headers["x-offhook-upstream"] == "two"
    assert [dict(one.query)["model"] for one in (*first.requests, *second.requests)] == ["listed", "theirs"]
    assert second.requests[0].headers["api-key"] == AZURE_KEY


async def test_an_upstream_that_is_down_is_passed_over(relaying):
    async with plain(relaying, "deployment=far") as app:
        assert json.loads(await app.recv())["type"] == "session.created"


async def test_what_the_last_one_answers_is_the_answer(relaying, apis):
    first, second = apis
    first.plan.append((500, b"first", {}))
    second.plan.append((429, b"second", {"retry-after": "4"}))
    with pytest.raises(InvalidStatus) as raised:
        await plain(relaying, "model=listed")
    assert (raised.value.response.status_code, raised.value.response.body) == (429, b"second")
    assert raised.value.response.headers["retry-after"] == "4"
    with pytest.raises(InvalidStatus) as raised:
        await plain(relaying, "model=down")
    assert raised.value.response.status_code == 502
    assert b"The upstream 'down' of this model did not answer" in raised.value.response.body


@pytest.mark.parametrize(
    ("query", "status"),
    [("model=ours", 501), ("model=m&intent=translation", 400), ("model=m&call_id=rtc_x", 404)],
)
async def test_nothing_else_goes_up(relaying, apis, query, status):
    with pytest.raises(InvalidStatus) as raised:
        await plain(relaying, query)
    assert raised.value.response.status_code == status
    assert not apis[0].requests


@pytest.mark.parametrize(
    ("session", "param", "remedy"),
    [
        ({"type": "realtime", "model": "m"}, "session.model", "give another model"),
        ({"type": "transcription"}, "session.type", "Ask the upstream"),
    ],
)
async def test_no_client_secret_is_made_for_it(relaying, session, param, remedy):
    """Row R26: of a transcription session it is the model of the default that counts."""
    async with relaying.openai(max_retries=0) as client:
        with pytest.raises(APIStatusError, match=remedy) as refused:
            await client.realtime.client_secrets.create(session=session)
        assert (refused.value.status_code, refused.value.param) == (501, param)
        made = await client.realtime.client_secrets.create(session={"type": "realtime", "model": "ours"})
        assert made.session.model == "ours"


async def test_nor_does_a_session_without_our_key_or_one_that_was_relayed(relaying, apis):
    for key, headers, status in ((KEY, {}, 401), ("sk-a", {"x-offhook-relayed": "1"}, 501)):
        with pytest.raises(InvalidStatus) as raised:
            await plain(relaying, "model=m", key, **headers)
        assert raised.value.response.status_code == status
    assert not apis[0].requests


async def test_sessions_are_as_many_as_the_project_and_the_node_have_calls(relaying, apis):
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(plain(relaying, "model=m", "sk-small"))
        with pytest.raises(InvalidStatus) as raised:
            await plain(relaying, "model=m", "sk-small")
        assert raised.value.response.status_code == 429
        for _ in range(2):
            await stack.enter_async_context(plain(relaying, "model=m"))
        with pytest.raises(InvalidStatus) as raised:
            await plain(relaying, "model=m", "sk-b")
        assert raised.value.response.status_code == 429
    assert len(apis[0].requests) == 3


async def test_a_node_that_shuts_down_takes_none_waits_and_then_ends_them_on_both_sides(relaying, apis):
    async with plain(relaying, "model=m") as app:
        await app.recv()
        upstream = await apis[0].opened()
        closing = asyncio.create_task(relaying.models.close(grace_s=0.3))
        await asyncio.sleep(0)
        with pytest.raises(InvalidStatus) as raised:
            await plain(relaying, "model=m")
        assert raised.value.response.status_code == 503
        await app.send("x")
        await upstream.until(lambda: upstream.received, "what is said in the grace time")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(app.recv(), 15)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the node was shut down")
        await upstream.until(lambda: upstream.closed, "close")
        assert upstream.closed == (1001, "the node was shut down")
        await asyncio.wait_for(closing, 15)


async def test_a_node_without_sessions_shuts_down_at_once(relaying):
    async with plain(relaying, "model=m") as app:
        await app.recv()
    await asyncio.wait_for(relaying.models.close(grace_s=60), 15)
