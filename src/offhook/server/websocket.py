"""uvicorn's WebSocket, for events of many megabytes and for peers that do not read."""

from __future__ import annotations

import codecs
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request as HandshakeRequest

from offhook.realtime.long_text import LONG, LongText

from .fragments import Fragments

__all__ = ["MAX_MESSAGE", "WebSocketProtocol"]

MAX_MESSAGE = 21 * 1024 * 1024
"An append event may hold 15 MiB of audio, which are 20 in base64 (API row S19)."

MOST_WAITING, MOST_WAITING_SIZE = 16, 1024 * 1024
"Messages, and characters of them, that may wait for the app before nothing more is read, pings included."

_utf8 = codecs.getincrementaldecoder("utf-8")


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """
    Lets an app cut a connection, by the ASGI extension `offhook.abort`: a peer that does not read takes no close frame
    either, and closing waits for what is written to be read.

    A large frame is unmasked and decoded while it comes in, and a text of more than `LONG` characters is given to the
    app as `LongText`. In one go, 14 MiB took 30 ms, in which nobody else was served.

    Some messages may wait while the app is busy with one, so that pings behind them are answered (API row S18). uvicorn
    reads nothing then, and an app may hear a client's minutes for longer than the client waits for its pong.
    """

    _fragments: Fragments | None = None
    _decode = _utf8()
    _pieces: list[str]
    _waiting = 0

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
            self._pieces.append(self._decode.decode(event.data, event.fin))
        except UnicodeDecodeError:
            self._refuse_text()
            return
        if event.fin:
            pieces, self._pieces = self._pieces, []
            text = LongText.of(pieces)
            self._hand_over("text", str(text) if len(text) <= LONG else text)

    def send_receive_event_to_app(self) -> None:
        """Give the app a text of one frame, or what is binary. Called by uvicorn's class."""
        data, self.frames = b"".join(self.frames), []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "bytes":
            self._hand_over("bytes", data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._refuse_text()
            return
        self._hand_over("text", text)

    def _hand_over(self, kind: str, content: str | bytes | LongText) -> None:
        self.queue.put_nowait({"type": "websocket.receive", kind: content})  # type: ignore[arg-type]
        self._waiting += len(content)
        if not self._has_room and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    @property
    def _has_room(self) -> bool:
        return self.queue.qsize() <= MOST_WAITING and self._waiting <= MOST_WAITING_SIZE

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._waiting -= len(message.get("text") or message.get("bytes") or "")
            if self.read_paused and self._has_room:
                self.read_paused = False
                self._read_on()
        return message

    def _refuse_text(self) -> None:
        self.conn.fail(1007, "the text is not UTF-8")
        self.handle_parser_exception()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # uvicorn logs an answer other than the upgrade as an app that forgot to answer.
            self.handshake_complete = True
