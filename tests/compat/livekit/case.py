"""LiveKit Agents in an environment of its own: its OpenAI Realtime model in sessions without a call."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from plain_session import run, talk  # noqa: E402

from testbed import Strictness  # noqa: E402
from testbed.app_process import AppProcess  # noqa: E402
from testbed.script import TOOL  # noqa: E402


async def follow_by_hand(app: AppProcess) -> None:
    """What `by_hand.py` does goes by itself."""
    await app.told("connected again")
    history = await app.told("history")
    # A new connection is told the history again, but for the system's messages: LiveKit's instructions stand for those.
    assert history["after"][:-1] == history["before"][1:], history
    await app.told("hung up")
    replies = [line for line in app.lines if line["what"] == "generated"]
    assert [line["calls"] for line in replies] == [[], [TOOL], [], [], []], replies
    assert all(line["text"] and line["samples"] for line in replies if not line["calls"]), replies
    types = app.types
    assert types["input_audio_buffer.committed"] == 3, types
    assert types["input_audio_buffer.cleared"] == 1, types
    assert types["conversation.item.deleted"] == 2, types
    app.judge(Strictness(audio=True), embedded=True)
    print(f"  by hand: turns, a history, a new connection; {len(app.events)} events, all valid and in order")


# It cancels what the server has cancelled already, and takes the error for what it is.
run(HERE, partial(talk, greets=True, plays=True, excused="response_cancel_not_active"))
run(HERE, follow_by_hand, "by_hand.py")
