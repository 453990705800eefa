"""The sources that were turned away, one entry each, with the line of configuration that would admit them. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Reason", "RefusedSource", "RefusedSources"]

Reason = Literal[
    "not_listed",
    "no_credentials",
    "wrong_credentials",
    "unknown_project",
    "too_many_requests",
    "too_many_connections",
]

MAX_CALLED = 64
"Characters of what a peer called that are kept."


@dataclass(slots=True)
class RefusedSource:
    """A peer that did not get in. Times are Unix seconds."""

    address: str
    first_at: float
    last_at: float
    reason: Reason = "not_listed"
    "The latest one."
    reasons: dict[Reason, int] = field(default_factory=dict)
    "How often for which."
    called: str = ""
    "The user, or the host without one, of the Request-URI of the last INVITE that was for no project."
    by_host: bool = False
    "Whether `called` is a host."
    user: str = ""
    "The name that the last credentials were for, wrong or right."

    @property
    def count(self) -> int:
        return sum(self.reasons.values())

    @property
    def _sources(self) -> str:
        return f'sources = ["{self.address}/{128 if ":" in self.address else 32}"]'

    @property
    def _called(self) -> str:
        return f'{"hosts" if self.by_host else "numbers"} = ["{self.called}"]'

    @property
    def remedy(self) -> str:
        """The line that would admit it."""
        source = f"[[projects.trunks]] {self._sources}"
        match self.reason:
            case "unknown_project":
                if self.user:
                    return f'{self._called} in the project whose trunk has digest_user = "{self.user}"'
                return f"{self._called} in the project that shall answer, with {source}"
            case "wrong_credentials":
                return f'[[projects.trunks]] digest_user = "{self.user}" with the digest_password that the peer has'
            case "no_credentials":
                return f"{source}, or at the peer the digest_user and digest_password of a trunk"
            case "too_many_connections":
                return "none: the peer must close connections that it does not use"
            case _:
                return source

    @property
    def config(self) -> str:
        """The same as lines to paste into the configuration; empty where none would admit it."""
        trunk = f"[[projects.trunks]]\n{self._sources}"
        match self.reason:
            case "unknown_project":
                return self._called if self.user else f"{self._called}\n{trunk}"
            case "wrong_credentials":
                return f'[[projects.trunks]]\ndigest_user = "{self.user}"\ndigest_password_env = "TRUNK_PASSWORD"'
            case "too_many_connections":
                return ""
            case _:
                return trunk

    def describe(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "object": "realtime.refused_source",
            "address": self.address,
            "count": self.count,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "reason": self.reason,
            "reasons": dict(self.reasons),
            "called": self.called or None,
            "remedy": self.remedy,
            "config": self.config,
        }


class RefusedSources:
    """One entry for each source that was refused, however often it tries. Bounded: the oldest is forgotten."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._sources: OrderedDict[str, RefusedSource] = OrderedDict()

    def add(
        self,
        address: str,
        now: float,
        reason: Reason = "not_listed",
        *,
        called: str = "",
        by_host: bool = False,
        user: str = "",
    ) -> RefusedSource | None:
        """Count a refusal. Return the entry when it is worth a log line: the 1st, 10th, 100th ... time."""
        entry = self._sources.get(address)
        if entry is None:
            if len(self._sources) >= self._limit:
                self._sources.popitem(last=False)
            entry = self._sources[address] = RefusedSource(address, now, now)
        else:
            self._sources.move_to_end(address)
        entry.reason, entry.last_at = reason, now
        if called := _plain(called):
            entry.called, entry.by_host = called, by_host
        if reason in ("wrong_credentials", "unknown_project"):
            entry.user = _plain(user)
        count = entry.reasons[reason] = entry.reasons.get(reason, 0) + 1
        return entry if str(count).strip("0") == "1" else None

    def withdraw(self, address: str, reason: Reason) -> None:
        """Take back what was counted for a reason: the peer has made up for it."""
        entry = self._sources.get(address)
        if entry is None:
            return
        entry.reasons.pop(reason, None)
        if not entry.reasons:
            del self._sources[address]

    def all(self) -> list[RefusedSource]:
        """Return the entries, the one that tried last at the end."""
        return list(self._sources.values())


def _plain(text: str) -> str:
    """What a peer wrote goes into a log line, a terminal and a line to copy."""
    return "".join(char for char in text if char.isprintable() and char not in '"\\')[:MAX_CALLED]
