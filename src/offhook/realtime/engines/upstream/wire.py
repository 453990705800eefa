"""What goes up the WebSocket, and what it says about formats."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast

from offhook.realtime.engine import AudioFormat
from offhook.realtime.sideband_audio import convert

__all__ = ["append_frame", "formats_of", "replayed", "session_update", "wants_other_format"]

_FORMATS = ("audio/pcm", "audio/pcmu", "audio/pcma")


def append_frame(audio: bytes) -> str:
    """Return `input_audio_buffer.append`: 50 a second for each call, so no JSON model is built."""
    return '{"type":"input_audio_buffer.append","audio":"' + base64.b64encode(audio).decode("ascii") + '"}'


def session_update(given: Mapping[str, Any], audio_format: AudioFormat) -> dict[str, Any]:
    """Return the session object to send: what the app gave, with formats that are ours to choose (row G23)."""
    wire = {"type": audio_format, "rate": 24000} if audio_format == "audio/pcm" else {"type": audio_format}
    session = {name: value for name, value in given.items() if name != "model"}
    audio = dict(session.get("audio") or {})
    for side in ("input", "output"):
        audio[side] = dict(audio.get(side) or {}) | {"format": wire}
    return session | {"type": "realtime", "audio": audio}


def replayed(item: Mapping[str, Any], ours: AudioFormat, hears: AudioFormat) -> dict[str, Any]:
    """Return an item of `ReopenUpstream` as a client creates it: what was heard goes in the format it is heard in."""
    content = [
        {**part, "audio": base64.b64encode(convert(part["audio"], ours, hears)).decode("ascii")}
        if isinstance(part.get("audio"), bytes)
        else part
        for part in item.get("content", ())
    ]
    return {**item, "content": content} if content else dict(item)


def formats_of(session: Mapping[str, Any], asked: AudioFormat) -> tuple[AudioFormat, AudioFormat]:
    """
    Return the formats in force for the caller's and the agent's sound; what is not said is as asked.

    Raises `ValueError` for one that is not known here: taken for another, it would be noise.
    """
    return _format(session, "input", asked), _format(session, "output", asked)


def _format(session: Mapping[str, Any], side: str, asked: AudioFormat) -> AudioFormat:
    try:
        given = session["audio"][side]["format"]
        found, rate = given["type"], given.get("rate")
    except (KeyError, TypeError, AttributeError):
        return asked
    if found not in _FORMATS or rate not in (None, 24000 if found == "audio/pcm" else 8000):
        raise ValueError(f"its {side} is {found}" + (f" at {rate} Hz" if rate else ""))
    return cast(AudioFormat, found)


def wants_other_format(error: Mapping[str, Any]) -> bool:
    """Whether an error answers the format in a `session.update`, so that another one may do."""
    return "format" in str(error.get("param") or "") or "format" in str(error.get("message") or "")
