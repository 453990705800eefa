"""Upstreams over TLS: those whose certificate is in order get the key and the call, no others do."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from offhook.certificates import CertificateFiles, development_certificate, server_context
from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.upstream import Upstream

KEY = "sk-upstream-tls-6Hd2"
LOUD = bytes([0x10, 0x90] * 80)
NAMES = ("trusted", "elsewhere", "stranger", "untold", "plain")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CertificateFiles]:
    """One CA that the node is told of: it signed for us and for another host. A stranger signed for us too."""
    folder = tmp_path_factory.mktemp("certificates")
    made = {
        "trusted": development_certificate(folder / "trusted", ("127.0.0.1",)),
        "stranger": development_certificate(folder / "stranger", ("127.0.0.1",)),
    }
    (folder / "elsewhere").mkdir()
    for name in ("ca.pem", "ca.key"):
        shutil.copy(folder / "trusted" / name, folder / "elsewhere" / name)
    made["elsewhere"] = development_certificate(folder / "elsewhere", ("other.example",))
    made["untold"] = made["trusted"]
    return made


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, socket.socket]]:
    bound = {name: socket.socket() for name in NAMES}
    for one in bound.values():
        one.bind(("127.0.0.1", 0))
    yield bound
    for one in bound.values():
        one.close()


def _table(name: str, address: socket.socket, ca: Path) -> str:
    told = "" if name == "untold" else f"ca_file = {json.dumps(str(ca))}"
    url = f"wss://127.0.0.1:{address.getsockname()[1]}/v1/realtime"
    return f'[upstreams.{name}]\nurl = "{url}"\napi_key_env = "TEST_KEY_TLS"\n{told}'


@pytest.fixture(scope="module")
def tls_node(
    tmp_path_factory: pytest.TempPathFactory,
    addresses: dict[str, socket.socket],
    certificates: dict[str, CertificateFiles],
) -> Iterator[Node]:
    ca = certificates["trusted"].ca
    assert ca is not None
    tables = [_table(name, address, ca) for name, address in addresses.items()]
    models = [f'"{name}" = ["{name}", "trusted"]' for name in NAMES if name != "trusted"]
    engine = "\n".join(['kind = "scripted"', *tables, "[models]", '"trusted" = "trusted"', *models])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY_TLS", KEY)
        with Node(tmp_path_factory.mktemp("tls"), engine=engine, seats=len(NAMES)) as running:
            yield running


@pytest.fixture
async def upstreams(
    addresses: dict[str, socket.socket], certificates: dict[str, CertificateFiles]
) -> AsyncIterator[dict[str, Upstream]]:
    """All of them, listening; `plain` speaks no TLS."""
    # What a refused handshake is to the server's side is not what is judged here.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with AsyncExitStack() as stack:
        running = {}
        for name, address in addresses.items():
            tls: ssl.SSLContext | None = server_context(certificates[name]) if name in certificates else None
            running[name] = await stack.enter_async_context(Upstream(address, key=KEY, tls=tls))
        yield running


@pytest.fixture
async def app(tls_node: Node) -> AsyncIterator[DeveloperApp]:
    async with DeveloperApp(tls_node) as listening:
        yield listening


REASONS = {
    "elsewhere": ("TLS:", "127.0.0.1"),
    "stranger": ("TLS:", "self-signed"),
    "untold": ("TLS:", "self-signed"),
    "plain": ("closed the connection",),
}


@pytest.mark.parametrize("model", NAMES)
async def test_a_call_goes_to_the_upstream_whose_certificate_is_in_order(
    app: DeveloperApp, upstreams: dict[str, Upstream], model: str
) -> None:
    async with Phone(app.node) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id, model=model)
        await call.answered()
        session = await upstreams["trusted"].opened()
        async with Sideband(app.client, call_id) as sideband:
            created = await sideband.wait_for("session.created")
            assert created["session"]["id"] == session.id
            item_id = await session.begin()
            await session.say(item_id, LOUD * 20)
            await session.finish(item_id)
            await call.hears_sound(200)
            await sideband.wait_for("output_audio_buffer.stopped")
            entries = await app.node.timeline(app.seat, call_id)
            call.hang_up()
            await sideband.wait_closed()

    # Nobody else was sent a request, so nobody else saw the key.
    assert [name for name, upstream in upstreams.items() if upstream.handshakes] == ["trusted"]
    titles = [entry["title"] for entry in entries if entry["kind"] == "upstream"]
    refusals = [title for title in titles if title.startswith(f"{model}: ")]
    if model == "trusted":
        assert refusals == []
    else:
        assert len(refusals) == 1
        for word in REASONS[model]:
            assert word in refusals[0]
