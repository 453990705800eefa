"""
The event loop's thread goes before all others of the node, where the system lets it.

Calls are paced and answered by that one thread. Whatever else computes (the database's threads, pages, lookups, models)
is of use a few milliseconds later, too; on a core that they share the loop would wait for as long as the kernel gives
each of them at a time, some 3 ms.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
from typing import Final

__all__ = ["NICENESS", "go_behind", "go_first", "usual"]

NICENESS: Final = -10
"Of the loop's thread. Nine times the share of a usual one; a core is never its alone, as it would be in real time."
SLICE_S: Final = 0.0001
"""
How long the loop's thread may at least compute at a time, which is also how soon it gets a core that another of the
node's threads has, on Linux from 6.12 on. The kernel's own is 3 ms.
"""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
"The system call's number; the C library has had a function for it since 2.41 only."


def _own() -> int:
    # Linux counts niceness by thread. Elsewhere it is the process's, and nothing is changed.
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform == "linux" else 0


_usual = _own()


def usual() -> int:
    """Return the niceness that the process was started with: what its other threads and its children have."""
    return _usual


def go_first() -> bool:
    """
    Give the calling thread precedence over the node's others; `False` where this is not allowed.

    It takes the capability CAP_SYS_NICE, or a limit (`LimitNICE=-10` for systemd, `ulimit -e 30`). What it starts later
    begins with the same niceness: see `go_behind`.
    """
    if sys.platform != "linux":
        return False
    wanted = min(_usual, NICENESS)
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), wanted)
    except OSError:
        return False
    _set_slice(SLICE_S)
    return True


def go_behind() -> None:
    """Give the calling thread the usual niceness, whoever started it. The first thing that a thread of ours does."""
    if sys.platform == "linux" and _own() < _usual:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _usual)
        _set_slice(0)


def _set_slice(seconds: float) -> None:
    """
    Ask for a time slice, 0 for the kernel's own: a wish that older kernels do not know (sched_setattr(2)).

    It goes with a policy, so another than the usual one is left alone: somebody chose it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    wish = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, _own(), 0, round(seconds * 1e9), 0, 0)
    ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(wish, len(wish)), 0)
