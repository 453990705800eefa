"""A call's story told entry by entry, in the shapes of the API: for the judge of verdicts."""

from __future__ import annotations

from offhook.calls.verdict import Story, Verdict, judge

__all__ = ["Tale", "codes", "talk"]

PEER = "203.0.113.7:5060"
SDP = "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"


class Tale:
    """A call's two views, told entry by entry. Times are seconds."""

    def __init__(self, *, theirs="203.0.113.9", engine="local"):
        self.call = {"id": "rtc_u0_1", "state": "ringing", "engine": {"kind": engine}, "refers": []}
        self.data = []
        self.sip(0, "in", "INVITE sip:proj_x@h SIP/2.0", "1 INVITE", SDP.format(host=theirs))
        self.sip(0, "out", "SIP/2.0 100 Trying", "1 INVITE")
        self.sip(0, "out", "SIP/2.0 180 Ringing", "1 INVITE")

    def add(self, at, kind, title, **details):
        self.data.append({"number": len(self.data), "ms": at * 1000, "kind": kind, "title": title, **details})
        return self

    def sip(self, at, direction, start, cseq, body="", headers=""):
        message = f"{start}\r\nCall-ID: c\r\nCSeq: {cseq}\r\n{headers}\r\n{body}"
        return self.add(at, "sip", start, direction=direction, remote=PEER, message=message)

    def webhook(
        self, at, ms, status=200, error=None, *, number=1, endpoint="https://app.example/hook", fault=""
    ):
        return self.add(
            at,
            "webhook",
            f"attempt {number}",
            type="realtime.call.incoming",
            attempt=number,
            endpoint=endpoint,
            status=status,
            duration_ms=ms,
            error=error,
            **({"fault": fault} if fault else {}),
        )

    def rest(self, at, verb, status=200, error=None):
        return self.add(at, "rest", f"POST {verb}: {status}", verb=verb, status=status, error=error)

    def accepted(self, at=1.0, *, answered_at=None):
        self.webhook(at - 0.5, 100)
        self.rest(at, "accept")
        self.call["state"] = "accepted"
        return self.add(at, "call", "accepted", model="m")

    def answered(self, at=1.2, *, ours="198.51.100.4", contact="198.51.100.4", accept=True):
        if accept:
            self.accepted(at - 0.2)
        self.sip(
            at,
            "out",
            "SIP/2.0 200 OK",
            "1 INVITE",
            SDP.format(host=ours),
            f"Contact: <sip:proj_x@{contact}:5060>\r\n",
        )
        self.call |= {"state": "active", "answered_at": 1}
        return self

    def said(self, at, words="Hello."):
        return self.add(at, "said", words)

    def upstream(self, at, title, **facts):
        """`opened`, `refused` or `lost`."""
        return self.add(at, "upstream", title, **facts)

    def sound(self, at, *, packets=1000, **counts):
        quality = {"inbound": {"packets": packets, "loss_percent": 0.0, "jitter_ms": 1.0, "mos": 4.4}}
        quality["outbound"] = {"packets": 1000, "loss_percent": None}
        for name in ("inbound", "outbound"):
            quality[name] |= counts.pop(name, {})
        counts = {"packets_in": packets, "packets_out": 1000, "played_ms": 1000} | counts
        return self.add(at, "media", f"rtp: {packets} packets in", **counts, quality=quality)

    def ended(self, at, reason, cause="", *, sip_status=None, sound=True, fault=None):
        if sound and self.call.get("answered_at") and not any("rtp: " in e["title"] for e in self.data):
            self.sound(at)
        end = {"result": "x", "reason": reason, "cause": cause, "sip_status": sip_status}
        self.call |= {"state": "ended", "termination": {k: v for k, v in end.items() if v}}
        return self.add(at, "call", f"ended: {cause}", **self.call["termination"], fault=fault)

    def cancelled(self, at, *headers):
        self.sip(at, "in", "CANCEL sip:proj_x@h SIP/2.0", "1 CANCEL", headers="".join(headers))
        return self.ended(at, "cancelled", "the caller hung up while it rang", sip_status=487)

    def refer(self, at, status, *, sip_status=None, reason="", before=(), headers=None):
        number = len(self.call["refers"]) + 1
        brief = {"refer": number, "target_uri": "tel:+1", "sip_status": sip_status, "reason": reason}
        self.sip(at, "out", "REFER sip:x SIP/2.0", "2 REFER")
        for each in (*before, status):
            self.add(at, "call", f"transfer {number}: {each}", **brief, status=each)
        self.call["refers"].append({**brief, "status": status, "headers": headers or {}})
        return self

    def judge(self) -> Verdict:
        return judge(Story.of(self.call, {"data": self.data}))


def codes(verdict):
    return [verdict.code, *(other.code for other in verdict.also)]


def talk(**options):
    """A call in which both spoke."""
    return Tale(**options).answered().said(2).add(4, "turn", "answered", first_played_ms=700.0)
