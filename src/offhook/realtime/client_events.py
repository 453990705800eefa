"""
The eleven events that a client may send (API rows E01 to E26), judged whole before anything happens.

`parse_client_event` takes a WebSocket text frame, or a decoded object, and gives one of the models below or
raises `ClientEventError`, which carries the client's `event_id` so that the `error` event can echo it (rows E12, S21).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, ValidationError

from offhook.realtime.items import ClientItem, InputItem
from offhook.realtime.session_config import (
    AudioFormatConfig,
    MaxOutputTokens,
    Modalities,
    Prompt,
    Reasoning,
    Tool,
    ToolChoice,
    Voice,
    check_modalities,
)
from offhook.realtime.validation import ApiModel, RequestError, kind_of, to_request_error

__all__ = [
    "ClientEvent",
    "ClientEventError",
    "ClientFrame",
    "InputAudioBufferAppend",
    "InputAudioBufferClear",
    "InputAudioBufferCommit",
    "ItemCreate",
    "ItemDelete",
    "ItemRetrieve",
    "ItemTruncate",
    "OutputAudioBufferClear",
    "ResponseCancel",
    "ResponseCreate",
    "ResponseParams",
    "SessionUpdate",
    "decode_audio",
    "half_a_sample",
    "no_base64",
    "parse_client_event",
    "too_much_audio",
]

MAX_EVENT_ID = 512
MAX_AUDIO_BASE64 = 20 * 1024 * 1024
"Characters: of 15 MiB of audio."


class ClientEventError(RequestError):
    """A client event that cannot be served; the session goes on."""

    def __init__(
        self, code: str, message: str, param: str | None = None, *, event_id: str | None = None
    ) -> None:
        super().__init__(code, message, param)
        self.event_id = event_id


# The events.


class _Event(ApiModel):
    event_id: Annotated[str, Field(max_length=MAX_EVENT_ID)] | None = None


class SessionUpdate(_Event):
    type: Literal["session.update"]
    session: Any
    "Judged by `session_config.merge_update`, against what is in force."


@dataclass(frozen=True, slots=True)
class InputAudioBufferAppend:
    """Comes 50 times a second, so no model judges it, unless something in it is wrong."""

    audio: str
    event_id: str | None = None


class _AppendModel(_Event):
    type: Literal["input_audio_buffer.append"]
    audio: str


class InputAudioBufferCommit(_Event):
    type: Literal["input_audio_buffer.commit"]


class InputAudioBufferClear(_Event):
    type: Literal["input_audio_buffer.clear"]


class OutputAudioBufferClear(_Event):
    type: Literal["output_audio_buffer.clear"]


class ItemCreate(_Event):
    type: Literal["conversation.item.create"]
    item: ClientItem
    previous_item_id: str | None = None


class ItemRetrieve(_Event):
    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemDelete(_Event):
    type: Literal["conversation.item.delete"]
    item_id: str


class ItemTruncate(_Event):
    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: Annotated[int, Field(ge=0)]
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseAudioOutput(ApiModel):
    format: AudioFormatConfig | None = None
    voice: Voice | None = None


class ResponseAudio(ApiModel):
    output: ResponseAudioOutput | None = None


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class ResponseParams(ApiModel):
    """What one response may change (row E14). `None`: as the session has it."""

    conversation: Literal["auto", "none"] | None = None
    instructions: str | None = None
    output_modalities: Annotated[Modalities, AfterValidator(check_modalities)] | None = None
    audio: ResponseAudio | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    max_output_tokens: MaxOutputTokens | None = None
    metadata: Metadata | None = None
    input: list[InputItem] | None = None
    "A context of its own instead of the conversation; empty: no context (row E15)."
    prompt: Prompt | None = None
    reasoning: Reasoning | None = None
    parallel_tool_calls: bool | None = None


class ResponseCreate(_Event):
    type: Literal["response.create"]
    response: ResponseParams | None = None


class ResponseCancel(_Event):
    type: Literal["response.cancel"]
    response_id: str | None = None


ClientEvent = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | OutputAudioBufferClear
    | ItemCreate
    | ItemRetrieve
    | ItemDelete
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel
)

_APPEND = "input_audio_buffer.append"
_APPEND_KEYS = frozenset({"type", "audio", "event_id"})
_PLAIN_RESPONSE = ResponseCreate(type="response.create")
"Asks for no more than an answer, as each greeting does."
_EVENTS: dict[str, type[_Event]] = {
    model.model_fields["type"].annotation.__args__[0]: model  # type: ignore[union-attr]
    for model in (
        SessionUpdate,
        _AppendModel,
        InputAudioBufferCommit,
        InputAudioBufferClear,
        OutputAudioBufferClear,
        ItemCreate,
        ItemRetrieve,
        ItemDelete,
        ItemTruncate,
        ResponseCreate,
        ResponseCancel,
    )
}


ClientFrame = str | bytes | Mapping[str, Any] | ClientEventError
"What a client sent: text, a binary frame, an event that was decoded before, or what was found wrong with it then."


def parse_client_event(frame: ClientFrame) -> ClientEvent:
    """Return the event in a WebSocket frame. Bytes are a binary frame, which the API does not use (row S21)."""
    event = _decode(frame)
    if event.get("type") == _APPEND and (append := _parse_append(event)) is not None:
        return append
    if event == {"type": "response.create"}:
        return _PLAIN_RESPONSE
    given_id = event.get("event_id")
    event_id = given_id if isinstance(given_id, str) and len(given_id) <= MAX_EVENT_ID else None
    kind = event.get("type")
    if kind is None:
        raise ClientEventError(
            "missing_required_parameter", "Missing required parameter: 'type'.", "type", event_id=event_id
        )
    if not isinstance(kind, str):
        message = f"Invalid type for 'type': expected a string, but got {kind_of(kind)} instead."
        raise ClientEventError("invalid_type", message, "type", event_id=event_id)
    model = _EVENTS.get(kind)
    if model is None:
        supported = ", ".join(f"'{name}'" for name in _EVENTS)
        message = f"Invalid value: '{kind[:80]}'. Supported values are: {supported}."
        raise ClientEventError("invalid_value", message, "type", event_id=event_id)
    try:
        return model.model_validate(event)  # type: ignore[return-value]
    except ValidationError as error:
        fault = to_request_error(error)
        raise ClientEventError(fault.code, fault.message, fault.param, event_id=event_id) from None


def _parse_append(event: Mapping[str, Any]) -> InputAudioBufferAppend | None:
    """Return what a model would have taken; for all else `None`, and the model says what is wrong."""
    audio, event_id = event.get("audio"), event.get("event_id")
    if type(audio) is not str or not event.keys() <= _APPEND_KEYS:
        return None
    if event_id is not None and (type(event_id) is not str or len(event_id) > MAX_EVENT_ID):
        return None
    return InputAudioBufferAppend(audio, event_id)


def _decode(frame: ClientFrame) -> Mapping[str, Any]:
    if isinstance(frame, Mapping):
        return frame
    if isinstance(frame, ClientEventError):
        raise frame
    if isinstance(frame, bytes):
        raise ClientEventError(
            "invalid_value", "Binary frames are not supported: send each event as a text frame of JSON."
        )
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise ClientEventError("invalid_json", f"The event is not valid JSON: {error}.") from None
    if not isinstance(event, dict):
        raise ClientEventError(
            "invalid_type", f"Invalid event: expected an object, but got {kind_of(event)} instead."
        )
    return event


def decode_audio(text: str, param: str, sample_bytes: int, event_id: str | None) -> bytes:
    """Decode base64 audio of at most 15 MiB and a whole number of samples; raises `ClientEventError`."""
    if len(text) > MAX_AUDIO_BASE64:
        raise too_much_audio(param, event_id)
    try:
        audio = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise no_base64(param, event_id) from None
    if len(audio) % sample_bytes:
        raise half_a_sample(param, sample_bytes, event_id)
    return audio


def too_much_audio(param: str, event_id: str | None) -> ClientEventError:
    message = f"Invalid value for '{param}': at most 15 MiB of audio in one event."
    return ClientEventError("invalid_value", message, param, event_id=event_id)


def no_base64(param: str, event_id: str | None) -> ClientEventError:
    message = f"Invalid value for '{param}': it is not base64."
    return ClientEventError("invalid_value", message, param, event_id=event_id)


def half_a_sample(param: str, sample_bytes: int, event_id: str | None) -> ClientEventError:
    message = f"Invalid value for '{param}': not a whole number of {sample_bytes}-byte samples."
    return ClientEventError("invalid_value", message, param, event_id=event_id)
