"""A server on an ephemeral loopback port, with calls that only remember what was asked of them."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import httpx2
import orjson
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from offhook.calls.errors import CallError, call_not_found
from offhook.calls.target import check_target_uri
from offhook.calls.timeline import Timeline
from offhook.clock import SystemClock
from offhook.server import HttpServer, ServerServices, create_app
from offhook.server.sideband_limits import SidebandLimits
from offhook.tenants import ConfiguredProjects, Project

CLOCK = SystemClock()


class FakeAttachment:
    def __init__(self, runner, listener, events):
        self.runner, self.listener, self.events = runner, listener, events
        self.received = []
        self.detached = asyncio.Event()

    def receive(self, text):
        self.received.append(text)
        self.runner.heard.set()
        if text == "raise":
            raise ZeroDivisionError

    def detach(self):
        self.runner.attachments.remove(self)
        self.detached.set()


class FakeRunner:
    def __init__(self):
        self.attachments = []
        self.heard = asyncio.Event()

    def attach(self, listener, *, events=frozenset()):
        attachment = FakeAttachment(self, listener, events)
        self.attachments.append(attachment)
        listener.send(
            orjson.dumps({"type": "session.created", "event_id": "event_1", "session": {"type": "realtime"}})
        )
        return attachment

    def say(self, event):
        for attachment in self.attachments:
            attachment.listener.send(orjson.dumps(event))

    def close(self):
        for attachment in list(self.attachments):
            attachment.listener.close(1000, "call ended")


class FakeCall:
    def __init__(self, call_id, project_id="proj_a", *, state="ringing", created_at=1000.0):
        self.id, self.project_id = call_id, project_id
        self.state, self.created_at = state, created_at
        self.timeline = Timeline(call_id, CLOCK)
        self.asked = []
        self.error = None
        self.keeps_talking = False
        self.attach_timeout_s = 15.0
        self.waiting = 0
        self.request_ids = []
        self.runner = FakeRunner()
        self.decided = asyncio.Event()
        if state != "ringing":
            self.decided.set()

    async def _take(self, *what):
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    async def accept(self, body):
        await self._take("accept", body)
        self.decided.set()

    async def reject(self, status_code=603, *, repeated=False):
        await self._take("reject", status_code)

    async def refer(self, target_uri, *, repeated=False, wait_for_playout=False, request_id=""):
        check_target_uri(target_uri)
        await self._take("refer", target_uri)
        self.request_ids.append(request_id)
        return not (wait_for_playout and self.keeps_talking)

    def refers(self):
        return [
            {"object": "realtime.call.refer", "refer": 1, "target_uri": target} for _, target in self.asked
        ]

    async def hangup(self, *, repeated=False):
        await self._take("hangup")

    async def session(self):
        self.waiting += 1
        try:
            async with asyncio.timeout(self.attach_timeout_s):
                await self.decided.wait()
        except TimeoutError:
            raise call_not_found() from None
        finally:
            self.waiting -= 1
        return self.runner

    def describe(self):
        return {
            "id": self.id,
            "object": "realtime.call",
            "state": self.state,
            "sip_call_id": f"sip-{self.id}",
            "from": f"<sip:+1555{self.id[-1]}@carrier>",
        }


@dataclass
class FakeCalls:
    calls: dict = field(default_factory=dict)
    refused: list = field(default_factory=list)

    def add(self, call_id, *args, **kwargs):
        self.calls[call_id] = FakeCall(call_id, *args, **kwargs)
        return self.calls[call_id]

    def find(self, project_id, call_id):
        call = self.calls.get(call_id)
        if call is None or project_id not in (None, call.project_id):
            raise call_not_found()
        return call

    def refused_sources(self, project_id):
        return self.refused

    def list(self, project_id):
        return [call for call in reversed(self.calls.values()) if project_id in (None, call.project_id)]


@dataclass
class RunningNode:
    calls: FakeCalls
    port: int
    not_ready: list

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self):
        return f"ws://127.0.0.1:{self.port}"

    def raw(self, key="sk-a", **headers):
        """Return a plain HTTP client with a key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["authorization"] = f"Bearer {key}"
        return httpx2.AsyncClient(base_url=self.url, headers=named, trust_env=False)

    def openai(self, key="sk-a", **options):
        return AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", **options)


@contextlib.asynccontextmanager
async def running(projects=None, **options):
    projects = ConfiguredProjects(
        projects or [Project("proj_a", api_keys=("sk-a", "sk-a2")), Project("proj_b", api_keys=("sk-b",))]
    )
    calls, not_ready = FakeCalls(), []
    services = ServerServices(
        projects=projects, calls=calls, clock=CLOCK, not_ready=lambda: not_ready, **options
    )
    server = HttpServer(create_app(services), host="127.0.0.1", port=0)
    await server.start()
    try:
        yield RunningNode(calls, server.address[1], not_ready)
    finally:
        await server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with running() as node:
        yield node


@pytest.fixture
def node(server):
    """One server for a module, and no calls at the start of each test."""
    server.calls.calls.clear()
    server.not_ready.clear()
    return server


@pytest_asyncio.fixture(loop_scope="module")
async def strict_node():
    """A node that bears little: 50 frames behind, two sidebands a call, a third of a second to drain."""
    limits = SidebandLimits(per_call=2, queued_frames=50, drain_s=0.3)
    async with running(sideband=limits) as node:
        yield node


@pytest.fixture
def start_node():
    """What a test starts a node of its own with."""
    return running


@pytest.fixture
def call_error():
    return CallError
