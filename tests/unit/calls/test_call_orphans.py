"""What is kept of a dialog while it lives, and what is done about it after a crash (decision 12 of the design)."""

import asyncio

import pytest

from offhook.calls.call import SAVED_WITHIN_S
from offhook.calls.journal import CallTimes
from offhook.calls.orphans import CRASHED, Orphan, Orphans
from offhook.calls.refer_record import ReferRecord
from offhook.clock import SystemClock
from offhook.sip.snapshot import SnapshotError


def described(call_id="rtc_1", **change):
    return {
        "id": call_id,
        "project_id": "proj_a",
        "state": "active",
        "created_at": 1,
        "answered_at": 2,
        "ended_at": None,
        "from": "a",
        "to": "b",
        "termination": None,
        "refers": [],
    } | change


TALKED, RANG = CallTimes(1.25, 2.5, None), CallTimes(1.25, None, None)


class RevivedLeg:
    def __init__(self, state):
        self.state, self.asked, self.listener, self.trace = state, [], None, None

    def hangup(self, *, reason_header):
        self.asked.append(("hangup", reason_header))

    def refuse(self, status, *, headers):
        self.asked.append(("refuse", status, dict(headers)))


@pytest.fixture
def estate(table):
    """Ends orphans; what `legs` has for a snapshot is what it is revived as."""
    legs = {}

    class Endpoint:
        def revive(self, snapshot):
            if snapshot["id"] not in legs:
                raise SnapshotError("a snapshot of version 9")
            return legs[snapshot["id"]]

    orphans = Orphans(
        endpoint=Endpoint(),
        projects=table.manager._projects,
        announcer=table.announcer,
        journal=table.journal,
        clock=SystemClock(),
    )
    return orphans, legs


def end(orphans, found):
    for _ in orphans.end(found):
        pass


ENDED = {"result": "server_error", "reason": "failed", "cause": "the node crashed"}


def test_an_answered_call_is_closed_and_hung_up(table, estate):
    orphans, legs = estate
    leg = legs[1] = RevivedLeg("confirmed")
    end(orphans, [Orphan("rtc_1", described(), TALKED, {"id": 1}, 7)])
    assert leg.asked == [("hangup", 'Q.850;cause=41;text="Temporary failure"')]
    saved = table.journal.saved["rtc_1"]
    assert (saved["state"], saved["termination"]) == ("ended", ENDED)
    assert saved["ended_at"] > 1_000_000
    (event,) = table.announcer.events
    assert (event.type, event.data) == ("realtime.call.ended", {"call_id": "rtc_1", **ENDED})
    assert table.journal.entries == [("rtc_1", 7, "ended: the node crashed")]
    assert table.journal.dialogs == {}
    leg.listener.leg_released(leg)
    assert table.journal.dialogs == {"rtc_1": None}


def test_one_that_rang_is_refused(table, estate):
    orphans, legs = estate
    leg = legs[1] = RevivedLeg("early")
    end(orphans, [Orphan("rtc_1", described(answered_at=None), RANG, {"id": 1}, 0)])
    assert [(what, status) for what, status, _ in leg.asked] == [("refuse", 503)]
    assert leg.asked[0][2]["Retry-After"] == "1"
    assert table.journal.saved["rtc_1"]["termination"] == ENDED | {"sip_status": 503}


def test_one_that_had_ended_is_only_hung_up(table, estate):
    """The crash came between the end and the answer to its BYE."""
    orphans, legs = estate
    leg = legs[1] = RevivedLeg("confirmed")
    end(
        orphans,
        [Orphan("rtc_1", described(state="ended", termination={"result": "success"}), TALKED, {"id": 1}, 3)],
    )
    assert leg.asked
    assert not table.announcer.events
    assert not table.journal.saved


def test_one_whose_end_was_told_is_closed_as_it_was_told_and_not_told_again(table, estate):
    """The crash came between the webhook and the session's end, with which the call is saved."""
    orphans, legs = estate
    leg = legs[1] = RevivedLeg("confirmed")
    told = {"call_id": "rtc_1", "result": "success", "reason": "remote_hangup", "cause": "BYE"}
    end(orphans, [Orphan("rtc_1", described(), TALKED, {"id": 1}, 3, told=told)])
    assert leg.asked
    assert not table.announcer.events
    saved = table.journal.saved["rtc_1"]
    assert (saved["state"], saved["termination"]["reason"]) == ("ended", "remote_hangup")


def test_what_cannot_be_hung_up_is_closed_and_harms_nobody(table, estate):
    orphans, legs = estate
    leg = legs[2] = RevivedLeg("confirmed")
    end(
        orphans,
        [
            Orphan("rtc_0", None, None, {"id": 0}, 0),
            Orphan("rtc_1", described("rtc_1"), TALKED, {"id": 1}, 0),
            Orphan("rtc_3", described("rtc_3", project_id="proj_gone"), TALKED, None, 0),
            Orphan("rtc_4", {}, TALKED, {"id": 2}, 0),
            Orphan("rtc_2", described("rtc_2"), TALKED, {"id": 2}, 0),
        ],
    )
    assert leg.asked
    assert set(table.journal.saved) == {"rtc_1", "rtc_2", "rtc_3"}
    assert table.journal.dialogs == {"rtc_0": None, "rtc_1": None}
    assert [event.data["call_id"] for event in table.announcer.events] == ["rtc_1", "rtc_2"]


def test_one_whose_record_cannot_be_read_is_hung_up_all_the_same(table, estate, caplog):
    """Another version wrote it."""
    orphans, legs = estate
    leg = legs[1] = RevivedLeg("confirmed")
    end(orphans, [Orphan("rtc_1", {"id": "rtc_1"}, TALKED, {"id": 1}, 0)])
    assert [what for what, *_ in leg.asked] == ["hangup"]
    assert "could not be ended" in caplog.text


def test_a_clock_that_was_set_back_ends_no_call_before_it_was_answered(table, estate):
    orphans, _ = estate
    later = CallTimes(4e9, 4e9 + 1.5, None)
    end(orphans, [Orphan("rtc_1", described(), later, None, 0)])
    assert table.journal.saved["rtc_1"]["ended_at"] == int(4e9 + 1.5)


def test_a_long_list_is_ended_in_steps(table, estate):
    orphans, legs = estate
    legs.update({number: RevivedLeg("confirmed") for number in range(3)})
    ended = [Orphan(f"rtc_{n}", described(f"rtc_{n}"), TALKED, {"id": n}, 0) for n in range(3)]
    done = [
        (len(table.journal.saved), sum(map(bool, (leg.asked for leg in legs.values()))))
        for _ in orphans.end(ended)
    ]
    assert done == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


def test_a_transfer_under_way_ends_as_unknown(table, estate):
    """It may have come about; nobody will know."""
    orphans, legs = estate
    legs[1] = RevivedLeg("confirmed")
    record = ReferRecord(2, "rtc_1", "tel:+1415", 5.0, "req_1")
    record.update("accepted", 202, "Accepted", at=6.0)
    failed = ReferRecord(1, "rtc_1", "tel:+1416", 5.0)
    failed.update("failed", 486, "Busy Here", at=6.0)
    refers = [failed.brief(), record.brief()]
    orphan = Orphan(
        "rtc_1", described(refers=refers), TALKED, {"id": 1}, 0, [failed.to_api(), record.to_api()]
    )
    table.announcer.subscribed.add("realtime.call.refer.updated")
    end(orphans, [orphan])
    (kept,) = table.journal.refers
    assert (kept["status"], kept["reason"], len(kept["updates"])) == ("unknown", "the node crashed", 2)
    shown = table.journal.saved["rtc_1"]["refers"]
    assert shown == [
        failed.brief(),
        record.brief() | {"status": "unknown", "sip_status": None, "reason": CRASHED},
    ]
    update, ended = table.announcer.events
    assert (update.type, ended.type) == ("realtime.call.refer.updated", "realtime.call.ended")
    assert update.data == {"call_id": "rtc_1", **shown[1]}
    titles = [title for _, _, title in table.journal.entries]
    assert titles == ["transfer 2 to tel:+1415: unknown, the node crashed", "ended: the node crashed"]


async def test_a_dialog_is_kept_from_the_first_ring_to_its_release(table):
    leg, call = table.invite()
    early = table.journal.dialogs[call.id]
    assert early["early"]
    await call.accept({"type": "realtime"})
    await call._establishing
    assert not table.journal.dialogs[call.id]["early"]
    call.leg_confirmed(leg)
    assert len(table.journal.kept_dialogs) == 2
    await call.hangup()
    # The BYE may not be answered yet.
    assert table.journal.dialogs[call.id]
    call.leg_released(leg)
    assert table.journal.dialogs[call.id] is None


async def test_a_call_that_is_answered_at_once_is_saved_once_as_such_and_once_as_ended(table):
    _, call = table.invite()
    await call.accept({"type": "realtime"})
    await call._establishing
    assert table.journal.states == []
    await asyncio.sleep(2 * SAVED_WITHIN_S)
    assert table.journal.states == ["answered"]
    await call.hangup()
    await call.wait_closed()
    assert table.journal.states == ["answered", "ended"]
    await asyncio.sleep(2 * SAVED_WITHIN_S)
    assert table.journal.states == ["answered", "ended"]


async def test_a_call_that_rings_is_saved_as_ringing(table):
    _, call = table.invite()
    await asyncio.sleep(2 * SAVED_WITHIN_S)
    assert table.journal.saved[call.id]["state"] == "ringing"


async def test_a_call_that_is_turned_away_keeps_nothing(table):
    leg, call = table.invite(sdp=table.video)
    call.leg_released(leg)
    assert table.journal.dialogs == {}
