"""The configuration's table about recording."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from offhook.config_trunks import Table

__all__ = ["RecordingTable"]


class RecordingTable(Table):
    dir: str = ""
    "Where recordings are kept; empty: `recordings` under `server.data_dir`."
    keep_days: Annotated[float, Field(ge=0)] = 30
    "How long after its end a recording is kept. 0: for ever."
    min_free_mb: Annotated[int, Field(ge=0)] = 256
    "What recordings leave free on their disk."
