"""
One call's sound on the network, with no network: datagrams in, frames and digits out, and back.

The driver hands in datagrams as they come, and every 20 ms asks for the packet to send and the frame that was
heard. G.711 stays G.711 in here; sound is decoded only to conceal a loss.
"""

from __future__ import annotations

from typing import Final

from offhook.audio.frames import FRAME_MS, SAMPLE_RATE
from offhook.media.crypto import SrtpKeys
from offhook.media.latch import Latch, Source
from offhook.media.negotiate import UNSPECIFIED, MediaPlan
from offhook.media.receiver import Receiver
from offhook.media.reports import Reports
from offhook.media.rtcp import RtcpError, parse_compound
from offhook.media.rtp import HEADER, HEADER_SIZE, PLAIN, is_rtcp
from offhook.media.sender import Sender
from offhook.media.srtp import Srtp
from offhook.media.stats import MediaEvent, MediaEventKind, MediaStats, StreamEvent

__all__ = ["MediaStream"]

UNAUTHENTIC_SAID: Final = 25
"""Packets that fail authentication before it is said, once: half a second. A few fail at every change of keys."""


class MediaStream:
    """
    The pure core of a call's media.

    After every call of a method, look at `events`, and when there are any, take them with `take_events`. Every
    20 ms send what `next_packet()` returns to `destination`, then take `next_frame(now)`. When `now` has reached
    `report_due`, send `create_report` to `rtcp_destination`.

    A `prompt` stream gives sound that came in order before its turn: take `early_frame()` until it is `None`, after
    each datagram and each `next_frame`.
    """

    __slots__ = (
        "_malformed",
        "_packets_acknowledged",
        "_packets_reported",
        "_refusal_said",
        "_reports",
        "_rtcp_source",
        "_skipped_ticks",
        "_srtp",
        "_ssrc_changes",
        "_unauthentic_from",
        "_unauthentic_said",
        "destination",
        "early_frame",
        "events",
        "latch",
        "next_frame",
        "next_packet",
        "plan",
        "receiver",
        "sender",
    )

    def __init__(
        self,
        plan: MediaPlan,
        *,
        ssrc: int,
        sequence: int,
        timestamp: int,
        cname: str,
        now: float,
        wall_offset: float,
        prompt: bool = False,
    ) -> None:
        """
        `ssrc` (32 bits), `sequence` (16) and `timestamp` (32) are to be random (RFC 3550 section 5.1). `wall_offset` is
        wall time minus monotonic time.
        """
        self.events: list[StreamEvent] = []
        self.plan = plan
        self.latch = Latch(plan.remote, plan.signalling_host, learns=plan.receives)
        self.destination: Source = plan.remote
        self.sender = Sender(plan, self.events, ssrc=ssrc, sequence=sequence, timestamp=timestamp)
        self.receiver = Receiver(plan, self.events, prompt=prompt)
        self._srtp = Srtp(plan.srtp) if plan.srtp is not None else None
        self.latch.authentic = self._srtp is not None
        self.next_packet = self.sender.next_packet if self._srtp is None else self._next_protected
        "Return the datagram for the next 20 ms, or `None` when we are not to send."
        self.next_frame = self.receiver.next_frame
        "Return 20 ms of the peer's sound, in the plan's codec; `None` before the first packet, or when given early."
        self.early_frame = self.receiver.early_frame
        "Return 20 ms of the peer's sound that are there before their turn, else `None`."
        self._reports = Reports(ssrc, cname, now=now, wall_offset=wall_offset)
        self._packets_reported = 0
        self._packets_acknowledged = 0
        self._rtcp_source: Source | None = None
        self._refusal_said = False
        self._ssrc_changes = 0
        self._skipped_ticks = 0
        self._malformed = 0
        self._unauthentic_said = False
        self._unauthentic_from = 0

    # Intents.

    def renegotiate(self, plan: MediaPlan) -> None:
        """Go on by a new plan (re-INVITE): the peer's address is judged anew, clocks and counts go on."""
        if plan.remote != self.plan.remote:
            self._rtcp_source = None
        self._secure(plan.srtp)
        self.plan = plan
        self.latch.renegotiate(plan.remote, learns=plan.receives and not plan.held)
        self.destination = self.latch.destination
        self._refusal_said = False
        self.sender.renegotiate(plan)
        self.receiver.renegotiate(plan)

    def _secure(self, keys: SrtpKeys | None) -> None:
        """Go on by new keys, or by those that stand."""
        if keys != self.plan.srtp:
            self._unauthentic_said = False
            self._unauthentic_from = 0 if self._srtp is None else self._srtp.failed
        if keys is None or self._srtp is None:
            self._srtp = None if keys is None else Srtp(keys)
        else:
            self._srtp.renegotiate(keys)
        self.latch.authentic = self._srtp is not None
        self.next_packet = self.sender.next_packet if keys is None else self._next_protected

    def skip(self, frames: int) -> None:
        """Leave out frames for which the driver came too late."""
        self._skipped_ticks += frames
        self.sender.skip(frames)
        self.receiver.skip(frames)

    def take_events(self) -> list[StreamEvent]:
        """Take everything that happened since the last call, in order."""
        events = self.events[:]
        self.events.clear()
        return events

    # Datagrams out.

    def _next_protected(self) -> bytes | None:
        packet = self.sender.next_packet()
        return packet if packet is None or self._srtp is None else self._srtp.protect(packet)

    # Datagrams in.

    def receive_rtp(self, data: bytes, source: Source, now: float) -> None:
        """Take a datagram from the RTP port. Never raises: what is no good is counted."""
        if len(data) < HEADER_SIZE or data[0] & 0xC0 != PLAIN or 192 <= data[1] <= 223:
            self._receive_other(data, source, now)
        elif self._srtp is not None:
            self._receive_protected(self._srtp, data, source, now)
        elif source == self.latch.source:
            self.receiver.receive(data, now)
        else:
            self._receive_elsewhere(data, source, now)

    def _receive_protected(self, srtp: Srtp, data: bytes, source: Source, now: float) -> None:
        """Take SRTP. Nothing is learned from a packet that is not authentic, not even where it came from."""
        known = source == self.latch.source
        if known or self.latch.may_admit(source):
            plain = srtp.unprotect(data)
            if plain is None:
                self._say_unauthentic(srtp, now)
                return
            data = plain
        # Who cannot be admitted is not looked into: a copy that is sent ahead must not use up the original.
        if known:
            self.receiver.receive(data, now)
        else:
            self._receive_elsewhere(data, source, now)

    def _say_unauthentic(self, srtp: Srtp, now: float) -> None:
        if not self._unauthentic_said and srtp.failed >= self._unauthentic_from + UNAUTHENTIC_SAID:
            self._unauthentic_said = True
            failed = srtp.failed - self._unauthentic_from
            self._say("unauthentic", now, f"{failed} packets failed authentication: wrong key, or no SRTP?")

    def _receive_other(self, data: bytes, source: Source, now: float) -> None:
        """Take what is no RTP: RTCP that came by this port (RFC 5761 section 4), or garbage."""
        if is_rtcp(data):
            self.receive_rtcp(data, source, now)
        else:
            self._malformed += 1

    def _receive_elsewhere(self, data: bytes, source: Source, now: float) -> None:
        """Take a packet from a source that is not the locked one, or the first from it."""
        _, second, sequence, _, ssrc = HEADER.unpack_from(data)
        if not self.receiver.knows(second & 0x7F):
            self.latch.foreign += 1
            return
        before = self.latch.source
        admitted = self.latch.admit(source, ssrc, sequence, data, now)
        if admitted is None:
            if before is not None and not self._refusal_said:
                self._refusal_said = True
                self._say("source_refused", now, f"{_text(source)} sends to this call's port; dropped")
            return
        self.destination = self.latch.destination
        if self.receiver.reception is None:
            self._say("receiving", now, f"first packet from {_text(source)}")
        if self.latch.learned or before is not None:
            self._rtcp_source = None
            self._say(
                "latched", now, f"sound comes from {_text(source)}; the SDP has {_text(self.latch.expected)}"
            )
        for datagram, at in admitted:
            self.receiver.receive(datagram, at)

    def receive_rtcp(self, data: bytes, source: Source, now: float) -> None:
        """Take a datagram from the RTCP port. Never raises."""
        if not is_rtcp(data) or not self._may_report(source):
            self.latch.foreign += 1
            return
        if self._srtp is not None:
            plain = self._srtp.unprotect_rtcp(data)
            if plain is None:
                self._say_unauthentic(self._srtp, now)
                return
            data = plain
        try:
            packets = parse_compound(data)
        except RtcpError:
            self._malformed += 1
            return
        # A NAT has ports of its own: reports go back to where reports come from. Only a peer whose sound had to be
        # learned has one; else a neighbour on its host could draw them off.
        if source[:2] != self.plan.remote_rtcp and self.latch.learned:
            self._rtcp_source = source
        if self.receiver.ssrc_changes != self._ssrc_changes:
            self._ssrc_changes = self.receiver.ssrc_changes
            self._reports.forget_peer()
        said = self._reports.said_goodbye
        if self._reports.receive(packets, now):
            self._packets_acknowledged = self.sender.packets
        if self._reports.said_goodbye and not said:
            self._say("goodbye", now, "the peer's RTCP says goodbye")

    def _may_report(self, source: Source) -> bool:
        """Return whether reports are taken from here: from the SDP's address for them, or the locked source's host."""
        locked = self.latch.source
        return source[:2] == self.plan.remote_rtcp or (locked is not None and locked[0] == source[0])

    # Reports out.

    @property
    def report_due(self) -> float:
        """When `create_report` is to be called next."""
        return self._reports.due

    @property
    def rtcp_destination(self) -> Source | None:
        """Where to send RTCP; `None` while there is no address that may be sent to."""
        if self.plan.remote[0] in UNSPECIFIED or self.plan.remote_rtcp[0] in UNSPECIFIED:
            return None
        if self._rtcp_source is not None:
            return self._rtcp_source
        if self.latch.learned:
            return None
        return self.plan.remote_rtcp

    def create_report(self, now: float) -> bytes:
        """Return the report that is due: an SR when we sent since the last one, else an RR."""
        sender = self.sender
        sending = sender.packets != self._packets_reported
        self._packets_reported = sender.packets
        report = self._reports.create(
            now,
            timestamp=sender.timestamp,
            packets=sender.packets,
            octets=sender.octets,
            sending=sending,
            reception=self.receiver.reception,
        )
        return report if self._srtp is None else self._srtp.protect_rtcp(report)

    def create_goodbye(self) -> bytes:
        """Return what to send to `rtcp_destination` at the end."""
        goodbye = self._reports.create_goodbye()
        return goodbye if self._srtp is None else self._srtp.protect_rtcp(goodbye)

    def stats(self) -> MediaStats:
        """Return the counts so far."""
        receiver, jitter, reports = self.receiver, self.receiver.jitter, self._reports
        reception = receiver.reception
        return MediaStats(
            packets_in=receiver.packets,
            packets_out=self.sender.packets,
            lost=receiver.lost,
            late=jitter.late,
            concealed=receiver.concealed,
            reordered=receiver.reordered,
            duplicates=receiver.duplicates,
            malformed=self._malformed + receiver.malformed,
            foreign=self.latch.foreign,
            jitter_ms=0.0 if reception is None else reception.jitter * 1000 / SAMPLE_RATE,
            buffer_ms=jitter.depth * FRAME_MS,
            stretched=jitter.stretched,
            skipped=jitter.skipped,
            resyncs=jitter.resyncs,
            ssrc_changes=receiver.ssrc_changes,
            srtp=None if self._srtp is None else self._srtp.keys.suite.name,
            unauthentic=0 if self._srtp is None else self._srtp.failed,
            replayed=0 if self._srtp is None else self._srtp.replayed,
            skipped_ticks=self._skipped_ticks,
            remote=_text(self.destination) if self.sender.sends else "",
            remote_ssrc=None if reception is None else reception.ssrc,
            last_received_at=receiver.last_received_at,
            rtt_ms=None if reports.rtt_s is None else reports.rtt_s * 1000,
            remote_lost=reports.remote_lost,
            remote_jitter_ms=reports.remote_jitter_ms,
            packets_reported=self._packets_acknowledged,
        )

    def _say(self, kind: MediaEventKind, now: float, text: str) -> None:
        self.events.append(MediaEvent(kind, now, text))


def _text(source: Source) -> str:
    host = f"[{source[0]}]" if ":" in source[0] else source[0]
    return f"{host}:{source[1]}"
