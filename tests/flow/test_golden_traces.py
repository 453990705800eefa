"""
Every frame both ways of the flows that clients live by, held to recorded files (`tests/golden`, see `testbed.golden`).

A field that comes, goes or changes shows here, wherever it is. `OFFHOOK_GOLDEN=write` writes the files anew.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from offhook.audio import tones
from testbed import DeveloperApp, Node, Phone
from testbed.golden import FOLDER, Tape, hold
from testbed.phone import PhoneCall

SCRIPT = {
    "greeting": "Hello there.",
    "turns": [
        {"hears": "Good morning.", "replies": [{"says": "Good morning to you."}]},
        {
            "hears": "When are you open?",
            "replies": [
                {"calls": [{"name": "opening_hours", "arguments": '{"day":"monday"}'}]},
                {"says": "From nine to five."},
            ],
        },
        # The second sentence never comes: whoever interrupts, however late, does so while the answer is being made.
        {
            "hears": "Tell me more.",
            "replies": [{"says": f"{'On and on, ' * 30}on. No more.", "sentence_ms": 600_000}],
        },
        {"hears": "Thank you.", "replies": [{"says": "Goodbye."}]},
        {"hears": "Hm.", "fails": True, "replies": [{"says": "Pardon?"}]},
        {"hears": "Fail.", "replies": [{"says": "No.", "status": "failed"}]},
    ],
}
TRANSCRIBED = {"input": {"transcription": {"model": "whisper-1"}}}
CALM = {"turn_detection": {"type": "server_vad", "silence_duration_ms": 1500}}
"For a caller on a machine that stands still now and then, in the middle of a word."
HEARD = ("audio_start_ms", "audio_end_ms", "seconds")
"A phone's sound comes in real time, so what is measured of it is never quite the same."
LOUD, QUIET = (
    base64.b64encode(sound).decode()
    for sound in (tones.tone(300.0, 100, level=0.3, rate=24000).astype("<i2").tobytes(), b"\0" * 4800)
)


@pytest.fixture(scope="module")
def quiet_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("golden"), script=SCRIPT, seats=30) as running:
        yield running


@contextlib.asynccontextmanager
async def session(node: Node, query: str = "?model=gpt-realtime") -> AsyncIterator[Tape]:
    """A session without a call, from its `session.created` on."""
    url = f"{node.base_url.replace('http', 'ws', 1)}/realtime{query}"
    key = {"Authorization": f"Bearer {node.seat().api_key}"}
    async with connect(url, additional_headers=key, max_size=None) as connection:
        tape = Tape(connection, audio=True)
        await tape.until("session.created")
        yield tape


@dataclass
class OnCall:
    """A phone call and its sideband."""

    tape: Tape
    call: PhoneCall

    async def says(self, ms: int = 700) -> None:
        self.tape.note(f"speaks for {ms} ms")
        self.call.speak(ms)


@contextlib.asynccontextmanager
async def on_call(node: Node, **accept: Any) -> AsyncIterator[OnCall]:
    async with DeveloperApp(node) as app, Phone(node) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id, **accept)
        await call.answered()
        url = f"{node.base_url.replace('http', 'ws', 1)}/realtime?call_id={call_id}"
        key = {"Authorization": f"Bearer {app.seat.api_key}"}
        async with connect(url, additional_headers=key, max_size=None) as connection:
            tape = Tape(connection)
            await tape.until("session.created")
            yield OnCall(tape, call)


def written(text: str, **fields: Any) -> dict[str, Any]:
    part = {"type": "input_text", "text": text}
    return {"type": "message", "role": "user", "content": [part], **fields}


async def add(tape: Tape, *texts: str) -> None:
    """Write turns that the script has answered already, so that the next is another one."""
    for text in texts:
        await tape.send("conversation.item.create", item=written(text))
        await tape.until("conversation.item.done")


async def ask(tape: Tape, **response: Any) -> None:
    await tape.send("response.create", **({"response": response} if response else {}))
    await tape.until("response.done")


async def update(tape: Tape, **fields: Any) -> None:
    await tape.send("session.update", session={"type": "realtime", **fields})
    await tape.until("session.updated")


async def speak(tape: Tape, *, quiet: int = 10) -> None:
    """Append a second of sound and as much silence as ends a turn."""
    for sound, many in ((LOUD, 10), (QUIET, quiet)):
        for _ in range(many):
            await tape.send("input_audio_buffer.append", audio=sound)


# Phone calls.


async def test_a_greeting_on_a_call(quiet_node: Node) -> None:
    """Rows O01, O03, O04, O05, O13."""
    async with on_call(quiet_node) as talk:
        await talk.tape.send("response.create")
        await talk.tape.until("response.done", "output_audio_buffer.stopped")
    hold("call_greeting", talk.tape)


async def test_a_spoken_turn_on_a_call(quiet_node: Node) -> None:
    """Rows O02, O06."""
    async with on_call(quiet_node, audio={"input": CALM | TRANSCRIBED["input"]}) as talk:
        await talk.says()
        await talk.tape.until(
            "response.done",
            "output_audio_buffer.stopped",
            "conversation.item.input_audio_transcription.completed",
        )
    hold("call_spoken_turn", talk.tape, varies=HEARD)


async def test_a_tool_round_trip_on_a_call(quiet_node: Node) -> None:
    """Rows O07, O08."""
    tool = {"type": "function", "name": "opening_hours", "parameters": {"type": "object"}}
    async with on_call(quiet_node, tools=[tool], audio={"input": CALM}) as talk:
        await add(talk.tape, "Good morning.")
        await talk.says()
        done = await talk.tape.until("response.done")
        (called,) = done["response"]["output"]
        output = {
            "type": "function_call_output",
            "call_id": called["call_id"],
            "output": '{"from":9,"to":17}',
        }
        await talk.tape.send("conversation.item.create", item=output)
        await talk.tape.until("conversation.item.done")
        await talk.tape.send("response.create")
        await talk.tape.until("response.done", "output_audio_buffer.stopped")
    hold("call_tool", talk.tape, varies=HEARD)


async def test_a_barge_in_on_a_call(quiet_node: Node) -> None:
    """Row O09. How much was heard is a matter of the caller's moment, and so is what the engine reads of it later."""
    async with on_call(quiet_node, audio={"input": CALM}) as talk:
        await add(talk.tape, "Good morning.", "When are you open?")
        await talk.says()
        await talk.tape.until("output_audio_buffer.started", "response.output_audio_transcript.delta")
        await talk.call.hears_sound()
        await talk.says()
        await talk.tape.until("response.done", "response.done", "output_audio_buffer.stopped")
    hold(
        "call_barge_in",
        talk.tape,
        varies=(*HEARD, "input_tokens", "text_tokens", "total_tokens"),
    )


async def test_the_end_of_a_call(quiet_node: Node) -> None:
    """Rows S16, S17, O11: the caller hangs up while an answer is being made."""
    async with on_call(quiet_node) as talk:
        await add(talk.tape, "Good morning.", "When are you open?", "Tell me more.")
        await talk.tape.send("response.create")
        await talk.tape.until("response.output_audio_transcript.delta", "output_audio_buffer.started")
        talk.tape.note("hangs up")
        talk.call.hang_up()
        await talk.tape.until_closed()
    hold("call_end", talk.tape, varies=HEARD)


async def test_keys_on_a_call(quiet_node: Node) -> None:
    """Row O16."""
    async with on_call(quiet_node) as talk:
        for key in "5#":
            talk.tape.note(f"presses {key}")
            talk.call.press(key)
            await talk.tape.until("input_audio_buffer.dtmf_event_received")
    hold("call_keys", talk.tape)


# Sessions without a call.


async def test_a_spoken_turn(quiet_node: Node) -> None:
    """Rows O02, O03, O17: on the sound's own clock, so its times are always the same."""
    async with session(quiet_node) as tape:
        await update(tape, audio=TRANSCRIBED)
        await speak(tape)
        await tape.until("response.done", "conversation.item.input_audio_transcription.completed")
    hold("session_spoken_turn", tape)


async def test_manual_turns(quiet_node: Node) -> None:
    """Rows O15, E24, E25."""
    async with session(quiet_node) as tape:
        await update(tape, audio={"input": {"turn_detection": None, **TRANSCRIBED["input"]}})
        await speak(tape, quiet=0)
        await tape.send("input_audio_buffer.clear")
        await tape.until("input_audio_buffer.cleared")
        await speak(tape, quiet=0)
        await tape.send("input_audio_buffer.commit")
        await tape.until("conversation.item.done", "conversation.item.input_audio_transcription.completed")
        await ask(tape)
    hold("session_manual_turns", tape)


async def test_a_transcription_that_fails(quiet_node: Node) -> None:
    async with session(quiet_node) as tape:
        await update(tape, audio={"input": {"turn_detection": None, **TRANSCRIBED["input"]}})
        for _ in range(4):
            await speak(tape, quiet=0)
            await tape.send("input_audio_buffer.commit")
            await tape.until(
                "conversation.item.done", "conversation.item.input_audio_transcription.completed"
            )
        await speak(tape, quiet=0)
        await tape.send("input_audio_buffer.commit")
        await tape.until("conversation.item.done", "conversation.item.input_audio_transcription.failed")
    hold("session_failed_transcription", tape)


async def test_a_session_that_only_writes_down(quiet_node: Node) -> None:
    """Rows S03, G01."""
    async with session(quiet_node, "?intent=transcription") as tape:
        given = {"type": "transcription", "audio": {"input": {"transcription": {"language": "en"}}}}
        await tape.send("session.update", session=given)
        await tape.until("session.updated")
        await speak(tape)
        await tape.until("conversation.item.done", "conversation.item.input_audio_transcription.completed")
        await tape.send("response.create", event_id="mine")
        await tape.until("error")
    hold("transcription_session", tape)


async def test_a_turn_in_text_only(quiet_node: Node) -> None:
    """Rows G05, V03."""
    async with session(quiet_node) as tape:
        await update(tape, output_modalities=["text"])
        await add(tape, "Good morning.")
        await ask(tape)
    hold("session_text", tape)


async def test_a_tool_round_trip(quiet_node: Node) -> None:
    """Rows O07, O08, V04."""
    async with session(quiet_node) as tape:
        await add(tape, "Good morning.", "When are you open?")
        await tape.send("response.create")
        done = await tape.until("response.done")
        (called,) = done["response"]["output"]
        output = {
            "type": "function_call_output",
            "call_id": called["call_id"],
            "output": '{"from":9,"to":17}',
        }
        await tape.send("conversation.item.create", item=output)
        await tape.until("conversation.item.done")
        await ask(tape)
    hold("session_tool", tape)


async def test_a_response_out_of_band(quiet_node: Node) -> None:
    """Rows E14, E15."""
    async with session(quiet_node) as tape:
        await add(tape, "Good morning.")
        item_id = tape.events[-1]["item"]["id"]
        await ask(
            tape,
            conversation="none",
            output_modalities=["text"],
            instructions="Say it in a word.",
            metadata={"topic": "greetings"},
            max_output_tokens=100,
            input=[{"type": "item_reference", "id": item_id}],
        )
        await ask(tape, conversation="none", input=[])
    hold("session_out_of_band", tape)


async def test_a_response_is_cancelled(quiet_node: Node) -> None:
    """Rows E16, O11."""
    async with session(quiet_node) as tape:
        await add(tape, "Good morning.", "When are you open?", "Tell me more.")
        await tape.send("response.create")
        await tape.until(*["response.output_audio.delta"] * 40)
        await tape.send("response.cancel")
        await tape.until("response.done")
        await tape.send("response.cancel", event_id="again")
        await tape.until("error")
    hold("session_cancel", tape)


async def test_a_silent_speaker_is_asked(quiet_node: Node) -> None:
    """Row O14."""
    async with session(quiet_node) as tape:
        detection = {"type": "server_vad", "idle_timeout_ms": 5000}
        await update(tape, audio={"input": {"turn_detection": detection}}, output_modalities=["text"])
        await ask(tape)
        await tape.until("input_audio_buffer.timeout_triggered", "response.done")
    hold("session_idle_timeout", tape, varies=HEARD)


async def test_a_response_fails(quiet_node: Node) -> None:
    """Row O20."""
    async with session(quiet_node) as tape:
        await add(tape, *(turn["hears"] for turn in SCRIPT["turns"]))  # type: ignore[index]
        await ask(tape)
    hold("session_failed_response", tape)


async def test_the_conversation_is_written_read_and_cut(quiet_node: Node) -> None:
    """Rows E18 to E22."""
    async with session(quiet_node) as tape:
        await tape.send("conversation.item.create", item=written("one", id="item_one"))
        await tape.until("conversation.item.done")
        await tape.send(
            "conversation.item.create", item=written("two", id="item_two"), previous_item_id="root"
        )
        await tape.until("conversation.item.done")
        for item in (
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": "three"}]},
            {"type": "function_call", "name": "f", "call_id": "call_mine", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_mine", "output": "done"},
        ):
            await tape.send("conversation.item.create", item=item, previous_item_id="item_one")
            await tape.until("conversation.item.done")
        await tape.send("conversation.item.retrieve", item_id="item_two")
        await tape.until("conversation.item.retrieved")
        await tape.send("conversation.item.delete", item_id="item_two")
        await tape.until("conversation.item.deleted")
        await ask(tape, input=[])
        spoken = tape.events[-1]["response"]["output"][0]["id"]
        await tape.send("conversation.item.truncate", item_id=spoken, content_index=0, audio_end_ms=300)
        await tape.until("conversation.item.truncated")
        await tape.send("conversation.item.retrieve", item_id=spoken)
        await tape.until("conversation.item.retrieved")
    hold("session_conversation", tape)


async def test_rounds_of_session_update(quiet_node: Node) -> None:
    """Rows E01 to E06, E08, G02 to G20."""
    async with session(quiet_node) as tape:
        await update(tape, instructions="Be kind.", model="another", tracing="auto")
        await update(tape, audio={"input": {"format": None}, "output": {"format": None, "voice": "cedar"}})
        await update(tape, audio={"input": {"format": {"type": "audio/pcmu"}}, "output": {"speed": 1.25}})
        await update(tape, audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}})
        await update(tape, audio={"input": {"turn_detection": {"interrupt_response": False}}})
        await update(
            tape, audio={"input": {"turn_detection": None, "noise_reduction": {"type": "far_field"}}}
        )
        tool = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
        await update(
            tape, tools=[tool], tool_choice={"type": "function", "name": "f"}, reasoning={"effort": "low"}
        )
        await update(
            tape,
            tool_choice="auto",
            tools=[],
            instructions="",
            truncation={"type": "retention_ratio", "retention_ratio": 0.8},
            include=["item.input_audio_transcription.logprobs"],
            max_output_tokens=200,
            parallel_tool_calls=False,
        )
    hold("session_update", tape)


async def test_faults(quiet_node: Node) -> None:
    """Rows S21, E02, E12, E22, V06."""
    faults: list[dict[str, Any]] = [
        {"type": "session.updat"},
        {"type": "session.update", "session": {}},
        {"type": "session.update", "session": {"type": "realtime", "voice": "ash"}},
        {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"speed": 9}}}},
        {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "mcp"}]}},
        {"type": "conversation.item.delete", "item_id": "yo"},
        {"type": "conversation.item.retrieve", "item_id": "yo"},
        {"type": "conversation.item.truncate", "item_id": "yo", "content_index": 0, "audio_end_ms": 0},
        {"type": "conversation.item.create", "item": written("x"), "previous_item_id": "yo"},
        {"type": "input_audio_buffer.append", "audio": "?"},
        {"type": "input_audio_buffer.commit"},
        {"type": "output_audio_buffer.clear"},
        {"type": "response.create", "response": {"output_modalities": ["audio", "text"]}},
    ]
    async with session(quiet_node) as tape:
        for frame in ("{", "[]", "{}", b"\0"):
            await tape.send_frame(frame)
            await tape.until("error")
        for number, fault in enumerate(faults):
            await tape.send_frame(json.dumps({**fault, "event_id": f"mine_{number}"}))
            await tape.until("error")
    hold("session_faults", tape)


def test_no_file_is_left_over() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in FOLDER.glob("*") if f'"{path.stem}"' not in here] == []
