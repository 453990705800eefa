"""What a form leaves for the page it leads to, to be told once: a key that was made, what a sample was answered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from .logins import Login

__all__ = ["Handovers"]

KEPT_S = 60.0
"A browser follows at once."
MAX_KEPT = 100


class Handovers:
    """
    Keeps things in memory until they are taken, a minute at most. `new_token` gives random text.

    So reloading a page neither sends its form again nor shows a key again. Only the login that left something takes it.
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._kept: OrderedDict[str, tuple[float, str, Mapping[str, Any]]] = OrderedDict()

    def leave(self, login: Login, things: Mapping[str, Any], now: float) -> str:
        """Return the token that they are taken by."""
        self._forget(now)
        token = self._new_token()
        self._kept[token] = (now + KEPT_S, login.nonce, things)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return token

    def take(self, login: Login, token: str, now: float) -> Mapping[str, Any] | None:
        """Return what was left, the first time; `None` where there is nothing any more."""
        self._forget(now)
        _, nonce, _ = self._kept.get(token, (0.0, "", None))
        if nonce != login.nonce:
            return None
        return self._kept.pop(token)[2]

    def _forget(self, now: float) -> None:
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
