"""A carrier's edge that speaks raw bytes: nothing of the product's code reads or writes what goes over its sockets."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx2

from .developer import DeveloperApp
from .waiting import PATIENCE_S

__all__ = [
    "SipText",
    "Trunk",
    "TrunkCall",
    "digits",
    "establish",
    "hung_up",
    "new_branch",
    "post",
    "ring",
    "totals",
]

_numbers = itertools.count(1)
_COMPACT = {"c": "content-type", "f": "from", "i": "call-id", "l": "content-length", "m": "contact"} | {
    "t": "to",
    "v": "via",
}


@dataclass(frozen=True)
class SipText:
    """One message, cut at its line breaks and colons and no further."""

    at: float
    start: str
    headers: tuple[tuple[str, str], ...]
    body: str
    source: tuple[str, int]

    @classmethod
    def cut(cls, data: bytes, source: tuple[str, int]) -> SipText:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        head, _, body = text.partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        headers = [
            (name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        ]
        return cls(time.monotonic(), start, tuple(headers), body, source)

    def all(self, name: str) -> list[str]:
        """Return the values of each line of that name, full or compact, as they stand."""
        wanted = name.lower()
        return [value for key, value in self.headers if _COMPACT.get(key.lower(), key.lower()) == wanted]

    def one(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{len(values)} {name} in {self.start}: {values}"
        return values[0]

    @property
    def status(self) -> int:
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """The method of a request, and what a response answers."""
        return self.one("CSeq").split()[1]

    @property
    def cseq(self) -> int:
        return int(self.one("CSeq").split()[0])

    @property
    def to_tag(self) -> str:
        found = re.search(r";tag=([^;\s]+)", self.one("To"))
        assert found, f"no tag in {self.one('To')}"
        return found[1]


class Trunk:
    """
    One socket to the node: a bound UDP socket, or a TCP or TLS connection. Use as an async context manager.

    `seen` is all that came, oldest first.
    """

    def __init__(
        self, remote: tuple[str, int], transport: str, *, local: str = "127.0.0.1", ca: object = None
    ) -> None:
        self.transport = transport
        self.remote = remote
        self.seen: list[SipText] = []
        self.closed = False
        self._local_host, self._ca = local, ca
        self._arrived = asyncio.Event()
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Trunk:
        if self.transport == "udp":
            family = socket.AF_INET6 if ":" in self._local_host else socket.AF_INET
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind((self._local_host, 0))
            asyncio.get_running_loop().add_reader(self._socket, self._receive)
        else:
            context = ssl.create_default_context(cafile=str(self._ca)) if self.transport == "tls" else None
            reader, self._writer = await asyncio.open_connection(
                *self.remote, local_addr=(self._local_host, 0), ssl=context
            )
            self._task = asyncio.create_task(self._read(reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        if self._writer is not None:
            self._writer.transport.abort()
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def local(self) -> tuple[str, int]:
        found = self._socket.getsockname() if self._socket else self._writer.get_extra_info("sockname")  # type: ignore[union-attr]
        return str(found[0]), int(found[1])

    def send(self, message: str | bytes) -> None:
        data = message if isinstance(message, bytes) else message.encode()
        if self._socket is not None:
            self._socket.sendto(data, self.remote)
        elif self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)  # and into the void, as a datagram, when the node has hung up

    async def expect(
        self,
        what: str,
        timeout: float = PATIENCE_S,
        *,
        after: float = 0.0,
        where: Callable[[SipText], bool] = bool,
    ) -> SipText:
        """Return the first message that begins with `what` (`SIP/2.0 200`, `BYE `) and came after `after`."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for message in self.seen:
                        if message.start.startswith(what) and message.at > after and where(message):
                            return message
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            came = [f"{message.start} ({message.one('CSeq')})" for message in self.seen]
            raise AssertionError(f"no {what!r} within {timeout} s; came: {came}") from None

    def answer(self, request: SipText, status: str, *lines: str, body: str = "") -> None:
        """Answer a request of the node's."""
        mirrored = [
            f"{name}: {value}"
            for name, value in request.headers
            if name.lower() in ("via", "from", "to", "call-id", "cseq")
        ]
        length = f"Content-Length: {len(body.encode())}"
        self.send("\r\n".join([f"SIP/2.0 {status}", *mirrored, *lines, length, "", body]))

    async def wait_closed(self, timeout: float = PATIENCE_S) -> None:
        assert self._task is not None
        await asyncio.wait_for(asyncio.shield(self._task), timeout)

    def _receive(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data, source = self._socket.recvfrom(65536)
            except (BlockingIOError, ConnectionError):
                return
            self._note(data, source[:2])

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65536):
                self._buffer += data
                while (message := self._cut()) is not None:
                    self._note(message, self.remote)
        except OSError:
            pass
        self.closed = True
        self._arrived.set()

    def _cut(self) -> bytes | None:
        self._buffer = self._buffer.lstrip(b"\r\n")
        head, mark, _ = self._buffer.partition(b"\r\n\r\n")
        found = re.search(rb"\r\n(?:Content-Length|l)[ \t]*:[ \t]*(\d+)", head, re.IGNORECASE)
        if not mark or found is None:
            return None
        length = len(head) + 4 + int(found[1])
        if len(self._buffer) < length:
            return None
        message, self._buffer = self._buffer[:length], self._buffer[length:]
        return message

    def _note(self, data: bytes, source: tuple[str, int]) -> None:
        if data.strip(b"\r\n"):
            self.seen.append(SipText.cut(data, source))
            self._arrived.set()


@dataclass
class TrunkCall:
    """What a carrier remembers of a call that it placed: enough to write its requests by hand."""

    trunk: Trunk
    invite: str
    ringing: SipText | None = None
    ok: SipText | None = None
    cseq: int = field(init=False)

    def __post_init__(self) -> None:
        self.cseq = int(self._line("CSeq").split()[0])

    def _line(self, *names: str) -> str:
        """Return the value of a header of the INVITE, by any of its names."""
        for line in self.invite.split("\r\n\r\n")[0].split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() in [each.lower() for each in names]:
                return value.strip()
        raise AssertionError(f"the INVITE has no {names[0]}")

    @property
    def call_id(self) -> str:
        return self._line("Call-ID", "i")

    @property
    def contact(self) -> str:
        """The URI in the INVITE's Contact, as it stands there."""
        return self._line("Contact", "m").partition("<")[2].partition(">")[0]

    @property
    def media(self) -> tuple[str, int]:
        """Where the node's answer says that sound shall be sent."""
        assert self.ok is not None
        host = re.search(r"^c=IN IP\d (\S+)", self.ok.body, re.MULTILINE)
        port = re.search(r"^m=audio (\d+)", self.ok.body, re.MULTILINE)
        assert host, self.ok.body
        assert port, self.ok.body
        return host[1], int(port[1])

    def request(
        self, method: str, *lines: str, cseq: int | None = None, body: str = "", branch: str | None = None
    ) -> str:
        """Return a request of the carrier's in the dialog."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        host, port = self.trunk.local
        peer = self.ok or self.ringing
        assert peer is not None
        target = peer.one("Contact").partition("<")[2].partition(">")[0]
        head = [
            f"{method} {target} SIP/2.0",
            f"Via: SIP/2.0/{self.trunk.transport.upper()} {host}:{port};branch={branch or new_branch()}",
            f"From: {self._line('From', 'f')}",
            f"To: {peer.one('To')}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            *lines,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*head, "", body])

    def send(self, method: str, *lines: str, body: str = "", cseq: int | None = None) -> int:
        """Send a request in the dialog and return its CSeq number."""
        self.trunk.send(self.request(method, *lines, cseq=cseq, body=body))
        return self.cseq if cseq is None else cseq

    async def ask(self, method: str, *lines: str, body: str = "", timeout: float = PATIENCE_S) -> SipText:
        """Send a request in the dialog and return its final response."""
        number = self.send(method, *lines, body=body)
        return await self.trunk.expect(
            "SIP/2.0 ", timeout, where=lambda m: m.cseq == number and m.method == method and m.status >= 200
        )

    def ack(self) -> None:
        self.send("ACK", cseq=int(self._line("CSeq").split()[0]))

    def hop_request(self, method: str) -> str:
        """Return a CANCEL, or the ACK to a refusal: the INVITE's own hop and branch."""
        start, *lines = self.invite.split("\r\n\r\n")[0].split("\r\n")
        kept = ("via", "v", "from", "f", "to", "t", "call-id", "i", "route")
        via_seen = False
        head = [start.replace("INVITE", method, 1)]
        for line in lines:
            name = line.partition(":")[0].strip().lower()
            if name not in kept or (name in ("via", "v") and via_seen):
                continue
            via_seen = via_seen or name in ("via", "v")
            head.append(line)
        head += [f"CSeq: {self._line('CSeq').split()[0]} {method}", "Max-Forwards: 70", "Content-Length: 0"]
        return "\r\n".join([*head, "", ""])


def new_branch() -> str:
    return f"z9hG4bKraw{next(_numbers)}x{time.monotonic_ns():x}"


async def ring(trunk: Trunk, app: DeveloperApp, invite: str) -> tuple[TrunkCall, str]:
    """Send an INVITE; return the call once it rings and the app knows its id."""
    call = TrunkCall(trunk, invite)
    trunk.send(invite)
    call.ringing = await trunk.expect("SIP/2.0 180", where=lambda m: m.one("Call-ID") == call.call_id)
    return call, (await app.incoming()).call_id


async def establish(
    trunk: Trunk, app: DeveloperApp, invite: str, *, ack: bool = True, **session: Any
) -> tuple[TrunkCall, str]:
    call, call_id = await ring(trunk, app, invite)
    await app.accept(call_id, **session)
    call.ok = await trunk.expect("SIP/2.0 200", where=lambda m: m.one("Call-ID") == call.call_id)
    if ack:
        call.ack()
    return call, call_id


async def post(app: DeveloperApp, call_id: str, verb: str, body: Any = None) -> int:
    headers = {"Authorization": f"Bearer {app.seat.api_key}"}
    async with httpx2.AsyncClient(timeout=12, headers=headers) as client:
        return (
            await client.post(f"{app.node.base_url}/realtime/calls/{call_id}/{verb}", json=body)
        ).status_code


async def hung_up(call: TrunkCall, app: DeveloperApp, call_id: str) -> SipText:
    """Let the app hang up, and answer the BYE."""
    asked = asyncio.create_task(post(app, call_id, "hangup"))
    bye = await call.trunk.expect("BYE ", where=lambda m: m.one("Call-ID") == call.call_id)
    call.trunk.answer(bye, "200 OK")
    assert await asked == 200
    return bye


async def totals(app: DeveloperApp, call_id: str) -> dict[str, Any]:
    """Return the counts of an ended call's media."""
    async with asyncio.timeout(15):
        while True:
            for entry in await app.node.timeline(app.seat, call_id):
                if entry["title"].startswith("rtp: "):
                    return entry
            await asyncio.sleep(0.02)


async def digits(app: DeveloperApp, call_id: str) -> str:
    entries = await app.node.timeline(app.seat, call_id)
    return "".join(e["title"].removeprefix("digit ") for e in entries if e["title"].startswith("digit "))
