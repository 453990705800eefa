"""One phone call, from INVITE to its end: the tasks that join a SIP leg, a media port, a session and the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from offhook.media import negotiate
from offhook.media.port import MediaPort
from offhook.realtime.engine import EngineUnavailable
from offhook.realtime.runner import SessionRunner
from offhook.realtime.session_config import ConfigError, SessionConfig
from offhook.sip.events import LegEnded
from offhook.sip.leg import Leg, LegListener
from offhook.sip.message import Request, Response
from offhook.sip.reasons import create_reason
from offhook.sip.refer import ReferUpdate
from offhook.tenants import Project
from offhook.weak import weakly

from .admission import Refusal
from .agent import CallAgent
from .apology import Apology
from .call_file import CallFile
from .dialog_keeper import DialogKeeper
from .dtmf import DigitOrder
from .errors import CallError, call_not_found
from .media import CallMedia, fault_of
from .news import CallNews
from .opening import NotServed, open_line
from .record import EndReason, Fault, Result, Termination
from .recording import Recording, RecordingAction
from .refer_record import refer_title
from .ringing import Ringing
from .seats import Seat
from .services import CallServices
from .sound import CallSound
from .state import CallState, Lifecycle
from .target import check_target_uri
from .tasks import CallTasks
from .timeline import Timeline
from .transfer import Transfer

__all__ = ["Call"]

SAVED_WITHIN_S = 0.02
"How late at most a ring or an answer is handed to the journal, which takes some five times as long to write it."

_TRANSFERRED = Termination(Result.SUCCESS, EndReason.TRANSFERRED, cause="the transfer was completed")
_LEG_FAULTS = {"no_ack": Fault.NO_ACK, "session_expired": Fault.SESSION_TIMER}


class Call(LegListener):
    """
    A call and all that may be asked of it. Raises `CallError` for what cannot be done, and goes on.

    Made by `CallManager` when an INVITE for a known project comes; `start` rings and tells the app, `turn_away` makes
    it a call that is over and can be looked at. It is over when `on_ended` has been called, exactly once; `termination`
    then says how. `offer` is what the INVITE's SDP leads to; `None` when it has none, or the call is turned away.
    `seat` is what was held for the call; `None` when it is turned away.
    """

    def __init__(
        self,
        call_id: str,
        project: Project,
        leg: Leg,
        services: CallServices,
        *,
        offer: negotiate.Judgement | None,
        seat: Seat | None,
        on_ended: Callable[[Call], None],
    ) -> None:
        self.id = call_id
        self.project = project
        self.timeline = Timeline(call_id, services.clock, services.journal.entry)
        self._services = services
        self._settings = services.settings
        self._leg = leg
        self._seat = seat
        self._on_ended = on_ended
        self._life = Lifecycle()
        self._decided = asyncio.Event()
        self._file = CallFile(call_id, project.id, leg, services.clock, services.journal)
        self._establishing: asyncio.Task[None] | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._tasks = CallTasks(call_id, weakly(self._bug_found))
        self._news = CallNews(call_id, project, services.announcer, self.timeline, services.clock)
        self._ringing = Ringing(
            leg, self._news, self._settings.ring_timeout_s, on_unanswered=weakly(self._use_fallback)
        )
        self._agent = self._make_agent()
        self._may_fall_back = project.fallback is not None and project.fallback.accept is not None
        self._media = CallMedia(
            offer,
            self._settings,
            self.timeline,
            session_id=int(self.created_at),
            srtp=project.srtp,
            signalling_host=leg.flow.remote[0] if leg.flow else "",
        )
        self._sound = CallSound(
            call_id,
            project,
            leg,
            self.timeline,
            services,
            on_timeout=weakly(self._media_timed_out),
            on_recorded=self._news.recording_saved,
        )
        self._transfer = Transfer(
            leg,
            call_id=call_id,
            clock=services.clock,
            timeout_s=self._settings.refer_timeout_s,
            playout_wait_s=self._settings.playout_wait_s,
            on_update=weakly(self._refer_updated),
            keep=services.journal.refer,
        )
        self._apology = Apology(services.apology, self.timeline)
        self._dialog = DialogKeeper(call_id, leg, services.journal)
        leg.listener = self
        leg.trace = self._sound.capture.traced()

    def _make_agent(self) -> CallAgent:
        agent = CallAgent(
            self.id,
            self.timeline,
            self._services.clock,
            session_limit_s=self._settings.session_limit_s,
            on_expired=weakly(self._session_expired),
            on_failed=weakly(self._engine_failed),
        )
        self._news.publish = weakly(agent.publish)
        return agent

    @property
    def state(self) -> CallState:
        return self._life.state

    @property
    def termination(self) -> Termination | None:
        return self._life.termination

    @property
    def created_at(self) -> float:
        return self._file.created_at

    @property
    def leg(self) -> Leg:
        return self._leg

    def start(self) -> None:
        """Ring, and tell the app. The call can be found by its id before this is called (decision 1)."""
        self._ringing.begin(self._media.security)
        if self.state is not CallState.ENDED:
            self._save_soon()
            self._dialog.keep()

    def save(self) -> None:
        """Have the journal keep what is known of the call now."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        self._file.save(self.describe())

    def _save_soon(self) -> None:
        """Save in a moment, and but once: of several states in one commit only the last is written anyway."""
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVED_WITHIN_S, self.save)

    def turn_away(self, refusal: Refusal) -> None:
        """Refuse the INVITE before anybody is told of it: no webhook, but a trace."""
        self._leg.refuse(refusal.status, headers=refusal.headers())
        result = Result.CLIENT_ERROR if refusal.status == 488 else Result.SERVER_ERROR
        end = Termination(result, EndReason.FAILED, refusal.status, refusal.reason, refusal.fault)
        self._end(end, tell=False)

    # What the app asks for.

    async def accept(self, body: object) -> None:
        """
        Accept, with the session's configuration (API rows R01 to R11).

        Returns when the whole body has been judged and an engine slot is reserved; the phone is answered soon after.
        """
        if not self._life.check_accept():
            return
        try:
            config, given = self._services.engines.judge(body)
        except ConfigError as error:
            raise CallError(400, str(error), code=error.code, param=error.param) from None
        try:
            self._accept(config, given)
        except EngineUnavailable as error:
            raise CallError(
                503,
                f"No engine is free for this call: {error}. The call still rings; accept again or reject.",
                code="engine_unavailable",
                type="server_error",
            ) from None

    async def reject(self, status_code: int = 603, *, repeated: bool = False) -> None:
        """
        Answer the INVITE with this status, 300 to 699 (API rows R12 to R14).

        `repeated` here and below: the client says that it sends this again, not knowing whether the first time
        worked (API row C06). If that did just this, it is done.
        """
        if repeated and self._ended_as(EndReason.REJECTED, status_code):
            return
        self._life.check_reject()
        self._leg.refuse(status_code)
        cause = f"the app rejected with {status_code}"
        self._end(Termination(Result.SUCCESS, EndReason.REJECTED, status_code, cause))

    async def refer(
        self,
        target_uri: object,
        *,
        repeated: bool = False,
        wait_for_playout: bool = False,
        request_id: str = "",
    ) -> bool:
        """
        Transfer the caller (API rows R15 to R19). Returns True when the peer has taken the REFER.

        With `wait_for_playout` the agent is let finish first; False means that this goes on past the answer.
        """
        target = check_target_uri(target_uri, self.project.refer_targets)
        if repeated and self._transfer.knows(target):
            return await self._transfer.repeat()
        await self._be_answered("refer it")
        runner = self._agent.runner
        said = runner.said if wait_for_playout and runner is not None else None
        return await self._transfer.refer(target, request_id=request_id, said=said)

    def refers(self) -> list[dict[str, Any]]:
        """Return what was asked for with `refer`, from the first, as `GET .../refers` shows it."""
        return self._transfer.to_api()

    async def dtmf(self, order: DigitOrder, *, repeated: bool = False) -> None:
        """Press keys on the line to the caller."""
        await self._be_answered("send digits")
        if self._media.port is None or not self._media.is_agreed:
            raise CallError(409, "The call has no media.", code="call_has_no_media")
        await self._sound.digits.send(order, self._media.port, repeated=repeated)

    async def record(self, action: RecordingAction) -> Recording:
        """Start, pause, resume or stop its recording; return what that is then."""
        await self._be_answered("record it")
        return self._sound.recording.act(action)

    async def _be_answered(self, what: str) -> None:
        """Raise `CallError` unless the phone was answered; wait for that when the app has accepted."""
        self._life.check_accepted(what)
        while self.state is CallState.ACCEPTED and self._establishing is not None:
            # The app was told 200 and cannot see how long the phone still rings, nor that a fallback stands in.
            await asyncio.wait((establishing := self._establishing,))
            self._life.check_accepted(what)
            if establishing is self._establishing:
                return

    async def hangup(self, *, repeated: bool = False) -> None:
        """End the call: BYE when answered, else 480 (API rows R20, R21)."""
        if repeated and self._ended_as(EndReason.HANGUP):
            return
        self._life.check_hangup()
        self._hang_up(Termination(Result.SUCCESS, EndReason.HANGUP, cause="the app hung up"))

    async def session(self) -> SessionRunner:
        """Return the session for a sideband; on a call that still rings, wait for its accept first (API row S11)."""
        if self.state is CallState.RINGING:
            try:
                async with asyncio.timeout(self._settings.attach_timeout_s):
                    await self._decided.wait()
            except TimeoutError:
                raise call_not_found() from None
        runner = self._agent.runner
        if runner is None or self.state is CallState.ENDED:
            raise call_not_found()
        return runner

    def shut_down(self) -> None:
        """End the call because the node goes away."""
        cause = "the node was shut down"
        self._hang_up(Termination(Result.SERVER_ERROR, EndReason.SHUTDOWN, cause=cause))

    def describe(self) -> dict[str, Any]:
        """Return the body of `GET /v1/realtime/calls/{id}`."""
        parts = {
            "codec": self._media.codec,
            "media": self._sound.describe(),
            **self._agent.describe(),
            "refers": self._transfer.brief(),
        }
        return self._file.describe(self.state, self.termination, parts)

    def _ended_as(self, reason: EndReason, sip_status: int | None = None) -> bool:
        end = self.termination
        return end is not None and end.reason is reason and sip_status in (None, end.sip_status)

    # What the SIP leg says.

    def leg_cancelled(self, leg: Leg, reason_header: str | None) -> None:
        said = f" ({reason_header})" if reason_header else ""
        waiting = f"; {self._news.silence()}" if self.state is CallState.RINGING else ""
        cause = f"the caller hung up while it rang{said}{waiting}"
        self._end(Termination(Result.CLIENT_ERROR, EndReason.CANCELLED, 487, cause))

    def leg_confirmed(self, leg: Leg) -> None:
        if self.state is CallState.ENDED:
            return
        try:
            self._media.confirmed(leg)
        except negotiate.NotAcceptable as error:
            cause, said = f"no common sound: {error}", create_reason("SIP", 488, str(error))
            end = Termination(Result.CLIENT_ERROR, EndReason.FAILED, None, cause, fault_of(error))
            self._hang_up(end, said)
            return
        self._life.confirmed()
        self._sound.open()

    def leg_offered(self, leg: Leg, request: Request) -> None:
        """Take a re-INVITE or UPDATE: a new offer moves the media, none repeats what stands."""
        if self.state is CallState.ENDED:
            leg.respond(request, 481)
        else:
            self._media.offered(leg, request)
            self._dialog.keep()

    def leg_acknowledged(self, leg: Leg, ack: Request) -> None:
        if self.state is not CallState.ENDED:
            self._media.acknowledged(ack)

    def leg_refreshed(self, leg: Leg, offer: bytes, response: Response) -> None:
        if self.state is not CallState.ENDED:
            self._media.refreshed(offer, response)
            self._dialog.keep()

    def leg_requested(self, leg: Leg, request: Request) -> None:
        if request.method == "INFO" and self.state is not CallState.ENDED:
            self._sound.digits.informed(request)
        else:
            super().leg_requested(leg, request)

    def leg_refer_updated(self, leg: Leg, update: ReferUpdate) -> None:
        self._transfer.updated(update)
        if self._transfer.completed:
            # The carrier waits for our BYE before it joins caller and target.
            self._hang_up(_TRANSFERRED)

    def leg_ended(self, leg: Leg, ended: LegEnded) -> None:
        if self._transfer.completed:
            self._end(_TRANSFERRED)
        elif ended.cause == "remote_bye":
            cause = "the caller hung up" + (f" ({ended.reason_header})" if ended.reason_header else "")
            self._end(Termination(Result.SUCCESS, EndReason.REMOTE_HANGUP, cause=cause))
        else:
            fault = _LEG_FAULTS.get(ended.cause, Fault.DIALOG_LOST)
            reason = EndReason.SESSION_EXPIRED if fault is Fault.SESSION_TIMER else EndReason.FAILED
            self._end(Termination(Result.CLIENT_ERROR, reason, None, ended.text or ended.cause, fault))

    def leg_parted(self, leg: Leg) -> None:
        self._dialog.drop()

    def leg_released(self, leg: Leg) -> None:
        # Each would hold the other until the collector comes.
        leg.listener = None
        self._dialog.drop()

    # Ringing.

    def _use_fallback(self, cause: str, said: str) -> None:
        """Nobody will decide: do what the project says (decision 10). `said` is what the caller's side may know."""
        self._leg.read_waiting()
        if self.state is not CallState.RINGING:
            return
        fallback = self.project.fallback
        if fallback is not None and fallback.accept is not None:
            self._may_fall_back = False
            self.timeline.record("call", f"fallback accepts: {cause}")
            try:
                self._accept(*self._services.engines.judge_standing(fallback.accept))
                self._leg.read_waiting()
                self._agent.speak_first()
            except (EngineUnavailable, ConfigError) as error:
                failed = f"{cause}; the fallback failed: {error}"
                fault = Fault.FALLBACK_FAILED
                end = Termination(Result.SERVER_ERROR, EndReason.FAILED, 503, failed, fault)
                self._refuse(end, "the fallback failed")
            return
        status = fallback.status if fallback is not None else 480
        self._refuse(Termination(Result.UPSTREAM_ERROR, EndReason.UNANSWERED, status, cause), said)

    def _refuse(self, end: Termination, said: str = "") -> None:
        """Refuse the INVITE. The trunk reads `said`: what an app's server answers is none of its business."""
        assert end.sip_status is not None
        self._leg.refuse(end.sip_status, headers=Refusal(end.sip_status, said or end.cause).headers())
        self._end(end)

    # From accept to the first word.

    def _accept(self, config: SessionConfig, given: Mapping[str, Any]) -> None:
        assert self._seat is not None
        factory = self._services.engines.select(config.model)
        engine = self._seat.create_engine(factory, config.model)
        self._agent.reserve(factory, engine, config, given, law=self._media.law, playout=self._sound.playout)
        if self.state is CallState.RINGING:
            self._life.accept()
            self._ringing.end()
            self._decided.set()
        self.timeline.record("call", "accepted", model=config.model)
        limit_s = factory.opening_s or self._settings.engine_timeout_s
        self._establishing = self._tasks.spawn(self._establish(self._agent, limit_s))

    async def _establish(self, agent: CallAgent, limit_s: float) -> None:
        """Warm the agent's engine while it rings, then answer."""
        if self.state is not CallState.ACCEPTED or self._seat is None:
            return
        try:
            port = await open_line(agent, self._seat, limit_s)
        except NotServed as error:
            end = Termination(error.result, EndReason.FAILED, None, str(error), error.fault)
            if agent is self._agent and not self._stand_in(end):
                self._fail(end, error.said)
            return
        self._leg.read_waiting()
        if self.state is not CallState.ACCEPTED or self._leg.state == "ended" or agent is not self._agent:
            # The leg is ahead of its news: a CANCEL may have come that we are told of in a moment.
            port.close()
            return
        try:
            self._answer(port)
        except BaseException:
            port.close()
            raise

    def _stand_in(self, end: Termination) -> bool:
        """Before an accepted call fails for want of its engine, let the fallback's agent have it: once."""
        fallback = self.project.fallback
        if self.state is not CallState.ACCEPTED or end.fault is Fault.NODE_FULL or not self._may_fall_back:
            return False
        assert fallback is not None
        assert fallback.accept is not None
        self._may_fall_back = False
        gone, self._agent = self._agent, self._make_agent()
        self._tasks.spawn(gone.dismiss())
        self.timeline.record("call", f"fallback stands in: {end.cause}", fault=end.fault)
        try:
            self._accept(*self._services.engines.judge_standing(fallback.accept))
        except (EngineUnavailable, ConfigError) as error:
            failed = replace(end, cause=f"{end.cause}; the fallback failed: {error}")
            self._fail(failed, "the fallback failed")
        else:
            self._agent.speak_first()
        return True

    def _answer(self, port: MediaPort) -> None:
        agent = self._agent
        assert agent.runner is not None
        start = partial(
            self._sound.start, port, agent.runner, prompt=agent.hears_promptly, law=self._media.law
        )
        self._sound.capture.watch(port, self._settings.media_host)
        sdp = self._media.open(port, start)
        self._life.answered()
        self._file.answered()
        self._leg.answer(sdp)
        self._news.answered()
        self._save_soon()
        self._dialog.keep()

    def _media_timed_out(self, cause: str) -> None:
        said = create_reason("Q.850", 102, cause)
        self._hang_up(Termination(Result.CLIENT_ERROR, EndReason.MEDIA_TIMEOUT, cause=cause), said)

    def _fail(self, end: Termination, said: str) -> None:
        """An accepted call cannot be served after all."""
        if self.state is not CallState.ACCEPTED:
            return
        fallback = self.project.fallback
        status = fallback.status if fallback is not None and fallback.accept is None else 503
        self._refuse(replace(end, sip_status=status), said)

    # The end.

    def _refer_updated(self, update: dict[str, Any]) -> None:
        self.timeline.record("call", refer_title(update), **update)
        self._agent.publish("call.refer.updated", **update)
        self._news.refer_updated(update)
        self.save()

    def _session_expired(self) -> None:
        """The session reached its limit: end the call as a hangup would (API row S20)."""
        cause, fault = "the session reached its time limit", Fault.SESSION_LIMIT
        self._hang_up(Termination(Result.SUCCESS, EndReason.SESSION_EXPIRED, None, cause, fault))

    def _engine_failed(self, cause: str) -> None:
        result = Result.UPSTREAM_ERROR if self._agent.is_relayed else Result.SERVER_ERROR
        cause = f"the engine failed: {cause}"
        end = Termination(result, EndReason.FAILED, None, cause, Fault.ENGINE_FAILED)
        if not self._stand_in(end):
            self._broken(end, "the engine failed")

    def _broken(self, end: Termination, said: str) -> None:
        """End the call for a fault of this node, or of an upstream, before its answer or after."""
        self._fail(end, said)
        hang_up = partial(self._hang_up, end)
        if self._apology.is_being_said:
            return
        is_heard = self.state is CallState.ACTIVE and not self._media.held
        if not is_heard or not self._apology.say(self._sound.playout, self._media.law, hang_up):
            hang_up()

    def _hang_up(self, end: Termination, said: str = "") -> None:
        """BYE once answered, 480 before; nothing when the call is over. `said` is the Reason that the peer gets."""
        if self.state is not CallState.ENDED:
            rings = self.state in (CallState.RINGING, CallState.ACCEPTED)
            why = create_reason("SIP", 480, end.cause) if rings else create_reason("Q.850", *end.reason.q850)
            self._leg.hangup(reason_header=said or why)
            self._end(replace(end, sip_status=480 if rings else None))

    def _end(self, end: Termination, *, tell: bool = True) -> None:
        if not self._life.end(end):
            return
        self._file.ended()
        self._ringing.end()
        self._decided.set()
        if self._seat is not None:
            self._seat.give_back()
        self._apology.end()
        self._agent.stop()
        self._sound.close()
        self._transfer.call_ended()
        self._media.close()
        self._sound.capture.end()
        self.timeline.record("call", f"ended: {end.cause}", **end.details())
        data = end.to_api()
        self._agent.publish("call.ended", **data)
        if tell:  # before it is saved: a call that is kept as ended has its event kept
            self._news.ended(data)
        if self._agent.runner is not None:  # at whose end the call is saved, with what the session was
            self._tasks.spawn(self._close_session(end.reason.value))
        else:
            self.save()
        self._on_ended(self)

    async def wait_closed(self) -> None:
        """Wait until an ended call has told its sidebands everything and freed its engine."""
        await self._tasks.wait()

    async def _close_session(self, reason: str) -> None:
        try:
            await self._agent.close(reason)
        finally:
            self._establishing = None
            self._sound.forget()
            self.save()

    def _bug_found(self, cause: str) -> None:
        fault = Fault.INTERNAL_ERROR
        self._broken(Termination(Result.SERVER_ERROR, EndReason.FAILED, None, cause, fault), "internal error")
