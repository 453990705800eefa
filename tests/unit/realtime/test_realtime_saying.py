"""From the first event of a response to the last of its sound, the agent is saying something."""

import pytest

from offhook.realtime.saying import Saying


def created(name="r1"):
    return {"type": "response.created", "response": {"id": name, "status": "in_progress"}}


def done(name="r1", status="completed"):
    return {"type": "response.done", "response": {"id": name, "status": status}}


def sound(what, name="r1"):
    return {"type": f"output_audio_buffer.{what}", "response_id": name}


@pytest.fixture
def saying():
    return Saying()


def feed(saying, *events):
    busy = []
    for event in events:
        saying.receive(event)
        busy.append(saying.busy)
    return busy


def test_a_response_is_being_said_until_its_sound_is_over(saying):
    assert not saying.busy
    events = (created(), sound("started"), done(), sound("stopped"))
    assert feed(saying, *events) == [True, True, True, False]
    assert saying.cuts == 0


def test_one_without_sound_until_it_is_done(saying):
    assert feed(saying, created(), done()) == [True, False]


def test_two_at_once(saying):
    assert feed(saying, created(), created("r2"), done("r2"), done()) == [True, True, True, False]


@pytest.mark.parametrize(
    "cut", [(sound("cleared"),), (done(status="cancelled"),)], ids=["while it sounds", "before it sounds"]
)
def test_what_cuts_it_short_is_counted(saying, cut):
    feed(saying, created(), *cut)
    assert saying.cuts == 1


def test_an_upstreams_odd_events_harm_nothing(saying):
    odd = [{"type": "response.created"}, {"type": "response.done", "response": 7}, {"type": 5}, {}]
    assert feed(saying, *odd)[-1] is False
