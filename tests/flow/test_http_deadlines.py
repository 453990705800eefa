"""A peer that dribbles its request is cut off; one that has become a WebSocket may be silent as long as it likes."""

import asyncio

import pytest
import websockets

from offhook.server import http
from offhook.server.http import HttpServer

DEADLINE = 0.1


async def echo(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


@pytest.fixture
async def server(monkeypatch):
    monkeypatch.setattr(http, "HEADER_TIMEOUT", DEADLINE)
    running = HttpServer(echo, host="127.0.0.1", port=0)
    await running.start()
    yield running
    await running.close()


async def test_a_request_whose_head_never_ends_is_cut_off(server):
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert await asyncio.wait_for(reader.read(), 15) == b""
    writer.close()


async def test_a_websocket_outlives_the_deadline_for_heads(server):
    host, port = server.address
    async with websockets.connect(f"ws://{host}:{port}/") as socket:
        await asyncio.sleep(
            4 * DEADLINE
        )  # the deadline is the loop's own timer; it has passed four times now
        await socket.send("still here")
        assert await socket.recv() == "still here"


async def test_a_connection_may_be_used_again_within_the_deadline(server):
    reader, writer = await asyncio.open_connection(*server.address)
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)).startswith(b"HTTP/1.1 204")
        await asyncio.sleep(DEADLINE / 2)
    writer.close()
