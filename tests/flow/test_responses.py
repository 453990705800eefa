"""Item 3: responses, from what a client may ask of one to how it ends (rows E11 to E17, O03 to O13, O19, O20)."""

from __future__ import annotations

from offhook.realtime.engines.scripted import Reply, Script, Turn
from testbed.by_hand import Caller, assert_complete, send


async def test_each_response_begins_with_its_limits() -> None:
    """Row O13: the caller's turn, a client's wish, two at once, one that fails; none is asked about limits."""
    turn = Turn("Hello there.", (Reply("Hi.", status="failed"),))
    phone = await Caller(Script(greeting="Welcome.", turns=(turn,))).start()
    client, attachment = phone.attach()
    send(attachment, "response.create")
    send(attachment, "response.create", response={"conversation": "none", "input": []})
    phone.wait(1000)
    phone.say()
    phone.wait(1500)
    assert len(client.of("response.created")) == 3
    following = [
        after
        for before, after in zip(client.events, client.events[1:], strict=False)
        if before["type"] == "response.created"
    ]
    assert [event["type"] for event in following] == ["rate_limits.updated"] * 3
    assert all(event["rate_limits"] == [] for event in client.of("rate_limits.updated"))
    assert len(client.of("rate_limits.updated")) == 3
    assert [event["response"]["status"] for event in client.of("response.done")] == [
        "completed",
        "completed",
        "failed",
    ]
    assert_complete(client.events)
