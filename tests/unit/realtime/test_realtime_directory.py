"""Which engine serves whom, and what is remembered of bodies that stand in a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from offhook.realtime.directory import MAX_STANDING, EngineDirectory
from offhook.realtime.engines.scripted import ScriptedFactory
from offhook.realtime.engines.upstream.engine import UpstreamFactory
from offhook.realtime.engines.upstream.target import Upstream
from offhook.realtime.session_config import ConfigError


@pytest.fixture
def engines() -> EngineDirectory:
    return EngineDirectory(
        {"scripted": ScriptedFactory(None), "main": UpstreamFactory([Upstream("main", "ws://127.0.0.1:1")])},
        default="scripted",
        models={"gpt-realtime": "main"},
    )


@pytest.mark.parametrize("model", ["gpt-realtime", "other"])
def test_a_standing_body_is_judged_once_and_as_any_other(engines: EngineDirectory, model: str) -> None:
    body = {"type": "realtime", "model": model, "instructions": "Be brief."}
    first = engines.judge_standing(body)
    assert first == engines.judge(body)
    assert engines.judge_standing(body) is first
    assert engines.judge_standing(dict(body)) is not first


def test_bodies_of_the_same_place_in_memory_are_never_taken_for_each_other(engines: EngineDirectory) -> None:
    for number in range(3 * MAX_STANDING):
        # Each is forgotten at once here, so that Python gives its place to the next.
        config, given = engines.judge_standing({"type": "realtime", "instructions": f"Say {number}."})
        assert (config.instructions, given["instructions"]) == (f"Say {number}.", f"Say {number}.")


def test_no_more_standing_bodies_are_remembered_than_there_is_room_for(engines: EngineDirectory) -> None:
    bodies: list[dict[str, Any]] = [{"type": "realtime"} for _ in range(MAX_STANDING + 1)]
    judged = [engines.judge_standing(body) for body in bodies]
    assert engines.judge_standing(bodies[-1]) is judged[-1]
    assert engines.judge_standing(bodies[0]) is not judged[0]


def test_a_standing_body_that_cannot_be_used_is_refused_each_time(engines: EngineDirectory) -> None:
    body = {"type": "realtime", "avatar": 1}
    for _ in range(2):
        with pytest.raises(ConfigError):
            engines.judge_standing(body)
