"""Pipecat in an environment of its own: its OpenAI Realtime service in a session without a call."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from plain_session import talk_alone  # noqa: E402

talk_alone(HERE, greets=True, plays=True)
