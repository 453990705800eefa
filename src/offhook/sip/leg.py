"""The face of one call for the rooms above: intents in, listener calls out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from .credentials import Credentials
from .events import LegEnded, Replied
from .flow import Flow
from .message import Request, Response
from .refer import ReferAnswer, ReferTimeout, ReferUnsendable, ReferUpdate
from .snapshot import Snapshot, take_snapshot
from .transaction import LocalProtocolError
from .uac import UacUsage
from .uas import UasUsage
from .usage import InviteUsage, Trace

__all__ = ["Leg", "LegDriver", "LegListener", "LegRequestError"]


class LegListener(Protocol):
    """
    Who is told what a leg does. Every method gets the leg first; none may block.

    An exception in one is logged, and answered 500 where a request waits for an answer. The bodies below are good
    defaults for a listener that inherits from this class.
    """

    def leg_provisional(self, leg: Leg, response: Response) -> None:
        """UAC: a response of 101 to 199."""
        return

    def leg_answered(self, leg: Leg, response: Response) -> None:
        """UAC: 2xx; the ACK was sent."""
        return

    def leg_refused(self, leg: Leg, response: Response | None, reason: str) -> None:
        """UAC: the call did not come about: a final response, or none (timeout, unreachable)."""
        return

    def leg_cancelled(self, leg: Leg, reason_header: str | None) -> None:
        """UAS: the caller gave up; 200 and 487 were sent."""

    def leg_confirmed(self, leg: Leg) -> None:
        """UAS: the ACK to the first 200 came; it is `leg.ack`."""

    def leg_acknowledged(self, leg: Leg, ack: Request) -> None:
        """The ACK to a 200 to a re-INVITE came. It has the answer when that 200 had the offer."""
        return

    def leg_offered(self, leg: Leg, request: Request) -> None:
        """A re-INVITE or UPDATE; must be answered with `leg.respond`."""
        leg.respond(request, 488)

    def leg_requested(self, leg: Leg, request: Request) -> None:
        """Another in-dialog request (INFO, REFER, MESSAGE, ...); must be answered with `leg.respond`."""
        leg.respond(request, 405)

    def leg_refer_updated(self, leg: Leg, update: ReferUpdate) -> None:
        """What became of a REFER of ours. May come up to 32 s after `leg_ended`."""

    def leg_refreshed(self, leg: Leg, offer: bytes, response: Response) -> None:
        """The session timer sent `offer`, our SDP as it stood, by re-INVITE; the 200 has the peer's SDP."""
        return

    def leg_ended(self, leg: Leg, ended: LegEnded) -> None:
        """The leg is over: once, for every leg that was answered."""

    def leg_parted(self, leg: Leg) -> None:
        """After `leg_ended` and the answer to our BYE, if we sent one: only news of a transfer may still come."""
        return

    def leg_released(self, leg: Leg) -> None:
        """Nothing will ever happen to this leg again; answered or not. Who holds it may let go."""
        return


class LegRequestError(Exception):
    """A request in the dialog got no response: the text says why."""


class LegDriver(Protocol):
    """What a leg needs of its endpoint."""

    def now(self) -> float: ...
    def pump(self) -> None:
        """Send what is to be sent, arm the timer, and see to it that events are told soon."""

    def read_waiting(self) -> None:
        """Take what has come meanwhile; tell nothing."""

    async def reply(self, usage: InviteUsage, key: int, timeout: float) -> Replied | None:
        """Wait for the answer to request `key`; `None` after `timeout` seconds."""

    def guard(self, usage: InviteUsage, tracer: Callable[[Trace], None]) -> Callable[[Trace], None]:
        """Return `tracer`, made unable to raise."""


class Leg:
    """
    One INVITE and the dialog that it makes, either side.

    Intents on a leg that is over do nothing, because its end and the intent can cross; intents that
    its state does not allow raise `LocalProtocolError`.
    """

    def __init__(self, driver: LegDriver, usage: InviteUsage, leg_id: str) -> None:
        self.id = leg_id
        self.listener: LegListener | None = None
        self._driver = driver
        self._usage = usage
        self._tracer: Callable[[Trace], None] | None = None
        usage.owner = self

    @property
    def role(self) -> str:
        """`uas` or `uac`."""
        return self._usage.role

    @property
    def invite(self) -> Request:
        """The INVITE as received (only its top Via has the source written in) or as sent."""
        return self._usage.invite

    @property
    def flow(self) -> Flow | None:
        """The INVITE's flow; `None` while a UAC looks for one."""
        return self._usage.flow

    @property
    def peer(self) -> object | None:
        """UAS: what the gate knows of the sender, such as the trunk whose password it has."""
        return self._usage.peer

    @property
    def call_id(self) -> str:
        return self._usage.call_id

    def read_waiting(self) -> None:
        """
        Have other calls' messages read before a piece of work of more than some 0.5 ms: see `Endpoint.read_waiting`.

        To be followed by a look at `state`: this call's may be among them.
        """
        self._driver.read_waiting()

    @property
    def state(self) -> str:
        """`calling`, `early`, `answered` (UAS: 200 sent, no ACK yet), `confirmed` or `ended`."""
        return self._usage.state

    @property
    def tls_hostname(self) -> str:
        """What the peer's certificate must show when a route names a bare address; empty: that address."""
        return self._usage.tls_hostname

    @tls_hostname.setter
    def tls_hostname(self, name: str) -> None:
        self._usage.tls_hostname = name

    @property
    def credentials(self) -> Credentials | None:
        """What the peer's challenges to our requests are answered with; `None`: they are not."""
        return self._usage.credentials

    @credentials.setter
    def credentials(self, credentials: Credentials | None) -> None:
        self._usage.credentials = credentials

    @property
    def refer_count(self) -> int:
        """How many REFERs were begun; what `ReferUpdate.refer` counts."""
        return self._usage.refer_count

    @property
    def ack(self) -> Request | None:
        """UAS: the last ACK received; it holds the answer when our 200 held the offer."""
        return self._usage.ack

    @property
    def trace(self) -> Callable[[Trace], None] | None:
        """Who gets every message, state change and routing decision of this leg; what came before is kept."""
        return self._tracer

    @trace.setter
    def trace(self, tracer: Callable[[Trace], None] | None) -> None:
        self._tracer = tracer
        usage = self._usage
        usage.tracer = None if tracer is None else self._driver.guard(usage, tracer)
        if usage.tracer is not None:
            early, usage.early_traces = usage.early_traces, []
            for item in early:
                usage.tracer(item)

    def snapshot(self) -> Snapshot:
        """UAS: return what `Endpoint.revive` needs to end this call in another process."""
        return take_snapshot(self._uas("take a snapshot of"))

    def ring(
        self,
        status: int = 180,
        reason: str | None = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        sdp: bytes = b"",
    ) -> None:
        """UAS: send a provisional response."""
        self._uas("ring").ring(status, reason, now=self._driver.now(), headers=headers, sdp=sdp)
        self._driver.pump()

    def answer(self, sdp: bytes, *, headers: Iterable[tuple[str, str]] = ()) -> None:
        """UAS: send 200; it is repeated until the ACK comes, and BYE follows when none does."""
        self._uas("answer").answer(sdp, now=self._driver.now(), headers=headers)
        self._driver.pump()

    def refuse(
        self, status: int, reason: str | None = None, *, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """UAS: send a final response of 300 or more."""
        self._uas("refuse").refuse(status, reason, now=self._driver.now(), headers=headers)
        self._driver.pump()

    def hangup(self, *, reason_header: str | None = None) -> None:
        """End the leg whatever its state: BYE (after the ACK), CANCEL, or 480 to a call that rings here."""
        usage = self._usage
        assert isinstance(usage, UasUsage | UacUsage)
        usage.hangup(now=self._driver.now(), reason_header=reason_header)
        self._driver.pump()

    def respond(
        self,
        request: Request,
        status: int,
        reason: str | None = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> None:
        """Answer a request that the listener got. Nothing happens if it is answered already."""
        self._usage.respond(
            request,
            status,
            reason,
            now=self._driver.now(),
            headers=headers,
            body=body,
            content_type=content_type,
        )
        self._driver.pump()

    async def refer(
        self,
        refer_to: str,
        *,
        referred_by: str | None = None,
        timeout: float = 8.0,
        headers: Iterable[tuple[str, str]] = (),
    ) -> ReferAnswer:
        """
        Send one REFER (waiting for the ACK first) and return the peer's final response, whatever its status.

        `refer_to` is a URI or a name-addr. Raises `ReferPending`, `ReferUnsendable`, `ReferTimeout`, and
        `HeaderError` for a value that cannot stand in a header.
        """
        try:
            key = self._usage.refer(
                refer_to, now=self._driver.now(), headers=headers, referred_by=referred_by
            )
        except LocalProtocolError as exc:
            raise ReferUnsendable(str(exc)) from None
        number = self._usage.refer_count
        replied = await self._driver.reply(self._usage, key, timeout)
        if replied is None:
            raise ReferTimeout(f"no answer to REFER within {timeout:g} s")
        response = replied.response
        if response is None:
            raise ReferUnsendable(replied.reason, replied.attempts)
        no_notify = (response.headers.get("Refer-Sub") or "").partition(";")[0].strip().lower() == "false"
        return ReferAnswer(
            number, response.status, response.reason, no_notify and response.status < 300, response
        )

    async def request(
        self,
        method: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
        timeout: float = 8.0,
    ) -> Response:
        """
        Send a request in the dialog and return its final response; a 2xx to INVITE is acknowledged here.

        Raises `LegRequestError` when there is none, and `LocalProtocolError` without a dialog or for
        ACK, BYE, CANCEL and REFER.
        """
        key = self._usage.request(
            method, now=self._driver.now(), headers=headers, body=body, content_type=content_type
        )
        replied = await self._driver.reply(self._usage, key, timeout)
        if replied is None:
            raise LegRequestError(f"no answer to {method} within {timeout:g} s")
        if replied.response is None:
            tried = "; ".join(str(attempt) for attempt in replied.attempts)
            raise LegRequestError(f"{method}: {replied.reason}" + (f" ({tried})" if tried else ""))
        return replied.response

    def _uas(self, intent: str) -> UasUsage:
        if not isinstance(self._usage, UasUsage):
            raise LocalProtocolError(f"cannot {intent}: this side placed the call")
        return self._usage
