"""A carrier's edge that speaks raw bytes: nothing of the product's code reads or writes what goes over its sockets."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType

__all__ = ["Rtp", "SipText", "Trunk", "TrunkCall"]

_numbers = itertools.count(1)
_RTP = struct.Struct("!BBHII")
_COMPACT = {"c": "content-type", "f": "from", "i": "call-id", "l": "content-length", "m": "contact", "t": "to", "v": "via"}


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
        head, _, body = data.decode().partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
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
            self._socket = socket.socket(socket.AF_INET6 if ":" in self._local_host else socket.AF_INET, socket.SOCK_DGRAM)
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
        else:
            assert self._writer is not None
            self._writer.write(data)

    async def expect(
        self, what: str, timeout: float = 3.0, *, after: float = 0.0, where: Callable[[SipText], bool] = bool
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

    def answer(self, request: SipText, status: str, *lines: str) -> None:
        """Answer a request of the node's."""
        mirrored = [
            f"{name}: {value}"
            for name, value in request.headers
            if name.lower() in ("via", "from", "to", "call-id", "cseq")
        ]
        self.send("\r\n".join([f"SIP/2.0 {status}", *mirrored, *lines, "Content-Length: 0", "", ""]))

    async def wait_closed(self, timeout: float = 3.0) -> None:
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
        assert host and port, self.ok.body
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

    async def ask(self, method: str, *lines: str, body: str = "", timeout: float = 3.0) -> SipText:
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


class Rtp:
    """The carrier's media: packets are made and read here, at the pace of the test."""

    def __init__(self, host: str = "127.0.0.1", *, ssrc: int = 0x1234ABCD, rtcp: bool = False) -> None:
        self.ssrc = ssrc
        self.sequence = 0xFFF0
        self.timestamp = 0xFFFFF000
        self.came: list[tuple[float, bytes, tuple[str, int]]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((host, 0))
        self.rtcp = Rtp(host) if rtcp else None

    async def __aenter__(self) -> Rtp:
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        if self.rtcp is not None:
            await self.rtcp.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        if self.rtcp is not None:
            await self.rtcp.__aexit__(kind, error, trace)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def send_raw(self, data: bytes, to: tuple[str, int]) -> None:
        self._socket.sendto(data, to)

    def packet(self, payload: bytes, *, payload_type: int = 0, marker: bool = False, samples: int = 160) -> bytes:
        """Return the next packet of the stream; `samples` is how far the clock goes on after it."""
        header = _RTP.pack(0x80, payload_type | marker << 7, self.sequence, self.timestamp, self.ssrc)
        self.sequence = self.sequence + 1 & 0xFFFF
        self.timestamp = self.timestamp + samples & 0xFFFFFFFF
        return header + payload

    def event(self, to: tuple[str, int], digit: str, payload_type: int, steps: Iterable[int]) -> None:
        """Send packets of one digit's event: step n says n frames, and negative steps carry the end bit."""
        code = "0123456789*#ABCD".index(digit)
        for at, step in enumerate(steps):
            payload = struct.pack("!BBH", code, 10 | (0x80 if step < 0 else 0), abs(step) * 160)
            self.send_raw(self.packet(payload, payload_type=payload_type, marker=at == 0, samples=0), to)
        self.timestamp = self.timestamp + 1600 & 0xFFFFFFFF

    async def speak(self, to: tuple[str, int], ms: int, *, loud: bool, frame_ms: int = 20) -> None:
        """Send that much sound, in real time. Loud is a square wave."""
        count = frame_ms * 8
        payload = bytes([0x10 if loud and at // 8 % 2 else 0x90 if loud else 0xFF for at in range(count)])
        started = time.monotonic()
        for number in range(ms // frame_ms):
            if (delay := started + number * frame_ms / 1000 - time.monotonic()) > 0:
                await asyncio.sleep(delay)
            self.send_raw(self.packet(payload, samples=count), to)

    def loud(self, since: float = 0.0) -> int:
        """Return how many packets of sound came that are not silence."""
        return sum(
            1
            for at, data, _ in self.came
            if at > since and len(data) == 172 and sum((byte & 0x7F) < 0x50 for byte in data[12:]) > 40
        )

    async def hears(self, since: float, packets: int = 5, timeout: float = 4.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.loud(since) < packets:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"heard nothing; {len(self.came)} packets came") from None

    def _receive(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(2048)
            except (BlockingIOError, ConnectionError):
                return
            self.came.append((time.monotonic(), data, source))
