"""What is kept of a call that another service answers: its state, its events, its story, and nothing without end."""

import json

import pytest

from offhook.calls.hosted import HostedCall, HostedCalls


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_000_000 + self.now


CLOCK = Clock()


@pytest.fixture
def call():
    return HostedCall("proj_a", "rtc_x", "openai", CLOCK)


def event(kind, **fields):
    return json.dumps({"type": kind, **fields})


def entries(call, *kinds):
    return [(entry.kind, entry.title) for entry in call.timeline.entries() if entry.kind in kinds]


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([("accept", 500, None)], "unknown"),
        ([("accept", 404, "call_id_not_found")], "unknown"),
        ([("accept", 200, None)], "accepted"),
        ([("reject", 200, None)], "rejected"),
        ([("accept", 200, None), ("refer", 200, None)], "referred"),
        ([("accept", 200, None), ("refer", 500, None)], "accepted"),
        ([("accept", 200, None), ("hangup", 200, None)], "ended"),
        ([("accept", 200, None), ("hangup", 404, "call_id_not_found")], "ended"),
        ([("accept", 200, None), ("hangup", 404, "unknown_url")], "accepted"),
        ([("accept", 200, None), ("refer", 200, None), ("hangup", 404, "call_id_not_found")], "referred"),
    ],
)
def test_its_state_is_what_the_answers_say(call, answers, state):
    for answer in answers:
        call.answered(*answer)
    shown = call.describe()
    assert (shown["state"], shown["hosted"], shown["upstream"]) == (state, True, "openai")
    assert bool(shown["ended_at"]) == (state in ("rejected", "referred", "ended"))


def test_what_is_said_heard_done_and_spent_is_told_and_sound_is_not(call):
    sideband = call.attach("req_1")
    for frame in (
        event("conversation.item.input_audio_transcription.completed", transcript="Hello?", item_id="i"),
        event("response.output_audio.delta", delta="c291bmQ="),
        event("response.output_audio_transcript.done", transcript="Good morning.", response_id="r"),
        event("response.function_call_arguments.done", name="look_up", arguments='{"day":1}'),
        event("response.done", response={"id": "r", "status": "completed", "usage": {"input_tokens": 3}}),
        event("response.done", response={"id": "s", "status": "failed", "usage": {"input_tokens": 4}}),
        event("error", error={"message": "no", "code": "c"}),
    ):
        sideband.received(frame)
    sideband.sent(event("response.create"))
    sideband.detach("detached", code=1000)
    assert entries(call, "heard", "said", "tool_call", "response", "error", "usage") == [
        ("heard", "Hello?"),
        ("said", "Good morning."),
        ("tool_call", 'look_up({"day":1})'),
        ("response", "completed"),
        ("response", "failed"),
        ("error", "upstream: no"),
        ("usage", "7 tokens in, 0 out"),
    ]
    shown = call.describe()
    assert shown["events"]["received"]["response.output_audio.delta"] == 1
    assert shown["events"]["received"]["response.done"] == 2
    assert shown["events"]["sent"] == {"response.create": 1}
    assert shown["usage"] == {"input_tokens": 7}
    assert "c291bmQ=" not in json.dumps(call.timeline.to_api())


def test_several_sidebands_tell_each_event_once_and_the_next_takes_over(call):
    first, second = call.attach("req_1"), call.attach("req_2")
    done = event("response.done", response={"id": "r", "status": "completed", "usage": {"output_tokens": 5}})
    first.received(done)
    second.received(done)
    second.received(event("error", error={"message": "for the second alone"}))
    first.detach("detached")
    second.received(done)
    assert call.usage.to_api() == {"output_tokens": 10}
    assert entries(call, "error") == [("error", "upstream: for the second alone")]
    assert not entries(call, "usage")
    second.detach("closed by upstream openai: 1000", by_app=False)
    assert [one.details.get("direction") for one in call.timeline.entries() if one.kind == "sideband"] == [
        None,
        None,
        "in",
        "out",
    ]
    assert entries(call, "usage") == [("usage", "0 tokens in, 10 out")]


@pytest.mark.parametrize(
    ("frame", "counted"),
    [
        (b"\x00", "(binary)"),
        ("{", "(not JSON)"),
        ("[]", "(no type)"),
        ('{"type": 7}', "(no type)"),
        ('{"type":"response.done","x":"' + "y" * 300_000 + '"}', "response.done"),
        ('"' + "y" * 300_000 + '"', "(large)"),
    ],
)
def test_a_frame_that_is_no_event_is_counted(call, frame, counted):
    call.attach("req_1").received(frame)
    assert call.describe()["events"]["received"] == {counted: 1}


def test_types_without_end_are_not_kept_without_end(call):
    sideband = call.attach("req_1")
    for number in range(1000):
        sideband.received(event(f"made.up.{number}"))
    received = call.describe()["events"]["received"]
    assert len(received) <= 201
    assert received["(other)"] == 800


def test_a_project_sees_its_own_records_newest_first():
    calls = HostedCalls(CLOCK)
    first, second = calls.see("proj_a", "rtc_1", "up"), calls.see("proj_a", "rtc_2", "up")
    assert calls.see("proj_a", "rtc_1", "up") is first
    assert calls.list("proj_a") == [second, first]
    assert calls.list("proj_b") == []
    assert calls.find("proj_b", "rtc_1") is None
    assert calls.see("proj_b", "rtc_1", "up") is not first


def test_ids_that_are_nothing_push_no_real_call_out():
    calls = HostedCalls(CLOCK, per_project=3)
    real, attached = calls.see("p", "real", "up"), calls.see("p", "attached", "up")
    real.answered("accept", 200, None)
    sideband = attached.attach("req_1")
    for number in range(10):
        calls.see("p", f"made-up-{number}", "up")
    assert [call.id for call in calls.list("p")] == ["made-up-9", "attached", "real"]
    calls.find("p", "made-up-9").answered("accept", 200, None)
    calls.see("p", "newer", "up")
    assert calls.find("p", "real") is None
    assert calls.find("p", "attached") is attached
    sideband.detach("detached")


def test_whatever_an_upstream_counts_the_story_can_be_told(call):
    sideband = call.attach("req_1")
    counted = {"at": {"x": 1}, "title": 2, "kind": 3, "input_tokens": 4}
    sideband.received(event("response.done", response={"id": "r", "status": "completed", "usage": counted}))
    sideband.detach("detached")
    shown = json.loads(json.dumps(call.timeline.to_api()))["data"]
    (usage,) = [entry for entry in shown if entry["kind"] == "usage"]
    assert (usage["title"], usage["usage"]) == ("4 tokens in, 0 out", counted)
    assert usage["at"].startswith("1970-")
