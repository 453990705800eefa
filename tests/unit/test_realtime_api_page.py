"""
docs/reference/realtime-api.md against the openai package's types, and against a session: neither can drift from it.

What the package has is on the page and nothing else; each line about what a client sends is done to a session.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai.types.realtime import (
    RealtimeConnectParams,
    RealtimeSessionCreateResponse,
    RealtimeTranscriptionSessionCreateResponse,
)

from offhook.realtime.client_events import parse_client_event
from offhook.realtime.engine import Respond
from offhook.realtime.engines.upstream.beta import BetaDialect
from offhook.realtime.relay_request import with_our_formats
from offhook.realtime.session_config import ConfigError, parse_accept
from offhook.realtime.transcription_config import TranscriptionConfig
from testbed.api_page import EVENTS, PAGE, ROOT, SECTIONS, STOPS, Line, Section, events_of, section
from testbed.by_hand import Desk
from testbed.sdk_types import CLIENT_EVENTS, OBJECTS, SERVER_EVENTS, Way, body, fields, path_of, values, walk

WHOLE = {
    "RealtimeSessionCreateRequest": RealtimeSessionCreateResponse,
    "RealtimeTranscriptionSessionCreateRequest": RealtimeTranscriptionSessionCreateResponse,
}
"Objects that the server answers with more fields than it is sent."


def _ways(name: str, path: str) -> list[Way]:
    return [way for kind in OBJECTS[name] for way in walk(kind, STOPS) if path_of(way) == path]


# What is on the page.


def test_every_event_is_on_the_page_once_and_none_that_does_not_exist() -> None:
    named = [event for one in SECTIONS for event in one.events]
    assert sorted(named) == sorted(EVENTS)


def test_every_field_of_every_event_is_on_the_page_and_none_that_does_not_exist() -> None:
    named = set()
    for one in SECTIONS:
        common = SERVER_EVENTS if one.title == "What the server sends" else one.events
        for line in one.lines("field"):
            if "of" in line.cells:
                named |= {(event, line.name) for event in events_of(line, common)}
    there = {
        (event, path_of(way))
        for event, kinds in EVENTS.items()
        for kind in kinds
        for way in walk(kind, STOPS)
    }
    assert named == there


@pytest.mark.parametrize("one", [one for one in SECTIONS if one.types], ids=lambda one: one.title)
def test_every_field_of_an_object_is_on_the_page_and_none_that_does_not_exist(one: Section) -> None:
    kinds = [kind for name in one.types for kind in OBJECTS[name]]
    there = {path_of(way) for kind in kinds for way in walk(kind, STOPS)}
    for name in one.types:
        if name in WHOLE:
            known = {name for kind in OBJECTS[name] for name in fields(kind)}
            there |= fields(WHOLE[name]).keys() - known
    named = [line.name for line in one.lines("field")]
    assert sorted(named) == sorted(there)


def test_its_sections_are_about_types_and_its_queries_are_those_of_the_package() -> None:
    assert OBJECTS.keys() >= STOPS
    queries = {line.name for line in section("Ways in").lines("query")}
    assert fields(RealtimeConnectParams).keys() <= queries


def test_each_line_has_a_test_of_its_own_or_one_of_its_section() -> None:
    without = [
        (one.title, line.name)
        for one in SECTIONS
        for _, lines in one.tables
        for line in lines
        if "test_" not in re.sub(r"^\|.*\n", "", one.text, flags=re.M)
        and not any("`test_" in cell for cell in line.cells.values())
    ]
    assert without == []


def test_the_tests_that_it_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(), re.M)
    }
    assert len(named) > 80
    assert not named - defined


def test_the_codes_that_it_names_are_those_that_sessions_use() -> None:
    sources = {path: path.read_text() for path in (ROOT / "src/offhook").rglob("*.py")}
    given = {
        code
        for path, text in sources.items()
        if path.parent.name == "realtime" and not path.name.startswith("relay")
        for code in re.findall(r"(?:RequestError|ClientEventError|ConfigError)\(\s*\"(\w+)\"", text)
    }
    named = {line.name for line in section("Errors").lines("code")}
    assert given <= named
    whole = "\n".join(sources.values())
    assert {code for code in named if f'"{code}"' not in whole} == set()


def test_its_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-")
        for title in [*(one.title for one in SECTIONS), "The Realtime API, field by field"]
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
    files = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE))
    assert [file for file in files if not (ROOT / "docs/reference" / file).exists()] == []


# What the lines say, done.


def _lines(*titles: str) -> list[Any]:
    return [
        pytest.param(one, name, line, id=f"{name}-{line.name}")
        for one in map(section, titles)
        for name in one.types
        for line in one.lines("field")
        if name in WHOLE or _ways(name, line.name)
    ]


def _at(found: Any, path: str) -> Any:
    """Return what stands at a path; of a list, its first, but the whole list at the end."""
    names = path.split(".")
    for number, name in enumerate(names):
        found = found[name.removesuffix("[]")]
        if name.endswith("[]") and number < len(names) - 1:
            found = found[0]
    return found


def _holds(shown: Any, given: Any) -> bool:
    """Whether what is shown is what was given; objects may be shown with their defaults."""
    if isinstance(given, dict) and isinstance(shown, dict):
        return all(name in shown and _holds(shown[name], value) for name, value in given.items())
    if isinstance(given, list) and isinstance(shown, list):
        return len(given) == len(shown) and all(map(_holds, shown, given))
    return bool(shown == given)


def _is_refused_by_kind(given: Any) -> bool:
    """Whether something in it is of a kind that lines of its own refuse."""
    return re.search(r'"type": "(mcp|input_image)', json.dumps(given)) is not None


def _judge(line: Line, prefix: str, given: Any, events: list[dict[str, Any]]) -> bool:
    """Check that a refusal is the one that the line names; return whether it was refused, rightly."""
    errors = [event["error"] for event in events if event["type"] == "error"]
    if line.word == "refused":
        code, param = line.refusal
        assert [(one["code"], one["param"]) for one in errors] == [
            (code, f"{prefix}.{param.replace('[]', '[0]')}")
        ]
        return True
    if _is_refused_by_kind(given):
        assert [(one["code"], one["param"].endswith("type")) for one in errors] == [("invalid_value", True)]
        return True
    assert errors == []
    return False


TOOL = {"type": "function", "name": "some_words"}
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hm."}]}


@pytest.mark.parametrize(("one", "name", "line"), _lines("The session", "A function tool", "An MCP tool"))
def test_a_field_of_the_session(one: Section, name: str, line: Line) -> None:
    if line.word == "sent":
        (event,) = Desk().send("session.update", session={"type": "realtime"})
        assert event["session"][line.name] is not None
        return
    for way in _ways(name, line.name):
        for value in values(way):
            session: dict[str, Any] = body(way, value)
            path = line.name
            if name not in WHOLE:
                session, path = {"tools": [session]}, f"tools[].{path}"
            session = {"type": "realtime", "tools": [TOOL]} | session
            events = Desk().send("session.update", session=session)
            if _judge(line, "session", session, events):
                continue
            if line.word == "ignored":
                assert not _holds(_at(events[0]["session"], path), value)
            else:
                assert line.word in ("supported", "echoed")
                assert _holds(_at(events[0]["session"], path), value)
            accepted = parse_accept(session).to_api(session_id="sess_1", expires_at=0)
            assert _holds(_at(accepted, path), value)


@pytest.mark.parametrize(("one", "name", "line"), _lines("The transcription session"))
def test_a_field_of_the_transcription_session(one: Section, name: str, line: Line) -> None:
    default = TranscriptionConfig.parse({"type": "transcription"})
    if line.word == "sent":
        assert default.to_api(session_id="sess_1", expires_at=1)[line.name]
        return
    for way in _ways(name, line.name):
        for value in values(way):
            session = {"type": "transcription"} | body(way, value)
            if line.word == "refused":
                with pytest.raises(ConfigError) as caught:
                    default.updated(session)
                assert (caught.value.code, caught.value.param) == (
                    line.refusal[0],
                    f"session.{line.refusal[1]}",
                )
                continue
            shown = default.updated(session).to_api(session_id="sess_1", expires_at=1)
            if line.word == "ignored":
                with pytest.raises(KeyError):
                    _at(shown, line.name)
            else:
                assert line.word in ("supported", "echoed")
                assert _holds(_at(shown, line.name), value)


def _written(item: dict[str, Any]) -> dict[str, Any]:
    """Give the parts of a message the kinds that what is in them needs: the types do not tell them apart."""
    side = "output" if item.get("role") == "assistant" else "input"
    for part in item.get("content", ()):
        if part.keys() & {"image_url", "detail"}:
            part |= {"type": "input_image", "image_url": part.get("image_url", "data:image/png;base64,AAAA")}
        elif part.keys() & {"audio", "transcript"}:
            part["type"] = f"{side}_audio"
        if not part["type"].endswith("_text"):
            part.pop("text", None)
    return item


@pytest.mark.parametrize(
    ("one", "name", "line"), _lines("A message", "A function call and its output", "Items of MCP")
)
def test_a_field_of_an_item(one: Section, name: str, line: Line) -> None:
    for way in _ways(name, line.name):
        for value in values(way):
            item = _written(body(way, value))
            desk = Desk()
            events = desk.send("conversation.item.create", item=item)
            if _judge(line, "item", item, events):
                continue
            added = events[0]["item"]
            assert added["object"] == "realtime.item"
            if line.word == "ignored":
                assert added["status"] == "completed"
            elif line.name == "content[].audio":
                (event,) = desk.send("conversation.item.retrieve", item_id=added["id"])
                assert event["item"]["content"][0]["audio"]
            elif line.name.startswith("content[]."):
                field = line.name.removeprefix("content[].")
                assert added["content"][0][field] == item["content"][0][field]
            else:
                assert line.word == "supported"
                assert _holds(_at(added, line.name), value)


@pytest.mark.parametrize(("one", "name", "line"), _lines("A reference to an item"))
def test_a_field_of_a_reference(one: Section, name: str, line: Line) -> None:
    desk = Desk()
    desk.send("conversation.item.create", item=MESSAGE | {"id": "some_words"})
    for way in _ways(name, line.name):
        for value in values(way):
            reference = {"type": "item_reference", "id": "some_words"} | body(way, value)
            command = desk.respond(conversation="none", input=[reference])
            assert [item["id"] for item in command.items] == ["some_words"]


@pytest.mark.parametrize(
    ("one", "name", "line"), _lines("A response's parameters", "A function tool", "An MCP tool")
)
def test_a_field_of_a_responses_parameters(one: Section, name: str, line: Line) -> None:
    for way in _ways(name, line.name):
        for value in values(way):
            given: dict[str, Any] = body(way, value)
            path = line.name
            if "tool" in one.title:
                given, path = {"tools": [given]}, f"tools[].{path}"
            desk = Desk(tools=[TOOL])
            desk.send("conversation.item.create", item=MESSAGE | {"id": "some_words"})
            events = desk.send("response.create", response=given)
            if _judge(line, "response", given, events):
                continue
            if line.word == "ignored":
                continue
            assert line.word == "supported"
            if path.startswith("audio.output.voice"):
                # Some clients bear no object here, so a custom voice is shown by its id (row V09).
                path, value = "audio.output.voice", value["id"] if isinstance(value, dict) else value
            if path == "input[]" and value[0]["type"] == "item_reference":
                value = [{"id": value[0]["id"]}]
            assert _holds(_at(_taken(desk, events), path), value)


def _taken(desk: Desk, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a response's parameters as the response shows them and as the engine is asked."""
    (command,) = desk.commands(Respond)
    shown = events[0]["response"]
    return {
        **shown,
        "conversation": "auto" if shown["conversation_id"] else "none",
        "instructions": command.instructions,
        "tools": command.tools,
        "tool_choice": command.tool_choice,
        "parallel_tool_calls": command.parallel_tool_calls,
        "input": command.items,
    }


@pytest.mark.parametrize("event", CLIENT_EVENTS)
def test_a_field_that_clients_send(event: str) -> None:
    for kind in CLIENT_EVENTS[event]:
        for way in walk(kind, STOPS):
            if len(way) == 1:
                for value in values(way):
                    if not _is_refused_by_kind(value):
                        given = {**body(way, value), "type": event}
                        parsed = parse_client_event(given)
                        assert way[0].name == "type" or getattr(parsed, way[0].name) is not None


@pytest.mark.parametrize(("one", "name", "line"), _lines("The session", "A response's parameters"))
def test_a_field_on_its_way_to_an_upstream(one: Section, name: str, line: Line) -> None:
    said = line.cells["over an upstream"]
    part, sides = ("session", ("input", "output")) if name in WHOLE else ("response", ("output",))
    for way in _ways(name, line.name):
        for value in values(way):
            up = with_our_formats({"type": "any", part: body(way, value)}, part, sides)[part]
            if said.startswith("left out"):
                with pytest.raises(KeyError):
                    _at(up, line.name)
            else:
                assert said.startswith("goes up")
                assert line.name.startswith("audio") or _at(up, line.name) == value


OLDER = section("Upstreams of Azure's older form")


def _older(line: Line) -> str:
    """Return the first word that the older form has for it."""
    return line.cells["older form"].split("`")[1]


@pytest.mark.parametrize("line", OLDER.lines("GA"), ids=lambda line: line.name)
def test_a_field_in_the_older_form(line: Line) -> None:
    words = set(re.findall(r"`(\w+)`", line.cells["older form"]))
    for way in _ways("RealtimeSessionCreateRequest", line.name):
        for value in values(way):
            up = BetaDialect().up({"type": "session.update", "session": body(way, value)})["session"]
            assert up.keys() == {_older(line)}
            given = up[_older(line)]
            if "format" in line.name:
                assert given in words
            elif line.name == "output_modalities[]":
                assert given == {"text": ["text"], "audio": ["text", "audio"]}[value[0]]
            else:
                assert given == value


def test_events_of_the_older_form() -> None:
    for line in OLDER.lines("GA event"):
        (event,) = BetaDialect().down({"type": _older(line), "event_id": "event_1"})
        assert event["type"] == line.name
    assert len(OLDER.lines("GA event")) == 6
