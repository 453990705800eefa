"""Decision 5 of the design and API rows R16 to R19: one REFER for one wish, and an outcome for each."""

import asyncio

import pytest

from offhook.calls.errors import CallError
from offhook.calls.transfer import Transfer
from offhook.sip.message import Response
from offhook.sip.refer import ReferAnswer, ReferPending, ReferTimeout, ReferUnsendable, ReferUpdate
from offhook.sip.route import Attempt

TARGET = "tel:+15550100"


class FakeLeg:
    """Answers each REFER by what is put into `answers`: a status, an exception, or a future of either."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []
        self.state = "confirmed"

    @property
    def refer_count(self):
        return len(self.sent)

    async def refer(self, refer_to, *, timeout):
        answer = self.answers.pop(0)
        if isinstance(answer, ReferPending):
            raise answer
        self.sent.append(refer_to)
        if isinstance(answer, asyncio.Future):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        response = Response(answer, "Forbidden", headers=[("X-Twilio-Error", "32201 no")], body=b"")
        return ReferAnswer(
            len(self.sent), answer, "Forbidden" if answer == 403 else "Accepted", False, response
        )


def make(*answers):
    updates = []
    leg = FakeLeg(*answers)
    return Transfer(leg, timeout_s=8, on_update=updates.append), leg, updates


async def failure(transfer, target=TARGET):
    with pytest.raises(CallError) as caught:
        await transfer.refer(target)
    assert caught.value.retry is False
    return caught.value


async def test_success_is_told_by_the_peers_2xx_and_then_by_notify():
    transfer, leg, updates = make(202)
    await transfer.refer(TARGET)
    assert leg.sent == [f"<{TARGET}>"]
    assert [one["status"] for one in transfer.to_api()] == ["accepted"]
    transfer.updated(ReferUpdate(1, "progress", 180, "Ringing"))
    transfer.updated(ReferUpdate(1, "completed", 200, "OK"))
    assert transfer.completed
    assert [(one["status"], one["sip_status"]) for one in updates] == [("progress", 180), ("completed", 200)]


async def test_a_repeat_while_the_first_is_unanswered_shares_its_answer():
    answer = asyncio.get_running_loop().create_future()
    transfer, leg, _ = make(answer)
    first = asyncio.create_task(transfer.refer(TARGET))
    await asyncio.sleep(0)
    second = asyncio.create_task(transfer.refer(TARGET))
    await asyncio.sleep(0)
    answer.set_result(202)
    await asyncio.gather(first, second)
    assert len(leg.sent) == 1


async def test_a_repeat_after_the_2xx_gets_the_same_answer():
    transfer, leg, _ = make(202)
    await transfer.refer(TARGET)
    await transfer.refer(TARGET)
    assert len(leg.sent) == 1


async def test_another_target_meanwhile_is_a_conflict():
    transfer, leg, _ = make(202)
    await transfer.refer(TARGET)
    error = await failure(transfer, "tel:+15550199")
    assert (error.status, error.code) == (409, "refer_pending")
    assert len(leg.sent) == 1


async def test_a_refusal_says_what_the_peer_said_and_allows_another_try():
    transfer, leg, updates = make(403, 202)
    error = await failure(transfer)
    assert (error.status, error.code) == (502, "refer_rejected")
    assert error.details["sip_status"] == 403
    assert error.details["headers"] == {"X-Twilio-Error": "32201 no"}
    assert updates[-1]["status"] == "failed"
    await transfer.refer(TARGET)
    assert len(leg.sent) == 2


async def test_a_failed_target_allows_another_try():
    transfer, leg, _ = make(202, 202)
    await transfer.refer(TARGET)
    transfer.updated(ReferUpdate(1, "failed", 486, "Busy Here"))
    assert not transfer.completed
    await transfer.refer("tel:+15550199")
    assert len(leg.sent) == 2


async def test_silence_is_a_504_and_is_never_followed_by_a_second_refer():
    transfer, leg, _ = make(ReferTimeout("no answer to REFER within 8 s"))
    for _ in range(2):
        error = await failure(transfer)
        assert (error.status, error.code) == (504, "refer_timeout")
    assert (await failure(transfer, "tel:+15550199")).status == 409
    assert len(leg.sent) == 1


async def test_a_2xx_after_our_504_still_counts():
    transfer, _, _ = make(ReferTimeout("no answer"))
    await failure(transfer)
    transfer.updated(ReferUpdate(1, "completed", 200, "OK"))
    assert transfer.completed


async def test_an_unreachable_peer_is_a_502_that_names_the_hop():
    attempt = Attempt("192.0.2.1:5060 from Record-Route", "tcp", "connect timed out", 110)
    transfer, _, _ = make(ReferUnsendable("no way to the peer", (attempt,)))
    error = await failure(transfer)
    assert (error.status, error.code) == (502, "refer_unreachable")
    assert error.details["hop"] == "192.0.2.1:5060 from Record-Route"
    assert error.details["attempts"] == ["tcp 192.0.2.1:5060 from Record-Route: connect timed out"]


async def test_a_notify_before_the_2xx_is_kept():
    answer = asyncio.get_running_loop().create_future()
    transfer, _, _ = make(answer)
    task = asyncio.create_task(transfer.refer(TARGET))
    await asyncio.sleep(0)
    transfer.updated(ReferUpdate(1, "progress", 100, "Trying"))
    answer.set_result(202)
    await task
    assert transfer.to_api()[0]["status"] == "progress"


async def test_a_request_that_is_broken_off_leaves_its_repeat_with_an_answer():
    """As when the node shuts down while the peer is silent."""
    transfer, _, _ = make(asyncio.get_running_loop().create_future())
    first = asyncio.create_task(transfer.refer(TARGET))
    repeat = asyncio.create_task(transfer.refer(TARGET))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(CallError) as raised:
        await repeat
    assert raised.value.status == 503
    assert first.cancelled()
    assert not transfer.has_taken(TARGET)


@pytest.mark.parametrize(
    ("state", "words"), [("confirmed", "The call goes on."), ("ended", "The call is over.")]
)
async def test_an_error_says_what_became_of_the_call(state, words):
    transfer, leg, _ = make(403)
    leg.state = state
    assert (await failure(transfer)).message.endswith(words)


async def test_a_refer_that_was_never_begun_does_not_count():
    transfer, leg, _ = make(ReferPending("busy"), 202)
    assert (await failure(transfer)).status == 409
    await transfer.refer(TARGET)
    transfer.updated(ReferUpdate(1, "completed", 200, "OK"))
    assert transfer.completed
    assert len(leg.sent) == 1


def test_an_update_of_nothing_we_sent_is_ignored():
    transfer, _, updates = make()
    transfer.updated(ReferUpdate(3, "completed", 200, "OK"))
    assert not transfer.completed
    assert updates == []
