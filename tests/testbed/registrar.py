"""A registrar written from RFC 3261 section 10.3 and RFC 7616, apart from the product; it calls who is registered."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import ssl
from types import TracebackType
from typing import cast

from .waiting import PATIENCE_S

__all__ = ["Registrar", "Text"]

_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


class Text:
    """A SIP message as text, taken apart no more than a test needs."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        self.start, *lines = head.decode().split("\r\n")
        self.fields = [(name.strip(), value.strip()) for name, _, value in (x.partition(":") for x in lines)]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        return self.all(name)[0]


class Registrar:
    """
    Listens on one address. `script` holds what REGISTERs get instead of being judged: `(status and reason, headers)`.

    `bindings` are the Contacts kept, with their seconds. `heard` is everything that came, `pings` the CRLFs.
    """

    def __init__(
        self,
        *,
        transport: str = "udp",
        host: str = "127.0.0.2",
        user: str = "alice",
        password: str = "wonder:land",
        algorithm: str = "SHA-256",
        grants: int = 600,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.transport, self.host, self.port = transport, host, 0
        self.user, self.password, self.algorithm, self.grants = user, password, algorithm, grants
        self.script: list[tuple[str, list[str]]] = []
        self.silent = False
        self.bindings: dict[str, int] = {}
        self._answered: dict[str, list[str]] = {}
        self.heard: list[Text] = []
        self.pings = 0
        self.peer: tuple[str, int] | None = None
        self._tls = tls
        self._nonces = itertools.count(1)
        self._used: set[tuple[str, str]] = set()
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Registrar:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(self.host, self.port)
            )
            self._udp = cast(asyncio.DatagramTransport, udp)
            self.port = self._udp.get_extra_info("sockname")[1]
        else:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drop_connections()
        if self._udp is not None:
            self._udp.abort()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    async def drop_connections(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    @property
    def uri(self) -> str:
        return f"sip:{self.host}:{self.port};transport={self.transport}"

    def registers(self) -> list[Text]:
        return [one for one in self.heard if one.start.startswith("REGISTER ")]

    async def until(self, holds: object, timeout: float = PATIENCE_S) -> None:
        """Wait until something that came makes `holds()` true."""
        assert callable(holds)
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(holds)

    async def hears(self, start: str, timeout: float = PATIENCE_S, *, after: int = 0) -> Text:
        """Return the first message after the `after`-th whose first line begins so."""

        def found() -> Text | None:
            return next((one for one in self.heard[after:] if one.start.startswith(start)), None)

        try:
            await self.until(found, timeout)
        except TimeoutError:
            raise AssertionError(f"no {start}; came {[one.start for one in self.heard]}") from None
        one = found()
        assert one is not None
        return one

    def send(self, *lines: str, body: str = "") -> None:
        """Send a message by the flow that the registration came by."""
        text = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()
        if self._udp is not None:
            self._udp.sendto(text, self.peer)
        else:
            assert self._writer is not None
            self._writer.write(text)

    # What came.

    def received(self, data: bytes) -> None:
        if not data.strip():
            self.pings += 1
        else:
            message = Text(data)
            registers = message.start.startswith("REGISTER ")
            if registers and (answer := self._answered.get(message.one("Via"))):
                # It is sent again, as on UDP: one transaction has one answer (RFC 3261 section 17.2.2).
                self.send(*answer)
                return
            self.heard.append(message)
            if registers and not self.silent:
                self._judge(message)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.strip():
                    writer.write(b"\r\n")
                    self.received(head)
                    continue
                head = head.lstrip()
                length = int(Text(head).one("Content-Length"))
                self.received(head + await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def _judge(self, register: Text) -> None:
        if self.script:
            status, headers = self.script.pop(0)
            self._answer(register, status, *headers)
        elif not self.knows(register):
            self._answer(register, "401 Unauthorized", self._challenge())
        else:
            contact, seconds = register.one("Contact"), min(self.grants, int(register.one("Expires")))
            self.bindings.pop(contact, None)
            if seconds:
                self.bindings[contact] = seconds
            self._answer(
                register, "200 OK", *(f"Contact: {one};expires={kept}" for one, kept in self.bindings.items())
            )

    def challenge(self, request: Text) -> None:
        """Ask a request in a dialog for the password that registers."""
        self._reply(request, "401 Unauthorized", self._challenge())

    def reply(self, request: Text, status: str) -> None:
        """Answer a request in a dialog."""
        self._reply(request, status)

    def _challenge(self) -> str:
        nonce = f"nonce{next(self._nonces)}"
        fields = f'realm="testbed", nonce="{nonce}", algorithm={self.algorithm}, qop="auth", opaque="o"'
        return f"WWW-Authenticate: Digest {fields}"

    def _reply(self, request: Text, status: str, *headers: str) -> None:
        copied = [f"{name}: {request.one(name)}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
        self.send(f"SIP/2.0 {status}", *copied, *headers)

    def knows(self, request: Text) -> bool:
        """Whether a request has the answer to a challenge, by the registered user's password."""
        given = request.all("Authorization")
        if not given:
            return False
        fields = {name: quoted or bare for name, quoted, bare in _FIELD.findall(given[0])}
        hash_ = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}[self.algorithm]

        def digest(*parts: str) -> str:
            return hash_(":".join(parts).encode()).hexdigest()

        use = (fields["nonce"], fields["nc"])
        if use in self._used:
            return False
        self._used.add(use)
        expected = digest(
            digest(self.user, "testbed", self.password),
            fields["nonce"],
            fields["nc"],
            fields["cnonce"],
            "auth",
            digest(*request.start.split()[:2]),
        )
        return fields["username"] == self.user and fields["response"] == expected

    def _answer(self, request: Text, status: str, *headers: str) -> None:
        copied = [f"{name}: {request.one(name)}" for name in ("Via", "From", "Call-ID", "CSeq")]
        answer = [f"SIP/2.0 {status}", *copied, f"To: {request.one('To')};tag=registrar", *headers]
        self._answered[request.one("Via")] = answer
        self.send(*answer)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._registrar.peer = addr
        self._registrar.received(data)
