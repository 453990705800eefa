"""The pure parts of the engine `upstream`: addresses, the order of attempts, frames, sound."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from offhook.audio import g711
from offhook.realtime.engines.upstream.audio import DeltaAudio
from offhook.realtime.engines.upstream.failover import Failover
from offhook.realtime.engines.upstream.target import Upstream, guess_kind, handshake
from offhook.realtime.engines.upstream.wire import append_frame, formats_of, session_update


@pytest.mark.parametrize(
    ("upstream", "url", "header"),
    [
        (
            Upstream("o", "https://api.openai.com/v1", "k", "openai"),
            "wss://api.openai.com/v1/realtime?model=asked",
            ("Authorization", "Bearer k"),
        ),
        (
            Upstream("o", "wss://api.openai.com/v1/realtime", "k", "openai", model="mine"),
            "wss://api.openai.com/v1/realtime?model=mine",
            ("Authorization", "Bearer k"),
        ),
        (
            Upstream("a", "https://r.openai.azure.com", "k", "azure", deployment="dep"),
            "wss://r.openai.azure.com/openai/v1/realtime?model=dep",
            ("api-key", "k"),
        ),
        (
            Upstream("a", "https://r.openai.azure.com", "k", "azure", deployment="dep", api_version="v"),
            "wss://r.openai.azure.com/openai/realtime?api-version=v&deployment=dep",
            ("api-key", "k"),
        ),
        (
            Upstream(
                "a", "wss://r.openai.azure.com/openai/realtime?api-version=v&deployment=d", "k", "azure"
            ),
            "wss://r.openai.azure.com/openai/realtime?api-version=v&deployment=d",
            ("api-key", "k"),
        ),
        (
            Upstream("x", "ws://127.0.0.1:9/any/where?model=theirs", "k"),
            "ws://127.0.0.1:9/any/where?model=theirs",
            ("Authorization", "Bearer k"),
        ),
    ],
)
def test_each_kind_is_opened_as_it_wants(upstream, url, header):
    assert handshake(upstream, "asked") == (url, dict([header]))
    assert "'k'" not in repr(upstream)


@pytest.mark.parametrize(
    ("upstream", "url"),
    [
        (
            Upstream("o", "wss://api.openai.com/v1", kind="openai", model="mine"),
            "wss://api.openai.com/v1/realtime?intent=transcription",
        ),
        (
            Upstream("a", "https://r.openai.azure.com", kind="azure", deployment="dep"),
            "wss://r.openai.azure.com/openai/v1/realtime?intent=transcription",
        ),
        (
            Upstream("a", "https://r.openai.azure.com", kind="azure", deployment="dep", api_version="v"),
            "wss://r.openai.azure.com/openai/realtime?api-version=v&intent=transcription",
        ),
        (
            Upstream("x", "ws://127.0.0.1:9/v1", model="theirs"),
            "ws://127.0.0.1:9/v1/realtime?model=theirs&intent=transcription",
        ),
        (
            Upstream("x", "ws://127.0.0.1:9/v1", kind="offhook"),
            "ws://127.0.0.1:9/v1/realtime?model=asked&intent=transcription",
        ),
    ],
)
def test_the_hosted_services_take_no_model_with_an_intent(upstream, url):
    assert handshake(upstream, "asked", "transcription")[0] == url


def test_the_host_tells_the_kind():
    assert guess_kind("wss://r.openai.azure.com/x") == "azure"
    assert guess_kind("https://api.openai.com/v1") == "openai"
    assert guess_kind("https://api.openai.com.example.net/v1") == "other"


def test_the_list_is_tried_from_the_present_one_on():
    failover = Failover(["a", "b", "c"])
    assert failover.attempts() == [0, 1, 2]
    failover.opened(1)
    assert failover.attempts() == [1, 2, 0]


def test_losses_in_a_row_are_not_followed_for_ever():
    failover = Failover(["a"])
    assert [failover.may_reopen(float(second)) for second in range(6)] == [True] * 5 + [False]
    assert failover.may_reopen(120.0)


def test_an_append_frame_is_the_event():
    audio = bytes(range(160))
    event = json.loads(append_frame(audio))
    assert event == {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}


def test_the_accept_body_goes_up_with_our_formats_and_without_the_model():
    given = {
        "type": "realtime",
        "model": "m",
        "audio": {"output": {"voice": "ash", "format": {"type": "audio/pcm"}}},
    }
    assert session_update(given, "audio/pcmu") == {
        "type": "realtime",
        "audio": {
            "input": {"format": {"type": "audio/pcmu"}},
            "output": {"voice": "ash", "format": {"type": "audio/pcmu"}},
        },
    }


def test_what_the_upstream_says_of_formats_counts():
    session = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}, "output": {}}}
    assert formats_of(session, "audio/pcmu") == ("audio/pcm", "audio/pcmu")


def test_deltas_may_end_inside_a_sample():
    sound = (np.sin(np.arange(24_000) / 10) * 8_000).astype("<i2").tobytes()
    one, split = DeltaAudio("audio/pcm", "audio/pcmu"), DeltaAudio("audio/pcm", "audio/pcmu")
    whole = one.take(base64.b64encode(sound).decode()) + one.finish()
    pieces = [sound[start : start + 4_801] for start in range(0, len(sound), 4_801)]
    parts = b"".join(split.take(base64.b64encode(piece).decode()) for piece in pieces) + split.finish()
    assert len(whole) == pytest.approx(8_000, abs=16)
    # Cut in pieces, the filter rounds here and there to the code next by.
    assert len(parts) == len(whole)
    heard, meant = (g711.decode(sound, "PCMU").astype(int) for sound in (parts, whole))
    assert max(np.abs(heard - meant)) <= 512
    assert one.take("not base64") == b""


def test_half_a_sample_of_an_answer_that_was_cut_off_does_not_spoil_the_next():
    """The one that was cut off may never be told to be done."""
    sound = DeltaAudio("audio/pcm", "audio/pcm")
    whole = bytes(range(200)) * 2
    assert sound.take(base64.b64encode(whole[:99]).decode(), "item_a") == whole[:98]
    assert sound.take(base64.b64encode(whole).decode(), "item_b") == whole
