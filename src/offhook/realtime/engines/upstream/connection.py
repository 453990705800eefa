"""One WebSocket to a Realtime API: opened, configured, written through a bounded queue, read until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from offhook.realtime.engine import AudioFormat
from offhook.realtime.relay_request import can_be_relayed

from .beta import BetaDialect
from .redaction import Redaction
from .target import Upstream, handshake
from .wire import append_frame, formats_of, session_update, wants_other_format

__all__ = ["Connection", "Refused", "open_connection", "trust"]

MAX_FRAME = 16 * 1024 * 1024
MAX_QUEUE = 4
"Frames that came and wait for us; then no more is read (TCP)."
MAX_AUDIO = 100
"Frames of the caller's that may wait: 2 s. Then the oldest goes."
MAX_EVENTS = 2000
"Client events that may wait: more than are held while nobody is there, and asked again."
MAX_WAITING = 64 * 1024 * 1024
"Characters of all that waits, sound and pictures of an app's items among it."
MAX_EARLY = 1000
"Events that may come before the session is configured."
CLOSE_S = 1.0
PING_S = 20.0
_OPENING = "offhook_open"

# The library logs handshakes, keys included, at DEBUG.
_quiet = logging.getLogger("offhook.realtime.upstream")
_quiet.setLevel(logging.WARNING)


RefusalKind = Literal["refused", "rate_limited", "error", "unreachable"]


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """
    An upstream did not take the call; the message says why and holds no secret.

    `kind` says whose move it is: of whoever chose key, model and session (`refused`), of whoever pays (`rate_limited`),
    of the upstream (`error`), or nobody answered there (`unreachable`).
    """

    def __init__(self, said: str, kind: RefusalKind = "refused") -> None:
        super().__init__(said)
        self.kind = kind


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc  # A key goes to the address that the operator named, and nowhere else.


class Connection:
    """An open session. `session` is what is in force; `early` came before that was known."""

    def __init__(self, socket: ClientConnection, upstream: Upstream) -> None:
        self.name = upstream.name
        self.session: dict[str, Any] = {}
        self.created_id: str | None = None
        self.hears: AudioFormat = "audio/pcm"
        self.speaks: AudioFormat = "audio/pcm"
        self.early: list[dict[str, Any]] = []
        self.dropped = 0
        "Frames of the caller's sound that were not sent."
        self._socket = socket
        self._redaction = Redaction(upstream.key)
        self._beta = BetaDialect() if upstream.speaks_beta else None
        self._came: deque[dict[str, Any]] = deque()
        self._queue: deque[tuple[bool, str]] = deque()
        self._first: Iterable[Mapping[str, Any]] = ()
        self._audio = 0
        self._waiting = 0
        self._wake = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self._paused = False
        "Whether nothing was read for a time since the last ping."
        self._tasks: list[asyncio.Task[None]] = []
        self._on_event: Callable[[dict[str, Any]], None] = self.early.append
        self._on_lost: Callable[[str], None] = lambda reason: None
        self._closed = False

    # Opening.

    async def configure(self, given: Mapping[str, Any], formats: list[AudioFormat]) -> None:
        """Wait for `session.created`, then say what the app wants. Raises `Refused`."""
        created = await self._await({"session.created"})
        self.created_id = created.get("event_id")
        for number, asked in enumerate(formats):
            event_id = f"{_OPENING}_{number}"
            update = {
                "type": "session.update",
                "event_id": event_id,
                "session": session_update(given, asked),
            }
            await self._socket.send(self._frame(update))
            answer = await self._await({"session.updated"}, event_id)
            if answer["type"] == "session.updated":
                self.session = _object(created.get("session")) | _object(answer.get("session"))
                try:
                    self.hears, self.speaks = formats_of(self.session, asked)
                except ValueError as fault:
                    if number + 1 == len(formats):
                        raise Refused(f"it was asked for {asked}, and {fault}") from None
                    continue
                self.early += self._came
                self._came.clear()
                return
            error = _object(answer.get("error"))
            if number + 1 == len(formats) or not wants_other_format(error):
                about = ", ".join(str(error[name]) for name in ("code", "param") if error.get(name))
                said = error.get("message") or "it does not say why"
                text = f"it refused the session: {said} ({about or error.get('type')})"
                raise Refused(text, _kind_of(error))

    async def _await(self, kinds: set[str], event_id: str | None = None) -> dict[str, Any]:
        while True:
            while not self._came:
                self._came += self._parse(await self._socket.recv(decode=False))
            event = self._came.popleft()
            if event["type"] in kinds:
                return event
            if event["type"] == "error":
                error = _object(event.get("error"))
                if event_id is None:
                    about = error.get("code") or error.get("type")
                    text = f"it answered with an error: {error.get('message') or ''} ({about})"
                    raise Refused(text, _kind_of(error))
                if error.get("event_id") in (event_id, None):
                    return event
            self.early.append(event)
            if len(self.early) > MAX_EARLY:
                raise Refused("it says too much before the session is configured")

    # The session.

    def run(
        self,
        on_event: Callable[[dict[str, Any]], None],
        on_lost: Callable[[str], None],
        first: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """
        Start to read and write. `on_lost` is called once, unless `close` came first.

        `first` goes up before anything else, however much it is: a conversation of hours, each item made when it is
        its turn.
        """
        self._on_event, self._on_lost, self._first = on_event, on_lost, first
        self._tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._ping())]

    def append(self, audio: bytes) -> bool:
        """Queue the caller's sound, in the format `hears`. Returns whether an older frame had to go."""
        overflows = self._audio >= MAX_AUDIO
        if overflows:
            self._drop_oldest()
        self._audio += 1
        self._enqueue(True, append_frame(audio))
        return overflows

    def send(self, event: Mapping[str, Any]) -> None:
        """Queue a client event."""
        if len(self._queue) - self._audio >= MAX_EVENTS or self._waiting > MAX_WAITING:
            self._end("it takes no more events")
            return
        self._enqueue(False, self._frame(event))

    def pause(self) -> None:
        """Read nothing more, so that the other side must wait (TCP). No answer to a ping is read either."""
        self._reading.clear()
        self._paused = True

    def resume(self) -> None:
        """Read on."""
        self._reading.set()

    def stop(self) -> None:
        """Neither read nor write any more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()

    def abort(self) -> None:
        """Let a lost connection go, without a word to the other side."""
        self.stop()
        self._socket.transport.abort()

    def _enqueue(self, is_audio: bool, frame: str) -> None:
        self._queue.append((is_audio, frame))
        self._waiting += len(frame)
        self._wake.set()

    def _drop_oldest(self) -> None:
        for index, (is_audio, frame) in enumerate(self._queue):
            if is_audio:
                del self._queue[index]
                self._audio -= 1
                self._waiting -= len(frame)
                self.dropped += 1
                return

    async def _read(self) -> None:
        try:
            async for frame in self._socket:
                for event in self._parse(frame):
                    self._on_event(event)
                if not self._reading.is_set():
                    await self._reading.wait()
            reason = f"closed with {self._socket.close_code}"
        except ConnectionClosed as error:
            reason = f"closed with {error.rcvd.code}" if error.rcvd else "the connection broke (1006)"
        except OSError as error:
            reason = str(error) or type(error).__name__
        except Exception:
            # A call whose upstream nobody reads would be silent for ever.
            _quiet.exception("an upstream event failed", extra={"event": "upstream.fault"})
            reason = "sent what could not be handled"
        self._end(reason)

    async def _write(self) -> None:
        try:
            for event in self._first:
                await self._socket.send(self._frame(event))
                await asyncio.sleep(0)  # Others have the loop, also while the socket takes all at once.
            self._first = ()
            while True:
                while self._queue:
                    is_audio, frame = self._queue.popleft()
                    self._audio -= is_audio
                    self._waiting -= len(frame)
                    await self._socket.send(frame)
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionClosed, OSError):
            pass  # the reader says so, and why
        except Exception:
            # A call whose caller nobody hears would be silent for ever.
            _quiet.exception("an event could not be sent", extra={"event": "upstream.fault"})
            self._end("was to be sent what cannot be written")

    async def _ping(self) -> None:
        """See that somebody is there. The answer comes behind all that was not read, so one that is paused has time."""
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                await asyncio.sleep(PING_S)
                await self._reading.wait()
                self._paused = False
                pong = asyncio.ensure_future(await self._socket.ping())
                await asyncio.wait((pong,), timeout=PING_S)
                if not pong.done() and not self._paused:
                    self._end("it answers no ping")
                    return

    def _end(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._on_lost(reason)

    def _frame(self, event: Mapping[str, Any]) -> str:
        return orjson.dumps(event if self._beta is None else self._beta.up(event)).decode()

    def _parse(self, frame: str | bytes) -> list[dict[str, Any]]:
        """Return the events of a frame; none for what is none. An upstream that repeats its key does not pass it on."""
        raw = frame.encode() if isinstance(frame, str) else frame
        try:
            event = orjson.loads(self._redaction.hide(raw))
        except orjson.JSONDecodeError:
            return []
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return []
        if not can_be_relayed(raw, event):
            return []
        return [event] if self._beta is None else self._beta.down(event)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def trust(upstream: Upstream, shared: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return what verifies an upstream's certificate: what all share, or one for its `ca_file`. Raises `OSError`."""
    if not upstream.ca_file:
        return shared
    context = ssl.create_default_context()
    context.load_verify_locations(upstream.ca_file)
    return context


async def open_connection(
    upstream: Upstream,
    *,
    model: str,
    given: Mapping[str, Any],
    formats: list[AudioFormat],
    silence_s: float,
    tls: ssl.SSLContext | None,
) -> Connection:
    """
    Open and configure. `formats` are tried in order until one is taken. Raises `Refused`.

    No step, the handshake, `session.created` and `session.updated` together, may take longer than `silence_s`.
    """
    url, headers = handshake(upstream, model)
    socket: ClientConnection | None = None
    try:
        async with asyncio.timeout(silence_s):
            socket = await _Connect(
                url,
                additional_headers=headers,
                compression=None,
                proxy=None,
                open_timeout=None,
                max_size=MAX_FRAME,
                max_queue=MAX_QUEUE,
                close_timeout=CLOSE_S,
                ping_interval=None,
                logger=_quiet,
                ssl=tls if url.startswith("wss:") else None,
            )
            connection = Connection(socket, upstream)
            await connection.configure(given, formats)
            return connection
    except BaseException as error:
        if socket is not None:
            socket.transport.abort()
        if isinstance(error, Exception):
            raise _refused(error, silence_s) from None
        raise


def _kind_of(error: Mapping[str, Any]) -> RefusalKind:
    """Read the `error` object of an event."""
    named = f"{error.get('code')} {error.get('type')}"
    if "rate_limit" in named or "quota" in named:
        return "rate_limited"
    return "error" if "server_error" in named else "refused"


def _refused(error: Exception, silence_s: float) -> Refused:
    match error:
        case Refused():
            return error
        case TimeoutError():
            return Refused(f"no answer within {silence_s:g} s", "unreachable")
        case InvalidStatus():
            status = error.response.status_code
            kinds: dict[int, RefusalKind] = {429: "rate_limited"}
            return Refused(f"HTTP {status}", kinds.get(status, "error" if status >= 500 else "refused"))
        case ConnectionClosed():
            code = error.rcvd.code if error.rcvd else 1006
            # RFC 6455 section 7.4: a policy, or the application's own; all else is a way of breaking down.
            kind: RefusalKind = "refused" if code == 1008 or code >= 3000 else "error"
            return Refused(f"closed with {code} before it was ready", kind)
        case ssl.SSLError():
            return Refused(f"TLS: {_tls_fault(error)}", "unreachable")
        case InvalidURI():
            return Refused("its url cannot be used", "unreachable")
        case InvalidHandshake():
            return Refused("it does not speak WebSocket there", "unreachable")
        case OSError():
            text = error.strerror or "it closed the connection instead of answering"
            return Refused(text, "unreachable")
        case _:
            raise error


def _tls_fault(error: ssl.SSLError) -> str:
    """Return what is wrong in words: of a certificate what the verifier says, else OpenSSL's own name for it."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return error.verify_message.rstrip(".")
    return (error.reason or "failed").lower().replace("_", " ")
