"""uvicorn's WebSocket, for events of many megabytes and for peers that do not read."""

from __future__ import annotations

import codecs
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request as HandshakeRequest

from offhook.realtime.long_text import LONG, LongText

from .fragments import PIECE, Fragments

__all__ = ["MAX_MESSAGE", "WebSocketProtocol"]

MAX_MESSAGE = 21 * 1024 * 1024
"An append event may hold 15 MiB of audio, which are 20 in base64 (API row S19)."

MOST_SMALL = 1_000
"Fragments of a text that are kept until they are joined."

_utf8 = codecs.getincrementaldecoder("utf-8")


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """
    Lets an app cut a connection, by the ASGI extension `offhook.abort`: a peer that does not read takes no close frame
    either, and closing waits for what is written to be read.

    A large frame is unmasked and decoded while it comes in, and a text of more than `LONG` characters is given to the
    app as `LongText`. In one go, 14 MiB took 30 ms, in which nobody else was served.
    """

    _fragments: Fragments | None = None
    _decode = _utf8()
    _pieces: list[str]
    _small: list[str]
    _small_length: int

    def handle_connect(self, event: HandshakeRequest) -> None:
        super().handle_connect(event)
        scope: dict[str, Any] | None = getattr(self, "scope", None)
        if scope is not None:
            scope["extensions"]["offhook.abort"] = {"call": self.transport.abort}

    def data_received(self, data: bytes) -> None:
        if self._fragments is None:
            # The handshake, which comes in one piece from the HTTP protocol.
            self._fragments = Fragments(MAX_MESSAGE)
            super().data_received(data)
        else:
            super().data_received(self._fragments.rewrite(data))
            if self._fragments.within and not self.read_paused and not self.transport.is_closing():
                # What waits in the socket would come next, up to 8 MiB of it, and all others after that.
                self.transport.pause_reading()
                self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_text(self, event: Frame) -> None:
        if event.fin:
            super().handle_text(event)
            return
        self.curr_msg_data_type = "text"
        self._decode, self._pieces = _utf8(), []
        self._small, self._small_length = [], 0
        self._add(event)

    def handle_cont(self, event: Frame) -> None:
        if self.curr_msg_data_type == "bytes":
            super().handle_cont(event)
        else:
            self._add(event)

    def _add(self, event: Frame) -> None:
        """Take a fragment of a text."""
        if self.close_sent:
            return
        try:
            text = self._decode.decode(event.data, event.fin)
        except UnicodeDecodeError:
            self.conn.fail(1007, "the text is not UTF-8")
            if self.conn.close_sent is None:
                self.transport.abort()  # it came before the upgrade was answered
            else:
                self.handle_parser_exception()
            return
        self._small.append(text)
        self._small_length += len(text)
        if event.fin or self._small_length >= PIECE or len(self._small) >= MOST_SMALL:
            self._join()
        if event.fin:
            pieces, self._pieces = self._pieces, []
            whole = LongText.of(pieces)
            short = len(whole) <= LONG
            self.queue.put_nowait({"type": "websocket.receive", "text": str(whole) if short else whole})  # type: ignore[typeddict-item]
            if not self.read_paused:
                self.read_paused = True
                self.transport.pause_reading()

    def _join(self) -> None:
        """A client's own fragments may be of a byte each, or empty: kept apart they would cost more than their text."""
        joined = "".join(self._small)
        if self._pieces and len(self._pieces[-1]) + len(joined) <= PIECE:
            self._pieces[-1] += joined
        elif joined:
            self._pieces.append(joined)
        self._small, self._small_length = [], 0

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # uvicorn logs an answer other than the upgrade as an app that forgot to answer.
            self.handshake_complete = True
