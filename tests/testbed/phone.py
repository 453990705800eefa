"""A SIP telephone in the test's own loop, made of the product's own SIP and media rooms."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from offhook.audio import g711, tones
from offhook.clock import SystemClock
from offhook.media import negotiate
from offhook.media.pacer import Pacer
from offhook.media.port import MediaPort, PortPool
from offhook.sip.endpoint import Endpoint, EndpointConfig, Leg, LegEnded
from offhook.sip.flow import format_address
from offhook.sip.message import Request, Response, parse_message
from offhook.sip.refer import ReferUpdate
from offhook.trace import RoutingDecision, StateChange, WireMessage

from .node import Node
from .waiting import PATIENCE_S

__all__ = ["Phone", "PhoneCall", "Refused"]

_LOUD_DB = -45.0
_FRAME_MS = 20


class Refused(AssertionError):  # noqa: N818 - what happened to the call
    """The call was not answered; `status` is the final response's, 0 when none came."""

    def __init__(self, response: Response | None, reason: str) -> None:
        super().__init__(f"{response.status} {response.reason}" if response else reason)
        self.response = response
        self.status = response.status if response else 0


@dataclass(frozen=True)
class Wire:
    """A SIP message that this phone sent or received."""

    at: float
    direction: str
    message: Request | Response

    @property
    def name(self) -> str:
        """`INVITE`, or `200 INVITE` for a response."""
        if isinstance(self.message, Request):
            return self.message.method
        return f"{self.message.status} {self.message.cseq.method}"


class PhoneCall:
    """
    One call that the phone places. It answers what a telephone answers by itself; tests drive the rest.

    `on_refer` says what becomes of a REFER: `(202, (100, 180, 200))` accepts and NOTIFYs, `(403, ())` refuses, `None`
    is silence. `heard` is each frame's level in dB of full scale with its time, 20 ms apart.
    """

    def __init__(self, phone: Phone, leg: Leg, port: MediaPort | None, offer: bytes) -> None:
        self.leg = leg
        self.on_refer: tuple[int, Sequence[int]] | None = (202, (100, 180, 200))
        self.notify_gap_s = 0.1
        self.refers: list[Request] = []
        "The REFERs that came, for a test that answers them itself."
        self.wire: list[Wire] = []
        self.provisional: list[int] = []
        self.heard: list[tuple[float, float]] = []
        self.ended_by: LegEnded | None = None
        self.port = port
        self.offer = offer
        self._phone = phone
        self._plan: negotiate.MediaPlan | None = None
        loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Response] = loop.create_future()
        self._ended: asyncio.Future[LegEnded] = loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        leg.listener = self
        leg.trace = self._trace

    # What tests ask.

    async def answered(self, timeout: float = PATIENCE_S) -> Response:
        """Return the 200. Raises `Refused`."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._answer), timeout)
        except TimeoutError:
            raise AssertionError(
                f"neither answered nor refused within {timeout} s; {self.ladder()}"
            ) from None

    async def refused(self, timeout: float = PATIENCE_S) -> Response:
        """Return the final response that is no 200."""
        try:
            await self.answered(timeout)
        except Refused as refused:
            if refused.response is None:
                raise
            return refused.response
        raise AssertionError("the call was answered")

    async def rings(self, timeout: float = PATIENCE_S) -> None:
        await self._until(lambda: 180 in self.provisional, timeout, "no 180")

    async def ended(self, timeout: float = PATIENCE_S) -> LegEnded:
        """Return how a call that was answered ended."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._ended), timeout)
        except TimeoutError:
            raise AssertionError(f"the call goes on after {timeout} s; {self.ladder()}") from None

    @property
    def alive(self) -> bool:
        """Whether it is answered and not over."""
        return self._answer.done() and not self._answer.exception() and not self._ended.done()

    def speak(self, ms: int = 700, hz: float = 440.0) -> float:
        """Make a sound that counts as speech; return the monotonic time at which it will be over."""
        assert self.port is not None
        assert self._plan is not None
        self.port.play(g711.encode(tones.tone(hz, ms, level=0.3), self._plan.codec))
        return time.monotonic() + ms / 1000

    def press(self, digits: str) -> None:
        assert self.port is not None
        self.port.send_digits(digits)

    def hang_up(self) -> None:
        self.leg.hangup()

    async def hears_sound(self, ms: int = 100, timeout: float = PATIENCE_S, *, since: float = 0.0) -> float:
        """Wait for that much sound after `since`, gaps not counted; return when the first of it came."""
        await self._until(
            lambda: self.loud_ms(since) >= ms,
            timeout,
            f"did not hear {ms} ms of sound",
        )
        return next(at for at, level in self.heard if at >= since and level >= _LOUD_DB)

    async def hears_silence(self, ms: int = 200, timeout: float = PATIENCE_S) -> float:
        """Wait until the last `ms` were silent; return when the silence began."""
        frames = ms // _FRAME_MS

        def silent() -> bool:
            last = self.heard[-frames:]
            return len(last) == frames and all(level < _LOUD_DB for _, level in last)

        await self._until(silent, timeout, f"no silence of {ms} ms")
        return self.heard[-frames][0]

    def loud_ms(self, since: float = 0.0, until: float = float("inf")) -> int:
        """Return how much sound was heard, in ms."""
        return sum(_FRAME_MS for at, level in self.heard if since <= at < until and level >= _LOUD_DB)

    def received(self, name: str) -> list[Wire]:
        """Return requests (`BYE`) or responses (`200 INVITE`) that came in, repeats of the same bytes only once."""
        seen: dict[bytes, Wire] = {}
        for wire in self.wire:
            if wire.direction == "in" and wire.name == name:
                seen.setdefault(bytes(wire.message), wire)
        return list(seen.values())

    def ladder(self) -> str:
        """Return the call's messages in a line, for failures."""
        return " ".join(f"{'<' if wire.direction == 'in' else '>'}{wire.name}" for wire in self.wire)

    async def _until(self, holds: object, timeout: float, what: str) -> None:
        assert callable(holds)
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() >= deadline:
                loud = self.loud_ms()
                raise AssertionError(f"{what} within {timeout} s; heard {loud} ms of sound; {self.ladder()}")
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """End whatever is left of it."""
        for task in self._tasks:
            task.cancel()
        if not self._ended.done() and not (self._answer.done() and self._answer.exception()):
            self.leg.hangup()
        if self.port is not None:
            self.port.close()

    # What the SIP room says.

    def leg_provisional(self, leg: Leg, response: Response) -> None:
        self.provisional.append(response.status)

    def leg_answered(self, leg: Leg, response: Response) -> None:
        if self.port is not None:
            self._plan = negotiate.complete(self.offer, response.body)
            self.port.start(
                self._plan,
                pacer=self._phone.pacer,
                on_frame=self._hear,
                on_digit=lambda digit: None,
                on_drained=lambda: None,
            )
        self._answer.set_result(response)

    def leg_refused(self, leg: Leg, response: Response | None, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(Refused(response, reason))
            self._answer.exception()  # nobody need be waiting

    def leg_cancelled(self, leg: Leg, reason_header: str | None) -> None:
        """Only legs that were received have these."""

    def leg_confirmed(self, leg: Leg) -> None:
        """Only legs that were received have these."""

    def leg_offered(self, leg: Leg, request: Request) -> None:
        leg.respond(request, 488)

    def leg_requested(self, leg: Leg, request: Request) -> None:
        if request.method != "REFER":
            leg.respond(request, 501)
            return
        self.refers.append(request)
        if self.on_refer is not None:
            status, steps = self.on_refer
            leg.respond(request, status)
            if status < 300:
                task = asyncio.get_running_loop().create_task(self._notify(request, steps))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def leg_refreshed(self, leg: Leg, offer: bytes, response: Response) -> None:
        """The session timer's affair."""

    def leg_refer_updated(self, leg: Leg, update: ReferUpdate) -> None:
        """The phone sends no REFER."""

    def leg_ended(self, leg: Leg, ended: LegEnded) -> None:
        self.ended_by = ended
        self._ended.set_result(ended)
        if self.port is not None:
            self.port.close()

    def leg_released(self, leg: Leg) -> None:
        """Tests look at a call when it is over."""

    async def _notify(self, refer: Request, steps: Iterable[int]) -> None:
        reasons = {100: "Trying", 180: "Ringing", 200: "OK", 486: "Busy Here", 603: "Decline"}
        for step in steps:
            await asyncio.sleep(self.notify_gap_s)
            final = step >= 200
            await self.leg.request(
                "NOTIFY",
                headers=[
                    ("Event", f"refer;id={refer.cseq.number}"),
                    ("Subscription-State", "terminated;reason=noresource" if final else "active;expires=60"),
                ],
                body=f"SIP/2.0 {step} {reasons[step]}\r\n".encode(),
                content_type="message/sipfrag;version=2.0",
            )

    def _hear(self, audio: bytes) -> None:
        assert self._plan is not None
        samples = g711.decode(audio, self._plan.codec).astype(np.float64)
        power = float(np.mean(np.square(samples))) / 32768.0**2
        self.heard.append((time.monotonic(), 10 * float(np.log10(max(power, 1e-12)))))

    def _trace(self, item: WireMessage | StateChange | RoutingDecision) -> None:
        if isinstance(item, WireMessage):
            self.wire.append(Wire(item.at, item.direction, parse_message(item.data)))


class Phone:
    """
    A telephone with a socket of its own. Use as an async context manager; leaving it ends its calls.

    `transport` is a key of `node.sip`; with a 6 at its end, all of the phone is on `::1`. `ca` is what it trusts. With
    a server's context in `listens` it can be reached by TLS when its connection is gone.
    """

    _numbers = itertools.count(1001)

    def __init__(
        self,
        node: Node,
        transport: str = "udp",
        *,
        ca: Path | None = None,
        listens: ssl.SSLContext | None = None,
    ) -> None:
        self._node, self._address = node, transport
        self._transport = transport = transport.removesuffix("6")
        self._host = "127.0.0.1" if self._address == transport else "::1"
        self._calls: list[PhoneCall] = []
        self.number = str(next(self._numbers))
        self.pacer = Pacer()
        self._ports = PortPool(self._host, *node.phone_ports)
        tls = ssl.create_default_context(cafile=ca or node.ca) if transport == "tls" else None
        self.endpoint = Endpoint(
            EndpointConfig(
                listen=(f"{transport}:{format_address((self._host, 0))}",)
                if transport == "udp" or listens
                else (),
                tls=listens,
                user_agent="TestPhone/1",
                tls_client=tls,
                allow=("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REFER", "NOTIFY"),
            ),
            clock=SystemClock(),
            on_invite=None,
        )

    async def __aenter__(self) -> Phone:
        await self.endpoint.start()
        self.pacer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in self._calls:
            with contextlib.suppress(Exception):
                call.close()
        await asyncio.sleep(0.05)  # let the BYEs go out
        await self.endpoint.close()
        self.pacer.close()

    async def dial(
        self,
        project: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        media_port: int | None = None,
        display_name: str = "",
    ) -> PhoneCall:
        """
        Call a project. With `media_port` the offer names that port and the phone has no sound of its own.

        `display_name` stands in From as it is given, without its quotes.
        """
        port = self._ports.open() if media_port is None else None
        offer = negotiate.offer(
            negotiate.LocalMedia(
                host=self._host,
                port=port.port if port is not None else media_port or 0,
                session_id=1,
                session_version=1,
            )
        )
        host, sip_port = self._node.sip[self._address]
        address = f"sip:{self.number}@phone.example"
        leg = self.endpoint.invite(
            f"sip:{project}@{format_address((host, sip_port))};transport={self._transport}",
            from_uri=f'"{display_name}" <{address}>' if display_name else address,
            sdp=offer,
            headers=headers,
            via=(self._transport, host, sip_port),
        )
        call = PhoneCall(self, leg, port, offer)
        self._calls.append(call)
        return call
