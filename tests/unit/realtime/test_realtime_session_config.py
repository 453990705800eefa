"""The session object: API rows R01, R09 to R11, E01 to E06, G01 to G21."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.realtime import RealtimeSessionCreateRequest

from offhook.realtime.session_config import ConfigError, SessionConfig, merge_update, parse_accept


def accept(**fields: Any) -> SessionConfig:
    return parse_accept({"type": "realtime", **fields})


def audio_input(**fields: Any) -> dict[str, Any]:
    return {"type": "realtime", "audio": {"input": fields}}


def api(config: SessionConfig) -> dict[str, Any]:
    return config.to_api(session_id="sess_1", expires_at=1_700_000_000)


def test_every_default_is_filled_in() -> None:
    session = api(accept())
    instructions = session.pop("instructions")
    assert isinstance(instructions, str)
    assert session == {
        "type": "realtime",
        "object": "realtime.session",
        "id": "sess_1",
        "model": "gpt-realtime-2.1",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
        },
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
        "expires_at": 1_700_000_000,
    }


EVERYTHING: dict[str, Any] = {
    "type": "realtime",
    "model": "gpt-realtime",
    "instructions": "Be kind.",
    "output_modalities": ["text"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu", "rate": 8000},
            "transcription": {
                "model": "whisper-1",
                "language": "en",
                "prompt": "names",
                "keywords": ["Offhook"],
            },
            "noise_reduction": {"type": "near_field", "strength": 0.5},
            "turn_detection": {"type": "semantic_vad", "eagerness": "high", "model_version": "v2"},
        },
        "output": {"format": {"type": "audio/pcma"}, "voice": {"id": "voice_1"}, "speed": 1.5},
    },
    "tools": [
        {
            "type": "function",
            "name": "f",
            "description": "d",
            "parameters": {"type": "object", "properties": {"a": {"default": None}}},
        }
    ],
    "tool_choice": {"type": "function", "name": "f"},
    "max_output_tokens": 4096,
    "truncation": {
        "type": "retention_ratio",
        "retention_ratio": 0.8,
        "token_limits": {"post_instructions": 500},
    },
    "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"k": "v"}},
    "prompt": {"id": "pmpt_1", "version": "2", "variables": {"name": "x"}},
    "include": ["item.input_audio_transcription.logprobs"],
    "parallel_tool_calls": True,
    "reasoning": {"effort": "low"},
}


def test_everything_is_accepted_and_echoed() -> None:
    session = api(parse_accept(EVERYTHING))
    turn_detection = session["audio"]["input"]["turn_detection"]
    # Row E10: openai-agents reads these two.
    assert turn_detection.pop("create_response") is True
    assert turn_detection.pop("interrupt_response") is True
    assert {name: session[name] for name in EVERYTHING} == EVERYTHING


@pytest.mark.parametrize("body", [{"type": "realtime"}, EVERYTHING])
def test_the_session_is_what_the_sdk_types(body: dict[str, Any]) -> None:
    RealtimeSessionCreateRequest.model_validate(api(parse_accept(body)))


def test_nulls_mean_not_given_where_null_has_no_meaning() -> None:
    """Rows X01, E03, R09: SDKs keep None as null."""
    body = {
        "type": "realtime",
        "model": None,
        "instructions": None,
        "tools": None,
        "max_output_tokens": None,
        "audio": {"input": {"format": None, "transcription": None}, "output": None},
    }
    assert api(parse_accept(body)) == api(accept())


def test_a_null_turn_detection_means_manual() -> None:
    config = parse_accept(audio_input(turn_detection=None))
    assert config.audio.input.turn_detection is None
    assert api(merge_update(config, {"type": "realtime"}))["audio"]["input"]["turn_detection"] is None


BAD: list[tuple[Any, str, str]] = [
    ({}, "missing_required_parameter", "session.type"),
    ({"type": None}, "missing_required_parameter", "session.type"),
    ([], "invalid_type", "session"),
    (None, "invalid_type", "session"),
    ({"type": "transcription"}, "invalid_value", "session.type"),
    ({"type": 1}, "invalid_type", "session.type"),
    ({"type": "realtime", "colour": 1}, "unknown_parameter", "session.colour"),
    ({"type": "realtime", "voice": "alloy"}, "unknown_parameter", "session.voice"),
    ({"type": "realtime", "model": 1}, "invalid_type", "session.model"),
    ({"type": "realtime", "instructions": ["x"]}, "invalid_type", "session.instructions"),
    (
        {"type": "realtime", "output_modalities": ["text", "audio"]},
        "invalid_value",
        "session.output_modalities",
    ),
    ({"type": "realtime", "output_modalities": ["video"]}, "invalid_value", "session.output_modalities[0]"),
    ({"type": "realtime", "audio": "loud"}, "invalid_type", "session.audio"),
    (audio_input(format="pcm16"), "invalid_type", "session.audio.input.format"),
    (audio_input(format={}), "missing_required_parameter", "session.audio.input.format.type"),
    (audio_input(format={"type": "audio/opus"}), "invalid_value", "session.audio.input.format.type"),
    (
        audio_input(format={"type": "audio/pcm", "rate": 16000}),
        "invalid_value",
        "session.audio.input.format.rate",
    ),
    (
        audio_input(turn_detection={"type": "ears"}),
        "invalid_value",
        "session.audio.input.turn_detection.type",
    ),
    (
        audio_input(turn_detection={"threshold": 1}),
        "missing_required_parameter",
        "session.audio.input.turn_detection.type",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "threshold": 1.5}),
        "invalid_value",
        "session.audio.input.turn_detection.threshold",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "threshold": "high"}),
        "invalid_type",
        "session.audio.input.turn_detection.threshold",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "idle_timeout_ms": 100}),
        "invalid_value",
        "session.audio.input.turn_detection.idle_timeout_ms",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "create_response": 1}),
        "invalid_type",
        "session.audio.input.turn_detection.create_response",
    ),
    (
        audio_input(turn_detection={"type": "semantic_vad", "eagerness": "very"}),
        "invalid_value",
        "session.audio.input.turn_detection.eagerness",
    ),
    (
        audio_input(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
        "unknown_parameter",
        "session.audio.input.turn_detection.threshold",
    ),
    (audio_input(noise_reduction={"type": "x"}), "invalid_value", "session.audio.input.noise_reduction.type"),
    ({"type": "realtime", "audio": {"output": {"speed": 2}}}, "invalid_value", "session.audio.output.speed"),
    ({"type": "realtime", "audio": {"output": {"voice": 7}}}, "invalid_type", "session.audio.output.voice"),
    (
        {"type": "realtime", "audio": {"output": {"voice": {}}}},
        "missing_required_parameter",
        "session.audio.output.voice.id",
    ),
    ({"type": "realtime", "tools": {}}, "invalid_type", "session.tools"),
    (
        {"type": "realtime", "tools": [{"type": "function"}]},
        "missing_required_parameter",
        "session.tools[0].name",
    ),
    ({"type": "realtime", "tools": [{"name": "f"}]}, "missing_required_parameter", "session.tools[0].type"),
    (
        {"type": "realtime", "tools": [{"type": "function", "name": "a b"}]},
        "invalid_value",
        "session.tools[0].name",
    ),
    (
        {
            "type": "realtime",
            "tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "s"}],
        },
        "invalid_value",
        "session.tools[1].type",
    ),
    ({"type": "realtime", "tool_choice": "maybe"}, "invalid_value", "session.tool_choice"),
    ({"type": "realtime", "tool_choice": {"type": "mcp"}}, "invalid_value", "session.tool_choice.type"),
    (
        {"type": "realtime", "tool_choice": {"type": "function"}},
        "missing_required_parameter",
        "session.tool_choice.name",
    ),
    ({"type": "realtime", "max_output_tokens": 4097}, "invalid_value", "session.max_output_tokens"),
    ({"type": "realtime", "max_output_tokens": "many"}, "invalid_value", "session.max_output_tokens"),
    ({"type": "realtime", "max_output_tokens": 1.5}, "invalid_type", "session.max_output_tokens"),
    ({"type": "realtime", "truncation": "some"}, "invalid_value", "session.truncation"),
    (
        {"type": "realtime", "truncation": {"type": "retention_ratio"}},
        "missing_required_parameter",
        "session.truncation.retention_ratio",
    ),
    ({"type": "realtime", "tracing": "on"}, "invalid_value", "session.tracing"),
    ({"type": "realtime", "prompt": {"version": "1"}}, "missing_required_parameter", "session.prompt.id"),
    ({"type": "realtime", "prompt": {"id": "pmpt_1"}}, "invalid_value", "session.prompt"),
    ({"type": "realtime", "prompt": {"id": "pmpt_1"}, "instructions": ""}, "invalid_value", "session.prompt"),
    ({"type": "realtime", "include": ["everything"]}, "invalid_value", "session.include[0]"),
    ({"type": "realtime", "reasoning": {"effort": "max"}}, "invalid_value", "session.reasoning.effort"),
]


@pytest.mark.parametrize(("body", "code", "param"), BAD)
def test_a_bad_body_is_named(body: Any, code: str, param: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_accept(body)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"
    assert "@" not in caught.value.message


def test_the_messages_that_the_field_knows() -> None:
    with pytest.raises(ConfigError, match=r"^Missing required parameter: 'session\.type'\.$"):
        parse_accept({})
    message = (
        r"^Invalid type for 'session\.audio\.input\.format': expected an object, but got a string instead\.$"
    )
    with pytest.raises(ConfigError, match=message):
        parse_accept(audio_input(format="pcm16"))
    with pytest.raises(ConfigError, match=r"In the GA API this is 'session\.audio\.output\.voice'"):
        accept(voice="alloy")
    with pytest.raises(ConfigError, match="MCP"):
        accept(tools=[{"type": "mcp", "server_label": "s"}])


# Updates.


def update(config: SessionConfig, **fields: Any) -> SessionConfig:
    return merge_update(config, {"type": "realtime", **fields})


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


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.type"),
        ("x", "invalid_type", "session"),
        ({"type": "transcription"}, "invalid_parameter", "session.type"),
        ({"type": "translation"}, "invalid_value", "session.type"),
        ({"type": "realtime", "model": 3}, "invalid_type", "session.model"),
        ({"type": "realtime", "audio": {"input": 3}}, "invalid_type", "session.audio.input"),
        (
            audio_input(turn_detection={"silence": 3}),
            "unknown_parameter",
            "session.audio.input.turn_detection.silence",
        ),
    ],
)
def test_a_bad_update_is_named(session: Any, code: str, param: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge_update(accept(), session)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_tracing_twice_is_fine() -> None:
    """Row E08."""
    once = update(accept(), tracing="auto")
    assert api(update(once, model="gpt-realtime", tracing="auto"))["tracing"] == "auto"
