"""Judges what a sideband receives: each frame by the openai package's own types, all of them by the rules of order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from . import agents_js

__all__ = ["ProtocolFault", "Strictness", "check_order", "unknown_fields", "validate"]

_ADAPTER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)

_DOCUMENTED_EXTRAS = frozenset(
    {
        ("session", "object"), ("session", "id"), ("session", "expires_at"),  # API row G02
        ("", "event_id"),  # API row V07: on dtmf_event_received
    }
)  # fmt: skip


class ProtocolFault(AssertionError):  # noqa: N818 - it fails a test
    """A frame that a strict client would refuse, or frames in an order that it could not follow."""


@dataclass(frozen=True)
class Strictness:
    """What this connection asked for, so that nothing else may come."""

    call_events: bool = False
    audio: bool = False


def validate(frame: bytes, strictness: Strictness) -> dict[str, Any]:
    """Return a frame's event. Raises `ProtocolFault` unless the types of both SDKs take it as it stands."""
    event = json.loads(frame)
    kind = event.get("type", "")
    if kind.startswith("call."):
        if not strictness.call_events:
            raise ProtocolFault(f"{kind} was sent to a client that did not ask for it")
        return dict(event)
    if kind == "response.output_audio.delta" and not strictness.audio:
        raise ProtocolFault("audio was sent to a SIP sideband that did not ask for it")
    try:
        parsed = _ADAPTER.validate_json(frame, strict=True)
    except ValidationError as error:
        raise ProtocolFault(f"{kind} does not validate: {_about(error, kind)}\n{frame.decode()}") from None
    if parsed.type != kind:
        raise ProtocolFault(f"{kind} was taken for {parsed.type}")
    if passed_over := agents_js.faults(event):
        raise ProtocolFault(
            f"{kind} is a generic event to the JavaScript SDK: {passed_over}\n{frame.decode()}"
        )
    if extras := unknown_fields(parsed):
        raise ProtocolFault(f"{kind} has fields that the types do not know: {extras}\n{frame.decode()}")
    return dict(event)


def unknown_fields(event: BaseModel) -> list[tuple[str, str]]:
    """Return (field that holds the object, unknown field in it) for all that the types do not know of an event."""
    return sorted(_extras(event) - _DOCUMENTED_EXTRAS)


def _extras(model: BaseModel, name: str = "") -> set[tuple[str, str]]:
    """Return (field that holds the object, unknown field in it) for the whole tree."""
    found = {(name, extra) for extra in model.model_extra or {}}
    for field in type(model).model_fields:
        value = getattr(model, field)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                found |= _extras(item, field)
    return found


def _about(error: ValidationError, kind: str) -> str:
    """Return the faults of the union's member that was meant, not those of the 45 others."""
    member = "".join(part.capitalize() for part in kind.replace(".", "_").split("_"))
    faults = [
        fault
        for fault in error.errors()
        if str(fault["loc"][0]).removesuffix("Event") in (member, f"{member}")
    ]
    return "; ".join(f"{fault['loc']}: {fault['msg']}" for fault in faults or error.errors()[:12])


def check_order(events: Sequence[dict[str, Any]], *, embedded: bool = False) -> None:
    """
    Check what holds for every connection (API rows S13, O01, O04, O11, O12, V14).

    `embedded`: an engine of our own answers, so that each response begins with its limits (row O13); an upstream
    tells its limits when it likes.
    """
    if not events:
        return
    if events[0]["type"] != "session.created":
        raise ProtocolFault(f"first came {events[0]['type']}, not session.created")
    ids = Counter(event["event_id"] for event in events if "event_id" in event)
    if repeated := [one for one, count in ids.items() if count > 1]:
        raise ProtocolFault(f"event ids are repeated: {repeated}")
    _each_once(events, "response.created", "response.done", lambda event: (event["response"]["id"],))
    _each_once(
        events,
        "response.output_item.added",
        "response.output_item.done",
        lambda event: (event["response_id"], event["item"]["id"]),
    )
    _each_once(
        events,
        "response.content_part.added",
        "response.content_part.done",
        lambda event: (event["item_id"], event["content_index"]),
    )
    _each_once(
        events, "conversation.item.added", "conversation.item.done", lambda event: (event["item"]["id"],)
    )
    _each_once(
        events,
        "output_audio_buffer.started",
        ("output_audio_buffer.stopped", "output_audio_buffer.cleared"),
        lambda event: (event["response_id"],),
    )
    _sound_within_response(events)
    if embedded:
        _limits_with_each_response(events)


def _sound_within_response(events: Iterable[dict[str, Any]]) -> None:
    """Sound starts after its part was announced, and stops by itself only after the response was made (row O04)."""
    created, parts, done = set(), set(), set()
    for event in events:
        response_id = event.get("response_id")
        match event["type"]:
            case "response.created":
                created.add(event["response"]["id"])
            case "response.content_part.added":
                parts.add(response_id)
            case "response.done":
                done.add(event["response"]["id"])
            case "output_audio_buffer.started" if response_id in created - parts:
                raise ProtocolFault(f"{response_id} sounds before response.content_part.added")
            case "output_audio_buffer.stopped" if response_id in created - done:
                raise ProtocolFault(f"{response_id} was played to its end before response.done")


def _limits_with_each_response(events: Sequence[dict[str, Any]]) -> None:
    told = 0
    for event, following in zip(events, [*events[1:], {}], strict=True):
        told += event["type"] == "rate_limits.updated"
        if event["type"] == "response.created" and following.get("type") != "rate_limits.updated":
            raise ProtocolFault(f"{event['response']['id']} began without rate_limits.updated")
    if told != sum(event["type"] == "response.created" for event in events):
        raise ProtocolFault("rate_limits.updated came without a response")


def _each_once(
    events: Iterable[dict[str, Any]], opening: str, closings: str | tuple[str, ...], key: Any
) -> None:
    """Each opening is followed by exactly one closing; a connection that came late may see a closing alone."""
    closings = (closings,) if isinstance(closings, str) else closings
    open_keys: dict[Any, int] = {}
    for event in events:
        if event["type"] == opening:
            if key(event) in open_keys:
                raise ProtocolFault(f"{opening} came twice for {key(event)}")
            open_keys[key(event)] = 0
        elif event["type"] in closings and key(event) in open_keys:
            open_keys[key(event)] += 1
            if open_keys[key(event)] > 1:
                raise ProtocolFault(f"{event['type']} came again for {key(event)}")
    if never := [one for one, count in open_keys.items() if not count]:
        raise ProtocolFault(f"{opening} without {' or '.join(closings)}: {never}")
