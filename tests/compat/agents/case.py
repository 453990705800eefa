"""openai-agents in an environment of its own: a call by SIP, then sessions without one. The argument is whose."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from plain_session import DAY, talk  # noqa: E402

from testbed import Node, Phone, PhoneCall, Strictness  # noqa: E402
from testbed.app_process import IMPORT_S, AppProcess  # noqa: E402
from testbed.environments import virtual_environment  # noqa: E402
from testbed.script import SCRIPT, TOOL  # noqa: E402
from testbed.waiting import until  # noqa: E402


async def talk_by_phone(app: AppProcess, call: PhoneCall) -> None:
    await call.answered()
    await app.told("webhook", type="realtime.call.incoming")
    assert [tool["name"] for tool in (await app.event("session.updated"))["session"]["tools"]] == [TOOL]
    await app.event("output_audio_buffer.stopped")
    await call.hears_sound(200)

    position = len(app.events)
    call.speak()
    assert (await app.event("response.done", position))["response"]["status"] == "completed"
    await app.event("output_audio_buffer.stopped", position)
    print("  the caller heard the greeting, spoke and was answered", flush=True)

    position, asked_at = len(app.events), time.monotonic()
    call.speak()
    await app.told("tool ran", day=DAY)
    await app.told("tool end", output="nine to five")
    await app.event("output_audio_buffer.started", position)
    await call.hears_sound(300, since=asked_at)
    print("  the tool ran and its outcome was spoken", flush=True)

    position = len(app.events)
    call.speak()
    await app.event("output_audio_buffer.cleared", position)
    await app.event("conversation.item.truncated", position)
    assert (await app.event("response.done", position))["response"]["status"] == "cancelled"
    print("  the caller interrupted", flush=True)

    call.press("5#")
    await until(lambda: [event["event"] for event in app.events if "dtmf" in event["type"]] == ["5", "#"])
    call.hang_up()
    await app.told("session over")
    await app.told("webhook", type="realtime.call.ended")
    app.judge(Strictness(), embedded=True)
    print(f"  two keys, the end of the call; {len(app.events)} events, all valid and in order", flush=True)


async def follow_by_hand(app: AppProcess) -> None:
    """What the app does goes by itself."""
    await app.told("tool ran", day=DAY)
    await app.told("audio_interrupted")
    await app.told("hung up")
    responses = [event["response"] for event in app.events if event["type"] == "response.done"]
    statuses = [response["status"] for response in responses]
    assert statuses == ["completed", "completed", "cancelled", "completed"], statuses
    assert (responses[-1]["conversation_id"], responses[-1]["output_modalities"]) == (None, ["text"]), (
        responses
    )
    updates = [event["session"] for event in app.events if event["type"] == "session.updated"]
    assert [session["tracing"] for session in updates] == [None, "auto", "auto"], updates
    assert updates[0]["audio"]["input"]["turn_detection"] is None, updates
    # The agent that took over has no tools.
    assert (updates[-1]["instructions"], updates[-1]["tools"]) == ("Sell.", []), updates
    await app.event("conversation.item.truncated")
    app.judge(Strictness(audio=True), embedded=True, excused="response_cancel_not_active")
    print(f"  by hand: turns, a handover; {len(app.events)} events, all valid and in order", flush=True)


async def drive(node: Node, python: Path) -> None:
    for mode in ("", "plain", "by hand"):
        seat = node.seat()
        command = [str(python), str(HERE / "app.py"), *([mode] if mode else [])]
        async with AppProcess(node, seat, command) as app, Phone(node) as phone:
            versions = await app.told("versions", patience_s=IMPORT_S)
            if mode == "by hand":
                await follow_by_hand(app)
            elif mode == "plain":
                # 0.6.5 does not tell what was heard when the server has cancelled the response.
                await talk(app, truncates=versions["openai-agents"] != "0.6.5")
            else:
                await talk_by_phone(app, await phone.dial(seat.project))


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else HERE.name
    python = virtual_environment(name, HERE.parent / name / "requirements.txt")
    with (
        tempfile.TemporaryDirectory(prefix="offhook-compat-") as folder,
        Node(Path(folder), script=SCRIPT, seats=3) as node,
    ):
        asyncio.run(asyncio.wait_for(drive(node, python), 240))


if __name__ == "__main__":
    main()
