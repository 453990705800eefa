"""
What goes up when an upstream is there again: what the lost one still owed, and what the app sent meanwhile.

Owed are the app's events that it did not answer, and the answer to the caller's turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offhook.realtime.relay_weight import weigh

__all__ = ["RelayUnanswered", "asks_for_an_answer"]

MAX_EVENTS = 64
MAX_HELD = 1000
"Client events that wait for the upstream to open."
MAX_HELD_WEIGHT = 32_000_000
"Characters of all of them."
AGAIN = "offhook_again"
_KEPT = {"session.update", "conversation.item.create", "conversation.item.delete", "response.create"}


@dataclass(slots=True)
class _Making:
    asked: Mapping[str, Any] | None
    "The `response.create` that it answers; `None`: the caller's turn."
    settled: bool = False
    "It has said all, or called a tool and will be asked anew with the output."


class RelayUnanswered:
    """
    Follows both directions. After a loss, `resume` gives what the next upstream is to be sent, so that the caller
    gets an answer without speaking again, and one only.
    """

    def __init__(self) -> None:
        self._events: deque[Mapping[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._making: dict[str, _Making] = {}
        self._owed: list[Mapping[str, Any]] = []
        self._held: list[Mapping[str, Any]] = []
        self._held_weight = 0
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

    def hold(self, event: Mapping[str, Any]) -> bool:
        """Keep a client event until an upstream is there. Returns whether there was room."""
        if event.get("type") == "response.cancel" and any(map(asks_for_an_answer, self._owed)):
            self._owed = [owed for owed in self._owed if not asks_for_an_answer(owed)]
            return True
        weight = weigh(event)
        if len(self._held) >= MAX_HELD or self._held_weight + weight > MAX_HELD_WEIGHT:
            return False
        self._held_weight += weight
        self._held.append(event)
        return True

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

    def lose(self, *, answers: bool) -> None:
        """
        The upstream is lost. Owed are the app's events as they were, or one `response.create` for an answer that was
        being made or was due.

        An app whose upstream does not answer by itself is told of the failed response and asks again if it likes.
        """
        self._owed += self._events
        cut = next((making for making in self._making.values() if not making.settled), None)
        due = answers and (cut is not None or self.turn is not None)
        if due and not any(map(asks_for_an_answer, self._owed)):
            given = cut.asked if cut is not None and cut.asked is not None else {}
            self._owed.append({**given, "type": "response.create", "event_id": AGAIN})
        self._events.clear()
        self._making.clear()
        self.turn = None

    def resume(self) -> list[Mapping[str, Any]]:
        """Return what to send, in order; what is ours has the `event_id` `AGAIN`."""
        owed, held = self._owed, self._held
        self._owed, self._held, self._held_weight = [], [], 0
        if any(map(asks_for_an_answer, held)):
            # The app asks by itself; two answers would be one too many.
            owed = [event for event in owed if not asks_for_an_answer(event)]
        return [*owed, *held]

    @property
    def owes_an_answer(self) -> bool:
        """Whether `resume` will ask for an answer that the app does not ask for by itself now."""
        return any(map(asks_for_an_answer, self._owed)) and not any(map(asks_for_an_answer, self._held))

    def _created(self, response: Mapping[str, Any]) -> None:
        outside = response.get("conversation_id", "") is None
        asked = next(
            (
                event
                for event in self._events
                if event["type"] == "response.create" and asks_for_an_answer(event) is not outside
            ),
            None,
        )
        if asked is not None:
            self._events.remove(asked)
        if not outside:
            self._making[str(response.get("id"))] = _Making(asked)
            if len(self._making) > MAX_EVENTS:
                del self._making[next(iter(self._making))]
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


def asks_for_an_answer(event: Mapping[str, Any]) -> bool:
    """Whether an event asks for a response that the caller hears, and not for one beside the conversation (row E15)."""
    given = _object(event.get("response"))
    return event.get("type") == "response.create" and given.get("conversation") != "none"


def _is_same(given: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    names = ("id",) if "id" in given else ("type", "role", "call_id")
    return all(given.get(name) == item.get(name) for name in names)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
