"""The sentence that is said while an upstream is opened again: built in, or the operator's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offhook.app import Node, StartError
from offhook.audio import g711, wav
from offhook.config import Config
from offhook.realtime.engines.upstream.hold import (
    HoldSentenceError,
    load_failure_sentence,
    load_hold_sentence,
)


def tone(seconds: float, rate: int) -> np.ndarray:
    return (np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate) * 8000).astype(np.int16)


def test_the_built_in_sentence_is_short_and_loud_enough():
    sentence = load_hold_sentence("")
    assert sentence is not None
    assert sentence.title == "one moment, please"
    for law in ("PCMU", "PCMA"):
        sound = g711.decode(sentence.sounds[f"audio/{law.lower()}"], law).astype(int)
        assert 0.8 < len(sound) / 8000 < 2.5
        assert 8_000 < np.abs(sound).max() < 32_000


def test_the_built_in_apology_is_short_and_loud_enough():
    sentence = load_failure_sentence("")
    assert sentence is not None
    for law in ("PCMU", "PCMA"):
        sound = g711.decode(sentence.sounds[f"audio/{law.lower()}"], law).astype(int)
        assert 1.5 < len(sound) / 8000 < 4
        assert 8_000 < np.abs(sound).max() < 32_000
    assert load_failure_sentence("none") is None


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (24000, 1), (44100, 2)])
def test_a_file_of_any_rate_is_said_as_it_is(tmp_path: Path, rate: int, channels: int):
    samples = tone(1.0, rate)
    file = tmp_path / "hold.wav"
    file.write_bytes(wav.write(samples if channels == 1 else np.column_stack([samples] * 2), rate))
    sentence = load_hold_sentence(str(file))
    assert sentence is not None
    assert sentence.title == "hold.wav"
    line = g711.decode(sentence.sounds["audio/pcmu"], "PCMU").astype(int)
    assert len(line) == pytest.approx(8000, abs=4)
    assert len(sentence.sounds["audio/pcm"]) == pytest.approx(48_000, abs=16)
    middle = line[1000:7000]
    assert np.abs(middle).max() == pytest.approx(8000, rel=0.1)
    crossings = np.count_nonzero(np.diff(np.signbit(middle)))
    assert crossings == pytest.approx(2 * 440 * 6000 / 8000, abs=4)


def test_none_is_silence():
    assert load_hold_sentence("none") is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (None, "cannot be read"),
        (b"", "no readable WAV"),
        (b"ID3 music", "16-bit PCM"),
        (wav.write(tone(0, 8000), 8000), "0.0 s"),
        (wav.write(tone(16, 8000), 8000), "at most 15 s"),
        (wav.write(tone(0.5, 1000), 1000), "1000 Hz"),
    ],
)
def test_a_file_that_will_not_do_is_said_at_start(tmp_path: Path, data: bytes | None, fault: str):
    file = tmp_path / "hold.wav"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(HoldSentenceError, match=fault):
        load_hold_sentence(str(file))


@pytest.mark.parametrize("key", ["hold_sentence", "failure_sentence"])
async def test_a_node_with_such_a_file_does_not_start(tmp_path: Path, key: str):
    config = Config(server={"data_dir": tmp_path}, engine={"kind": "scripted", key: str(tmp_path / "no.wav")})
    with pytest.raises(StartError, match=rf"^engine\.{key} = '.*no\.wav': it cannot be read"):
        await Node(config).start()
