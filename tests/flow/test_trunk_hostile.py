"""What the open internet sends to port 5060: the node stays silent or brief, and as quick as ever to those it knows."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, add_media, with_body, write
from testbed.trunk import Trunk
from testbed.waiting import until


class StrictNode(Node):
    """A node that lists 127.0.0.1 and nobody else."""

    def _tables(self, *args: Any) -> Iterator[str]:
        for line in super()._tables(*args):
            yield line.replace("127.0.0.0/8", "127.0.0.1/32")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with StrictNode(tmp_path_factory.mktemp("trunk"), seats=20) as running:
        yield running


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


async def options(node: Node) -> float:
    """Return how long a listed peer waits for the answer to an OPTIONS."""
    async with Trunk(node.sip["udp"], "udp") as trunk:
        invite = write(PLAIN, trunk, "ping").partition("\r\n\r\n")[0].replace("INVITE", "OPTIONS")
        started = time.monotonic()
        trunk.send(re.sub(r"Content-Length: \d+", "Content-Length: 0", invite) + "\r\n\r\n")
        answer = await trunk.expect("SIP/2.0 200")
        assert "INVITE" in answer.one("Allow")
        return answer.at - started


async def is_calm(node: Node) -> None:
    """The node answers at once, also after what was just done to it. The better of two: the machine is shared."""
    assert min([await options(node), await options(node)]) < 0.05


def refusals(node: Node) -> list[str]:
    return [line for line in node.log_path.read_text().splitlines() if "127.0.0.2" in line]


async def test_scanners_hear_nothing(node: Node, app: DeveloperApp) -> None:
    before = len(refusals(node))
    async with Trunk(node.sip["udp"], "udp", local="127.0.0.2") as scanner:
        for _ in range(5):
            for name in ("100", "admin", app.seat.project, "nobody"):
                scanner.send(write(PLAIN, scanner, name))
            scanner.send(write(PLAIN, scanner, "100").replace("INVITE", "REGISTER"))
            scanner.send(write(PLAIN, scanner, "100").replace("INVITE", "OPTIONS"))
            scanner.send(b"\0" * 64)
            scanner.send(b"OPTIONS sip:x SIP/2.0\r\n\r\n")
        for transport in ("tcp", "tls"):
            # The TLS one is closed before any handshake.
            async with Trunk(node.sip[transport], "tcp", local="127.0.0.2") as stream:
                await stream.wait_closed()
                assert not stream.seen
        await is_calm(node)
        assert not scanner.seen
    assert not app.webhooks
    await until(lambda: len(refusals(node)) >= before + 2)
    told = refusals(node)[before:]
    # The 1st and the 10th time; with the line that would let it in.
    assert len(told) == 2, told
    assert "127.0.0.2/32" in told[0]
    assert "sources" in told[0]


async def test_connections_that_say_nothing_or_never_end(node: Node, app: DeveloperApp) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(Trunk(node.sip["tcp"], "tcp"))
        # Those never finish the handshake.
        for _ in range(20):
            await stack.enter_async_context(Trunk(node.sip["tls"], "tcp"))
        endless = await stack.enter_async_context(Trunk(node.sip["tcp"], "tcp"))
        endless.send(b"INVITE sip:a@b SIP/2.0\r\nX: ")
        for _ in range(80):
            endless.send(b"y" * 1000)
            await asyncio.sleep(0)
        await endless.wait_closed()
        huge = await stack.enter_async_context(Trunk(node.sip["tcp"], "tcp"))
        huge.send(
            write(PLAIN, huge, app.seat.project).replace("Content-Length: ", "Content-Length: 2147483647")
        )
        await huge.wait_closed()
        unframed = await stack.enter_async_context(Trunk(node.sip["tcp"], "tcp"))
        unframed.send(re.sub("Content-Length.*\r\n", "", write(PLAIN, unframed, app.seat.project)))
        await unframed.expect("SIP/2.0 400")
        await unframed.wait_closed()
        await is_calm(node)
        # And a call over TCP goes as ever, byte by byte.
        trunk = await stack.enter_async_context(Trunk(node.sip["tcp"], "tcp"))
        invite = write(PLAIN, trunk, app.seat.project)
        for at in range(0, len(invite), 97):
            trunk.send(invite[at : at + 97])
            await asyncio.sleep(0.001)
        trunk.send("\r\n\r\n")
        await trunk.expect("SIP/2.0 180")
    assert len(app.webhooks) <= 1


HOSTILE = {
    "quotes": lambda i: i.replace("From: ", 'From: "' + '"' * 60_000),
    "semicolons": lambda i: i.replace("From: ", "From: <sip:a@b>" + ";" * 60_000),
    "commas in via": lambda i: i.replace("Via: ", "Via: " + "," * 60_000),
    "angle brackets": lambda i: i.replace("Contact: ", "Contact: " + "<" * 60_000),
    "backslashes": lambda i: i.replace("From: ", 'From: "' + "\\" * 60_000),
    "five thousand headers": lambda i: i.replace("Max-F", "X: y\r\n" * 5_000 + "Max-F"),
    "five hundred vias": lambda i: i.replace("From: ", "Via: SIP/2.0/UDP a;branch=z\r\n" * 500 + "From: "),
    "folds": lambda i: i.replace("Max-F", "X: y" + "\r\n " * 15_000 + "\r\nMax-F"),
    "routes": lambda i: i.replace("From: ", "Record-Route: " + "<sip:a;lr>," * 700 + "<sip:b;lr>\r\nFrom: "),
    "media": lambda i: with_body(i, "application/sdp", "v=0\r\n" + "m=audio 9 RTP/AVP 0\r\n" * 2_500),
    "attributes": lambda i: add_media(i, "a=rtpmap:\r\n" * 5_000),
    "parts": lambda i: with_body(i, "multipart/mixed;boundary=x", "--x\r\n\r\n" * 7_000),
    "digits": lambda i: i.replace("CSeq: 7", "CSeq: " + "7" * 60_000),
    "nothing": lambda i: "\0" * 60_000,
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_text_delays_nobody(node: Node, app: DeveloperApp, udp: Trunk, case: str) -> None:
    """On the clock, and by the processor's time that it takes the node."""
    before = node.processor_s()
    for _ in range(5):
        udp.send(HOSTILE[case](write(PLAIN, udp, app.seat.project)))
    await is_calm(node)
    assert node.processor_s() - before < 0.1


async def test_logs_of_strange_names_are_one_line_of_json(node: Node, app: DeveloperApp, udp: Trunk) -> None:
    """Row 9: what a peer writes cannot move a terminal's cursor or begin a line of the log."""
    before = len(node.log_path.read_text().splitlines())
    # Refusals are logged the 1st, 10th, 100th time: take enough of them that one is.
    evil = "\x1b[2J\x1b]0;owned\x07\u009b31m<img onerror=x>"
    for _ in range(50):
        udp.send(write(PLAIN, udp, f"no{evil}body"))
        for _ in range(2):
            udp.send(write(PLAIN, udp, "nobody").replace("From: ", f'From: "{evil}" '))
        await asyncio.sleep(0.01)
    await udp.expect("SIP/2.0 404")
    await is_calm(node)
    await until(lambda: len(node.log_path.read_text().splitlines()) > before)
    text = "\n".join(node.log_path.read_text().splitlines()[before:])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
