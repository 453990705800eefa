"""What a sideband's frame is, seen from outside its session: by its type, and no deeper than need be."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from offhook.realtime.long_text import LongText

__all__ = ["note_of", "read"]

MAX_READ: Final = 256 * 1024
"Bytes of an event that is looked into; what is larger is known by its type alone."

_TYPE: Final = re.compile(r'"type"\s*:\s*"([A-Za-z0-9_.]{1,80})"')
_SOUND: Final = ("response.output_audio.delta", "input_audio_buffer.append")
_NOTED: Final = frozenset(
    {
        "conversation.item.create",
        "conversation.item.delete",
        "conversation.item.truncate",
        "output_audio_buffer.clear",
        "response.cancel",
        "response.create",
        "session.update",
    }
)


def read(frame: str | bytes | LongText) -> tuple[str, dict[str, Any] | None]:
    """Return an event's type, and the event where it is worth a look."""
    if isinstance(frame, bytes):
        return "(binary)", None
    if isinstance(frame, LongText):
        found = _TYPE.search(frame.pieces[0], 0, 300)
        return (found[1] if found is not None else "(large)"), None
    found = _TYPE.search(frame, 0, 300)
    if found is not None and (found[1] in _SOUND or len(frame) > MAX_READ):
        return found[1], None
    if len(frame) > MAX_READ:
        return "(large)", None
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return "(not JSON)", None
    kind = event.get("type") if isinstance(event, dict) else None
    return (kind[:80], event) if isinstance(kind, str) else ("(no type)", None)


def note_of(frame: str | bytes | LongText) -> tuple[str, dict[str, Any]] | None:
    """
    Return title and details of a timeline entry for an app's frame; `None` for one that is not worth any.

    What the app asked for is told, not what it said: texts, tools and instructions stay out.
    """
    kind, event = read(frame)
    if kind not in _NOTED:
        return None
    details: dict[str, Any] = {"type": kind}
    item = event.get("item") if event is not None else None
    if kind != "conversation.item.create" or not isinstance(item, dict):
        return kind, details
    made, answers = str(item.get("type"))[:80], item.get("call_id")
    if made == "function_call_output" and isinstance(answers, str):
        return f"{kind}: {made} for {answers[:80]}", {**details, "item": made, "tool_call_id": answers[:80]}
    return f"{kind}: {made}", {**details, "item": made}
