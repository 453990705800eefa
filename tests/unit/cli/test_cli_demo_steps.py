"""The demo may only be proud of what it saw: each step fails when its evidence is missing."""

import copy
from collections.abc import Callable

import numpy as np
import pytest

from offhook.audio import tones
from offhook.cli.demo.steps import Evidence, check

CALL_ID = "rtc_u0_" + "0" * 32
TARGET = "tel:+15550100"


def sip(direction: str, title: str, cseq: str, *more: str) -> dict[str, object]:
    return {
        "event": "sip",
        "direction": direction,
        "transport": "tls",
        "title": title,
        "message": "\r\n".join([title, "Call-ID: 1", f"CSeq: {cseq}", *more, "", ""]),
    }


def good() -> Evidence:
    loud = tones.tone(440, 3000)
    evidence = Evidence(
        sentences=("I am Anna Miller.", "It is about a meeting."), name="Anna Miller", target=TARGET
    )
    evidence.phone = [
        sip("out", "INVITE sip:p@h SIP/2.0", "1 INVITE"),
        sip("in", "SIP/2.0 100 Trying", "1 INVITE"),
        sip("in", "SIP/2.0 180 Ringing", "1 INVITE"),
        sip("in", "SIP/2.0 200 OK", "1 INVITE"),
        sip("out", "ACK sip:h SIP/2.0", "1 ACK"),
        {"event": "heard", "state": "ended", "turn": 0, "seconds": 3.0},
        {"event": "speaking", "state": "started", "turn": 1, "text": "I am Anna Miller."},
        {"event": "speaking", "state": "ended", "turn": 1},
        {"event": "answer", "turn": 1, "ms": 700},
        {"event": "transcript", "turn": 1, "text": "thank you anna miller what is it about"},
        {"event": "speaking", "state": "started", "turn": 2, "text": "It is about a meeting."},
        {"event": "speaking", "state": "ended", "turn": 2},
        {"event": "answer", "turn": 2, "ms": 650},
        sip("in", "REFER sip:c@h SIP/2.0", "2 REFER", f"Refer-To: <{TARGET}>"),
        sip("out", "SIP/2.0 202 Accepted", "2 REFER"),
        {"event": "refer", "target": f"<{TARGET}>", "answer": 202},
        *(sip("out", "NOTIFY sip:h SIP/2.0", f"{number} NOTIFY") for number in (2, 3, 4)),
        *({"event": "notify", "status": status, "answer": 200} for status in (100, 180, 200)),
        sip("in", "BYE sip:c@h SIP/2.0", "3 BYE"),
        sip("out", "SIP/2.0 200 OK", "3 BYE"),
    ]
    evidence.phone_exit = 0
    evidence.app = [
        ("webhook", {"call_id": CALL_ID}),
        ("caller said", {"text": "I am Anna Miller."}),
        ("decision", {"decision": "ALLOW", "caller_name": "Anna Miller", "reason": "a meeting"}),
        ("transferred", {"call_id": CALL_ID}),
    ]
    evidence.call = {
        "id": CALL_ID,
        "refers": [{"status": "completed"}],
        "termination": {"reason": "transferred"},
    }
    evidence.timeline = {
        "data": [
            {"kind": "webhook", "status": 200, "duration_ms": 12.0},
            {"kind": "rest", "verb": "accept", "status": 200},
            {"kind": "sideband", "title": "attached"},
            {"kind": "said", "title": "Thank you, Anna Miller. What is it about?"},
            {"kind": "tool_call", "title": 'make_screening_decision({"decision": "ALLOW"})'},
            {"kind": "rest", "verb": "refer", "status": 200},
        ]
    }
    evidence.recording = np.stack([loud, loud], axis=1)
    return evidence


def upstream(ms: float, title: str) -> dict[str, object]:
    return {"kind": "upstream", "ms": ms, "title": title}


def good_elsewhere() -> Evidence:
    """The same call with its voice in other nodes, the first of which was killed."""
    evidence = good()
    evidence.upstreams = ("voice", "spare")
    told = [
        upstream(100.0, "voice is open"),
        upstream(20_000.0, "lost: voice: the connection broke (1006)"),
        upstream(20_010.0, "voice: Connection refused"),
        upstream(20_050.0, "spare is open"),
        {"kind": "usage", "title": "30 tokens in, 60 out", "total_tokens": 90},
    ]
    evidence.timeline = {"data": [*evidence.timeline["data"], *told]}
    return evidence


def retell(title: str, told: dict[str, object] | None) -> Callable[[Evidence], None]:
    """Put something else in the place of an entry, or nothing."""

    def spoil(evidence: Evidence) -> None:
        data = (told if entry.get("title") == title else entry for entry in evidence.timeline["data"])
        evidence.timeline = {"data": [entry for entry in data if entry is not None]}

    return spoil


def failed(evidence: Evidence) -> set[str]:
    return {step.name for step in check(evidence) if not step.ok}


def without(evidence: Evidence, **fields: object) -> None:
    evidence.phone = [
        event for event in evidence.phone if any(event.get(key) != value for key, value in fields.items())
    ]


def drop_message(start: str, direction: str, cseq: str) -> Callable[[Evidence], None]:
    def spoil(evidence: Evidence) -> None:
        evidence.phone = [
            event
            for event in evidence.phone
            if not (
                event["event"] == "sip"
                and event["direction"] == direction
                and str(event["title"]).startswith(start)
                and f"CSeq: {cseq}" in str(event["message"])
            )
        ]

    return spoil


def drop_entry(**fields: object) -> Callable[[Evidence], None]:
    def spoil(evidence: Evidence) -> None:
        data = evidence.timeline["data"]
        evidence.timeline = {
            "data": [e for e in data if any(e.get(key) != value for key, value in fields.items())]
        }

    return spoil


def drop_deed(what: str) -> Callable[[Evidence], None]:
    def spoil(evidence: Evidence) -> None:
        evidence.app = [deed for deed in evidence.app if deed[0] != what]

    return spoil


def decide(**changes: str) -> Callable[[Evidence], None]:
    def spoil(evidence: Evidence) -> None:
        evidence.app = [
            (what, {**said, **changes} if what == "decision" else said) for what, said in evidence.app
        ]

    return spoil


def one_sided(evidence: Evidence) -> None:
    assert evidence.recording is not None
    evidence.recording[:, 1] = 0


def test_the_whole_story() -> None:
    assert failed(good()) == set()


def test_nothing_at_all_is_no_story() -> None:
    steps = check(Evidence(sentences=("x",), name="Anna", target=TARGET))
    assert not any(step.ok for step in steps)
    assert all(step.detail for step in steps)


@pytest.mark.parametrize(
    ("spoil", "step"),
    [
        (drop_message("SIP/2.0 100", "in", "1 INVITE"), "SIP call set up"),
        (drop_message("SIP/2.0 180", "in", "1 INVITE"), "SIP call set up"),
        (drop_message("ACK", "out", "1 ACK"), "SIP call set up"),
        (drop_entry(kind="webhook"), "webhook signed and delivered"),
        (drop_deed("webhook"), "webhook signed and delivered"),
        (drop_entry(kind="rest", verb="accept"), "app accepted"),
        (drop_entry(kind="sideband"), "sideband attached"),
        (lambda evidence: without(evidence, event="heard"), "agent greeted"),
        (
            lambda evidence: without(evidence, event="speaking", state="ended", turn=2),
            "caller said everything",
        ),
        (drop_deed("caller said"), "caller's name understood"),
        (lambda evidence: without(evidence, event="transcript"), "agent's words heard"),
        (drop_entry(kind="said"), "agent's words heard"),
        (lambda evidence: without(evidence, event="answer", turn=2), "each turn answered"),
        (decide(decision="VOICEMAIL"), "tool decided"),
        (decide(caller_name="unknown"), "tool decided"),
        (drop_entry(kind="tool_call"), "tool decided"),
        (drop_entry(kind="rest", verb="refer"), "app posted refer"),
        (drop_deed("transferred"), "app posted refer"),
        (drop_message("REFER", "in", "2 REFER"), "REFER at the phone"),
        (drop_message("SIP/2.0 202", "out", "2 REFER"), "REFER at the phone"),
        (lambda evidence: setattr(evidence, "target", "tel:+1"), "REFER at the phone"),
        (lambda evidence: without(evidence, event="notify", status=180), "NOTIFY 100, 180, 200"),
        (drop_message("NOTIFY", "out", "4 NOTIFY"), "NOTIFY 100, 180, 200"),
        (drop_message("BYE", "in", "3 BYE"), "BYE"),
        (drop_message("SIP/2.0 200", "out", "3 BYE"), "BYE"),
        (lambda evidence: setattr(evidence, "call", {"id": CALL_ID}), "call ended as transferred"),
        (one_sided, "both sides recorded"),
        (lambda evidence: setattr(evidence, "recording", None), "both sides recorded"),
        (lambda evidence: setattr(evidence, "phone_exit", 1), "phone ended in order"),
    ],
)
def test_a_step_without_its_evidence_fails_and_no_other_does(
    spoil: Callable[[Evidence], None], step: str
) -> None:
    evidence = copy.deepcopy(good())
    spoil(evidence)
    assert failed(evidence) == {step}


def test_a_call_whose_voice_is_elsewhere_is_judged_by_that_too() -> None:
    assert failed(good_elsewhere()) == set()
    assert len(check(good_elsewhere())) == len(check(good())) + 3


@pytest.mark.parametrize(
    ("spoil", "steps"),
    [
        (
            retell("voice is open", upstream(100.0, "spare is open")),
            {"upstream had the call"},
        ),
        (
            retell("spare is open", upstream(20_050.0, "voice is open")),
            {"upstream had the call"},
        ),
        (retell("spare is open", None), {"upstream had the call", "next one took over"}),
        (retell("spare is open", upstream(26_000.0, "spare is open")), {"next one took over"}),
        (retell("lost: voice: the connection broke (1006)", None), {"next one took over"}),
        (
            retell("voice: Connection refused", upstream(20_010.0, "lost: voice: again")),
            {"next one took over"},
        ),
        (drop_entry(kind="usage"), {"usage added up"}),
    ],
)
def test_an_upstream_that_did_not_do_its_part_fails_the_story(
    spoil: Callable[[Evidence], None], steps: set[str]
) -> None:
    evidence = good_elsewhere()
    spoil(evidence)
    assert failed(evidence) == steps


def test_a_word_that_was_said_twice_must_be_heard_twice() -> None:
    evidence = good()
    evidence.phone.append(
        {"event": "transcript", "turn": 2, "text": "thank you on a miller i put you through"}
    )
    said = [
        {"kind": "said", "title": "Thank you, Anna Miller. What is it about?"},
        {"kind": "said", "title": "Thank you, Anna Miller. I put you through."},
    ]
    evidence.timeline = {"data": said}
    [heard] = [step for step in check(evidence) if step.name == "agent's words heard"]
    assert heard.ok
    assert heard.detail.startswith("94%")  # all 16 but one "Anna"


def good_message() -> Evidence:
    """A caller who was not put through, and left a message."""
    evidence = good()
    evidence.decision = "VOICEMAIL"
    evidence.phone = [
        event
        for event in evidence.phone
        if event["event"] not in ("refer", "notify") and not str(event.get("title", "")).startswith("REFER")
    ]
    evidence.app = [
        ("webhook", {"call_id": CALL_ID}),
        ("caller said", {"text": "I am Anna Miller."}),
        ("decision", {"decision": "VOICEMAIL", "caller_name": "Anna Miller", "reason": "a meeting"}),
        ("recording", {"call_id": CALL_ID}),
        ("hung up", {"call_id": CALL_ID}),
        ("message", {"call_id": CALL_ID, "text": "It is about the meeting."}),
        ("message recorded", {"call_id": CALL_ID, "file": "messages/1.wav"}),
    ]
    evidence.call = {"id": CALL_ID, "refers": [], "termination": {"reason": "hangup"}}
    evidence.timeline = {
        "data": [
            *(entry for entry in evidence.timeline["data"] if entry.get("verb") != "refer"),
            {"kind": "rest", "verb": "recording", "status": 200},
            {"kind": "rest", "verb": "hangup", "status": 200},
        ]
    }
    return evidence


def fetched(call_id: str) -> Callable[[Evidence], None]:
    def spoil(evidence: Evidence) -> None:
        evidence.app[-1] = ("message recorded", {"call_id": call_id, "file": "messages/1.wav"})

    return spoil


def understood(text: str) -> Callable[[Evidence], None]:
    def spoil(evidence: Evidence) -> None:
        evidence.app[-2] = ("message", {"call_id": CALL_ID, "text": text})

    return spoil


def test_a_message_is_a_story_too() -> None:
    assert failed(good_message()) == set()


@pytest.mark.parametrize(
    ("spoil", "step"),
    [
        (decide(decision="ALLOW"), "tool decided"),
        (drop_entry(kind="rest", verb="recording"), "recording started"),
        (drop_entry(kind="rest", verb="hangup"), "app hung up"),
        (drop_message("BYE", "in", "3 BYE"), "BYE"),
        (drop_deed("message"), "message understood"),
        (understood("Something else."), "message understood"),
        (drop_deed("message recorded"), "message delivered"),
        (fetched("rtc_u0_1"), "message delivered"),
        (one_sided, "both sides recorded"),
    ],
)
def test_a_message_without_its_evidence_is_none(spoil: Callable[[Evidence], None], step: str) -> None:
    evidence = copy.deepcopy(good_message())
    spoil(evidence)
    assert failed(evidence) == {step}
