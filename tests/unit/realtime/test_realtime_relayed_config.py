"""Accept bodies for a model that an upstream serves: what is known is judged, what is not passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engines.scripted import ScriptedFactory
from offhook.realtime.engines.upstream.engine import UpstreamFactory
from offhook.realtime.engines.upstream.target import Upstream
from offhook.realtime.mcp import McpSecrets, without_secrets
from offhook.realtime.relayed_config import parse_relayed
from offhook.realtime.session_config import ConfigError

MCP = {
    "type": "mcp",
    "server_label": "docs",
    "server_url": "https://mcp.example.com",
    "authorization": "token-0f8d1c",
    "headers": {"x-tenant": "tenant-77aa10"},
    "require_approval": "never",
}
FUNCTION = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    "given",
    [
        {"tools": [MCP, FUNCTION, {"type": "file_search", "vector_store_ids": ["v"]}]},
        {"tool_choice": {"type": "mcp", "server_label": "docs"}},
        {"prompt": {"id": "pmpt_1", "variables": {"city": {"type": "input_text", "text": "Bern"}}}},
        {"avatar": {"face": {"kind": [1, 2]}}, "instructions": "Be brief."},
        {"reasoning": {"effort": "frantic"}},
        {"audio": {"input": {"turn_detection": {"type": "psychic", "patience": 7}}}},
        {"audio": {"input": {"noise_reduction": {"type": "studio", "depth": 3}}}},
        {"audio": {"output": {"voice": "ash", "style": "calm"}, "ambience": "rain"}},
        {"audio": {"input": {"format": {"type": "audio/opus"}, "transcription": {"model": "w", "hint": 1}}}},
        {"include": ["item.input_audio_transcription.logprobs", "something.new"]},
        {"@odd": 1},
    ],
)
def test_what_we_do_not_know_passes_as_it_is(given: dict[str, Any]):
    body = {"type": "realtime", "model": "gpt-realtime"} | given
    before = copy.deepcopy(body)
    config, passed = parse_relayed(body)
    assert passed == before == body
    assert config.model == "gpt-realtime"
    assert config.instructions == given.get("instructions", config.instructions)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"type": None}, "session.type"),
        ({"type": "transcription"}, "session.type"),
        ({"instructions": 7, "avatar": 1}, "session.instructions"),
        ({"tools": [MCP, {"type": "function"}]}, "session.tools"),
        ({"tools": ["look_up"]}, "session.tools"),
        ({"tools": [{"name": "look_up"}]}, "session.tools"),
        ({"tools": {}}, "session.tools"),
        ({"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": "0.5"}}}}, "threshold"),
        ({"audio": {"output": {"speed": 9.0}}}, "session.audio.output.speed"),
        ({"reasoning": {"effort": 5}}, "session.reasoning.effort"),
    ],
)
def test_what_we_know_keeps_its_type(given: dict[str, Any], param: str):
    with pytest.raises(ConfigError) as refusal:
        parse_relayed({"type": "realtime"} | given)
    assert param in (refusal.value.param or "")


def test_no_body_is_too_deep_to_be_shown():
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"in": deep}
    with pytest.raises(ConfigError):
        parse_relayed({"type": "realtime", "later": deep})
    for body in (None, [], "x"):
        with pytest.raises(ConfigError):
            parse_relayed(body)


def test_nulls_that_mean_nothing_do_not_go_up():
    """Row E03."""
    audio = {"input": {"format": None, "turn_detection": None}}
    assert parse_relayed({"type": "realtime", "audio": audio, "voice": 1})[1] == {
        "type": "realtime",
        "audio": {"input": {"turn_detection": None}},
        "voice": 1,
    }


def test_engines_of_ours_stay_strict():
    """Rows R11, E26."""
    engines = EngineDirectory(
        {"scripted": ScriptedFactory(None), "main": UpstreamFactory([Upstream("main", "ws://127.0.0.1:1")])},
        default="scripted",
        models={"gpt-realtime": "main"},
    )
    body = {"type": "realtime", "model": "gpt-realtime", "tools": [MCP]}
    assert engines.judge(body)[1] == body
    with pytest.raises(ConfigError) as refusal:
        engines.judge(body | {"model": "other"})
    assert refusal.value.param == "session.tools[0].type"
    with pytest.raises(ConfigError) as refusal:
        engines.judge({"type": "realtime", "avatar": 1})
    assert refusal.value.code == "unknown_parameter"


def test_the_secrets_of_mcp_tools_are_for_the_upstream_alone():
    session = {"type": "realtime", "tools": [MCP, FUNCTION]}
    shown = without_secrets(session)
    assert "token-0f8d1c" not in str(shown)
    assert "tenant-77aa10" not in str(shown)
    assert shown["tools"][1] == FUNCTION
    secrets = McpSecrets()
    secrets.learn(session)
    secrets.learn({"tools": "none"})
    secrets.learn(None)
    assert secrets.restore(shown) == session
    assert secrets.restore({"instructions": "x"}) == {"instructions": "x"}
    bearer = MCP | {"server_label": "two", "authorization": "Bearer abcdef012345"}
    secrets.learn({"tools": [bearer]})
    said = secrets.hide("401 for token-0f8d1c of tenant-77aa10, abcdef012345 is not valid")
    assert said == "401 for [secret] of [secret], [secret] is not valid"
