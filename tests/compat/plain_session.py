"""What every client says and hears in a session without a call."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from offhook.audio import tones
from testbed import Node, Strictness
from testbed.app_process import IMPORT_S, AppProcess
from testbed.environments import virtual_environment
from testbed.script import GREETING, SCRIPT, SHORT, SLOW, TOOL_ARGUMENTS
from testbed.waiting import until

__all__ = ["DAY", "run", "talk"]

SPEECH = tones.tone(300.0, 700, level=0.3, rate=24000).astype("<i2").tobytes().hex()
DAY = json.loads(TOOL_ARGUMENTS)["day"]


async def talk(
    app: AppProcess, *, greets: bool = False, plays: bool = False, truncates: bool = True, excused: str = ""
) -> None:
    """
    Say three things to an app's session: the first is answered, the second calls a tool, the third interrupts.

    `greets` is whether the app has the session speak first, `plays` whether it tells when the sound was played, and
    `truncates` whether its SDK tells the server what of it was heard. `excused` is `AppProcess.judge`'s.
    """
    await app.event("session.updated")
    if greets:
        await said(app, GREETING, plays)
    line = len(app.lines)
    await app.ask("speak", pcm=SPEECH)
    await said(app, SHORT, plays, line)
    print("  plain: spoken to, and answered in sound", flush=True)

    line = len(app.lines)
    await app.ask("speak", pcm=SPEECH)
    await app.told("tool ran", after=line, day=DAY)
    line = len(app.lines)
    await app.told("audio", after=line)
    outputs = [event["item"].get("output") or "" for event in app.events if "item" in event]
    assert any("nine to five" in output for output in outputs), outputs
    print("  plain: the tool ran and its outcome was spoken", flush=True)

    position = len(app.events)
    await app.ask("speak", pcm=SPEECH)
    assert (await app.event("response.done", position))["response"]["status"] == "cancelled"
    if truncates:
        await app.event("conversation.item.truncated", position)
    # Besides the greeting: an answer, the call of the tool, its outcome, and what the interruption is answered with.
    responses = 4 + greets
    await until(lambda: app.types["response.created"] == app.types["response.done"] == responses)
    spoken = [
        event["transcript"] for event in app.events if event["type"].endswith("output_audio_transcript.done")
    ]
    assert SLOW[0] in " ".join(spoken), spoken
    await app.ask("hang up")
    await app.told("hung up")
    app.judge(Strictness(audio=True), embedded=True, excused=excused)
    print(f"  plain: interrupted, and left; {len(app.events)} events, all valid and in order", flush=True)


def transcripts(app: AppProcess) -> list[str]:
    """Return what was said so far."""
    kind = "response.output_audio_transcript.done"
    return [event["transcript"] for event in app.events if event["type"] == kind]


async def said(app: AppProcess, text: str, plays: bool, line: int = 0) -> None:
    """Wait until the app was told this text and has the sound."""
    await app.told("audio", after=line)
    await until(lambda: text in transcripts(app))
    if plays:
        await app.told("played", after=line)
    else:
        await until(lambda: app.types["response.created"] == app.types["response.done"])


def run(folder: Path, drive: Callable[[AppProcess], Awaitable[None]], program: str = "app.py") -> None:
    """Run a folder's program, in an environment with its requirements and beside a node, until `drive` is done."""
    python = virtual_environment(folder.name, folder / "requirements.txt")

    async def run_app(node: Node) -> None:
        async with AppProcess(node, node.seat(), [str(python), str(folder / program)]) as app:
            await app.told("versions", patience_s=IMPORT_S)
            await drive(app)

    with (
        tempfile.TemporaryDirectory(prefix="offhook-compat-") as data,
        Node(Path(data), script=SCRIPT) as node,
    ):
        asyncio.run(asyncio.wait_for(run_app(node), 240))
