"""Every row of the REFER outcome contract: what a peer does, and what it means."""

import pytest

from offhook.sip.headers import Headers
from offhook.sip.message import Request, Response
from offhook.sip.refer import Refer, parse_sipfrag


@pytest.fixture
def refer():
    return Refer(1, 2, notify_timeout=60.0)


def response(status, reason="", headers=()):
    return Response(status, reason, headers=Headers(headers))


def notify(sipfrag, state="active;expires=60"):
    return Request(
        "NOTIFY", "sip:us@192.0.2.2", headers=Headers([("Subscription-State", state)]), body=sipfrag
    )


def kinds(refer):
    return [(update.kind, update.sip_status) for update in refer.outputs()]


def taken(refer, now=0.0):
    """Let the peer take the REFER."""
    refer.receive_response(response(202, "Accepted"), now=now)
    assert kinds(refer) == [("accepted", 202)]


@pytest.mark.parametrize("status", [302, 403, 481, 503, 603])
def test_refused(refer, status):
    refer.receive_response(response(status, "No"), now=0.0)
    (update,) = refer.outputs()
    assert (update.kind, update.sip_status, update.reason) == ("failed", status, "No")
    assert not refer.is_pending


def test_trying(refer):
    refer.receive_response(response(202), now=0.0)
    refer.receive_notify(notify(b"SIP/2.0 100 Trying"), now=0.1)
    refer.receive_notify(notify(b"SIP/2.0 180 Ringing\r\n"), now=0.2)
    assert kinds(refer) == [("accepted", 202), ("progress", 100), ("progress", 180)]
    assert refer.is_pending


@pytest.mark.parametrize("state", ["terminated;reason=noresource", "active;expires=30"])
def test_target_answered(refer, state):
    taken(refer)
    refer.receive_notify(notify(b"SIP/2.0 200 OK\r\n", state), now=0.1)
    assert kinds(refer) == [("completed", 200)]
    assert not refer.is_pending
    assert refer.next_timer() is None


def test_completed_is_said_once(refer):
    taken(refer)
    refer.receive_notify(notify(b"SIP/2.0 200 OK"), now=0.1)
    refer.receive_notify(notify(b"SIP/2.0 200 OK", "terminated"), now=0.2)
    refer.receive_notify(notify(b"", "terminated"), now=0.3)
    refer.receive_bye()
    assert kinds(refer) == [("completed", 200)]


@pytest.mark.parametrize("status", [302, 404, 486, 503, 603])
def test_target_failed(refer, status):
    taken(refer)
    refer.receive_notify(notify(b"SIP/2.0 %d Sorry\r\nReason: x\r\n" % status, "terminated"), now=0.1)
    (update,) = refer.outputs()
    assert (update.kind, update.sip_status, update.reason) == ("failed", status, "Sorry")
    assert update.sipfrag.startswith(b"SIP/2.0")


def test_bye_after_202_is_a_blind_transfer(refer):
    taken(refer)
    refer.receive_bye()
    assert kinds(refer) == [("completed_unconfirmed", None)]


def test_bye_that_overtakes_the_202(refer):
    refer.receive_bye()
    assert kinds(refer) == []
    refer.receive_response(response(202), now=0.1)
    assert kinds(refer) == [("accepted", 202), ("completed_unconfirmed", None)]


def test_bye_after_a_refusal_is_no_transfer(refer):
    refer.receive_response(response(403), now=0.0)
    refer.receive_bye()
    assert kinds(refer) == [("failed", 403)]


def test_final_notify_after_the_bye_confirms(refer):
    taken(refer)
    refer.receive_bye()
    refer.receive_notify(notify(b"SIP/2.0 200 OK", "terminated"), now=0.1)
    assert kinds(refer) == [("completed_unconfirmed", None), ("completed", 200)]


def test_notify_before_the_202(refer):
    refer.receive_notify(notify(b"SIP/2.0 100 Trying"), now=0.0)
    refer.receive_notify(notify(b"SIP/2.0 200 OK"), now=0.1)
    refer.receive_response(response(202), now=0.2)
    assert kinds(refer) == [("progress", 100), ("completed", 200)]
    assert refer.next_timer() is None


def test_refer_sub_false_means_no_notify(refer):
    refer.receive_response(response(200, "OK", [("Refer-Sub", "false")]), now=0.0)
    assert kinds(refer) == [("completed_unconfirmed", 200)]
    assert not refer.is_pending


def test_2xx_after_we_stopped_waiting_still_counts(refer):
    refer.give_up_waiting()
    assert refer.is_pending
    refer.receive_response(response(202, "Accepted"), now=9.0)
    (update,) = refer.outputs()
    assert (update.kind, update.sip_status) == ("accepted", 202)
    assert update.reason == "Accepted (after we had stopped waiting)"
    assert refer.is_pending
    refer.receive_notify(notify(b"SIP/2.0 200 OK"), now=10.0)
    assert kinds(refer) == [("completed", 200)]


@pytest.mark.parametrize("body", [b"SIP/2.0 100 Trying", b"", b"nonsense"])
def test_subscription_that_ends_without_a_verdict(refer, body):
    taken(refer)
    refer.receive_notify(notify(body, "terminated;reason=timeout"), now=0.1)
    assert [kind for kind, _ in kinds(refer)] == ["unknown"]
    assert not refer.is_pending


def test_silence_after_202(refer):
    taken(refer, now=1.0)
    assert refer.next_timer() == 61.0
    refer.receive_notify(notify(b"SIP/2.0 180 Ringing"), now=20.0)
    assert refer.next_timer() == 80.0
    refer.handle_timer(now=79.9)
    assert kinds(refer) == [("progress", 180)]
    refer.handle_timer(now=80.0)
    assert kinds(refer) == [("timeout", None)]
    assert not refer.is_pending


def test_late_verdict_corrects_the_timeout(refer):
    taken(refer)
    refer.handle_timer(now=60.0)
    refer.receive_notify(notify(b"SIP/2.0 486 Busy", "terminated"), now=70.0)
    assert kinds(refer) == [("timeout", None), ("failed", 486)]


def test_no_answer_at_all(refer):
    refer.give_up_waiting()
    assert refer.is_pending
    refer.transaction_failed("no answer", was_sent=True)
    assert kinds(refer) == [("timeout", None)]
    assert not refer.is_pending


def test_it_could_not_be_sent(refer):
    refer.transaction_failed("unreachable; tcp 192.0.2.1:5060: connect timed out", was_sent=False)
    (update,) = refer.outputs()
    assert (update.kind, update.sip_status) == ("failed", None)
    assert "192.0.2.1:5060" in update.reason


def test_the_peer_hangs_up_and_never_answers(refer):
    refer.receive_bye()
    refer.transaction_failed("no answer", was_sent=True)
    assert kinds(refer) == [("unknown", None)]


def test_a_notify_is_an_answer_even_if_the_2xx_is_lost(refer):
    refer.receive_notify(notify(b"SIP/2.0 100 Trying"), now=0.0)
    refer.transaction_failed("no answer", was_sent=True)
    refer.receive_notify(notify(b"SIP/2.0 200 OK", "terminated"), now=1.0)
    assert kinds(refer) == [("progress", 100), ("completed", 200)]


def test_we_hang_up_before_the_2xx(refer):
    refer.hung_up()
    assert kinds(refer) == []
    refer.receive_response(response(202), now=0.1)
    assert kinds(refer) == [("accepted", 202), ("unknown", None)]


def test_a_refusal_brings_what_explains_it(refer):
    headers = [("X-Twilio-Error", "32201 no"), ("Warning", "399 x"), ("User-Agent", "y")]
    refer.receive_response(response(403, "Forbidden", headers), now=0.0)
    (update,) = refer.outputs()
    assert update.headers == (("X-Twilio-Error", "32201 no"), ("Warning", "399 x"))


def test_our_own_hangup_leaves_it_unknown(refer):
    taken(refer)
    refer.hung_up()
    assert [kind for kind, _ in kinds(refer)] == ["unknown"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"SIP/2.0 200 OK\r\n", (200, "OK")),
        (b"SIP/2.0 200 OK", (200, "OK")),
        (b"\r\nSIP/2.0 486 Busy Here\r\nTo: x\r\n\r\n", (486, "Busy Here")),
        (b"SIP/2.0 503", (503, "")),
        (b"sip/2.0  183 Session Progress\n", (183, "Session Progress")),
        (b"", None),
        (b"HTTP/1.1 200 OK", None),
        (b"SIP/2.0 2000 OK", None),
        (b"SIP/2.0 099 x", None),
        (b"SIP/2.0 \xb2\xb2\xb2 x", None),
    ],
)
def test_sipfrag(body, expected):
    assert parse_sipfrag(body) == expected
