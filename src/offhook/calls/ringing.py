"""A phone that rings, until somebody decides or nobody ever will."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from offhook.sip.leg import Leg

from .news import CallNews

__all__ = ["Ringing"]


class Ringing:
    """
    Rings, and tells the app of the call.

    `on_unanswered` is called when nobody will decide, with the cause, and with what the caller's side may know of it;
    not after `end`.
    """

    def __init__(
        self, leg: Leg, news: CallNews, timeout_s: float, on_unanswered: Callable[[str, str], None]
    ) -> None:
        self._leg = leg
        self._news = news
        self._timeout_s = timeout_s
        self._on_unanswered = on_unanswered
        self._timer: asyncio.Handle | None = None

    def begin(self, media_security: str) -> None:
        """Say 180, and tell the app, who may decide before this returns."""
        self._leg.ring(180)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_s, self._timed_out)
        if not self._news.incoming(self._leg.invite.headers, media_security, self._undeliverable):
            # In a turn of its own: what that sets off takes as long as all before, and others' INVITEs wait.
            self._timer.cancel()
            self._timer = loop.call_soon(
                self._on_unanswered, "nobody is subscribed to realtime.call.incoming", ""
            )

    def end(self) -> None:
        """Somebody has decided, or the call is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._news.decided()

    def _timed_out(self) -> None:
        said = f"nobody accepted within {self._timeout_s:g} s"
        self._on_unanswered(f"{said}; {self._news.silence()}", said)

    def _undeliverable(self, why: str) -> None:
        """No endpoint can ever be told (API row W15): do not let it ring in vain."""
        self._on_unanswered(f"realtime.call.incoming cannot be delivered: {why}", "the app cannot be told")
