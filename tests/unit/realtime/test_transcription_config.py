"""The transcription session object: what may be asked of it, how it merges, what it refuses (rows G01, E01, G19)."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.realtime.realtime_transcription_session_create_request import (
    RealtimeTranscriptionSessionCreateRequest,
)
from openai.types.realtime.realtime_transcription_session_create_response import (
    RealtimeTranscriptionSessionCreateResponse,
)

from offhook.realtime.session_config import ConfigError
from offhook.realtime.transcription_config import TranscriptionConfig


def parse(**given: Any) -> TranscriptionConfig:
    return TranscriptionConfig.parse({"type": "transcription", **given})


def heard(**given: Any) -> TranscriptionConfig:
    return parse(audio={"input": given})


def api(config: TranscriptionConfig) -> dict[str, Any]:
    shown = config.to_api(session_id="sess_1", expires_at=1_700_000_000)
    for model in (RealtimeTranscriptionSessionCreateRequest, RealtimeTranscriptionSessionCreateResponse):
        model.model_validate(shown, strict=True)
    return shown


def updated(config: TranscriptionConfig, **given: Any) -> dict[str, Any]:
    return api(config.updated({"type": "transcription", **given}))["audio"]["input"]


def test_all_defaults() -> None:
    assert api(parse()) == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "sess_1",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "whisper-1"},
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            }
        },
        "include": None,
        "expires_at": 1_700_000_000,
    }


def test_everything_is_taken_and_echoed() -> None:
    given = {
        "format": {"type": "audio/pcma"},
        "transcription": {
            "model": "gpt-4o-transcribe",
            "language": "de",
            "prompt": "Names of streets in Kiel.",
            "keywords": ["Holtenau"],
        },
        "noise_reduction": {"type": "far_field", "strength": 0.5},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.3,
            "prefix_padding_ms": 200,
            "silence_duration_ms": 700,
        },
    }
    include = ["item.input_audio_transcription.logprobs"]
    shown = api(parse(audio={"input": given}, include=include))
    assert shown["audio"]["input"] == given
    assert shown["include"] == include


@pytest.mark.parametrize("create_response", [True, False])
def test_what_a_turn_would_do_is_taken_and_has_no_effect(create_response: bool) -> None:
    """openai-python's type of turn detection has these; a client that fills all of it in is served."""
    detection = {
        "type": "server_vad",
        "create_response": create_response,
        "interrupt_response": True,
        "idle_timeout_ms": None,
    }
    config = heard(turn_detection=detection)
    in_force = config.session.audio.input.turn_detection
    assert in_force is not None
    assert (in_force.create_response, in_force.interrupt_response) == (False, False)
    assert api(config)["audio"]["input"]["turn_detection"].keys() == {
        "type",
        "threshold",
        "prefix_padding_ms",
        "silence_duration_ms",
    }


def test_semantic_turn_detection() -> None:
    shown = api(heard(turn_detection={"type": "semantic_vad", "eagerness": "high"}))
    assert shown["audio"]["input"]["turn_detection"] == {"type": "semantic_vad", "eagerness": "high"}


def test_an_update_merges_field_by_field() -> None:
    """Row E01: what is not named stays; a null clears."""
    before = heard(
        turn_detection={"type": "server_vad", "threshold": 0.9}, noise_reduction={"type": "near_field"}
    )
    after = updated(before, audio={"input": {"turn_detection": {"silence_duration_ms": 200}}})
    assert after["turn_detection"]["threshold"] == 0.9
    assert after["turn_detection"]["silence_duration_ms"] == 200
    assert after["noise_reduction"] == {"type": "near_field", "strength": 1.0}
    assert updated(before, audio={"input": {"noise_reduction": None}})["noise_reduction"] is None
    assert updated(before, audio={"input": {"turn_detection": None}})["turn_detection"] is None
    assert updated(before, audio={"input": {"transcription": None}})["transcription"] is None
    after = updated(before, audio={"input": {"transcription": {"language": "fr"}}})
    assert after["transcription"] == {"model": "whisper-1", "language": "fr"}


def test_null_formats_and_null_fields_leave_things_as_they_are() -> None:
    """Row E03, and clients that write out all of their fields."""
    before = heard(format={"type": "audio/pcmu"})
    after = updated(before, audio={"input": {"format": None}, "output": None}, instructions=None, model=None)
    assert after["format"] == {"type": "audio/pcmu"}


def test_the_engine_speaks_as_it_hears_so_that_nothing_is_converted() -> None:
    assert heard(format={"type": "audio/pcmu"}).session.audio.output.format.type == "audio/pcmu"


@pytest.mark.parametrize(
    ("given", "code", "param", "remedy"),
    [
        ({"type": None}, "missing_required_parameter", "session.type", ""),
        ({"type": "realtime"}, "invalid_parameter", "session.type", "?model="),
        ({"type": "translation"}, "invalid_value", "session.type", "'transcription'"),
        ({"model": "gpt-4o"}, "unknown_parameter", "session.model", "audio.input.transcription.model"),
        (
            {"instructions": "Hi"},
            "unknown_parameter",
            "session.instructions",
            "audio.input.transcription.prompt",
        ),
        ({"prompt": {"id": "p"}}, "unknown_parameter", "session.prompt", "audio.input.transcription.prompt"),
        ({"tools": []}, "unknown_parameter", "session.tools", "?model="),
        ({"tool_choice": "auto"}, "unknown_parameter", "session.tool_choice", "?model="),
        ({"output_modalities": ["text"]}, "unknown_parameter", "session.output_modalities", "?model="),
        ({"voice": "marin"}, "unknown_parameter", "session.voice", "?model="),
        ({"audio": {"output": {"voice": "marin"}}}, "unknown_parameter", "session.audio.output", "?model="),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}}},
            "unknown_parameter",
            "session.audio.input.turn_detection.idle_timeout_ms",
            "?model=",
        ),
        # As a realtime session would say it.
        (
            {"input_audio_format": "pcm16"},
            "unknown_parameter",
            "session.input_audio_format",
            "session.audio.input.format",
        ),
        ({"frequency": 1}, "unknown_parameter", "session.frequency", ""),
        ({"audio": []}, "invalid_type", "session.audio", ""),
        ({"audio": {"input": 1}}, "invalid_type", "session.audio.input", ""),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
            "",
        ),
        (
            {"audio": {"input": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "session.audio.input.format.type",
            "",
        ),
        ({"include": ["logprobs"]}, "invalid_value", "session.include[0]", "logprobs"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], code: str, param: str, remedy: str) -> None:
    for judge in (lambda session: TranscriptionConfig.parse(session), parse().updated):
        with pytest.raises(ConfigError) as caught:
            judge({"type": "transcription", **given})
        assert (caught.value.code, caught.value.param) == (code, param)
        assert remedy in caught.value.message


@pytest.mark.parametrize("session", [None, [], "transcription", {}])
def test_what_is_no_session(session: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse().updated(session)
    assert (caught.value.param or "").startswith("session")
