"""An app's event on its way up: read, and without what the phone and the connection decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from offhook.realtime.client_events import ClientEventError, ClientFrame

__all__ = ["can_be_relayed", "parse_request", "with_our_formats"]


MAX_DEPTH = 200
"What is deeper can be read, but not be written again."


def can_be_relayed(frame: str | bytes, event: object) -> bool:
    """Whether an event can be written as it was read. Counting brackets is cheap; few have so many."""
    raw = frame.encode() if isinstance(frame, str) else frame
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return True
    try:
        orjson.dumps(event)
    except orjson.JSONEncodeError:
        return False
    return True


def parse_request(event: ClientFrame) -> dict[str, Any]:
    """Return a client event. Raises `ClientEventError`."""
    if isinstance(event, ClientEventError):
        raise event
    if isinstance(event, bytes):
        raise ClientEventError("invalid_event", "Binary frames are not used; send events as text.")
    if isinstance(event, str):
        frame = event
        try:
            event = orjson.loads(frame)
        except orjson.JSONDecodeError as error:
            raise ClientEventError("invalid_json", f"The frame is not JSON: {error}.") from None
        if not can_be_relayed(frame, event):
            raise ClientEventError("invalid_json", "The event is nested too deeply to be sent on.")
    if not isinstance(event, Mapping):
        raise ClientEventError("invalid_type", "An event is a JSON object with a 'type'.")
    if not isinstance(event.get("type"), str):
        raise ClientEventError("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    return dict(event)


def with_our_formats(event: dict[str, Any], name: str, sides: tuple[str, ...]) -> dict[str, Any]:
    """Leave out what the phone decides (rows E03, E04) and the model, which the connection decides (row E06)."""
    given = event.get(name)
    if not isinstance(given, Mapping):
        return event
    kept = {key: value for key, value in given.items() if key != "model"}
    if isinstance(audio := kept.get("audio"), Mapping):
        kept["audio"] = dict(audio)
        for side in sides:
            if isinstance(part := audio.get(side), Mapping):
                kept["audio"][side] = {key: value for key, value in part.items() if key != "format"}
    return event | {name: kept}
