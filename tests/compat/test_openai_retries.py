"""
What becomes of a call when the SDK sends a request again because the answer to the first was lost.

openai-python and openai-node do so by themselves, twice, and say so in `x-stainless-retry-count` (API rows C03, C06,
R06 and R19).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from testbed import DeveloperApp, Phone, PhoneCall


class LossyWay:
    """A way to the node on which requests arrive and the first `lost` answers do not."""

    def __init__(self, app: DeveloperApp, *, lost: int = 1) -> None:
        self.lost = lost
        self.requests = 0
        self._app = app
        self._port = int(app.node.base_url.split(":")[2].split("/")[0])

    async def __aenter__(self) -> LossyWay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.client = AsyncOpenAI(
            api_key=self._app.seat.api_key,
            base_url=f"http://127.0.0.1:{port}/v1",
            max_retries=2,
            timeout=30,
            default_headers={"connection": "close"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        to_node, from_node = writer, reader
        from_node, to_node = await asyncio.open_connection("127.0.0.1", self._port)
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in request.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        to_node.write(request + await reader.readexactly(length))
        answer = await from_node.read()
        to_node.close()
        self.lost -= 1
        if self.lost < 0:
            writer.write(answer)
        writer.close()


@pytest.fixture
async def way(app: DeveloperApp) -> AsyncIterator[LossyWay]:
    async with LossyWay(app) as opened:
        yield opened


async def _rings(app: DeveloperApp, phone: Phone) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    return call, (await app.incoming()).call_id


async def test_a_repeated_accept_is_one_call(app: DeveloperApp, phone: Phone, way: LossyWay) -> None:
    call, call_id = await _rings(app, phone)
    await way.client.realtime.calls.accept(call_id, type="realtime")
    await call.answered()
    assert way.requests == 2
    await asyncio.sleep(0.1)
    assert len(call.received("200 INVITE")) == 1


async def test_a_repeated_reject_did_reject(app: DeveloperApp, phone: Phone, way: LossyWay) -> None:
    call, call_id = await _rings(app, phone)
    await way.client.realtime.calls.reject(call_id, status_code=486)
    assert (await call.refused()).status == 486
    assert way.requests == 2


async def test_a_repeated_hangup_did_hang_up(app: DeveloperApp, phone: Phone, way: LossyWay) -> None:
    call, call_id = await _rings(app, phone)
    await app.accept(call_id)
    await call.answered()
    await way.client.realtime.calls.hangup(call_id)
    await call.ended()
    assert way.requests == 2


async def test_a_repeated_refer_is_one_refer(app: DeveloperApp, phone: Phone, way: LossyWay) -> None:
    """The transfer has succeeded and the call is over by the time of the second request."""
    call, call_id = await _rings(app, phone)
    await app.accept(call_id)
    await call.answered()
    await way.client.realtime.calls.refer(call_id, target_uri="tel:+14155550123")
    await call.ended()
    assert way.requests == 2
    assert len(call.refers) == 1


async def test_only_a_repeat_that_asks_for_the_same_was_done(
    app: DeveloperApp, phone: Phone, way: LossyWay
) -> None:
    """A request that says that it is a repeat, of something that never happened, is answered as any other."""
    way.lost = 0
    call, call_id = await _rings(app, phone)
    repeat = {"x-stainless-retry-count": "1"}
    await app.client.realtime.calls.reject(call_id, status_code=486, extra_headers=repeat)
    assert (await call.refused()).status == 486
    for ask in (
        app.client.realtime.calls.reject(call_id, status_code=603, extra_headers=repeat),
        app.client.realtime.calls.hangup(call_id, extra_headers=repeat),
        app.client.realtime.calls.refer(call_id, target_uri="tel:+1", extra_headers=repeat),
        app.client.realtime.calls.accept(call_id, type="realtime", extra_headers=repeat),
        app.client.realtime.calls.reject(call_id, status_code=486),
    ):
        with pytest.raises(openai.NotFoundError):
            await ask


async def test_a_bad_body_is_sent_once(app: DeveloperApp, phone: Phone, way: LossyWay) -> None:
    way.lost = 0
    _, call_id = await _rings(app, phone)
    with pytest.raises(openai.BadRequestError):
        await way.client.realtime.calls.accept(call_id, type="live")  # type: ignore[arg-type]
    with pytest.raises(openai.ConflictError):
        await way.client.realtime.calls.refer(call_id, target_uri="tel:+1")
    assert way.requests == 2
