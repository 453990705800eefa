"""What of a conversation another upstream is told."""

from __future__ import annotations

from offhook.realtime.engine import ReopenUpstream
from testbed.relay_line import FRAME, RelayLine

WORDS = "We are open from nine to five and closed on Sunday."


def replayed(line: RelayLine) -> list[dict[str, object]]:
    line.lose()
    return list(line.kinds(ReopenUpstream)[-1].items)


def texts(items: list) -> list[str]:
    return [part["text"] for item in items for part in item.get("content", ())]


def begin(line: RelayLine) -> dict[str, object]:
    item = {"id": "item_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    line.up("response.created", response={"id": "resp_1"})
    line.up("response.output_item.added", response_id="resp_1", item=item)
    line.up("conversation.item.added", item=item, previous_item_id=None)
    return item


def say(line: RelayLine, frames: int) -> None:
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    line.up("response.output_audio.delta", FRAME * frames, delta="AAAA", **place)


def end(line: RelayLine, item: dict[str, object]) -> None:
    content = [{"type": "output_audio", "transcript": WORDS}]
    for kind in ("conversation.item.done", "response.output_item.done"):
        line.up(kind, item=item | {"status": "incomplete", "content": content}, response_id="resp_1")
    line.up("response.done", response={"id": "resp_1", "status": "cancelled"})


def test_words_that_came_after_they_were_cut_are_cut_too():
    line = RelayLine()
    item = begin(line)
    say(line, 100)
    line.played(800)
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    say(line, 100)
    end(line, item)
    # 800 of 4000 ms: a fifth of the words, and no half of one.
    assert texts(replayed(line)) == ["We are"]


def test_what_was_not_heard_at_all_is_not_told():
    line = RelayLine()
    item = begin(line)
    say(line, 100)
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    end(line, item)
    assert replayed(line) == []


def test_what_the_app_cut_or_deleted_stays_so():
    line = RelayLine()
    item = begin(line)
    say(line, 100)
    end(line, item)
    line.up("conversation.item.truncated", item_id="item_1", content_index=0, audio_end_ms=1000)
    line.item("item_2", role="user", content=[{"type": "input_text", "text": "And?"}])
    line.item("item_3", role="user", content=[{"type": "input_text", "text": "Never mind."}])
    line.up("conversation.item.deleted", item_id="item_2")
    assert texts(replayed(line)) == ["We are open from nine to", "Never mind."]


def test_the_words_of_an_answer_that_the_loss_cut_off_are_told():
    line = RelayLine()
    begin(line)
    for delta in ("We are ", "open"):
        line.up(
            "response.output_audio_transcript.delta",
            item_id="item_1",
            response_id="resp_1",
            content_index=0,
            delta=delta,
        )
    assert texts(replayed(line)) == ["We are open"]


def call(line: RelayLine, status: str) -> None:
    item = {"id": "item_f", "type": "function_call", "call_id": "call_1", "name": "look", "arguments": ""}
    line.up("response.created", response={"id": "resp_1"})
    line.up("conversation.item.added", item=item | {"status": "in_progress"}, previous_item_id=None)
    line.up("response.function_call_arguments.delta", item_id="item_f", delta='{"da')
    if status == "completed":
        done = item | {"status": status, "arguments": '{"day":"monday"}'}
        line.up("conversation.item.done", item=done)
        line.up("response.output_item.done", item=done, response_id="resp_1")


def test_half_a_call_is_not_told_nor_an_output_without_its_call():
    for status in ("in_progress", "completed"):
        line = RelayLine()
        call(line, status)
        line.item("item_o", type="function_call_output", call_id="call_1", output="nine")
        told = [item["type"] for item in replayed(line)]
        assert told == (["function_call", "function_call_output"] if status == "completed" else [])


def test_the_order_is_the_upstreams():
    line = RelayLine()

    def add(item_id: str, previous: str | None) -> None:
        line.item(item_id, previous, role="user", content=[{"type": "input_text", "text": item_id}])

    add("a", None)
    add("b", "a")
    add("c", "a")
    add("d", "unknown")
    line.app(
        type="conversation.item.create",
        previous_item_id="root",
        item={"type": "message", "role": "user", "content": []},
    )
    add("e", None)
    add("f", "root")
    add("g", None)
    assert texts(replayed(line)) == ["f", "e", "a", "c", "b", "d", "g"]


def test_a_response_outside_of_the_conversation_stays_outside():
    """Row E15."""
    line = RelayLine()
    content = [{"type": "output_text", "text": "aside"}]
    item = {"id": "x", "type": "message", "role": "assistant", "status": "completed", "content": content}
    line.up("response.output_item.done", item=item, response_id="resp_9")
    assert replayed(line) == []


def test_pictures_and_what_an_mcp_server_said_are_told():
    line = RelayLine()
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    line.item("p", role="user", content=[picture, {"type": "input_text", "text": "What is it?"}])
    line.item("l", type="mcp_list_tools", server_label="docs", tools=[])
    line.item("m", type="mcp_call", server_label="docs", name="find", arguments="{}", output="found")
    first, second = replayed(line)
    assert first["content"] == [picture, {"type": "input_text", "text": "What is it?"}]
    assert second == {
        "id": "m",
        "type": "mcp_call",
        "server_label": "docs",
        "name": "find",
        "arguments": "{}",
        "output": "found",
    }


def test_the_oldest_pictures_are_forgotten_before_they_are_too_many_and_no_words():
    line = RelayLine()
    picture = "data:image/png;base64," + "A" * 1_000_000
    for number in range(20):
        line.item(f"item_w{number}", role="user", content=[{"type": "input_text", "text": "Look."}])
        line.item(f"item_p{number}", role="user", content=[{"type": "input_image", "image_url": picture}])
    line.up("conversation.item.deleted", item_id="item_p19")
    line.item("item_p20", role="user", content=[{"type": "input_image", "image_url": picture}])
    kept = [str(item["id"]) for item in replayed(line)]
    assert [one for one in kept if "_p" in one] == [f"item_p{number}" for number in [*range(5, 19), 20]]
    assert len([one for one in kept if "_w" in one]) == 20


def test_what_is_held_while_nobody_is_there_is_bounded_in_size_too():
    line = RelayLine()
    line.lose()
    for _ in range(40):
        line.app(type="x", text="A" * 1_000_000)
    assert len(line.events("error")) == 9
    assert len(line.reopen()) == 31
