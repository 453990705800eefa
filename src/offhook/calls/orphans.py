"""
Calls that this node had when it crashed: hung up, closed, and told of (decision 12 of the design).

Who was answered gets BYE; who still heard it ring gets 503, so that the carrier can try elsewhere at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from offhook.clock import Clock
from offhook.sip.events import LegEnded
from offhook.sip.leg import Leg, LegListener
from offhook.sip.reasons import create_reason
from offhook.sip.refer import ReferUpdate
from offhook.sip.snapshot import SnapshotError
from offhook.tenants import Projects

from .admission import Refusal
from .journal import CallTimes, Journal
from .news import CallNews
from .ports import Announcer
from .record import EndReason, Fault, Result, Termination
from .refer_record import cut_off, refer_title
from .timeline import Timeline, TimelineEntry

__all__ = ["CRASHED", "Orphan", "Orphans", "Reviver"]

log = logging.getLogger("offhook.calls")

CRASHED = "the node crashed"
_OF_RESOURCE = frozenset(("call_id", "created_at", "updates", "dropped"))
"What a transfer's resource has and its events do not."


@dataclass(frozen=True, slots=True)
class Orphan:
    """What the journal has of a call that a crash cut off."""

    call_id: str
    described: Mapping[str, Any] | None
    "As `Journal.save` got it last; `None` when that was lost."
    times: CallTimes | None
    snapshot: Mapping[str, Any] | None
    "Of its dialog; `None` when there is nobody to hang up on."
    next_entry: int
    "The number of its timeline's next entry."
    refers: Sequence[Mapping[str, Any]] = ()
    "Its transfers, as `Journal.refer` got them last."
    told: Mapping[str, Any] | None = None
    "How it ended, when that was told by webhook before the crash; it is not told again."


class Reviver(Protocol):
    """The SIP endpoint."""

    def revive(self, snapshot: Mapping[str, Any]) -> Leg:
        """Raises `SnapshotError`."""


class Orphans:
    """Ends each of them, once."""

    def __init__(
        self, *, endpoint: Reviver, projects: Projects, announcer: Announcer, journal: Journal, clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._projects = projects
        self._announcer = announcer
        self._journal = journal
        self._clock = clock

    def end(self, orphans: Iterable[Orphan]) -> Iterator[None]:
        """
        Send what ends them, and close those that are not closed yet; nothing of it raises.

        It is done in short steps, one for each `next`: there may be hundreds, and new calls come already.
        """
        for orphan in orphans:
            timeline = Timeline(orphan.call_id, self._clock, _Keep(self._journal, orphan.next_entry))
            # A record that this version cannot read keeps nobody on the line.
            for step in (self._close, self._hang_up):
                try:
                    step(orphan, timeline)
                except Exception:
                    log.exception(
                        "a call of before the crash could not be ended",
                        extra={"event": "call.orphan.failed", "call_id": orphan.call_id},
                    )
                yield

    def _hang_up(self, orphan: Orphan, timeline: Timeline) -> None:
        if orphan.snapshot is None:
            return
        try:
            leg = self._endpoint.revive(orphan.snapshot)
        except SnapshotError as error:
            timeline.record("call", f"cannot hang up after the crash: {error}")
            self._journal.dialog(orphan.call_id, None)
            return
        leg.listener = _Ending(orphan.call_id, timeline, self._journal)
        leg.trace = timeline.trace
        if leg.state == "confirmed":
            leg.hangup(reason_header=create_reason("Q.850", *EndReason.FAILED.q850))
        else:
            leg.refuse(503, headers=Refusal(503, CRASHED, retry_after=1).headers())

    def _close(self, orphan: Orphan, timeline: Timeline) -> None:
        described, times, told = orphan.described, orphan.times, orphan.told
        is_open = described is not None and described["termination"] is None
        log.warning(
            "ending a call of before the crash",
            extra={"event": "call.orphan", "call_id": orphan.call_id, "was_open": is_open},
        )
        if not is_open or described is None or times is None:
            return
        project = self._projects.by_id(described["project_id"])
        news = CallNews(described["id"], project, self._announcer, timeline, self._clock) if project else None
        briefs = {brief["refer"]: brief for brief in described["refers"]}
        for refer in orphan.refers:
            if resource := cut_off(refer, CRASHED, self._clock.wall()):
                brief = {name: value for name, value in resource.items() if name not in _OF_RESOURCE}
                briefs[brief["refer"]] = brief
                self._journal.refer(resource)
                timeline.record("call", refer_title(brief), **brief)
                if news is not None:
                    news.refer_updated(brief)
        sip_status = 503 if times.answered_at is None else None
        if told is not None:
            termination = {name: value for name, value in told.items() if name != "call_id"}
        else:
            crashed = Fault.NODE_CRASHED
            end = Termination(Result.SERVER_ERROR, EndReason.FAILED, sip_status, CRASHED, crashed)
            timeline.record("call", f"ended: {CRASHED}", **end.details())
            termination = end.to_api()
        # The clock may have been set back.
        now = max(self._clock.wall(), times.answered_at or times.created_at)
        ended = {
            "state": "ended",
            "ended_at": int(now),
            "termination": termination,
            "refers": [*briefs.values()],
        }
        self._journal.save({**described, **ended}, replace(times, ended_at=now))
        if news is not None and told is None:
            news.ended(termination)


class _Keep:
    """Numbers the entries of a timeline on from those of the process that crashed."""

    def __init__(self, journal: Journal, first: int) -> None:
        self._journal = journal
        self._first = first

    def __call__(self, call_id: str, number: int, at: float, entry: TimelineEntry) -> None:
        self._journal.entry(call_id, self._first + number, at, entry)


class _Ending(LegListener):
    """Waits for the end of a call that is being hung up."""

    def __init__(self, call_id: str, timeline: Timeline, journal: Journal) -> None:
        self._call_id = call_id
        self._timeline = timeline
        self._journal = journal

    def leg_cancelled(self, leg: Leg, reason_header: str | None) -> None:
        return

    def leg_confirmed(self, leg: Leg) -> None:
        return

    def leg_refer_updated(self, leg: Leg, update: ReferUpdate) -> None:
        return

    def leg_ended(self, leg: Leg, ended: LegEnded) -> None:
        """It was ended with BYE; the answer to that is on its timeline."""
        return

    def leg_released(self, leg: Leg) -> None:
        leg.listener = None
        self._journal.dialog(self._call_id, None)
