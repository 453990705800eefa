import logging

from offhook.calls.timeline import MAX_KEPT, Timeline
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


def test_the_end_of_a_call_is_kept_however_many_entries_a_peer_makes():
    kept = []
    timeline = Timeline("rtc_u0_1", FixedClock(), lambda call_id, number, at, entry: kept.append(entry.title))
    for number in range(MAX_KEPT + 500):
        timeline.record("call", f"INVITE {number}: confirmed")
    timeline.record("call", "ended: the caller hung up", result="success", reason="remote_hangup")
    assert len(kept) == MAX_KEPT + 1
    assert kept[-1] == "ended: the caller hung up"


def test_a_body_that_is_made_later_is_that_of_now():
    timeline = Timeline("rtc_u0_1", FixedClock())
    timeline.record("call", "first")
    make, expected = timeline.freeze(), timeline.to_api()
    timeline.record("call", "second")
    assert make() == expected
    assert len(timeline.to_api()["data"]) == 2


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


def test_a_detail_cannot_rename_the_log_line(caplog):
    timeline = Timeline("rtc_u0_1", FixedClock())
    with caplog.at_level(logging.INFO, "offhook.calls"):
        timeline.record("media", "first packet", event="receiving", text="x", level="y", call_id="z")
    record = caplog.records[0]
    assert (record.event, record.call_id, record.event_) == ("call.media", "rtc_u0_1", "receiving")
    assert not {"text", "level"} & vars(record).keys()


def test_of_a_call_that_never_stops_the_middle_is_left_out_and_counted():
    timeline = Timeline("rtc_u0_1", FixedClock())
    for number in range(6_000):
        timeline.record("session", str(number))
    timeline.record("call", "ended: the caller hung up")
    shown = timeline.to_api()
    assert (len(shown["data"]), shown["dropped"]) == (5_000, 1_001)
    titles = [entry["title"] for entry in shown["data"]]
    assert titles[:4_000] == [str(number) for number in range(4_000)]
    assert titles[-2:] == ["5999", "ended: the caller hung up"]


def test_large_messages_do_not_grow_it_without_end():
    timeline = Timeline("rtc_u0_1", FixedClock())
    info = b"INFO sip:x SIP/2.0\r\n\r\n" + b"x" * 60_000
    for number in range(300):
        timeline.trace(WireMessage(float(number), "in", "udp", "a:1", "b:2", info))
    kept = [entry["message"] for entry in timeline.to_api()["data"]]
    assert len(kept) == 300
    assert kept[0] == info.decode()
    assert sum(map(len, kept)) < 5_000_000
    assert kept[-1].startswith("INFO sip:x SIP/2.0\r\n")
    assert "not kept" in kept[-1]


def test_a_title_is_one_short_line(caplog):
    timeline = Timeline("rtc_u0_1", FixedClock())
    with caplog.at_level(logging.INFO, "offhook.calls"):
        timeline.record("rest", "y" * 10_000)
    assert len(timeline.entries()[0].title) < 600
    assert len(caplog.records[0].getMessage()) < 600


def test_credentials_and_keys_are_not_kept():
    timeline = Timeline("rtc_u0_1", FixedClock())
    message = (
        b"INVITE sip:proj_x@host SIP/2.0\r\n"
        b'Proxy-Authorization : Digest username="trunk",\r\n response="5ec4e7"\r\n'
        b'authorization: Digest response="a1b2c3"\r\n'
        b"X-Authorization-Hint: none\r\n\r\n"
        b"v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^20|1:4\r\n"
    )
    timeline.trace(WireMessage(1.0, "in", "udp", "a:1", "b:2", message))
    shown = timeline.to_api()["data"][0]["message"]
    for secret in ("5ec4e7", "a1b2c3", "PS1uQCVe"):
        assert secret not in shown
    for kept in (
        "Proxy-Authorization",
        "authorization:",
        "X-Authorization-Hint: none\r\n",
        "AES_CM_128",
        "|2^20",
    ):
        assert kept in shown
