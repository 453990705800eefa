import logging

from offhook.calls.timeline import Timeline
from offhook.trace import RoutingDecision, StateChange, WireMessage


class FixedClock:
    def __init__(self, monotonic=100.0, wall=1_700_000_000.0):
        self.now, self._wall = monotonic, wall

    def monotonic(self):
        return self.now

    def wall(self):
        return self._wall


INVITE = b"INVITE sip:proj_x@host SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n"


def test_entries_are_on_one_clock_and_in_order_of_time(caplog):
    clock = FixedClock()
    timeline = Timeline("rtc_u0_1", clock)
    clock.now = 100.5
    timeline.record("call", "accepted", model="m")
    timeline.trace(WireMessage(100.25, "in", "udp", "127.0.0.1:5060", "127.0.0.1:6000", INVITE))
    shown = timeline.to_api()
    assert [(entry["ms"], entry["title"]) for entry in shown["data"]] == [
        (0.0, "INVITE sip:proj_x@host SIP/2.0"),
        (250.0, "accepted"),
    ]
    assert shown["started_at"] == "2023-11-14T22:13:20.250Z"
    assert shown["data"][0]["message"] == INVITE.decode()
    assert shown["data"][1]["model"] == "m"


def test_each_entry_is_one_log_line_with_the_call_id_and_without_whole_messages(caplog):
    timeline = Timeline("rtc_u0_1", FixedClock())
    with caplog.at_level(logging.INFO, "offhook.calls"):
        timeline.trace(WireMessage(1.0, "out", "udp", "a:1", "b:2", INVITE))
        timeline.trace(StateChange(2.0, "dialog", "confirmed", "ACK"))
        timeline.trace(RoutingDecision(3.0, "BYE", "sent BYE by the INVITE's connection", {"hop": "x"}))
        timeline.record("webhook", "attempt", name="collides with a field of LogRecord")
    assert [record.call_id for record in caplog.records] == ["rtc_u0_1"] * 4
    assert [record.event for record in caplog.records] == [
        "call.sip",
        "call.call",
        "call.route",
        "call.webhook",
    ]
    assert not any("Via:" in str(vars(record)) for record in caplog.records)


def test_what_is_past_the_bound_is_counted():
    timeline = Timeline("rtc_u0_1", FixedClock())
    for number in range(5_010):
        timeline.record("session", str(number))
    shown = timeline.to_api()
    assert (len(shown["data"]), shown["dropped"]) == (5_000, 10)
