"""One stream's RTCP: when to report, what to say, what the peer's reports mean (RFC 3550 section 6)."""

from __future__ import annotations

from typing import Final

from offhook.audio.frames import SAMPLE_RATE
from offhook.media.reception import Reception
from offhook.media.rtcp import (
    Goodbye,
    Packet,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    goodbye,
    middle_of,
    ntp_time,
)

__all__ = ["Reports"]

INTERVAL_S: Final = 5.0
_CNAME: Final = 1


class Reports:
    """
    The control side of one stream.

    `due` is when `create` should be called next. Time comes as monotonic seconds; `wall_offset` added to it gives
    seconds since 1970, for the NTP time stamps.
    """

    __slots__ = (
        "_description",
        "_last_sr",
        "_last_sr_at",
        "_spread",
        "_ssrc",
        "_wall_offset",
        "due",
        "remote_jitter",
        "remote_lost",
        "rtt_s",
        "said_goodbye",
    )

    def __init__(self, ssrc: int, cname: str, *, now: float, wall_offset: float) -> None:
        self.rtt_s: float | None = None
        self.remote_lost: int | None = None
        self.remote_jitter: int | None = None
        self.said_goodbye = False
        self._ssrc = ssrc
        self._description = bytes(SourceDescription(ssrc, ((_CNAME, cname.encode()[:255]),)))
        self._wall_offset = wall_offset
        self._spread = ssrc & 0xFFFFFFFF
        # Section 6.2: the first after half an interval.
        self.due = now + self._interval() / 2
        self._last_sr = 0
        self._last_sr_at = 0.0

    def _interval(self) -> float:
        """Return 0.5 to 1.5 intervals, so that streams do not report in step (section 6.3.1)."""
        self._spread = (self._spread * 1664525 + 1013904223) & 0xFFFFFFFF
        return INTERVAL_S * (0.5 + self._spread / 2**32)

    def create(
        self,
        now: float,
        *,
        timestamp: int,
        packets: int,
        octets: int,
        sending: bool,
        reception: Reception | None,
    ) -> bytes:
        """
        Return the report that is due, and set the next date.

        `timestamp` is the RTP clock at `now`. Without packets sent since the last report it is an RR.
        """
        self.due = now + self._interval()
        blocks = (self._block(reception, now),) if reception is not None else ()
        report: SenderReport | ReceiverReport
        if sending:
            ntp = ntp_time(now + self._wall_offset)
            report = SenderReport(self._ssrc, ntp, timestamp, packets, octets, blocks)
        else:
            report = ReceiverReport(self._ssrc, blocks)
        return bytes(report) + self._description

    def create_goodbye(self) -> bytes:
        """Return the last compound of the stream."""
        return goodbye(self._ssrc, self._description)

    def receive(self, packets: list[Packet], now: float) -> bool:
        """Take in what the peer reports. Returns whether any of it is about our stream."""
        about_us = False
        for packet in packets:
            if isinstance(packet, SenderReport):
                self._last_sr, self._last_sr_at = middle_of(packet.ntp), now
            if isinstance(packet, SenderReport | ReceiverReport):
                for block in packet.blocks:
                    if block.ssrc == self._ssrc:
                        self._receive_block(block, now)
                        about_us = True
            elif isinstance(packet, Goodbye):
                self.said_goodbye = True
        return about_us

    def _receive_block(self, block: ReportBlock, now: float) -> None:
        self.remote_lost, self.remote_jitter = block.cumulative_lost, block.jitter
        if block.last_sr:
            # Section 6.4.1, figure 2: A - LSR - DLSR, in 1/65536 s.
            arrived = middle_of(ntp_time(now + self._wall_offset))
            trip = arrived - block.last_sr - block.delay_since_last_sr & 0xFFFFFFFF
            # Clocks are coarse: a little below zero is zero; far off is a peer that does not mean it.
            if trip >= 0x80000000:
                trip = 0 if trip > 0xFFFFFFFF - 0x10000 // 10 else trip
            if trip < 60 * 0x10000:
                self.rtt_s = trip / 0x10000

    def forget_peer(self) -> None:
        """The peer's source changed: its last SR no longer counts."""
        self._last_sr = 0

    def _block(self, reception: Reception, now: float) -> ReportBlock:
        delay = int((now - self._last_sr_at) * 0x10000) if self._last_sr else 0
        return ReportBlock(
            ssrc=reception.ssrc,
            fraction_lost=reception.fraction_lost(),
            cumulative_lost=reception.lost,
            highest_sequence=reception.highest_sequence,
            jitter=int(reception.jitter),
            last_sr=self._last_sr,
            delay_since_last_sr=delay,
        )

    @property
    def remote_jitter_ms(self) -> float | None:
        return None if self.remote_jitter is None else self.remote_jitter * 1000 / SAMPLE_RATE
