"""What the page of the Realtime API says is sent is in the recorded frames of tests/golden, and nothing that is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.api_page import SECTIONS, Line, Section, events_of
from testbed.golden import FOLDER
from testbed.sdk_types import SERVER_EVENTS

MESSAGES = {
    "system": "RealtimeConversationItemSystemMessage",
    "user": "RealtimeConversationItemUserMessage",
    "assistant": "RealtimeConversationItemAssistantMessage",
}
OTHERS = {
    "function_call": "RealtimeConversationItemFunctionCall",
    "function_call_output": "RealtimeConversationItemFunctionCallOutput",
    "realtime": "RealtimeSessionCreateRequest",
    "transcription": "RealtimeTranscriptionSessionCreateRequest",
}
COMMON = "What the server sends"


def _kind_of(name: str, value: dict[str, Any]) -> str | None:
    """Return the type of an object that has a section of its own."""
    match name:
        case "response":
            return "RealtimeResponse"
        case "tools":
            return "RealtimeFunctionTool"
        case "item" | "output" | "session":
            role = value.get("role")
            return MESSAGES[role] if role else OTHERS.get(value.get("type", ""))
        case _:
            return None


def _look(owner: str, value: dict[str, Any], before: str = "") -> Iterator[tuple[str, str, bool]]:
    """Yield each field with what it belongs to, and whether it is more than null."""
    for name, inner in value.items():
        many = isinstance(inner, list)
        path = f"{before}{name}" + ("[]" if many else "")
        yield owner, path, inner is not None
        for one in inner if many else [inner]:
            if isinstance(one, dict):
                kind = _kind_of(name, one)
                yield from _look(kind, one) if kind else _look(owner, one, f"{path}.")


def _recorded() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return all fields that servers sent, and those of them that were not always null."""
    there, said = set(), set()
    for file in sorted(FOLDER.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            event = json.loads(line).get("server")
            for owner, path, is_said in _look(event["type"], event) if event else ():
                there.add((owner, path))
                if is_said:
                    said.add((owner, path))
    return there, said


THERE, SAID = _recorded()


def _lines() -> Iterator[Any]:
    for section in SECTIONS:
        common = SERVER_EVENTS.keys() if section.title == COMMON else set(section.events)
        for line in section.lines("field"):
            if not line.comes:
                continue
            if section.types:
                owners = set(section.types)
            elif common <= SERVER_EVENTS.keys():
                owners = events_of(line, common)
            else:
                continue
            yield pytest.param(section, line, owners, id=f"{section.title}-{line.name}-{line.comes}")


@pytest.mark.parametrize(("section", "line", "owners"), [*_lines()])
def test_what_the_page_says_is_sent(section: Section, line: Line, owners: set[str]) -> None:
    if line.comes == "not sent":
        assert [owner for owner in sorted(owners) if (owner, line.name) in THERE] == []
    elif section.types:
        # One section may tell of several types, of which some have a field and some have not.
        assert any((owner, line.name) in SAID for owner in owners)
    else:
        sent = {name for one in SECTIONS for name in _sent(one)}
        assert [owner for owner in sorted(owners & sent) if (owner, line.name) not in SAID] == []


def _sent(section: Section) -> list[str]:
    return [line.name for line in section.lines("event") if line.comes == "sent"]


def test_the_events_that_the_page_says_are_sent_are_those_that_were() -> None:
    sent = {name for one in SECTIONS for name in _sent(one)}
    assert {owner for owner, path in THERE if path == "type"} & SERVER_EVENTS.keys() == sent
