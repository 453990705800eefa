"""
What became of one REFER: its response, the NOTIFYs of its subscription, or their absence.

RFC 3515 (REFER), RFC 4488 (`Refer-Sub: false`), RFC 6665 (NOTIFY). A pure object: feed it what the
dialog received and `now`, then drain `outputs()`; `next_timer()` says when to call `handle_timer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .message import Request, Response
from .route import Attempt

__all__ = [
    "Refer",
    "ReferAnswer",
    "ReferKind",
    "ReferPending",
    "ReferTimeout",
    "ReferUnsendable",
    "ReferUpdate",
    "parse_sipfrag",
]

ReferKind = Literal["progress", "completed", "completed_unconfirmed", "failed", "unknown", "timeout"]


@dataclass(frozen=True, slots=True)
class ReferUpdate:
    """One step in the life of a REFER."""

    refer: int
    "Which REFER of the leg, from 1."
    kind: ReferKind
    """
    `progress`: on its way. `completed`: the target answered. `completed_unconfirmed`: the peer took the call over
    and will not say more. `failed`: refused by the peer or by the target; the call stays. `unknown`: the
    subscription ended without a verdict. `timeout`: accepted, then silence. A later update may still
    correct the last three.
    """
    sip_status: int | None = None
    "The target's status, from the NOTIFY; or the peer's to the REFER itself."
    reason: str = ""
    sipfrag: bytes = b""
    "The NOTIFY's body as received."


@dataclass(frozen=True, slots=True)
class ReferAnswer:
    """The peer's final response to a REFER."""

    refer: int
    "Which REFER of the leg, from 1."
    status: int
    reason: str
    no_notify: bool
    "A 2xx with `Refer-Sub: false`: no NOTIFY will come (RFC 4488)."
    response: Response
    "The whole of it: carriers explain refusals in headers of their own."


# The three are states of a call that callers handle, not faults.
class ReferPending(Exception):  # noqa: N818
    """An earlier REFER of this leg has no outcome yet."""


class ReferTimeout(Exception):  # noqa: N818
    """The peer did not answer the REFER in time. It may have arrived: updates may still come."""


class ReferUnsendable(Exception):  # noqa: N818
    """No way to the peer was found, or the leg has no dialog. `attempts` says what was tried."""

    def __init__(self, text: str, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(text)
        last = attempts[-1] if attempts else Attempt("", "", text)
        self.hop = last.hop
        self.transport = last.transport
        self.error = last.error
        self.errno = last.errno
        self.attempts = attempts


def parse_sipfrag(body: bytes) -> tuple[int, str] | None:
    """Return status and reason from a `message/sipfrag` body's first line, or `None` (RFC 3420)."""
    line = body.lstrip(b"\r\n").split(b"\n", 1)[0].strip().decode("utf-8", "replace")
    version, _, rest = line.partition(" ")
    code, _, reason = rest.strip().partition(" ")
    if not version.upper().startswith("SIP/") or len(code) != 3 or not (code.isascii() and code.isdigit()):
        return None
    status = int(code)
    return (status, reason.strip()) if 100 <= status <= 699 else None


class Refer:
    """
    The sender's side of one REFER.

    `is_pending` is true until the outcome is known, so that a second REFER can be refused; a REFER
    that nobody answered stays pending until its transaction ends.
    """

    def __init__(self, number: int, cseq: int, *, notify_timeout: float) -> None:
        self.number = number
        self.cseq = cseq
        self.is_pending = True
        self._notify_timeout = notify_timeout
        self._timers: dict[str, float] = {}
        self._outputs: list[ReferUpdate] = []
        self._verdict: ReferKind | None = None
        self._accepted = False
        self._was_late = False
        self._remote_bye = False

    # Inputs.

    def receive_response(self, response: Response, *, now: float) -> None:
        """Handle the response to the REFER itself."""
        if response.status < 200:
            return
        if response.status >= 300:
            self._settle("failed", response.status, response.reason)
        else:
            self._accepted = True
            self._receive_2xx(response, now)

    def give_up_waiting(self) -> None:
        """Note that the asker was told "no answer"; a 2xx that comes now is news and becomes an update."""
        self._was_late = True

    def transaction_failed(self) -> None:
        """Note that the REFER will never be answered: timed out, or it could not be sent."""
        if not self._accepted and self._verdict is None:
            self.is_pending = False

    def receive_notify(self, request: Request, *, now: float) -> None:
        """Handle a NOTIFY of this REFER's subscription; it may come before the 2xx (RFC 3515 section 2.4.4)."""
        self._accepted = True
        state = (request.headers.get("Subscription-State") or "").partition(";")[0].strip().lower()
        parsed = parse_sipfrag(request.body)
        if parsed is not None and parsed[0] >= 200:
            kind: ReferKind = "completed" if parsed[0] < 300 else "failed"
            self._settle(kind, parsed[0], parsed[1], request.body)
        elif state == "terminated":
            status, reason = parsed or (None, "")
            self._settle("unknown", status, reason or "subscription ended without a verdict", request.body)
        elif self._verdict is None:
            status, reason = parsed or (None, "")
            self._timers["notify"] = now + self._notify_timeout
            self._outputs.append(ReferUpdate(self.number, "progress", status, reason, request.body))

    def receive_bye(self) -> None:
        """Handle the peer's BYE: after a 2xx to REFER it is how most carriers say that they took over."""
        self._remote_bye = True
        if self._accepted:
            self._settle("completed_unconfirmed", None, "the peer ended the call after accepting the REFER")

    def hung_up(self) -> None:
        """Note that we ended the call before the outcome was known."""
        if self._accepted:
            self._settle("unknown", None, "we ended the call before the outcome was known")

    def next_timer(self) -> float | None:
        return min(self._timers.values(), default=None)

    def handle_timer(self, *, now: float) -> None:
        deadline = self._timers.get("notify")
        if deadline is not None and deadline <= now:
            self._settle("timeout", None, f"no NOTIFY for {self._notify_timeout:g} s")

    def outputs(self) -> list[ReferUpdate]:
        """Take the updates since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # Verdicts.

    def _receive_2xx(self, response: Response, now: float) -> None:
        if self._verdict is not None:
            return
        if (response.headers.get("Refer-Sub") or "").partition(";")[0].strip().lower() == "false":
            reason = "the peer accepted and sends no NOTIFY (Refer-Sub: false)"
            self._settle("completed_unconfirmed", response.status, reason)
        elif self._remote_bye:
            self.receive_bye()
        else:
            self.is_pending = True
            self._timers.setdefault("notify", now + self._notify_timeout)
            if self._was_late:
                reason = f"{response.reason} (after we had stopped waiting)"
                self._outputs.append(ReferUpdate(self.number, "progress", response.status, reason))

    def _settle(self, kind: ReferKind, status: int | None, reason: str, sipfrag: bytes = b"") -> None:
        """Give the verdict once. Only the target's own answer corrects one that was a guess."""
        is_guess = self._verdict in ("completed_unconfirmed", "unknown", "timeout")
        if self._verdict is not None and not (is_guess and kind in ("completed", "failed") and sipfrag):
            return
        self._verdict = kind
        self.is_pending = False
        self._timers = {}
        self._outputs.append(ReferUpdate(self.number, kind, status, reason, sipfrag))
