"""Ways to peers as the stack sees them: a flow that is known at once, or one that the driver has to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .flow import Flow
from .own_addresses import OwnAddresses
from .responses import DEFAULT_PORTS
from .route import Attempt, Hop, Plan, Target, Way

__all__ = ["REACH_TIMEOUT", "Found", "Reach", "Ways"]

REACH_TIMEOUT = 8.0
"Seconds in all for finding a way to a peer, over every hop and target."

Found = Callable[[Way, float], None]
"Gets the way and the time."


@dataclass(frozen=True, slots=True)
class Reach:
    """Find a flow to the first target of these hops that works, then call `Stack.reached` with this key."""

    key: int
    hops: tuple[Hop, ...]
    peer: str
    "The address that the hops were named by, for `route.refusal`."
    tls_hostname: str = ""
    "What a certificate must show when a hop names a bare address; empty: that address."
    tried: frozenset[Target] = frozenset()
    "Targets that failed this request already."
    timeout: float = REACH_TIMEOUT


class Ways:
    """Searches that are under way. `emit` gets each `Reach` for the driver."""

    def __init__(self, addresses: OwnAddresses, emit: Callable[[Reach], None]) -> None:
        self._addresses = addresses
        self._emit = emit
        self._number = 0
        self._pending: dict[int, Found] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def find(
        self,
        plan: Plan,
        near: Flow | None,
        found: Found,
        *,
        now: float,
        tls_hostname: str = "",
        tried: frozenset[Target] = frozenset(),
        timeout: float = REACH_TIMEOUT,
    ) -> None:
        """
        Call `found`: at once where nothing needs resolving or connecting, else when the driver has answered.

        `near` is the flow of the INVITE, whose sender named the hops.
        """
        if plan.flow is not None:
            found(Way(plan.flow), now)
        elif not plan.hops:
            found(Way(None, (Attempt("no hop", "", plan.text),)), now)
        elif not tried and (flow := self._addresses.direct_flow(plan.hops[0], near)) is not None:
            hop = plan.hops[0]
            target = Target("udp", hop.host, hop.port or DEFAULT_PORTS["udp"], hop.host)
            found(Way(flow, (), hop.rule, frozenset((target,)), len(plan.hops) > 1), now)
        else:
            self._number += 1
            self._pending[self._number] = found
            peer = near.remote[0] if near else ""
            self._emit(Reach(self._number, plan.hops, peer, tls_hostname, tried, timeout))

    def reached(self, key: int, way: Way, *, now: float) -> None:
        """Take the driver's answer to a `Reach`."""
        if found := self._pending.pop(key, None):
            found(way, now)
