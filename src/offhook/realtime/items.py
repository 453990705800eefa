"""Conversation items as clients may write them (row E19): messages, function calls and their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidatorFunctionWrapHandler, WrapValidator

from offhook.realtime.conversation import Item, Line
from offhook.realtime.engine import AudioFormat
from offhook.realtime.validation import ApiModel, by_type, choose

__all__ = [
    "AssistantMessage",
    "ClientItem",
    "DecodedAudio",
    "FunctionCall",
    "FunctionCallOutput",
    "InputItem",
    "ItemReference",
    "Status",
    "SystemMessage",
    "UserMessage",
    "create_item",
]

Status = Literal["completed", "incomplete", "in_progress"]
ItemId = Annotated[str, Field(min_length=1, max_length=128)]


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Sound of a client's item that was too long to be decoded in one go; no client can write this."""

    audio: bytearray
    format: AudioFormat


def _unless_decoded(value: Any, judge: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, DecodedAudio) else judge(value)


class InputText(ApiModel):
    type: Literal["input_text"]
    text: str


class InputAudio(ApiModel):
    type: Literal["input_audio"]
    audio: Annotated[str | None, WrapValidator(_unless_decoded)] = None
    "Base64, or `DecodedAudio`."
    transcript: str | None = None


class OutputText(ApiModel):
    type: Literal["output_text"]
    text: str


class OutputAudio(ApiModel):
    type: Literal["output_audio"]
    audio: Annotated[str | None, WrapValidator(_unless_decoded)] = None
    "Base64, or `DecodedAudio`."
    transcript: str | None = None


UserContent = Annotated[
    Annotated[InputText, Tag("@text")] | Annotated[InputAudio, Tag("@audio")],
    by_type({"input_text": "@text", "input_audio": "@audio"}),
]
AssistantContent = Annotated[
    Annotated[OutputText, Tag("@text")] | Annotated[OutputAudio, Tag("@audio")],
    by_type({"output_text": "@text", "output_audio": "@audio"}),
]


class _Item(ApiModel):
    id: ItemId | None = None
    object: Literal["realtime.item"] | None = None
    status: Status | None = None


class SystemMessage(_Item):
    type: Literal["message"]
    role: Literal["system"]
    content: list[InputText]


class UserMessage(_Item):
    type: Literal["message"]
    role: Literal["user"]
    content: list[UserContent]


class AssistantMessage(_Item):
    type: Literal["message"]
    role: Literal["assistant"]
    content: list[AssistantContent]


class FunctionCall(_Item):
    type: Literal["function_call"]
    name: str
    arguments: str
    call_id: str | None = None


class FunctionCallOutput(_Item):
    type: Literal["function_call_output"]
    call_id: str
    output: str


class ItemReference(ApiModel):
    type: Literal["item_reference"]
    id: str


class _RoleOnly(_Item):
    """What a message with an unknown role is judged as, so that the error names the role."""

    type: Literal["message"]
    role: Literal["system", "user", "assistant"]


def _item_tag(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return None
    kind, role = value.get("type"), value.get("role")
    if kind == "message":
        return f"@{role}" if role in ("system", "user", "assistant") else "@role"
    return f"@{kind}" if kind in ("function_call", "function_call_output", "item_reference") else None


ClientItem = Annotated[
    Annotated[SystemMessage, Tag("@system")]
    | Annotated[UserMessage, Tag("@user")]
    | Annotated[AssistantMessage, Tag("@assistant")]
    | Annotated[_RoleOnly, Tag("@role")]
    | Annotated[FunctionCall, Tag("@function_call")]
    | Annotated[FunctionCallOutput, Tag("@function_call_output")],
    choose(_item_tag),
]
InputItem = Annotated[
    Annotated[SystemMessage, Tag("@system")]
    | Annotated[UserMessage, Tag("@user")]
    | Annotated[AssistantMessage, Tag("@assistant")]
    | Annotated[_RoleOnly, Tag("@role")]
    | Annotated[FunctionCall, Tag("@function_call")]
    | Annotated[FunctionCallOutput, Tag("@function_call_output")]
    | Annotated[ItemReference, Tag("@item_reference")],
    choose(_item_tag),
]
"""An item of `response.create`'s `input`: a new one, or a reference to one in the conversation (row E15)."""


def create_item(
    given: ClientItem,
    item_id: str,
    decode: Callable[[str | DecodedAudio, str], bytes | bytearray],
    bytes_per_ms: int,
) -> Item:
    """
    Return a conversation's item for what a client wrote.

    `decode` turns base64 audio of the client's format into the session's, given its place in the item for errors.
    """
    if isinstance(given, FunctionCall):
        return Item(
            item_id, given.type, name=given.name, call_id=given.call_id or item_id, arguments=given.arguments
        )
    if isinstance(given, FunctionCallOutput):
        return Item(item_id, given.type, call_id=given.call_id, output=given.output)
    assert isinstance(given, SystemMessage | UserMessage | AssistantMessage)
    item = Item(item_id, given.type, role=given.role)
    for index, part in enumerate(given.content):
        content = part.model_dump(exclude_none=True, exclude={"audio"})
        encoded = getattr(part, "audio", None)
        if encoded:
            audio = decode(encoded, f"content[{index}].audio")
            if item.audio or not isinstance(audio, bytearray):
                item.audio += audio
            else:
                item.audio = audio  # to copy it would take milliseconds
            item.audio_ms = len(item.audio) / bytes_per_ms
        if content["type"] in ("input_audio", "output_audio"):
            content.setdefault("transcript", None)
        item.content.append(content)
    if item.role == "assistant" and item.audio and item.transcript:
        item.lines = [Line(item.transcript, 0.0, item.audio_ms, complete=True)]
    return item
