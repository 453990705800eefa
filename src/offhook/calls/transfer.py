"""The REFERs of one call: one at a time, each with an outcome (decision 5 of the design)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from offhook.sip.leg import Leg
from offhook.sip.refer import ReferAnswer, ReferPending, ReferTimeout, ReferUnsendable, ReferUpdate

from .errors import CallError

__all__ = ["Transfer", "check_target_uri"]

_FINISHED = frozenset({"completed", "completed_unconfirmed", "failed", "unknown", "timeout"})
_FORBIDDEN = frozenset('<>"\\^`{|}')


def check_target_uri(target_uri: object) -> str:
    """Return a `tel:`, `sip:` or `sips:` URI that is safe between angle brackets. Raises `CallError` 400."""
    if not isinstance(target_uri, str) or not target_uri.strip():
        raise CallError(
            400, "'target_uri' must be a nonblank string.", code="invalid_value", param="target_uri"
        )
    target = target_uri.strip()
    scheme, _, rest = target.partition(":")
    if scheme.lower() not in ("tel", "sip", "sips") or not rest:
        raise CallError(
            400,
            "'target_uri' must be a tel:, sip: or sips: URI, such as tel:+15551234567.",
            code="invalid_value",
            param="target_uri",
        )
    if not target.isascii() or any(char in _FORBIDDEN or char <= " " or char == "\x7f" for char in target):
        raise CallError(
            400,
            "'target_uri' has a character that a URI cannot hold. Percent-encode it.",
            code="invalid_value",
            param="target_uri",
        )
    return target


@dataclass(slots=True)
class _Attempt:
    target: str
    answer: asyncio.Future[None]
    number: int
    "Which REFER of the call; from 1."
    outcome: str = "pending"
    sip_status: int | None = None
    reason: str = ""

    def to_api(self) -> dict[str, Any]:
        return {
            "object": "realtime.call.refer",
            "refer": self.number,
            "target_uri": self.target,
            "status": self.outcome,
            "sip_status": self.sip_status,
            "reason": self.reason,
        }


class Transfer:
    """
    Sends REFER once for each request of the app, however often a client repeats that request.

    An SDK that lost our answer sends its POST again (API rows C03, C06). While the first is unanswered, or its transfer
    under way, a repeat with the same target gets the first one's answer; another target is a 409.
    """

    def __init__(self, leg: Leg, *, timeout_s: float, on_update: Callable[[dict[str, Any]], None]) -> None:
        self._leg = leg
        self._timeout_s = timeout_s
        self._on_update = on_update
        self._attempts: list[_Attempt] = []

    @property
    def completed(self) -> bool:
        return any(attempt.outcome.startswith("completed") for attempt in self._attempts)

    async def refer(self, target: str) -> None:
        """Return when the peer has taken the REFER (2xx). Raises `CallError` with all that is known otherwise."""
        current = self._attempts[-1] if self._attempts else None
        if current is not None and current.outcome not in _FINISHED:
            if current.target != target:
                raise CallError(
                    409,
                    f"A transfer to {current.target} is under way. Wait for its outcome.",
                    code="refer_pending",
                )
            await asyncio.shield(current.answer)
            return
        attempt = _Attempt(target, asyncio.get_running_loop().create_future(), len(self._attempts) + 1)
        attempt.answer.add_done_callback(lambda future: future.exception())  # a repeat may not be waiting
        self._attempts.append(attempt)
        try:
            await self._send(attempt)
        except CallError as error:
            attempt.answer.set_exception(error)
            if self._leg.refer_count < attempt.number:
                self._attempts.remove(attempt)  # it never became a REFER, and updates count REFERs
            raise
        except BaseException:
            text = "the request for it was broken off before the peer answered"
            attempt.answer.set_exception(self._error(503, "refer_broken_off", attempt, text))
            raise
        attempt.answer.set_result(None)

    def has_taken(self, target: str) -> bool:
        """Whether the last REFER went to this target and the peer took it, whatever came of it."""
        if not self._attempts:
            return False
        last = self._attempts[-1]
        return last.target == target and last.answer.done() and last.answer.exception() is None

    def updated(self, update: ReferUpdate) -> None:
        """Take what the peer said about a transfer since: a NOTIFY, a BYE, or silence."""
        if not 1 <= update.refer <= len(self._attempts):
            return
        attempt = self._attempts[update.refer - 1]
        attempt.outcome = update.kind if update.kind in _FINISHED else "progress"
        attempt.sip_status = update.sip_status
        attempt.reason = update.reason or ""
        self._on_update(attempt.to_api())

    def to_api(self) -> list[dict[str, Any]]:
        return [attempt.to_api() for attempt in self._attempts]

    async def _send(self, attempt: _Attempt) -> None:
        try:
            answer = await self._leg.refer(f"<{attempt.target}>", timeout=self._timeout_s)
        except ReferPending:
            # The leg still follows a REFER that this call gave up waiting for: it did arrive.
            self._finish(attempt, "failed", None, "an earlier REFER is still pending")
            raise CallError(
                409, "An earlier transfer is still pending at the peer.", code="refer_pending"
            ) from None
        except ReferTimeout as error:
            # Not finished: a 2xx may still come (RFC 3515), and a second REFER would be a second transfer.
            attempt.reason = str(error)
            raise self._error(504, "refer_timeout", attempt, str(error)) from None
        except ReferUnsendable as error:
            self._finish(attempt, "failed", None, str(error))
            raise self._error(
                502,
                "refer_unreachable",
                attempt,
                str(error),
                hop=error.hop,
                transport=error.transport,
                error=error.error,
                errno=error.errno,
                attempts=[str(one) for one in error.attempts],
            ) from None
        self._take_answer(attempt, answer)

    def _take_answer(self, attempt: _Attempt, answer: ReferAnswer) -> None:
        if 200 <= answer.status < 300:
            if attempt.outcome == "pending":  # a NOTIFY may have come first
                attempt.outcome, attempt.sip_status, attempt.reason = "accepted", answer.status, answer.reason
            return
        self._finish(attempt, "failed", answer.status, answer.reason)
        raise self._error(
            502,
            "refer_rejected",
            attempt,
            f"the peer answered {answer.status} {answer.reason}",
            sip_status=answer.status,
            reason=answer.reason,
            headers=_explaining_headers(answer),
        )

    def _finish(self, attempt: _Attempt, outcome: str, status: int | None, reason: str) -> None:
        attempt.outcome, attempt.sip_status, attempt.reason = outcome, status, reason
        self._on_update(attempt.to_api())

    def _error(self, status: int, code: str, attempt: _Attempt, text: str, **details: Any) -> CallError:
        after = "The call is over." if self._leg.state == "ended" else "The call goes on."
        return CallError(
            status,
            f"REFER to {attempt.target} was not taken: {text}. {after}",
            code=code,
            type="server_error",
            details={"target_uri": attempt.target, "refer": attempt.number, **details},
        )


def _explaining_headers(answer: ReferAnswer) -> dict[str, str]:
    """Return the headers in which carriers say why they refused, such as X-Twilio-Error."""
    return {
        name: value
        for name, value in answer.response.headers
        if name.lower() in ("reason", "warning") or name.lower().startswith("x-")
    }
