"""What one call's two sides agree on about sound: offers, answers, and the port that they move."""

from __future__ import annotations

from offhook.media import negotiate
from offhook.media.port import MediaPort
from offhook.sip.flow import format_address
from offhook.sip.headers import HeaderError
from offhook.sip.leg import Leg
from offhook.sip.message import Request
from offhook.sip.multipart import find_body

from .services import CallSettings
from .timeline import Timeline

__all__ = ["CallMedia", "offer_of"]


class CallMedia:
    """
    The SDP side of a call (RFC 3264): our answer to the INVITE, then whatever re-INVITEs and UPDATEs bring.

    The codec is agreed on once. The session runs in it, so a later offer without it is refused and the sound stays.
    """

    def __init__(
        self, plan: negotiate.MediaPlan, settings: CallSettings, timeline: Timeline, *, session_id: int
    ) -> None:
        self.codec = plan.codec
        self.port: MediaPort | None = None
        "Set once it sends by our answer; whoever sets it closes it."
        self._settings = settings
        self._timeline = timeline
        self._session_id = session_id
        self._version = 1
        self._own_offer: bytes | None = None

    def answer(self, invite: Request, port: MediaPort) -> negotiate.Answer:
        """Return the answer to the INVITE's offer. Raises `NotAcceptable`."""
        answer = negotiate.answer(offer_of(invite), self._local(port, self._version))
        plan = answer.plan
        self._timeline.record(
            "sdp",
            f"answered {plan.codec} to {format_address(plan.remote)} from port {port.port}",
            codec=plan.codec,
            telephone_event=plan.dtmf_payload_type,
        )
        return answer

    def offered(self, leg: Leg, request: Request) -> None:
        """Answer a re-INVITE or UPDATE."""
        if self.port is None:
            leg.respond(request, 488)
        elif not request.body:
            self._repeat(leg, request, self.port)
        else:
            self._take(leg, request, self.port)

    def acknowledged(self, ack: Request) -> None:
        """Take the ACK to a re-INVITE; it has the peer's answer when our 200 had the offer (RFC 3264 section 4)."""
        offer, self._own_offer = self._own_offer, None
        if offer is None or self.port is None or not ack.body:
            return
        try:
            plan = negotiate.complete(offer, offer_of(ack))
        except negotiate.NotAcceptable as error:
            self._timeline.record("sdp", f"the answer in the ACK cannot be used, the sound stays: {error}")
            return
        self._move(self.port, plan)

    def _take(self, leg: Leg, request: Request, port: MediaPort) -> None:
        try:
            answer = negotiate.answer(offer_of(request), self._local(port, self._version + 1))
        except negotiate.NotAcceptable as error:
            self._timeline.record("sdp", f"refused a new offer, the sound stays: {error}")
            leg.respond(request, 488)
            return
        # Each description that differs has a higher version, or the peer may take it for the one before.
        self._version += 1
        self._move(port, answer.plan)
        leg.respond(request, 200, body=answer.sdp, content_type="application/sdp")

    def _repeat(self, leg: Leg, request: Request, port: MediaPort) -> None:
        """Answer a request without SDP, as session timers send them (RFC 4028 section 7.4)."""
        if request.method != "INVITE":
            leg.respond(request, 200)
            return
        self._version += 1
        self._own_offer = negotiate.offer(self._local(port, self._version))
        leg.respond(request, 200, body=self._own_offer, content_type="application/sdp")

    def _move(self, port: MediaPort, plan: negotiate.MediaPlan) -> None:
        port.update(plan)
        self._timeline.record(
            "sdp", f"sound now goes to {format_address(plan.remote)}", direction=plan.direction
        )

    def _local(self, port: MediaPort, version: int) -> negotiate.LocalMedia:
        return negotiate.LocalMedia(
            host=self._settings.media_host,
            port=port.port,
            session_id=self._session_id,
            session_version=version,
            codecs=(self.codec,),
            own_ports=self._settings.media_ports,
        )


def offer_of(request: Request) -> bytes:
    """Return the SDP of an INVITE, UPDATE or ACK, also from a multipart body. Raises `NotAcceptable`."""
    try:
        offer = find_body(request, "application/sdp")
    except HeaderError as error:
        raise negotiate.NotAcceptable(f"the body cannot be read: {error}") from None
    if not offer:
        raise negotiate.NotAcceptable(
            f"{request.method} has no SDP offer; this node does not make one itself yet"
        )
    return offer
