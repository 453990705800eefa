"""What an upstream began and has not ended, so that a loss can end it (rows O11, O12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offhook.realtime import server_events as events

__all__ = ["RelayOpen"]


class RelayOpen:
    """The responses, items and parts that were begun and not ended. Takes every upstream event that is passed on."""

    def __init__(self) -> None:
        self._responses: dict[str, dict[str, Any]] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._parts: dict[tuple[str, str], dict[str, Any]] = {}
        self._items: dict[str, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        """Whether a response is being made."""
        return bool(self._responses)

    @property
    def responses(self) -> set[str]:
        return set(self._responses)

    def receive(self, event: Mapping[str, Any]) -> None:
        item, response = _object(event.get("item")), _object(event.get("response"))
        match event.get("type"):
            case "response.created":
                self._responses[str(response.get("id"))] = response
            case "response.done":
                self._responses.pop(str(response.get("id")), None)
            case "response.output_item.added":
                self._outputs[str(item.get("id"))] = dict(event)
            case "response.output_item.done":
                self._outputs.pop(str(item.get("id")), None)
            case "response.content_part.added":
                self._parts[_place(event)] = dict(event)
            case "response.content_part.done":
                self._parts.pop(_place(event), None)
            case "conversation.item.added":
                self._items[str(item.get("id"))] = dict(event)
            case "conversation.item.done":
                self._items.pop(str(item.get("id")), None)
            case "conversation.item.deleted":
                self._items.pop(str(event.get("item_id")), None)

    def end(self, code: str, message: str) -> list[dict[str, Any]]:
        """Return the events that end all of it, in the order of row O03; what had begun is incomplete."""
        ends: list[dict[str, Any]] = [
            _ended(part, "response.content_part.done") for part in self._parts.values()
        ]
        ends += [_unfinished(item, "conversation.item.done") for item in self._items.values()]
        ends += [_unfinished(item, "response.output_item.done") for item in self._outputs.values()]
        error = {"type": "server_error", "code": code, "message": message}
        for response in self._responses.values():
            details = {"type": "failed", "error": error}
            ends.append(events.response_done({**response, "status": "failed", "status_details": details}))
        for begun in (self._parts, self._items, self._outputs, self._responses):
            begun.clear()
        return ends


def _place(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return where a part is, in words, since what an upstream sends for it may be anything."""
    return str(event.get("item_id")), str(event.get("content_index"))


def _ended(begun: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {name: value for name, value in begun.items() if name not in ("type", "event_id")} | {"type": kind}


def _unfinished(begun: Mapping[str, Any], kind: str) -> dict[str, Any]:
    event = _ended(begun, kind)
    item = dict(_object(event.get("item")))
    if item.get("role") != "user":
        item["status"] = "incomplete"
    return event | {"item": item}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
