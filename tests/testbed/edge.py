"""Where a carrier's edge listens: takes what is dialled or sent to it, and answers by hand."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass
from types import TracebackType

from .trunk import SipText
from .waiting import PATIENCE_S

__all__ = ["Arrival", "Edge"]


@dataclass(frozen=True)
class Arrival:
    """One request, and what it came by."""

    transport: str
    request: SipText


class Edge:
    """
    One port, on each of the given transports. Use as an async context manager.

    `status` answers every request; `None` is silence. A stream that is to be `deaf` is closed when it has been read.
    """

    def __init__(
        self,
        *transports: str,
        tls: ssl.SSLContext | None = None,
        status: str | None = "200 OK",
        deaf: bool = False,
    ) -> None:
        self.status = status
        self.port = 0
        self._transports, self._tls, self._deaf = transports, tls, deaf
        self._arrived: asyncio.Queue[Arrival] = asyncio.Queue()
        self.arrivals: list[Arrival] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._udp: socket.socket | None = None

    async def __aenter__(self) -> Edge:
        bound = socket.create_server(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        if "udp" in self._transports:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.setblocking(False)
            self._udp.bind(("127.0.0.1", self.port))
            asyncio.get_running_loop().add_reader(self._udp, self._receive)
        if "tcp" in self._transports or "tls" in self._transports:
            self._server = await asyncio.start_server(self._serve, sock=bound, ssl=self._tls)
        else:
            bound.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers:
            writer.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()

    async def next(self, timeout: float = PATIENCE_S) -> Arrival:
        return await asyncio.wait_for(self._arrived.get(), timeout)

    def _receive(self) -> None:
        assert self._udp is not None
        while True:
            try:
                data, source = self._udp.recvfrom(65536)
            except (BlockingIOError, ConnectionError):
                return
            if (answer := self._take("udp", data, source)) is not None:
                self._udp.sendto(answer, source)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        transport = "tls" if self._tls else "tcp"
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.strip():
                    continue
                found = re.search(rb"\r\nContent-Length: *(\d+)", head)
                body = await reader.readexactly(int(found[1])) if found else b""
                if self._deaf:
                    writer.transport.abort()
                    return
                answer = self._take(transport, head.lstrip(b"\r\n") + body, writer.get_extra_info("peername"))
                if answer is not None:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()

    def _take(self, transport: str, data: bytes, source: tuple[str, int]) -> bytes | None:
        request = SipText.cut(data, source)
        arrival = Arrival(transport, request)
        self.arrivals.append(arrival)
        self._arrived.put_nowait(arrival)
        if self.status is None or request.start.startswith("ACK "):
            return None
        mirrored = [
            f"{name}: {value}"
            for name, value in request.headers
            if name.lower() in ("via", "from", "to", "call-id", "cseq")
        ]
        return "\r\n".join([f"SIP/2.0 {self.status}", *mirrored, "Content-Length: 0", "", ""]).encode()
