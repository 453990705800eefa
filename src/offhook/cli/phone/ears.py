"""Puts what the phone heard into words, in a process of its own so that the phone's sound stays in time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offhook.audio.frames import SAMPLE_RATE
from offhook.audio.g711 import Samples

if TYPE_CHECKING:
    from offhook.realtime.engines.local.stt import Whisper

__all__ = ["Ears", "EarsError"]


class EarsError(Exception):
    """There is no speech-to-text here; the message says how to get it."""


class Ears:
    """One worker process with a Whisper model. Call `start` before the call, for loading takes seconds."""

    def __init__(self, model_dir: Path | None) -> None:
        self._model_dir = model_dir
        self._pool: ProcessPoolExecutor | None = None

    async def start(self) -> None:
        """Load the model. Raises `EarsError`."""
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        missing = await asyncio.get_running_loop().run_in_executor(self._pool, _load, self._model_dir)
        if missing is not None:
            self.close()
            raise EarsError(f"--transcribe: {missing}")

    async def transcribe(self, samples: Samples) -> str:
        """Return the words of 8 kHz sound."""
        if self._pool is None:
            raise EarsError("--transcribe: not started")
        return await asyncio.get_running_loop().run_in_executor(self._pool, _transcribe, samples)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # waits: an exit without that ends in a traceback
            self._pool = None


# In the worker.

_whisper: Whisper | None = None


def _load(model_dir: Path | None) -> str | None:
    global _whisper
    from offhook.realtime.engine import EngineUnavailable

    os.nice(10)
    try:
        from offhook.realtime.engines.local.config import default_cache_dir
        from offhook.realtime.engines.local.stt import Whisper
        from offhook.realtime.engines.local.weights import find_whisper

        _whisper = Whisper(find_whisper(None, model_dir or default_cache_dir()))
    except ImportError as error:
        return f"{error.name} is missing: pip install 'offhook[local]'"
    except EngineUnavailable as error:
        return str(error)
    return None


def _transcribe(samples: Samples) -> str:
    import soxr

    assert _whisper is not None
    wide = soxr.resample(samples.astype(np.float32) / np.float32(32768), SAMPLE_RATE, 16_000)
    return _whisper.transcribe(wide).text
