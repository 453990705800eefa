"""The pages of calls: what they show of a call, and that nothing which a caller sends is ever markup."""

import re
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import pytest

from offhook.audio import g711
from offhook.audio.stereo_wav import create_header, interleave
from offhook.calls.recording import Recording, RecordingState
from offhook.server import AdminKey, ServerServices, create_app
from offhook.server.pages.call_view import call_line, outcome, transcript, turns, verdict_view
from offhook.server.pages.playback import loudness
from offhook.server.pages.sequence import FIRST, LAST, sequence
from offhook.server.pages.text import duration, ms, party, raw, shown
from offhook.tenants import ConfiguredProjects

from .conftest import CLOCK, FakeCalls

KEY = "ak-offhook-test-0123456789"
MARKUP = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
INVITE = "INVITE sip:proj_a@192.0.2.1 SIP/2.0\r\nFrom: {}\r\nCSeq: 1 INVITE\r\n\r\n"


class Story:
    """A call with as much of a story as its test gives it."""

    def __init__(self, calls, call_id="rtc_u0_1", **described):
        self.call = calls.add(call_id, state=described.get("state", "active"))
        self.call.describe = lambda: {
            "id": call_id,
            "object": "realtime.call",
            "project_id": "proj_a",
            "state": "active",
            "created_at": 1000,
            **described,
        }
        self.call.refers = lambda: described.get("refers", [])


@pytest.fixture
def calls():
    return FakeCalls()


@pytest.fixture
async def client(calls, recordings):
    app = create_app(
        ServerServices(
            projects=ConfiguredProjects([]),
            calls=calls,
            clock=CLOCK,
            admin_key=AdminKey(KEY),
            recordings=recordings,
        )
    )
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as logged_in:
        await logged_in.post("/login", data={"key": KEY})
        yield logged_in


PATHS = ("/", "/calls", "/calls?q=1", "/calls/rtc_u0_1", "/calls/rtc_u0_1/json", "/calls/rtc_u0_1/entries/0")


@pytest.mark.parametrize("path", PATHS)
async def test_every_page_asks_for_a_login(client, calls, path):
    Story(calls).call.timeline.record("call", "it began")
    assert (await client.get(path)).status_code == 200
    client.cookies.clear()
    response = await client.get(path)
    assert response.status_code == 303
    assert response.headers["location"].startswith("/login")
    part = await client.get(path, headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (204, "/login")


@pytest.mark.parametrize("path", [path for path in PATHS if not path.endswith("json")])
async def test_what_a_caller_sends_is_text(client, calls, path):
    name = f'"{MARKUP}" <sip:+1555@x>;tag=1'
    story = Story(
        calls,
        **{
            "from": name,
            "to": f"<sip:{MARKUP}@x>",
            "sip_call_id": MARKUP,
            "carrier_call_id": MARKUP,
            "state": "ended",
            "session": {"instructions": MARKUP, "model": MARKUP, "tools": [{"name": MARKUP}]},
            "termination": {"result": "client_error", "reason": MARKUP, "cause": MARKUP},
            "refers": [
                {"status": MARKUP, "target_uri": MARKUP, "updates": [{"reason": MARKUP, "at": MARKUP}]}
            ],
        },
    )
    timeline = story.call.timeline
    timeline.record("sip", MARKUP, direction="in", message=INVITE.format(name), **{"<b>": MARKUP})
    for kind in ("heard", "said", "tool_call", "error", "webhook", "sideband", "rest", "relay", MARKUP):
        timeline.record(kind, MARKUP, endpoint=MARKUP, error=MARKUP)
    timeline.record("webhook", MARKUP, attempt=1, type=MARKUP, status=None, duration_ms=3, error=MARKUP)
    page = (await client.get(path)).text
    assert "<script>alert" not in page
    assert "<img" not in page


async def test_characters_that_act_are_left_out(client, calls):
    story = Story(calls, **{"from": '"\x1b[31mred\u202eexe.png\u2066\x00" <sip:+1555@x>'})
    story.call.timeline.record("sip", "\x1b]0;title\x07\u202e", message="a\x1b[2Jb\u202ec\r\nd")
    for path in ("/", "/calls/rtc_u0_1", "/calls/rtc_u0_1/entries/0"):
        page = (await client.get(path)).text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", page)
    assert "a[2Jbc\nd" in page


async def test_a_name_of_60_kb_is_cut(client, calls):
    Story(calls, **{"from": f'"{"A" * 60_000}" <sip:+1555@x>'})
    for path in ("/", "/calls", "/calls/rtc_u0_1"):
        page = (await client.get(path)).text
        assert len(page) < 30_000
        assert "60,0" in page


async def test_a_call_is_found_by_number_as_people_write_it(client, calls):
    Story(calls, "rtc_u0_1", **{"from": "<sip:+14155550123@x>"})
    Story(calls, "rtc_u0_2", **{"from": "<sip:+14155550199@x>"})
    page = (await client.get("/calls", params={"q": "(415) 555-0123"})).text
    assert "rtc_u0_1" in page
    assert "rtc_u0_2" not in page
    assert "No call is like this" in (await client.get("/calls", params={"q": "999"})).text


@pytest.mark.parametrize("field", ["sip_call_id", "carrier_call_id"])
async def test_a_call_is_found_by_the_ids_of_the_callers_side(client, calls, field):
    Story(calls, "rtc_u0_1", **{field: "3f2a@edge.example"})
    Story(calls, "rtc_u0_2", **{"from": "<sip:3f2a@edge.example>"})
    page = (await client.get("/calls", params={"q": "3f2a@edge.example"})).text
    assert "/calls/rtc_u0_1" in page
    assert "/calls/rtc_u0_2" not in page


async def test_a_call_id_leads_to_its_call(client, calls):
    Story(calls)
    response = await client.get("/calls", params={"q": "rtc_u0_1"})
    assert response.headers["location"] == "/calls/rtc_u0_1"
    assert (await client.get("/calls", params={"q": "rtc_u0_none"})).status_code == 200


async def test_calls_are_found_by_state_and_time(client, calls):
    Story(calls, "rtc_u0_1", state="ended")
    Story(calls, "rtc_u0_2", state="active")
    page = (await client.get("/calls", params={"state": "ended"})).text
    assert "rtc_u0_1" in page
    assert "rtc_u0_2" not in page
    later = (await client.get("/calls", params={"since": "2026-01-01T00:00"})).text
    assert "rtc_u0_" not in later
    assert "rtc_u0_1" in (await client.get("/calls", params={"until": "2026-01-01T00:00"})).text


@pytest.mark.parametrize("params", [{"since": "yesterday"}, {"state": "<b>"}, {"until": "9" * 400}])
async def test_a_search_that_makes_no_sense_says_what_to_write(client, params):
    page = await client.get("/calls", params=params)
    assert page.status_code == 200
    assert 'role="alert"' in page.text


async def test_an_unknown_call_is_a_page_that_says_so(client):
    for path in ("/calls/rtc_none", "/calls/rtc_none/json", "/calls/rtc_none/entries/0"):
        response = await client.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"].startswith("text/html")


async def test_a_message_stands_there_as_it_was_sent(client, calls):
    story = Story(calls)
    story.call.timeline.record("sip", "INVITE", direction="in", message=INVITE.format("<sip:a@b>"))
    page = (await client.get("/calls/rtc_u0_1/entries/0")).text
    assert "From: &lt;sip:a@b&gt;\nCSeq: 1 INVITE" in page
    for number in ("1", "-1", "x", "9" * 5_000):
        none = await client.get(f"/calls/rtc_u0_1/entries/{number}")
        assert (none.status_code, none.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_what_a_page_shows_is_there_as_json(client, calls):
    story = Story(calls, termination={"cause": "why not"})
    story.call.timeline.record("call", "it began")
    body = (await client.get("/calls/rtc_u0_1/json")).json()
    assert body["call"]["termination"] == {"cause": "why not"}
    assert body["timeline"]["data"][0]["title"] == "it began"


async def test_only_a_live_call_is_asked_after(client, calls):
    Story(calls, "rtc_u0_1", state="active")
    Story(calls, "rtc_u0_2", state="ended", termination={"result": "success", "reason": "hangup"})
    assert 'hx-trigger="every' in (await client.get("/calls/rtc_u0_1")).text
    assert 'hx-trigger="every' not in (await client.get("/calls/rtc_u0_2")).text


async def test_a_live_call_is_asked_after_as_it_was_asked_for(client, calls):
    Story(calls)
    page = (await client.get("/calls/rtc_u0_1?all&detail")).text
    assert 'hx-get="/calls/rtc_u0_1?all&amp;detail"' in page


async def test_what_is_known_of_a_call_is_not_kept_by_browsers(client, calls):
    story = Story(calls)
    story.call.timeline.record(
        "sip", "INVITE sip:x SIP/2.0", direction="received", message=INVITE.format("a")
    )
    for path in ("", "/json", "/pcap", "/entries/0"):
        response = await client.get(f"/calls/rtc_u0_1{path}")
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-store"), path


async def test_the_overview_says_what_to_do_next(client):
    page = (await client.get("/")).text
    assert "No calls yet" in page
    assert "offhook call" in page


# The verdict and the recording.


async def test_the_verdict_comes_first_and_leads_to_what_shows_it(client, calls):
    story = Story(calls, state="ended", termination={"result": "client_error", "reason": "cancelled"})
    for method in ("INVITE", "CANCEL"):
        message = f"{method} sip:a SIP/2.0\r\nCSeq: 1 {method}\r\n"
        story.call.timeline.record("sip", f"{method} sip:a SIP/2.0", direction="in", message=message)
    story.call.timeline.record("call", "ended", result="client_error", reason="cancelled", cause="hung up")
    page = (await client.get("/calls/rtc_u0_1")).text
    said = (await client.get("/calls/rtc_u0_1/json")).json()["verdict"]
    assert page.index(said["sentence"][1:]) < page.index('class="ladder"')
    assert said["evidence"], "a cancelled call has something to show"
    for number in said["evidence"]:
        assert f'href="#e{number}"' in page
        assert re.search(rf'id="e{number}" class="step [^"]*evidence"', page)


def test_a_verdict_is_shown_with_whose_affair_it_is():
    said = {
        "code": "webhook_slow", "blame": "app", "sentence": "your webhook was slow", "remedy": "answer at once",
        "evidence": [1, 99], "also": [{"code": "x", "blame": "nobody", "sentence": "one packet was lost"}],
    }  # fmt: skip
    found = verdict_view(said, entries({"kind": "call", "title": "a"}, {"kind": "call", "title": "b"}))
    assert (found.whose, found.kind) == ("your app's", "bad")
    assert found.evidence == ((1, "b", 0.01),)
    assert found.also[0].kind == "good"


@dataclass
class KeptFile:
    path: Path
    state: RecordingState = RecordingState.SAVED

    async def find(self, project_id, call_id):
        assert project_id is None
        if call_id != "rtc_u0_1":
            return None
        return Recording("rec_1", call_id, "proj_a", self.state, 1002.0, 1003.0, 1000, 1)

    def file_of(self, recording):
        return self.path


@pytest.fixture
def recordings(tmp_path):
    """Half a second of tone on the left, as much silence after it, and nothing on the right."""
    tone = g711.encode(np.full(4000, 16000, dtype=np.int16), "PCMU")
    silence = g711.encode(np.zeros(4000, dtype=np.int16), "PCMU")
    sound = interleave(tone + silence, silence + silence)
    path = tmp_path / "rec_1.wav"
    path.write_bytes(create_header("PCMU", len(sound)) + sound)
    return KeptFile(path)


async def test_a_recording_can_be_played_and_seen(client, calls, recordings):
    Story(calls)
    page = await client.get("/calls/rtc_u0_1")
    assert 'src="/calls/rtc_u0_1/recording.wav"' in page.text
    nonce = re.search(r'data-nonce="(\w+)"', page.text)[1]
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert policy.endswith(f"; style-src 'self' 'nonce-{nonce}'")
    assert nonce not in (await client.get("/calls/rtc_u0_1")).text, "a nonce is used once"
    part = await client.get("/calls/rtc_u0_1/recording.wav", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")
    left, right = (await client.get("/calls/rtc_u0_1/waveform")).json()
    assert len(left) == len(right) == 800
    assert left[:400] == pytest.approx([0.49] * 400, abs=0.02)
    assert max(left[401:] + right) < 0.01
    recordings.state = RecordingState.RECORDING
    assert "It is being recorded" in (await client.get("/calls/rtc_u0_1")).text


async def test_a_call_that_was_not_recorded_has_no_player(client, calls):
    Story(calls, "rtc_u0_2")
    page = await client.get("/calls/rtc_u0_2")
    assert "<audio" not in page.text
    assert "nonce" not in page.headers["content-security-policy"]
    for path in ("/calls/rtc_u0_2/recording.wav", "/calls/rtc_u0_2/waveform"):
        assert (await client.get(path)).status_code == 404
    client.cookies.clear()
    assert (await client.get("/calls/rtc_u0_1/recording.wav")).status_code == 303


def test_a_file_of_another_kind_has_no_waveform(tmp_path):
    (tmp_path / "a").write_bytes(b"RIFF" + b"x" * 100)
    with pytest.raises(ValueError, match="no recording"):
        loudness(tmp_path / "a")


def test_a_recording_without_sound_yet_has_an_empty_waveform(tmp_path):
    (tmp_path / "a").write_bytes(create_header("PCMA", 0))
    assert loudness(tmp_path / "a") == [[], []]


# The diagram.


def entries(*found):
    return {"data": [{"ms": place * 10.0, **entry} for place, entry in enumerate(found)]}


def test_an_arrow_goes_from_who_sent_it():
    drawn = sequence(
        entries(
            {"kind": "sip", "direction": "in", "title": "INVITE", "message": INVITE},
            {"kind": "sip", "direction": "out", "title": "SIP/2.0 200 OK", "message": "SIP/2.0 200 OK\r\n"},
            {"kind": "webhook", "title": "", "attempt": 1, "status": 200, "duration_ms": 12},
            {"kind": "rest", "title": "POST accept: 200", "status": 200},
        )
    )
    caller, offhook, app = (drawn.steps[0].x1, drawn.steps[0].x2, drawn.steps[2].x2)
    assert caller < offhook < app
    ends = [(step.x1, step.x2) for step in drawn.steps]
    assert ends == [(caller, offhook), (offhook, caller), (offhook, app), (app, offhook)]
    assert drawn.steps[0].name == "0.000 s, caller to Offhook: INVITE"
    assert [step.is_message for step in drawn.steps] == [True, True, False, False]
    assert len({step.y for step in drawn.steps}) == 4
    assert all(step.y < drawn.height for step in drawn.steps)


def test_inner_states_are_shown_to_who_asks():
    story = entries(
        {"kind": "call", "title": "leg: early"}, {"kind": "route", "title": "sent"}, {"kind": "call"}
    )
    assert (len(sequence(story).steps), sequence(story).quiet) == (1, 2)
    assert len(sequence(story, detailed=True).steps) == 3


def test_a_long_call_shows_its_beginning_and_its_end():
    story = entries(*({"kind": "call", "title": str(number)} for number in range(1000)))
    drawn = sequence(story)
    assert (len(drawn.steps), drawn.left_out) == (FIRST + LAST, 1000 - FIRST - LAST)
    assert [drawn.steps[0].label, drawn.steps[-1].label] == ["0", "999"]
    assert drawn.steps[FIRST].y - drawn.steps[FIRST - 1].y == 60, "one row is left for what is missing"
    assert len(sequence(story, whole=True).steps) == 1000


def test_evidence_is_marked():
    story = entries({"kind": "call", "title": "a"}, {"kind": "call", "title": "b"})
    assert [step.is_evidence for step in sequence(story, evidence=[1]).steps] == [False, True]


# What is told of calls.


def test_the_last_transfer_counts():
    def line(*statuses):
        refers = [{"status": status, "sip_status": 486, "reason": "Busy Here"} for status in statuses]
        return call_line({"id": "a", "refers": refers}, 0.0).failed_transfer

    assert line("failed") == "486 Busy Here"
    assert line("failed", "completed") == ""
    assert line() == ""


@pytest.mark.parametrize(
    ("call", "word", "kind", "is_live"),
    [
        ({"state": "ringing"}, "ringing", "info", True),
        (
            {"state": "ended", "termination": {"result": "success", "reason": "remote_hangup"}},
            "remote hangup",
            "good",
            False,
        ),
        (
            {"state": "ended", "termination": {"result": "upstream_error", "reason": "failed"}},
            "failed",
            "bad",
            False,
        ),
        ({"state": "referred"}, "referred", "plain", False),
        ({}, "unknown", "plain", False),
    ],
)
def test_how_a_call_stands(call, word, kind, is_live):
    found = outcome(call)
    assert (found.word, found.kind, found.is_live) == (word, kind, is_live)


def test_a_turn_says_where_its_time_went():
    found = turns(
        entries(
            {"kind": "turn", "committed_ms": 300.0, "transcript_ms": 350.0, "first_text_ms": 500.0,
             "first_audio_ms": 620.0, "first_played_ms": 640.0},
            {"kind": "turn", "committed_ms": 300.0, "first_played_ms": 310.0},
            {"kind": "turn", "title": "nothing is known of it"},
        )
    )  # fmt: skip
    assert [turn.parts for turn in found] == [(300, 50, 150, 120, 20), (300, None, None, None, 10)]
    assert [turn.total_ms for turn in found] == [640, 310]


def test_a_transcript_has_both_sides_in_order():
    found = transcript(
        entries(
            {"kind": "heard", "title": "Hello?"},
            {"kind": "sip", "title": "INFO"},
            {"kind": "said", "title": "Hello."},
            {"kind": "interrupted", "title": "heard 160 ms: "},
        )
    )
    assert [(said.number, said.who, said.text) for said in found] == [
        (0, "caller", "Hello?"),
        (2, "agent", "Hello."),
        (3, "note", "The caller interrupted: heard 160 ms"),
    ]


@pytest.mark.parametrize(
    ("header", "name", "number", "host"),
    [
        ('"Anna Miller" <sip:+15550100@phone.example>;tag=1', "Anna Miller", "+15550100", "phone.example"),
        ("<sip:phone.example>", "", "phone.example", ""),
        ("tel:+15550100", "", "+15550100", ""),
        ("urn:service:sos", "", "urn:service:sos", ""),
        ('"no end', "", '"no end', ""),
        (None, "", "", ""),
    ],
)
def test_a_party_is_read_as_far_as_it_can_be(header, name, number, host):
    found = party(header)
    assert (found.name, found.number, found.host) == (name, number, host)


def test_marks_do_not_pile_up_over_the_lines_beside():
    assert shown("Z" + "\u0301" * 50 + "a") == "Z" + "\u0301" * 3 + "a"
    for name in ("שָׁלוֹם", "Việt Nam", "สวัสดี"):
        assert shown(name) == name


def test_numbers_are_written_for_people():
    assert [ms(value) for value in (None, 3.4, 999.4, 1234, 12_345)] == [
        "—",
        "3 ms",
        "999 ms",
        "1.23 s",
        "12.3 s",
    ]
    assert [duration(value) for value in (None, 0, 61, 3725)] == ["—", "0:00", "1:01", "1:02:05"]
    assert shown("a" * 400).endswith("a… (400 characters)")
    assert raw("a\r\nb\tc") == "a\nb c"
