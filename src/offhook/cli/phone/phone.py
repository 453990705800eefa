"""The caller: places one call, speaks when it is its turn, listens, lets itself be transferred, and comes to an end."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offhook.audio import g711, wav
from offhook.audio.frames import FRAME_SAMPLES, SAMPLE_RATE, Law
from offhook.audio.g711 import Samples
from offhook.calls.media import srtp_terms
from offhook.calls.redaction import redact
from offhook.clock import SystemClock
from offhook.media import negotiate
from offhook.media.crypto import SrtpKeys
from offhook.media.pacer import Pacer
from offhook.media.port import MediaPort, NoFreePort, PortPool
from offhook.sip.endpoint import Endpoint, EndpointConfig, Leg, LegEnded, LegListener
from offhook.sip.message import Request, Response
from offhook.sip.refer import ReferUpdate
from offhook.sip.uri import SipUri
from offhook.tenants import SrtpMode
from offhook.trace import RoutingDecision, StateChange, WireMessage

from .ears import Ears
from .events import Report
from .sound import LineOut, StereoRecording, Utterance, level_db
from .transferee import Transferee
from .turns import Answered, HeardEnded, HeardStarted, TurnTaking

__all__ = ["CallPlan", "Digits", "Outcome", "Phone", "PhoneError", "Turn"]

ALLOW = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REFER", "NOTIFY", "UPDATE")
_TICK_S = 0.010
_AHEAD = 2 * FRAME_SAMPLES
"How much sound waits in the port: enough that a late tick leaves no gap, little enough to know when it is sent."
_BYE_S = 5.0
_AFTERWARDS_S = 20.0
"What the last words were may be found out after the call; on a busy machine that takes its time."


class PhoneError(Exception):
    """The call cannot be placed; the message says why and what would do."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Keys to press as one turn (RFC 4733)."""

    keys: str


Turn = Utterance | Digits


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What the caller does in this call."""

    uri: SipUri
    turns: Sequence[Turn] = ()
    codec: Law = "PCMU"
    caller: str = "caller"
    tls: ssl.SSLContext | None = None
    record: Path | None = None
    ears: Ears | None = None
    hangup_after_s: float | None = None
    "Hang up this long after the other side has answered the last turn; none: only the other side ends the call."
    max_s: float = 120.0
    gap_s: float = 1.0
    patience_s: float = 10.0
    refer_outcome: int = 200
    refuse_refer: int | None = None
    srtp: SrtpMode = "off"
    credentials: tuple[str, str] | None = None
    "User and password for a server that asks for them."


@dataclass(slots=True)
class Outcome:
    """How the call went. `orderly`: it was answered, all was said, and one side said BYE."""

    answered: bool = False
    status: int | None = None
    cause: str = ""
    orderly: bool = False
    transferred: bool = False
    turns: int = 0
    response_ms: list[int] = field(default_factory=list)
    heard_s: float = 0.0
    transcripts: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Phone(LegListener):
    """One phone for one call: `await Phone(plan, report).call()`."""

    def __init__(self, plan: CallPlan, report: Report) -> None:
        self._plan = plan
        self._report = report
        self._outcome = Outcome()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._port: MediaPort | None = None
        self._offer = b""
        self._keys: SrtpKeys | None = None
        self._law: Law = plan.codec
        self._line = LineOut()
        self._left: deque[Turn] = deque(plan.turns)
        self._voice_ends_at: int | None = None
        self._turns: TurnTaking | None = None
        self._recording: StereoRecording | None = None
        self._heard: deque[tuple[float, Samples]] = deque(maxlen=60 * 50)
        self._hang_up_at: float | None = None
        self._we_hung_up = False

    async def call(self) -> Outcome:
        """Place the call and return when it is over. Raises `PhoneError` when it could not even be placed."""
        transport, host, port = _target(self._plan.uri)
        local = _local_address(host, port)
        pacer = Pacer()
        endpoint = Endpoint(
            EndpointConfig(
                listen=(f"{transport}:{_bracketed(local)}:0",) if transport != "tls" else (),
                user_agent="Offhook-phone/0.1",
                tls=None,
                tls_client=self._plan.tls,
                allow=ALLOW,
            ),
            clock=SystemClock(),
            on_invite=_refuse_calls,
        )
        await endpoint.start()
        pacer.start()
        try:
            media = await _media_port(local)
            try:
                await self._dial(endpoint, media, pacer, local)
            finally:
                media.close()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await endpoint.close()
            pacer.close()
        self._keep_recording()
        self._report("ended", **self._outcome.to_dict())
        return self._outcome

    async def _dial(self, endpoint: Endpoint, media: MediaPort, pacer: Pacer, local: str) -> None:
        plan = self._plan
        started = time.monotonic()
        self._offer = negotiate.offer(
            negotiate.LocalMedia(
                host=local,
                port=media.port,
                session_id=int(time.time()),
                session_version=1,
                codecs=(plan.codec,),
                srtp=srtp_terms(plan.srtp),
            )
        )
        self._port, self._pacer = media, pacer
        self._report("dialling", uri=str(plan.uri), local=local, codec=plan.codec, turns=len(plan.turns))
        leg = endpoint.invite(
            str(plan.uri),
            from_uri=f"sip:{plan.caller}@{_bracketed(local)}",
            sdp=self._offer,
            credentials=plan.credentials,
        )
        leg.listener = self
        leg.trace = self._trace
        try:
            async with asyncio.timeout(plan.max_s):
                await self._over.wait()
        except TimeoutError:
            self._note(f"the call is ended: it has lasted {time.monotonic() - started:.0f} s (--max-seconds)")
            await self._give_up(leg, "it lasted longer than --max-seconds")
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(leg, "interrupted"))
            raise
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_AFTERWARDS_S)

    async def _give_up(self, leg: Leg, cause: str) -> None:
        leg.hangup()
        try:
            async with asyncio.timeout(_BYE_S):
                await self._over.wait()
        except TimeoutError:
            pass
        self._outcome.cause, self._outcome.orderly = cause, False

    # What the leg says.

    def leg_provisional(self, leg: Leg, response: Response) -> None:
        pass  # the trace has shown it

    def leg_answered(self, leg: Leg, response: Response) -> None:
        self._outcome.answered, self._outcome.status = True, response.status
        assert self._port is not None
        try:
            plan = negotiate.complete(self._offer, response.body, allow_loopback=True)
        except negotiate.NotAcceptable as error:
            self._outcome.cause = f"the answer's SDP cannot be used: {error}"
            leg.hangup()
            return
        now = time.monotonic()
        self._law = plan.codec
        self._turns = TurnTaking(now, gap_s=self._plan.gap_s, patience_s=self._plan.patience_s)
        self._recording = StereoRecording(now)
        self._report(
            "media",
            codec=plan.codec,
            remote="{}:{}".format(*plan.remote),
            local_port=self._port.port,
            srtp=plan.srtp.suite.name if plan.srtp else None,
        )
        self._keys = plan.srtp
        self._port.start(
            plan,
            pacer=self._pacer,
            on_frame=self._hear,
            on_digit=self._heard_digit,
            on_drained=_nothing_to_do,
        )
        self._spawn(self._talk(leg))

    def leg_refused(self, leg: Leg, response: Response | None, reason: str) -> None:
        self._outcome.status = response.status if response else None
        why = response.headers.get("Reason") if response else None
        self._outcome.cause = f"not answered: {reason}" + (f" ({why})" if why else "")
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            self._outcome.cause += (
                "; trust the node's CA with --ca, which it keeps as offhook-data/tls/ca.pem"
            )
        if response is not None and response.status in (401, 407):
            self._outcome.cause += (
                "; its user or password is not what the other side has"
                if self._plan.credentials
                else "; give the digest user and password of its trunk with --user and --password"
            )
        self._over.set()

    def leg_cancelled(self, leg: Leg, reason_header: str | None) -> None:
        pass  # only legs that were placed to us have this

    def leg_confirmed(self, leg: Leg) -> None:
        pass  # only legs that were placed to us have this

    def leg_offered(self, leg: Leg, request: Request) -> None:
        assert self._port is not None
        if not request.body:
            # An UPDATE without SDP is a session timer's; a re-INVITE without it wants an offer.
            leg.respond(request, 200 if request.method == "UPDATE" else 488)
            return
        local = negotiate.LocalMedia(
            host=self._port.host,
            port=self._port.port,
            session_id=1,
            session_version=2,
            allow_loopback=True,
            srtp=srtp_terms(self._plan.srtp, self._keys),
        )
        try:
            answer = negotiate.answer(request.body, local)
        except negotiate.NotAcceptable:
            leg.respond(request, 488)
            return
        self._keys = answer.plan.srtp
        self._port.update(answer.plan)
        leg.respond(request, 200, body=answer.sdp, content_type="application/sdp")

    def leg_requested(self, leg: Leg, request: Request) -> None:
        if request.method != "REFER":
            leg.respond(request, 501)
            return
        transferee = Transferee(leg, self._report, self._plan.refer_outcome, self._plan.refuse_refer)
        self._spawn(self._be_transferred(transferee, request))

    def leg_refer_updated(self, leg: Leg, update: ReferUpdate) -> None:
        pass  # this phone transfers nobody

    def leg_ended(self, leg: Leg, ended: LegEnded) -> None:
        outcome = self._outcome
        outcome.orderly = ended.cause in ("remote_bye", "local_bye") and not outcome.cause
        if not outcome.cause:
            by = "the caller" if self._we_hung_up else "the other side"
            outcome.cause = f"{by} hung up" if outcome.orderly else (ended.text or ended.cause)
        if outcome.orderly and self._left and not outcome.transferred:
            outcome.orderly = False
            outcome.cause += f" before the caller had said everything ({len(self._left)} turns left)"
        self._over.set()

    def _trace(self, item: WireMessage | StateChange | RoutingDecision) -> None:
        match item:
            case WireMessage():
                text = redact(item.data.decode("utf-8", "replace"))
                title = text.split("\r\n", 1)[0]
                self._report(
                    "sip",
                    at=item.at,
                    direction=item.direction,
                    transport=item.transport,
                    local=item.local,
                    remote=item.remote,
                    title=title,
                    message=text,
                )
            case RoutingDecision():
                self._report("route", at=item.at, text=item.text)
            case StateChange():
                pass  # the messages say as much

    async def _be_transferred(self, transferee: Transferee, request: Request) -> None:
        self._outcome.transferred = await transferee.take(request)

    # Speaking.

    async def _talk(self, leg: Leg) -> None:
        """Keep the line filled, and say the next thing when it is our turn."""
        assert self._turns is not None
        while not self._over.is_set():
            now = time.monotonic()
            self._fill_line(now)
            if (
                self._left
                and not self._line.speaking
                and self._voice_ends_at is None
                and self._turns.may_speak(now)
            ):
                self._take_turn(self._left.popleft(), now)
            self._hang_up_when_done(leg, now)
            await asyncio.sleep(_TICK_S)

    def _take_turn(self, turn: Turn, now: float) -> None:
        assert self._port is not None
        assert self._turns is not None
        self._outcome.turns += 1
        if isinstance(turn, Utterance):
            self._line.say(turn)
            return
        self._turns.began(now)
        self._report("digits", turn=self._turns.turns, digits=turn.keys)
        self._port.send_digits(turn.keys)
        self._turns.finished(now)

    def _fill_line(self, now: float) -> None:
        port, turns = self._port, self._turns
        assert port is not None
        assert turns is not None
        if self._voice_ends_at is not None and port.played_samples >= self._voice_ends_at:
            at = now - (port.played_samples - self._voice_ends_at) / SAMPLE_RATE
            self._voice_ends_at = None
            turns.finished(at)
            self._report("speaking", at=at, state="ended", turn=turns.turns)
        while port.queued_samples < _AHEAD:
            waiting = port.queued_samples
            frame = self._line.next()
            at = now + waiting / SAMPLE_RATE
            port.play(g711.encode(frame.samples, self._law))
            if self._recording is not None:
                self._recording.sent(frame.samples, at)
            if frame.voice_starts is not None:
                turns.began(at)
                self._report(
                    "speaking",
                    at=at,
                    state="started",
                    turn=turns.turns,
                    text=frame.voice_starts.text,
                    seconds=round(frame.voice_starts.seconds, 3),
                )
            if frame.voice_ends is not None:
                self._voice_ends_at = port.played_samples + port.queued_samples

    def _hang_up_when_done(self, leg: Leg, now: float) -> None:
        assert self._turns is not None
        if (
            self._plan.hangup_after_s is None
            or self._left
            or self._line.speaking
            or self._voice_ends_at is not None
        ):
            return
        if self._hang_up_at is None:
            if self._turns.may_speak(now):
                self._hang_up_at = now + self._plan.hangup_after_s
        elif now >= self._hang_up_at and not self._we_hung_up:
            self._we_hung_up = True
            leg.hangup()

    # Listening.

    def _hear(self, audio: bytes) -> None:
        if self._turns is None or self._over.is_set():
            return
        now = time.monotonic()
        samples = g711.decode(audio, self._law)
        if self._recording is not None:
            self._recording.heard(samples, now)
        self._heard.append((now, samples))
        for event in self._turns.hear(level_db(samples), now):
            match event:
                case HeardStarted(at):
                    self._report("heard", at=at, state="started", turn=self._turns.turns)
                case Answered(turn, after_s):
                    self._outcome.response_ms.append(round(after_s * 1000))
                    self._report("answer", turn=turn, ms=round(after_s * 1000))
                case HeardEnded():
                    self._finish_hearing(event)

    def _finish_hearing(self, event: HeardEnded) -> None:
        assert self._turns is not None
        seconds = event.ended_at - event.started_at
        self._outcome.heard_s += seconds
        turn = self._turns.turns
        self._report("heard", at=event.ended_at, state="ended", turn=turn, seconds=round(seconds, 3))
        if self._plan.ears is not None:
            pieces = [
                piece for at, piece in self._heard if event.started_at - 0.2 <= at <= event.ended_at + 0.2
            ]
            self._spawn(self._transcribe(self._plan.ears, np.concatenate(pieces), turn))

    async def _transcribe(self, ears: Ears, samples: Samples, turn: int) -> None:
        text = await ears.transcribe(samples)
        self._outcome.transcripts.append(text)
        self._report("transcript", turn=turn, text=text)

    def _heard_digit(self, digit: str) -> None:
        self._note(f"heard the key {digit}")

    # The rest.

    def _keep_recording(self) -> None:
        if self._plan.record is None or self._recording is None:
            return
        try:
            self._plan.record.parent.mkdir(parents=True, exist_ok=True)
            self._plan.record.write_bytes(wav.write(self._recording.samples(), SAMPLE_RATE))
        except OSError as error:
            raise PhoneError(f"--record: {self._plan.record}: {error.strerror}") from None
        self._report("recording", path=str(self._plan.record))

    def _note(self, text: str) -> None:
        self._report("note", text=text)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._outcome.cause = f"the phone failed: {error!r}"
            self._over.set()


def _refuse_calls(leg: Leg) -> None:
    leg.refuse(486)


def _nothing_to_do() -> None:
    """The line is filled by time, not when it has run dry."""


def _target(uri: SipUri) -> tuple[str, str, int]:
    """Return the transport, host and port that a URI leads to (RFC 3263, without its DNS)."""
    transport = (uri.transport or ("tls" if uri.scheme == "sips" else "udp")).lower()
    if uri.scheme not in ("sip", "sips") or transport not in ("udp", "tcp", "tls"):
        raise PhoneError(f"{uri} is no sip: or sips: URI with transport udp, tcp or tls")
    return transport, uri.host, uri.port or (5061 if transport == "tls" else 5060)


def _local_address(host: str, port: int) -> str:
    """Return our address on the way to the peer. No packet is sent."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.connect(address)
            name: str = probe.getsockname()[0]
            return name
    except OSError as error:
        raise PhoneError(f"no way to {host}: {error}") from None


async def _media_port(local: str) -> MediaPort:
    """Bind a pair of ports somewhere in the upper range."""
    for _ in range(20):
        first = random.randrange(40_000, 60_000, 2)  # noqa: S311 - no secret
        try:
            return PortPool(local, first, first + 1).open()
        except NoFreePort:
            continue
    raise PhoneError(f"no free pair of UDP ports on {local} between 40000 and 60000")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
