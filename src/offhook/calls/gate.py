"""
Who may speak to this node at all, and who must first prove who it is (decision 11 of the design). Pure.

A trunk's address, its password, or both admit a call; a source that no trunk lists hears nothing, unless a trunk
is known by its password alone: then every stranger is asked for one, whatever it calls, at no cost but the answer.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from offhook.clock import Clock
from offhook.sip.digest import Account, Challenger
from offhook.sip.flow import Flow
from offhook.sip.gate import SILENCE, Passed, Turned
from offhook.sip.message import Request
from offhook.sip.uri import UriError
from offhook.tenants import DigestAccount, Projects, Trunk, plain_address

from .refused import Reason, RefusedSources

__all__ = ["TokenBuckets", "TrunkGate"]

log = logging.getLogger("offhook.calls")

STRANGER_RATE, STRANGER_BURST = 10.0, 40.0
"Requests a second, and at once, of one source that nobody lists and that has proven nothing."
STRANGERS_RATE, STRANGERS_BURST = 200.0, 400.0
"The same of all of them together."
LINES_RATE, LINES_BURST = 1.0, 100.0
"Lines of the log about refused sources: datagrams may claim to come from anywhere."
KNOWN_FOR = 3600.0
"Seconds for which a source that had the right password has no bucket."
MAX_KEPT = 10_000


class TokenBuckets:
    """A bucket for each source and one for all. Bounded: what was not seen for longest is forgotten, as if full."""

    def __init__(self, *, rate: float, burst: float, rate_of_all: float, burst_of_all: float) -> None:
        self._rate, self._burst = rate, burst
        self._rate_of_all, self._burst_of_all = rate_of_all, burst_of_all
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (burst_of_all, 0.0)

    def take(self, source: str, now: float) -> bool:
        """Whether one more request of that source fits."""
        level = _refilled(self._buckets.pop(source, None), self._rate, self._burst, now)
        of_all = _refilled(self._all, self._rate_of_all, self._burst_of_all, now)
        fits = level >= 1 and of_all >= 1
        self._all = (of_all - fits, now)
        self._buckets[source] = (level - fits, now)
        if len(self._buckets) > MAX_KEPT:
            self._buckets.popitem(last=False)
        return fits


def _refilled(bucket: tuple[float, float] | None, rate: float, burst: float, now: float) -> float:
    return burst if bucket is None else min(burst, bucket[0] + (now - bucket[1]) * rate)


class TrunkGate:
    """What a SIP endpoint asks: `admits` about each source, the `Gate` methods about each request."""

    def __init__(
        self, projects: Projects, clock: Clock, *, secret: bytes, new_token: Callable[[], str]
    ) -> None:
        self.refused = RefusedSources()
        self.refusals: Counter[Reason] = Counter()
        "How often for which reason since the start, also of sources that have been forgotten."
        self._projects = projects
        self._clock = clock
        self._challenger = Challenger(secret=secret, new_token=new_token)
        self._buckets = TokenBuckets(
            rate=STRANGER_RATE,
            burst=STRANGER_BURST,
            rate_of_all=STRANGERS_RATE,
            burst_of_all=STRANGERS_BURST,
        )
        self._lines: tuple[float, float] | None = None
        self._unlogged = 0
        self._proven: OrderedDict[str, float] = OrderedDict()
        "When a source last had the right password."

    # What the endpoint asks.

    def admits(self, flow: Flow) -> bool:
        """Whether anything from this peer is read at all: a datagram, or a connection."""
        address = flow.remote[0]
        if self._projects.lists_source(address):
            return True
        if not self._projects.digest_trunks(address):
            self.refuse(address, "not_listed")
            return False
        return self._has_tokens(address, self._clock.monotonic())

    def is_stranger(self, flow: Flow) -> bool:
        """Whether the peer is heard without being known: it gets few connections."""
        return not self._projects.lists_source(flow.remote[0])

    def explains_to(self, flow: Flow) -> bool:
        return not self.is_stranger(flow)

    def judge(self, request: Request, flow: Flow, *, now: float) -> Passed | Turned:
        address, method = flow.remote[0], request.method
        if self._projects.lists_source(address):
            # An address is enough for all that makes no call; what makes one is judged by its project.
            makes_call = method == "INVITE" and request.to.tag is None
            if not makes_call or self._admits_by_address(request, address):
                return Passed()
        elif not self._is_heard(request, flow, now):
            return SILENCE
        trunks = self._projects.digest_trunks(address)
        return self._challenge(request, address, trunks, now) if trunks else Passed()

    def refuse(
        self, address: str, reason: Reason, *, called: str = "", by_host: bool = False, user: str = ""
    ) -> None:
        """Count a refusal, and log it the 1st, 10th, 100th ... time, as far as the log has room for such lines."""
        self.refusals[reason] += 1
        entry = self.refused.add(
            address, self._clock.wall(), reason, called=called, by_host=by_host, user=user
        )
        # Honest peers are asked for their password at each call, and answer.
        if entry is not None and reason != "no_credentials" and self._has_line():
            unlogged, self._unlogged = self._unlogged, 0
            log.warning(
                "refused %s: %s; to admit it: %s",
                address,
                _WORDS[reason],
                entry.remedy,
                extra={
                    "event": "sip.source.refused",
                    "source": address,
                    "reason": reason,
                    "count": entry.reasons[reason],
                    "unlogged": unlogged,
                },
            )

    def _has_line(self) -> bool:
        now = self._clock.monotonic()
        level = _refilled(self._lines, LINES_RATE, LINES_BURST, now)
        fits = level >= 1
        self._lines = (level - fits, now)
        self._unlogged += not fits
        return fits

    # Passwords.

    def _challenge(
        self, request: Request, address: str, trunks: Sequence[Trunk], now: float
    ) -> Passed | Turned:
        by_account = {_account(trunk.digest): trunk for trunk in trunks if trunk.digest is not None}
        credentials = request.headers.get_all("Authorization")
        verdict = self._challenger.judge(credentials, request.method, by_account, now=now)
        if verdict.outcome == "right" and verdict.account is not None:
            self.refused.withdraw(address, "no_credentials")
            self._remember(address, now)
            return Passed(by_account[verdict.account])
        if verdict.outcome == "wrong":
            self.refuse(address, "wrong_credentials", user=self._challenger.user_of(credentials))
        elif verdict.outcome == "absent":
            self.refuse(address, "no_credentials")
        stale = verdict.outcome == "stale"
        return Turned(401, self._challenger.challenges(by_account, now=now, stale=stale))

    def _admits_by_address(self, request: Request, address: str) -> bool:
        try:
            uri = request.request_uri
        except UriError:
            return False
        project = self._projects.by_request_uri(uri.user, uri.host)
        return project is not None and self._projects.may_call(project, address)

    # Strangers.

    def _is_heard(self, request: Request, flow: Flow, now: float) -> bool:
        """Whether a stranger is asked for a password. Its datagrams were counted before they were read."""
        if request.method not in ("INVITE", "OPTIONS") or request.to.tag is not None:
            return False
        return not flow.is_reliable or self._has_tokens(flow.remote[0], now)

    def _has_tokens(self, address: str, now: float) -> bool:
        proven_at = self._proven.get(address)
        if proven_at is not None and now - proven_at < KNOWN_FOR:
            return True
        if self._buckets.take(_bucket_of(address), now):
            return True
        self.refuse(address, "too_many_requests")
        return False

    def _remember(self, address: str, now: float) -> None:
        self._proven[address] = now
        self._proven.move_to_end(address)
        if len(self._proven) > MAX_KEPT:
            self._proven.popitem(last=False)


_WORDS: dict[Reason, str] = {
    "not_listed": "no project lists it as a source",
    "no_credentials": "it has not answered the digest challenge",
    "wrong_credentials": "its digest user or password is wrong",
    "unknown_project": "what it calls is no project of this source",
    "too_many_requests": "no project lists it as a source, and it sends too much",
    "too_many_connections": "it has too many connections",
}


def _account(digest: DigestAccount) -> Account:
    return Account(digest.user, digest.password, digest.realm, digest.algorithms)


def _bucket_of(address: str) -> str:
    """An IPv6 host has all of a /64 to itself."""
    try:
        ip = ip_address(plain_address(address))
    except ValueError:
        return address
    return f"{int(ip) >> 64:x}::/64" if ip.version == 6 else address
