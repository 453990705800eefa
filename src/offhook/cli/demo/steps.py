"""What must have happened in the demo, judged from what was really seen: pure functions of the evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offhook.audio.g711 import Samples
from offhook.cli.phone.sound import voiced_span

__all__ = ["Evidence", "Step", "check"]

_SPEECH_S = 1.0
"Less sound than this on a channel of the recording is no conversation."
_GAP_S = 5.0
"A caller who waits for longer asks whether anybody is there."


@dataclass(slots=True)
class Evidence:
    """What was seen from outside: at the phone, in the app, from the API, on disk."""

    sentences: Sequence[str]
    "What the caller was to say."
    name: str
    "The caller's name, as said."
    target: str
    "Whom the caller was to be put through to."
    upstreams: Sequence[str] = ()
    "Which upstreams were to be the voice, one after the other; none: the embedded one."
    decision: str = "ALLOW"
    "What the app was to decide: `ALLOW` puts the caller through, `VOICEMAIL` takes a message."
    phone: list[Mapping[str, Any]] = field(default_factory=list)
    "The phone's JSON events."
    phone_exit: int | None = None
    app: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    "What the app printed: what it did, and details."
    call: Mapping[str, Any] = field(default_factory=dict)
    "`GET /v1/realtime/calls/{id}`."
    timeline: Mapping[str, Any] = field(default_factory=dict)
    recording: Samples | None = None
    "Shape `(n, 2)`, 8 kHz."

    def events(self, name: str, **fields: Any) -> list[Mapping[str, Any]]:
        return [
            event
            for event in self.phone
            if event.get("event") == name and all(event.get(key) == value for key, value in fields.items())
        ]

    def did(self, what: str) -> list[Mapping[str, Any]]:
        return [details for name, details in self.app if name == what]

    def entries(self, kind: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.timeline.get("data", ()) if entry.get("kind") == kind]

    def sip(self, direction: str, start: str) -> list[Mapping[str, Any]]:
        return [
            event for event in self.events("sip", direction=direction) if event["title"].startswith(start)
        ]


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    ok: bool
    detail: str
    "What was seen, or what was missing."


def check(evidence: Evidence) -> list[Step]:
    """Return a verdict for each step of the story, in its order."""
    outcome = _MESSAGE_STEPS if evidence.decision == "VOICEMAIL" else _TRANSFER_STEPS
    steps = _STEPS + outcome + _LAST_STEPS + (_UPSTREAM_STEPS if evidence.upstreams else ())
    return [Step(name, *judge(evidence)) for name, judge in steps]


Verdict = tuple[bool, str]


def _invited(evidence: Evidence) -> Verdict:
    statuses = [
        int(event["title"].split()[1])
        for event in evidence.sip("in", "SIP/2.0")
        if _is_answer_to(event, "INVITE")
    ]
    acked = bool(evidence.sip("out", "ACK"))
    transport = next((event["transport"] for event in evidence.sip("out", "INVITE")), "?")
    seen = f"{transport}: {', '.join(map(str, statuses)) or 'no answer'}; {'ACK' if acked else 'no ACK'}"
    return {100, 180, 200} <= set(statuses) and acked, seen


def _told(evidence: Evidence) -> Verdict:
    good = [entry for entry in evidence.entries("webhook") if 200 <= (entry.get("status") or 0) < 300]
    verified = [
        details for details in evidence.did("webhook") if details.get("call_id") == evidence.call.get("id")
    ]
    if good and verified:
        return True, f"delivered in {good[0].get('duration_ms')} ms, signature good"
    return False, "not delivered" if not good else "the app verified none for this call"


def _accepted(evidence: Evidence) -> Verdict:
    return _rest(evidence, "accept")


def _attached(evidence: Evidence) -> Verdict:
    return _is_there(evidence.entries("sideband"), "WebSocket attached to the call", "no WebSocket came")


def _greeted(evidence: Evidence) -> Verdict:
    heard = evidence.events("heard", state="ended", turn=0)
    seconds = sum(event["seconds"] for event in heard)
    return seconds >= 0.5, f"{seconds:.1f} s of speech before the caller spoke"


def _caller_spoke(evidence: Evidence) -> Verdict:
    spoken = [event["text"] for event in evidence.events("speaking", state="started")]
    done = len(evidence.events("speaking", state="ended"))
    return spoken == list(evidence.sentences) and done == len(
        spoken
    ), f"{done} of {len(evidence.sentences)} sentences"


def _understood(evidence: Evidence) -> Verdict:
    heard = " ".join(str(details.get("text", "")) for details in evidence.did("caller said"))
    missing = words(evidence.name) - words(heard)
    return not missing, f"“{heard}”" if not missing else f"{' '.join(sorted(missing))} not in “{heard}”"


def _audible(evidence: Evidence) -> Verdict:
    """What the agent says it said must be what came out of the caller's receiver."""
    said = Counter(_words(" ".join(str(entry.get("title", "")) for entry in evidence.entries("said"))))
    heard = Counter(_words(" ".join(str(event["text"]) for event in evidence.events("transcript"))))
    share = (said & heard).total() / said.total() if said else 0.0
    return share >= 0.7, f"{share:.0%} of the agent's words recognised by the caller"


def _answered_each(evidence: Evidence) -> Verdict:
    times = {event["turn"]: event["ms"] for event in evidence.events("answer")}
    shown = ", ".join(f"{ms} ms" for _, ms in sorted(times.items()))
    wanted = set(range(1, len(evidence.sentences) + 1))
    return set(times) == wanted, f"{shown or 'no turn'} from end of speech to first sound"


def _decided(evidence: Evidence) -> Verdict:
    decisions = evidence.did("decision")
    tool = any(
        str(entry.get("title", "")).startswith("make_screening_decision(")
        for entry in evidence.entries("tool_call")
    )
    if not decisions or not tool:
        return False, "the tool was not called"
    first = decisions[0]
    good = first.get("decision") == evidence.decision and words(evidence.name) <= words(
        str(first.get("caller_name", ""))
    )
    return good, f"{first.get('decision')}: {first.get('caller_name')}; {first.get('reason')}"


def _refer_posted(evidence: Evidence) -> Verdict:
    good, seen = _rest(evidence, "refer")
    return good and bool(evidence.did("transferred")), seen


def _refer_on_wire(evidence: Evidence) -> Verdict:
    refers = evidence.sip("in", "REFER")
    if len(refers) != 1:
        return False, f"{len(refers)} REFERs"
    target = re.search(r"^Refer-To:\s*(.+?)\s*$", refers[0]["message"], re.MULTILINE | re.IGNORECASE)
    good = target is not None and target[1].strip("<>") == evidence.target
    answered = [
        event["title"] for event in evidence.sip("out", "SIP/2.0 202") if _is_answer_to(event, "REFER")
    ]
    return good and bool(
        answered
    ), f"Refer-To {target[1] if target else 'none'}, {'answered 202' if answered else 'no 202'}"


def _notified(evidence: Evidence) -> Verdict:
    sent = [(event["status"], event["answer"]) for event in evidence.events("notify")]
    on_wire = len(evidence.sip("out", "NOTIFY"))
    seen = ", ".join(f"{status} (answered {answer})" for status, answer in sent)
    return sent == [(100, 200), (180, 200), (200, 200)] and on_wire >= 3, seen or "none"


def _ended(evidence: Evidence) -> Verdict:
    bye = evidence.sip("in", "BYE")
    answered = any(_is_answer_to(event, "BYE") for event in evidence.sip("out", "SIP/2.0 200"))
    return (
        bool(bye) and answered,
        f"{'BYE from Offhook' if bye else 'no BYE'}, {'answered 200' if answered else 'no answer'}",
    )


def _transferred(evidence: Evidence) -> Verdict:
    end = evidence.call.get("termination") or {}
    refers = [refer.get("status") for refer in evidence.call.get("refers") or ()]
    return end.get("reason") == "transferred" and refers == [
        "completed"
    ], f"ended: {end.get('reason')}; refers: {refers}"


def _recording_started(evidence: Evidence) -> Verdict:
    return _rest(evidence, "recording")


def _message_understood(evidence: Evidence) -> Verdict:
    wanted = words(evidence.sentences[-1])
    heard = " ".join(str(message.get("text", "")) for message in evidence.did("message"))
    share = len(wanted & words(heard)) / len(wanted)
    return share >= 0.7, f"“{heard}”"


def _hung_up(evidence: Evidence) -> Verdict:
    return _rest(evidence, "hangup")


def _message_delivered(evidence: Evidence) -> Verdict:
    """The app has fetched what the webhook told of."""
    fetched = [
        message
        for message in evidence.did("message recorded")
        if message.get("call_id") == evidence.call.get("id")
    ]
    return len(fetched) == 1, str(fetched[0].get("file")) if fetched else "the app fetched no recording"


def _recorded(evidence: Evidence) -> Verdict:
    if evidence.recording is None:
        return False, "no recording"
    seconds = [_voiced_seconds(evidence.recording[:, channel]) for channel in (0, 1)]
    return min(seconds) >= _SPEECH_S, f"caller {seconds[0]:.1f} s, agent {seconds[1]:.1f} s of sound"


def _phone_in_order(evidence: Evidence) -> Verdict:
    return evidence.phone_exit == 0, f"exit status {evidence.phone_exit}"


def _taken(evidence: Evidence) -> Verdict:
    """The order in which upstreams opened is the order in which they had the call."""
    opened = [(str(entry["title"]), entry["ms"]) for entry in evidence.entries("upstream")]
    opened = [(title.split()[0], ms) for title, ms in opened if title.endswith(" is open")]
    shown = ", ".join(f"{name} {ms / 1000:.1f} s after the INVITE" for name, ms in opened)
    return [name for name, _ in opened] == list(evidence.upstreams), shown or "none was opened"


def _counted(evidence: Evidence) -> Verdict:
    used = evidence.entries("usage")
    if len(used) != 1:
        return False, f"{len(used)} sums on the timeline"
    none = "" if used[0].get("total_tokens") else ": rules use none"
    return True, f"{used[0]['title']}{none}"


def _taken_over(evidence: Evidence) -> Verdict:
    """The first was killed; the caller must not wait for the next one."""
    entries = evidence.entries("upstream")
    lost = [number for number, entry in enumerate(entries) if entry["title"].startswith("lost: ")]
    if len(lost) != 1:
        return False, f"{len(lost)} losses"
    later = [entry for entry in entries[lost[0] :] if entry["title"].endswith(" is open")]
    if not later:
        return False, "no upstream took it over"
    gap_s = (later[0]["ms"] - entries[lost[0]]["ms"]) / 1000
    return gap_s < _GAP_S, f"{entries[lost[0]]['title']}; {later[0]['title']} {gap_s:.2f} s later"


_STEPS: tuple[tuple[str, Callable[[Evidence], Verdict]], ...] = (
    ("SIP call set up", _invited),
    ("webhook signed and delivered", _told),
    ("app accepted", _accepted),
    ("sideband attached", _attached),
    ("agent greeted", _greeted),
    ("caller said everything", _caller_spoke),
    ("caller's name understood", _understood),
    ("agent's words heard", _audible),
    ("each turn answered", _answered_each),
    ("tool decided", _decided),
)
_TRANSFER_STEPS: tuple[tuple[str, Callable[[Evidence], Verdict]], ...] = (
    ("app posted refer", _refer_posted),
    ("REFER at the phone", _refer_on_wire),
    ("NOTIFY 100, 180, 200", _notified),
    ("BYE", _ended),
    ("call ended as transferred", _transferred),
)
_MESSAGE_STEPS: tuple[tuple[str, Callable[[Evidence], Verdict]], ...] = (
    ("recording started", _recording_started),
    ("message understood", _message_understood),
    ("app hung up", _hung_up),
    ("BYE", _ended),
    ("message delivered", _message_delivered),
)
_LAST_STEPS: tuple[tuple[str, Callable[[Evidence], Verdict]], ...] = (
    ("both sides recorded", _recorded),
    ("phone ended in order", _phone_in_order),
)
_UPSTREAM_STEPS = (
    ("upstream had the call", _taken),
    ("next one took over", _taken_over),
    ("usage added up", _counted),
)


def words(text: str) -> set[str]:
    """Return the words of a text, without case and punctuation."""
    return set(_words(text))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def _rest(evidence: Evidence, verb: str) -> Verdict:
    answers = [entry.get("status") for entry in evidence.entries("rest") if entry.get("verb") == verb]
    return answers == [200], f"POST {verb}: {', '.join(map(str, answers)) or 'none'}"


def _is_there(found: Iterable[object], good: str, bad: str) -> Verdict:
    return (True, good) if any(True for _ in found) else (False, bad)


def _is_answer_to(event: Mapping[str, Any], method: str) -> bool:
    return (
        re.search(rf"^CSeq:\s*\d+ {method}\s*$", event["message"], re.MULTILINE | re.IGNORECASE) is not None
    )


def _voiced_seconds(samples: Samples) -> float:
    step = 160
    pieces = samples[: len(samples) // step * step].reshape(-1, step)
    return sum(voiced_span(np.ascontiguousarray(piece)) != (0, 0) for piece in pieces) * step / 8000
