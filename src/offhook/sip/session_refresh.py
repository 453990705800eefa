"""The session timer of a leg: what it decides becomes requests of the dialog, lines of its trace, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offhook.trace import StateChange

from .events import Refreshed, Replied
from .message import Request, Response
from .session_timer import Expire, Note, Refresh, SessionTimer

if TYPE_CHECKING:
    from .usage import InviteUsage

__all__ = ["SessionRefresh"]

Headings = list[tuple[str, str]]


class SessionRefresh:
    """Joins one `SessionTimer` to its leg, and remembers the SDP that a refresh by re-INVITE repeats."""

    def __init__(self, usage: InviteUsage, timer: SessionTimer) -> None:
        self._usage = usage
        self._timer = timer
        self._sdp = b""
        self._key: int | None = None
        self._method = ""

    def first_headers(self) -> Headings:
        """Return what the INVITE of a call that we place says."""
        timer = self._timer.first_headers()
        return [("Supported", "timer"), *timer] if timer else []

    def request_headers(self, method: str) -> Headings:
        """Return what a request of ours in the dialog says."""
        if not self._usage.stack.config.session.interval:
            return []
        # Section 7.1: in every request.
        headers = [("Supported", "timer")]
        return headers + self._timer.request_headers() if method in ("INVITE", "UPDATE") else headers

    def answer_headers(self, request: Request, body: bytes, *, now: float) -> Headings:
        """Return what our 2xx to an INVITE or UPDATE says. Takes note of its SDP. `rearm` the leg afterwards."""
        self._sdp = body or self._sdp
        headers = self._timer.answer(request, now=now)
        self._drain(now)
        return headers

    def receive_2xx(self, response: Response, sdp: bytes, *, now: float) -> None:
        """Handle a 2xx to an INVITE or UPDATE of ours that had `sdp`. One that comes after the call is too late."""
        if self._usage.state == "ended":
            return
        self._sdp = sdp or self._sdp
        self._timer.receive_2xx(response, now=now)
        self._drain(now)
        self._usage.rearm()

    def raise_interval(self, response: Response) -> Headings:
        """Return what an INVITE says that repeats one refused with 422; nothing when that would not help."""
        return self._timer.first_headers() if self._timer.raise_interval(response) else []

    def receive_reply(self, replied: Replied, *, now: float) -> bool:
        """Take the outcome of a refresh of ours; `False` for any other request's."""
        if replied.key != self._key:
            return False
        self._key = None
        if self._usage.state == "ended":
            return True
        response = replied.response
        if response is not None and response.status < 300:
            if self._method == "INVITE":
                self._usage.emit(Refreshed(self._sdp, response))
        elif response is None and replied.reason == "no answer":
            text = f"session timer expired: no answer to our {self._method}"
            self._usage.expire(text, now=now)
        elif response is None or response.status not in (408, 481):
            said = replied.reason if response is None else f"{response.status} {response.reason}"
            self._note("not refreshed", f"our {self._method}: {said}", now)
            self._timer.refused(self._method, response, now=now, chance=self._chance())
            self._drain(now)
            self._usage.rearm()
        return True

    def next_timer(self) -> float | None:
        return self._timer.next_timer()

    def handle_timer(self, *, now: float) -> None:
        self._timer.handle_timer(now=now)
        self._drain(now)

    def stop(self) -> None:
        self._timer.stop()

    def _drain(self, now: float) -> None:
        for output in self._timer.outputs():
            match output:
                case Note(state, text):
                    self._note(state, text, now)
                case Expire(text):
                    self._usage.expire(text, now=now)
                case Refresh(method):
                    self._refresh(method, now)

    def _refresh(self, method: str, now: float) -> None:
        # Without an SDP of ours there is nothing that an INVITE could repeat.
        self._method = method if self._sdp else "UPDATE"
        body = self._sdp if self._method == "INVITE" else b""
        content_type = "application/sdp" if body else None
        self._key = self._usage.stack.next_key()
        self._usage.request(self._method, now=now, body=body, content_type=content_type, key=self._key)

    def _chance(self) -> float:
        return self._usage.stack.new_number(1000) / 1000

    def _note(self, state: str, text: str, now: float) -> None:
        self._usage.note(StateChange(now, "session timer", state, text))
