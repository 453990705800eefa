"""The loop's thread goes before the others that it starts, and before its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from offhook import precedence

REPORT = """
import json, os, subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
from offhook import precedence

def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

def behind():
    precedence.go_behind()
    return niceness()

def slice_ns():
    lines = open("/proc/thread-self/sched").read().splitlines()
    return next((int(line.split(":")[1]) for line in lines if line.startswith("se.slice")), None)

usual_slice = slice_ns()
went_first = precedence.go_first()
with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1, "", precedence.go_behind) as other:
    print(json.dumps({
        "policy": os.sched_getscheduler(0), "usual_slice": usual_slice, "slice": slice_ns(),
        "first": went_first, "loop": niceness(), "inherited": one.submit(niceness).result(),
        "behind": one.submit(behind).result(), "initialized": other.submit(niceness).result(),
        "slice_behind": one.submit(lambda: (precedence.go_behind(), slice_ns())[1]).result(),
        "usual": precedence.usual(), "process": os.getpriority(os.PRIO_PROCESS, 0),
    }))
"""


def report(*before: str) -> dict[str, int]:
    done = subprocess.run([*before, sys.executable, "-c", REPORT], capture_output=True, check=True)
    told: dict[str, int] = json.loads(done.stdout)
    return told


def may_go_first() -> bool:
    return report()["first"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the process's")
def test_the_thread_that_goes_first_does_and_no_other() -> None:
    if not may_go_first():
        pytest.skip("this user may not raise a priority")
    told = report("nice", "-n", "3")
    assert (told["loop"], told["inherited"]) == (precedence.NICENESS, precedence.NICENESS)
    others = min(19, os.nice(0) + 3)
    assert (told["behind"], told["initialized"], told["usual"]) == (others, others, others)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the process's")
def test_who_may_not_is_told_so_and_loses_nothing() -> None:
    if os.geteuid() == 0:
        # Without the capability, and without a limit that allows it.
        told = report(
            "setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "prlimit", "--nice=0", "--"
        )
    else:
        told = report("prlimit", "--nice=0", "--")
    assert told["first"] == 0
    assert told["loop"] == told["behind"] == told["initialized"] == told["usual"]


def test_a_thread_that_is_already_behind_stays_so() -> None:
    with ThreadPoolExecutor(1) as one:
        one.submit(precedence.go_behind).result()
        assert one.submit(lambda: os.getpriority(os.PRIO_PROCESS, 0)).result() == os.getpriority(
            os.PRIO_PROCESS, 0
        )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no slices to ask for")
def test_only_the_thread_that_goes_first_has_short_slices() -> None:
    told = report()
    version = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if told["first"] == 0 or told["slice"] is None or version < (6, 12):
        pytest.skip("this user or this kernel has none, or does not show them")
    assert told["slice"] == round(precedence.SLICE_S * 1e9)
    assert told["slice_behind"] == told["usual_slice"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no such policies")
@pytest.mark.parametrize(("option", "policy"), [("--batch", "SCHED_BATCH"), ("--idle", "SCHED_IDLE")])
def test_the_policy_that_somebody_chose_stays(option: str, policy: str) -> None:
    assert report("chrt", option, "0")["policy"] == getattr(os, policy)
