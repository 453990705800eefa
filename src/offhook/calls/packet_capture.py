"""The packets of one call, kept as they were on the wire where the project's `capture` says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from offhook.media.port import MediaPort
from offhook.tenants import CaptureMode
from offhook.trace import RoutingDecision, StateChange, WireMessage

from .redaction import redact, redact_credentials
from .timeline import Timeline

__all__ = ["CallCapture", "CaptureSink", "Captures", "Kept"]

Trace = WireMessage | StateChange | RoutingDecision

MAX_EARLY = 32
"Messages with keys that wait for the answer; a call that is never answered keeps none."


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a call's packets."""

    packets: int
    lost: int
    "Those for which the disk was too slow, too full or broken."
    left_out: int
    "Those past the limit of one call."
    trouble: str = ""
    "Why some were lost."


class CaptureSink(Protocol):
    """Where one call's packets go. Never blocks, never raises."""

    def packet(self, sent: bool, port: int, data: bytes, peer: tuple[Any, ...]) -> None:
        """Add a datagram as a media port's `Witness` is told of it."""

    def message(self, text: str) -> None:
        """Add a SIP message that has media keys in it."""

    def end(self) -> None:
        """There is no more."""


class Captures(Protocol):
    """Keeps packets; handed in."""

    def begin(
        self,
        call_id: str,
        host: str,
        *,
        keys: bool,
        on_full: Callable[[int], None],
        on_over: Callable[[Kept], None],
    ) -> CaptureSink:
        """
        Open a file; `host` is our own address. `keys`: messages will come, too.

        `on_full` is told once how many bytes a call may have, `on_over` when nothing more comes and the file is closed.
        """


class CallCapture:
    """One call's packets, from the moment its port is known to its end; nothing at all where `mode` is `off`."""

    __slots__ = ("_call_id", "_captures", "_early", "_mode", "_sink", "_timeline", "_trace")

    def __init__(
        self, call_id: str, mode: CaptureMode, timeline: Timeline, captures: Captures | None
    ) -> None:
        self._call_id = call_id
        self._mode: CaptureMode = mode if captures is not None else "off"
        self._captures = captures
        self._timeline = timeline
        self._sink: CaptureSink | None = None
        self._early: list[str] = []

    def traced(self) -> Callable[[Trace], None]:
        """Return what the call's SIP leg tells: its timeline, and on the way whoever keeps the keys."""
        return self._take if self._mode == "rtp+keys" else self._timeline.trace

    def watch(self, port: MediaPort, host: str) -> None:
        """Keep what comes and goes at this port from now on; `host` is our address where the port is bound to all."""
        if self._mode == "off" or self._captures is None:
            return
        keys = self._mode == "rtp+keys"
        self._sink = sink = self._captures.begin(
            self._call_id,
            host if port.host in ("0.0.0.0", "::") else port.host,  # noqa: S104 - it is bound already
            keys=keys,
            on_full=self._full,
            on_over=self._over,
        )
        for text in self._early:
            sink.message(text)
        self._early.clear()
        port.watch(sink.packet)
        what = "RTP and RTCP as on the wire" + (", and the keys of SRTP" if keys else "")
        self._timeline.record("media", f"this call's packets are kept: {what}", capture=self._mode)

    def end(self) -> None:
        """The call is over, and its port closed."""
        sink, self._sink = self._sink, None
        self._mode = "off"
        self._early.clear()
        if sink is not None:
            sink.end()

    def _take(self, item: Trace) -> None:
        self._timeline.trace(item)
        if not isinstance(item, WireMessage) or self._mode == "off":
            return
        text = redact_credentials(item.data.decode("utf-8", "replace"))
        if redact(text) == text:
            return
        if self._sink is not None:
            self._sink.message(text)
        elif len(self._early) < MAX_EARLY:
            self._early.append(text)

    def _full(self, limit: int) -> None:
        self._timeline.record(
            "media", f"no more packets of this call are kept: there are {limit // 1_000_000} MB of them"
        )

    def _over(self, kept: Kept) -> None:
        said = f"{kept.packets} packets kept, {kept.lost} lost"
        if kept.trouble:
            said += f" ({kept.trouble})"
        if kept.left_out:
            said += f", {kept.left_out} left out past the limit"
        self._timeline.record("media", said, packets=kept.packets, lost=kept.lost, left_out=kept.left_out)
