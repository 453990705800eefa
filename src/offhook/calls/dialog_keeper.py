"""What is kept of one call's dialog while it lives, so that a crash can hang up (decision 12 of the design). Pure."""

from __future__ import annotations

from offhook.sip.leg import Leg
from offhook.sip.snapshot import Snapshot

from .journal import Journal

__all__ = ["DialogKeeper"]


class DialogKeeper:
    """Keeps a leg's snapshot whenever it has changed, and drops it when nothing is left to hang up."""

    def __init__(self, call_id: str, leg: Leg, journal: Journal) -> None:
        self._call_id = call_id
        self._leg = leg
        self._journal = journal
        self._kept: Snapshot | None = None

    def keep(self) -> None:
        """Keep what it takes to hang up now."""
        if self._leg.state == "ended":
            return
        snapshot = self._leg.snapshot()
        if snapshot != self._kept:
            self._kept = snapshot
            self._journal.dialog(self._call_id, snapshot)

    def drop(self) -> None:
        """There is nothing to hang up any more."""
        if self._kept is not None:
            self._kept = None
            self._journal.dialog(self._call_id, None)
