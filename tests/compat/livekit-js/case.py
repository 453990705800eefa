"""
LiveKit Agents for Node, unmodified: an `AgentSession` on its OpenAI plugin's `RealtimeModel`, in a session without a
call, at a node whose voice is the scripted engine.

Run by `make compat`; exit status 0 when all went well. The app takes each warning of the framework for a fault; every
frame is judged here by openai-python's types.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from testbed import Node, Strictness  # noqa: E402
from testbed.app_process import AppProcess  # noqa: E402
from testbed.npm import install, node, version  # noqa: E402
from testbed.script import GREETING, LONG, SCRIPT, SHORT, SLOW  # noqa: E402


async def hold_session(offhook: Node, program: str) -> None:
    async with AppProcess(offhook, offhook.seat(), [program, str(HERE / "session.mjs")]) as app:
        await app.ends()
        # It cancels what the server has cancelled already, and takes the error for what it is.
        app.judge(
            Strictness(audio=True), embedded=True, from_start=False, excused="response_cancel_not_active"
        )
        await app.told("done")
        print(f"  {len(app.events)} events, all valid and in order", flush=True)
        assert (await app.told("tool"))["day"] == "monday"
        assert (await app.told("tool ended"))["result"] == "nine to five"
        history = (await app.told("history"))["history"]
    assert history[:4] == [
        f"assistant: {GREETING}",
        "user: Good morning.",
        f"assistant: {SHORT}",
        "user: When are you open?",
    ], history
    assert SLOW[0].startswith(history[4].removeprefix("assistant: ")), history
    assert history[5:] == ["user: And on other days?", f"assistant: {LONG}"], history


def main() -> None:
    program = node(HERE.parent / "node22")
    install(HERE)
    print(f"@livekit/agents-plugin-openai {version(HERE, '@livekit/agents-plugin-openai')}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="offhook-compat-") as folder,
        Node(Path(folder), script=SCRIPT) as offhook,
    ):
        asyncio.run(asyncio.wait_for(hold_session(offhook, program), 90))
    print("LiveKit Agents for Node: ok")


if __name__ == "__main__":
    main()
