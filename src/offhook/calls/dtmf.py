"""Digits of one call, both ways: keys that the caller presses, and keys that the app has pressed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from offhook.clock import Clock
from offhook.media.dtmf import PAUSES_MS
from offhook.media.port import MediaPort
from offhook.sip.headers import HeaderError, parse_content_type
from offhook.sip.leg import Leg, LegRequestError
from offhook.sip.message import Request
from offhook.sip.transaction import LocalProtocolError

from .errors import CallError, call_not_found
from .presses import INFO_TYPES, InfoError, Presses, parse_info
from .timeline import Timeline

__all__ = ["CallDigits", "DigitOrder", "Method"]

Method = Literal["auto", "rfc4733", "info", "inband"]

INFO_TIMEOUT_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class DigitOrder:
    """Digits that the app wants pressed, judged."""

    digits: str
    "`0`-`9`, `*`, `#`, `A`-`D`; `w` and `,` are pauses."
    duration_ms: int = 100
    gap_ms: int = 60
    method: Method = "auto"


class CallDigits:
    """
    One call's keypad.

    Each press of the caller's goes to `on_press` once, by whichever way it comes, and on the timeline.
    """

    def __init__(
        self, leg: Leg, timeline: Timeline, clock: Clock, *, on_press: Callable[[str], None]
    ) -> None:
        self._leg = leg
        self._timeline = timeline
        self._clock = clock
        self._on_press = on_press
        self._presses = Presses()
        self._one_order_at_a_time = asyncio.Lock()
        self._done: DigitOrder | None = None

    # In.

    def pressed(self, digit: str) -> None:
        """Take a digit that came by RTP."""
        self._take(digit, "rtp", 0)

    def informed(self, request: Request) -> None:
        """Answer an INFO: 200 to a digit, a hook flash, or nothing at all; 415 to what is not understood."""
        content_type = request.headers.get("Content-Type")
        if request.headers.get("Info-Package") is not None:
            # RFC 6086 section 4.2.2: we have declared no package.
            self._leg.respond(request, 469, headers=[("Recv-Info", "")])
        elif not request.body and content_type is None:
            self._leg.respond(request, 200)
        elif not _is_digit(content_type):
            self._leg.respond(request, 415, headers=[("Accept", ", ".join(INFO_TYPES))])
        else:
            try:
                digit, duration_ms = parse_info(request.body)
            except InfoError as error:
                self._timeline.record("media", f"an INFO that says no digit: {error}")
                self._leg.respond(request, 400)
                return
            self._leg.respond(request, 200)
            if digit is not None:
                self._take(digit, "info", duration_ms)

    def _take(self, digit: str, way: str, duration_ms: int) -> None:
        if self._presses.is_new(digit, way, self._clock.monotonic(), duration_ms=duration_ms):
            self._timeline.record("media", f"digit {digit}", way=way)
            self._on_press(digit)

    # Out.

    async def send(self, order: DigitOrder, port: MediaPort, *, repeated: bool = False) -> None:
        """
        Press keys. By RTP they are queued when this returns; by INFO, answered by the peer.

        `repeated` says that the client sends this again, not knowing whether the first time worked.
        Raises `CallError` when the peer or the state of the call does not allow it.
        """
        if repeated and order == self._done:
            return
        method = self._choose(order.method, port)
        self._timeline.record(
            "media",
            f"sending digits {order.digits} by {method}",
            method=method,
            duration_ms=order.duration_ms,
            gap_ms=order.gap_ms,
        )
        if method == "info":
            async with self._one_order_at_a_time:
                await self._inform(order)
            self._done = order
            return
        if not port.plan.sends:
            raise CallError(
                409,
                "The caller's side has put the call on hold; no sound is sent to it.",
                code="call_on_hold",
            )
        port.send_digits(order.digits, order.duration_ms, order.gap_ms, tones_only=method == "inband")
        self._done = order

    def _choose(self, method: Method, port: MediaPort) -> str:
        allow = [each.upper() for each in self._leg.invite.headers.values("Allow")]
        events = port.plan.dtmf_payload_type is not None
        if method == "auto":
            if events:
                return "rfc4733"
            return "info" if "INFO" in allow else "inband"
        if method == "rfc4733" and not events:
            raise _unavailable(method, "its SDP has no telephone-event with the codec's clock")
        if method == "info" and allow and "INFO" not in allow:
            raise _unavailable(method, f"its INVITE allows {', '.join(allow)}")
        return method

    async def _inform(self, order: DigitOrder) -> None:
        sent = ""
        for each in order.digits:
            if each in PAUSES_MS:
                await asyncio.sleep(PAUSES_MS[each] / 1000)
                continue
            due = self._clock.monotonic() + (order.duration_ms + order.gap_ms) / 1000
            await self._inform_of(each, order.duration_ms, sent)
            sent += each
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))

    async def _inform_of(self, digit: str, duration_ms: int, sent: str) -> None:
        body = f"Signal={digit}\r\nDuration={duration_ms}\r\n".encode()
        try:
            response = await self._leg.request(
                "INFO", body=body, content_type=INFO_TYPES[0], timeout=INFO_TIMEOUT_S
            )
        except LocalProtocolError:
            raise call_not_found() from None
        except LegRequestError as error:
            raise CallError(
                504,
                f"The peer did not answer the INFO for {digit!r}: {error}",
                code="dtmf_timeout",
                type="server_error",
                details={"sent": sent},
            ) from None
        if response.status >= 300:
            raise CallError(
                502,
                f"The peer refused the INFO for {digit!r}: {response.status} {response.reason}",
                code="dtmf_rejected",
                type="server_error",
                details={"sip_status": response.status, "reason": response.reason, "sent": sent},
            )


def _is_digit(content_type: str | None) -> bool:
    try:
        parsed = parse_content_type(content_type or "")
    except HeaderError:
        return False
    return f"{parsed.type}/{parsed.subtype}".lower() in INFO_TYPES


def _unavailable(method: str, why: str) -> CallError:
    return CallError(
        409,
        f"The peer does not take digits by {method}: {why}.",
        code="dtmf_method_unavailable",
        param="method",
    )
