"""The sentences that were said before, and how soon a caller's sound is listened to."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from offhook.realtime.engines.local.listening import Listening
from offhook.realtime.engines.local.process import Role
from offhook.realtime.engines.local.spoken import SpokenSentences
from offhook.realtime.engines.local.tts import trim


def test_what_was_said_is_there_by_text_format_and_speed() -> None:
    spoken = SpokenSentences()
    spoken.put(("Hello.", "audio/pcmu", 1.0), b"sound")
    assert spoken.get(("Hello.", "audio/pcmu", 1.0)) == b"sound"
    assert spoken.get(("Hello.", "audio/pcma", 1.0)) is None
    assert spoken.get(("Hello.", "audio/pcmu", 1.5)) is None


def test_what_was_not_said_for_the_longest_time_gives_way() -> None:
    spoken = SpokenSentences(held_bytes=300)
    for name in ("a", "b", "c"):
        spoken.put((name, "audio/pcmu", 1.0), b"x" * 100)
    assert spoken.get(("a", "audio/pcmu", 1.0))
    spoken.put(("d", "audio/pcmu", 1.0), b"x" * 100)
    assert [name for name in "abcd" if spoken.get((name, "audio/pcmu", 1.0))] == ["a", "c", "d"]
    spoken.put(("e", "audio/pcmu", 1.0), b"x" * 301)
    assert [name for name in "acde" if spoken.get((name, "audio/pcmu", 1.0))] == ["a", "c", "d"]


def test_a_sentence_begins_with_its_first_sound() -> None:
    """The caller waits for the silence before it as for everything else."""
    loud = np.full(24000, 0.1, np.float32)
    silence = np.full(7200, 0.001, np.float32)
    trimmed = trim(np.concatenate((silence, loud, silence, silence)))
    before = int(np.flatnonzero(trimmed == np.float32(0.1))[0])
    assert 0 < before <= 0.005 * 24000
    assert len(trimmed) == pytest.approx(before + 24000 + 0.22 * 24000, abs=2)


class Worker:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.sent.append(header)


async def test_a_single_call_does_not_wait_for_others() -> None:
    """20 ms are for gathering many calls' frames. Barge-in and the end of a turn would come that much later."""
    listening, worker = Listening(Role("vad", 0), 0.02), Worker()
    listening._worker = worker  # type: ignore[assignment]
    stream = listening.open_stream("audio/pcmu", lambda event: None)
    stream.hear(b"\xff" * 160)
    await asyncio.sleep(0.01)
    assert [message["type"] for message in worker.sent] == ["open", "feed"]
    others = [listening.open_stream("audio/pcmu", lambda event: None) for _ in range(30)]
    worker.sent.clear()
    for one in others:
        one.hear(b"\xff" * 160)
    await asyncio.sleep(0.03)
    assert [message["type"] for message in worker.sent] == ["feed"]
