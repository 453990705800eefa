"""`session.update`: API rows E01 to E10 and G01 to G21, on the pure session and on the configuration behind it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from offhook.realtime.engine import ResponseText
from offhook.realtime.session_config import ConfigError, SessionConfig, merge_update, parse_accept
from testbed.by_hand import Desk, types
from testbed.session_objects import EVERYTHING, WRONG, audio_input


def accept(**fields: Any) -> SessionConfig:
    return parse_accept({"type": "realtime", **fields})


def api(config: SessionConfig) -> dict[str, Any]:
    return config.to_api(session_id="sess_1", expires_at=1_700_000_000)


def update(config: SessionConfig, **fields: Any) -> SessionConfig:
    return merge_update(config, {"type": "realtime", **fields})


def at(path: str, value: Any) -> dict[str, Any]:
    """Return a session object with this value at a dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return {"type": "realtime", **value}


def found(session: Any, path: str) -> Any:
    for name in path.split("."):
        session = session[name]
    return session


# What an update does.


def test_update_answers_with_the_whole_session() -> None:
    desk = Desk()
    (event,) = desk.send("session.update", session={"type": "realtime", "instructions": "Be brief."})
    assert event["type"] == "session.updated"
    assert event["session"]["instructions"] == "Be brief."
    assert event["session"]["audio"]["input"]["turn_detection"]["interrupt_response"] is True
    assert desk.respond().instructions == "Be brief."


def test_a_bad_update_changes_nothing() -> None:
    desk = Desk(instructions="Old.")
    error = desk.error(
        "session.update",
        event_id="u1",
        session={"type": "realtime", "instructions": "New.", "tools": [{"type": "mcp"}]},
    )
    assert (error["code"], error["param"], error["event_id"]) == (
        "invalid_value",
        "session.tools[0].type",
        "u1",
    )
    assert desk.respond().instructions == "Old."


def test_what_both_agents_sdks_send_at_attach_is_fine() -> None:
    """Rows X07, X08, X09, E06, E08."""
    desk = Desk(model="mine")
    pcm = {"type": "audio/pcm", "rate": 24000}
    updates: list[dict[str, Any]] = [
        {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": None,
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "turn_detection": {"type": "semantic_vad"},
                },
                "output": {"format": None, "voice": "ash"},
            },
            "tools": [{"type": "function", "name": "f", "description": "", "parameters": {}}],
        },
        {"type": "realtime", "model": "gpt-realtime-2.1", "tracing": "auto"},
        {
            "type": "realtime",
            "audio": {
                "input": {"format": pcm, "noise_reduction": None},
                "output": {"format": pcm, "voice": "ash", "speed": 1},
            },
        },
    ]
    for session in updates:
        (event,) = desk.send("session.update", session=session)
        assert event["type"] == "session.updated"
        assert event["session"]["model"] == "mine"
    assert event["session"]["tracing"] == "auto"
    assert event["session"]["tools"][0]["name"] == "f"


def test_a_voice_cannot_change_once_heard_but_the_rest_can() -> None:
    """Row E07."""
    desk = Desk(audio={"output": {"voice": "ash"}})
    command = desk.respond()
    desk.say(command, "Hello.")
    desk.finish(command)
    events = desk.send(
        "session.update",
        event_id="u1",
        session={"type": "realtime", "instructions": "New.", "audio": {"output": {"voice": "coral"}}},
    )
    assert types(events) == ["error", "session.updated"]
    assert (events[0]["error"]["code"], events[0]["error"]["event_id"]) == ("cannot_update_voice", "u1")
    assert events[1]["session"]["audio"]["output"]["voice"] == "ash"
    assert events[1]["session"]["instructions"] == "New."
    (event,) = desk.send(
        "session.update", session={"type": "realtime", "audio": {"output": {"voice": "ash"}}}
    )
    assert event["type"] == "session.updated"


def test_an_update_during_a_response_counts_for_the_next() -> None:
    """Row E09."""
    desk = Desk(output_modalities=["text"])
    first = desk.respond()
    desk.send("session.update", session={"type": "realtime", "output_modalities": ["audio"]})
    events = desk.engine(ResponseText(first.response_id, first.generation, "Hello."))
    assert "response.output_text.delta" in types(events)
    desk.finish(first)
    assert desk.respond().audio is True


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    before = parse_accept(EVERYTHING)
    after = update(before, audio={"input": {"turn_detection": {"eagerness": "low"}}})
    expected = api(before)
    expected["audio"]["input"]["turn_detection"]["eagerness"] = "low"
    assert api(after) == expected


def test_a_new_kind_of_turn_detection_starts_from_its_defaults() -> None:
    before = parse_accept(audio_input(turn_detection={"type": "server_vad", "threshold": 0.9}))
    after = update(before, audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    assert api(after)["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_empty_values_and_meaningful_nulls_clear() -> None:
    after = update(
        parse_accept(EVERYTHING),
        instructions="",
        tools=[],
        tracing=None,
        prompt=None,
        audio={"input": {"turn_detection": None, "noise_reduction": None, "transcription": None}},
    )
    session = api(after)
    assert session["instructions"] == ""
    assert session["tools"] == []
    assert session["tracing"] is None
    assert session["prompt"] is None
    for name in ("turn_detection", "noise_reduction", "transcription"):
        assert session["audio"]["input"][name] is None


def test_null_formats_keep_what_was() -> None:
    """Row E03: what openai-agents 0.6.5 sends, captured."""
    before = parse_accept(EVERYTHING)
    session = api(
        update(before, audio={"input": {"format": None}, "output": {"format": None, "voice": "ash"}})
    )
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu", "rate": 8000}
    assert session["audio"]["output"]["format"] == {"type": "audio/pcma"}
    assert session["audio"]["output"]["voice"] == "ash"


def test_the_model_stays() -> None:
    """Row E06."""
    before = accept(model="my-model")
    assert update(before, model="gpt-realtime-2.1").model == "my-model"


def test_noise_reduction_keeps_its_strength() -> None:
    after = update(parse_accept(EVERYTHING), audio={"input": {"noise_reduction": {"type": "far_field"}}})
    assert api(after)["audio"]["input"]["noise_reduction"] == {"type": "far_field", "strength": 0.5}


def test_a_format_is_replaced_whole() -> None:
    after = update(parse_accept(EVERYTHING), audio={"input": {"format": {"type": "audio/pcm"}}})
    assert api(after)["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_tracing_twice_is_fine() -> None:
    """Row E08."""
    once = update(accept(), tracing="auto")
    assert api(update(once, model="gpt-realtime", tracing="auto"))["tracing"] == "auto"


# Each field.

FIELDS: list[tuple[str, list[Any]]] = [
    ("instructions", ["", "Be kind."]),
    ("output_modalities", [["text"], ["audio"]]),
    (
        "audio.input.format",
        [
            {"type": "audio/pcm", "rate": 24000},
            {"type": "audio/pcmu"},
            {"type": "audio/pcma"},
            # Row E05.
            {"type": "audio/pcmu", "rate": 8000},
        ],
    ),
    (
        "audio.output.format",
        [{"type": "audio/pcm", "rate": 24000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}],
    ),
    (
        "audio.input.turn_detection",
        [
            None,
            {
                "type": "server_vad",
                "threshold": 0.0,
                "prefix_padding_ms": 0,
                "silence_duration_ms": 200,
                "idle_timeout_ms": 30000,
                "create_response": False,
                "interrupt_response": False,
            },
            *(
                {
                    "type": "semantic_vad",
                    "eagerness": word,
                    "create_response": False,
                    "interrupt_response": True,
                }
                for word in ("low", "medium", "high", "auto")
            ),
        ],
    ),
    (
        "audio.input.noise_reduction",
        [None, {"type": "near_field", "strength": 0.25}, {"type": "far_field", "strength": 1.0}],
    ),
    (
        "audio.input.transcription",
        [
            None,
            {},
            {"model": "gpt-4o-transcribe", "language": "en", "prompt": "names"},
            {"model": "gpt-transcribe", "languages": ["de", "en"], "keywords": ["Offhook"]},
            *({"delay": word} for word in ("minimal", "low", "medium", "high", "xhigh")),
        ],
    ),
    (
        "audio.output.voice",
        [
            *("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"),
            "a_voice_of_our_own",
            {"id": "voice_1234"},
        ],
    ),
    ("audio.output.speed", [0.25, 1, 1.5]),
    (
        "tools",
        [[], [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}]],
    ),
    ("tool_choice", ["auto", "none", "required", {"type": "function", "name": "f"}]),
    ("max_output_tokens", [1, 4096, "inf"]),
    (
        "truncation",
        [
            "auto",
            "disabled",
            {"type": "retention_ratio", "retention_ratio": 0.0, "token_limits": None},
            {"type": "retention_ratio", "retention_ratio": 1, "token_limits": {"post_instructions": 500}},
        ],
    ),
    ("tracing", [None, "auto", {"workflow_name": "w", "group_id": "g", "metadata": {"k": [1]}}]),
    ("prompt", [None, {"id": "pmpt_1", "version": "2", "variables": {"name": "x"}}]),
    ("include", [None, ["item.input_audio_transcription.logprobs"]]),
    ("parallel_tool_calls", [True, False]),
    ("reasoning", [{"effort": word} for word in ("minimal", "low", "medium", "high", "xhigh")]),
]


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in FIELDS for value in values])
def test_each_field_is_taken_and_shown_and_nothing_else_changes(path: str, value: Any) -> None:
    """Rows E01, G04 to G20; the desk judges each event by the SDKs' types."""
    desk = Desk()
    before = copy.deepcopy(desk.session.describe())
    # A prompt is taken beside instructions, which say what to do.
    session = at(path, value) | ({"instructions": before["instructions"]} if path == "prompt" else {})
    (event,) = desk.send("session.update", session=session)
    assert event["type"] == "session.updated"
    assert found(event["session"], path) == value
    head, _, last = path.rpartition(".")
    expected = before
    for name in filter(None, head.split(".")):
        expected = expected[name]
    expected[last] = value
    assert event["session"] == before


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [*WRONG, ({"type": "transcription"}, "invalid_parameter", "session.type")],
)
def test_each_wrong_value_is_named_and_changes_nothing(session: Any, code: str, param: str) -> None:
    """Rows E02, G01 to G21, R11."""
    desk = Desk(instructions="Old.", audio={"input": {"turn_detection": None}})
    before = copy.deepcopy(desk.session.describe())
    if isinstance(session, dict) and session:
        session = {"max_output_tokens": 7, **session}
    error = desk.error("session.update", event_id="u1", session=session)
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "u1")
    assert error["message"].endswith(".")
    assert desk.session.describe() == before


@pytest.mark.parametrize(
    ("session", "remedy"),
    [
        (at("max_output_tokens", "many"), "Give an integer from 1 to 4096, or 'inf'."),
        (at("truncation", "some"), 'Or give {"type": "retention_ratio", "retention_ratio": 0.8}.'),
        (
            at("tracing", True),
            "Give 'auto', an object with 'workflow_name', 'group_id' or 'metadata', or null.",
        ),
        (at("audio.output.voice", ""), 'Give a voice\'s name, or {"id": "voice_..."}.'),
        (at("audio.input.turn_detection", "none"), '{"type": "semantic_vad"}, or null.'),
        (
            at("audio.input.turn_detection.type", "ears"),
            "Supported values are: 'server_vad' and 'semantic_vad'.",
        ),
        (at("audio.input.format.type", "audio/opus"), "'audio/pcm', 'audio/pcmu' and 'audio/pcma'."),
        (at("tool_choice", "f"), '{"type": "function", "name": "..."}.'),
        (at("temperature", 0.8), "The GA API has none: leave it out."),
        (at("id", "sess_2"), "The server sets it: leave it out."),
        (at("tools", [{"type": "function", "name": "f", "strict": True}]), "Leave it out."),
        (at("tools", [{"type": "mcp", "server_label": "s", "defer_loading": True}]), "from your app."),
        (at("voice", "ash"), "In the GA API this is 'session.audio.output.voice'."),
        (at("turn_detection", None), "In the GA API this is 'session.audio.input.turn_detection'."),
    ],
)
def test_what_to_do_instead_is_said(session: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge_update(accept(), session)
    assert caught.value.message.endswith(remedy)
    assert "@" not in caught.value.message


@pytest.mark.parametrize("turn_detection", [{"type": "server_vad"}, {"type": "semantic_vad"}])
def test_agents_find_interrupt_response_whatever_was_updated(turn_detection: dict[str, Any]) -> None:
    """Row E10: openai-agents sends response.cancel at every speech_started unless it is true here."""
    desk = Desk(audio={"input": {"turn_detection": None}})
    for part in (turn_detection, turn_detection | {"create_response": False}, {"create_response": True}):
        (event,) = desk.send("session.update", session=at("audio.input.turn_detection", part))
        shown = event["session"]["audio"]["input"]["turn_detection"]
        assert (shown["interrupt_response"], shown["create_response"]) == (
            True,
            part.get("create_response", True),
        )


def test_noise_reduction_has_its_whole_strength_unless_told_otherwise() -> None:
    """Row G10: 1 when it is first enabled; turned off and on again, too."""
    config = update(accept(), audio={"input": {"noise_reduction": {"type": "near_field"}}})
    assert api(config)["audio"]["input"]["noise_reduction"] == {"type": "near_field", "strength": 1.0}
    config = update(config, audio={"input": {"noise_reduction": {"strength": 0.5}}})
    assert api(config)["audio"]["input"]["noise_reduction"] == {"type": "near_field", "strength": 0.5}
    config = update(config, audio={"input": {"noise_reduction": None}})
    config = update(config, audio={"input": {"noise_reduction": {"type": "near_field"}}})
    assert api(config)["audio"]["input"]["noise_reduction"]["strength"] == 1.0


def test_a_null_clears_one_of_transcriptions_fields() -> None:
    """Row G11: so that a language can be left open again; what is not named stays."""
    given = {
        "model": "gpt-transcribe",
        "language": "en",
        "languages": ["en"],
        "keywords": ["a"],
        "delay": "low",
    }
    config = update(accept(), audio={"input": {"transcription": given}})
    config = update(config, audio={"input": {"transcription": {"language": None, "keywords": None}}})
    assert api(config)["audio"]["input"]["transcription"] == {
        "model": "gpt-transcribe",
        "languages": ["en"],
        "delay": "low",
    }


# Voice, speed and tracing.


def test_a_voice_may_change_until_it_is_heard() -> None:
    """Row E07: text is no voice."""
    desk = Desk(output_modalities=["text"], audio={"output": {"voice": "ash"}})
    command = desk.respond()
    desk.engine(ResponseText(command.response_id, command.generation, "Hello."))
    desk.finish(command)
    (event,) = desk.send("session.update", session=at("audio.output.voice", {"id": "voice_1"}))
    assert event["session"]["audio"]["output"]["voice"] == {"id": "voice_1"}


def test_speed_changes_with_the_next_response() -> None:
    """Row E09."""
    desk = Desk()
    first = desk.respond()
    (event,) = desk.send("session.update", session=at("audio.output.speed", 1.5))
    assert event["session"]["audio"]["output"]["speed"] == 1.5
    desk.finish(first)
    assert (first.speed, desk.respond().speed) == (1.0, 1.5)


def test_tracing_cannot_change_once_it_is_on_but_the_rest_can() -> None:
    """Row G17."""
    named = {"workflow_name": "w", "group_id": None, "metadata": None}
    desk = Desk(tracing=named)
    session = at("tracing", {"workflow_name": "another"}) | {"instructions": "New."}
    events = desk.send("session.update", event_id="u1", session=session)
    assert types(events) == ["error", "session.updated"]
    error = events[0]["error"]
    assert (error["code"], error["param"], error["event_id"]) == (
        "cannot_update_tracing",
        "session.tracing",
        "u1",
    )
    assert "send null to end it" in error["message"]
    assert events[1]["session"]["tracing"] == named
    assert events[1]["session"]["instructions"] == "New."
    # Row E08: what both agents SDKs send on every session.created is no wish to change it.
    for same in ("auto", {"workflow_name": "w"}):
        (event,) = desk.send("session.update", session=at("tracing", same))
        assert (event["type"], event["session"]["tracing"]) == ("session.updated", named)
    # Row E01.
    (event,) = desk.send("session.update", session=at("tracing", None))
    assert event["session"]["tracing"] is None
