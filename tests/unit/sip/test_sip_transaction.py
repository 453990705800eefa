"""RFC 3261 section 17 and RFC 6026, state by state and timer by timer."""

import pytest

from offhook.sip.headers import Headers
from offhook.sip.message import Request, create_response
from offhook.sip.transaction import (
    AckReceived,
    ClientTransaction,
    InviteClientTransaction,
    InviteServerTransaction,
    LocalProtocolError,
    ResponseReceived,
    Send,
    ServerTransaction,
    State,
    Terminated,
    TimerValues,
)

TIMERS = TimerValues()


def create_request(method):
    return Request(
        method,
        "sip:bob@192.0.2.2",
        headers=Headers(
            [
                ("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1"),
                ("Route", "<sip:192.0.2.9;lr>"),
                ("From", "<sip:alice@example.com>;tag=a"),
                ("To", "<sip:bob@example.com>"),
                ("Call-ID", "c1"),
                ("CSeq", f"7 {method}"),
                ("Max-Forwards", "70"),
            ]
        ),
    )


INVITE = create_request("INVITE")
BYE = create_request("BYE")
ACK = create_request("ACK")


def response(status, request=INVITE):
    return create_response(request, status, to_tag="b")


def run_until_quiet(tx, now=0.0, until=1000.0):
    """Jump from deadline to deadline, and return (time, output) pairs."""
    seen = [(now, out) for out in tx.outputs()]
    while (now := tx.next_timer()) is not None and now <= until:
        tx.handle_timer(now=now)
        seen += [(now, out) for out in tx.outputs()]
    return seen


def times_sent(seen, message):
    return [at for at, out in seen if isinstance(out, Send) and out.message is message]


class TestInviteServer:
    def create(self, *, reliable=False):
        return InviteServerTransaction(reliable=reliable, timers=TIMERS)

    def test_final_response_is_repeated_until_timer_h(self):
        tx, busy = self.create(), response(486)
        tx.send_response(busy, now=0.0)
        seen = run_until_quiet(tx)
        assert times_sent(seen, busy) == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        assert seen[-1] == (32.0, Terminated(timed_out=True))

    def test_final_response_is_sent_once_on_a_stream(self):
        tx, busy = self.create(reliable=True), response(486)
        tx.send_response(busy, now=0.0)
        assert run_until_quiet(tx) == [(0.0, Send(busy)), (32.0, Terminated(timed_out=True))]

    def test_ack_ends_the_repetition_and_timer_i_the_transaction(self):
        tx = self.create()
        tx.send_response(response(486), now=0.0)
        tx.outputs()
        tx.receive_request(ACK, now=0.2)
        assert tx.state is State.CONFIRMED
        assert run_until_quiet(tx, 0.2) == [(0.2, AckReceived()), (5.2, Terminated())]

    def test_ack_ends_the_transaction_at_once_on_a_stream(self):
        tx = self.create(reliable=True)
        tx.send_response(response(486), now=0.0)
        tx.outputs()
        tx.receive_request(ACK, now=0.2)
        assert tx.outputs() == [AckReceived(), Terminated()]

    def test_repeated_invite_gets_the_last_response(self):
        tx = self.create()
        for status in (100, 180):
            tx.send_response(response(status), now=0.0)
        tx.outputs()
        tx.receive_request(INVITE, now=0.5)
        (again,) = tx.outputs()
        assert again.message.status == 180

    def test_accepted_absorbs_repeated_invites_and_lets_2xx_through_until_timer_l(self):
        tx, ok = self.create(), response(200)
        tx.send_response(ok, now=0.0)
        tx.receive_request(INVITE, now=1.0)
        tx.send_response(ok, now=1.5)
        seen = run_until_quiet(tx)
        assert [out for _, out in seen] == [Send(ok), Send(ok), Terminated()]
        assert seen[-1][0] == 32.0

    def test_ack_in_accepted_is_passed_on(self):
        tx = self.create()
        tx.send_response(response(200), now=0.0)
        tx.outputs()
        tx.receive_request(ACK, now=0.1)
        assert tx.outputs() == [AckReceived()]
        assert tx.state is State.ACCEPTED

    @pytest.mark.parametrize(("first", "second"), [(200, 486), (486, 200), (486, 180), (200, 180)])
    def test_second_verdict_is_our_error(self, first, second):
        tx = self.create()
        tx.send_response(response(first), now=0.0)
        with pytest.raises(LocalProtocolError, match=f"cannot send {second}"):
            tx.send_response(response(second), now=0.1)


class TestServer:
    def test_absorbs_until_answered_then_repeats_the_answer_until_timer_j(self):
        tx = ServerTransaction(reliable=False, timers=TIMERS)
        tx.receive_request(BYE, now=0.1)
        assert tx.outputs() == []
        ok = response(200, BYE)
        tx.send_response(ok, now=0.2)
        tx.receive_request(BYE, now=0.5)
        assert tx.outputs() == [Send(ok), Send(ok)]
        assert run_until_quiet(tx) == [(32.2, Terminated())]

    def test_a_stream_needs_no_timer_j(self):
        tx = ServerTransaction(reliable=True, timers=TIMERS)
        tx.send_response(response(200, BYE), now=0.2)
        assert tx.outputs()[-1] == Terminated()
        assert tx.next_timer() is None

    def test_provisional_is_repeated_too(self):
        tx = ServerTransaction(reliable=False, timers=TIMERS)
        trying = response(100, BYE)
        tx.send_response(trying, now=0.0)
        tx.receive_request(BYE, now=0.5)
        assert tx.outputs() == [Send(trying), Send(trying)]
        assert tx.state is State.PROCEEDING

    def test_second_final_response_is_our_error(self):
        tx = ServerTransaction(reliable=False, timers=TIMERS)
        tx.send_response(response(200, BYE), now=0.0)
        with pytest.raises(LocalProtocolError, match="cannot send 500 in completed"):
            tx.send_response(response(500, BYE), now=0.1)


class TestInviteClient:
    def create(self, *, reliable=False):
        return InviteClientTransaction(INVITE, reliable=reliable, timers=TIMERS, now=0.0)

    def test_timer_a_doubles_without_ceiling_and_timer_b_ends(self):
        seen = run_until_quiet(self.create())
        assert times_sent(seen, INVITE) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
        assert seen[-1] == (32.0, Terminated(timed_out=True))

    def test_one_copy_on_a_stream(self):
        seen = run_until_quiet(self.create(reliable=True))
        assert seen == [(0.0, Send(INVITE)), (32.0, Terminated(timed_out=True))]

    def test_provisional_ends_all_timers(self):
        tx = self.create()
        tx.outputs()
        ringing = response(180)
        tx.receive_response(ringing, now=0.3)
        assert tx.outputs() == [ResponseReceived(ringing)]
        assert tx.next_timer() is None

    def test_refusal_is_acknowledged_on_the_invites_hop_and_again_for_each_repeat(self):
        tx = self.create()
        tx.outputs()
        busy = response(486)
        tx.receive_response(busy, now=0.3)
        told, sent = tx.outputs()
        assert told == ResponseReceived(busy)
        ack = sent.message
        # RFC 3261 section 17.1.1.3.
        assert (ack.method, ack.uri) == ("ACK", INVITE.uri)
        assert ack.headers.get_all("Via") == INVITE.headers.get_all("Via")
        assert ack.headers.get_all("Route") == INVITE.headers.get_all("Route")
        assert ack.headers.get("To") == "<sip:bob@example.com>;tag=b"
        assert ack.headers.get("CSeq") == "7 ACK"
        tx.receive_response(busy, now=0.8)
        assert tx.outputs() == [Send(ack)]
        assert run_until_quiet(tx) == [(32.3, Terminated())]

    def test_every_2xx_is_passed_on_until_timer_m(self):
        tx = self.create()
        tx.outputs()
        first, fork = response(200), create_response(INVITE, 200, to_tag="other")
        for at, answer in ((0.3, first), (0.8, first), (0.9, fork)):
            tx.receive_response(answer, now=at)
        assert tx.outputs() == [ResponseReceived(first), ResponseReceived(first), ResponseReceived(fork)]
        assert run_until_quiet(tx) == [(32.3, Terminated())]

    def test_cancelled_invite_does_not_wait_for_ever(self):
        tx = self.create()
        tx.receive_response(response(180), now=1.0)
        tx.outputs()
        tx.give_up(now=2.0)
        assert run_until_quiet(tx) == [(34.0, Terminated(timed_out=True))]


class TestClient:
    def test_timer_e_doubles_up_to_t2_and_timer_f_ends(self):
        tx = ClientTransaction(BYE, reliable=False, timers=TIMERS, now=0.0)
        seen = run_until_quiet(tx)
        assert times_sent(seen, BYE) == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        assert seen[-1] == (32.0, Terminated(timed_out=True))

    def test_provisional_slows_to_t2(self):
        tx = ClientTransaction(BYE, reliable=False, timers=TIMERS, now=0.0)
        tx.outputs()
        tx.receive_response(response(100, BYE), now=0.1)
        tx.outputs()
        assert times_sent(run_until_quiet(tx, until=9.0), BYE) == [0.5, 4.5, 8.5]

    def test_final_response_is_told_once_and_timer_k_ends(self):
        tx = ClientTransaction(BYE, reliable=False, timers=TIMERS, now=0.0)
        tx.outputs()
        ok = response(200, BYE)
        tx.receive_response(ok, now=0.1)
        tx.receive_response(ok, now=0.2)
        assert tx.outputs() == [ResponseReceived(ok)]
        assert run_until_quiet(tx) == [(5.1, Terminated())]

    def test_a_stream_needs_no_timer_k(self):
        tx = ClientTransaction(BYE, reliable=True, timers=TIMERS, now=0.0)
        tx.receive_response(response(200, BYE), now=0.1)
        assert tx.outputs()[-1] == Terminated()
