"""What of a `session.update` must stay as it is, though the rest of it counts (API rows E07, E08, G17)."""

from __future__ import annotations

from offhook.realtime.session_config import SessionConfig
from offhook.realtime.validation import RequestError

__all__ = ["settle_update"]


def settle_update(
    before: SessionConfig, after: SessionConfig, *, has_spoken: bool
) -> tuple[SessionConfig, list[RequestError]]:
    """
    Return what is in force after an update, and what is wrong with it.

    `after` is what the update would make of `before`. With `has_spoken` there was assistant audio, and its voice stays.
    """
    faults = []
    voice = before.audio.output.voice
    if after.audio.output.voice != voice and has_spoken:
        output = after.audio.output.model_copy(update={"voice": voice})
        after = after.model_copy(update={"audio": after.audio.model_copy(update={"output": output})})
        message = "Cannot update a conversation's voice if assistant audio is present."
        faults.append(RequestError("cannot_update_voice", message, "session.audio.output.voice"))
    tracing = before.tracing
    if tracing is not None and after.tracing not in (None, tracing):
        if after.tracing != "auto":
            message = "Cannot update a session's tracing once it is on: leave 'tracing' out, or send null to end it."
            faults.append(RequestError("cannot_update_tracing", message, "session.tracing"))
        # Both agents SDKs send "auto" on every `session.created`, also where the app has configured more.
        after = after.model_copy(update={"tracing": tracing})
    return after, faults
