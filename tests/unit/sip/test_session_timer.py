"""RFC 4028 as a machine: who refreshes what when, and what a session that is not refreshed comes to."""

import pytest

from offhook.sip.headers import Headers
from offhook.sip.message import Request, Response
from offhook.sip.session_timer import (
    Expire,
    Note,
    Refresh,
    SessionExpires,
    SessionTimer,
    SessionTimerConfig,
    is_too_small,
)

CONFIG = SessionTimerConfig()
TIMER = ("Supported", "timer")
WITH_UPDATE = ("Allow", "INVITE, ACK, UPDATE")


def request(*headers, method="INVITE"):
    return Request(method, "sip:a@b", headers=Headers(headers))


def response(status, *headers, method="INVITE"):
    return Response(status, "", headers=Headers([("CSeq", f"2 {method}"), *headers]))


def asking(value, *headers):
    return request(TIMER, ("Session-Expires", value), *headers)


def uas(*headers, config=CONFIG):
    """Return the timer of a call that came in with these headers, and what the 200 said."""
    timer = SessionTimer(config, owns_call_id=False)
    return timer, dict(timer.answer(request(*headers), now=0.0))


def uac(*headers, config=CONFIG):
    timer = SessionTimer(config, owns_call_id=True)
    timer.receive_2xx(response(200, *headers), now=0.0)
    return timer


def run(timer, until):
    """Return `(time, output)` of what the machine wants, notes left out."""
    seen = []
    timer.outputs()
    while (due := timer.next_timer()) is not None and due <= until:
        timer.handle_timer(now=due)
        seen += [(round(due, 2), o) for o in timer.outputs() if not isinstance(o, Note)]
    return seen


def notes(timer):
    return [f"{o.state}: {o.text}" for o in timer.outputs() if isinstance(o, Note)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1800", (1800, None)),
        ("3600;refresher=uac", (3600, "uac")),
        ("600 ; Refresher = UAS ; x=y", (600, "uas")),
        ("90;refresher=both", (90, None)),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("99999999999999999999999", None),
        ("90;;", None),
    ],
)
def test_session_expires_is_read_or_as_good_as_absent(text, wanted):
    found = SessionExpires.of(Headers([("x", text)]))
    assert (found and (found.interval, found.refresher)) == wanted


class TestTheCalledSide:
    """Section 9."""

    @pytest.mark.parametrize(
        ("headers", "answer", "we_refresh"),
        [
            # Table 2, row by row. Without support only a proxy can have asked.
            ([("Session-Expires", "1800")], {"Session-Expires": "1800;refresher=uas"}, True),
            (
                [TIMER, ("Session-Expires", "600")],
                {"Require": "timer", "Session-Expires": "600;refresher=uac"},
                False,
            ),
            (
                [TIMER, ("Session-Expires", "3600;refresher=uac"), ("Min-SE", "900")],
                {"Require": "timer", "Session-Expires": "3600;refresher=uac"},
                False,
            ),
            (
                [TIMER, ("Session-Expires", "90;refresher=uas")],
                {"Require": "timer", "Session-Expires": "90;refresher=uas"},
                True,
            ),
            # A caller that knows session timers and asks for none: we ask, and work for it.
            ([TIMER], {"Require": "timer", "Session-Expires": "1800;refresher=uas"}, True),
            # Twilio towards Meta; and a peer that wants more than we would have asked for.
            (
                [TIMER, ("Min-SE", "120")],
                {"Require": "timer", "Session-Expires": "1800;refresher=uas"},
                True,
            ),
            (
                [TIMER, ("Min-SE", "7200")],
                {"Require": "timer", "Session-Expires": "7200;refresher=uas"},
                True,
            ),
        ],
    )
    def test_the_200_says_how_long_and_who(self, headers, answer, we_refresh):
        timer, said = uas(*headers)
        assert said == answer
        assert timer.refreshes is we_refresh
        assert timer.interval == int(answer["Session-Expires"].partition(";")[0])

    def test_a_caller_that_knows_no_session_timers_gets_none(self):
        timer, said = uas(WITH_UPDATE)
        assert said == {}
        assert timer.next_timer() is None

    def test_or_is_refreshed_without_a_word_when_told_so(self):
        timer, said = uas(WITH_UPDATE, config=SessionTimerConfig(always=True))
        assert said == {}
        assert run(timer, 900) == [(900, Refresh("UPDATE"))]
        assert timer.request_headers() == []
        timer.receive_2xx(response(200, method="UPDATE"), now=901)
        assert run(timer, 1801) == [(1801, Refresh("UPDATE"))]
        # PJSIP with its session timers off says in each 200 that it knows them.
        timer.receive_2xx(response(200, TIMER, method="UPDATE"), now=1802)
        assert run(timer, 2702) == [(2702, Refresh("UPDATE"))]

    def test_a_peer_that_refuses_what_it_never_agreed_to_lives(self):
        timer, _ = uas(config=SessionTimerConfig(always=True))
        for _ in range(12):
            due = timer.next_timer()
            timer.handle_timer(now=due)
            assert [type(o) for o in timer.outputs() if not isinstance(o, Note)] == [Refresh]
            timer.refused("INVITE", response(488), now=due, chance=0.5)

    def test_switched_off_it_does_nothing(self):
        timer, said = uas(TIMER, ("Session-Expires", "90"), config=SessionTimerConfig(interval=0))
        assert said == {}
        assert timer.next_timer() is None
        assert not is_too_small(asking("1"), SessionTimerConfig(interval=0))

    @pytest.mark.parametrize(
        ("asked", "refused"),
        [
            (asking("89"), True),
            (asking("1;refresher=uas"), True),
            (asking("0"), True),
            (asking("90"), False),
            (request(("x", "45;refresher=uac")), True),
            # The RFC allows no 422 to a caller that would not understand it.
            (request(("Session-Expires", "5")), False),
            (request(TIMER), False),
            (request(TIMER, ("Session-Expires", "5"), method="INFO"), False),
        ],
    )
    def test_too_short_a_session_is_refused(self, asked, refused):
        assert is_too_small(asked, CONFIG) is refused

    def test_too_short_a_session_that_cannot_be_refused_is_not_followed(self):
        timer, said = uas(("Session-Expires", "1"))
        assert said == {}
        assert timer.next_timer() is None


class TestWaitingForThePeer:
    """Section 10: BYE at the latest 32 s, at the earliest a third of the interval, before the end."""

    @pytest.mark.parametrize(("interval", "end"), [(90, 60), (95, 63.33), (96, 64), (600, 568), (3600, 3568)])
    def test_a_session_that_nobody_refreshes_ends(self, interval, end):
        timer, _ = uas(TIMER, ("Session-Expires", f"{interval};refresher=uac"))
        ((at, expire),) = run(timer, 1e6)
        assert at == end
        assert expire.text == f"session timer expired: the peer sent no refresh within {interval} s"
        assert timer.next_timer() is None

    @pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
    def test_each_refresh_starts_it_anew(self, method):
        timer, _ = uas(TIMER, ("Session-Expires", "90;refresher=uac"))
        timer.outputs()
        for at in (45, 90, 135):
            headers = timer.answer(
                request(TIMER, ("Session-Expires", "90;refresher=uac"), method=method), now=at
            )
            assert ("Session-Expires", "90;refresher=uac") in headers
            assert notes(timer) == [f"refreshed: by the peer's {method}"]
        assert [at for at, _ in run(timer, 1e6)] == [195]

    def test_a_hold_without_session_timer_headers_is_a_refresh_too(self):
        timer, _ = uas(TIMER, ("Session-Expires", "90;refresher=uac"))
        assert dict(timer.answer(request(TIMER), now=50)) == {
            "Require": "timer",
            "Session-Expires": "90;refresher=uac",
        }
        assert run(timer, 109) == []

    def test_the_peer_may_give_the_work_to_us_and_choose_another_interval(self):
        timer, _ = uas(TIMER, ("Session-Expires", "1800;refresher=uac"), WITH_UPDATE)
        timer.outputs()
        said = timer.answer(asking("600;refresher=uas"), now=100)
        assert ("Session-Expires", "600;refresher=uas") in said
        assert notes(timer) == ["refreshed: by the peer's INVITE", "600 s: we refresh every 300 s"]
        assert run(timer, 400) == [(400, Refresh("UPDATE"))]
        # In our own request the names change sides: the sender is the UAC.
        assert timer.request_headers() == [("Session-Expires", "600;refresher=uac")]

    def test_in_the_middle_of_a_call_nobody_changes_places_unasked(self):
        timer, _ = uas(TIMER, ("Session-Expires", "1800;refresher=uas"))
        assert ("Session-Expires", "1800;refresher=uas") in timer.answer(asking("1800"), now=10)
        timer, _ = uas(TIMER, ("Session-Expires", "1800;refresher=uac"))
        assert ("Session-Expires", "1800;refresher=uac") in timer.answer(asking("1800"), now=10)


class TestRefreshing:
    def ours(self, *headers, interval=1800, config=CONFIG):
        timer, _ = uas(TIMER, ("Session-Expires", f"{interval};refresher=uas"), *headers, config=config)
        return timer

    def test_at_half_the_interval_by_update_when_the_peer_takes_it(self):
        assert run(self.ours(WITH_UPDATE), 900) == [(900, Refresh("UPDATE"))]

    @pytest.mark.parametrize("allow", [(), (("Allow", "ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY"),)])
    def test_else_by_invite(self, allow):
        assert run(self.ours(*allow), 900) == [(900, Refresh("INVITE"))]

    def test_the_peers_allow_may_change(self):
        timer = self.ours(WITH_UPDATE)
        timer.answer(asking("1800;refresher=uas", ("Allow", "INVITE, ACK, BYE")), now=5)
        assert run(timer, 905) == [(905, Refresh("INVITE"))]

    def test_an_answer_starts_it_anew(self):
        timer = self.ours(WITH_UPDATE)
        run(timer, 900)
        timer.receive_2xx(
            response(200, ("Session-Expires", "1800;refresher=uac"), TIMER, method="UPDATE"), now=901
        )
        assert notes(timer) == ["refreshed: by our UPDATE"]
        assert run(timer, 1801) == [(1801, Refresh("UPDATE"))]

    def test_silence_to_it_is_not_waited_for_beyond_the_end(self):
        timer = self.ours(WITH_UPDATE, interval=90)
        assert [(at, type(o)) for at, o in run(timer, 1e6)] == [(45, Refresh), (60, Expire)]

    def test_the_peer_may_take_the_work_over_or_end_it_all(self):
        timer = self.ours(WITH_UPDATE)
        run(timer, 900)
        timer.receive_2xx(
            response(200, ("Session-Expires", "1800;refresher=uas"), ("Require", "timer")), now=900
        )
        assert not timer.refreshes
        assert [type(o) for _, o in run(timer, 1e6)] == [Expire]
        timer = self.ours(WITH_UPDATE)
        run(timer, 900)
        timer.receive_2xx(response(200), now=900)
        assert timer.next_timer() is None
        assert notes(timer) == ["off: the peer's answer has none"]

    def test_422_raises_the_interval_at_once(self):
        timer = self.ours(WITH_UPDATE)
        run(timer, 900)
        timer.refused("UPDATE", response(422, ("Min-SE", "3600")), now=901, chance=0)
        assert "raised: to 3600 s: the peer's Min-SE" in notes(timer)
        assert run(timer, 901) == [(901, Refresh("UPDATE"))]
        assert timer.request_headers() == [("Session-Expires", "3600;refresher=uac"), ("Min-SE", "3600")]

    @pytest.mark.parametrize("min_se", ["90", "1800", "", "x"])
    def test_422_that_asks_for_no_more_is_a_plain_refusal(self, min_se):
        timer = self.ours(WITH_UPDATE)
        run(timer, 900)
        timer.refused("UPDATE", response(422, ("Min-SE", min_se)), now=901, chance=0)
        assert timer.next_timer() > 902

    @pytest.mark.parametrize("status", [405, 501])
    def test_a_peer_without_update_after_all_gets_an_invite_at_once(self, status):
        timer = self.ours(WITH_UPDATE)
        run(timer, 900)
        timer.refused("UPDATE", response(status), now=900.1, chance=0)
        assert run(timer, 901) == [(900.1, Refresh("INVITE"))]

    @pytest.mark.parametrize(
        ("owns", "chance", "delay"),
        [(False, 0.0, 0.0), (False, 0.999, 2.0), (True, 0.0, 2.1), (True, 0.999, 4.0)],
    )
    def test_after_glare_the_two_sides_wait_for_different_times(self, owns, chance, delay):
        timer = SessionTimer(CONFIG, owns_call_id=owns)
        timer.answer(asking("1800;refresher=uas"), now=0)
        run(timer, 900)
        timer.refused("INVITE", response(491), now=900, chance=chance)
        assert timer.next_timer() == pytest.approx(900 + delay)

    def test_retry_after_is_kept_when_there_is_time_for_it(self):
        for said, wanted in (("7 (busy)", 907), ("100000", 900 + 112.5), ("soon", 900 + 112.5)):
            timer = self.ours()
            run(timer, 900)
            timer.refused("INVITE", response(503, ("Retry-After", said)), now=900, chance=0)
            assert timer.next_timer() == wanted

    def test_a_peer_that_cannot_be_reached_is_tried_again_before_the_end(self):
        timer = self.ours(WITH_UPDATE, interval=90)
        timer.outputs()
        sent = []
        while (due := timer.next_timer()) is not None:
            timer.handle_timer(now=due)
            for output in timer.outputs():
                sent.append((round(due, 1), type(output)))
                if isinstance(output, Refresh):
                    timer.refused("UPDATE", None, now=due, chance=0)
        assert sent == [(45, Refresh), (50.6, Refresh), (56.2, Refresh), (60, Expire)]

    def test_a_peer_that_refuses_for_ever_is_not_asked_for_ever(self):
        timer = self.ours(interval=90)
        asked = []
        while (due := timer.next_timer()) is not None:
            timer.handle_timer(now=due)
            for output in timer.outputs():
                if isinstance(output, Refresh):
                    asked.append(due)
                    timer.refused("INVITE", response(422, ("Min-SE", "90")), now=due, chance=0)
        assert len(asked) <= 4
        assert due is None
        assert asked[-1] < 60

    def test_a_min_se_that_rises_for_ever_is_bounded_too(self):
        timer = self.ours()
        asked, least = 0, 1800
        run(timer, 899)
        while (due := timer.next_timer()) is not None and due < 950:
            timer.handle_timer(now=due)
            for output in timer.outputs():
                if isinstance(output, Refresh):
                    asked, least = asked + 1, least + 100
                    timer.refused("INVITE", response(422, ("Min-SE", str(least))), now=due, chance=0)
        assert asked <= 4


class TestTheCallingSide:
    def test_the_invite_asks_and_leaves_the_choice(self):
        timer = SessionTimer(CONFIG, owns_call_id=True)
        assert timer.first_headers() == [("Session-Expires", "1800")]
        low = SessionTimer(SessionTimerConfig(interval=8, min_se=4), owns_call_id=True)
        assert low.first_headers() == [("Session-Expires", "8"), ("Min-SE", "4")]
        off = SessionTimer(SessionTimerConfig(interval=0), owns_call_id=True)
        assert off.first_headers() == []

    def test_422_is_answered_by_asking_for_more(self):
        timer = SessionTimer(CONFIG, owns_call_id=True)
        assert timer.raise_interval(response(422, ("Min-SE", "3600")))
        assert timer.first_headers() == [("Session-Expires", "3600"), ("Min-SE", "3600")]
        assert not timer.raise_interval(response(422, ("Min-SE", "3600")))

    @pytest.mark.parametrize(
        ("who", "we_refresh"), [(";refresher=uac", True), (";refresher=uas", False), ("", True)]
    )
    def test_the_answer_decides(self, who, we_refresh):
        timer = uac(("Session-Expires", f"90{who}"))
        assert timer.refreshes is we_refresh
        assert timer.next_timer() == (45 if we_refresh else 60)

    def test_no_answer_no_timer(self):
        assert uac(TIMER).next_timer() is None
        assert uac().next_timer() is None

    def test_a_tiny_interval_in_the_answer_does_not_make_us_storm(self):
        timer = uac(("Session-Expires", "1;refresher=uac"))
        assert timer.next_timer() == 45
        assert uac(("Session-Expires", "0;refresher=uas")).next_timer() == 60


def test_after_the_end_it_is_silent():
    timer = uac(("Session-Expires", "90;refresher=uac"))
    timer.stop()
    assert timer.next_timer() is None
    assert timer.outputs() == []
    timer.refused("INVITE", None, now=50, chance=0)
    assert timer.next_timer() is None
