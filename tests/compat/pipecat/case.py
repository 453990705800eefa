"""Pipecat in an environment of its own: its OpenAI Realtime service in a session without a call."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from plain_session import run, talk  # noqa: E402

run(HERE, partial(talk, greets=True, plays=True))
