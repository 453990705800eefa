"""`/calls`: finding calls, and one call's page with all that happened to it."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook import ids
from offhook.calls.errors import CallError
from offhook.calls.past import CallQuery
from offhook.calls.verdict import Story, judge

from ..call_directory import CallDirectory, CallPage
from ..explaining import capture_response
from ..services import ServerServices
from . import call_view
from .logins import Login
from .playback import Playback
from .sequence import LANES, ROW_PX, number_of, sequence
from .shell import HEADERS, LongResponse, NavItem, Shell, list_link

__all__ = ["Calls"]

PAGE = 50
STATES = (*call_view.LIVE, "ended")


class Calls:
    def __init__(self, shell: Shell, services: ServerServices, directory: CallDirectory) -> None:
        self._shell = shell
        self._clock = services.clock
        self._directory = directory
        self._playback = Playback(shell, services.recordings)
        shell.nav.append(NavItem("/calls", "Calls"))
        shell.page("/calls", self.search)
        shell.page("/calls/{call_id}", self.show)
        shell.page("/calls/{call_id}/json", self.as_json)
        shell.page("/calls/{call_id}/pcap", self.as_pcap)
        shell.page("/calls/{call_id}/entries/{number}", self.show_entry)

    async def search(self, request: Request, login: Login) -> Response:
        wanted = Wanted.read(request.query_params)
        after = request.query_params.get("after") or None
        if wanted.text.startswith("rtc_") and await self._exists(wanted.text):
            return RedirectResponse(f"/calls/{quote(wanted.text, safe='')}", 303, headers=HEADERS)
        found = CallPage([], has_more=False)
        if not wanted.faults:
            found = await self._find(wanted, after)
        now = self._clock.wall()
        return await self._shell.render(
            request,
            login,
            "calls.html",
            wanted=wanted,
            after=after,
            states=STATES,
            lines=[call_view.call_line(call, now) for call in found.calls],
            has_more=found.has_more,
            incomplete=found.incomplete,
            older=wanted.link(after=found.calls[-1]["id"]) if found.calls else "",
        )

    async def show(self, request: Request, login: Login) -> Response:
        call_id = request.path_params["call_id"]
        call = await self._directory.describe(None, call_id)
        timeline = await self._directory.timeline(None, call_id)
        refers = await self._directory.refers(None, call_id)
        playing = await self._playback.of(call_id, timeline)
        params = request.query_params
        story = await asyncio.to_thread(_story, call, timeline, "detail" in params, "all" in params)
        return await self._shell.render(
            request,
            login,
            "call.html",
            call=call,
            timeline=timeline,
            refers=refers,
            line=call_view.call_line(call, self._clock.wall()),
            lanes=LANES,
            row=ROW_PX,
            detailed="detail" in params,
            asked=[name for name in ("all", "detail") if name in params],
            turn_parts=call_view.TURN_PARTS,
            playing=playing,
            style_nonce=ids.sip_token(16) if playing else "",
            **story,
        )

    async def show_entry(self, request: Request, login: Login) -> Response:
        """Show one entry of a timeline: for a SIP message, the message as it was sent."""
        call_id, number = request.path_params["call_id"], request.path_params["number"]
        timeline = await self._directory.timeline(None, call_id)
        found = await asyncio.to_thread(_step, timeline["data"], number)
        if found is None:
            raise CallError(404, f"The timeline of {call_id} has no entry {number[:20]}.")
        return await self._shell.render(request, login, "entry.html", call_id=call_id, **found)

    async def as_json(self, request: Request, login: Login) -> Response:
        """Return what the page was made of, as the API gives it to the project's key."""
        call_id = request.path_params["call_id"]
        body = {
            "call": await self._directory.describe(None, call_id),
            "timeline": await self._directory.timeline(None, call_id),
            "refers": await self._directory.refers(None, call_id),
            "verdict": await self._directory.verdict(None, call_id),
        }
        content = await asyncio.to_thread(orjson.dumps, body, str, orjson.OPT_INDENT_2)
        return LongResponse(content, media_type="application/json", headers=HEADERS)

    async def as_pcap(self, request: Request, login: Login) -> Response:
        call_id = request.path_params["call_id"]
        response = await capture_response(call_id, await self._directory.timeline(None, call_id))
        response.headers.update(HEADERS)
        return response

    async def _exists(self, call_id: str) -> bool:
        try:
            await self._directory.describe(None, call_id)
        except CallError:
            return False
        return True

    async def _find(self, wanted: Wanted, after: str | None) -> CallPage:
        """Look for the text as an id of the caller's side first, since those are exact, then as part of a number."""
        if wanted.text and after is None:
            by_id = wanted.query()
            for query in (
                replace(by_id, sip_call_id=wanted.text),
                replace(by_id, carrier_call_id=wanted.text),
            ):
                if (found := await self._directory.page(query, after=None, limit=PAGE)).calls:
                    return found
        query = replace(wanted.query(), number=_number(wanted.text) or None)
        return await self._directory.page(query, after=after, limit=PAGE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the search form says."""

    text: str
    state: str
    since: str
    until: str
    faults: tuple[str, ...] = ()

    @classmethod
    def read(cls, params: QueryParams) -> Wanted:
        text, state, since, until = (
            params.get(name, "").strip() for name in ("q", "state", "since", "until")
        )
        faults = [
            f"{title}: {value!r} is no date and time; write it like 2026-01-31T14:30."
            for title, value in (("Since", since), ("Until", until))
            if value and _moment(value) is None
        ]
        if state and state not in STATES:
            faults.append(f"State: {state!r} is none; there are {', '.join(STATES)}.")
        return cls(text[:300], state, since, until, tuple(faults))

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.state or self.since or self.until)

    def query(self) -> CallQuery:
        return CallQuery(
            state=self.state or None, created_after=_moment(self.since), created_before=_moment(self.until)
        )

    def link(self, **more: str) -> str:
        """Return the address of this search."""
        fields = {"q": self.text, "state": self.state, "since": self.since, "until": self.until}
        return list_link("/calls", {**fields, **more})


def _moment(text: str) -> float | None:
    """Read a time in UTC, as a field of the type `datetime-local` sends it."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _number(text: str) -> str:
    """Return a number as headers have it, without what people write between its digits; other text as it is."""
    bare = re.sub(r"[\s().\-/]", "", text)
    return bare if re.fullmatch(r"\+?\d+", bare) else text


def _step(entries: Sequence[Mapping[str, Any]], wanted: str) -> dict[str, Any] | None:
    """Return an entry by its number, with its neighbours' numbers."""
    numbers = [number_of(entry, place) for place, entry in enumerate(entries)]
    place = next((place for place, number in enumerate(numbers) if str(number) == wanted), None)
    if place is None:
        return None
    return {
        "number": numbers[place],
        "place": place,
        "entry": entries[place],
        "previous": numbers[place - 1] if place else None,
        "next": numbers[place + 1] if place + 1 < len(numbers) else None,
        "count": len(entries),
    }


def _story(
    call: Mapping[str, Any], timeline: Mapping[str, Any], detailed: bool, whole: bool
) -> dict[str, Any]:
    """Work out what takes a while for a long call."""
    verdict = judge(Story.of(call, timeline)).to_api()
    return {
        "verdict": call_view.verdict_view(verdict, timeline),
        "ladder": sequence(
            timeline,
            hosted=bool(call.get("hosted")),
            detailed=detailed,
            whole=whole,
            evidence=verdict["evidence"],
        ),
        "transcript": call_view.transcript(timeline),
        "turns": call_view.turns(timeline),
        "webhooks": call_view.webhook_attempts(timeline),
        "heading": call_view.title(call),
    }
