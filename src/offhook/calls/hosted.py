"""
Calls that another service answers, as far as they are seen here: the API half of them.

Pure: what passes between the app and the upstream is shown to these objects, which keep a record and a timeline of
it. Sound is never kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from offhook.clock import Clock
from offhook.realtime.relay_usage import RelayUsage

from . import event_frame
from .timeline import Timeline

__all__ = ["HostedCall", "HostedCalls", "HostedSideband", "HostedState"]

KEPT_PER_PROJECT = 500
"Hosted calls of a project that can still be asked for."
MAX_TYPES = 200
"Different event types that are counted by name; the rest as `(other)`."


class HostedState(StrEnum):
    """What was seen of a hosted call. Nothing here sees its phone leg, so its end may go unseen too."""

    UNKNOWN = "unknown"
    "Nothing has worked on it yet."
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REFERRED = "referred"
    ENDED = "ended"


_AFTER = {
    "accept": HostedState.ACCEPTED,
    "reject": HostedState.REJECTED,
    "refer": HostedState.REFERRED,
    "hangup": HostedState.ENDED,
}
_OVER = (HostedState.REJECTED, HostedState.REFERRED, HostedState.ENDED)


class HostedCall:
    """One call as one project sees it: the same id in another project's requests is another record."""

    def __init__(
        self, project_id: str, call_id: str, upstream: str, clock: Clock, *, what: str = "hosted call"
    ) -> None:
        self.id = call_id
        self._what = what
        self.project_id = project_id
        self.upstream = upstream
        self.created_at = clock.wall()
        self.ended_at: float | None = None
        self.state = HostedState.UNKNOWN
        self.timeline = Timeline(call_id, clock)
        self.usage = RelayUsage()
        self.sidebands: list[HostedSideband] = []
        self.received: Counter[str] = Counter()
        "Types of the upstream's events."
        self.sent: Counter[str] = Counter()
        "Types of the app's events."
        self._clock = clock

    def answered(self, verb: str, status: int, code: str | None) -> None:
        """Draw the conclusion from the upstream's answer to a verb."""
        if 200 <= status < 300:
            self._move(_AFTER[verb])
        elif status == 404 and code == "call_id_not_found" and self.state is not HostedState.UNKNOWN:
            self._move(HostedState.ENDED)

    def attach(self, request_id: str) -> HostedSideband:
        """An app's sideband is open. Show its frames to what this returns, and say when it is over."""
        if self.state is HostedState.UNKNOWN:
            self._move(HostedState.ACCEPTED)
        sideband = HostedSideband(self, request_id)
        self.sidebands.append(sideband)
        self.timeline.record("sideband", "attached", request_id=request_id, upstream=self.upstream)
        return sideband

    def closed_by_upstream(self) -> None:
        """The upstream closed a sideband in good order, which it does when the call is over (row S16)."""
        self._move(HostedState.ENDED)

    def refers(self) -> list[dict[str, Any]]:
        """Return nothing: the REFERs are the upstream's."""
        return []

    def describe(self) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}`: as an own call's, where there is something to say."""
        return {
            "id": self.id,
            "object": "realtime.call",
            "hosted": True,
            "upstream": self.upstream,
            "project_id": self.project_id,
            "state": self.state.value,
            "created_at": int(self.created_at),
            "ended_at": int(self.ended_at) if self.ended_at else None,
            "sidebands": len(self.sidebands),
            "events": {"received": dict(self.received), "sent": dict(self.sent)},
            "usage": self.usage.to_api(),
        }

    def _move(self, state: HostedState) -> None:
        if self.state is state or (self.state in _OVER and state is HostedState.ENDED):
            return
        self.state = state
        self.ended_at = self._clock.wall() if state in _OVER else None
        self.timeline.record("call", f"{self._what}: {state.value}")


class HostedSideband:
    """
    One sideband's frames, as they pass.

    Every sideband of a call gets all of its events, so the one that has been attached longest speaks for all.
    """

    def __init__(self, call: HostedCall, request_id: str) -> None:
        self._call = call
        self._request_id = request_id

    def received(self, frame: str | bytes) -> None:
        """A frame of the upstream's, without the key."""
        kind, event = event_frame.read(frame)
        if self._call.sidebands[:1] == [self]:
            _count(self._call.received, kind)
            if event is not None:
                self._follow(kind, event)
        elif kind == "error" and event is not None:
            self._follow(kind, event)  # errors go to the sender alone (row S14)

    def sent(self, frame: str | bytes) -> None:
        """A frame of the app's."""
        _count(self._call.sent, event_frame.read(frame)[0])

    def detach(
        self, title: str, *, code: int | None = None, by_app: bool = True, error: bool = False
    ) -> None:
        """It is over. `title` says who ended it, and why."""
        call = self._call
        if self in call.sidebands:
            call.sidebands.remove(self)
        direction = "in" if by_app else "out"
        call.timeline.record("sideband", title, request_id=self._request_id, code=code, direction=direction)
        if error:
            call.timeline.record("error", title, request_id=self._request_id)
        if call.usage.responses and not call.sidebands:
            call.timeline.record("usage", call.usage.title, usage=call.usage.to_api())

    def _follow(self, kind: str, event: dict[str, Any]) -> None:
        """Note what a relayed call's timeline has too, under the same kinds."""
        record, item_id = self._call.timeline.record, event.get("item_id")
        match kind:
            case "conversation.item.input_audio_transcription.completed":
                record("heard", str(event.get("transcript")), item_id=item_id, upstream=self._call.upstream)
            case "response.output_audio_transcript.done":
                record("said", str(event.get("transcript")), response_id=event.get("response_id"))
            case "response.function_call_arguments.done":
                record("tool_call", f"{event.get('name')}({event.get('arguments')})")
            case "response.done":
                response = _object(event.get("response"))
                self._call.usage.add(_object(response.get("usage")))
                total = self._call.usage.to_api()
                record("response", str(response.get("status")), response_id=response.get("id"), usage=total)
            case "error":
                error = _object(event.get("error"))
                record("error", f"upstream: {error.get('message')}", code=error.get("code"))


class HostedCalls:
    """
    The hosted calls that were seen lately, for each project apart.

    Past the limit those are forgotten first that nothing worked on, then those without a sideband, the oldest first.
    """

    def __init__(self, clock: Clock, *, per_project: int = KEPT_PER_PROJECT) -> None:
        self._clock = clock
        self._per_project = per_project
        self._calls: dict[str, dict[str, HostedCall]] = {}

    def find(self, project_id: str | None, call_id: str) -> HostedCall | None:
        """Return the record of one project's, or the first one's that has any."""
        of_projects = self._calls.values() if project_id is None else [self._calls.get(project_id, {})]
        return next((calls[call_id] for calls in of_projects if call_id in calls), None)

    def see(self, project_id: str, call_id: str, upstream: str) -> HostedCall:
        """Return the record of a call, made when this is the first that is seen of it."""
        calls = self._calls.setdefault(project_id, {})
        if (call := calls.get(call_id)) is None:
            if len(calls) >= self._per_project:
                del calls[_first_to_go(calls)]
            call = calls[call_id] = HostedCall(project_id, call_id, upstream, self._clock)
        return call

    def list(self, project_id: str | None) -> list[HostedCall]:
        """Return the project's hosted calls, newest first, or those of all projects."""
        of_projects = self._calls.values() if project_id is None else [self._calls.get(project_id, {})]
        return [call for calls in of_projects for call in reversed(calls.values())]


def _first_to_go(calls: Mapping[str, HostedCall]) -> str:
    def weight(call: HostedCall) -> tuple[bool, bool]:
        return bool(call.sidebands), call.state is not HostedState.UNKNOWN

    # `min` returns the first of equals, and the first is the oldest.
    return min(calls.values(), key=weight).id


def _count(counter: Counter[str], kind: str) -> None:
    counter[kind if kind in counter or len(counter) < MAX_TYPES else "(other)"] += 1


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
