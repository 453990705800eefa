"""What a stream says about itself: counts on demand, and events when something changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DigitReceived", "Drained", "MediaEvent", "MediaEventKind", "MediaStats", "StreamEvent"]

MediaEventKind = Literal[
    "receiving",
    "latched",
    "source_refused",
    "ssrc_changed",
    "goodbye",
    "unauthentic",
]


@dataclass(frozen=True, slots=True)
class MediaEvent:
    """
    Something that belongs on a call's timeline.

    `receiving`: the first packet is in. `latched`: the sound comes from another address than the SDP's, and is now sent
    there. `source_refused`: a source that is not the call's sends to its port (said once per negotiation).
    `ssrc_changed`: the peer's stream began anew (said at most 20 times). `goodbye`: RTCP BYE.
    `unauthentic`: SRTP packets fail authentication (said once for each pair of keys).
    """

    kind: MediaEventKind
    at: float
    "Monotonic seconds."
    text: str


@dataclass(frozen=True, slots=True)
class DigitReceived:
    digit: str


@dataclass(frozen=True, slots=True)
class Drained:
    """The last queued sample was handed out to be sent."""


StreamEvent = DigitReceived | Drained | MediaEvent


@dataclass(slots=True)
class MediaStats:
    """A stream's counts since its start. Not to be written to: frozen it would cost twice as much to make."""

    packets_in: int
    packets_out: int
    lost: int
    "Sequence numbers of the peer that never came."
    late: int
    "Came, but after their turn."
    concealed: int
    "Frames made up for missing ones, before silence takes over."
    reordered: int
    duplicates: int
    malformed: int
    "Datagrams that are no RTP, or of a payload type that was not agreed on."
    foreign: int
    "Packets from sources that are not the call's; dropped."
    jitter_ms: float
    buffer_ms: int
    "Sound that waits for its turn now."
    stretched: int
    skipped: int
    resyncs: int
    ssrc_changes: int
    skipped_ticks: int
    "Frames that we did not send because the process was held up."
    remote: str
    "`host:port` sent to now; empty when nowhere."
    remote_ssrc: int | None
    last_received_at: float | None
    "When the newest RTP packet came, in monotonic seconds."
    rtt_ms: float | None
    "From RTCP; `None` when the peer sends no reports about us."
    remote_lost: int | None
    "What the peer says it lost of our packets."
    remote_jitter_ms: float | None
    srtp: str | None = None
    "The suite; `None` when sound goes in the clear."
    unauthentic: int = 0
    "SRTP and SRTCP packets that failed authentication; dropped."
    replayed: int = 0
    "SRTP and SRTCP packets that were here before, or came too late to tell; dropped."
    packets_reported: int = 0
    "How many packets we had sent when the peer last reported about them."
