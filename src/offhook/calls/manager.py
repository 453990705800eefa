"""All calls of this node: admits INVITEs, finds calls by id, drains."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from offhook import ids
from offhook.media import negotiate
from offhook.sip.credentials import Credentials
from offhook.sip.leg import Leg
from offhook.sip.offers import has_sdp
from offhook.tenants import Project, Projects, Trunk

from .admission import Admission, Capacity, Refusal, Unanswered
from .call import Call
from .errors import call_not_found
from .gate import TrunkGate
from .media import fault_of, offer_of, srtp_terms
from .refused import RefusedSource
from .seats import Seat, Seats
from .services import CallServices

__all__ = ["CallManager"]

log = logging.getLogger("offhook.calls")

KEPT_AFTER_END = 1_000
"Ended calls whose timelines can still be asked for; some 20 kB each. As many again that were turned away."


class CallManager:
    """The table of calls. `on_invite` and `gate` are what a SIP endpoint is given."""

    def __init__(self, *, node: str, projects: Projects, services: CallServices, max_calls: int) -> None:
        self._node = node
        self._projects = projects
        self._services = services
        self._max_calls = max_calls
        self._admission = Admission(projects)
        self._seats = Seats(services.ports, services.engines)
        self._live: dict[str, Call] = {}
        self._per_project: Counter[str] = Counter()
        self._ended: OrderedDict[str, Call] = OrderedDict()
        self._turned_away: OrderedDict[str, Call] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()
        self._unanswered: Unanswered[Call] = Unanswered(lambda call: call.state in ("ringing", "accepted"))
        self.gate = TrunkGate(
            projects, services.clock, secret=ids.sip_token(32).encode(), new_token=ids.sip_token
        )
        "Who gets in."
        self.draining = False

    # For the SIP endpoint.

    def on_invite(self, leg: Leg) -> None:
        """Make a call of an INVITE, or refuse it with the reason. Only one that is for no project leaves no call."""
        project = self._find_project(leg)
        if isinstance(project, Refusal):
            leg.refuse(project.status, headers=project.headers())
            return
        assert leg.flow is not None
        if (
            trunk := leg.peer
            if isinstance(leg.peer, Trunk)
            else self._projects.trunk_at(project, _source_of(leg))
        ):
            leg.tls_hostname = trunk.tls_hostname
            if (register := trunk.register) is not None:
                leg.credentials = Credentials(register.auth_user or register.user, register.password)
        admitted = self._admit(leg, project)
        if isinstance(admitted, Refusal):
            self._make_call(project, leg, None, None, self._call_turned_away).turn_away(admitted)
            _log_refusal(leg, admitted)
            return
        leg.read_waiting()  # a CANCEL of its own is told of later, and finds the call
        call = self._make_call(project, leg, *admitted, self._call_ended)
        self._live[call.id] = call
        self._unanswered.add(call, _source_of(leg))
        self._per_project[project.id] += 1
        self._idle.clear()
        call.start()

    # For the rooms above.

    def find(self, project_id: str | None, call_id: str) -> Call:
        """Return a project's call that lives or has lately ended, or anybody's. Raises `CallError` 404 otherwise."""
        call = self._live.get(call_id) or self._ended.get(call_id) or self._turned_away.get(call_id)
        if call is None or project_id not in (None, call.project.id):
            raise call_not_found()
        return call

    def owns(self, call_id: str) -> bool:
        """Whether a call is or was this node's, of whatever project; also when it has been forgotten."""
        known = call_id in self._live or call_id in self._ended or call_id in self._turned_away
        return known or ids.is_call_id(call_id, self._node)

    def refused_sources(self, project_id: str | None) -> list[RefusedSource]:
        """
        Return who was turned away, the latest first, as far as this project may know of it.

        A source that some project lists is shown to the projects that list it. One that nobody lists is the
        operator's affair: it is shown where there is but one project, or for `None`, and stands in the log in any case.
        """
        if project_id is None:
            return self.gate.refused.all()[::-1]
        projects, project = self._projects, self._projects.by_id(project_id)
        if project is None:
            return []
        is_alone = projects.is_alone(project)
        return [
            entry
            for entry in reversed(self.gate.refused.all())
            if is_alone or projects.trunk_at(project, entry.address) is not None
        ]

    def list(self, project_id: str | None) -> list[Call]:
        """Return the project's calls, or all, newest first, with those that ended or were turned away lately."""
        calls = [*self._live.values(), *self._ended.values(), *self._turned_away.values()]
        return sorted(
            (call for call in calls if project_id in (None, call.project.id)),
            key=lambda call: call.created_at,
            reverse=True,
        )

    def capacity(self) -> dict[str, Any]:
        """Return how much of the node is taken, for the operator."""
        ports = self._services.ports
        return {
            "calls": {"live": len(self._live), "max": self._max_calls, "projects": dict(+self._per_project)},
            "ports": {"free": ports.free, "total": ports.total},
            "draining": self.draining,
        }

    @property
    def live(self) -> int:
        return len(self._live)

    def states(self) -> Counter[str]:
        """Return how many calls that are not over are in which state."""
        return Counter(call.state.value for call in self._live.values())

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
        # Those too that ended by themselves a moment ago: their sidebands have not heard everything yet.
        for call in {*ending, *self._ended.values()}:
            await call.wait_closed()

    def _find_project(self, leg: Leg) -> Project | Refusal:
        uri, source = leg.invite.request_uri, _source_of(leg)
        proven = leg.peer if isinstance(leg.peer, Trunk) else None
        found = self._admission.find_project(uri.user, uri.host, source, proven)
        if isinstance(found, Refusal):
            self.gate.refuse(
                source,
                "unknown_project",
                called=uri.host if uri.user is None else uri.user,
                by_host=uri.user is None,
                user=proven.digest.user if proven is not None and proven.digest is not None else "",
            )
        return found

    def _admit(self, leg: Leg, project: Project) -> tuple[negotiate.Judgement | None, Seat] | Refusal:
        """Return what the INVITE's offer leads to and what is held for the call, or why the phone shall not ring."""
        offer = self._judge(leg, project)
        if isinstance(offer, Refusal):
            return offer
        # Last: whoever is refused for another reason holds nothing.
        seat = self._seats.take(project)
        return seat if isinstance(seat, Refusal) else (offer, seat)

    def _judge(self, leg: Leg, project: Project) -> negotiate.Judgement | Refusal | None:
        """Say what the INVITE's offer leads to (`None`: it has none), or why the phone shall not ring."""
        settings, source = self._services.settings, _source_of(leg)
        limit = settings.max_unanswered or self._max_calls
        source_limit = settings.max_unanswered_per_source or limit
        refusal = self._admission.check_capacity(
            project,
            Capacity(
                calls=len(self._live),
                max_calls=self._max_calls,
                project_calls=self._per_project[project.id],
                free_ports=self._services.ports.free,
                draining=self.draining,
                engine_ready=self._services.engines.ready,
                unanswered=self._unanswered.of_node(limit),
                max_unanswered=limit,
                source_unanswered=self._unanswered.of_source(source, source_limit),
                max_source_unanswered=source_limit,
            ),
        )
        if refusal is not None:
            return refusal
        if not has_sdp(leg.invite):
            return None
        try:
            return negotiate.judge(offer_of(leg.invite), self._before_port(project, source))
        except negotiate.NotAcceptable as error:
            return Refusal(488, str(error), fault=fault_of(error))

    def _make_call(
        self,
        project: Project,
        leg: Leg,
        offer: negotiate.Judgement | None,
        seat: Seat | None,
        on_ended: Callable[[Call], None],
    ) -> Call:
        call = Call(
            ids.call_id(self._node), project, leg, self._services, offer=offer, seat=seat, on_ended=on_ended
        )
        call.timeline.record(
            "call", f"INVITE for {leg.invite.uri}", project=project.id, sip_call_id=leg.call_id
        )
        return call

    def _before_port(self, project: Project, source: str) -> negotiate.LocalMedia:
        """What we bring to an offer that is judged before anybody is told of the call; its port is bound on accept."""
        settings = self._services.settings
        return negotiate.LocalMedia(
            host=settings.media_host,
            port=9,
            session_id=1,
            session_version=1,
            signalling_host=source,
            own_ports=settings.media_ports,
            srtp=srtp_terms(project.srtp),
        )

    def _call_ended(self, call: Call) -> None:
        self._live.pop(call.id, None)
        self._unanswered.discard(call, _source_of(call.leg))
        self._per_project[call.project.id] -= 1
        _keep(self._ended, call)
        if not self._live:
            self._idle.set()

    def _call_turned_away(self, call: Call) -> None:
        # Apart from the others: a trunk that calls a full node must not push the story of real calls out.
        _keep(self._turned_away, call)


def _source_of(leg: Leg) -> str:
    assert leg.flow is not None
    return leg.flow.remote[0]


def _keep(calls: OrderedDict[str, Call], call: Call) -> None:
    calls[call.id] = call
    while len(calls) > KEPT_AFTER_END:
        calls.popitem(last=False)


def _log_refusal(leg: Leg, refusal: Refusal) -> None:
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
