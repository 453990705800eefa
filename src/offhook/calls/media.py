"""What one call's two sides agree on about sound: offers, answers, and the port that they move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from offhook import ids
from offhook.audio.frames import Law
from offhook.media import negotiate
from offhook.media.crypto import SrtpKeys, SrtpTerms
from offhook.media.port import MediaPort
from offhook.sip.flow import format_address
from offhook.sip.headers import HeaderError
from offhook.sip.leg import Leg
from offhook.sip.message import Request, Response
from offhook.sip.multipart import find_body
from offhook.sip.offers import has_sdp
from offhook.tenants import SrtpMode

from .admission import Refusal
from .record import Fault
from .services import CallSettings
from .timeline import Timeline

__all__ = ["CallMedia", "fault_of", "offer_of", "srtp_terms"]

DEFAULT_LAW: Law = "PCMU"
"What the session speaks when it begins before the peer has said what it takes."

_LAWS: tuple[Law, ...] = ("PCMU", "PCMA")


class CallMedia:
    """
    The SDP side of a call (RFC 3264): what we say to the INVITE, then whatever re-INVITEs and UPDATEs bring.

    The session speaks one law from its beginning to its end. When the peer changes to the other one, the port converts.
    """

    def __init__(
        self,
        offer: negotiate.Judgement | None,
        settings: CallSettings,
        timeline: Timeline,
        *,
        session_id: int,
        srtp: SrtpMode,
        signalling_host: str = "",
    ) -> None:
        """`offer` is what the INVITE's leads to; `None` when it has none. `srtp` is what the project wants."""
        plan = offer.plan if offer is not None else None
        self.law: Law = plan.codec if plan is not None else DEFAULT_LAW
        "What the session speaks."
        self.codec: Law | None = plan.codec if plan is not None else None
        "What goes over the network; `None` before that is agreed on."
        secure = srtp == "required" if plan is None else plan.srtp is not None
        self.security = "srtp" if secure else "rtp"
        "What the INVITE's offer leads to, or ours at least."
        self.port: MediaPort | None = None
        "Set by `open`, given back by `close`."
        self.held = False
        "The peer has put the call on hold: the agent's sound waits."
        self._settings = settings
        self._timeline = timeline
        self._session_id = session_id
        self._signalling_host = signalling_host
        self._srtp: SrtpMode = srtp
        self._keys: SrtpKeys | None = None
        self._version = 1
        self._offer = offer
        self._own_offer: bytes | None = None
        self._said = b""
        "The description that was sent last, whatever became of it."
        self._start: Callable[[negotiate.MediaPlan], None] | None = None
        self._plan: negotiate.MediaPlan | None = None

    @property
    def is_agreed(self) -> bool:
        """Whether sound flows by a plan; not so while our 200 had an offer and the ACK is not in."""
        return self.port is not None and self._start is None

    def open(self, port: MediaPort, start: Callable[[negotiate.MediaPlan], None]) -> bytes:
        """Return the SDP of our 200, and let `start` begin sound by a plan: now, or with the answer in the ACK."""
        if self._offer is None:
            self._own_offer = self._said = negotiate.offer(self._local(port))
            self.port, self._start = port, start
            self._timeline.record(
                "sdp", f"the INVITE has no offer; offered {port.port}, the ACK has to answer"
            )
            return self._own_offer
        offer, self._offer = self._offer, None
        start(offer.plan)
        self.port, self._said = port, offer.answer(self._local(port))
        self._agreed(offer.plan, port)
        return self._said

    def confirmed(self, leg: Leg) -> None:
        """Take the ACK to our first 200. Raises `NotAcceptable` when it owes us an answer that can be used."""
        if self._start is None or self.port is None or self._own_offer is None:
            return
        assert leg.ack is not None
        if not has_sdp(leg.ack):
            raise negotiate.NotAcceptable("the ACK has no answer to the offer in our 200")
        plan = negotiate.complete(self._own_offer, offer_of(leg.ack), signalling_host=self._signalling_host)
        start, self._start, self._own_offer = self._start, None, None
        start(plan)
        self._agreed(plan, self.port)

    def offered(self, leg: Leg, request: Request) -> None:
        """Answer a re-INVITE or UPDATE."""
        if not has_sdp(request):
            self._repeat(leg, request)
        elif self.port is None or not self.is_agreed:
            leg.respond(request, 491)
        else:
            self._take(leg, request, self.port)

    def acknowledged(self, ack: Request) -> None:
        """Take the ACK to a re-INVITE; it has the peer's answer when our 200 had the offer (RFC 3264 section 4)."""
        offer, self._own_offer = self._own_offer, None
        if offer is None or self.port is None or not self.is_agreed:
            return
        try:
            plan = self._complete(offer, ack)
        except negotiate.NotAcceptable as error:
            self._timeline.record("sdp", f"the answer in the ACK cannot be used, the sound stays: {error}")
            return
        self._move(self.port, plan)

    def refreshed(self, offer: bytes, response: Response) -> None:
        """Take the peer's answer to our SDP as it stood; a session timer's re-INVITE asks for no change."""
        if self.port is None or not self.is_agreed or not response.body:
            return
        try:
            plan = self._complete(offer, response)
        except negotiate.NotAcceptable as error:
            text = f"the answer to our refresh cannot be used, the sound stays: {error}"
            self._timeline.record("sdp", text)
            return
        # What digits may come as is ours to say, and the same whoever offered.
        if self._plan is None or replace(plan, dtmf_receive=self._plan.dtmf_receive) != self._plan:
            self._move(self.port, plan)

    def _complete(self, offer: bytes, message: Request | Response) -> negotiate.MediaPlan:
        """Return what an answer in mid call leads to. Raises `NotAcceptable`, also for one that gives up SRTP."""
        plan = negotiate.complete(offer, offer_of(message), signalling_host=self._signalling_host)
        if self._keys is not None and plan.srtp is None:
            raise negotiate.NotAcceptable("the call runs by SRTP and stays with it")
        return plan

    def close(self) -> None:
        """Give the port back."""
        port, self.port = self.port, None
        if port is not None:
            port.close()

    def _take(self, leg: Leg, request: Request, port: MediaPort) -> None:
        try:
            answer = negotiate.answer(offer_of(request), self._local(port, self._version + 1))
        except negotiate.NotAcceptable as error:
            self._timeline.record("sdp", f"refused a new offer, the sound stays: {error}")
            leg.respond(request, 488, headers=Refusal(488, str(error)).headers())
            return
        self._move(port, answer.plan)
        leg.respond(request, 200, body=self._say(answer.sdp), content_type="application/sdp")

    def _say(self, sdp: bytes) -> bytes:
        """
        Return what is to be sent: this, of the next version, or what was sent last where that says the same.

        Each description that differs has a higher version, or the peer may take it for the one before; and one that
        does not has the same (RFC 3264 section 8).
        """
        if not negotiate.is_same(sdp, self._said):
            self._version += 1
            self._said = sdp
        return self._said

    def _repeat(self, leg: Leg, request: Request) -> None:
        """Answer a request without SDP: an UPDATE wants none, a re-INVITE wants our offer (RFC 3261 section 14.2)."""
        if request.method != "INVITE":
            leg.respond(request, 200)
        elif self.port is None or not self.is_agreed:
            leg.respond(request, 491)
        else:
            local = self._local(self.port, self._version + 1)
            self._own_offer = self._say(negotiate.offer(local, self._said))
            leg.respond(request, 200, body=self._own_offer, content_type="application/sdp")

    def _agreed(self, plan: negotiate.MediaPlan, port: MediaPort) -> None:
        self.codec, self._keys, self._plan = plan.codec, plan.srtp, plan
        self._timeline.record(
            "sdp",
            f"agreed on {plan.codec} with {format_address(plan.remote)} from port {port.port}{_protected(plan)}",
            codec=plan.codec,
            telephone_event=plan.dtmf_payload_type,
            srtp=plan.srtp.suite.name if plan.srtp else None,
        )
        self._note_hold(plan)

    def _note_hold(self, plan: negotiate.MediaPlan) -> None:
        if plan.held != self.held:
            self._timeline.record("sdp", "the caller holds the call" if plan.held else "the caller is back")
        self.held = plan.held

    def _move(self, port: MediaPort, plan: negotiate.MediaPlan) -> None:
        self._plan = plan
        port.update(plan)
        if plan.codec != self.codec:
            self._timeline.record("sdp", f"the codec changes from {self.codec} to {plan.codec}")
        self._note_hold(plan)
        rekeyed = ", with new keys" if plan.srtp and self._keys and plan.srtp != self._keys else ""
        self.codec, self._keys = plan.codec, plan.srtp
        self._timeline.record(
            "sdp",
            f"sound now goes to {format_address(plan.remote)}{_protected(plan)}{rekeyed}",
            direction=plan.direction,
            srtp=plan.srtp.suite.name if plan.srtp else None,
        )

    def _local(self, port: MediaPort, version: int = 1) -> negotiate.LocalMedia:
        first = self.codec or self.law
        return negotiate.LocalMedia(
            host=self._settings.media_host,
            port=port.port,
            session_id=self._session_id,
            session_version=version,
            # In an offer of ours the order counts: what is in use comes first.
            codecs=(first, *(law for law in _LAWS if law != first)),
            signalling_host=self._signalling_host,
            own_ports=self._settings.media_ports,
            srtp=srtp_terms(self._srtp, self._keys),
        )


def srtp_terms(mode: SrtpMode, standing: SrtpKeys | None = None) -> SrtpTerms | None:
    """Return what is wanted of SRTP in a negotiation; `standing` is what the call runs by already."""
    if mode == "off":
        return None
    if standing is None:
        return _TERMS[mode]
    return SrtpTerms(ids.key_material, required=mode == "required", standing=standing)


_TERMS: Mapping[SrtpMode, SrtpTerms] = {
    "optional": SrtpTerms(ids.key_material),
    "required": SrtpTerms(ids.key_material, required=True),
}


def _protected(plan: negotiate.MediaPlan) -> str:
    return f" by SRTP, {plan.srtp.suite.name}" if plan.srtp else ""


_FAULTS: Mapping[negotiate.Disagreement, Fault] = {
    "codec": Fault.NO_COMMON_CODEC,
    "srtp required": Fault.SRTP_REQUIRED,
    "srtp": Fault.SRTP_REFUSED,
    "description": Fault.OFFER_UNUSABLE,
}


def fault_of(error: negotiate.NotAcceptable) -> Fault:
    return _FAULTS[error.about]


def offer_of(message: Request | Response) -> bytes:
    """Return the SDP of an INVITE, UPDATE, ACK or 200, also from a multipart body. Raises `NotAcceptable`."""
    try:
        offer = find_body(message, "application/sdp")
    except HeaderError as error:
        raise negotiate.NotAcceptable(f"the body cannot be read: {error}") from None
    if not offer:
        raise negotiate.NotAcceptable(f"{message.cseq.method} has no SDP")
    return offer
