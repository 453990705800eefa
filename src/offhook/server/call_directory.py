"""All calls that can be looked at: this process's, those of other services, and those that only the store has."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offhook.calls.errors import CallError, call_not_found
from offhook.calls.hosted import HostedCalls
from offhook.calls.past import CallQuery, CallRow, PastCalls, PastUnavailable, Place
from offhook.calls.verdict import Story, judge

from .errors import unreadable
from .services import ServerServices
from .slowly import slowly

if TYPE_CHECKING:
    from offhook.calls.call import Call
    from offhook.calls.hosted import HostedCall

__all__ = ["CallDirectory", "CallPage"]


@dataclass(frozen=True, slots=True)
class CallPage:
    """Some calls, newest first, each as `GET /v1/realtime/calls/{id}` shows it."""

    calls: list[dict[str, Any]]
    has_more: bool
    incomplete: str = ""
    "Why past calls are missing; empty when none are."

    def to_api(self) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls`."""
        body = {
            "object": "list",
            "data": self.calls,
            "first_id": self.calls[0]["id"] if self.calls else None,
            "last_id": self.calls[-1]["id"] if self.calls else None,
            "has_more": self.has_more,
        }
        return {**body, "incomplete": self.incomplete} if self.incomplete else body


class CallDirectory:
    """
    Finds calls for REST, pages and commands. A project's id of `None` is for the operator, who may see all.

    What lives here, or has lately ended, is asked itself; the store is asked for the rest. Raises `CallError` 404 for
    a call that is unknown or another project's, 503 where the store cannot be read.
    """

    def __init__(self, services: ServerServices) -> None:
        self._calls = services.calls
        self._past: PastCalls = services.past
        self._hosted: HostedCalls | None = services.passthrough.hosted if services.passthrough else None

    async def describe(self, project_id: str | None, call_id: str) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}`."""
        if (call := self._present(project_id, call_id)) is not None:
            return call.describe()
        return (await self._kept(project_id, call_id)).described

    async def timeline(self, project_id: str | None, call_id: str) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}/timeline`."""
        if (call := self._present(project_id, call_id)) is not None:
            return await asyncio.to_thread(call.timeline.freeze())
        await self._kept(project_id, call_id)
        try:
            return await self._past.timeline(call_id)
        except PastUnavailable as error:
            raise unreadable(error) from None

    async def verdict(self, project_id: str | None, call_id: str) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}/verdict`."""
        described = await self.describe(project_id, call_id)
        timeline = await self.timeline(project_id, call_id)
        # A call of an hour has thousands of entries to look through.
        verdict = await asyncio.to_thread(lambda: judge(Story.of(described, timeline)).to_api())
        return {"object": "realtime.call.verdict", "call_id": call_id, **verdict}

    async def refers(self, project_id: str | None, call_id: str) -> list[dict[str, Any]]:
        """Return the call's transfers, from the first."""
        if (call := self._present(project_id, call_id)) is not None:
            return call.refers()
        await self._kept(project_id, call_id)
        try:
            return await self._past.refers(call_id)
        except PastUnavailable as error:
            raise unreadable(error) from None

    async def page(self, query: CallQuery, *, after: str | None, limit: int) -> CallPage:
        """Return a page of the calls that are meant, behind the one with the id `after`. Raises `CallError` 400."""
        place = await self._place_of(query.project_id, after) if after is not None else None
        present = self._all_present(query.project_id)
        known = {call.id for call in present}
        behind = [call for call in present if place is None or _place(call) < place]
        fitting = [call async for call in slowly(behind) if _fits(call, query)]
        newest = heapq.nlargest(limit + 1, fitting, key=_place)
        # The store has the present ones too, so that many of its rows may be no news.
        asked = limit + 1 + len(newest)
        incomplete, rows = "", list[CallRow]()
        try:
            rows = await self._past.list(query, after=place, limit=asked)
        except PastUnavailable as error:
            incomplete = str(error)
        found: list[CallRow | Call | HostedCall] = [
            *newest,
            *(row for row in rows if row.place[1] not in known),
        ]
        found.sort(key=_place, reverse=True)
        described = [
            one.described if isinstance(one, CallRow) else one.describe()
            async for one in slowly(found[:limit])
        ]
        return CallPage(
            described,
            has_more=len(found) > limit or len(rows) == asked,
            incomplete=incomplete,
        )

    def _present(self, project_id: str | None, call_id: str) -> Call | HostedCall | None:
        if self._hosted is not None and (hosted := self._hosted.find(project_id, call_id)):
            return hosted
        try:
            return self._calls.find(project_id, call_id)
        except CallError:
            return None

    def _all_present(self, project_id: str | None) -> list[Call | HostedCall]:
        hosted = self._hosted.list(project_id) if self._hosted is not None else []
        return [*self._calls.list(project_id), *hosted]

    async def _kept(self, project_id: str | None, call_id: str) -> CallRow:
        try:
            found = await self._past.find(project_id, call_id)
        except PastUnavailable as error:
            raise unreadable(error) from None
        if found is None:
            raise call_not_found()
        return found

    async def _place_of(self, project_id: str | None, call_id: str) -> Place:
        if (call := self._present(project_id, call_id)) is not None:
            return _place(call)
        try:
            return (await self._kept(project_id, call_id)).place
        except CallError as error:
            if error.status != 404:
                raise
            raise CallError(
                400,
                "Invalid value for 'after': no such call in this list.",
                code="invalid_value",
                param="after",
            ) from None


def _place(call: CallRow | Call | HostedCall) -> Place:
    return call.place if isinstance(call, CallRow) else (call.created_at, call.id)


def _fits(call: Call | HostedCall, query: CallQuery) -> bool:
    if (
        (query.state is not None and call.state != query.state)
        or (query.created_after is not None and call.created_at <= query.created_after)
        or (query.created_before is not None and call.created_at >= query.created_before)
    ):
        return False
    if query.sip_call_id is query.carrier_call_id is query.number is None:
        return True
    shown = call.describe()
    if query.sip_call_id is not None and shown.get("sip_call_id") != query.sip_call_id:
        return False
    if query.carrier_call_id is not None and shown.get("carrier_call_id") != query.carrier_call_id:
        return False
    number = (query.number or "").lower()
    named = (str(shown.get(name) or "").lower() for name in ("from", "to", "request_uri"))
    return query.number is None or any(number in text for text in named)
