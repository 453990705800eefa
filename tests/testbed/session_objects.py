"""Session objects as clients write them: one with everything in it, and wrong ones with what is wrong (section G)."""

from __future__ import annotations

from typing import Any

__all__ = ["EVERYTHING", "WRONG", "audio_input"]


def audio_input(**fields: Any) -> dict[str, Any]:
    return {"type": "realtime", "audio": {"input": fields}}


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


WRONG: list[tuple[Any, str, str]] = [
    ({}, "missing_required_parameter", "session.type"),
    ({"type": None}, "missing_required_parameter", "session.type"),
    ([], "invalid_type", "session"),
    (None, "invalid_type", "session"),
    ({"type": "translation"}, "invalid_value", "session.type"),
    ({"type": 1}, "invalid_type", "session.type"),
    ({"type": "realtime", "colour": 1}, "unknown_parameter", "session.colour"),
    ({"type": "realtime", "voice": "alloy"}, "unknown_parameter", "session.voice"),
    # Its writer believes that the turns are manual now.
    ({"type": "realtime", "turn_detection": None}, "unknown_parameter", "session.turn_detection"),
    ({"type": "realtime", "id": "sess_1"}, "unknown_parameter", "session.id"),
    ({"type": "realtime", "audio": {"volume": 1}}, "unknown_parameter", "session.audio.volume"),
    ({"type": "realtime", "audio": {"input": 3}}, "invalid_type", "session.audio.input"),
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
    (
        audio_input(turn_detection={"type": "server_vad", "silence_duration_ms": -1}),
        "invalid_value",
        "session.audio.input.turn_detection.silence_duration_ms",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "prefix_padding_ms": 0.5}),
        "invalid_type",
        "session.audio.input.turn_detection.prefix_padding_ms",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "interrupt_response": "no"}),
        "invalid_type",
        "session.audio.input.turn_detection.interrupt_response",
    ),
    (
        audio_input(noise_reduction={"strength": 0.5}),
        "missing_required_parameter",
        "session.audio.input.noise_reduction.type",
    ),
    (
        audio_input(noise_reduction={"type": "near_field", "strength": 1.1}),
        "invalid_value",
        "session.audio.input.noise_reduction.strength",
    ),
    (audio_input(transcription="whisper-1"), "invalid_type", "session.audio.input.transcription"),
    (
        audio_input(transcription={"delay": "long"}),
        "invalid_value",
        "session.audio.input.transcription.delay",
    ),
    (
        audio_input(transcription={"languages": "en"}),
        "invalid_type",
        "session.audio.input.transcription.languages",
    ),
    (
        audio_input(transcription={"keywords": ["a", 1]}),
        "invalid_type",
        "session.audio.input.transcription.keywords[1]",
    ),
    (
        {"type": "realtime", "audio": {"output": {"format": {"type": "audio/pcma", "rate": 24000}}}},
        "invalid_value",
        "session.audio.output.format.rate",
    ),
    (
        {"type": "realtime", "audio": {"output": {"voice": {"id": ""}}}},
        "invalid_value",
        "session.audio.output.voice.id",
    ),
    (
        {"type": "realtime", "audio": {"output": {"speed": "fast"}}},
        "invalid_type",
        "session.audio.output.speed",
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
    (
        {"type": "realtime", "truncation": {"type": "retention_ratio", "retention_ratio": 1.5}},
        "invalid_value",
        "session.truncation.retention_ratio",
    ),
    ({"type": "realtime", "tracing": {"name": "w"}}, "unknown_parameter", "session.tracing.name"),
    ({"type": "realtime", "prompt": "pmpt_1"}, "invalid_type", "session.prompt"),
    ({"type": "realtime", "include": "logprobs"}, "invalid_type", "session.include"),
    ({"type": "realtime", "parallel_tool_calls": "yes"}, "invalid_type", "session.parallel_tool_calls"),
    ({"type": "realtime", "reasoning": "low"}, "invalid_type", "session.reasoning"),
]
