"""
No key is told to anybody: calls with recognisable keys through success and every trouble, then all that can be read.

Keys of upstreams reach their upstream alone. Keys of apps and the secrets of webhooks are in no log, file, timeline,
event or webhook either.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from openai import APIStatusError, APITimeoutError
from websockets.asyncio.client import connect

from testbed import DeveloperApp, Node, Phone, PhoneCall
from testbed.hosted import HostedApi
from testbed.upstream import Upstream, UpstreamSession

# With characters that JSON, URLs and base64 write in other ways.
ENV_KEY = "sk-env/7Qp+Zk3w==Xy"
FILE_KEY = "sk-file/4Rt+Mn8v==Uh"
AZURE_KEY = "azurekey/0a1b2c3d+4e=="
KEYS = {"by-env": ENV_KEY, "by-file": FILE_KEY, "azure": AZURE_KEY}
HOSTED_KEY = "sk-hosted/9Jc+Wd5e==Tm"
EVENTS = ("realtime.call.incoming", "realtime.call.answered", "realtime.call.ended")


def written(secret: str) -> list[str]:
    """Return a secret as it may be written: as it is, in a URL, in JSON, in hexadecimal, in base64 behind a word."""
    raw = secret.encode()
    found = [secret, quote(secret, safe=""), secret.replace("/", "\\/"), raw.hex()]
    for word in (b"", b"k", b"Bearer "):
        encoded = base64.b64encode(word + raw).decode()
        found += [encoded, encoded.replace("+", "-").replace("/", "_")]
    return found


def forms(secret: str) -> set[str]:
    """Return what to look for: the same, of base64 what does not depend on its neighbours."""
    found = set(written(secret)[:4])
    for shift, skipped in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode()[skipped:-4]
        found |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return found


class Readable:
    """What somebody else than the owner of a key may read, by where it was read."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def add(self, where: str, text: str | bytes) -> None:
        text = text if isinstance(text, str) else text.decode("utf-8", "replace")
        self.said[where] = self.said.get(where, "") + text + "\n"

    def assert_without(self, secret: str) -> None:
        for where, text in self.said.items():
            for form in forms(secret):
                at = text.find(form)
                assert at < 0, f"{where} says {form!r} of {secret!r}: ...{text[max(0, at - 80) : at + 80]}"


@pytest.fixture
def addresses() -> Iterator[dict[str, socket.socket]]:
    bound = {name: socket.socket() for name in (*KEYS, "hosted")}
    for one in bound.values():
        one.bind(("127.0.0.1", 0))
    yield bound
    for one in bound.values():
        one.close()


@pytest.fixture
def engine(tmp_path: Path, addresses: dict[str, socket.socket], monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "upstream.key").write_text(FILE_KEY)
    monkeypatch.setenv("TEST_KEY_BY_ENV", ENV_KEY)
    monkeypatch.setenv("TEST_KEY_AZURE", AZURE_KEY)
    monkeypatch.setenv("TEST_KEY_HOSTED", HOSTED_KEY)
    monkeypatch.setenv("OFFHOOK_SERVER__PASSTHROUGH", "hosted")
    host = {name: f"ws://127.0.0.1:{one.getsockname()[1]}" for name, one in addresses.items()}
    return f"""
        kind = "scripted"
        [upstreams.by-env]
        url = "{host["by-env"]}/v1/realtime"
        api_key_env = "TEST_KEY_BY_ENV"
        [upstreams.by-file]
        url = "{host["by-file"]}/v1/realtime"
        api_key_file = {json.dumps(str(tmp_path / "upstream.key"))}
        [upstreams.azure]
        url = "{host["azure"]}/openai/v1/realtime"
        kind = "azure"
        deployment = "ours"
        api_key_env = "TEST_KEY_AZURE"
        [upstreams.hosted]
        url = "{host["hosted"].replace("ws:", "http:")}/v1"
        api_key_env = "TEST_KEY_HOSTED"
        [models]
        "*" = ["by-env", "by-file", "azure"]
    """


@asynccontextmanager
async def called(app: DeveloperApp, readable: Readable) -> AsyncIterator[tuple[PhoneCall, str]]:
    """A call that rings; afterwards, all that the API and the commands say of it."""
    async with Phone(app.node) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        yield call, call_id
        await _read(app, call_id, readable)


async def _read(app: DeveloperApp, call_id: str, readable: Readable) -> None:
    """Read all that the API and the commands say of a call."""
    headers = {"Authorization": f"Bearer {app.seat.api_key}"}
    async with httpx2.AsyncClient(headers=headers) as client:
        for path in ("", f"/{call_id}", f"/{call_id}/timeline"):
            answer = await client.get(f"{app.node.base_url}/realtime/calls{path}")
            assert answer.status_code == 200
            readable.add(f"GET calls{path}", answer.content)
    for option in ([], ["--json"]):
        readable.add("offhook explain", await _explain(app, call_id, *option))


async def _explain(app: DeveloperApp, call_id: str, *options: str) -> bytes:
    url = app.node.base_url.removesuffix("/v1")
    command = ["explain", call_id, "--url", url, "--key", app.seat.api_key, *options]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook", *command), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert out
    return out


async def _doctor(node: Node) -> bytes:
    command = ["doctor", "--config", str(node.config), "--send", "--no-call"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook", *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert b"webhooks: " in out
    return out


@asynccontextmanager
async def sideband(app: DeveloperApp, call_id: str, readable: Readable) -> AsyncIterator[Any]:
    """A sideband whose key goes as a subprotocol, as browsers send it; what comes is kept."""
    url = app.node.base_url.replace("http", "ws", 1) + f"/realtime?call_id={call_id}"
    protocols: Any = ["realtime", f"openai-insecure-api-key.{app.seat.api_key}"]
    async with connect(url, subprotocols=protocols) as connection:
        readable.add("the sideband", str(connection.response.headers if connection.response else ""))

        async def until(event_type: str) -> dict[str, Any]:
            async with asyncio.timeout(15):
                while True:
                    frame = await connection.recv()
                    readable.add("the sideband", frame)
                    event: dict[str, Any] = json.loads(frame)
                    if event["type"] == event_type:
                        return event

        yield until


def _errors(key: str) -> Iterator[str]:
    """Yield error events that say a key in every form."""
    for form in written(key):
        error = (
            f'{{"type": "invalid_request_error", "code": "{form}", "message": "The key {form} is used up."}}'
        )
        yield f'{{"type": "error", "event_id": "event_{form}", "error": {error}}}'
    escaped = "".join(f"\\u{ord(char):04x}" for char in key)
    yield f'{{"type": "error", "event_id": "event_1", "error": {{"message": "{escaped}"}}}}'


async def _say_key(session: UpstreamSession, key: str) -> None:
    """Say a key again in the places where servers say things."""
    for error in _errors(key):
        await session.send_raw(error)
    await session.send("session.thought", thought={key: [key, {"deep": f"Bearer {key}"}]})
    item_id = await session.begin()
    await session.finish(item_id, f"My key is {key}.")
    await session.turn(f"Your key is {key}.")
    await session.call_tool(f"tool_{key}", json.dumps({"key": key}))


async def _talks_and_is_lost(app: DeveloperApp, upstreams: dict[str, Upstream], readable: Readable) -> None:
    """The first upstream says its key, is lost, comes back only as a 401 that repeats it; so on through the list."""
    async with called(app, readable) as (call, call_id):
        await app.accept(call_id, instructions="Be brief.")
        await call.answered()
        async with sideband(app, call_id, readable) as until:
            opened = "session.created"
            for name, upstream in upstreams.items():
                session = await upstream.opened()
                await until(opened)
                opened = "session.updated"
                await _say_key(session, KEYS[name])
                await until("response.function_call_arguments.done")
                upstream.plan += [401] * 3
                await session.close(1006 if name == "by-env" else 4000, f"bye {KEYS[name]}")
        await call.ended()


async def _is_refused_by_all(app: DeveloperApp, upstreams: dict[str, Upstream], readable: Readable) -> None:
    """One takes the call and then says an error instead of `session.created`; none takes it in the end."""
    upstreams["by-env"].plan += ["late", 401]
    upstreams["by-file"].plan.append(503)
    upstreams["azure"].plan.append(429)
    async with called(app, readable) as (call, call_id):
        await app.accept(call_id)
        session = await upstreams["by-env"].opened()
        await session.error(f"{ENV_KEY} is wrong", f"code_{ENV_KEY}")
        assert (await call.refused()).status >= 400
        readable.add("SIP", "".join(str(wire.message) for wire in call.wire))


async def _is_answered_elsewhere(app: DeveloperApp, hosted: HostedApi, readable: Readable) -> None:
    """A call of the hosted service that the node passes through."""
    call = hosted.ring()
    await app.accept(call.id)
    async with sideband(app, call.id, readable) as until:
        upstream = await hosted.opened()
        await until("session.created")
        for error in _errors(HOSTED_KEY):
            await upstream.send(error)
        await upstream.say("session.thought", thought={HOSTED_KEY: f"Bearer {HOSTED_KEY}"})
        await until("session.thought")
        assert not [frame for frame in upstream.received if app.seat.api_key in str(frame)]
    assert not [one for one in hosted.requests if app.seat.api_key in str(one)]
    hosted.plan += [(401, HOSTED_KEY.encode(), {"x-request-id": HOSTED_KEY}), "hang"]
    for _ in range(2):
        try:
            await app.client.with_options(timeout=1).realtime.calls.hangup(call.id)
        except APIStatusError as error:
            readable.add("REST errors", str(error.response.headers) + error.response.text)
        except APITimeoutError:
            pass
    await _read(app, call.id, readable)


async def _ask_wrongly(app: DeveloperApp, readable: Readable) -> None:
    root = app.node.base_url.removesuffix("/v1")
    right = {"Authorization": f"Bearer {app.seat.api_key}"}
    wrong = {"Authorization": f"Bearer {app.seat.api_key}x"}
    async with httpx2.AsyncClient() as client:
        for path in ("/healthz", "/readyz", "/openapi.json", "/metrics"):
            answer = await client.get(root + path)
            assert answer.status_code == 200
            readable.add(path, answer.content)
        for status, headers, body in (
            (401, wrong, {}),
            (404, right, {"type": "realtime"}),
            (404, right, {"type": "realtime", "instructions": app.seat.api_key * 2}),
        ):
            url = f"{app.node.base_url}/realtime/calls/rtc_u0_0/accept"
            answer = await client.post(url, headers=headers, json=body)
            assert answer.status_code == status
            readable.add("REST errors", str(answer.headers).encode() + answer.content)


async def test_no_key_can_be_read_anywhere(
    tmp_path: Path, engine: str, addresses: dict[str, socket.socket]
) -> None:
    readable = Readable()
    node = Node(tmp_path, engine=engine, events=EVENTS, log_level="DEBUG")
    with node:
        async with AsyncExitStack() as stack:
            upstreams: dict[str, Upstream] = {}
            for name, key in KEYS.items():
                form: Any = "azure" if name == "azure" else "openai"
                listening = Upstream(addresses[name], key=key, form=form)
                upstreams[name] = await stack.enter_async_context(listening)
            hosted = HostedApi(key=HOSTED_KEY, bound=addresses["hosted"])
            await stack.enter_async_context(hosted)
            app = await stack.enter_async_context(DeveloperApp(node))
            await _talks_and_is_lost(app, upstreams, readable)
            for upstream in upstreams.values():
                upstream.plan.clear()
            await _is_refused_by_all(app, upstreams, readable)
            await _is_answered_elsewhere(app, hosted, readable)
            await _ask_wrongly(app, readable)
            assert {one.status for up in upstreams.values() for one in up.handshakes} == {101, 401, 429, 503}
            for webhook in app.webhooks:
                readable.add("webhooks", f"{webhook.headers}{webhook.body.decode()}")
            assert {webhook.type for webhook in app.webhooks} == set(EVENTS)
        seat = app.seat
    readable.add("offhook doctor", await _doctor(node))
    readable.add("the log", node.log_path.read_bytes())
    readable.add("standard output and error", (tmp_path / "stdout").read_bytes())
    for path in node.data_dir.rglob("*"):
        if path.is_file():
            readable.add(str(path.relative_to(node.data_dir)), path.read_bytes())
    assert '"event":"call.upstream"' in readable.said["the log"]
    assert "[key]" in readable.said["the sideband"]

    for key in (*KEYS.values(), HOSTED_KEY, seat.api_key, seat.secret.removeprefix("whsec_")):
        readable.assert_without(key)
