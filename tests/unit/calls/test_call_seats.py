"""What a ringing call needs is held for it, so that it can be answered; and given back in every end."""

import asyncio
import socket

import pytest

from offhook.calls.admission import Refusal
from offhook.calls.errors import CallError
from offhook.calls.record import EndReason, Result, Termination
from offhook.calls.seats import Seats
from offhook.media.port import NoFreePort, PortPool
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engine import EngineUnavailable
from offhook.realtime.engines.scripted import ScriptedFactory
from offhook.tenants import Fallback, Project

PROJECT = Project("proj_a")
FIRST = 32_180
"Ports that neither a node of the tests nor the system gives out, and no other test takes."


class Room:
    """Two engines, one of them without a limit if `other` is 0, and media ports."""

    def __init__(self, *, slots=2, other=1, pairs=5):
        self.one, self.other = ScriptedFactory(slots=slots), ScriptedFactory(slots=other)
        self.engines = EngineDirectory(
            {"one": self.one, "other": self.other}, default="one", models={"second": "other"}
        )
        self.ports = PortPool("127.0.0.1", FIRST, FIRST + 2 * pairs - 1)
        self.seats = Seats(self.ports, self.engines)

    def take(self, project=PROJECT):
        return self.seats.take(project)


def test_no_more_calls_ring_than_there_are_ports():
    room = Room(slots=0, pairs=3)
    seats = [room.take() for _ in range(3)]
    refused = room.take()
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.retry_after) == (503, 2)
    assert "media port" in refused.reason
    seats[1].give_back()
    seats[1].give_back()
    assert not isinstance(room.take(), Refusal)
    assert isinstance(room.take(), Refusal)


async def test_a_promised_port_is_bound_on_accept_and_taken_from_nobody():
    room = Room(slots=0, pairs=2)
    first, second = room.take(), room.take()
    assert room.ports.free == 0
    with pytest.raises(NoFreePort, match="promised"):
        room.ports.open()
    for number in range(FIRST, FIRST + 4):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.bind(("127.0.0.1", number))
    one = first.open_port()
    two = second.open_port()
    assert room.ports.free == 0
    for seat in (first, second):
        seat.give_back()  # it was used
    assert room.ports.free == 0
    for port in (one, two):
        port.close()
    await asyncio.sleep(0)


def test_no_more_calls_ring_than_engines_can_speak_with():
    room = Room(slots=2, other=1)
    seats = [room.take() for _ in range(3)]
    refused = room.take()
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.retry_after) == (503, 2)
    assert "engine" in refused.reason
    assert room.ports.free == 2
    seats[0].give_back()
    assert not isinstance(room.take(), Refusal)


def test_what_was_promised_is_kept_from_others():
    room = Room(slots=1)
    seat = room.take()
    with pytest.raises(EngineUnavailable, match="calls that ring"):
        room.engines.create(room.one)  # a session without a call
    engine = seat.create_engine(room.one, None)
    assert engine is not None
    with pytest.raises(EngineUnavailable, match="all 1 slots"):
        room.one.create()
    seat.give_back()
    assert isinstance(room.seats.take(PROJECT), type(seat))  # the other engine's


def test_an_accept_for_another_engine_frees_the_first():
    room = Room(slots=1, other=2)
    seat = room.take()
    seat.create_engine(room.other, "second")
    assert room.engines.create(room.one) is not None
    # The project's next call is taken to want the same.
    room.take().create_engine(room.other, "second")


def test_an_accept_that_finds_no_engine_leaves_the_seat_as_it_was():
    room = Room(slots=1, other=1)
    seat = room.take()
    room.engines.create(room.other)
    with pytest.raises(EngineUnavailable):
        seat.create_engine(room.other, "second")
    assert seat.create_engine(room.one, None) is not None


def test_before_the_first_accept_the_fallback_says_which_engine():
    room = Room(slots=0, other=1)
    project = Project("proj_b", fallback=Fallback(accept={"type": "realtime", "model": "second"}))
    room.take(project)
    with pytest.raises(EngineUnavailable):
        room.engines.create(room.other)


# With real calls.


async def _ended(table, how):
    leg, call = table.invite()
    match how:
        case "cancelled":
            call.leg_cancelled(leg, None)
        case "rejected":
            await call.reject()
        case "hangup":
            await call.hangup()
        case "shutdown":
            call.shut_down()
        case "ring timeout":
            call._ringing._timed_out()
        case "undeliverable":
            call._ringing._undeliverable("no such host")
        case "accepted and cancelled":
            await call.accept({"type": "realtime"})
            call.leg_cancelled(leg, None)
        case "answered":
            await call.accept({"type": "realtime"})
            await call._establishing
            await call.hangup()
        case "engine too late":
            await call.accept({"type": "realtime"})
            call._fail(Termination(Result.SERVER_ERROR, EndReason.FAILED, None, "not ready"), "no engine")
    await call.wait_closed()


@pytest.mark.parametrize(
    "how",
    [
        "cancelled",
        "rejected",
        "hangup",
        "shutdown",
        "ring timeout",
        "undeliverable",
        "accepted and cancelled",
        "answered",
        "engine too late",
    ],
)
async def test_every_end_gives_the_seat_back(table, how):
    table.factory._slots = 1
    ports = table.manager._services.ports
    await _ended(table, how)
    await asyncio.sleep(0.02)
    assert ports.free == ports.total
    leg, call = table.invite()
    assert leg.asked == [("ring", 180)]
    await call.accept({"type": "realtime"})
    await call._establishing
    assert call.state == "answered"


async def test_a_call_that_rings_can_be_answered_and_the_next_is_sent_elsewhere(table):
    table.factory._slots = 2
    first, second, third = (table.invite() for _ in range(3))
    assert third[0].asked[0][:2] == ("refuse", 503)
    assert third[0].asked[0][2]["Retry-After"] == "2"
    assert len([event for event in table.announcer.events if event.type.endswith("incoming")]) == 2
    for _, call in (first, second):
        await call.accept({"type": "realtime"})
        await call._establishing
        assert call.state == "answered"


async def test_an_accept_with_a_wrong_body_keeps_the_seat(table):
    table.factory._slots = 1
    _, call = table.invite()
    with pytest.raises(CallError):
        await call.accept({"type": "transcription"})
    await call.accept({"type": "realtime"})
