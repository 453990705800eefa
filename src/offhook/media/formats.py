"""What of a peer's formats is taken: a codec, and what digits and comfort noise come as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from offhook.audio.frames import SAMPLE_RATE, Law
from offhook.media.sdp import MediaDescription, RtpMap, read_rtpmap

__all__ = ["CODECS", "Formats", "NoCommonCodec", "choose_formats", "event_types"]

CODECS: Final[dict[str, Law]] = {"PCMU": "PCMU", "PCMA": "PCMA"}
"""By their encoding names, in capitals."""
_REMEMBERED: Final = 1024
"""Characters; what is longer would take room."""


class NoCommonCodec(Exception):  # noqa: N818 - what it says is the whole of it
    """None of the formats is a codec that we take. The message is fit for a 488."""


@dataclass(frozen=True, slots=True)
class Formats:
    """As in `MediaPlan`."""

    codec: Law
    payload_type: int
    dtmf_payload_type: int | None
    dtmf_receive: frozenset[int]
    comfort_noise: frozenset[int]


def choose_formats(media: MediaDescription, codecs: tuple[Law, ...]) -> Formats:
    """Return what of a stream's formats is taken; its order decides about the codec. Raises `NoCommonCodec`."""
    formats, rtpmaps = media.formats, tuple(media.attributes("rtpmap"))
    brief = sum(map(len, formats)) + sum(map(len, rtpmaps)) <= _REMEMBERED
    return (_choose_again if brief else _choose)(formats, rtpmaps, codecs)


def event_types(maps: Mapping[int, RtpMap]) -> list[tuple[int, int]]:
    """Return the payload types of telephone-event, each with its clock rate."""
    return [
        (number, entry.clock_rate)
        for number, entry in maps.items()
        if entry.encoding.lower() == "telephone-event"
    ]


def _choose(formats: tuple[str, ...], rtpmaps: tuple[str, ...], codecs: tuple[Law, ...]) -> Formats:
    maps = read_rtpmap(formats, rtpmaps)
    codec, payload_type = _choose_codec(maps, codecs)
    events = event_types(maps)
    return Formats(
        codec=codec,
        payload_type=payload_type,
        # The clock of telephone-event must be the codec's (RFC 4733 section 2.1).
        dtmf_payload_type=next((number for number, rate in events if rate == SAMPLE_RATE), None),
        dtmf_receive=frozenset(number for number, _ in events),
        comfort_noise=frozenset(number for number, entry in maps.items() if entry.encoding.upper() == "CN"),
    )


_choose_again = lru_cache(maxsize=256)(_choose)
"A trunk offers the same formats in every call."


def _choose_codec(maps: Mapping[int, RtpMap], codecs: tuple[Law, ...]) -> tuple[Law, int]:
    for number, entry in maps.items():
        codec = CODECS.get(entry.encoding.upper())
        if codec in codecs and entry.clock_rate == SAMPLE_RATE and entry.channels == 1:
            return codec, number
    offered = ", ".join(entry.encoding[:40] for entry in maps.values()) or "nothing known"
    raise NoCommonCodec(f"no common codec: {offered} offered, {' and '.join(codecs)} taken")
