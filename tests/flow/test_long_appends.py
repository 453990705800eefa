"""Minutes of sound in one `input_audio_buffer.append`, over a real WebSocket (API rows E23, S19)."""

import base64
import json

import pytest

from offhook.realtime.long_events import Ear, in_pieces
from offhook.realtime.long_text import LongText
from offhook.realtime.session import Session
from testbed.plain_desk import FRAME, append, append_frame, receive, say, serving, update


async def test_minutes_in_one_append_are_heard_whole_before_the_next_event_and_hold_nobody_up():
    async with serving() as desk, desk.connect() as ws, desk.connect() as other:
        await update(ws, audio={"input": {"turn_detection": None}})
        await receive(other, "session.created")
        await append(ws, FRAME["audio/pcm"] * 50 * 60)
        await say(ws, "input_audio_buffer.commit")
        item = (await receive(ws, "conversation.item.done"))["item"]
        await say(other, "response.create")
        await receive(other, "response.done")
        await say(ws, "conversation.item.retrieve", item_id=item["id"])
        whole = (await receive(ws, "conversation.item.retrieved"))["item"]["content"][0]["audio"]
        assert base64.b64decode(whole) == FRAME["audio/pcm"] * 50 * 60


LONG = FRAME["audio/pcm"] * 50 * 20


async def test_a_long_append_is_never_judged_in_one_go(monkeypatch):
    taken = []
    receive_client_event = Session.receive_client_event

    def watch(self, event, **kwargs):
        taken.append(len(event if isinstance(event, str) else event["audio"]))
        receive_client_event(self, event, **kwargs)

    monkeypatch.setattr(Session, "receive_client_event", watch)
    async with serving() as desk, desk.connect() as ws:
        await update(ws, audio={"input": {"turn_detection": None}})
        await append(ws, LONG)
        await say(ws, "input_audio_buffer.commit")
        item = (await receive(ws, "conversation.item.done"))["item"]
        await say(ws, "conversation.item.retrieve", item_id=item["id"])
        whole = (await receive(ws, "conversation.item.retrieved"))["item"]["content"][0]["audio"]
    assert base64.b64decode(whole) == LONG
    assert max(taken) < 128 * 1024 + 200


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (base64.b64encode(LONG).decode()[:-7] + "*" + base64.b64encode(LONG).decode()[-6:], "not base64"),
        ("AA==" * 100_000, "not base64"),
        (base64.b64encode(LONG + b"x").decode(), "not a whole number of 2-byte samples"),
    ],
)
async def test_of_a_long_append_with_a_fault_at_its_end_nothing_is_taken(audio, message):
    async with serving() as desk, desk.connect() as ws:
        await update(ws, audio={"input": {"turn_detection": None}})
        await say(ws, "input_audio_buffer.append", audio=audio, event_id="mine")
        error = (await receive(ws, "error"))["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "audio", "mine")
        assert message in error["message"]
        await say(ws, "input_audio_buffer.commit")
        assert (await receive(ws, "error"))["error"]["code"] == "input_audio_buffer_commit_empty"


async def test_one_append_holds_15_mib_of_audio_and_no_more():
    most = bytes(15 * 1024 * 1024)
    ear = Ear(appends=True, hears="audio/pcm", holds="audio/pcm")
    pieces = [piece for piece in in_pieces(LongText.cut(append_frame(most)), ear) if piece]
    assert sum(len(base64.b64decode(piece["audio"])) for piece in pieces) == len(most)
    async with serving() as desk, desk.connect() as ws:
        await ws.send(append_frame(most + b"xx"))
        error = (await receive(ws, "error"))["error"]
        assert "at most 15 MiB" in error["message"]
        await say(ws, "response.create")
        assert (await receive(ws, "response.done"))["response"]["status"] == "completed"


async def test_a_long_append_may_be_written_in_any_of_jsons_ways():
    audio = base64.b64encode(LONG).decode()
    escaped = json.dumps(audio).replace("/", r"\/")
    async with serving() as desk, desk.connect() as ws:
        await update(ws, audio={"input": {"turn_detection": None}})
        for frame in (
            f'{{"audio" : {escaped}, "type":"input_audio_buffer.append"}}',
            f'{{"audio" :\n"{audio}","event_id":null, "type":"input_audio_buffer.append"}}',
        ):
            await ws.send(frame)
            await say(ws, "input_audio_buffer.commit")
            item = (await receive(ws, "conversation.item.done"))["item"]
            await say(ws, "conversation.item.retrieve", item_id=item["id"])
            whole = (await receive(ws, "conversation.item.retrieved"))["item"]["content"][0]["audio"]
            assert base64.b64decode(whole) == LONG
