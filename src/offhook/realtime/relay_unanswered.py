"""What an upstream that was lost still owed: the app's events that it did not answer, and the caller's turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RelayUnanswered"]

MAX_EVENTS = 64
_KEPT = {"session.update", "conversation.item.create", "conversation.item.delete", "response.create"}


@dataclass(slots=True)
class _Making:
    asked: Mapping[str, Any] | None
    "The `response.create` that it answers; `None`: the caller's turn."
    settled: bool = False
    "It has said all, or called a tool and will be asked anew with the output."


class RelayUnanswered:
    """
    Follows both directions. After a loss, `owed` gives what the next upstream is to be sent, so that the caller
    gets an answer without speaking again, and one only.
    """

    def __init__(self) -> None:
        self._events: deque[Mapping[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._making: dict[str, _Making] = {}
        self.turn: str | None = None
        "The item of the caller's turn that waits for an answer."

    def __bool__(self) -> bool:
        return bool(self._events or self._making or self.turn)

    def ask(self, event: Mapping[str, Any]) -> None:
        """Take an event that goes up."""
        if event.get("type") in _KEPT:
            self._events.append(event)
        elif event.get("type") == "response.cancel":
            self._making.clear()
            self.turn = None

    def interrupt(self) -> None:
        """The caller speaks: what was being answered is so no longer."""
        self._making.clear()
        self.turn = None

    def receive(self, event: Mapping[str, Any], *, answers: bool) -> None:
        """Take an event that came down; `answers`: whether the upstream answers the caller's turns by itself."""
        match event.get("type"):
            case "session.updated":
                self._take("session.update")
            case "conversation.item.added" | "conversation.item.created":
                self._take("conversation.item.create", _object(event.get("item")))
            case "conversation.item.deleted":
                self._take("conversation.item.delete")
            case "input_audio_buffer.committed" if answers:
                self.turn = str(event.get("item_id"))
            case "response.created":
                self._created(_object(event.get("response")))
            case "response.output_item.added" if _object(event.get("item")).get("type") != "message":
                self._settle(event, False)
            case "response.output_audio.done" | "response.output_text.done" | "response.output_item.done":
                self._settle(event, True)
            case "response.done":
                self._making.pop(str(_object(event.get("response")).get("id")), None)
            case "error":
                self._refused(_object(event.get("error")))

    def owed(self, *, answers: bool) -> list[dict[str, Any]]:
        """
        The upstream is lost. Return what to send to the next one: the app's events as they were, or one
        `response.create` for an answer that was being made or was due.

        An app whose upstream does not answer by itself is told of the failed response and asks again if it likes.
        """
        owed = [dict(event) for event in self._events]
        asked = any(event["type"] == "response.create" for event in owed)
        cut = next((making for making in self._making.values() if not making.settled), None)
        if answers and not asked and (cut is not None or self.turn is not None):
            given = cut.asked if cut is not None and cut.asked is not None else {}
            owed.append({name: value for name, value in given.items() if name != "event_id"})
            owed[-1]["type"] = "response.create"
        self._events.clear()
        self._making.clear()
        self.turn = None
        return owed

    def _created(self, response: Mapping[str, Any]) -> None:
        asked = self._take("response.create")
        if response.get("conversation_id", "") is not None:
            self._making[str(response.get("id"))] = _Making(asked)
            self.turn = None

    def _settle(self, event: Mapping[str, Any], settled: bool) -> None:
        if (making := self._making.get(str(event.get("response_id")))) is not None:
            making.settled = settled

    def _refused(self, error: Mapping[str, Any]) -> None:
        """A server answers in order, so an error that names no event answers the first of them."""
        event_id = error.get("event_id")
        found = next(
            (event for event in self._events if event_id is None or event.get("event_id") == event_id), None
        )
        if found is not None:
            self._events.remove(found)

    def _take(self, kind: str, item: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        for event in self._events:
            if event["type"] == kind and (item is None or _is_same(_object(event.get("item")), item)):
                self._events.remove(event)
                return event
        return None


def _is_same(given: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    names = ("id",) if "id" in given else ("type", "role", "call_id")
    return all(given.get(name) == item.get(name) for name in names)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
