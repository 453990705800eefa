"""
A call's pair of UDP sockets, and the pool that they come from.

The loop says when a datagram is there, and the socket itself gives it: the loop's own UDP transport costs half as much
again to open and to close. The socket also sends, and never waits: what does not fit into its buffer is late already.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import ipaddress
import logging
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from offhook.audio import g711
from offhook.audio.frames import SILENCE, Law
from offhook.clock import Clock
from offhook.media.negotiate import MediaPlan
from offhook.media.pacer import Pacer
from offhook.media.stats import DigitReceived, Drained, MediaEvent, MediaStats
from offhook.media.stream import MediaStream
from offhook.media.tap import Tap

__all__ = ["MediaPort", "NoFreePort", "PortPlace", "PortPool", "Witness"]

_log = logging.getLogger("offhook.media")

Witness = Callable[[bool, int, bytes, tuple[Any, ...]], None]
"Is told of each datagram: whether we sent it, our port, what is in it, and the peer's address."

RECEIVE_BUFFER: Final = 65536
"""Room for half a second of packets while the process is held up."""
LARGEST_DATAGRAM: Final = 65535
_DRAWN: Final = struct.Struct("!IIH12s")
"""SSRC, timestamp, sequence number and name of a stream, from one drawing of random octets."""


class NoFreePort(Exception):  # noqa: N818 - what it says is the whole of it
    """Every pair of the range is in use, by us or by others, or the process may open no more sockets."""


class PortPool:
    """
    Pairs of an even port for RTP and the odd one above it for RTCP (RFC 3550 section 11).

    A pair is drawn at random from the half of the free ones that has been free for longer: the peer of a call that is
    over may send on for a while, and the next call on its port would hear it.
    """

    def __init__(self, host: str, first: int, last: int) -> None:
        """`host` is a literal address to bind to; `first` to `last` is the range of ports, both included."""
        ipaddress.ip_address(host)
        first += first % 2
        if not 1024 <= first < last <= 65535:
            raise ValueError(f"media ports {first}-{last}: give a range of two or more from 1024 to 65535")
        self.host = host
        self._ports = list(range(first, last, 2))
        secrets.SystemRandom().shuffle(self._ports)
        self.total = len(self._ports)
        "How many pairs the range has."
        self._promised = 0

    @property
    def free(self) -> int:
        """How many pairs we neither use nor have promised. Others may still hold some of them."""
        return len(self._ports) - self._promised

    def promise(self) -> PortPlace | None:
        """Hold a pair for somebody who will need it later; `None` when there is none left."""
        if self.free < 1:
            return None
        self._promised += 1
        return PortPlace(self)

    def check(self) -> None:
        """Raises `OSError` when no port of that address can be bound: it is not this machine's."""
        with socket.socket(
            socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM
        ) as sock:
            sock.bind((self.host, 0))

    def open(self) -> MediaPort:
        """Bind a pair that nobody was promised, to be read by the running loop. Raises `NoFreePort`."""
        if self._ports and self.free < 1:
            raise NoFreePort(f"all free media port pairs on {self.host} are promised to calls that ring")
        return self._open()

    def _open(self) -> MediaPort:
        held_by_others = []
        try:
            while self._ports:
                port = self._draw()
                try:
                    pair = _bind_pair(self.host, port)
                except OSError as error:
                    self._release(port)
                    raise NoFreePort(f"no socket for a media port: {error.strerror or error}") from error
                if pair is None:
                    held_by_others.append(port)
                    continue
                return MediaPort._open(self, port, *pair)
        finally:
            self._ports.extend(held_by_others)
        raise NoFreePort(f"none of the {self.total} media port pairs on {self.host} is free: widen the range")

    def _draw(self) -> int:
        return self._ports.pop(secrets.randbelow((len(self._ports) + 1) // 2))

    def _release(self, port: int) -> None:
        self._ports.append(port)


class PortPlace:
    """A pair that was promised: `open` binds it, `give_back` lets others have it. Nothing is bound before that."""

    __slots__ = ("_held", "_pool")

    def __init__(self, pool: PortPool) -> None:
        self._pool = pool
        self._held = True

    def open(self) -> MediaPort:
        """Bind. Raises `NoFreePort`: programs that are not ours may hold what is left."""
        self.give_back()
        return self._pool._open()

    def give_back(self) -> None:
        self._pool._promised -= self._held
        self._held = False


class MediaPort:
    """
    One call's way to the network, given out by `PortPool.open`.

    Nothing is sent or heard before `start`; `close` gives the ports back. All callbacks come from the loop's thread.
    """

    __slots__ = (
        "_closed",
        "_codec",
        "_expecting_since",
        "_failures",
        "_heard",
        "_hushed",
        "_law",
        "_loop",
        "_monotonic",
        "_on_digit",
        "_on_drained",
        "_on_event",
        "_on_frame",
        "_pacer",
        "_pool",
        "_prompt",
        "_rtcp",
        "_rtp",
        "_stream",
        "_tap",
        "_witness",
        "host",
        "port",
    )

    def __init__(self, pool: PortPool, port: int, rtp: socket.socket, rtcp: socket.socket) -> None:
        self.host = pool.host
        self.port = port
        self._pool = pool
        self._rtp = rtp
        self._rtcp = rtcp
        self._loop = asyncio.get_running_loop()
        self._stream: MediaStream | None = None
        self._pacer: Pacer | None = None
        self._prompt = False
        self._tap: Tap | None = None
        self._expecting_since: float | None = None
        self._closed = False
        self._failures = 0
        self._witness: Witness | None = None
        self._tell_nobody()

    @classmethod
    def _open(cls, pool: PortPool, port: int, rtp: socket.socket, rtcp: socket.socket) -> MediaPort:
        self = cls(pool, port, rtp, rtcp)
        try:
            self._loop.add_reader(rtp.fileno(), self._read_rtp)
            self._loop.add_reader(rtcp.fileno(), self._read_rtcp)
        except BaseException:
            self.close()
            raise
        return self

    def start(
        self,
        plan: MediaPlan,
        *,
        pacer: Pacer,
        on_frame: Callable[[bytes], None],
        on_digit: Callable[[str], None],
        on_drained: Callable[[], None],
        on_event: Callable[[MediaEvent], None] | None = None,
        prompt: bool = False,
        law: Law | None = None,
    ) -> None:
        """
        Send and receive by a plan from now on.

        `law` is what this side speaks and hears for good, whatever later plans bring; the plan's codec when not given.
        `on_frame` gets 20 ms of the caller's sound in it, every 20 ms from the first RTP packet on,
        concealed or silent where none came. With `prompt` it gets them as they come, in order, which is 20 to 40 ms
        earlier and not even. `on_drained` follows the last queued sample.
        """
        if self._stream is not None or self._closed:
            raise RuntimeError("a media port is started once")
        clock: Clock = pacer.clock
        self._monotonic = clock.monotonic
        now = clock.monotonic()
        self._heard = on_frame
        self._law = law or plan.codec
        self._adopt(plan, held=False)
        self._on_digit = on_digit
        self._on_drained = on_drained
        self._on_event = on_event
        ssrc, timestamp, sequence, name = _DRAWN.unpack(secrets.token_bytes(_DRAWN.size))
        self._stream = MediaStream(
            plan,
            ssrc=ssrc,
            # In the lower half, so that losing the first packets cannot hide that the number wrapped (RFC 3711 3.3.1).
            sequence=sequence & 0x7FFF,
            timestamp=timestamp,
            # A name that tells nothing about this machine (RFC 7022).
            cname=base64.urlsafe_b64encode(name).decode(),
            now=now,
            wall_offset=clock.wall() - now,
            prompt=prompt,
        )
        self._prompt = prompt
        self._expecting_since = now if plan.receives and not plan.held else None
        self._pacer = pacer
        pacer.add(self)

    def update(self, plan: MediaPlan) -> None:
        """
        Go on by a new plan (re-INVITE).

        While the peer holds the call, `on_frame` gets silence: what it sends then is music, and nobody speaks.
        """
        stream = self._started
        if not plan.receives or plan.held:
            self._expecting_since = None
        elif self._expecting_since is None:
            self._expecting_since = self._monotonic()
        stream.renegotiate(plan)
        self._adopt(plan, held=plan.held)

    def play(self, audio: bytes) -> None:
        """Queue G.711, of any length; it is sent 160 bytes every 20 ms, and waits while the peer holds the call."""
        self._started.sender.playout.play(g711.transcode(audio, self._law, self._codec))

    def clear(self) -> int:
        """Drop what is queued, at once; return how many bytes that was."""
        return self._started.sender.playout.clear()

    @property
    def played_samples(self) -> int:
        """Queued samples that were really sent since the start."""
        return 0 if self._stream is None else self._stream.sender.playout.played

    @property
    def queued_samples(self) -> int:
        """Samples that wait to be sent."""
        return 0 if self._stream is None else self._stream.sender.playout.queued

    def send_digits(
        self, digits: str, duration_ms: int = 100, gap_ms: int = 60, *, tones_only: bool = False
    ) -> None:
        """Send digits as events (RFC 4733), or as tones if the peer takes none. Raises `ValueError`."""
        self._started.sender.send_digits(digits, duration_ms, gap_ms, tones_only=tones_only)

    def stats(self) -> MediaStats:
        """Return the counts so far."""
        return self._started.stats()

    @property
    def plan(self) -> MediaPlan:
        """What was agreed last."""
        return self._started.plan

    @property
    def last_received_at(self) -> float | None:
        """When the newest RTP packet came that was taken in, in monotonic seconds."""
        return self._started.receiver.last_received_at

    @property
    def expecting_since(self) -> float | None:
        """Since when the peer may send, in monotonic seconds; `None` while it is not to (hold)."""
        return self._expecting_since

    def record(self, tap: Tap | None) -> None:
        """Lay both sides' sound into a tap, in this side's law, as it is heard and sent from now; `None`: no more."""
        stream, self._tap = self._started, tap
        stream.sender.tap = None
        self._adopt(stream.plan, held=self._hushed)

    def watch(self, witness: Witness) -> None:
        """Show each datagram as it is on the wire, in and out, until `close`. It may neither wait nor raise."""
        self._witness = witness

    def close(self) -> None:
        """Say goodbye by RTCP and give the ports back. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._pacer is not None:
            self._pacer.remove(self)
        if self._stream is not None:
            self._send_rtcp(self._stream.create_goodbye())
        for sock in (self._rtp, self._rtcp):
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._pool._release(self.port)
        # Who was told of its sound holds this port, and is not to wait for the collector.
        self._tell_nobody()

    def _tell_nobody(self) -> None:
        self._heard = _unheard
        self._on_frame: Callable[[bytes], None] = _unheard
        self._on_digit = _unpressed
        self._on_drained = _undrained
        self._on_event = None
        self._tap = self._witness = None
        if self._stream is not None:
            self._stream.sender.tap = None

    def _adopt(self, plan: MediaPlan, *, held: bool) -> None:
        """Join the network's codec to ours; frames take no step more where the two are the same."""
        self._codec, self._hushed = plan.codec, held
        heard, codec, law = self._heard, plan.codec, self._law
        if (tap := self._tap) is not None:
            heard = _both(self._laid_by(tap), heard)
            self._started.sender.tap = (
                tap.sent if codec == law else lambda frame: tap.sent(g711.transcode(frame, codec, law))
            )
        self._on_frame = heard
        if held:
            silence = SILENCE[law]
            self._on_frame = lambda _: heard(silence)
        elif codec != law:
            self._on_frame = lambda frame: heard(g711.transcode(frame, codec, law))

    def _laid_by(self, tap: Tap) -> Callable[[bytes], None]:
        if not self._prompt:
            return tap.heard
        receiver = self._started.receiver
        return lambda frame: tap.heard(frame, receiver.lead)

    @property
    def _started(self) -> MediaStream:
        if self._stream is None:
            raise RuntimeError("the media port is not started")
        return self._stream

    # What the pacer calls.

    def send(self, now: float) -> None:
        """Send the packet that is due."""
        stream = self._stream
        if stream is None or self._closed:
            return
        if self._tap is not None:
            self._tap.tick()
        packet = stream.next_packet()
        if packet is not None:
            try:
                self._rtp.sendto(packet, stream.destination)
                if self._witness is not None:
                    self._witness(True, self.port, packet, stream.destination)
            except OSError as error:
                self._failed("send", error)
        if stream.events:
            self._dispatch(stream)

    def hear(self, now: float) -> None:
        """Deliver the frame that is due, and the report when it is time."""
        stream = self._stream
        if stream is None or self._closed:
            return
        frame = stream.next_frame(now)
        if frame is not None:
            self._on_frame(frame)
        if self._prompt:
            self._hear_early(stream)
        if now >= stream.report_due:
            self._send_rtcp(stream.create_report(now))

    def skip(self, frames: int) -> None:
        """Leave out frames for which the pacer came too late."""
        self._started.skip(frames)
        if self._tap is not None:
            self._tap.skip(frames)

    # What the loop calls: once for each datagram, so that no port keeps the others waiting.

    def _read_rtp(self) -> None:
        try:
            data, source = self._rtp.recvfrom(LARGEST_DATAGRAM)
        except OSError:
            return
        self._receive_rtp(data, source)

    def _receive_rtp(self, data: bytes, source: tuple[Any, ...]) -> None:
        if self._witness is not None:
            self._witness(False, self.port, data, source)
        stream = self._stream
        if stream is not None and not self._closed:
            now = self._monotonic()
            stream.receive_rtp(data, source, now)
            if stream.events:
                self._dispatch(stream)
            if self._prompt and self._pacer is not None:
                try:
                    self._hear_early(stream)
                except Exception:
                    self._pacer.failed("handling", now)

    def _read_rtcp(self) -> None:
        try:
            data, source = self._rtcp.recvfrom(LARGEST_DATAGRAM)
        except OSError:
            return
        self._receive_rtcp(data, source)

    def _receive_rtcp(self, data: bytes, source: tuple[Any, ...]) -> None:
        if self._witness is not None:
            self._witness(False, self.port + 1, data, source)
        stream = self._stream
        if stream is not None and not self._closed:
            stream.receive_rtcp(data, source, self._monotonic())
            if stream.events:
                self._dispatch(stream)

    def _hear_early(self, stream: MediaStream) -> None:
        while (frame := stream.early_frame()) is not None:
            self._on_frame(frame)

    def _dispatch(self, stream: MediaStream) -> None:
        for event in stream.take_events():
            try:
                self._handle(event)
            except Exception:
                _log.exception("handling a media event failed", extra={"event": "media.event.failed"})

    def _handle(self, event: DigitReceived | Drained | MediaEvent) -> None:
        if isinstance(event, DigitReceived):
            self._on_digit(event.digit)
        elif isinstance(event, Drained):
            self._on_drained()
        elif self._on_event is not None:
            self._on_event(event)

    def _send_rtcp(self, data: bytes) -> None:
        destination = None if self._stream is None else self._stream.rtcp_destination
        if self._stream is not None and destination is not None:
            mux = self._stream.plan.rtcp_mux
            try:
                (self._rtp if mux else self._rtcp).sendto(data, destination)
                if self._witness is not None:
                    self._witness(True, self.port + (not mux), data, destination)
            except OSError as error:
                self._failed("report", error)

    def _failed(self, what: str, error: OSError) -> None:
        """Say the first failure; media goes on, since a route may come back."""
        self._failures += 1
        if self._failures == 1:
            _log.warning(
                "cannot %s: %s", what, error, extra={"event": "media.socket.failed", "port": self.port}
            )


def _both(first: Callable[[bytes], None], second: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def tell(frame: bytes) -> None:
        first(frame)
        second(frame)

    return tell


def _unheard(frame: bytes) -> None:
    return


def _unpressed(digit: str) -> None:
    return


def _undrained() -> None:
    return


def _bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket] | None:
    """Return the two bound sockets, or `None` when one of the ports is taken. Raises `OSError` for all else."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound: list[socket.socket] = []
    try:
        for number in (port, port + 1):
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            bound.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind((host, number))
    except OSError as error:
        for each in bound:
            each.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return bound[0], bound[1]
