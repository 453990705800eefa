"""Session timers (RFC 4028) over whole calls: two user agents and a clock, then a running node and raw messages."""

import asyncio
import heapq
import itertools
import random
import re
from collections import Counter

import pytest

from offhook.sip.events import Answered, Ended, Offered, Refreshed, Refused
from offhook.sip.flow import Flow
from offhook.sip.message import Request, Response, create_response, parse_message
from offhook.sip.session_timer import SessionTimerConfig
from offhook.sip.stack import Incoming, Stack, StackConfig, Transmit, UsageEvent
from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, SIGNALWIRE, TELNYX, TWILIO, bend, sdp_of, write
from testbed.trunk import Trunk, TrunkCall, establish, hung_up, ring

CALLER, CALLEE = ("192.0.2.1", 5060), ("192.0.2.2", 5060)
ALL = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "UPDATE", "INFO")
NO_UPDATE = tuple(method for method in ALL if method != "UPDATE")
CALL_SDP, ANSWER_SDP = b"v=0\r\no=caller 1 1\r\n", b"v=0\r\no=callee 1 1\r\n"


class Pair:
    """A caller and a callee, 10 ms apart. `cut` says which of them the network does not hear any more."""

    def __init__(self, caller, callee, *, caller_allow=ALL, callee_allow=ALL):
        self.now, self.queue, self.order = 0.0, [], itertools.count()
        tokens = itertools.count(0x10000000)
        self.stacks = {}
        for side, session, allow in ((CALLER, caller, caller_allow), (CALLEE, callee, callee_allow)):
            self.stacks[side] = Stack(
                StackConfig(allow=allow, session=session), new_token=lambda: f"{next(tokens):08x}"
            )
            self.stacks[side].listen("udp", *side)
        self.cut = set()
        self.bend = lambda side, data: data
        self.wire, self.events, self.notes = [], [], {CALLER: [], CALLEE: []}
        self.answered_with = Counter()
        self.usages = {
            CALLER: self.stacks[CALLER].invite(
                f"sip:bob@{CALLEE[0]}", from_uri="sip:alice@example.com", sdp=CALL_SDP, now=0.0
            )
        }
        self.usages[CALLER].tracer = self.notes[CALLER].append
        self.run(1.0)

    def run(self, until):
        self.flush()
        while True:
            timers = [t for s in self.stacks.values() if (t := s.next_timer()) is not None]
            due = min([*timers, *(item[0] for item in self.queue[:1])], default=until + 1)
            if due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            while self.queue and self.queue[0][0] <= self.now:
                heapq.heappop(self.queue)[2]()
            for stack in self.stacks.values():
                stack.handle_timer(now=self.now)
            self.flush()

    def flush(self):
        while outputs := [(side, o) for side, stack in self.stacks.items() for o in stack.outputs()]:
            for side, output in outputs:
                self.carry_out(side, output)

    def carry_out(self, side, output):
        match output:
            case Transmit(flow, data):
                message = parse_message(data)
                self.wire.append((round(self.now, 2), side, message))
                if side not in self.cut and (data := self.bend(side, data)):
                    self.send(flow, data)
            case Incoming(usage):
                self.usages[CALLEE] = usage
                usage.tracer = self.notes[CALLEE].append
                usage.answer(ANSWER_SDP, now=self.now)
            case UsageEvent(usage, Offered(request)):
                body = (ANSWER_SDP if side == CALLEE else CALL_SDP) if request.body else b""
                usage.respond(request, 200, now=self.now, body=body)
            case UsageEvent(_, event):
                self.events.append((side, event))

    def send(self, flow, data):
        def deliver():
            self.stacks[flow.remote].receive(data, Flow("udp", flow.remote, flow.local), now=self.now)

        heapq.heappush(self.queue, (self.now + 0.01, next(self.order), deliver))

    def sent(self, side, method):
        """Return `(time, request)` of a side's requests of that method, without retransmissions."""
        seen = {}
        for at, who, message in self.wire:
            if who == side and isinstance(message, Request) and message.method == method:
                seen.setdefault(message.cseq.number, (at, message))
        return list(seen.values())

    def told(self, side, kind):
        return [event for who, event in self.events if who == side and isinstance(event, kind)]

    def says(self, side):
        return [
            f"{n.state}: {n.reason}" for n in self.notes[side] if getattr(n, "subject", "") == "session timer"
        ]

    def alive(self):
        return all(usage.state == "confirmed" for usage in self.usages.values())


def test_both_sides_agree_and_the_caller_refreshes_by_update():
    pair = Pair(SessionTimerConfig(), SessionTimerConfig())
    (answer,) = pair.told(CALLER, Answered)
    assert answer.response.headers.get("Session-Expires") == "1800;refresher=uac"
    assert answer.response.headers.values("Require") == ["timer"]
    pair.run(4 * 3600)
    assert pair.alive()
    updates = pair.sent(CALLER, "UPDATE")
    assert len(updates) == 15
    assert all(b - a == pytest.approx(900, abs=1) for (a, _), (b, _) in itertools.pairwise(updates))
    assert {m.headers.get("Session-Expires") for _, m in updates} == {"1800;refresher=uac"}
    assert {bytes(m.body) for _, m in updates} == {b""}
    assert all("timer" in m.headers.values("Supported") for _, m in updates)
    assert pair.sent(CALLEE, "UPDATE") == pair.sent(CALLEE, "BYE") == []
    assert pair.says(CALLER)[:2] == ["1800 s: we refresh every 900 s", "refreshed: by our UPDATE"]
    assert pair.says(CALLEE)[:2] == ["1800 s: the peer refreshes", "refreshed: by the peer's UPDATE"]


@pytest.mark.parametrize("side", [CALLER, CALLEE], ids=["caller", "callee"])
def test_a_side_without_update_is_refreshed_by_invite_with_the_same_sdp(side):
    """RFC 4028 section 7.4: an offer that repeats the session must have the version that stands."""
    lacking = {"callee_allow" if side == CALLER else "caller_allow": NO_UPDATE}
    if side == CALLER:
        pair = Pair(SessionTimerConfig(), SessionTimerConfig(), **lacking)
    else:
        pair = Pair(SessionTimerConfig(), SessionTimerConfig(), **lacking)
        # The caller asks for it by its first refresh.
        pair.usages[CALLER].session._timer.refreshes = False
        pair.usages[CALLER].request("INVITE", now=pair.now, body=CALL_SDP, content_type="application/sdp")
    pair.run(3600)
    assert pair.alive()
    wanted = CALL_SDP if side == CALLER else ANSWER_SDP
    refreshes = [m for at, m in pair.sent(side, "INVITE") if at > 100]
    assert len(refreshes) == 3
    assert {m.body for m in refreshes} == {wanted}
    assert {m.headers.get("Session-Expires") for m in refreshes} == {"1800;refresher=uac"}
    assert pair.sent(side, "UPDATE") == []
    given = pair.told(side, Refreshed)
    assert [e.offer for e in given] == [wanted] * 3
    assert {e.response.body for e in given} == {ANSWER_SDP if side == CALLER else CALL_SDP}


def test_a_peer_that_is_gone_is_found_out_by_either_role():
    pair = Pair(SessionTimerConfig(interval=90), SessionTimerConfig())
    pair.cut = {CALLER, CALLEE}
    pair.run(300)
    ends = {side: pair.told(side, Ended)[0].ended for side in (CALLER, CALLEE)}
    assert {end.cause for end in ends.values()} == {"session_expired"}
    assert ends[CALLEE].text == "session timer expired: the peer sent no refresh within 90 s"
    assert ends[CALLER].text == "session timer expired: none of our refreshes was taken within 90 s"
    for side in (CALLER, CALLEE):
        ((at, bye),) = pair.sent(side, "BYE")
        assert at == pytest.approx(60, abs=0.2)
        assert bye.headers.get("Reason") == 'SIP;cause=408;text="Session timer expired"'


def test_silence_to_a_refresh_ends_a_long_session_after_32_s():
    pair = Pair(SessionTimerConfig(), SessionTimerConfig())
    pair.run(800)
    pair.cut = {CALLEE}
    pair.run(1000)
    (ended,) = pair.told(CALLER, Ended)
    assert ended.ended.text == "session timer expired: no answer to our UPDATE"
    ((at, _),) = pair.sent(CALLER, "BYE")
    assert at == pytest.approx(932, abs=1)


@pytest.mark.parametrize("status", [408, 481])
def test_a_peer_that_does_not_know_the_call_any_more_ends_it(status):
    pair = Pair(SessionTimerConfig(), SessionTimerConfig())

    def refuse(side, data):
        message = parse_message(data)
        if side == CALLER and isinstance(message, Request) and message.method == "UPDATE":
            reply = create_response(message, status, to_tag=None)
            pair.send(Flow("udp", CALLEE, CALLER), bytes(reply))
            return None
        return data

    pair.bend = refuse
    pair.run(905)
    (ended,) = pair.told(CALLER, Ended)
    assert ended.ended.text == f"the peer answered {status} to UPDATE"
    assert len(pair.sent(CALLER, "BYE")) == 1
    assert not pair.alive()


def test_a_callee_that_wants_longer_sessions_gets_them():
    """Telekom wants 900 at least: 422, and the same call again with more."""
    pair = Pair(SessionTimerConfig(interval=600), SessionTimerConfig(min_se=900))
    assert pair.told(CALLER, Refused) == []
    first, second = (m for _, m in pair.sent(CALLER, "INVITE"))
    assert (first.call_id, first.from_.tag) == (second.call_id, second.from_.tag)
    assert second.cseq.number == first.cseq.number + 1
    assert first.top_via.branch != second.top_via.branch
    assert (second.headers.get("Session-Expires"), second.headers.get("Min-SE")) == ("900", "900")
    (answer,) = pair.told(CALLER, Answered)
    assert answer.response.headers.get("Session-Expires") == "900;refresher=uac"
    pair.run(3600)
    assert pair.alive()
    assert [round(at) for at, _ in pair.sent(CALLER, "UPDATE")] == [
        450,
        900,
        1350,
        1800,
        2250,
        2700,
        3150,
        3600,
    ][:7]


def test_a_callee_that_always_wants_longer_ones_is_not_called_for_ever():
    least = itertools.count(2000, 100)

    class Greedy(Pair):
        def carry_out(self, side, output):
            if isinstance(output, Transmit):
                message = parse_message(output.data)
                if side == CALLER and isinstance(message, Request) and message.method == "INVITE":
                    self.wire.append((self.now, side, message))
                    reply = create_response(message, 422, to_tag="x", headers=[("Min-SE", str(next(least)))])
                    self.send(Flow("udp", CALLEE, CALLER), bytes(reply))
                    return
            super().carry_out(side, output)

    pair = Greedy(SessionTimerConfig(interval=600), SessionTimerConfig())
    assert len(pair.sent(CALLER, "INVITE")) == 4
    (refused,) = pair.told(CALLER, Refused)
    assert refused.response.status == 422


def test_two_refreshes_at_once_both_come_through():
    """Glare (RFC 3261 section 14): 491 both ways, then after different times again."""
    pair = Pair(SessionTimerConfig(), SessionTimerConfig(), caller_allow=NO_UPDATE, callee_allow=NO_UPDATE)
    for side, sdp in ((CALLER, CALL_SDP), (CALLEE, ANSWER_SDP)):
        pair.usages[side].request("INVITE", now=pair.now, body=sdp, content_type="application/sdp")
    pair.run(30)
    assert {491} <= {m.status for _, _, m in pair.wire if isinstance(m, Response)}
    assert pair.alive()
    pair.run(3600)
    assert pair.alive()
    assert len([1 for at, _ in pair.sent(CALLER, "INVITE") if at > 100]) == 3


@pytest.mark.parametrize("interval", [0, 1800])
def test_a_caller_that_knows_no_session_timers_is_left_alone_or_refreshed(interval):
    """Twilio's INVITE of 2024: no timer, no UPDATE."""
    config = SessionTimerConfig(interval=interval or 1800, always=bool(interval))
    pair = Pair(SessionTimerConfig(interval=0), config, caller_allow=NO_UPDATE)
    (answer,) = pair.told(CALLER, Answered)
    assert "Session-Expires" not in answer.response.headers
    assert "Require" not in answer.response.headers
    pair.run(4000)
    assert pair.alive()
    refreshes = [m for _, m in pair.sent(CALLEE, "INVITE")]
    assert len(refreshes) == (4 if interval else 0)
    assert all(m.body == ANSWER_SDP for m in refreshes)
    if interval:
        assert pair.says(CALLEE)[0] == "1800 s: we refresh every 900 s; the peer knows no session timers"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("allow", [ALL, NO_UPDATE], ids=["update", "invite"])
def test_a_call_of_an_hour_outlives_a_fifth_of_its_messages_being_lost(seed, allow):
    pair = Pair(
        SessionTimerConfig(interval=300), SessionTimerConfig(), caller_allow=allow, callee_allow=allow
    )
    chance = random.Random(seed)
    pair.bend = lambda side, data: None if chance.random() < 0.2 else data
    pair.run(3600)
    assert pair.alive()
    assert pair.told(CALLER, Ended) == pair.told(CALLEE, Ended) == []
    # Each refresh is one transaction, whatever was lost of it.
    assert len([1 for at, _ in pair.sent(CALLER, "UPDATE" if allow is ALL else "INVITE") if at > 100]) in (
        22,
        23,
        24,
    )


def test_hanging_up_ends_the_timer_too():
    pair = Pair(SessionTimerConfig(interval=90), SessionTimerConfig())
    pair.usages[CALLER].hangup(now=pair.now)
    pair.run(1000)
    assert len(pair.sent(CALLER, "BYE")) == 1
    assert pair.sent(CALLER, "UPDATE") == pair.sent(CALLEE, "BYE") == []
    assert all(stack.call_count == stack.transaction_count == 0 for stack in pair.stacks.values())


def test_a_storm_of_refreshes_is_bounded_and_costs_no_transactions():
    pair = Pair(SessionTimerConfig(), SessionTimerConfig())
    before = pair.stacks[CALLEE].transaction_count
    caller = pair.usages[CALLER]
    for _ in range(1000):
        request = caller.dialog.create_request("UPDATE", headers=[("Contact", "<sip:a@192.0.2.1>")])
        request.headers.prepend("Via", pair.stacks[CALLER].via_for(caller.flow))
        pair.stacks[CALLEE].receive(bytes(request), Flow("udp", CALLEE, CALLER), now=pair.now)
        pair.flush()
    statuses = Counter(m.status for _, who, m in pair.wire if who == CALLEE and isinstance(m, Response))
    assert statuses[200] <= 21 + 1
    assert statuses[500] >= 978
    assert pair.stacks[CALLEE].counters["too_many_in_dialog"] >= 978
    assert pair.stacks[CALLEE].transaction_count - before <= 21
    # The call goes on, and BYE always comes through.
    caller.hangup(now=pair.now)
    pair.run(40)
    assert [type(e) for e in pair.told(CALLEE, Ended)] == [Ended]


# A running node, and what carriers send.


@pytest.fixture(scope="module")
def short_node(tmp_path_factory):
    """A node that takes sessions of 3 s, so that a test can see one end."""
    with Node(tmp_path_factory.mktemp("short"), seats=12, sip="min_se_s = 3") as node:
        yield node


@pytest.fixture
async def short_app(short_node):
    async with DeveloperApp(short_node, short_node.seat()) as app:
        yield app


def own_route(trunk):
    return "Record-Route: <sip:{}:{};lr>".format(*trunk.local)


async def timer_entries(app, call_id):
    entries = await app.node.timeline(app.seat, call_id)
    return [
        e["title"].removeprefix("session timer: ") for e in entries if e["title"].startswith("session timer")
    ]


@pytest.mark.parametrize(
    ("carrier", "answer"),
    [
        (TELNYX, "1800;refresher=uac"),
        (SIGNALWIRE, "600;refresher=uac"),
        (TWILIO, None),
        (PLAIN, None),
    ],
    ids=["telnyx", "signalwire", "twilio", "plain"],
)
async def test_what_carriers_ask_for_is_what_they_get(node: Node, app: DeveloperApp, carrier, answer):
    async with Trunk(node.sip["udp"], "udp") as trunk:
        call, call_id = await establish(
            trunk, app, write(carrier, trunk, app.seat.project, routes=own_route(trunk))
        )
        assert call.ok.all("Session-Expires") == ([answer] if answer else [])
        assert call.ok.all("Require") == (["timer"] if answer else [])
        assert "timer" in call.ok.one("Supported")
        if answer:
            assert f"{answer.partition(';')[0]} s (the peer refreshes)" in await timer_entries(app, call_id)
        await hung_up(call, app, call_id)


async def test_telekom_asks_for_an_hour(node: Node, app: DeveloperApp):
    async with Trunk(node.sip["udp"], "udp") as trunk:
        lines = "Supported: timer\r\nSession-Expires: 3600;refresher=uac\r\nMin-SE: 900\r\nMax-Forwards"
        invite = bend(write(PLAIN, trunk, app.seat.project), ("Max-Forwards", lines))
        call, call_id = await establish(trunk, app, invite)
        assert call.ok.one("Session-Expires") == "3600;refresher=uac"
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("value", ["1", "89;refresher=uac", "0"])
async def test_too_short_a_session_is_refused_before_anybody_is_told(node: Node, app: DeveloperApp, value):
    async with Trunk(node.sip["udp"], "udp") as trunk:
        lines = f"Supported: timer\r\nSession-Expires: {value}\r\nMax-Forwards"
        plain = write(PLAIN, trunk, app.seat.project)
        invite = bend(plain, ("Max-Forwards", lines))
        trunk.send(invite)
        refused = await trunk.expect("SIP/2.0 422")
        assert refused.one("Min-SE") == "90"
        trunk.send(TrunkCall(trunk, invite).hop_request("ACK"))
        assert not app.webhooks
        # The caller does as it is told, in the same call (RFC 4028 section 7.3).
        branch = re.search(r"branch=(\S+)", plain)[1]
        again = bend(
            invite,
            (f"Session-Expires: {value}", "Session-Expires: 90"),
            ("CSeq: 7", "CSeq: 8"),
            (branch, branch + "b"),
        )
        call, call_id = await establish(trunk, app, again)
        assert call.ok.one("Session-Expires") == "90;refresher=uac"
        await hung_up(call, app, call_id)


async def test_we_refresh_by_reinvite_and_the_sound_stays(short_node: Node, short_app: DeveloperApp):
    app = short_app
    async with Trunk(short_node.sip["udp"], "udp") as trunk:
        lines = (
            "Allow: INVITE, ACK, BYE, CANCEL\r\nSupported: timer\r\nSession-Expires: 4;refresher=uas\r\n"
            "Min-SE: 3\r\nMax-Forwards"
        )
        invite = bend(write(PLAIN, trunk, app.seat.project), ("Max-Forwards", lines))
        call, call_id = await establish(trunk, app, invite)
        first = await trunk.expect("INVITE ")
        assert 1.8 < first.at - call.ok.at < 4
        assert first.body == call.ok.body
        assert first.one("Session-Expires") == "4;refresher=uac"
        assert first.one("Min-SE") == "3"
        sdp = sdp_of(invite)
        answer = [
            "Session-Expires: 4;refresher=uac",
            "Require: timer",
            f"Contact: <{call.contact}>",
            "Content-Type: application/sdp",
        ]
        mirrored = [
            f"{n}: {v}" for n, v in first.headers if n.lower() in ("via", "from", "to", "call-id", "cseq")
        ]
        text = "\r\n".join(["SIP/2.0 200 OK", *mirrored, *answer, f"Content-Length: {len(sdp)}", "", sdp])
        trunk.send(text)
        ack = await trunk.expect("ACK ")
        assert ack.cseq == first.cseq
        second = await trunk.expect("INVITE ", after=first.at)
        assert second.cseq > first.cseq
        assert second.body == first.body
        trunk.send(
            text.replace(str(first.one("Via")), str(second.one("Via"))).replace(
                f"CSeq: {first.cseq} ", f"CSeq: {second.cseq} "
            )
        )
        entries = await timer_entries(app, call_id)
        assert entries[:2] == ["4 s (we refresh every 2 s)", "refreshed (by our INVITE)"]
        titles = [e["title"] for e in await app.node.timeline(app.seat, call_id)]
        assert not [t for t in titles if t.startswith("sound now goes to")]
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
async def test_the_peer_refreshes_and_when_it_stops_the_call_ends(
    short_node: Node, short_app: DeveloperApp, method
):
    app = short_app
    async with Trunk(short_node.sip["udp"], "udp") as trunk:
        terms = ("Supported: timer", "Session-Expires: 3;refresher=uac", "Min-SE: 3")
        invite = bend(
            write(PLAIN, trunk, app.seat.project), ("Max-Forwards", "\r\n".join([*terms, "Max-Forwards"]))
        )
        call, call_id = await establish(trunk, app, invite)
        await asyncio.sleep(1.2)
        body = sdp_of(invite) if method == "INVITE" else ""
        answer = await call.ask(method, *terms, f"Contact: <{call.contact}>", body=body)
        assert answer.status == 200
        assert answer.one("Session-Expires") == "3;refresher=uac"
        if method == "INVITE":
            call.send("ACK", cseq=call.cseq)
        bye = await trunk.expect("BYE ")
        assert 1.6 < bye.at - answer.at < 10
        assert bye.one("Reason") == 'SIP;cause=408;text="Session timer expired"'
        trunk.answer(bye, "200 OK")
        ended = (await app.next("realtime.call.ended")).event.data
        assert ended.reason == "session_expired"
        described = await app.node.describe(app.seat, call_id)
        assert described["termination"] == {
            "result": "client_error",
            "reason": "session_expired",
            "cause": "session timer expired: the peer sent no refresh within 3 s",
        }
        assert f"refreshed (by the peer's {method})" in await timer_entries(app, call_id)


async def test_an_in_dialog_request_for_too_short_a_session_changes_nothing(node: Node, app: DeveloperApp):
    async with Trunk(node.sip["udp"], "udp") as trunk:
        call, call_id = await establish(
            trunk, app, write(SIGNALWIRE, trunk, app.seat.project, routes=own_route(trunk))
        )
        refused = await call.ask("UPDATE", "Supported: timer", "Session-Expires: 2;refresher=uas")
        assert (refused.status, refused.one("Min-SE")) == (422, "90")
        assert (await app.node.describe(app.seat, call_id))["state"] == "active"
        await hung_up(call, app, call_id)


def test_require_timer_is_no_bad_extension_and_is_one_when_switched_off():
    for interval, status in ((1800, 100), (0, 420)):
        stack = Stack(
            StackConfig(session=SessionTimerConfig(interval=interval)), new_token=lambda: "12345678"
        )
        stack.listen("udp", *CALLEE)
        head = [
            "INVITE sip:b@192.0.2.2 SIP/2.0",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1",
            "From: <sip:a@x>;tag=1",
            "To: <sip:b@y>",
            "Call-ID: 1",
            "CSeq: 1 INVITE",
            "Require: timer",
            "Supported: timer",
            "Contact: <sip:a@192.0.2.1>",
            "Content-Length: 0",
        ]
        stack.receive("\r\n".join([*head, "", ""]).encode(), Flow("udp", CALLEE, CALLER), now=0.0)
        assert parse_message(stack.outputs()[0].data).status == status


async def test_a_session_timer_is_no_reason_to_ring_less(node: Node, app: DeveloperApp):
    """The timer starts with the 200, not with the INVITE."""
    async with Trunk(node.sip["udp"], "udp") as trunk:
        call, call_id = await ring(trunk, app, write(SIGNALWIRE, trunk, app.seat.project))
        assert await timer_entries(app, call_id) == []
        trunk.send(call.hop_request("CANCEL"))
        await trunk.expect("SIP/2.0 487")
