"""Calls that look faulty and are not: nobody is to be blamed for them."""

import pytest

from testbed.tale import Tale, codes, talk


def healthy():
    """Near-misses: each looks like a fault, and is none."""
    yield "both spoke", talk().ended(20, "remote_hangup")
    yield "the app hung up", talk().ended(20, "hangup")
    slow = Tale().webhook(0, 9500).rest(9.4, "accept")
    yield "slow webhook", slow.answered(9.7, accept=False).said(10).ended(30, "remote_hangup")
    retried = Tale().webhook(0, 20, 500, "not a 2xx").webhook(0.5, 20, number=2).rest(0.6, "accept")
    yield "second attempt", retried.answered(0.8, accept=False).said(2).ended(30, "remote_hangup")
    one = {"inbound": {"lost": 1, "loss_percent": 0.1}}
    yield "one lost packet", talk().sound(20, **one).ended(20, "remote_hangup")
    yield "a little loss", talk().sound(20, inbound={"loss_percent": 2.0}).ended(20, "hangup")
    short = {"packets": 40, "inbound": {"loss_percent": 30.0}}
    yield "few packets", talk().sound(3, **short).ended(3, "remote_hangup")
    again = talk().refer(9, "failed", sip_status=403, reason="Forbidden")
    again.refer(12, "completed", sip_status=200, before=("accepted",))
    yield "refused, then taken", again.ended(13, "transferred")
    blind = talk().refer(9, "completed_unconfirmed", before=("accepted",))
    yield "blind transfer", blind.ended(10, "transferred")
    held = talk().add(5, "sdp", "the caller holds the call").add(60, "sdp", "the caller is back")
    yield "hold and back", held.ended(70, "remote_hangup")
    mute = Tale().answered().said(2).add(2, "sdp", "the caller holds the call").sound(60, packets=0)
    yield "held from the start", mute.ended(60, "remote_hangup")
    yield "a good talk, cut short", talk().add(6, "interrupted", "heard 300 ms").ended(6.5, "remote_hangup")
    yield "a late hangup request", talk().ended(20, "remote_hangup").rest(20.1, "hangup", 404, "No session")
    yield "a refer after the end", talk().ended(20, "remote_hangup").rest(20.1, "refer", 404, "No session")
    tool = (
        talk()
        .add(8, "tool_call", "look_up({})")
        .add(9, "session", "conversation.item.create: function_call_output")
    )
    yield "a tool that answered", tool.said(10).ended(20, "remote_hangup")
    fresh = talk().add(19, "tool_call", "look_up({})")
    yield "a tool that had no time", fresh.ended(20, "remote_hangup")
    yield (
        "one slow answer of three",
        (
            talk().add(8, "turn", "x", first_played_ms=9000.0).add(16, "turn", "x", first_played_ms=600.0)
        ).ended(20, "remote_hangup"),
    )
    failed = (
        talk()
        .add(7, "response", "response failed: once", status="failed")
        .said(9)
        .add(9, "response", "response completed", status="completed")
    )
    yield "an answer that failed, and the next did not", failed.ended(20, "remote_hangup")
    bad = Tale().webhook(0, 9).rest(0.2, "accept", 400, "Unknown parameter").rest(0.4, "accept")
    yield "a bad accept made good", bad.answered(0.8, accept=False).said(2).ended(9, "hangup")
    yield (
        "answered for its keys",
        Tale().answered().rest(2, "dtmf").sound(9, played_ms=0).ended(9, "remote_hangup"),
    )
    yield "NAT that did no harm", talk(theirs="10.1.2.3").ended(20, "remote_hangup")
    yield "still talking", talk()


HEALTHY = list(healthy())


@pytest.mark.parametrize(("name", "tale"), HEALTHY, ids=[name for name, _ in HEALTHY])
def test_a_healthy_call_or_near_miss_has_nobody_to_blame(name, tale):
    found = tale.judge()
    assert codes(found) in (["caller_hung_up"], ["app_hung_up"], ["transferred"], ["in_progress"])
    assert found.blame == "nobody"
