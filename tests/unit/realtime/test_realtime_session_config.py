"""The session object of an accept body: API rows R01, R09 to R11, G01 to G21."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.realtime import RealtimeSessionCreateRequest

from offhook.realtime.session_config import ConfigError, SessionConfig, merge_update, parse_accept
from testbed.session_objects import EVERYTHING, WRONG, audio_input


def accept(**fields: Any) -> SessionConfig:
    return parse_accept({"type": "realtime", **fields})


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


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [*WRONG, ({"type": "transcription"}, "invalid_value", "session.type")],
)
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
