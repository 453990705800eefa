"""Pipecat in an environment of its own: its OpenAI Realtime service in sessions without a call."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from plain_session import DAY, run, talk  # noqa: E402

from testbed import Strictness  # noqa: E402
from testbed.app_process import AppProcess  # noqa: E402


async def follow_by_hand(app: AppProcess) -> None:
    """What `by_hand.py` does goes by itself."""
    await app.told("tool ran", day=DAY)
    await app.told("retrieved", same=True, role="assistant")
    await app.told("hung up")
    responses = [event["response"] for event in app.events if event["type"] == "response.done"]
    statuses = [response["status"] for response in responses]
    assert statuses == ["completed", "completed", "cancelled", "completed"], statuses
    added = [event["item"] for event in app.events if event["type"] == "conversation.item.added"]
    # The context is one message to the service, and goes up again when the conversation is begun anew.
    contexts = [item for item in added if "Hello Zoë." in str(item)]
    assert len(contexts) == 2, added
    assert "It is Sunday." in str(added), added
    updates = [event["session"] for event in app.events if event["type"] == "session.updated"]
    assert updates[-1]["instructions"] == "Be brief.", updates[-1]
    assert updates[-1]["audio"]["input"]["turn_detection"] is None, updates[-1]
    app.judge(Strictness(audio=True), embedded=True)
    print(
        f"  by hand: turns, a context, a new conversation; {len(app.events)} events, all valid and in order"
    )


run(HERE, partial(talk, greets=True, plays=True))
run(HERE, follow_by_hand, "by_hand.py")
