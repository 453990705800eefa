"""All calls of this node: admits INVITEs, finds calls by id, drains."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict

from offhook import ids
from offhook.media import negotiate
from offhook.sip.flow import Flow
from offhook.sip.leg import Leg
from offhook.tenants import Project, Projects

from .admission import Admission, Capacity, Refusal, RefusedSources
from .call import Call, offer_of
from .errors import call_not_found
from .services import CallServices

__all__ = ["CallManager"]

log = logging.getLogger("offhook.calls")

KEPT_AFTER_END = 1_000
"Ended calls whose timelines can still be asked for; some 20 kB each."


class CallManager:
    """The table of calls. `on_invite` and `admits` are what a SIP endpoint is given."""

    def __init__(self, *, node: str, projects: Projects, services: CallServices, max_calls: int) -> None:
        self._node = node
        self._projects = projects
        self._services = services
        self._max_calls = max_calls
        self._admission = Admission(projects)
        self._live: dict[str, Call] = {}
        self._per_project: Counter[str] = Counter()
        self._ended: OrderedDict[str, Call] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()
        self.refused_sources = RefusedSources()
        self.draining = False

    # For the SIP endpoint.

    def admits(self, flow: Flow) -> bool:
        """Whether anything from this peer is read at all (decision 11)."""
        address = flow.remote[0]
        if self._projects.lists_source(address):
            return True
        if entry := self.refused_sources.add(address, self._services.clock.monotonic()):
            log.warning(
                "refused %s: no project lists it as a source; to admit it: %s",
                address,
                entry.remedy,
                extra={"event": "sip.source.refused", "source": address, "count": entry.count},
            )
        return False

    def on_invite(self, leg: Leg) -> None:
        """Make a call of an INVITE, or refuse it with the reason."""
        admitted = self._admit(leg)
        if isinstance(admitted, Refusal):
            self._refuse(leg, admitted)
            return
        try:
            offer = negotiate.answer(offer_of(leg.invite), self._probe())
        except negotiate.NotAcceptable as error:
            self._refuse(leg, Refusal(488, str(error)))
            return
        call = Call(
            ids.call_id(self._node),
            admitted,
            leg,
            self._services,
            offer=offer.plan,
            on_ended=self._call_ended,
        )
        self._live[call.id] = call
        self._per_project[admitted.id] += 1
        self._idle.clear()
        call.timeline.record(
            "call", f"INVITE for {leg.invite.uri}", project=admitted.id, sip_call_id=leg.call_id
        )
        call.start()

    # For the rooms above.

    def find(self, project_id: str, call_id: str) -> Call:
        """Return a call that lives or has lately ended. Raises `CallError` 404 for all others."""
        call = self._live.get(call_id) or self._ended.get(call_id)
        if call is None or call.project.id != project_id:
            raise call_not_found()
        return call

    def list(self, project_id: str) -> list[Call]:
        """Return the project's calls, newest first, ended ones included."""
        calls = [*self._live.values(), *self._ended.values()]
        return sorted(
            (call for call in calls if call.project.id == project_id),
            key=lambda call: call.created_at,
            reverse=True,
        )

    @property
    def live(self) -> int:
        return len(self._live)

    async def close(self, *, grace_s: float) -> None:
        """Take no new calls, wait for the present ones up to `grace_s`, then end them."""
        self.draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "ending %d calls: the node shuts down", len(self._live), extra={"event": "node.drain"}
            )
        ending = list(self._live.values())
        for call in ending:
            call.shut_down()
        for call in ending:
            await call.wait_closed()

    def _admit(self, leg: Leg) -> Project | Refusal:
        assert leg.flow is not None
        uri = leg.invite.request_uri
        project = self._admission.find_project(uri.user, uri.host, leg.flow.remote[0])
        if isinstance(project, Refusal):
            return project
        refusal = self._admission.check_capacity(
            project,
            Capacity(
                calls=len(self._live),
                max_calls=self._max_calls,
                project_calls=self._per_project[project.id],
                free_ports=self._services.ports.free,
                draining=self.draining,
                engine_ready=self._services.engines.ready,
            ),
        )
        return refusal or project

    def _refuse(self, leg: Leg, refusal: Refusal) -> None:
        text = refusal.reason.replace("\\", " ").replace('"', "'")
        headers = [("Reason", f'SIP;cause={refusal.status};text="{text}"')]
        if refusal.retry_after is not None:
            headers.append(("Retry-After", str(refusal.retry_after)))
        leg.refuse(refusal.status, headers=headers)
        log.warning(
            "refused INVITE for %s: %d, %s",
            leg.invite.uri,
            refusal.status,
            refusal.reason,
            extra={
                "event": "sip.invite.refused",
                "status": refusal.status,
                "sip_call_id": leg.call_id,
                "source": leg.flow.remote[0] if leg.flow else None,
            },
        )

    def _probe(self) -> negotiate.LocalMedia:
        """Stand-in for the port that is bound on accept, to judge an offer before anybody is told of the call."""
        settings = self._services.settings
        return negotiate.LocalMedia(
            host=settings.media_host, port=9, session_id=1, session_version=1, own_ports=settings.media_ports
        )

    def _call_ended(self, call: Call) -> None:
        self._live.pop(call.id, None)
        self._per_project[call.project.id] -= 1
        self._ended[call.id] = call
        while len(self._ended) > KEPT_AFTER_END:
            self._ended.popitem(last=False)
        if not self._live:
            self._idle.set()
