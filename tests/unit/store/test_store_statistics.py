"""Figures over time: what each period counts, and what it has when there is nothing to count."""

import pytest

from offhook.calls.journal import CallTimes
from offhook.calls.statistics import Spread
from offhook.store import Database
from offhook.store.journal import StoreJournal
from offhook.store.statistics import LONGEST_S, StoreStatistics


def described(call_id, result, mos, lost, reported):
    inbound = {"packets": 100 - lost, "lost": lost, "mos": mos}
    outbound = {"packets": 200, "lost": reported, "mos": None}
    return {
        "id": call_id,
        "project_id": "proj",
        "state": "ended" if result else "active",
        "from": "a",
        "to": "b",
        "request_uri": "sip:proj@h",
        "sip_call_id": f"{call_id}@h",
        "carrier_call_id": None,
        "termination": {"result": result} if result else None,
        "media": {"inbound": inbound, "outbound": outbound} if mos is not None else {},
    }


@pytest.fixture
async def kept(tmp_path):
    """What puts calls into a database, and the figures of it."""
    database = await Database.open("sqlite", tmp_path)
    journal = StoreJournal(database.writer, "u0")

    async def keep(*calls):
        for number, (began, answered, ended, result, mos, lost, reported) in enumerate(calls):
            journal.save(
                described(f"rtc_{number}", result, mos, lost, reported), CallTimes(began, answered, ended)
            )
        await database.write(lambda connection: None)

    yield keep, StoreStatistics(database)
    await database.close()


async def test_calls_count_where_they_began(kept):
    keep, statistics = kept
    await keep(
        (999.9, 1000.5, 1001.0, "success", None, 0, None),
        (1000.0, 1002.0, 1005.0, "success", 4.4, 0, 0),
        (1059.9, None, 1061.0, "client_error", None, 0, None),
        (1060.0, 1061.0, 1070.0, "server_error", 3.0, 10, 20),
        (1061.0, None, 1062.0, "upstream_error", None, 0, None),
        (1130.0, 1131.0, None, None, 4.0, 2, None),
        (1180.0, None, None, None, None, 0, None),
    )
    one, two, three = await statistics.periods(1000.0, 60.0, 3)
    assert (one.begins_at, two.begins_at, three.begins_at) == (1000.0, 1060.0, 1120.0)
    assert (one.calls, one.answered, one.unanswered, one.failed) == (2, 1, 1, 0)
    assert (two.calls, two.answered, two.unanswered, two.failed) == (2, 1, 0, 2)
    assert (three.calls, three.answered, three.unanswered, three.failed) == (1, 1, 0, 0)
    assert one.setup_s == Spread(2.0, 2.0)
    assert two.mos == Spread(3.0, 3.0)
    assert (one.loss_in_percent, two.loss_in_percent) == (0.0, 10.0)
    assert (one.loss_out_percent, two.loss_out_percent, three.loss_out_percent) == (0.0, 10.0, None)


async def test_the_middle_and_the_worst_twentieth(kept):
    keep, statistics = kept
    await keep(
        *((1000.0, 1000.0 + number, 1100.0, "success", 4.4 - number / 100, 0, 0) for number in range(1, 101))
    )
    (period,) = await statistics.periods(1000.0, 60.0, 1)
    assert period.setup_s == Spread(50.0, 95.0)
    assert (period.mos.median, period.mos.worst) == pytest.approx((3.9, 3.45))


async def test_the_most_at_once_has_those_that_began_before(kept):
    keep, statistics = kept
    await keep(
        (900.0, None, 1030.0, "success", None, 0, None),
        (910.0, None, 999.0, "success", None, 0, None),
        (1010.0, None, 1020.0, "success", None, 0, None),
        (1020.0, None, 1025.0, "success", None, 0, None),
        (1130.0, None, None, None, None, 0, None),
        (1000.0 - LONGEST_S - 1, None, None, None, None, 0, None),
    )
    periods = await statistics.periods(1000.0, 60.0, 5)
    assert [period.peak for period in periods] == [2, 0, 1, 1, 1]
    assert [period.calls for period in periods] == [2, 0, 1, 0, 0]


async def test_periods_without_calls_say_so(kept):
    _, statistics = kept
    for period in await statistics.periods(1000.0, 60.0, 3):
        assert (period.calls, period.peak) == (0, 0)
        assert period.setup_s is period.mos is period.loss_in_percent is None
