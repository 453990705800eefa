"""The REFERs of one call: one at a time, each with an outcome (decision 5 of the design)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from offhook.clock import Clock
from offhook.sip.headers import HeaderError
from offhook.sip.leg import Leg
from offhook.sip.refer import (
    ReferAnswer,
    ReferPending,
    ReferTimeout,
    ReferUnsendable,
    ReferUpdate,
    explaining_headers,
)
from offhook.sip.uri import SipUri

from .errors import CallError, call_not_found
from .refer_record import ReferRecord

__all__ = ["Transfer"]

log = logging.getLogger("offhook.calls")

REPEATED_S = 60.0
"How long after a refusal an SDK's repeat of the request gets the same refusal."
MAX_KEPT = 1_000
"Transfers of one call; past that an app is in a loop."


@dataclass(slots=True)
class _Attempt:
    record: ReferRecord
    answer: asyncio.Future[CallError | None]
    "`None` when the peer has taken the REFER; else why not."
    waits: bool
    "Whether its requests may be answered before it is sent."
    leg_number: int | None = None
    "Which REFER of the leg it became."
    answered_at: float = 0.0
    said: asyncio.Future[bool] | None = field(default=None, repr=False)

    @property
    def target(self) -> str:
        return self.record.target


class Transfer:
    """
    Sends REFER once for each request of the app, however often a client repeats that request.

    An SDK that lost our answer sends its POST again (API rows C03, C06). While the first is unanswered, or its transfer
    under way, a repeat with the same target gets the first one's answer; another target is a 409. Each attempt is a
    task of its own: an app that breaks off its request does not break off the transfer.
    """

    def __init__(
        self,
        leg: Leg,
        *,
        call_id: str,
        clock: Clock,
        timeout_s: float,
        playout_wait_s: float,
        on_update: Callable[[dict[str, Any]], None],
        keep: Callable[[dict[str, Any]], None],
    ) -> None:
        self._leg = leg
        self._call_id = call_id
        self._clock = clock
        self._timeout_s = timeout_s
        self._playout_wait_s = playout_wait_s
        self._on_update = on_update
        self._keep = keep
        self._attempts: list[_Attempt] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def completed(self) -> bool:
        return any(attempt.record.has_completed for attempt in self._attempts)

    @property
    def _is_over(self) -> bool:
        # The leg may be ahead of its news, or behind a BYE that waits for the ACK.
        return self._ended or self._leg.state == "ended"

    async def refer(
        self, target: str, *, request_id: str = "", said: Callable[[], asyncio.Future[bool]] | None = None
    ) -> bool:
        """
        Return True when the peer has taken the REFER (2xx). Raises `CallError` with all that is known otherwise.

        With `said`, the REFER is sent when the future that it returns is true; it waits for that no longer than the
        configured time. Then False is returned if there is no answer yet when the time for one is over: it goes on.
        """
        current = self._attempts[-1] if self._attempts else None
        if current is None or current.record.is_final:
            current = self._begin(target, request_id, said)
        elif current.target != target:
            raise CallError(
                409,
                f"A transfer to {current.target} is under way. Wait for its outcome.",
                code="refer_pending",
            )
        return await self._wait(current)

    def knows(self, target: str) -> bool:
        """
        Whether a repeat of a request for this target has its answer already, or shares one.

        The last REFER went there: the peer took it, whatever came of it, or refused it a moment ago, or is to answer.
        """
        last = self._attempts[-1] if self._attempts else None
        if last is None or last.target != target:
            return False
        if not last.answer.done() or last.answer.result() is None:
            return True
        return self._clock.monotonic() - last.answered_at < REPEATED_S

    async def repeat(self) -> bool:
        """Answer a request again that `knows` knows."""
        return await self._wait(self._attempts[-1])

    def updated(self, update: ReferUpdate) -> None:
        """Take what the peer said about a transfer: its answer, a NOTIFY, a BYE, or silence."""
        attempt = next((one for one in reversed(self._attempts) if one.leg_number == update.refer), None)
        if attempt is None:
            return
        if update.kind == attempt.record.status == "accepted":
            return  # whoever waited for the answer heard of it a turn of the loop before
        self._note(attempt, update.kind, update.sip_status, update.reason or "", headers=dict(update.headers))

    def call_ended(self) -> None:
        """What has not been sent will not be."""
        self._ended = True
        for attempt in self._attempts:
            if attempt.said is not None:
                attempt.said.cancel()

    def to_api(self) -> list[dict[str, Any]]:
        """Return all of them, as `GET /v1/realtime/calls/{id}/refers` lists them."""
        return [attempt.record.to_api() for attempt in self._attempts]

    def brief(self) -> list[dict[str, Any]]:
        return [attempt.record.brief() for attempt in self._attempts]

    # One attempt.

    def _begin(
        self, target: str, request_id: str, said: Callable[[], asyncio.Future[bool]] | None
    ) -> _Attempt:
        if len(self._attempts) >= MAX_KEPT:
            raise CallError(409, f"This call has had {MAX_KEPT} transfers.", code="too_many_refers")
        self._check_allow(target)
        loop = asyncio.get_running_loop()
        record = ReferRecord(
            len(self._attempts) + 1, self._call_id, target, self._clock.wall(), request_id=request_id
        )
        attempt = _Attempt(record, loop.create_future(), waits=said is not None)
        self._attempts.append(attempt)
        reason = "waits until the agent has been heard" if said is not None else ""
        record.update("pending", None, reason, at=self._clock.wall())
        self._keep(record.to_api())
        task = loop.create_task(self._carry_out(attempt, said))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return attempt

    async def _wait(self, attempt: _Attempt) -> bool:
        timeout = self._timeout_s if attempt.waits else None
        done, _ = await asyncio.wait({attempt.answer}, timeout=timeout)
        if not done:
            return False
        if (error := attempt.answer.result()) is not None:
            raise error.again()
        return True

    def _check_allow(self, target: str) -> None:
        allow = self._leg.invite.headers.values("Allow")
        if allow and "REFER" not in allow:
            raise CallError(
                502,
                f"The peer does not take REFER: its INVITE allows {', '.join(allow)}. "
                "Enable call transfer on the trunk.",
                code="refer_not_supported",
                type="server_error",
                details={"target_uri": target, "allow": allow},
            )

    async def _carry_out(self, attempt: _Attempt, said: Callable[[], asyncio.Future[bool]] | None) -> None:
        try:
            if said is not None:
                await self._wait_until_said(attempt, said)
            await self._send(attempt)
        except CallError as error:
            self._answer(attempt, error)
        except Exception:
            log.exception("transfer failed", extra={"event": "call.bug", "call_id": self._call_id})
            self._finish(attempt, "failed", None, "internal error")
            self._answer(attempt, CallError(500, "Internal error.", type="server_error"))
        except asyncio.CancelledError:
            self._answer(attempt, call_not_found())
            raise
        else:
            self._answer(attempt, None)

    def _answer(self, attempt: _Attempt, error: CallError | None) -> None:
        attempt.answered_at = self._clock.monotonic()
        attempt.answer.set_result(error and error.again())

    async def _wait_until_said(self, attempt: _Attempt, said: Callable[[], asyncio.Future[bool]]) -> None:
        """Return when the REFER may be sent. Raises `CallError` when it may not any more."""
        attempt.said = future = said()
        await asyncio.wait({future}, timeout=self._playout_wait_s)
        attempt.said = None
        if self._is_over:
            self._finish(attempt, "cancelled", None, "the call ended before the REFER was sent")
            raise call_not_found()
        if not future.done():
            future.cancel()
            reason = f"the agent was still talking after {self._playout_wait_s:g} s"
            self._note(attempt, "pending", None, reason)
        elif future.cancelled() or not future.result():
            self._finish(attempt, "cancelled", None, "the agent was interrupted before the REFER was sent")
            raise CallError(
                409,
                f"REFER to {attempt.target} was not sent: the agent was interrupted. The call goes on.",
                code="refer_interrupted",
                details={"target_uri": attempt.target, "refer": attempt.record.number},
            )

    async def _send(self, attempt: _Attempt) -> None:
        # Before the REFER leaves: a NOTIFY may be here before the peer's answer to it is.
        attempt.leg_number = self._leg.refer_count + 1
        try:
            answer = await self._leg.refer(
                f"<{attempt.target}>", referred_by=self._referrer(), timeout=self._timeout_s
            )
        except ReferPending:
            # The leg still follows a REFER that this call gave up waiting for: it did arrive.
            attempt.leg_number = None
            self._finish(attempt, "cancelled", None, "an earlier REFER is still pending")
            raise CallError(
                409, "An earlier transfer is still pending at the peer.", code="refer_pending"
            ) from None
        except ReferTimeout as error:
            # Not finished: a 2xx may still come (RFC 3515), and a second REFER would be a second transfer.
            if not attempt.record.is_final:
                self._note(attempt, "pending", None, f"{error}; one may still come")
            raise self._error(504, "refer_timeout", attempt, str(error)) from None
        except ReferUnsendable as error:
            if self._leg.refer_count < attempt.leg_number:
                attempt.leg_number = None  # it never became a REFER
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
            if attempt.record.status == "pending":  # else the leg has told of it, or a NOTIFY came first
                self._note(attempt, "accepted", answer.status, answer.reason)
            return
        headers = dict(explaining_headers(answer.response))
        self._finish(attempt, "failed", answer.status, answer.reason, headers=headers)
        why = "".join(f"; {name}: {value}" for name, value in headers.items() if "error" in name.lower())
        raise self._error(
            502,
            "refer_rejected",
            attempt,
            f"the peer answered {answer.status} {answer.reason}{why}",
            sip_status=answer.status,
            reason=answer.reason,
            headers=headers,
        )

    def _finish(
        self,
        attempt: _Attempt,
        status: str,
        sip_status: int | None,
        reason: str,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Note the end of an attempt that the leg may have told of already."""
        if not attempt.record.is_final:
            self._note(attempt, status, sip_status, reason, headers=headers)

    def _note(
        self,
        attempt: _Attempt,
        status: str,
        sip_status: int | None,
        reason: str,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        if attempt.record.update(status, sip_status, reason, at=self._clock.wall(), headers=headers):
            self._keep(attempt.record.to_api())
            self._on_update(attempt.record.brief())

    def _referrer(self) -> str | None:
        """Return who refers, for Referred-By (RFC 3892): whom the caller called."""
        try:
            called = self._leg.invite.to.uri
        except HeaderError:
            return None
        if not isinstance(called, SipUri) or called.scheme not in ("sip", "sips", "tel"):
            return None
        return f"<{SipUri(called.scheme, called.user, called.host, called.port)}>"

    def _error(self, status: int, code: str, attempt: _Attempt, text: str, **details: Any) -> CallError:
        after = "The call is over." if self._is_over else "The call goes on."
        return CallError(
            status,
            f"REFER to {attempt.target} was not taken: {text}. {after}",
            code=code,
            type="server_error",
            details={"target_uri": attempt.target, "refer": attempt.record.number, **details},
        )
