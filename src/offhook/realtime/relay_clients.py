"""The clients of a relayed call: who was greeted, and whose question an upstream's error answers (rows S13, S14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offhook.realtime import server_events as events
from offhook.realtime.client_events import ClientEventError
from offhook.realtime.outbox import Outbox, ServerEvent

__all__ = ["OWN", "RelayClients"]

OWN = "offhook_"
"With this begins the `event_id` of an event of our own that goes up."
MAX_ASKED = 512
MAX_EARLY = 64
"Answers that wait for a client's `session.created`."


class RelayClients:
    """What one client asks is answered to it alone, and nothing is told to it before `session.created`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._early: dict[int, list[dict[str, Any]]] = {}
        "What waits for each client that was not greeted yet."
        self._asked: dict[str, int | None] = {}
        "Who sent a client event, by its `event_id`; `None`: more than one did."

    def attach(self, sender: int) -> None:
        self._early[sender] = []

    def detach(self, sender: int) -> None:
        self._early.pop(sender, None)

    def greet(self, session: Mapping[str, Any], event_id: str | None = None) -> None:
        """Tell those who have not heard it yet what the session is; `event_id` is the upstream's."""
        waiting, self._early = self._early, {}
        for sender, early in waiting.items():
            created = events.session_created(dict(session))
            if event_id is None:
                self._outbox.event(created, to=sender)
            else:
                told = {"type": created["type"], "event_id": event_id, **created}
                self._outbox.put(ServerEvent(told, sender))
            for event in early:
                self._outbox.event(event, to=sender)

    def refuse(self, error: ClientEventError, event_id: str | None, sender: int) -> None:
        """Tell a client what is wrong with its event."""
        told = events.error(error.message, code=error.code, param=error.param, event_id=event_id)
        early = self._early.get(sender)
        if early is None:
            self._outbox.event(told, to=sender)
        elif len(early) < MAX_EARLY:
            early.append(told)

    def ask(self, event_id: str, sender: int) -> None:
        """A client's event goes up."""
        self._asked[event_id] = sender if self._asked.get(event_id, sender) == sender else None
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    def answer(self, error: dict[str, Any], event_id: object) -> None:
        """Tell an upstream's error to who asked; to all when nobody knows, to nobody when it was us."""
        if not isinstance(event_id, str):
            self._outbox.put(ServerEvent(error))
        elif not event_id.startswith(OWN):
            self._outbox.put(ServerEvent(error, self._asked.pop(event_id, None)))
