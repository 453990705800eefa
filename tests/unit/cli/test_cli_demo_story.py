"""The demo's ladder: three processes, one clock."""

from offhook.calls.ladder import Arrow, Lane, Note
from offhook.cli.demo.story import Story, from_app, from_node, from_phone


def log_line(
    event: str, text: str, at: str = "2026-11-21T12:00:01.500Z", **details: object
) -> dict[str, object]:
    return {
        "at": at,
        "level": "info",
        "logger": "offhook.calls",
        "text": text,
        "event": event,
        "call_id": "rtc",
        **details,
    }


def test_the_phone_tells_sip_speech_and_times() -> None:
    sip = {
        "event": "sip",
        "at": 5.0,
        "direction": "in",
        "message": "SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n\r\n",
    }
    assert from_phone(sip) == [Arrow(5.0, Lane.OFFHOOK, Lane.CALLER, "180 Ringing (INVITE)")]
    [said] = from_phone({"event": "speaking", "at": 6.0, "state": "started", "text": "Hello"})
    assert isinstance(said, Note)
    assert "Hello" in said.text
    [answer] = from_phone({"event": "answer", "at": 7.0, "turn": 1, "ms": 640})
    assert isinstance(answer, Note)
    assert "640 ms" in answer.text
    assert from_phone({"event": "speaking", "at": 6.0, "state": "ended", "turn": 1}) == []
    assert from_phone({"event": "of a later version", "at": 1.0}) == []


def test_webhooks_and_api_calls_stand_where_they_began_not_where_they_were_logged() -> None:
    webhook = log_line("call.webhook", "attempt 1", attempt=1, status=200, duration_ms=500.0)
    rest = log_line("call.rest", "POST accept: 200", status=200, verb="accept", duration_ms=100.0)
    [one], [other] = from_node(webhook), from_node(rest)
    assert isinstance(one, Arrow)
    assert isinstance(other, Arrow)
    assert (one.source, one.target) == (Lane.OFFHOOK, Lane.APP)
    assert round(other.at - one.at, 3) == 0.4


def test_what_the_phone_tells_is_not_told_twice() -> None:
    assert from_node(log_line("call.sip", "INVITE sip:a@b SIP/2.0", direction="in")) == []
    assert from_node(log_line("node.ready", "ready")) == []
    assert from_node(log_line("call.call", "leg: confirmed (ACK received)")) == []
    assert from_node(log_line("call.call", "transfer 1 to tel:+1: progress", sip_status=180)) == []
    assert from_node(log_line("call.call", "transfer 1 to tel:+1: failed", sip_status=486)) != []


def test_the_app_tells_its_decision_and_its_errors() -> None:
    [row] = from_app('decision {"decision": "ALLOW", "caller_name": "Anna", "reason": "a meeting"}', 9.0)
    assert row == Note(9.0, Lane.APP, "ALLOW: Anna; a meeting", "bold magenta")
    assert from_app('decision {"decision": "ALLOW"}', 9.0) != []
    [error] = from_app('error {"code": "x", "message": "y"}', 9.0)
    assert isinstance(error, Note)
    for noise in (
        "",
        " * Running on http://127.0.0.1:1",
        'accepted {"call_id": "rtc"}',
        "decision {not json",
    ):
        assert from_app(noise, 9.0) == []


def test_rows_are_shown_in_the_order_in_which_things_happened() -> None:
    story = Story()
    story.add([Note(100.2, Lane.CALLER, "second")])
    story.add([Note(100.0, Lane.OFFHOOK, "first, told later")])
    assert story.take(100.3) == []
    shown = story.take(100.61)
    assert [(round(row.at, 3), row.text) for row in shown if isinstance(row, Note)] == [
        (0.0, "first, told later"),
        (0.2, "second"),
    ]
    story.add([Note(100.9, Lane.APP, "third")])
    assert story.take(101.0) == []
    assert [round(row.at, 3) for row in story.take(101.0, everything=True)] == [0.9]
    assert story.take(200.0, everything=True) == []


def test_where_there_is_no_phone_of_ours_the_node_tells_the_sip_messages() -> None:
    [row] = from_node(log_line("call.sip", "INVITE sip:a@b SIP/2.0", direction="in"), sip=True)
    assert isinstance(row, Arrow)
    assert (row.source, row.target, row.label) == (Lane.CALLER, Lane.OFFHOOK, "INVITE")
