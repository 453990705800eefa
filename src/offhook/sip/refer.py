"""
What became of one REFER: its response, the NOTIFYs of its subscription, or their absence.

RFC 3515 (REFER), RFC 4488 (`Refer-Sub: false`), RFC 6665 (NOTIFY). A pure object: feed it what the
dialog received and `now`, then drain `outputs()`; `next_timer()` says when to call `handle_timer`.

Every REFER gets one verdict: `completed`, `completed_unconfirmed`, `failed`, `unknown` or `timeout`. Of these,
`completed_unconfirmed`, `unknown` and `timeout` are guesses. The target's own answer, which only a NOTIFY brings,
corrects a guess, once.
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
    "explaining_headers",
    "parse_sipfrag",
]

ReferKind = Literal[
    "accepted", "progress", "completed", "completed_unconfirmed", "failed", "unknown", "timeout"
]

_GUESSES = ("completed_unconfirmed", "unknown", "timeout")


@dataclass(frozen=True, slots=True)
class ReferUpdate:
    """One step in the life of a REFER."""

    refer: int
    "Which REFER of the leg, from 1."
    kind: ReferKind
    """
    `accepted`: the peer's 2xx. `progress`: on its way. `completed`: the target answered. `completed_unconfirmed`: the
    peer took the call over and will not say more. `failed`: refused by the peer or by the target, or it could not
    be sent; the call stays. `unknown`: nobody will say. `timeout`: silence, before the 2xx or after it. A later
    update may still correct `completed_unconfirmed`, `unknown` and `timeout`.
    """
    sip_status: int | None = None
    "The target's status, from the NOTIFY; or the peer's to the REFER itself."
    reason: str = ""
    sipfrag: bytes = b""
    "The NOTIFY's body as received."
    headers: tuple[tuple[str, str], ...] = ()
    "In which the peer explains a refusal; see `explaining_headers`."


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


def explaining_headers(response: Response) -> tuple[tuple[str, str], ...]:
    """Return the headers in which carriers say why they refused, such as X-Twilio-Error."""
    return tuple(
        (name, value)
        for name, value in response.headers
        if name.lower() in ("reason", "warning") or name.lower().startswith("x-")
    )


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

    `is_pending` is true until the verdict, so that a second REFER can be refused; one that nobody answered stays
    pending until its transaction ends.
    """

    def __init__(self, number: int, cseq: int, *, notify_timeout: float) -> None:
        self.number = number
        self.cseq = cseq
        self._notify_timeout = notify_timeout
        self._timers: dict[str, float] = {}
        self._outputs: list[ReferUpdate] = []
        self._verdict: ReferKind | None = None
        self._accepted = False
        self._was_late = False
        self._ended_by: Literal["peer", "us"] | None = None

    @property
    def is_pending(self) -> bool:
        return self._verdict is None

    # Inputs.

    def receive_response(self, response: Response, *, now: float) -> None:
        """Handle the response to the REFER itself."""
        if response.status < 200:
            return
        if response.status >= 300:
            self._settle("failed", response.status, response.reason, headers=explaining_headers(response))
        elif self._verdict is None:
            self._receive_2xx(response, now)

    def give_up_waiting(self) -> None:
        """Note that the asker was told "no answer"; a 2xx that comes now still counts."""
        self._was_late = True

    def transaction_failed(self, reason: str, *, was_sent: bool) -> None:
        """Note that the REFER will never be answered: it timed out, or could not be sent."""
        if self._accepted:
            return
        if not was_sent:
            self._settle("failed", None, reason)
        elif self._ended_by == "peer":
            self._settle("unknown", None, "the peer ended the call without an answer to the REFER")
        else:
            self._settle("timeout", None, f"{reason} to REFER")

    def receive_notify(self, request: Request, *, now: float) -> None:
        """Handle a NOTIFY of this REFER's subscription; it may come before the 2xx (RFC 3515 section 2.4.4)."""
        self._accepted = True
        state = (request.headers.get("Subscription-State") or "").partition(";")[0].strip().lower()
        parsed = parse_sipfrag(request.body)
        status, reason = parsed or (None, "")
        if status is not None and status >= 200:
            self._settle("completed" if status < 300 else "failed", status, reason, request.body)
        elif state == "terminated":
            self._settle("unknown", status, reason or "subscription ended without a verdict", request.body)
        elif self._verdict is None:
            self._timers["notify"] = now + self._notify_timeout
            self._outputs.append(ReferUpdate(self.number, "progress", status, reason, request.body))
            self._settle_if_over()

    def receive_bye(self) -> None:
        """Handle the peer's BYE: after a 2xx to REFER it is how most carriers say that they took over."""
        self._ended_by = self._ended_by or "peer"
        self._settle_if_over()

    def hung_up(self) -> None:
        """Note that we ended the call before the outcome was known."""
        self._ended_by = self._ended_by or "us"
        self._settle_if_over()

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
        was_accepted, self._accepted = self._accepted, True
        if (response.headers.get("Refer-Sub") or "").partition(";")[0].strip().lower() == "false":
            reason = "the peer accepted and sends no NOTIFY (Refer-Sub: false)"
            self._settle("completed_unconfirmed", response.status, reason)
            return
        self._timers.setdefault("notify", now + self._notify_timeout)
        if not was_accepted:  # a NOTIFY that came first has said as much
            late = " (after we had stopped waiting)" if self._was_late else ""
            self._outputs.append(
                ReferUpdate(self.number, "accepted", response.status, response.reason + late)
            )
        self._settle_if_over()

    def _settle_if_over(self) -> None:
        if not self._accepted or self._ended_by is None:
            return
        if self._ended_by == "peer":
            reason = "the peer ended the call after accepting the REFER"
            self._settle("completed_unconfirmed", None, reason)
        else:
            self._settle("unknown", None, "we ended the call before the outcome was known")

    def _settle(
        self,
        kind: ReferKind,
        status: int | None,
        reason: str,
        sipfrag: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Give the verdict once. Only the target's own answer corrects one that was a guess."""
        is_correction = self._verdict in _GUESSES and kind in ("completed", "failed") and sipfrag
        if self._verdict is not None and not is_correction:
            return
        self._verdict = kind
        self._timers = {}
        self._outputs.append(ReferUpdate(self.number, kind, status, reason, sipfrag, headers))
