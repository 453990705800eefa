"""openai-python, unmodified: a server makes a client secret, a client that has nothing else talks (rows R26, C02)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, AuthenticationError, BadRequestError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from testbed import DeveloperApp, Node, Phone


@pytest.fixture
async def server(node: Node) -> AsyncIterator[AsyncOpenAI]:
    """The developer's own, which has the project's key."""
    async with AsyncOpenAI(api_key=node.seats[0].api_key, base_url=node.base_url, max_retries=0) as ready:
        yield ready


def guest(node: Node, secret: str) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=secret, base_url=node.base_url, max_retries=0)


async def test_a_session_begins_as_its_secret_says(node: Node, server: AsyncOpenAI) -> None:
    made = await server.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={
            "type": "realtime",
            "model": "gpt-realtime",
            "instructions": "Be brief.",
            "audio": {"output": {"voice": "cedar"}},
        },
    )
    assert made.value.startswith("ek_")
    assert made.session.type == "realtime"
    seen = set()
    async with guest(node, made.value) as client:
        for model in ("gpt-realtime", "another-model"):  # the secret's own counts
            async with client.realtime.connect(model=model) as connection:
                created = await connection.recv()
                assert created.type == "session.created"
                session: Any = created.session
                assert (session.model, session.instructions) == ("gpt-realtime", "Be brief.")
                assert session.audio.output.voice == "cedar"
                seen.add(json.loads(session.model_dump_json())["id"])
                await connection.response.create()
                async with asyncio.timeout(15):
                    while (await connection.recv()).type != "response.done":
                        pass
    assert len(seen) == 2, "each session has its own id"


async def test_a_browser_gives_it_as_a_subprotocol(node: Node, server: AsyncOpenAI) -> None:
    made = await server.realtime.client_secrets.create()
    url = f"{node.base_url.replace('http', 'ws', 1)}/realtime?model=gpt-realtime"
    protocols: Any = ["realtime", f"openai-insecure-api-key.{made.value}"]
    async with connect(url, subprotocols=protocols) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(await socket.recv())["session"]["model"] == "gpt-realtime"


async def test_it_opens_nothing_else(node: Node, server: AsyncOpenAI, phone: Phone) -> None:
    made = await server.realtime.client_secrets.create()
    async with DeveloperApp(node) as app, guest(node, made.value) as client:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        for ask in (client.realtime.calls.hangup(call_id), client.realtime.client_secrets.create()):
            with pytest.raises(AuthenticationError, match="client secret"):
                await ask
        await app.accept(call_id)
        await call.answered()
        with pytest.raises(InvalidStatus) as caught:
            async with client.realtime.connect(call_id=call_id):
                pass
        body = caught.value.response.body
        assert caught.value.response.status_code == 401
        assert body is not None
        assert "no call's" in json.loads(body)["error"]["message"]
        call.hang_up()


async def test_one_that_nobody_made_is_told_so(node: Node) -> None:
    async with guest(node, "ek_nobody_made_this") as client:
        with pytest.raises(InvalidStatus) as caught:
            async with client.realtime.connect(model="gpt-realtime"):
                pass
    body = caught.value.response.body
    assert caught.value.response.status_code == 401
    assert body is not None
    assert "expired" in json.loads(body)["error"]["message"]


async def test_a_wrong_wish_is_a_400_that_names_it(server: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await server.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": 5})
    assert caught.value.param == "expires_after.seconds"
