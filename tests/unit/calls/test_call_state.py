"""API rows R06, R07, R14, R21: which verb fits which state."""

import pytest

from offhook.calls.errors import CallError
from offhook.calls.record import EndReason, Result, Termination
from offhook.calls.state import CallState, Lifecycle

ENDED = Termination(Result.SUCCESS, EndReason.REMOTE_HANGUP)


def lifecycle(state: CallState) -> Lifecycle:
    life = Lifecycle()
    if state is CallState.RINGING:
        return life
    life.accept()
    if state in (CallState.ANSWERED, CallState.ACTIVE):
        life.answered()
    if state is CallState.ACTIVE:
        life.confirmed()
    if state is CallState.ENDED:
        life.end(ENDED)
    assert life.state is state
    return life


@pytest.mark.parametrize("state", [CallState.ACCEPTED, CallState.ANSWERED, CallState.ACTIVE])
def test_a_second_accept_is_a_success_that_does_nothing(state):
    assert lifecycle(state).check_accept() is False


def test_the_first_accept_counts():
    assert lifecycle(CallState.RINGING).check_accept() is True


@pytest.mark.parametrize("verb", ["check_accept", "check_reject", "check_hangup"])
def test_a_call_that_is_over_is_not_found(verb):
    with pytest.raises(CallError) as caught:
        getattr(lifecycle(CallState.ENDED), verb)()
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "call_id_not_found", "")


@pytest.mark.parametrize("state", [CallState.ACCEPTED, CallState.ANSWERED, CallState.ACTIVE])
def test_reject_after_accept_is_a_conflict_that_is_not_to_be_retried(state):
    with pytest.raises(CallError) as caught:
        lifecycle(state).check_reject()
    assert (caught.value.status, caught.value.retry) == (409, False)


def test_what_needs_an_accepted_call_is_a_conflict_while_it_rings():
    with pytest.raises(CallError) as caught:
        lifecycle(CallState.RINGING).check_accepted("refer it")
    assert (caught.value.status, caught.value.code) == (409, "call_not_accepted")
    assert "before you refer it" in caught.value.message
    with pytest.raises(CallError) as caught:
        lifecycle(CallState.ENDED).check_accepted("send digits")
    assert (caught.value.status, caught.value.code) == (404, "call_id_not_found")


def test_the_first_end_counts():
    life = lifecycle(CallState.ACTIVE)
    assert life.end(ENDED) is True
    assert life.end(Termination(Result.SERVER_ERROR, EndReason.FAILED)) is False
    assert life.termination is ENDED


def test_a_late_ack_does_not_raise_the_dead():
    life = lifecycle(CallState.ENDED)
    life.confirmed()
    assert life.state is CallState.ENDED
