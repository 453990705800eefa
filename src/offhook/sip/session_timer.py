"""
Session timers: both sides find out that a call is gone although nobody said BYE (RFC 4028).

A pure object, one for each dialog, either role. Feed it what the dialog agrees on (`answer`, `receive_2xx`) and what
became of its own refreshes (`refused`), then take `outputs()`; `next_timer()` says when to call `handle_timer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .headers import HeaderError, Headers, parse_int, parse_params
from .message import Request, Response

__all__ = [
    "DEFAULT_MIN_SE",
    "Expire",
    "Note",
    "Refresh",
    "SessionExpires",
    "SessionTimer",
    "SessionTimerConfig",
    "is_too_small",
]

DEFAULT_MIN_SE = 90
"What a message without Min-SE means, and the least that the RFC lets anybody ask for."
MAX_ATTEMPTS = 4
"Refreshes sent in one interval; a peer that refuses each one is not asked without end."

Headings = list[tuple[str, str]]
Refresher = Literal["uac", "uas"]


@dataclass(frozen=True, slots=True)
class SessionTimerConfig:
    """What this side wants of session timers."""

    interval: int = 1800
    "Seconds that are asked for where the peer does not ask. 0: no session timers at all."
    min_se: int = DEFAULT_MIN_SE
    "The shortest interval that is taken. Below 90 is for tests alone."
    always: bool = False
    "Refresh calls of peers that know no session timers, too."


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """A Session-Expires value (section 4)."""

    interval: int
    refresher: Refresher | None

    @classmethod
    def of(cls, headers: Headers) -> SessionExpires | None:
        """Return what the headers say; `None` for none, and for one that cannot be read: the call does not need it."""
        value = headers.get("Session-Expires")
        if value is None:
            return None
        seconds, semicolon, rest = value.partition(";")
        try:
            interval = parse_int("Session-Expires", seconds)
            params = parse_params("Session-Expires", rest, value) if semicolon else ()
        except HeaderError:
            return None
        found = next((param for name, param in params if name.lower() == "refresher"), None)
        match (found or "").lower():
            case "uac":
                return cls(interval, "uac")
            case "uas":
                return cls(interval, "uas")
        return cls(interval, None)


@dataclass(frozen=True, slots=True)
class Refresh:
    """Send this method with `SessionTimer.request_headers`; an INVITE with the SDP that stands, unchanged."""

    method: Literal["UPDATE", "INVITE"]


@dataclass(frozen=True, slots=True)
class Expire:
    """Send BYE: `text` says what did not come."""

    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the call's timeline."""

    state: str
    text: str


def is_too_small(request: Request, config: SessionTimerConfig) -> bool:
    """
    Tell whether a request asks for too short a session and must be answered 422.

    Section 9: only where the sender knows session timers. What a proxy asks for in the name of a peer that does not
    know them is not followed when it is too short.
    """
    if not config.interval or request.method not in ("INVITE", "UPDATE"):
        return False
    asked = SessionExpires.of(request.headers)
    return asked is not None and asked.interval < config.min_se and _knows_timers(request, asked)


class SessionTimer:
    """
    The session timer of one dialog.

    `interval` is 0 while none runs. `refreshes` says that this side sends the refreshes, at half of the interval.
    Either side gives up the session `min(32, interval / 3)` seconds before its end (section 10).
    """

    def __init__(self, config: SessionTimerConfig, *, owns_call_id: bool) -> None:
        """`owns_call_id`: this side placed the call, and waits longer than its peer after both asked at once."""
        self.interval = 0
        self.refreshes = False
        self._config = config
        self._owns_call_id = owns_call_id
        self._floor = config.min_se
        self._agreed = False
        self._peer_updates = False
        self._peer_knows = False
        self._attempts = 0
        self._in_flight = False
        self._timers: dict[str, float] = {}
        self._outputs: list[Refresh | Expire | Note] = []

    # What requests and responses have to say.

    def first_headers(self) -> Headings:
        """Return what the INVITE of a call that we place says. Who refreshes is left to the peer (section 7.1)."""
        if not self._config.interval:
            return []
        return [("Session-Expires", str(max(self._config.interval, self._floor))), *self._min_se()]

    def request_headers(self) -> Headings:
        """Return what a re-INVITE or UPDATE of ours says (section 7.4)."""
        if not self.interval or not self._agreed:
            return []
        refresher = "uac" if self.refreshes else "uas"
        return [("Session-Expires", f"{self.interval};refresher={refresher}"), *self._min_se()]

    def answer(self, request: Request, *, now: float) -> Headings:
        """
        Return what our 2xx to an INVITE or UPDATE of the peer's says (section 9), and time the session by it.

        Every such request refreshes the session, whatever it was sent for.
        """
        if not self._config.interval:
            return []
        asked = SessionExpires.of(request.headers)
        self._learn(request.headers, _knows_timers(request, asked))
        interval, refreshes = self._judge(asked)
        was = (self.interval, self.refreshes)
        running = self.interval > 0
        self._start(interval, refreshes, agreed=self._peer_knows or asked is not None, now=now)
        if running and interval:
            self._note("refreshed", f"by the peer's {request.method}")
        if (interval, refreshes) != was:
            self._note_terms()
        if not interval or not self._agreed:
            return []
        headers = [("Session-Expires", f"{interval};refresher={'uas' if refreshes else 'uac'}")]
        # The peer has to know what it agreed to; one that does not know session timers could not read the call at all.
        return [("Require", "timer"), *headers] if self._peer_knows else headers

    def receive_2xx(self, response: Response, *, now: float) -> None:
        """Handle a 2xx to an INVITE or UPDATE of ours, which refreshes the session (section 7.2)."""
        if not self._config.interval:
            return
        given = SessionExpires.of(response.headers)
        self._learn(response.headers, self._peer_knows or given is not None)
        was = (self.interval, self.refreshes)
        running = self.interval > 0
        if given is not None:
            # Less than we said we take: our own part in it stays bounded.
            interval = max(given.interval, self._floor)
            self._start(interval, given.refresher != "uas", agreed=True, now=now)
        elif self.refreshes and not self._agreed if running else self._config.always:
            # Nothing was agreed on before either. PJSIP says `Supported: timer` in a 200 even when it has none.
            self._start(self.interval or self._wanted(), True, agreed=False, now=now)
        else:
            self._start(0, False, agreed=False, now=now)
        if running and self.interval:
            self._note("refreshed", f"by our {response.cseq.method}")
        if (self.interval, self.refreshes) != was:
            self._note_terms()

    def raise_interval(self, response: Response) -> bool:
        """Take the Min-SE of a 422 (section 7.3); `False` when it asks for no more than we offered."""
        least = _min_se_of(response.headers)
        if least <= (self.interval or self._wanted()):
            return False
        self._floor = max(self._floor, least)
        self.interval = max(self.interval, least) if self.interval else 0
        return True

    def refused(self, method: str, response: Response | None, *, now: float, chance: float) -> None:
        """
        Handle that our refresh got no 2xx: the final response, or `None` when it could not be delivered.

        Not for 408, 481 and silence, which end the call. `chance` is from 0 up to 1.
        """
        self._in_flight = False
        if not self.interval or not self.refreshes:
            return
        if self._attempts >= MAX_ATTEMPTS:
            self._rest(now)
            return
        status = response.status if response is not None else 0
        if response is not None and status == 422 and self.raise_interval(response):
            self._note("raised", f"to {self.interval} s: the peer's Min-SE")
            delay = 0.0
        elif method == "UPDATE" and status in (405, 501):
            self._peer_updates = False
            delay = 0.0
        elif status == 491:
            # RFC 3261 section 14.1, in steps of 10 ms.
            delay = 2.1 + round(chance * 1.9, 2) if self._owns_call_id else round(chance * 2.0, 2)
        else:
            delay = self._pause(response)
        self._timers["refresh"] = now + delay

    def stop(self) -> None:
        """Forget everything: the call is over."""
        self.interval = 0
        self._timers.clear()
        self._outputs.clear()

    # Time.

    def next_timer(self) -> float | None:
        return min(self._timers.values(), default=None)

    def handle_timer(self, *, now: float) -> None:
        expiry = self._timers.get("expiry")
        if expiry is not None and now >= expiry:
            self._timers.clear()
            missed = "none of our refreshes was taken" if self.refreshes else "the peer sent no refresh"
            self._outputs.append(Expire(f"session timer expired: {missed} within {self.interval} s"))
            return
        refresh = self._timers.get("refresh")
        if refresh is not None and now >= refresh and not self._in_flight:
            del self._timers["refresh"]
            self._in_flight = True
            self._attempts += 1
            self._outputs.append(Refresh("UPDATE" if self._peer_updates else "INVITE"))

    def outputs(self) -> list[Refresh | Expire | Note]:
        """Take what happened since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # How terms come about.

    def _judge(self, asked: SessionExpires | None) -> tuple[int, bool]:
        """Return interval and whether we refresh, for our answer to a request (section 9, table 2)."""
        running = self.interval > 0
        if asked is not None and asked.interval >= self._config.min_se:
            if not self._peer_knows:
                return asked.interval, True
            if asked.refresher is None:
                # It asked, so it works for it; in the middle of a call nobody changes places.
                return asked.interval, self.refreshes if running else False
            return asked.interval, asked.refresher == "uas"
        if self._peer_knows:
            # We ask, so we work for it.
            return self.interval or self._wanted(), self.refreshes if running else True
        if self._unilateral(running):
            return self.interval or self._wanted(), True
        return 0, False

    def _unilateral(self, running: bool) -> bool:
        """Whether we refresh a session of a peer that knows no session timers."""
        if self._peer_knows:
            return False
        return self.refreshes if running else self._config.always

    def _wanted(self) -> int:
        return max(self._config.interval, self._floor)

    def _min_se(self) -> Headings:
        return [("Min-SE", str(self._floor))] if self._floor != DEFAULT_MIN_SE else []

    def _learn(self, headers: Headers, knows: bool) -> None:
        self._peer_knows = knows
        if "Allow" in headers:
            self._peer_updates = "UPDATE" in headers.values("Allow")
        if "Min-SE" in headers:
            self._floor = max(self._floor, _min_se_of(headers))

    def _start(self, interval: int, refreshes: bool, *, agreed: bool, now: float) -> None:
        self.interval, self.refreshes, self._agreed = interval, refreshes and interval > 0, agreed
        self._timers.clear()
        self._attempts = 0
        self._in_flight = False
        if not interval:
            return
        if refreshes:
            self._timers["refresh"] = now + interval / 2
        if agreed:
            self._timers["expiry"] = now + interval - min(32.0, interval / 3)

    def _rest(self, now: float) -> None:
        """Stop asking in this interval. Where no end was agreed on, every answer was a sign of life."""
        if not self._agreed:
            self._attempts = 0
            self._timers["refresh"] = now + self.interval / 2

    def _pause(self, response: Response | None) -> float:
        """Return how long to wait after any other refusal: what the peer says, else a good part of what is left."""
        said = "" if response is None else response.headers.get("Retry-After") or ""
        try:
            after = parse_int("Retry-After", said.partition(";")[0].partition("(")[0])
        except HeaderError:
            after = 0
        return float(after) if 0 < after <= self.interval / 4 else self.interval / 16

    def _note(self, state: str, text: str) -> None:
        self._outputs.append(Note(state, text))

    def _note_terms(self) -> None:
        if not self.interval:
            self._note("off", "the peer's answer has none")
        elif self.refreshes:
            who = "" if self._agreed else "; the peer knows no session timers"
            self._note(f"{self.interval} s", f"we refresh every {self.interval // 2} s{who}")
        else:
            self._note(f"{self.interval} s", "the peer refreshes")


def _tags(headers: Headers) -> set[str]:
    return {tag.lower() for name in ("Supported", "Require") for tag in headers.values(name)}


def _knows_timers(request: Request, asked: SessionExpires | None) -> bool:
    """Tell whether the sender knows session timers: it says so, or names a refresher, as only one that does can."""
    return "timer" in _tags(request.headers) or (asked is not None and asked.refresher is not None)


def _min_se_of(headers: Headers) -> int:
    """Return the Min-SE (section 5); 90 where there is none that can be read."""
    try:
        return parse_int("Min-SE", (headers.get("Min-SE") or "").partition(";")[0])
    except HeaderError:
        return DEFAULT_MIN_SE
