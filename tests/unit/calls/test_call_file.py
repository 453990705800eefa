"""When a call began, was answered and ended."""

from types import SimpleNamespace

from offhook.calls.call_file import CallFile
from offhook.calls.state import CallState
from offhook.sip.headers import Headers


class Clock:
    def __init__(self):
        self.past, self.set_to = 50.0, 1_800_000_000.0

    def monotonic(self):
        return self.past

    def wall(self):
        return self.set_to + self.past


def test_a_clock_that_is_set_while_the_call_lasts_does_not_change_its_length():
    clock = Clock()
    leg = SimpleNamespace(
        invite=SimpleNamespace(headers=Headers([]), uri="sip:a@b"), flow=None, call_id="c@h"
    )
    kept = []
    journal = SimpleNamespace(save=lambda described, times: kept.append(times))
    file = CallFile("rtc_1", "proj", leg, clock, journal)
    clock.past += 2
    clock.set_to -= 3_600
    file.answered()
    clock.past += 60
    clock.set_to += 100_000
    file.ended()
    shown = file.describe(CallState.ENDED, None, {})
    file.save(shown)
    began = 1_800_000_050
    assert [shown[f"{what}_at"] - began for what in ("created", "answered", "ended")] == [0, 2, 62]
    (times,) = kept
    assert (times.created_at, times.answered_at, times.ended_at) == (began, began + 2.0, began + 62.0)
