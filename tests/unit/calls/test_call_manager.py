"""The table of calls: what an INVITE becomes, what can be seen of it afterwards, and that nothing grows."""

import asyncio
import gc
import json
import weakref

import pytest

from offhook.calls import manager as manager_module
from offhook.calls.errors import CallError
from offhook.calls.ports import WebhookAttempt
from offhook.realtime.engine import EngineFailed, EngineUnavailable
from offhook.realtime.engines.scripted import ScriptedEngine
from offhook.tenants import Fallback
from testbed.waiting import until

ACCEPT = {"type": "realtime"}
ATTEMPT = WebhookAttempt("http://127.0.0.1:1/", 3, 0.0, 1.0, None, "connection refused", True)


def titles(call):
    return [entry["title"] for entry in call.timeline.to_api()["data"]]


# An INVITE that becomes no ringing phone leaves a trace.


async def _turned_away(table, status, **options):
    leg, call = table.invite(**options)
    (refusal,) = leg.asked
    assert refusal[:2] == ("refuse", status)
    assert f"cause={status}" in refusal[2]["Reason"]
    (listed,) = [one for one in table.manager.list("proj_a") if one.leg is leg]
    assert listed is call
    assert table.manager.find("proj_a", call.id) is call
    shown = call.describe()
    assert (shown["state"], shown["termination"]["sip_status"]) == ("ended", status)
    assert shown["termination"]["reason"] == "failed"
    assert shown["created_at"]
    assert shown["ended_at"]
    assert shown["termination"]["cause"] in refusal[2]["Reason"]
    assert any(title.startswith("INVITE sip:proj_a@") for title in titles(call))
    assert titles(call)[-1].startswith("ended: ")
    assert not [event for event in table.announcer.events if event.data["call_id"] == call.id]
    assert table.manager.list("proj_b") == []
    for ask in (call.accept(ACCEPT), call.reject(), call.refer("tel:+1"), call.hangup(), call.session()):
        with pytest.raises(CallError) as raised:
            await ask
        assert raised.value.status == 404
    return refusal[2], shown


async def test_an_offer_that_cannot_be_taken_leaves_an_ended_call(table):
    _, shown = await _turned_away(table, 488, sdp=table.video)
    assert shown["termination"]["result"] == "client_error"
    assert shown["codec"] is None
    assert table.manager.live == 0


@pytest.mark.parametrize("table", [{"project": {"max_calls": 1}}], indirect=True)
async def test_a_call_for_a_full_project_leaves_an_ended_call(table):
    _, ringing = table.invite()
    headers, shown = await _turned_away(table, 480)
    assert "project is full" in shown["termination"]["cause"]
    assert "Retry-After" not in headers
    await ringing.reject(486)
    leg, _ = table.invite()
    assert leg.asked == [("ring", 180)]


@pytest.mark.parametrize("table", [{"max_calls": 1}], indirect=True)
async def test_a_call_for_a_full_node_leaves_an_ended_call(table):
    table.invite()
    headers, shown = await _turned_away(table, 503)
    assert 1 <= int(headers["Retry-After"]) <= 5
    assert shown["termination"]["result"] == "server_error"


async def test_a_call_while_the_engine_warms_leaves_an_ended_call(table):
    await table.engines.close()
    await _turned_away(table, 503)


async def test_an_invite_for_nobody_leaves_no_call(table):
    leg, call = table.invite(project="proj_x")
    assert leg.asked[0][:2] == ("refuse", 404)
    assert call is None
    assert table.manager.list("proj_a") == table.manager.list("proj_b") == []


async def test_what_was_turned_away_is_bounded_and_pushes_no_real_call_out(table, monkeypatch):
    monkeypatch.setattr(manager_module, "KEPT_AFTER_END", 20)
    _, real = table.invite()
    await real.reject(486)
    first = table.invite(sdp=table.video)[1]
    for _ in range(50):
        table.invite(sdp=table.video)
    assert table.manager.find("proj_a", real.id) is real
    assert len(table.manager.list("proj_a")) == 21
    with pytest.raises(CallError):
        table.manager.find("proj_a", first.id)


# Nothing grows.


async def test_calls_leave_nothing_behind_but_the_last_of_them(table, monkeypatch):
    monkeypatch.setattr(manager_module, "KEPT_AFTER_END", 20)
    for number in range(300):
        leg, call = table.invite()
        match number % 5:
            case 0:
                await call.reject(486)
            case 1:
                call.leg_cancelled(leg, None)
            case 2:
                await call.hangup()
            case 3:
                await call.accept(ACCEPT)
                await call.hangup()
            case 4:
                await call.accept(ACCEPT)
                async with asyncio.timeout(15):
                    while call.state != "answered":
                        await asyncio.sleep(0)
                call.leg_confirmed(leg)
                await call.hangup()
        await call.wait_closed()
    assert table.manager.live == 0
    assert len(table.manager.list("proj_a")) == 20
    assert table.factory.ready
    assert table.factory._taken == 0
    await asyncio.sleep(0.05)  # ports are given back a turn later
    ports = table.manager._services.ports
    assert ports.free == ports.total
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_webhook_that_waits_for_days_does_not_keep_its_call(table, monkeypatch):
    """An endpoint may have 10,000 of them."""
    monkeypatch.setattr(manager_module, "KEPT_AFTER_END", 1)
    leg, call = table.invite()
    await call.reject(486)
    told = table.announcer.attempted[call.id, "realtime.call.ended"]
    told(ATTEMPT)
    assert any(title.startswith("attempt 3") for title in titles(call))
    forgotten = weakref.ref(call.timeline)
    del call, leg
    await table.invite()[1].reject(486)
    gc.collect()
    assert forgotten() is None
    told(ATTEMPT)
    assert len(table.manager.list("proj_a")) == 1


# What tenants may see.


async def test_only_what_concerns_the_tenant_is_shown_of_the_engine(table, monkeypatch):
    everything = {
        "kind": "local",
        "brain": "rules",
        "follows_instructions": False,
        "note": "says what it is told",
        "vad": "Silero",
        "stt": "Whisper",
        "tts": "hibari",
        "sessions": 3,
        "max_sessions": 8,
        "workers": {"stt": {"pids": [1, 2], "rss": 123}},
    }
    monkeypatch.setattr(table.factory, "describe", lambda: everything)
    _, call = table.invite()
    await call.accept(ACCEPT)
    kept = ("kind", "brain", "follows_instructions", "note", "vad", "stt", "tts")
    assert call.describe()["engine"] == {name: everything[name] for name in kept}
    await call.hangup()


# Webhooks that cannot be delivered.


async def test_a_call_that_no_endpoint_can_ever_hear_of_does_not_ring_in_vain(table):
    leg, call = table.invite()
    table.announcer.exhausted[call.id, "realtime.call.incoming"](
        "http://10.0.0.7/hook: the signing secret is empty"
    )
    status, headers = leg.asked[-1][1:]
    assert status == 480
    assert call.termination.reason == "unanswered"
    assert "signing secret" in call.termination.cause
    # The trunk is told that it is not its fault, and nothing of the app's network.
    assert "10.0.0.7" not in headers["Reason"]


async def test_a_late_word_about_a_webhook_does_not_end_an_accepted_call(table):
    _, call = table.invite()
    await call.accept(ACCEPT)
    table.announcer.exhausted[call.id, "realtime.call.incoming"]("too late")
    assert call.state == "accepted"
    await call.hangup()


@pytest.mark.parametrize("table", [{"project": {"max_calls": 1}}], indirect=True)
async def test_what_others_wrote_stands_as_one_line_in_a_reason_header(table, monkeypatch):
    monkeypatch.setattr(
        "offhook.calls.manager.negotiate.judge",
        _raise_not_acceptable('bad "c=" \\ line\r\nRoute: <sip:evil>\x00' + "x" * 5000),
    )
    leg, _ = table.invite()
    reason = leg.asked[0][2]["Reason"]
    assert reason.startswith("SIP;cause=488;text=\"bad 'c='")
    assert reason.count('"') == 2
    assert reason.isprintable()
    assert len(reason) < 300


def _raise_not_acceptable(text):
    from offhook.media.negotiate import NotAcceptable

    def answer(*_, **__):
        raise NotAcceptable(text)

    return answer


# Faults of ours after the accept.


async def _settled(call):
    """Wait until the call's tasks are over, its socket closing included."""
    await call.wait_closed()
    await asyncio.sleep(0.01)


def _raise(*_, **__):
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("table", [{}, {"project": {"fallback": Fallback(status=486)}}], indirect=True)
async def test_a_bug_before_the_answer_refuses_the_call_and_is_over(table, monkeypatch):
    leg, call = table.invite()
    monkeypatch.setattr("offhook.media.port.PortPlace.open", _raise)
    await call.accept(ACCEPT)
    await _settled(call)
    status = 503 if table.project.fallback is None else 486
    assert leg.asked[-1] == ("refuse", status, {"Reason": f'SIP;cause={status};text="internal error"'})
    assert call.describe()["termination"] == {
        "result": "server_error",
        "reason": "failed",
        "sip_status": status,
        "cause": "internal error: ZeroDivisionError('a bug')",
    }
    assert table.manager.live == 0


@pytest.mark.parametrize(
    "broken", ["offhook.media.port.MediaPort.start", "offhook.media.negotiate._answer_text"]
)
async def test_a_port_that_cannot_be_used_is_given_back(table, monkeypatch, broken):
    leg, call = table.invite()
    ports = table.manager._services.ports

    def fails(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(broken, fails)
    await call.accept(ACCEPT)
    await _settled(call)
    assert leg.asked[-1][:2] == ("refuse", 503)
    assert ports.free == ports.total
    assert table.manager.live == 0


async def test_an_engine_that_dies_before_the_answer_leaves_the_caller_with_503(table, monkeypatch):
    leg, call = table.invite()

    async def dies(self, start, emit):
        emit(EngineFailed("its worker died"))

    monkeypatch.setattr("offhook.realtime.engines.scripted.ScriptedEngine.start", dies)
    await call.accept(ACCEPT)
    await _settled(call)
    assert leg.asked[-1] == ("refuse", 503, {"Reason": 'SIP;cause=503;text="the engine failed"'})
    assert call.termination.to_api() == {
        "result": "server_error",
        "reason": "failed",
        "sip_status": 503,
        "cause": "the engine failed: its worker died",
    }


STANDS_IN = {"project": {"fallback": Fallback(accept={"type": "realtime", "instructions": "I stand in."})}}


@pytest.mark.parametrize("table", [STANDS_IN], indirect=True)
@pytest.mark.parametrize("trouble", ["dies", "is late", "is not to be had"])
async def test_the_fallback_stands_in_for_an_engine_that_was_accepted_and_cannot_be_had(
    table, monkeypatch, trouble
):
    """Design section 1: an engine that is not ready 5 s after the accept is the project's fallback's turn."""
    leg, call = table.invite()
    starts, start = [], ScriptedEngine.start

    async def fails_first(self, given, emit):
        starts.append(given)
        if len(starts) > 1:
            await start(self, given, emit)
        elif trouble == "dies":
            emit(EngineFailed("its worker died"))
        elif trouble == "is late":
            raise TimeoutError
        else:
            raise EngineUnavailable("it is gone")

    monkeypatch.setattr(ScriptedEngine, "start", fails_first)
    await call.accept(ACCEPT)
    await until(lambda: leg.asked[-1][0] in ("answer", "refuse"))
    assert [asked[0] for asked in leg.asked] == ["ring", "answer"]
    runner = await call.session()
    assert runner.session.config.instructions == "I stand in."
    assert any(title.startswith("fallback stands in: ") for title in titles(call))
    call.leg_confirmed(leg)
    await call.hangup()
    await call.wait_closed()
    assert table.announcer.types.count("realtime.call.ended") == 1


@pytest.mark.parametrize("table", [STANDS_IN], indirect=True)
async def test_a_fallback_that_fails_too_is_503_and_is_tried_once(table, monkeypatch):
    leg, call = table.invite()
    starts = []

    async def fails(self, given, emit):
        starts.append(given)
        raise EngineUnavailable("it is gone")

    monkeypatch.setattr(ScriptedEngine, "start", fails)
    await call.accept(ACCEPT)
    await until(lambda: call.state == "ended")
    await _settled(call)
    assert leg.asked[-1][:2] == ("refuse", 503)
    assert len(starts) == 2
    assert table.manager.live == 0
    ports = table.manager._services.ports
    assert ports.free == ports.total


async def test_the_peer_of_an_ipv6_call_is_shown_in_brackets(table):
    _, call = table.invite(remote=("2001:db8::1", 5062))
    assert call.describe()["remote"] == "[2001:db8::1]:5062"


# Shutting down.


async def test_shutting_down_tells_who_rings_why(table):
    leg, call = table.invite()
    await table.manager.close(grace_s=0)
    assert leg.asked[-1] == ("hangup",)
    assert call.describe()["termination"] | {"cause": ""} == {
        "result": "server_error",
        "reason": "shutdown",
        "sip_status": 480,
        "cause": "",
    }
    leg, call = table.invite()
    assert leg.asked[0][1] == 503
    assert "draining" in call.termination.cause


async def test_a_session_that_never_ends_does_not_hold_the_node(table, monkeypatch, caplog):
    monkeypatch.setattr("offhook.calls.agent.CLOSING_S", 0.05)
    _, call = table.invite()
    await call.accept(ACCEPT)
    runner = await call.session()
    monkeypatch.setattr(runner.session, "close", lambda *_: None)
    async with asyncio.timeout(15):
        await table.manager.close(grace_s=0)
    assert "did not end" in caplog.text
    json.dumps(call.describe())


async def test_the_node_waits_for_what_calls_that_just_ended_have_to_tell(table, monkeypatch):
    _, call = table.invite()
    await call.accept(ACCEPT)
    runner = await call.session()
    told, close = asyncio.Event(), runner.close

    async def slowly(reason):
        await told.wait()
        await close(reason)

    monkeypatch.setattr(runner, "close", slowly)
    await call.hangup()
    closing = asyncio.create_task(table.manager.close(grace_s=1))
    await asyncio.sleep(0.05)
    assert not closing.done()
    told.set()
    async with asyncio.timeout(30):
        await closing
    assert runner.closed


# Whose call an id is.


async def test_ids_of_calls_that_were_here_are_ours_and_those_of_this_nodes_form(table):
    _, live = table.invite()
    assert table.manager.owns(live.id)
    node = live.id.split("_")[1]
    assert table.manager.owns(f"rtc_{node}_{'0' * 32}")
    for other in (
        f"rtc_{node}x_{'0' * 32}",
        f"rtc_{node}_{'0' * 31}",
        f"rtc_{node}_{'0' * 33}",
        f"rtc_{node}_{'0' * 31}Z",
        f"rtc_{'0' * 32}",
        "rtc_u7_" + "Ab1" * 7,
        "",
    ):
        assert not table.manager.owns(other), other


async def test_a_call_whose_cancel_is_still_to_be_told_is_not_announced_as_answered(table):
    table.announcer.subscribed.add("realtime.call.answered")
    leg, call = table.invite()
    await call.accept({"type": "realtime"})
    leg.state = "ended"
    await asyncio.wait((call._establishing,))
    call.leg_cancelled(leg, None)
    await _settled(call)

    assert "realtime.call.answered" not in table.announcer.types
    assert (call.termination.reason, call.describe()["answered_at"]) == ("cancelled", None)
    assert table.manager.find("proj_a", call.id) is call


@pytest.mark.parametrize(
    ("attempts", "said"),
    [
        ([], "no webhook attempt has ended yet"),
        ([ATTEMPT], "the last webhook attempt failed: no answer: connection refused"),
    ],
)
async def test_a_caller_who_gives_up_is_told_of_with_what_the_app_did(table, attempts, said):
    leg, call = table.invite()
    for attempt in attempts:
        table.announcer.attempted[call.id, "realtime.call.incoming"](attempt)
    call.leg_cancelled(leg, "SIP;cause=487")
    assert call.termination.cause == f"the caller hung up while it rang (SIP;cause=487); {said}"
