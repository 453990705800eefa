"""A table of calls without sockets for SIP or HTTP: legs and announcer only remember what was asked of them."""

import itertools
from ipaddress import ip_network

import pytest

from offhook.calls.manager import CallManager
from offhook.calls.services import CallServices, CallSettings
from offhook.clock import SystemClock
from offhook.media.pacer import Pacer
from offhook.media.port import PortPool
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engines.scripted import ScriptedFactory
from offhook.sip.flow import Flow
from offhook.sip.message import parse_message
from offhook.tenants import ConfiguredProjects, Project, Trunk, WebhookEndpoint
from offhook.trace import WireMessage

SDP = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
VIDEO = SDP.replace("m=audio 40000 RTP/AVP 0 8 101", "m=video 40000 RTP/AVP 96").replace(
    "101 tele", "96 tele"
)


class FakeLeg:
    """A UAS leg as `offhook.sip.leg.Leg` shows it."""

    _numbers = itertools.count(1)

    def __init__(self, project="proj_a", *, sdp=SDP, headers=(), remote=("192.0.2.1", 5060)):
        number = next(self._numbers)
        body = sdp.encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
        raw = (
            f"INVITE sip:{project}@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{number}\r\n"
            f"From: <sip:+1555@192.0.2.1>;tag=f{number}\r\nTo: <sip:{project}@192.0.2.9>\r\nCall-ID: c{number}\r\n"
            f"CSeq: 1 INVITE\r\nContact: <sip:192.0.2.1>\r\nMax-Forwards: 70\r\n{extra}"
            f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._raw = raw.encode() + body
        self.invite = parse_message(self._raw)
        self.flow = Flow("udp", ("192.0.2.9", 5060), remote, None)
        self.call_id, self.state, self.refer_count = f"c{number}", "calling", 0
        self.listener = self.peer = None
        self.asked = []

    @property
    def trace(self):
        return None

    @trace.setter
    def trace(self, tracer):
        tracer(WireMessage(0.0, "in", "udp", "192.0.2.9:5060", "192.0.2.1:5060", self._raw))

    def read_waiting(self):
        """Nothing waits here."""

    def ring(self, status=180, **_):
        self.asked.append(("ring", status))

    def refuse(self, status, reason=None, *, headers=()):
        self.asked.append(("refuse", status, dict(headers)))
        self.state = "ended"

    def answer(self, sdp, **_):
        self.asked.append(("answer", sdp))
        self.state = "answered"

    def snapshot(self):
        return {"call_id": self.call_id, "early": self.state in ("calling", "early")}

    def hangup(self, **_):
        self.asked.append(("hangup",))
        self.state = "ended"


class FakeAnnouncement:
    def __init__(self, told):
        self.told, self.expired = told, False

    def expire(self):
        self.expired = True


class FakeAnnouncer:
    """Keeps every event; `subscribed` says which types anybody wants."""

    def __init__(self):
        self.events = []
        self.exhausted = {}
        self.attempted = {}
        self.subscribed = {"realtime.call.incoming", "realtime.call.ended"}

    def is_heard(self, project, event_type):
        return event_type in self.subscribed

    def announce(self, project, event, *, urgent, on_attempt, on_exhausted):
        if event.type not in self.subscribed:
            return None
        self.events.append(event)
        self.exhausted[event.data["call_id"], event.type] = on_exhausted
        self.attempted[event.data["call_id"], event.type] = on_attempt
        return FakeAnnouncement(event)

    @property
    def types(self):
        return [event.type for event in self.events]


class FakeJournal:
    """Remembers what it was to keep, by call."""

    def __init__(self):
        self.saved, self.entries, self.dialogs = {}, [], {}
        self.states, self.kept_dialogs, self.refers = [], [], []

    def save(self, described, *_):
        self.saved[described["id"]] = described
        self.states.append(described["state"])

    def refer(self, described):
        self.refers.append(described)

    def entry(self, call_id, number, at, entry):
        self.entries.append((call_id, number, entry.title))

    def dialog(self, call_id, snapshot):
        self.dialogs[call_id] = snapshot
        self.kept_dialogs.append(snapshot)


class Table:
    """The manager and what it was given."""

    video = VIDEO

    def __init__(self, *, max_calls=100_000, project=None):
        self.announcer = FakeAnnouncer()
        self.journal = FakeJournal()
        self.factory = ScriptedFactory(None)
        self.engines = EngineDirectory({"scripted": self.factory}, default="scripted", models={})
        self.pacer = Pacer()
        endpoint = WebhookEndpoint("wh_1", "http://127.0.0.1:1/", ("whsec_AAAA",))
        trunk = Trunk("all", (ip_network("0.0.0.0/0"), ip_network("::/0")))
        self.project = Project("proj_a", ("sk-a",), (endpoint,), (trunk,), **(project or {}))
        self.other = Project("proj_b", ("sk-b",), (endpoint,), (trunk,))
        self.manager = CallManager(
            node="u0",
            projects=ConfiguredProjects([self.project, self.other]),
            max_calls=max_calls,
            services=CallServices(
                clock=SystemClock(),
                announcer=self.announcer,
                ports=PortPool("127.0.0.1", 32_300, 32_498),
                pacer=self.pacer,
                engines=self.engines,
                settings=CallSettings(media_host="127.0.0.1", media_ports=(32_300, 32_498)),
                journal=self.journal,
            ),
        )

    def invite(self, **options):
        """Let an INVITE come. Return the leg and the call that it became, if it became one."""
        leg = FakeLeg(**options)
        self.manager.on_invite(leg)
        return leg, leg.listener


@pytest.fixture
async def table(request):
    made = Table(**getattr(request, "param", {}))
    await made.engines.start()
    made.pacer.start()
    yield made
    await made.manager.close(grace_s=0)
    made.pacer.close()
    await made.engines.close()
