"""The models' files are the ones that were tested, or the start says what to do."""

import pytest

from offhook.realtime.engine import EngineUnavailable
from offhook.realtime.engines.local import weights

pytestmark = pytest.mark.models


def test_a_damaged_file_is_refused(tmp_path):
    damaged = tmp_path / "silero_vad.onnx"
    damaged.write_bytes(weights.VAD_MODEL.read_bytes()[:-1])
    with pytest.raises(EngineUnavailable, match="damaged"):
        weights.check_sha256(damaged)
    weights.check_sha256()


def test_a_damaged_speech_model_is_made_again(tmp_path):
    first = weights.find_whisper(None, tmp_path)
    assert weights.find_whisper(None, tmp_path) == first
    with (first / "model.bin").open("r+b") as file:
        file.write(b"damage")
    assert weights.find_whisper(None, tmp_path) == first
    assert weights.sha256_of(first / "model.bin").startswith("d01c3014")
    assert [path.name for path in tmp_path.iterdir()] == [first.name], "nothing is left lying about"
