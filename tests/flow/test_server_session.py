"""A real session behind the real server: what several clients of one call see (API rows S13 to S17, S21)."""

import asyncio
import contextlib
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from offhook import ids
from offhook.calls.errors import call_not_found
from offhook.calls.timeline import Timeline
from offhook.clock import SystemClock
from offhook.realtime.engine import EngineStart
from offhook.realtime.engines.scripted import Script, ScriptedFactory
from offhook.realtime.runner import SessionRunner
from offhook.realtime.session import Session
from offhook.realtime.session_config import parse_accept
from offhook.server import HttpServer, ServerServices, create_app
from offhook.tenants import ConfiguredProjects, Project


class AnsweredCall:
    """As much of a call as a sideband needs, without SIP and sound."""

    id = "rtc_u0_1"

    def __init__(self, clock):
        config = parse_accept({"type": "realtime", "instructions": "Be brief."})
        session = Session(
            config, session_id="sess_1", audio_format="audio/pcmu", new_id=ids.opaque_id, sip=True
        )
        self.runner = SessionRunner(session, ScriptedFactory(Script()).create(), clock=clock)
        self.timeline = Timeline(self.id, clock)

    async def session(self):
        return self.runner

    def find(self, project_id, call_id):
        if call_id != self.id:
            raise call_not_found()
        return self


@contextlib.asynccontextmanager
async def answered_call():
    clock = SystemClock()
    call = AnsweredCall(clock)
    await call.runner.start(EngineStart("sess_1", "audio/pcmu", "gpt-realtime"))
    projects = ConfiguredProjects([Project("proj_a", api_keys=("sk-a",))])
    server = HttpServer(
        create_app(ServerServices(projects=projects, calls=call, clock=clock)), host="127.0.0.1", port=0
    )
    await server.start()
    try:
        yield call, f"ws://127.0.0.1:{server.address[1]}/v1/realtime?call_id=rtc_u0_1"
    finally:
        await call.runner.close("hangup")
        await server.close()


def sideband(url):
    return connect(url, additional_headers={"Authorization": "Bearer sk-a"}, compression=None)


async def events(ws):
    """Yield events, with some seconds of patience for each."""
    while True:
        async with asyncio.timeout(15):
            yield json.loads(await ws.recv())


async def receive(ws, *types):
    """Return the next event of these types."""
    async for event in events(ws):
        if event["type"] in types:
            return event
    raise AssertionError


async def test_each_client_first_gets_the_session_as_it_was_accepted():
    async with answered_call() as (_, url), sideband(url) as first, sideband(url) as second:
        for ws in (first, second):
            event = json.loads(await ws.recv())
            assert event["type"] == "session.created"
            assert event["session"]["instructions"] == "Be brief."


async def test_faults_are_error_events_to_their_sender_alone_and_the_session_goes_on():
    frames = ["{", "[]", '{"event_id":"e_no_type"}', '{"type":"no.such","event_id":"e_unknown"}', b"\x01\x02"]
    async with answered_call() as (_, url), sideband(url) as first, sideband(url) as second:
        await receive(first, "session.created")
        await receive(second, "session.created")
        errors = []
        for frame in frames:
            await first.send(frame)
            errors.append((await receive(first, "error"))["error"])
        assert {error["type"] for error in errors} == {"invalid_request_error"}
        assert [error.get("event_id") for error in errors] == [None, None, "e_no_type", "e_unknown", None]
        await first.send('{"type":"session.update","session":{"type":"realtime","instructions":"Now."}}')
        for ws in (first, second):
            event = json.loads(await ws.recv())
            assert (event["type"], event["session"]["instructions"]) == ("session.updated", "Now.")


async def test_call_events_come_only_to_those_who_asked():
    async with (
        answered_call() as (call, url),
        sideband(f"{url}&events=call") as asked,
        sideband(url) as plain,
    ):
        await receive(asked, "session.created")
        await receive(plain, "session.created")
        call.runner.publish_extension(
            {"type": "call.refer.updated", "call_id": call.id, "status": "progress"}
        )
        assert json.loads(await asked.recv())["type"] == "call.refer.updated"
        await plain.send("{")
        assert json.loads(await plain.recv())["type"] == "error"


async def test_the_end_finishes_a_response_and_then_closes_with_1000():
    async with answered_call() as (call, url), sideband(url) as ws:
        await ws.send('{"type":"response.create"}')
        await receive(ws, "response.created")
        await call.runner.close("remote_hangup")
        seen = [json.loads(frame)["type"] async for frame in ws]
        assert seen.count("response.done") == 1
        assert ws.close_code == 1000


async def test_a_client_that_comes_after_the_end_is_closed_with_1000():
    async with answered_call() as (call, url):
        await call.runner.close("hangup")
        async with sideband(url) as ws:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
        assert caught.value.rcvd.code == 1000
