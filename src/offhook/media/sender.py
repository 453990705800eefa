"""The way out: from queued sound and digits to one RTP packet every 20 ms."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from offhook.audio import g711, tones
from offhook.audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, SILENCE
from offhook.media.dtmf import EVENT_SIZE, PAUSES_MS, DtmfSender, check_digits
from offhook.media.negotiate import UNSPECIFIED, MediaPlan
from offhook.media.playout import Playout
from offhook.media.rtp import HEADER, PLAIN
from offhook.media.stats import Drained, StreamEvent

__all__ = ["Sender"]

_CLOCK: Final = 0xFFFFFFFF
_MARKER: Final = 0x80
_DRAINED: Final = Drained()
_pack: Final = HEADER.pack


class Sender:
    """
    Numbers and stamps what is sent.

    Silence goes out when nothing is queued, so that NATs stay open and the peer's jitter buffer stays fed. While we
    are not to send (hold), queued sound waits.
    """

    __slots__ = (
        "_base",
        "_clock",
        "_dialling",
        "_digits",
        "_event_packets",
        "_events",
        "_frames",
        "_frames_waited",
        "_long_frames",
        "_marker",
        "_payload_type",
        "_plan",
        "_silence",
        "_tones",
        "packets",
        "playout",
        "sends",
        "ssrc",
        "tap",
    )

    def __init__(
        self, plan: MediaPlan, events: list[StreamEvent], *, ssrc: int, sequence: int, timestamp: int
    ) -> None:
        """`events` is the list that `Drained` is appended to."""
        self.ssrc = ssrc
        self.packets = 0
        # A packet's sequence number is `_base` and the count; its timestamp is `_clock` and a frame for each.
        self._base = sequence
        self._clock = timestamp
        self._event_packets = 0
        # Of packets of more than one frame: how many frames each has, how many ticks it has waited for its turn, and
        # the frames beyond one for each packet so far.
        self._frames = 1
        self._frames_waited = 0
        self._long_frames = 0
        self.playout = Playout(plan.codec)
        self._events = events
        self._marker = True
        self._digits = DtmfSender()
        self._dialling = False
        self._tones: deque[bytes] = deque()
        self.tap: Callable[[bytes], None] | None = None
        "Told of each packet's sound as it is sent, in the plan's codec; silence where no sound is."
        self._adopt(plan)

    def renegotiate(self, plan: MediaPlan) -> None:
        """Go on by a new plan."""
        before = self._plan.codec
        self._tones = deque(g711.transcode(frame, before, plan.codec) for frame in self._tones)
        self.playout.change_law(plan.codec)
        self._adopt(plan)

    def _adopt(self, plan: MediaPlan) -> None:
        self._plan = plan
        self._payload_type = plan.payload_type
        self._silence = SILENCE[plan.codec]
        self._clock += self._frames_waited * FRAME_SAMPLES
        self._frames = max(1, plan.ptime_ms // FRAME_MS)
        self._frames_waited = 0
        self.sends = plan.sends and plan.remote[0] not in UNSPECIFIED
        "Whether the plan lets us send."

    def send_digits(
        self, digits: str, duration_ms: int = 100, gap_ms: int = 60, *, tones_only: bool = False
    ) -> None:
        """
        Send digits, ahead of queued sound, as events, or as tones when the peer takes no events.

        Raises `ValueError` for anything but `0`-`9`, `*`, `#`, `A`-`D`, `w`, `,`, and for impossible times.
        """
        digits = check_digits(digits, pauses=True)
        if self._plan.dtmf_payload_type is not None and not tones_only:
            self._digits.send(digits, duration_ms, gap_ms)
            self._dialling = bool(self._digits)
            return
        for digit in digits:
            sound, pause_ms = b"", PAUSES_MS.get(digit)
            if pause_ms is None:
                sound, pause_ms = g711.encode(tones.dtmf(digit, duration_ms), self._plan.codec), gap_ms
            sound += self._silence[:1] * (SAMPLE_RATE * pause_ms // 1000)
            frames = range(0, len(sound), FRAME_SAMPLES)
            self._tones.extend(
                sound[at : at + FRAME_SAMPLES].ljust(FRAME_SAMPLES, self._silence[:1]) for at in frames
            )

    def skip(self, frames: int) -> None:
        """Let the clock run on over frames that were not sent because there was no time to."""
        self._clock += frames * FRAME_SAMPLES
        self._marker = True

    def next_packet(self) -> bytes | None:
        """
        Return the datagram for the next 20 ms, or `None` when we are not to send. Call it every 20 ms.

        To a peer that wants longer packets, every second or third call returns one, and takes its sound then.
        """
        if not self.sends:
            self.skip(1)
            if self.tap is not None:
                self.tap(self._silence)
            return None
        frames = self._frames
        if frames > 1 and not self._dialling:
            self._frames_waited += 1
            if self._frames_waited < frames:
                return None
            self._frames_waited = 0
        self.packets = count = self.packets + 1
        if self._dialling:
            return self._next_event()
        payload = self._next_payload()
        # The timestamp is that of the packet's first sample.
        timestamp = self._clock + count * FRAME_SAMPLES & _CLOCK
        if frames > 1:
            payload += b"".join(self._next_payload() for _ in range(frames - 1))
            self._clock += (frames - 1) * FRAME_SAMPLES
            self._long_frames += frames - 1
        if self.tap is not None:
            self.tap(payload)
        second = self._payload_type
        if self._marker:
            second |= _MARKER
            self._marker = False
        sequence = self._base + count & 0xFFFF
        return _pack(PLAIN, second, sequence, timestamp, self.ssrc) + payload

    def _next_payload(self) -> bytes:
        if self._tones:
            return self._tones.popleft()
        frame = self.playout.take()
        if frame is None:
            return self._silence
        if not self.playout:
            self._events.append(_DRAINED)
        return frame

    @property
    def timestamp(self) -> int:
        """The RTP clock of the last frame; it runs on where nothing is sent."""
        return self._clock + self.packets * FRAME_SAMPLES & _CLOCK

    @property
    def octets(self) -> int:
        """Payload octets sent."""
        frames = self.packets - self._event_packets + self._long_frames
        return frames * FRAME_SAMPLES + self._event_packets * EVENT_SIZE

    def _next_event(self) -> bytes:
        timestamp = self.timestamp
        if self.tap is not None:
            self.tap(self._silence)
        event = self._digits.next(timestamp)
        self._dialling = bool(self._digits)
        if event is None or self._plan.dtmf_payload_type is None:
            payload, marker, payload_type = self._silence, False, self._payload_type
        else:
            payload, timestamp, marker = event
            payload_type = self._plan.dtmf_payload_type
            self._event_packets += 1
        second = payload_type | (_MARKER if marker else 0)
        return _pack(PLAIN, second, self._base + self.packets & 0xFFFF, timestamp, self.ssrc) + payload
