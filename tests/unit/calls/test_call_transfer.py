"""Decision 5 of the design and API rows R16 to R19: one REFER for one wish, and an outcome for each."""

import asyncio
import gc
import weakref

import pytest

from offhook.calls.errors import CallError
from offhook.calls.transfer import REPEATED_S, Transfer
from offhook.sip.headers import Headers
from offhook.sip.message import Request, Response
from offhook.sip.refer import ReferAnswer, ReferPending, ReferTimeout, ReferUnsendable, ReferUpdate
from offhook.sip.route import Attempt

TARGET = "tel:+15550100"


class FakeLeg:
    """Answers each REFER by what is put into `answers`: a status, an exception, or a future of either."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []
        self.kept = []
        self.referred_by = []
        self.state = "confirmed"
        self.invite = Request(
            "INVITE",
            "sip:proj_a@192.0.2.9",
            headers=Headers([("To", "The office <sip:+1555@trunk.example;transport=tls>")]),
            body=b"",
        )

    @property
    def refer_count(self):
        return len(self.sent)

    async def refer(self, refer_to, *, referred_by, timeout):
        self.referred_by.append(referred_by)
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


class FakeClock:
    def __init__(self):
        self.now = 1_760_000_000.0

    def wall(self):
        return self.now

    monotonic = wall


def make(*answers, timeout_s=8.0, playout_wait_s=30.0):
    updates = []
    leg = FakeLeg(*answers)
    transfer = Transfer(
        leg,
        call_id="rtc_u0_1",
        clock=FakeClock(),
        timeout_s=timeout_s,
        playout_wait_s=playout_wait_s,
        on_update=updates.append,
        keep=leg.kept.append,
    )
    return transfer, leg, updates


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
    assert [(one["status"], one["sip_status"]) for one in updates] == [
        ("accepted", 202),
        ("progress", 180),
        ("completed", 200),
    ]
    assert [one["status"] for one in leg.kept] == ["pending", "accepted", "progress", "completed"]
    assert leg.kept[-1] == transfer.to_api()[0]


async def test_the_2xx_is_told_once_though_two_hear_of_it():
    """Whoever waits for the answer, and the leg's own word, which may come a turn of the loop later."""
    transfer, _, updates = make(202)
    await transfer.refer(TARGET)
    transfer.updated(ReferUpdate(1, "accepted", 202, "Accepted"))
    transfer.updated(ReferUpdate(1, "progress", 100, "Trying"))
    assert [one["status"] for one in updates] == ["accepted", "progress"]


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
    await asyncio.sleep(0.01)
    transfer.updated(ReferUpdate(1, "progress", 100, "Trying"))
    answer.set_result(202)
    await task
    assert transfer.to_api()[0]["status"] == "progress"


async def test_an_app_that_breaks_off_its_request_does_not_break_off_the_transfer():
    answer = asyncio.get_running_loop().create_future()
    transfer, leg, _ = make(answer)
    first = asyncio.create_task(transfer.refer(TARGET))
    repeat = asyncio.create_task(transfer.refer(TARGET))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not repeat.done()
    answer.set_result(202)
    assert await repeat is True
    assert first.cancelled()
    assert len(leg.sent) == 1


async def test_a_repeat_after_a_refusal_gets_the_same_refusal_for_a_minute():
    transfer, leg, _ = make(403)
    await failure(transfer)
    assert transfer.knows(TARGET)
    assert not transfer.knows("tel:+15550199")
    with pytest.raises(CallError) as caught:
        await transfer.repeat()
    assert (caught.value.code, len(leg.sent)) == ("refer_rejected", 1)
    transfer._clock.now += REPEATED_S
    assert not transfer.knows(TARGET)


async def test_the_resource_has_each_step_with_its_time():
    transfer, _, _ = make(202)
    await transfer.refer(TARGET, request_id="req_1")
    transfer._clock.now += 1.5
    transfer.updated(ReferUpdate(1, "progress", 180, "Ringing"))
    transfer.updated(ReferUpdate(1, "failed", 486, "Busy Here"))
    assert transfer.to_api() == [
        {
            "object": "realtime.call.refer",
            "refer": 1,
            "target_uri": TARGET,
            "status": "failed",
            "sip_status": 486,
            "reason": "Busy Here",
            "request_id": "req_1",
            "call_id": "rtc_u0_1",
            "created_at": 1_760_000_000,
            "updates": [
                {"at": "2025-10-09T08:53:20.000Z", "status": "pending", "sip_status": None, "reason": ""},
                {
                    "at": "2025-10-09T08:53:20.000Z",
                    "status": "accepted",
                    "sip_status": 202,
                    "reason": "Accepted",
                },
                {
                    "at": "2025-10-09T08:53:21.500Z",
                    "status": "progress",
                    "sip_status": 180,
                    "reason": "Ringing",
                },
                {
                    "at": "2025-10-09T08:53:21.500Z",
                    "status": "failed",
                    "sip_status": 486,
                    "reason": "Busy Here",
                },
            ],
            "dropped": 0,
        }
    ]


async def test_a_flood_of_notifys_is_counted_and_its_verdict_kept():
    transfer, _, updates = make(202)
    await transfer.refer(TARGET)
    for _ in range(1_000):
        transfer.updated(ReferUpdate(1, "progress", 100, "Trying"))
    transfer.updated(ReferUpdate(1, "completed", 200, "OK"))
    shown = transfer.to_api()[0]
    assert (shown["status"], len(shown["updates"]), shown["dropped"]) == ("completed", 101, 902)
    assert len(updates) == 100


async def test_who_refers_is_whom_the_caller_called():
    transfer, leg, _ = make(202)
    await transfer.refer(TARGET)
    assert leg.referred_by == ["<sip:+1555@trunk.example>"]


# `wait_for_playout`.


async def waiting(*answers, **options):
    """Ask for a transfer that waits; return it with the future that says when the agent has been heard."""
    transfer, leg, updates = make(*answers, **options)
    said = asyncio.get_running_loop().create_future()
    asked = asyncio.create_task(transfer.refer(TARGET, said=lambda: said))
    await asyncio.sleep(0.01)
    return transfer, leg, updates, said, asked


async def test_the_refer_waits_until_the_agent_has_been_heard():
    _, leg, _, said, asked = await waiting(202)
    assert leg.sent == []
    said.set_result(True)
    assert await asked is True
    assert leg.sent == [f"<{TARGET}>"]


async def test_an_interrupted_agent_stays_with_the_caller():
    transfer, leg, updates, said, asked = await waiting(202, 202)
    said.set_result(False)
    with pytest.raises(CallError) as caught:
        await asked
    assert (caught.value.status, caught.value.code) == (409, "refer_interrupted")
    assert (leg.sent, updates[-1]["status"]) == ([], "cancelled")
    await transfer.refer(TARGET)
    transfer.updated(ReferUpdate(1, "completed", 200, "OK"))
    assert [one["status"] for one in transfer.to_api()] == ["cancelled", "completed"]


async def test_a_call_that_ends_meanwhile_is_gone():
    transfer, leg, updates, _, asked = await waiting()
    leg.state = "ended"
    transfer.call_ended()
    with pytest.raises(CallError) as caught:
        await asked
    assert (caught.value.status, caught.value.code) == (404, "call_id_not_found")
    assert (leg.sent, updates[-1]["status"]) == ([], "cancelled")


async def test_a_second_wish_meanwhile_is_a_conflict_and_the_same_one_is_the_same():
    transfer, leg, _, said, asked = await waiting(202)
    assert (await failure(transfer, "tel:+15550199")).code == "refer_pending"
    again = asyncio.create_task(transfer.refer(TARGET))
    await asyncio.sleep(0)
    said.set_result(True)
    assert await asked is await again is True
    assert len(leg.sent) == 1


async def test_an_answer_that_would_be_late_says_that_it_goes_on():
    transfer, leg, updates, said, asked = await waiting(202, timeout_s=0.05)
    assert await asked is False
    assert transfer.to_api()[0]["status"] == "pending"
    said.set_result(True)
    await asyncio.sleep(0.02)
    assert len(leg.sent) == 1
    assert [one["status"] for one in updates] == ["accepted"]


async def test_an_agent_that_talks_without_end_is_not_waited_for():
    _, leg, updates, said, asked = await waiting(202, playout_wait_s=0.05)
    assert await asked is True
    assert said.cancelled()
    assert len(leg.sent) == 1
    assert "still talking after 0.05 s" in updates[0]["reason"]


async def test_a_bye_that_still_waits_for_the_ack_is_no_interruption():
    transfer, leg, updates, said, asked = await waiting(202)
    leg.state = "answered"
    transfer.call_ended()
    with pytest.raises(CallError) as caught:
        await asked
    assert (caught.value.status, caught.value.code) == (404, "call_id_not_found")
    assert said.cancelled()
    assert updates[-1]["status"] == "cancelled"
    assert "the call ended" in updates[-1]["reason"]
    assert leg.sent == []


async def test_a_refusal_that_is_kept_keeps_nothing_else_alive():
    class Sound:
        """What a session holds."""

    async def ask(transfer):
        sound = Sound()
        with pytest.raises(CallError):
            await transfer.refer(TARGET, said=lambda: sound and heard)
        return weakref.ref(sound)

    transfer = make(403, 403)[0]
    heard = asyncio.get_running_loop().create_future()
    heard.set_result(True)
    sound = await ask(transfer)
    await asyncio.sleep(0)
    gc.collect()
    assert sound() is None
    assert transfer.to_api()[0]["status"] == "failed"


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
