"""The way in: from one source's datagrams to frames of 20 ms and digits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from offhook.audio import g711
from offhook.audio.frames import SILENCE, Law
from offhook.media.conceal import Concealer
from offhook.media.dtmf import DtmfReceiver
from offhook.media.jitter import JitterBuffer
from offhook.media.negotiate import MediaPlan
from offhook.media.prompt import PromptBuffer
from offhook.media.reception import Order, Reception
from offhook.media.rtp import HEADER, HEADER_SIZE, PLAIN, RtpError, payload_of
from offhook.media.stats import DigitReceived, MediaEvent, StreamEvent

__all__ = ["Receiver"]

COMFORT_NOISE: Final = 13
"""The static payload type (RFC 3551 table 4)."""
MAX_CHANGES_SAID: Final = 20

_STATIC_LAWS: Final[dict[int, Law]] = {0: "PCMU", 8: "PCMA"}
_NEWEST: Final = Order.NEWEST
_OVERTAKEN: Final = Order.OVERTAKEN
_RESTARTED: Final = Order.RESTARTED
_unpack: Final = HEADER.unpack_from


class Receiver:
    """
    Takes the packets of the source that the stream is locked to.

    State is kept per SSRC: peers change it in mid call, from the ringing network to the one that answers.
    """

    __slots__ = (
        "_before",
        "_candidate",
        "_codec",
        "_comfort_types",
        "_concealed_before",
        "_concealer",
        "_concealing",
        "_dtmf",
        "_duplicates_before",
        "_event_types",
        "_events",
        "_in_event",
        "_last",
        "_lost_before",
        "_other_laws",
        "_packets_before",
        "_payload_type",
        "_plain_types",
        "_prompt",
        "_receives",
        "_reordered_before",
        "jitter",
        "last_received_at",
        "malformed",
        "reception",
        "ssrc_changes",
    )

    def __init__(self, plan: MediaPlan, events: list[StreamEvent], *, prompt: bool = False) -> None:
        """
        `events` is the list that digits and notes are appended to. With `prompt`, `early_frame` is to be called after
        each packet and each `next_frame`, until there is nothing.
        """
        self.malformed = 0
        self.ssrc_changes = 0
        self.last_received_at: float | None = None
        self.reception: Reception | None = None
        self._events = events
        self._concealed_before = 0
        self._packets_before = 0
        self._lost_before = 0
        self._reordered_before = 0
        self._duplicates_before = 0
        self._candidate: tuple[int, int, bytes, float] | None = None
        self._dtmf = DtmfReceiver()
        self._in_event = False
        self._prompt = PromptBuffer(plan.codec) if prompt else None
        self.jitter: JitterBuffer = self._prompt or JitterBuffer(plan.codec)
        self._concealer = Concealer(plan.codec)
        self._codec = plan.codec
        self._concealing = False
        self._before = self._last = SILENCE[plan.codec]
        self._adopt(plan)

    def renegotiate(self, plan: MediaPlan) -> None:
        """Go on by a new plan."""
        if plan.codec != self._codec:
            self._codec = plan.codec
            self.jitter.change_law(plan.codec)
            self._concealed_before = self.concealed
            self._concealer = Concealer(plan.codec)
            self._before = self._last = SILENCE[plan.codec]
        self._adopt(plan)

    def _adopt(self, plan: MediaPlan) -> None:
        self._receives = plan.receives
        self._payload_type = plan.payload_type
        self._plain_types, self._other_laws, self._event_types, self._comfort_types = _types(
            plan.codec, plan.payload_type, plan.dtmf_receive, plan.comfort_noise
        )

    def knows(self, payload_type: int) -> bool:
        """Return whether a payload type is one that the call may carry."""
        return (
            payload_type in self._plain_types
            or payload_type in self._event_types
            or payload_type in self._other_laws
            or payload_type in self._comfort_types
        )

    # In.

    def receive(self, data: bytes, now: float) -> None:
        """Take a datagram of at least a header's size. Never raises: what is no good is counted."""
        first, second, sequence, timestamp, ssrc = _unpack(data)
        if first == PLAIN:
            payload = data[HEADER_SIZE:]
        else:
            try:
                payload = payload_of(data)
            except RtpError:
                self.malformed += 1
                return
        reception = self.reception
        if reception is None or reception.ssrc != ssrc:
            reception = self._change_source(data, second & 0x7F, sequence, ssrc, now)
            if reception is None:
                return
        elif self._candidate is not None:
            self._candidate = None
        order = reception.receive(sequence)
        if order is _NEWEST or order is _RESTARTED:
            newest = True
        elif order is _OVERTAKEN:
            newest = False
        else:
            return
        self.last_received_at = now
        payload_type = second & 0x7F
        if payload_type != self._payload_type and payload_type not in self._plain_types:
            if payload_type not in self._other_laws:
                self._receive_other(payload_type, payload, timestamp, second >= 0x80)
                return
            payload = g711.transcode(payload, self._other_laws[payload_type], self._codec)
        reception.measure(timestamp, now)
        if self._in_event:
            self._in_event = False
        if self._receives:
            self.jitter.insert(timestamp, payload, now, newest)

    def _receive_other(self, payload_type: int, payload: bytes, timestamp: int, marker: bool) -> None:
        if payload_type in self._event_types:
            self._in_event = True
            digit = self._dtmf.receive(payload, timestamp, marker=marker)
            if digit is not None and self._receives:
                self._events.append(DigitReceived(digit))
        elif payload_type in self._comfort_types:
            self._in_event = True
        else:
            self.malformed += 1

    def _change_source(
        self, data: bytes, payload_type: int, sequence: int, ssrc: int, now: float
    ) -> Reception | None:
        """
        Judge a packet of another SSRC than the stream's.

        A new source is taken up when two of its packets follow each other with none of the old one's between
        (RFC 3550 appendix A.1, MIN_SEQUENTIAL), so that stragglers of the old one do no harm.
        """
        if not self.knows(payload_type):
            self.malformed += 1
            return None
        if self.reception is None:
            self.reception = Reception(ssrc, sequence)
            return self.reception
        candidate = self._candidate
        if candidate is None or candidate[:2] != (ssrc, sequence):
            self._candidate = (ssrc, sequence + 1 & 0xFFFF, data, now)
            return None
        self._candidate = None
        self._replace(Reception(ssrc, sequence - 1 & 0xFFFF), now)
        # The one that waited comes first.
        self.receive(candidate[2], candidate[3])
        return self.reception

    def _replace(self, reception: Reception, now: float) -> None:
        gone, self.reception = self.reception, reception
        if gone is not None:
            self._packets_before += gone.received
            self._lost_before += max(gone.lost, 0)
            self._reordered_before += gone.reordered
            self._duplicates_before += gone.duplicates
        self.jitter.restart()
        self._dtmf = DtmfReceiver()
        self.ssrc_changes += 1
        if self.ssrc_changes <= MAX_CHANGES_SAID:
            text = f"the peer's stream is now {reception.ssrc:#010x}"
            self._events.append(MediaEvent("ssrc_changed", now, text))

    # Out.

    def next_frame(self, now: float) -> bytes | None:
        """
        Return 20 ms of sound, concealed or silent where none came; `None` before the first packet, and for what was
        given early.
        """
        if self.reception is None:
            return None
        frame = self.jitter.take(now)
        if frame:
            return self._heard(frame)
        if frame is not None:
            return None
        self._concealing = True
        if self._in_event or not self._receives:
            # Nothing was lost: the peer sends a digit, or comfort noise, or is not to send.
            return self._concealer.pause()
        return self._concealer.conceal(self._before, self._last)

    def early_frame(self) -> bytes | None:
        """Return 20 ms of sound before their turn, `None` when what comes next is not there."""
        frame = None if self._prompt is None else self._prompt.take_early()
        return None if frame is None else self._heard(frame)

    @property
    def lead(self) -> int:
        """How many ticks before its turn the last frame was given; 0 for one that `next_frame` gave."""
        return 0 if self._prompt is None else self._prompt.lead

    def skip(self, frames: int) -> None:
        """Note frames for which `next_frame` was not called in time, and will not be."""
        if self._prompt is not None:
            self._prompt.skip(frames)

    def _heard(self, frame: bytes) -> bytes:
        self._before = self._last
        self._last = frame
        if self._concealing:
            self._concealing = False
            return self._concealer.recover(frame)
        return frame

    @property
    def concealed(self) -> int:
        """Frames made up. The silence that follows when nothing comes for longer does not count."""
        return self._concealed_before + self._concealer.made_up

    @property
    def packets(self) -> int:
        """Packets taken in, without duplicates."""
        return self._packets_before + (self.reception.received if self.reception is not None else 0)

    @property
    def lost(self) -> int:
        current = self.reception.lost if self.reception is not None else 0
        return max(0, self._lost_before + current)

    @property
    def reordered(self) -> int:
        return self._reordered_before + (self.reception.reordered if self.reception is not None else 0)

    @property
    def duplicates(self) -> int:
        return self._duplicates_before + (self.reception.duplicates if self.reception is not None else 0)


@lru_cache(maxsize=256)
def _types(
    codec: Law, payload_type: int, dtmf: frozenset[int], comfort_noise: frozenset[int]
) -> tuple[frozenset[int], Mapping[int, Law], frozenset[int], frozenset[int]]:
    """Return the payload types of the plan's codec, those of the other laws, of events, and of comfort noise."""
    laws: dict[int, Law] = {**_STATIC_LAWS, payload_type: codec}
    plain = frozenset(number for number, law in laws.items() if law == codec)
    others = {number: law for number, law in laws.items() if law != codec}
    events = dtmf - laws.keys()
    # Sent instead of silence by some, whether or not it was agreed on (RFC 3389).
    return plain, others, events, (comfort_noise | {COMFORT_NOISE}) - laws.keys() - events
