"""
One registration with a registrar (RFC 3261 section 10.2), for numbers whose carrier has no static address of ours.

Pure: feed it responses and failures with `now`, take `outputs()`, call `handle_timer` when `next_timer()` comes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from .digest import Challenge, authorization, find_challenge
from .grammar import split_list
from .headers import HeaderError, Headers, parse_int, parse_name_addr
from .message import Response
from .uri import SipUri, UriError

__all__ = ["Ping", "Registration", "RegistrationConfig", "RegistrationState", "SendRegister", "Status"]

BACKOFF_S = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"Seconds before the next try, by how many have failed in a row; each is shortened at random by up to a half."
MIN_REFRESH_S = 5.0
UDP_PING_S = 25.0
"NATs forget UDP mappings after 30 s (RFC 4787 asks for 120, few obey)."
MAX_CHALLENGES = 2
"Answers to challenges in one try: the second for a nonce that was stale."


class RegistrationState(enum.Enum):
    TRYING = "trying"
    REGISTERED = "registered"
    FAILED = "failed"
    "Not reachable by this registrar; the next try is planned."
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class RegistrationConfig:
    """Who registers where."""

    registrar: str
    "`sip:sip.example.net;transport=tls`, without a user."
    user: str
    "The user part of the address-of-record, and the name that challenges are answered with."
    password: str = field(repr=False)
    contact_user: str
    "The user part of our Contact: what the Request-URI of calls will say."
    expires_s: int = 600
    auth_user: str = ""
    "Instead of `user` in answers to challenges."
    tls_hostname: str = ""
    "What the certificate must show when the registrar is a bare address."

    @property
    def aor(self) -> str:
        """The address-of-record, as From and To name it."""
        uri = SipUri.parse(self.registrar)
        return str(SipUri(uri.scheme, self.user, uri.host, uri.port))

    @property
    def request_uri(self) -> str:
        uri = SipUri.parse(self.registrar)
        return str(SipUri(uri.scheme, None, uri.host, uri.port, uri.params))


@dataclass(frozen=True, slots=True)
class Status:
    """How a registration stands."""

    state: RegistrationState
    text: str
    "In words: until when, or what went wrong."
    expires_at: float | None = None
    "Until when the registrar keeps us, monotonic; `None` when it does not."


@dataclass(frozen=True, slots=True)
class SendRegister:
    """Send a REGISTER with these headers, besides those that name the flow and the sender."""

    cseq: int
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a CRLF by the flow, so that NATs between keep it open."""


class Registration:
    """
    Keeps one Contact registered: refreshes before it expires, answers challenges, tries again after failures.

    A refresh that fails leaves it `REGISTERED` until the registrar forgets it; calls come that long.
    """

    def __init__(
        self, config: RegistrationConfig, *, new_token: Callable[[], str], draw: Callable[[], float]
    ) -> None:
        """`draw` gives numbers from 0 to 1."""
        self.config = config
        self.status = Status(RegistrationState.TRYING, "not tried yet")
        self.expires_s = config.expires_s
        "What is asked for; a registrar's Min-Expires raises it."
        self._new_token = new_token
        self._draw = draw
        self._outputs: list[SendRegister | Ping | Status] = []
        self._timers: dict[str, float] = {}
        self._cseq = 0
        self._challenge: Challenge | None = None
        self._uses = 0
        "How often the nonce of `_challenge` was used."
        self._answers = 0
        self._raised = False
        self._failures = 0
        self._pending = False
        self._pings = False

    # Intents.

    def start(self, *, now: float) -> None:
        """Register now. Also what to do when the flow was lost."""
        if self.status.state in (RegistrationState.ENDING, RegistrationState.ENDED):
            return
        self._answers, self._raised = 0, False
        self._timers.pop("refresh", None)
        self._timers.pop("ping", None)
        self._send(now)

    def end(self, *, now: float) -> None:
        """Have the registrar forget us, if it knows us. `ENDED` follows, after its answer or a failure."""
        if self.status.state in (RegistrationState.ENDING, RegistrationState.ENDED):
            return
        known = self.status.expires_at is not None or self._pending
        self._timers.clear()
        self._answers = 0
        if known:
            self._set(RegistrationState.ENDING, "asking the registrar to forget us", self.status.expires_at)
            self._send(now)
        else:
            self._set(RegistrationState.ENDED, "ended")

    def flow_lost(self, *, now: float) -> None:
        """The connection that we registered by closed: calls cannot come by it, so register by another soon."""
        if self.status.state is RegistrationState.REGISTERED and not self._pending:
            self._failures = 0
            self._timers.pop("ping", None)
            self._timers["refresh"] = now + 0.5 + 0.5 * self._draw()

    # What the network says.

    def receive_response(self, response: Response, *, now: float, contact: str, is_udp: bool) -> None:
        """Handle a final response to the latest REGISTER. `contact` is the Contact that it carried."""
        self._pending = False
        if response.status in (401, 407):
            self._answer_challenge(response, now)
        elif self.status.state is RegistrationState.ENDING:
            self._set(RegistrationState.ENDED, f"{response.status} {response.reason}")
        elif 200 <= response.status < 300:
            self._registered(response, contact, is_udp, now)
        elif response.status == 423 and self._raise_expiry(response):
            self._send(now)
        else:
            self._failed(_describe(response), now, retry_after=_seconds(response.headers, "Retry-After"))

    def request_failed(self, reason: str, *, now: float) -> None:
        """No final response will come."""
        self._pending = False
        if self.status.state is RegistrationState.ENDING:
            self._set(RegistrationState.ENDED, reason)
        else:
            self._failed(reason, now)

    # Time.

    def next_timer(self) -> float | None:
        return min(self._timers.values(), default=None)

    def handle_timer(self, *, now: float) -> None:
        for name in [name for name, at in self._timers.items() if at <= now]:
            del self._timers[name]
            if name == "refresh":
                self.start(now=now)
            elif name == "expiry":
                self._set(RegistrationState.FAILED, f"the registrar forgot us: {self.status.text}")
            else:
                self._outputs.append(Ping())
                self._timers["ping"] = now + UDP_PING_S

    def outputs(self) -> list[SendRegister | Ping | Status]:
        """Take everything that happened since the last call; a `Status` for each change."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # The steps.

    def _send(self, now: float) -> None:
        self._cseq += 1
        self._pending = True
        ending = self.status.state is RegistrationState.ENDING
        headers = [("Expires", "0" if ending else str(self.expires_s))]
        if self._challenge is not None:
            self._uses += 1
            config = self.config
            value = authorization(
                self._challenge,
                user=config.auth_user or config.user,
                password=config.password,
                method="REGISTER",
                uri=config.request_uri,
                cnonce=self._new_token(),
                count=self._uses,
            )
            headers.append((self._challenge.header, value))
        self._outputs.append(SendRegister(self._cseq, tuple(headers)))

    def _answer_challenge(self, response: Response, now: float) -> None:
        challenge = find_challenge(response.status, response.headers.get_all)
        # Credentials for a nonce of an earlier try were sent unasked; a fresh nonce is no refusal of the password.
        refused = self._answers > 0 and not (challenge is not None and challenge.stale)
        if challenge is None:
            fault = f"{_describe(response)}: no challenge that can be answered (Digest with SHA-256 or MD5)"
        elif refused or self._answers >= MAX_CHALLENGES:
            fault = f"{_describe(response)}: the registrar does not take the user's password"
        else:
            self._challenge, self._uses = challenge, 0
            self._answers += 1
            self._send(now)
            return
        self._challenge = None
        if self.status.state is RegistrationState.ENDING:
            self._set(RegistrationState.ENDED, fault)
        else:
            self._failed(fault, now)

    def _registered(self, response: Response, contact: str, is_udp: bool, now: float) -> None:
        seconds = _granted(response, contact, self.expires_s)
        if seconds <= 0:
            self._failed("the registrar's 200 does not list our Contact", now)
            return
        self._failures = 0
        expires_at = now + seconds
        self._timers = {"refresh": now + _refresh_after(seconds), "expiry": expires_at}
        if is_udp:
            self._timers["ping"] = now + UDP_PING_S
        self._set(RegistrationState.REGISTERED, f"for {seconds} s", expires_at)

    def _raise_expiry(self, response: Response) -> bool:
        least = _seconds(response.headers, "Min-Expires")
        if least is None or least <= self.expires_s or self._raised:
            return False
        self._raised = True
        self.expires_s = least
        return True

    def _failed(self, reason: str, now: float, *, retry_after: float | None = None) -> None:
        wait = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        after = max(wait * (0.5 + 0.5 * self._draw()), min(retry_after or 0.0, BACKOFF_S[-1] * 12))
        self._timers["refresh"] = now + after
        text = f"{reason}; next try in {after:.0f} s"
        known = self.status.expires_at
        if known is not None and now < known:
            self._set(RegistrationState.REGISTERED, text, known)
        else:
            self._timers.pop("ping", None)
            self._timers.pop("expiry", None)
            self._set(RegistrationState.FAILED, text)

    def _set(self, state: RegistrationState, text: str, expires_at: float | None = None) -> None:
        self.status = Status(state, text, expires_at)
        self._outputs.append(self.status)


def _granted(response: Response, contact: str, asked: int) -> int:
    """Return for how long the registrar keeps our Contact; it lists those of others besides (section 10.3)."""
    general = _seconds(response.headers, "Expires")
    ours = _address(contact)
    listed = [value for header in response.headers.get_all("Contact") for value in split_list(header)]
    if not listed:
        return asked if general is None else general
    own = [value for value in listed if ours is not None and _address(value) == ours]
    # Registrars that look through NATs list the address that they saw; the user is ours all the same.
    own = own or [value for value in listed if ours is not None and (_address(value) or ("",))[0] == ours[0]]
    if not own:
        return 0
    seconds = _contact_seconds(own[0])
    return next((known for known in (seconds, general) if known is not None), asked)


def _address(contact: str) -> tuple[str, str, int | None] | None:
    try:
        uri = parse_name_addr(contact).uri
    except (HeaderError, UriError):
        return None
    return (uri.user or "", uri.host.lower(), uri.port) if isinstance(uri, SipUri) else None


def _contact_seconds(value: str) -> int | None:
    try:
        text = parse_name_addr(value).param("expires")
        return None if text is None else parse_int("Contact", text)
    except HeaderError:
        return None


def _seconds(headers: Headers, name: str) -> int | None:
    # Retry-After may have a comment or parameters behind its number.
    text = (headers.get(name) or "").replace("(", ";").partition(";")[0].strip()
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= 9 else None


def _refresh_after(seconds: int) -> float:
    """Early enough for a lost answer and a new try: at half of a short time, a minute before the end of a long one."""
    return max(min(MIN_REFRESH_S, seconds * 0.9), seconds / 2 if seconds < 120 else seconds - 60.0)


def _describe(response: Response) -> str:
    return f"{response.status} {response.reason}"
