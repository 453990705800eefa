"""A relayed call whose upstream is lost: what the caller hears, what is asked again, when nothing is."""

from __future__ import annotations

import pytest

from offhook.realtime.engine import EngineFailed, KeepUpstream, PauseUpstream, ReopenUpstream, ResumeUpstream
from offhook.realtime.outbox import ClearPlayout, PlayAudio
from offhook.realtime.relay_hold import HoldSentence
from testbed.relay_line import FRAME, SESSION, RelayLine

SENTENCE = b"\x21" * 8000
"One second."
HOLD = HoldSentence("one moment, please", {"audio/pcmu": SENTENCE})


def held(line: RelayLine) -> int:
    return len([played for played in line.kinds(PlayAudio) if played.audio == SENTENCE])


# The sentence.


def test_a_caller_in_silence_hears_a_sentence_after_a_grace():
    line = RelayLine(hold=HOLD)
    line.lose()
    line.wait(0.39)
    assert held(line) == 0
    line.wait(0.02)
    assert held(line) == 1
    assert "the caller hears: one moment, please" in line.titles


def test_an_upstream_that_is_back_at_once_is_not_missed():
    line = RelayLine(hold=HOLD)
    line.lose("main closed with 1001")
    line.wait(0.3)
    line.reopen()
    line.wait(10)
    assert held(line) == 0
    assert "the caller hears: one moment, please" not in line.titles


def test_the_sentence_comes_again_after_a_pause_and_never_after_the_end():
    line = RelayLine(hold=HOLD)
    line.lose()
    line.wait(0.4)
    line.played(1000)
    line.wait(4.9)
    assert held(line) == 1
    line.wait(0.2)
    assert held(line) == 2
    line.relay.receive_engine_event(EngineFailed("nobody is left"), line.now)
    line.take().wait(20)
    assert held(line) == 2


def test_what_is_still_being_said_is_not_talked_into():
    line = RelayLine(hold=HOLD)
    line.speak(100)
    line.played(100)
    line.lose()
    line.wait(1.9)
    assert held(line) == 0
    line.played(2000)
    line.wait(0.35)
    assert held(line) == 0
    line.wait(0.2)
    assert held(line) == 1


def test_without_a_sentence_nothing_is_said():
    line = RelayLine()
    line.lose()
    line.wait(10)
    assert line.kinds(PlayAudio) == []


def test_the_sentence_is_nobodys_sound():
    """`output_audio_buffer.*` and truncation count from the answer's own first sample, behind the sentence."""
    line = RelayLine(hold=HOLD)
    line.speak(10)
    line.done()
    line.played(200)
    line.lose()
    line.wait(0.4)
    assert line.told.count("output_audio_buffer.started") == 1
    assert line.told.count("output_audio_buffer.stopped") == 1
    line.played(700)
    line.reopen()
    line.speak(10, "resp_2", "item_2")
    assert line.told.count("output_audio_buffer.started") == 1
    line.played(1199)
    assert line.told.count("output_audio_buffer.started") == 1
    line.played(1260)
    assert line.events("output_audio_buffer.started")[-1]["response_id"] == "resp_2"
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_3")
    truncate = line.sent[-1]
    assert (truncate["type"], truncate["item_id"], truncate["audio_end_ms"]) == (
        "conversation.item.truncate",
        "item_2",
        60,
    )


def test_the_sentence_is_cut_like_anything_else():
    for cut in ("caller", "app"):
        line = RelayLine(hold=HOLD)
        line.lose()
        line.wait(0.4)
        line.played(100)
        if cut == "caller":
            line.reopen()
            line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_3")
        else:
            line.app(type="output_audio_buffer.clear")
        assert len(line.kinds(ClearPlayout)) == 1
        assert "output_audio_buffer.cleared" not in line.told
        assert line.events("conversation.item.truncated") == []


# The answer that was due.


def commit(line: RelayLine, item_id: str = "item_u") -> None:
    line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id=item_id)
    line.up("input_audio_buffer.speech_stopped", audio_end_ms=900, item_id=item_id)
    line.up("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)


def create_session(**turn_detection: object) -> dict[str, object]:
    return SESSION | {"audio": {"input": {"turn_detection": {"type": "server_vad", **turn_detection}}}}


def test_a_turn_that_nobody_answered_is_answered_by_the_next():
    line = RelayLine()
    commit(line)
    line.lose()
    (ask,) = line.reopen()
    assert ask["type"] == "response.create"
    line.up("error", error={"code": "c", "message": "no", "event_id": ask["event_id"]})
    assert line.events("error") == []
    assert any("asked for the answer" in title for title in line.titles)


def test_a_response_that_was_cut_off_is_asked_for_again_as_the_app_asked():
    line = RelayLine()
    line.app(type="response.create", event_id="greet", response={"instructions": "Greet the caller."})
    line.speak(3)
    line.lose()
    (ask,) = line.reopen()
    assert (ask["type"], ask["response"]) == ("response.create", {"instructions": "Greet the caller."})
    assert ask["event_id"] != "greet"
    assert [done["response"]["status"] for done in line.events("response.done")] == ["failed"]


def test_what_the_app_sent_and_the_upstream_did_not_take_goes_up_again_as_it_was():
    """A tool's output and the request for an answer, swallowed with the connection."""
    line = RelayLine()
    output = {"type": "function_call_output", "call_id": "call_1", "output": "nine"}
    line.app(type="conversation.item.create", event_id="one", item=output)
    line.app(type="response.create", event_id="two")
    sent = line.sent[:]
    line.lose()
    assert line.reopen() == sent
    line.up("conversation.item.added", item=output | {"id": "item_o"})
    line.speak(2, "resp_2", "item_a")
    line.up("response.output_audio.done", response_id="resp_2", item_id="item_a")
    line.done("resp_2")
    line.lose()
    assert line.reopen() == []


@pytest.mark.parametrize(
    "before",
    [
        lambda line: None,
        lambda line: (commit(line), line.speak(2), line.done()),
        lambda line: (line.speak(2), line.up("response.output_audio.done", response_id="resp_1")),
        # The caller talks over it and is still speaking.
        lambda line: (line.speak(2), line.up("input_audio_buffer.speech_started", item_id="item_2")),
        lambda line: (line.speak(2), line.app(type="response.cancel")),
        lambda line: (line.speak(2), line.app(type="output_audio_buffer.clear")),
        # A tool was called: the app answers it, and asks.
        lambda line: (
            line.up("response.created", response={"id": "resp_1"}),
            line.up("response.output_item.added", response_id="resp_1", item={"type": "function_call"}),
            line.up("response.output_item.done", response_id="resp_1", item={"type": "function_call"}),
        ),
    ],
)
def test_nothing_is_asked_for_when_no_answer_is_due(before):
    line = RelayLine()
    before(line)
    line.lose()
    assert [event for event in line.reopen() if event["type"] == "response.create"] == []


def test_what_is_asked_for_beside_the_conversation_is_not_taken_for_an_answer():
    """Row E15."""
    line = RelayLine()
    line.app(type="response.create", event_id="aside", response={"conversation": "none"})
    commit(line)
    line.up("response.created", response={"id": "resp_1", "conversation_id": "conv_1"})
    line.lose()
    aside, answer = line.reopen()
    assert aside["event_id"] == "aside"
    assert answer["type"] == "response.create"
    assert "response" not in answer


def test_sound_whose_end_nobody_tells_does_not_keep_the_caller_in_silence():
    line = RelayLine(hold=HOLD)
    line.up("response.output_audio.delta", FRAME, response_id="resp_9", item_id="item_9", content_index=0)
    line.lose()
    line.played(20)
    line.wait(1)
    assert held(line) == 1
    assert line.told[-1] == "output_audio_buffer.stopped"


def test_an_app_that_answers_by_itself_is_not_forestalled():
    line = RelayLine(open_now=False)
    line.open(create_session(create_response=False))
    commit(line)
    line.speak(2)
    line.lose()
    assert line.reopen() == []


def test_an_app_that_cancels_meanwhile_gets_none():
    line = RelayLine()
    commit(line)
    line.lose()
    line.app(type="response.cancel", event_id="mine")
    assert line.reopen() == []


def test_an_app_that_asks_meanwhile_gets_one_answer():
    line = RelayLine()
    commit(line)
    line.lose()
    line.app(type="response.create", event_id="mine")
    assert [event["event_id"] for event in line.reopen()] == ["mine"]


def test_a_second_loss_before_the_answer_asks_once_more():
    line = RelayLine()
    commit(line)
    for _ in range(2):
        line.lose()
        assert [event["type"] for event in line.reopen()] == ["response.create"]
    line.speak(2)
    line.up("response.output_audio.done", response_id="resp_1")
    line.lose()
    assert line.reopen() == []


def test_an_error_settles_what_it_answers():
    line = RelayLine()
    line.app(type="response.create", event_id="mine")
    line.up("error", error={"code": "c", "message": "no", "event_id": "mine"})
    line.app(type="response.create")
    line.up("error", error={"code": "c", "message": "no", "event_id": None})
    line.lose()
    assert line.reopen() == []


def hear(line: RelayLine, frames: int, fill: int) -> None:
    for _ in range(frames):
        line.relay.receive_audio(bytes([fill]) * 160, line.now)


def test_a_turn_without_words_goes_along_as_sound():
    """Transcription is off unless the app asks for it (row G11)."""
    line = RelayLine()
    hear(line, 100, 1)
    line.up("input_audio_buffer.speech_started", audio_start_ms=1500, item_id="item_u")
    hear(line, 20, 2)
    line.up("input_audio_buffer.speech_stopped", audio_end_ms=2400, item_id="item_u")
    hear(line, 20, 3)
    line.up("input_audio_buffer.committed", item_id="item_u", previous_item_id=None)
    line.item("item_u", role="user", content=[{"type": "input_audio", "transcript": None}])
    line.speak(3, item="item_a")
    line.lose()
    (reopen,) = line.kinds(ReopenUpstream)
    (item,) = reopen.items
    (part,) = item["content"]
    assert (item["id"], item["role"], part["type"]) == ("item_u", "user", "input_audio")
    assert part["audio"] == b"\1" * 160 * 50 + b"\2" * 160 * 20
    assert reopen.turn == b""


def test_a_turn_that_is_not_over_is_heard_whole_by_the_next():
    line = RelayLine()
    hear(line, 60, 1)
    line.up("input_audio_buffer.speech_started", audio_start_ms=500, item_id="item_u")
    hear(line, 20, 2)
    line.lose()
    (reopen,) = line.kinds(ReopenUpstream)
    assert reopen.turn == b"\1" * 160 * 50 + b"\2" * 160 * 20
    assert reopen.items == []
    assert line.reopen() == []


# The upstream's own end of a session.


def test_the_cap_is_crossed_at_a_quiet_moment_before_it():
    line = RelayLine(open_now=False)
    line.open(SESSION | {"expires_at": 1_000 + 3_600})
    line.wait(3_560)
    assert line.kinds(ReopenUpstream) == []
    line.speak(3)
    line.wait(12)
    assert line.kinds(ReopenUpstream) == []
    line.up("response.output_audio.done", response_id="resp_1")
    line.done()
    line.played(60)
    line.wait(1)
    assert len(line.kinds(ReopenUpstream)) == 1
    line.app(type="conversation.item.delete", event_id="meanwhile", item_id="item_1")
    assert line.sent[-1]["event_id"] == "meanwhile"
    # Not answered by the old one: the new one is asked.
    assert [event["event_id"] for event in line.reopen()] == ["meanwhile"]
    assert line.told.count("session.updated") == 1
    line.wait(100)
    assert len(line.kinds(ReopenUpstream)) == 1


def test_a_session_that_says_nothing_sensible_of_its_end_is_left_alone():
    for expires_at in (None, 0, 1_010, "soon"):
        line = RelayLine(open_now=False)
        line.open(SESSION | {"expires_at": expires_at})
        line.wait(5_000)
        assert line.kinds(ReopenUpstream) == []


@pytest.mark.parametrize(
    "kind", ["input_audio_buffer.speech_started", "response.created", "conversation.item.added"]
)
def test_what_begins_while_the_next_session_is_opened_keeps_the_present_one(kind: str):
    """The next one was told the conversation as it stood; what came since would be lost with the old one."""
    line = RelayLine(open_now=False)
    line.open(SESSION | {"expires_at": 1_000 + 3_600})
    line.wait(3_580)
    assert len(line.kinds(ReopenUpstream)) == 1
    line.up(kind, item_id="item_u", item={"id": "item_u"}, response={"id": "resp_1"})
    assert len(line.kinds(KeepUpstream)) == 1
    line.up("input_audio_buffer.committed", item_id="item_u")
    line.done()
    line.speak(1, "resp_2")
    line.done("resp_2")
    line.played(20)
    line.wait(2)
    assert len(line.kinds(ReopenUpstream)) == 2
    assert len(line.kinds(KeepUpstream)) == 1


def test_a_call_that_ends_opens_no_other_session():
    line = RelayLine(open_now=False)
    line.open(SESSION | {"expires_at": 1_000 + 3_600})
    line.wait(3_580)
    line.relay.close("remote_hangup", line.now)
    assert len(line.take().kinds(KeepUpstream)) == 1


# More sound than anybody listens to.


def test_an_upstream_that_is_too_far_ahead_is_not_read_until_it_was_heard():
    line = RelayLine(max_ahead_ms=1000)
    line.speak(50)
    assert line.kinds(PauseUpstream) == []
    line.up("response.output_audio.delta", FRAME, response_id="resp_1", item_id="item_1", content_index=0)
    assert len(line.kinds(PauseUpstream)) == 1
    line.played(10)
    assert line.kinds(ResumeUpstream) == []
    line.played(20)
    assert len(line.kinds(ResumeUpstream)) == 1


@pytest.mark.parametrize("how", ["caller", "app"])
def test_a_cut_has_it_read_on_at_once(how):
    line = RelayLine(max_ahead_ms=1000)
    line.speak(60)
    if how == "app":
        line.app(type="output_audio_buffer.clear")
    else:
        line.up("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_2")
    assert len(line.kinds(PauseUpstream)) == len(line.kinds(ResumeUpstream)) == 1


def test_a_turn_that_ended_without_being_committed_is_heard_again():
    """The new upstream finds its end by itself, commits and answers."""
    line = RelayLine()
    line.up("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    hear(line, 30, 7)
    line.up("input_audio_buffer.speech_stopped", audio_end_ms=600, item_id="item_u")
    line.lose()
    assert reopened(line).turn.endswith(b"\x07" * 160 * 30)


@pytest.mark.parametrize("noticed", [False, True], ids=["unnoticed", "noticed"])
def test_a_turn_in_which_two_upstreams_are_lost_is_heard_whole_by_the_third(noticed: bool):
    line = RelayLine()
    line.up("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    hear(line, 100, 1)
    line.lose()
    hear(line, 10, 2)
    line.reopen()
    if noticed:
        line.up("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_v")
    hear(line, 10, 3)
    line.lose()
    assert reopened(line).turn.endswith(
        b"".join(bytes([fill]) * 160 * n for fill, n in [(1, 100), (2, 10), (3, 10)])
    )


def test_what_no_upstream_takes_for_speech_is_forgotten():
    line = RelayLine()
    line.up("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    hear(line, 10, 1)
    line.lose()
    line.reopen()
    hear(line, 200, 2)
    line.lose()
    assert reopened(line).turn == b""
    assert reopened(line).items == []


def reopened(line: RelayLine) -> ReopenUpstream:
    return line.kinds(ReopenUpstream)[-1]
