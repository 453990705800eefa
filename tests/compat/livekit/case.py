"""LiveKit Agents in an environment of its own: its OpenAI Realtime model in a session without a call."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from plain_session import talk_alone  # noqa: E402

# It cancels what the server has cancelled already, and takes the error for what it is.
talk_alone(HERE, greets=True, plays=True, excused="response_cancel_not_active")
