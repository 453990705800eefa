"""What an upstream began and has not ended, so that a loss can end it (rows O11, O12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offhook.realtime import server_events as events

__all__ = ["RelayOpen"]


MAX_ENDED = 512
MAX_BEGUN = 256
"Of each kind. An upstream has a few at a time; one that ends nothing would fill our memory."
_BEGINNINGS = {
    "response.created": "response",
    "response.output_item.added": "output",
    "response.content_part.added": "part",
    "conversation.item.added": "item",
}
_ENDS = {
    "response.done": "response",
    "response.output_item.done": "output",
    "response.content_part.done": "part",
    "conversation.item.done": "item",
}
_Place = tuple[str, ...]
"What begins and ends: its kind, and by what an upstream knows it."


class RelayOpen:
    """The responses, items and parts that were begun and not ended. Takes every upstream event."""

    def __init__(self) -> None:
        self._begun: dict[str, dict[_Place, dict[str, Any]]] = {kind: {} for kind in _ENDS.values()}
        self._ended: dict[_Place, None] = {}

    def __bool__(self) -> bool:
        """Whether a response is being made."""
        return bool(self._begun["response"])

    @property
    def responses(self) -> set[str]:
        return {place[1] for place in self._begun["response"]}

    def receive(self, event: Mapping[str, Any]) -> bool:
        """Return whether the event is news: what has begun begins no more, and what has ended does not end again."""
        name = str(event.get("type"))
        if (kind := _BEGINNINGS.get(name)) is not None:
            place = _place(kind, event)
            if _is_named(kind, event) and (place in self._begun[kind] or place in self._ended):
                return False
            self._begun[kind][place] = dict(event)
            if len(self._begun[kind]) > MAX_BEGUN:
                del self._begun[kind][next(iter(self._begun[kind]))]
        elif (kind := _ENDS.get(name)) is not None:
            place = _place(kind, event)
            if place in self._ended:
                return False
            self._begun[kind].pop(place, None)
            if _is_named(kind, event):
                self._ended[place] = None
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]
        elif name == "conversation.item.deleted":
            place = ("item", str(event.get("item_id")))
            self._begun["item"].pop(place, None)
            self._ended.pop(place, None)
        return True

    def end(self, code: str, message: str) -> list[dict[str, Any]]:
        """Return the events that end all of it, in the order of row O03; what had begun is incomplete."""
        parts, items, outputs, responses = (
            list(self._begun[kind].values()) for kind in ("part", "item", "output", "response")
        )
        ends = [_ended(part, "response.content_part.done") for part in parts]
        ends += [_unfinished(item, "conversation.item.done") for item in items]
        ends += [_unfinished(item, "response.output_item.done") for item in outputs]
        error = {"type": "server_error", "code": code, "message": message}
        details = {"type": "failed", "error": error}
        for event in responses:
            response = _object(event.get("response"))
            ends.append(events.response_done({**response, "status": "failed", "status_details": details}))
        for begun in self._begun.values():
            begun.clear()
        # Another upstream has ids of its own.
        self._ended.clear()
        return ends


def _place(kind: str, event: Mapping[str, Any]) -> _Place:
    """Return where something is, in words, since what an upstream sends for it may be anything."""
    match kind:
        case "part":
            return kind, str(event.get("item_id")), str(event.get("content_index"))
        case "response":
            return kind, str(_object(event.get("response")).get("id"))
        case _:
            return kind, str(_object(event.get("item")).get("id"))


def _is_named(kind: str, event: Mapping[str, Any]) -> bool:
    """Whether an upstream says what begins or ends; two that have no name may be two."""
    if kind == "part":
        return isinstance(event.get("item_id"), str)
    return isinstance(_object(event.get("response" if kind == "response" else "item")).get("id"), str)


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
