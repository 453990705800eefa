"""A brain at the other end of HTTP: what the caller gets when the endpoint is well, slow, broken or gone."""

import asyncio
import json
import time
from contextlib import aclosing, asynccontextmanager

import pytest

from offhook.realtime.engine import EngineUnavailable, Respond
from offhook.realtime.engines.local.brain import Apology, CallArguments, CallStarted, Ended, Say
from offhook.realtime.engines.local.brain_chat import ChatBrain
from offhook.realtime.engines.local.config import BrainConfig

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class Endpoint:
    """A language model's endpoint that answers each request by the next script."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests = []
        self.closed = asyncio.Event()
        self.closed_at = None

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")
            )
            body = json.loads(await reader.readexactly(length))
            self.requests.append((head, body))
            for step in self.scripts.pop(0):
                if step == "hang":
                    await reader.read()  # until the client hangs up
                    break
                writer.write(step)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed_at = time.monotonic()
            self.closed.set()
            writer.close()


def sse(**delta):
    finish = delta.pop("finish", None)
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


DONE = sse(finish="stop") + b"data: [DONE]\n\n"


@asynccontextmanager
async def brain_at(endpoint, **settings):
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    brain = ChatBrain(
        BrainConfig(
            kind="chat_completions",
            base_url=f"http://127.0.0.1:{port}/v1",
            model="m",
            api_key="k",
            **settings,
        )
    )
    await brain.start()
    try:
        yield brain
    finally:
        await brain.close()
        server.close()
        await server.wait_closed()


def respond(**changes):
    user = {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": "Hi."}]}
    given = {
        "response_id": "resp_1",
        "generation": 1,
        "items": [user],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "audio": True,
        "voice": "ash",
        "speed": 1.0,
        "max_output_tokens": "inf",
    }
    return Respond(**{**given, **changes})


async def answer(brain, **changes):
    async with aclosing(brain.respond(respond(**changes))) as parts:
        return [part async for part in parts]


SORRY = Apology(BrainConfig().apology)


async def test_an_answer_streams():
    endpoint = Endpoint([OK, sse(content="Hel"), sse(content="lo."), DONE])
    async with brain_at(endpoint) as brain:
        assert await answer(brain) == [Say("Hel"), Say("lo."), Ended()]
    head, body = endpoint.requests[0]
    assert head.startswith("POST /v1/chat/completions ")
    assert "authorization: bearer k" in head.lower()
    assert body["model"] == "m"
    assert body["messages"] == [{"role": "user", "content": "Hi."}]


async def test_the_first_words_come_before_the_last():
    endpoint = Endpoint([OK, sse(content="Hello. "), "hang"])
    async with brain_at(endpoint) as brain, aclosing(brain.respond(respond())) as parts:
        assert await anext(parts) == Say("Hello. ")


async def test_tool_calls_in_pieces():
    def call(**function):
        return sse(tool_calls=[{"index": 0, "function": function}])

    endpoint = Endpoint(
        [
            OK,
            call(name="refer", arguments=""),
            call(arguments='{"to":')[:20],
            call(arguments='{"to":')[20:],
            call(arguments=' "tel:1"}'),
            sse(finish="tool_calls"),
            b"data: [DONE]\n\n",
        ]
    )
    async with brain_at(endpoint) as brain:
        started, *pieces, ended = await answer(brain)
    assert isinstance(started, CallStarted)
    assert started.name == "refer"
    assert started.call_id.startswith("call_")
    assert all(isinstance(piece, CallArguments) and piece.call_id == started.call_id for piece in pieces)
    assert json.loads("".join(piece.delta for piece in pieces)) == {"to": "tel:1"}
    assert ended == Ended()


async def test_an_endpoint_that_does_not_stream_is_understood():
    whole = json.dumps({"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(whole)}\r\n\r\n".encode()
    )
    async with brain_at(Endpoint([head + whole])) as brain:
        assert await answer(brain) == [Say("Hello."), Ended()]


def status(code, headers="", body=b"busy"):
    return f"HTTP/1.1 {code} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([status(429)], "brain_rate_limited"),
        ([status(429, "retry-after: 30\r\n")], "brain_rate_limited"),
        ([status(429, "retry-after: soon\r\n")], "brain_rate_limited"),
        ([status(500)], "brain_error"),
        ([status(503, "retry-after: 0\r\n")], "brain_error"),
        ([status(404, body=b'{"error": "model not found"}')], "brain_error"),
        ([status(301, "location: http://127.0.0.1:1/\r\n")], "brain_error"),
        (["hang"], "brain_timeout"),
        ([OK, "hang"], "brain_timeout"),
        ([OK, sse(content="Hal"), "hang"], "brain_timeout"),
        ([OK, sse(content="Hal")], "brain_cut"),
        ([OK], "brain_cut"),
        ([b""], "brain_unreachable"),
        ([b"SIP/2.0 200 OK\r\n\r\n"], "brain_unreachable"),
        ([OK, b"data: <html>\n\n"], "brain_garbage"),
        ([OK, b"data: " + b"x" * (2 << 20)], "brain_garbage"),
        (
            [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{]"],
            "brain_garbage",
        ),
        ([OK, DONE], "brain_empty"),
    ],
    ids=str,
)
async def test_every_failure_has_an_apology_and_a_well_formed_end(script, code):
    limit = 0.2 if "hang" in script else 10
    async with brain_at(Endpoint(script), first_token_timeout_s=limit, idle_timeout_s=limit) as brain:
        *said, sorry, ended = await answer(brain)
    assert all(isinstance(part, Say) for part in said)
    assert sorry == SORRY
    assert (ended.status, ended.error_code) == ("failed", code)
    assert ended.error_message


async def test_the_app_sees_the_status_and_the_log_what_the_endpoint_said(caplog):
    async with brain_at(Endpoint([status(401, body=b"bad key sk-123")])) as brain:
        ended = (await answer(brain))[-1]
    assert "401" in ended.error_message
    assert "sk-123" not in ended.error_message
    assert "127.0.0.1" not in ended.error_message
    (record,) = caplog.records
    assert "sk-123" in record.detail
    assert "127.0.0.1" in record.url


async def test_nobody_at_home():
    async with brain_at(Endpoint()) as brain:
        pass
    brain = ChatBrain(BrainConfig(kind="chat_completions", base_url="http://127.0.0.1:9/v1", model="m"))
    await brain.start()
    sorry, ended = await answer(brain)
    assert (sorry, ended.error_code) == (SORRY, "brain_unreachable")
    await brain.close()


async def test_a_short_retry_after_is_obeyed_once():
    endpoint = Endpoint([status(429, "retry-after: 0.05\r\n")], [OK, sse(content="Hello."), DONE])
    async with brain_at(endpoint) as brain:
        assert await answer(brain) == [Say("Hello."), Ended()]
    assert len(endpoint.requests) == 2

    endpoint = Endpoint(*[[status(429, "retry-after: 0\r\n")]] * 3)
    async with brain_at(endpoint) as brain:
        assert (await answer(brain))[-1].error_code == "brain_rate_limited"
    assert len(endpoint.requests) == 2


async def test_an_answer_without_end_is_stopped():
    async with brain_at(Endpoint([OK, *[sse(content="la ")] * 50, "hang"]), total_timeout_s=0.3) as brain:
        began = time.monotonic()
        ended = (await answer(brain))[-1]
    assert ended.error_code == "brain_timeout"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("script", [["hang"], [OK, "hang"], [OK, sse(content="Hello. "), "hang"]])
async def test_a_cancelled_answer_closes_its_connection_within_100_ms(script):
    endpoint = Endpoint(script)
    async with brain_at(endpoint) as brain:
        task = asyncio.create_task(answer(brain))
        while not endpoint.requests:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        began = time.monotonic()
        task.cancel()
        await asyncio.wait_for(endpoint.closed.wait(), 15)
        assert endpoint.closed_at - began < 0.1
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"base_url": "localhost:80", "model": "m"}, "base_url"), ({"base_url": "http://x/v1"}, "model")],
)
async def test_what_is_missing_is_named_at_start(settings, field):
    with pytest.raises(EngineUnavailable, match=rf"engine\.brain\.{field}"):
        await ChatBrain(BrainConfig(kind="chat_completions", **settings)).start()
