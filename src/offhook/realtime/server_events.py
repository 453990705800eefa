"""
The events that a server sends (API rows V01 to V14), one builder for each that Offhook emits.

Builders leave `event_id` out: `Outbox.event` adds it. Optional fields are absent rather than null where
a client's validator minds (row V10).
"""

from __future__ import annotations

from typing import Any

from offhook.realtime.validation import RequestError

__all__ = [
    "audio_cleared",
    "audio_delta",
    "audio_done",
    "audio_started",
    "audio_stopped",
    "call_arguments_delta",
    "call_arguments_done",
    "committed",
    "content_part_added",
    "content_part_done",
    "dtmf_received",
    "error",
    "input_cleared",
    "item_added",
    "item_deleted",
    "item_done",
    "item_retrieved",
    "item_truncated",
    "output_item_added",
    "output_item_done",
    "rate_limits_updated",
    "refusal",
    "response_created",
    "response_done",
    "session_created",
    "session_updated",
    "speech_started",
    "speech_stopped",
    "text_delta",
    "text_done",
    "timeout_triggered",
    "transcript_delta",
    "transcript_done",
    "transcription_completed",
    "transcription_delta",
    "transcription_failed",
]

Event = dict[str, Any]

# Session.


def session_created(session: Event) -> Event:
    return {"type": "session.created", "session": session}


def session_updated(session: Event) -> Event:
    return {"type": "session.updated", "session": session}


def error(
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    event_id: str | None = None,
    kind: str = "invalid_request_error",
) -> Event:
    """`event_id` is the client's own, echoed (row E12)."""
    return {
        "type": "error",
        "error": {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id},
    }


def refusal(fault: RequestError, event_id: str | None) -> Event:
    """What a client gets for an event that cannot be served."""
    return error(fault.message, code=fault.code, param=fault.param, event_id=event_id, kind=fault.type)


# The caller's side.


def speech_started(item_id: str, audio_start_ms: int) -> Event:
    return {"type": "input_audio_buffer.speech_started", "audio_start_ms": audio_start_ms, "item_id": item_id}


def speech_stopped(item_id: str, audio_end_ms: int) -> Event:
    return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms, "item_id": item_id}


def timeout_triggered(item_id: str, audio_start_ms: int, audio_end_ms: int) -> Event:
    return {
        "type": "input_audio_buffer.timeout_triggered",
        "audio_start_ms": audio_start_ms,
        "audio_end_ms": audio_end_ms,
        "item_id": item_id,
    }


def committed(item_id: str, previous_item_id: str | None) -> Event:
    return {"type": "input_audio_buffer.committed", "previous_item_id": previous_item_id, "item_id": item_id}


def input_cleared() -> Event:
    return {"type": "input_audio_buffer.cleared"}


def dtmf_received(digit: str, received_at: int) -> Event:
    """Carries no `event_id` (row V07)."""
    return {"type": "input_audio_buffer.dtmf_event_received", "event": digit, "received_at": received_at}


def transcription_delta(item_id: str, content_index: int, delta: str) -> Event:
    return {
        "type": "conversation.item.input_audio_transcription.delta",
        "item_id": item_id,
        "content_index": content_index,
        "delta": delta,
    }


def transcription_completed(item_id: str, content_index: int, transcript: str, seconds: float) -> Event:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": item_id,
        "content_index": content_index,
        "transcript": transcript,
        "usage": {"type": "duration", "seconds": seconds},
    }


def transcription_failed(item_id: str, content_index: int, code: str, message: str) -> Event:
    return {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": item_id,
        "content_index": content_index,
        "error": {"type": "transcription_error", "code": code, "message": message},
    }


# The conversation.


def item_added(item: Event, previous_item_id: str | None) -> Event:
    return {"type": "conversation.item.added", "previous_item_id": previous_item_id, "item": item}


def item_done(item: Event, previous_item_id: str | None) -> Event:
    return {"type": "conversation.item.done", "previous_item_id": previous_item_id, "item": item}


def item_retrieved(item: Event) -> Event:
    return {"type": "conversation.item.retrieved", "item": item}


def item_truncated(item_id: str, content_index: int, audio_end_ms: int) -> Event:
    return {
        "type": "conversation.item.truncated",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


def item_deleted(item_id: str) -> Event:
    return {"type": "conversation.item.deleted", "item_id": item_id}


# Responses.


def response_created(response: Event) -> Event:
    return {"type": "response.created", "response": response}


def rate_limits_updated() -> Event:
    """Comes once with each response. No project or node limits requests or tokens by the minute (row O13)."""
    return {"type": "rate_limits.updated", "rate_limits": []}


def response_done(response: Event) -> Event:
    return {"type": "response.done", "response": response}


def output_item_added(response_id: str, output_index: int, item: Event) -> Event:
    return _output("response.output_item.added", response_id, output_index, item=item)


def output_item_done(response_id: str, output_index: int, item: Event) -> Event:
    return _output("response.output_item.done", response_id, output_index, item=item)


def content_part_added(response_id: str, item_id: str, output_index: int, part: Event) -> Event:
    """`part.type` is `audio` or `text` here, unlike in items (row V03)."""
    return _part("response.content_part.added", response_id, item_id, output_index, part=part)


def content_part_done(response_id: str, item_id: str, output_index: int, part: Event) -> Event:
    return _part("response.content_part.done", response_id, item_id, output_index, part=part)


def text_delta(response_id: str, item_id: str, output_index: int, delta: str) -> Event:
    return _part("response.output_text.delta", response_id, item_id, output_index, delta=delta)


def text_done(response_id: str, item_id: str, output_index: int, text: str) -> Event:
    return _part("response.output_text.done", response_id, item_id, output_index, text=text)


def transcript_delta(response_id: str, item_id: str, output_index: int, delta: str) -> Event:
    return _part("response.output_audio_transcript.delta", response_id, item_id, output_index, delta=delta)


def transcript_done(response_id: str, item_id: str, output_index: int, transcript: str) -> Event:
    return _part(
        "response.output_audio_transcript.done", response_id, item_id, output_index, transcript=transcript
    )


def audio_delta(response_id: str, item_id: str, output_index: int, delta: str) -> Event:
    return _part("response.output_audio.delta", response_id, item_id, output_index, delta=delta)


def audio_done(response_id: str, item_id: str, output_index: int) -> Event:
    return _part("response.output_audio.done", response_id, item_id, output_index)


def call_arguments_delta(
    response_id: str, item_id: str, output_index: int, call_id: str, delta: str
) -> Event:
    return _output(
        "response.function_call_arguments.delta",
        response_id,
        output_index,
        item_id=item_id,
        call_id=call_id,
        delta=delta,
    )


def call_arguments_done(
    response_id: str, item_id: str, output_index: int, call_id: str, name: str, arguments: str
) -> Event:
    """`name` is required by newer clients (row V04)."""
    return _output(
        "response.function_call_arguments.done",
        response_id,
        output_index,
        item_id=item_id,
        call_id=call_id,
        name=name,
        arguments=arguments,
    )


# The caller's sound (SIP only).


def audio_started(response_id: str) -> Event:
    return {"type": "output_audio_buffer.started", "response_id": response_id}


def audio_stopped(response_id: str) -> Event:
    return {"type": "output_audio_buffer.stopped", "response_id": response_id}


def audio_cleared(response_id: str) -> Event:
    return {"type": "output_audio_buffer.cleared", "response_id": response_id}


def _output(kind: str, response_id: str, output_index: int, **fields: Any) -> Event:
    return {"type": kind, "response_id": response_id, "output_index": output_index, **fields}


def _part(kind: str, response_id: str, item_id: str, output_index: int, **fields: Any) -> Event:
    return {
        "type": kind,
        "response_id": response_id,
        "item_id": item_id,
        "output_index": output_index,
        "content_index": 0,
        **fields,
    }
