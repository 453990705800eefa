"""Figures over time of the calls that are kept. All counting is done by the database, in the reading thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    case,
    cast,
    func,
    literal,
    select,
    union_all,
)

from offhook.calls.statistics import CallPeriod, Spread

from . import schema
from .database import Database

__all__ = ["StoreStatistics"]

_FAULTS = ("server_error", "upstream_error")
LONGEST_S = 86_400.0
"Calls that began longer before are not looked for among those that lived at the start."
_calls = schema.calls.c


class StoreStatistics:
    """The `CallStatistics` of the calls that `StoreJournal` keeps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def periods(self, since: float, width_s: float, count: int) -> list[CallPeriod]:
        return await self._database.read_kept(lambda connection: _periods(connection, since, width_s, count))


def _periods(connection: Connection, since: float, width_s: float, count: int) -> list[CallPeriod]:
    until = since + width_s * count
    began = _period_of(connection, _calls.created_at, since, width_s)
    within = (_calls.created_at >= since, _calls.created_at < until)

    def by_period(query: Select[Any]) -> dict[int, Row[Any]]:
        return {row.period: row for row in connection.execute(query)}

    counted = by_period(select(*_counts(began)).where(*within).group_by(began))
    setups = by_period(_spread(began, _calls.answered_at - _calls.created_at, within, low_is_bad=False))
    scores = by_period(_spread(began, _number("inbound", "mos"), within, low_is_bad=True))
    peaks = _peaks(connection, since, width_s, count)
    found = []
    for number in range(count):
        row = counted.get(number)
        found.append(
            CallPeriod(
                begins_at=since + number * width_s,
                calls=row.calls if row else 0,
                answered=int(row.answered or 0) if row else 0,
                unanswered=int(row.unanswered or 0) if row else 0,
                failed=int(row.failed or 0) if row else 0,
                peak=peaks[number],
                setup_s=_spread_of(setups.get(number)),
                mos=_spread_of(scores.get(number)),
                loss_in_percent=_percent(row.lost_in, row.packets_in) if row else None,
                loss_out_percent=_percent(row.lost_out, row.packets_out) if row else None,
            )
        )
    return found


def _counts(period: ColumnElement[int]) -> tuple[ColumnElement[Any], ...]:
    is_fault = _calls.result.in_(_FAULTS)
    lost_in, lost_out = _number("inbound", "lost"), _number("outbound", "lost")
    return (
        period.label("period"),
        func.count().label("calls"),
        func.count(_calls.answered_at).label("answered"),
        func.sum(case((is_fault, 1), else_=0)).label("failed"),
        func.sum(case((is_fault, 0), (_calls.answered_at.is_(None), 1), else_=0)).label("unanswered"),
        func.sum(lost_in).label("lost_in"),
        func.sum(_number("inbound", "packets") + lost_in).label("packets_in"),
        func.sum(lost_out).label("lost_out"),
        # Some peers report nothing.
        func.sum(case((lost_out.is_not(None), _number("outbound", "packets")))).label("packets_out"),
    )


def _spread(
    period: ColumnElement[int],
    value: ColumnElement[Any],
    within: Sequence[ColumnElement[bool]],
    *,
    low_is_bad: bool,
) -> Select[Any]:
    """Return for each period the middle value, and the first of the worst twentieth."""
    measured = (
        select(period.label("period"), value.label("value")).where(*within, value.is_not(None)).subquery()
    )
    order = measured.c.value.desc() if low_is_bad else measured.c.value
    rank = func.cume_dist().over(partition_by=measured.c.period, order_by=order).label("rank")
    ranked = select(measured, rank).subquery()
    least = func.max if low_is_bad else func.min
    return select(
        ranked.c.period,
        least(case((ranked.c.rank >= 0.5, ranked.c.value))).label("median"),
        least(case((ranked.c.rank >= 0.95, ranked.c.value))).label("worst"),
    ).group_by(ranked.c.period)


def _peaks(connection: Connection, since: float, width_s: float, count: int) -> list[int]:
    """Return the most calls that lived at once, for each period."""
    until = since + width_s * count
    not_too_old = _calls.created_at >= since - LONGEST_S
    before = select(func.count()).where(
        not_too_old, _calls.created_at < since, (_calls.ended_at >= since) | _calls.ended_at.is_(None)
    )
    # What ended and what began at the same moment: first the ends, so that no more are counted than lived.
    changes = union_all(
        select(_calls.created_at.label("at"), literal(1).label("change")).where(
            _calls.created_at >= since, _calls.created_at < until
        ),
        select(_calls.ended_at.label("at"), literal(-1).label("change")).where(
            not_too_old, _calls.ended_at >= since, _calls.ended_at < until
        ),
    ).subquery()
    running = select(
        _period_of(connection, changes.c.at, since, width_s).label("period"),
        changes.c.change,
        func.sum(changes.c.change)
        .over(order_by=(changes.c.at, changes.c.change), rows=(None, 0))
        .label("live"),
    ).subquery()
    rows = connection.execute(
        select(
            running.c.period, func.max(running.c.live).label("most"), func.sum(running.c.change).label("net")
        ).group_by(running.c.period)
    )
    by_period = {row.period: (int(row.most), int(row.net)) for row in rows}
    at_first = int(connection.execute(before).scalar_one())
    live, found = at_first, []
    for number in range(count):
        most, net = by_period.get(number, (None, 0))
        found.append(max(live, at_first + most) if most is not None else live)
        live += net
    return found


def _period_of(
    connection: Connection, at: ColumnElement[Any], since: float, width_s: float
) -> ColumnElement[int]:
    """Return an expression for the number of the period that a time is in."""
    place = (at - since) / width_s
    # SQLite's cast cuts off, where others round; its `floor` is not always compiled in.
    return cast(place if connection.dialect.name == "sqlite" else func.floor(place), Integer)


def _number(direction: str, name: str) -> ColumnElement[Any]:
    found: ColumnElement[Any] = _calls.described[("media", direction, name)].as_float()
    return found


def _spread_of(row: Row[Any] | None) -> Spread | None:
    return None if row is None else Spread(float(row.median), float(row.worst))


def _percent(part: float | None, whole: float | None) -> float | None:
    return round(100 * part / whole, 3) if part is not None and whole else None
