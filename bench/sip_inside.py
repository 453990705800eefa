"""`offhook serve` that writes, at SIGUSR2, what it holds of calls, as JSON into the file of its first argument."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from offhook.calls.manager import CallManager
from offhook.cli import main
from offhook.media.pacer import Pacer
from offhook.media.port import PortPool
from offhook.sip.stack import Stack

HELD = {
    Stack: ("_server", "_merged", "_client", "_dialogs", "_dialogs_of"),
    CallManager: ("_live",),
}
seen: list[Any] = []


def watch(kind: type[Any]) -> None:
    begin = kind.__init__

    def noted(self: Any, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        seen.append(self)

    kind.__init__ = noted


def held() -> dict[str, int]:
    """Return how much of each there is; all of it is 0 when no call has left anything."""
    found: dict[str, int] = {}
    for thing in seen:
        for kind, names in HELD.items():
            if type(thing) is kind:
                found |= {f"{kind.__name__}.{name.strip('_')}": len(getattr(thing, name)) for name in names}
        if isinstance(thing, Stack):
            found["Stack.timers"] = sum(entry[2].timed is not None for entry in thing._timers._heap)
        elif isinstance(thing, CallManager):
            found["CallManager.per_project"] = sum(thing._per_project.values())
            found["CallManager.unanswered"] = thing._unanswered.of_node(0)
        elif isinstance(thing, Pacer):
            found["Pacer"] = len(thing)
        elif isinstance(thing, PortPool):
            found["PortPool.used"] = thing.total - thing.free
    return found


if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    for kind in (Stack, CallManager, Pacer, PortPool):
        watch(kind)
    signal.signal(signal.SIGUSR2, lambda *_: file.write_text(json.dumps(held())))
    main()
