"""What a form leaves for the next page: taken once, by its own login, within a minute."""

import itertools

from offhook.server.pages.handovers import KEPT_S, MAX_KEPT, Handovers
from offhook.server.pages.logins import Login

ANN, BOB = Login("ann", 9_999, ""), Login("bob", 9_999, "")


def handovers():
    numbers = itertools.count()
    return Handovers(lambda: f"token{next(numbers)}")


def test_it_is_taken_once():
    kept = handovers()
    token = kept.leave(ANN, {"key": "sk-1"}, 100.0)
    assert kept.take(ANN, token, 101.0) == {"key": "sk-1"}
    assert kept.take(ANN, token, 101.0) is None


def test_another_login_neither_gets_it_nor_takes_it_away():
    kept = handovers()
    token = kept.leave(ANN, {"key": "sk-1"}, 100.0)
    assert kept.take(BOB, token, 101.0) is None
    assert kept.take(ANN, token, 101.0) == {"key": "sk-1"}


def test_what_nobody_comes_for_is_forgotten():
    kept = handovers()
    token = kept.leave(ANN, {"key": "sk-1"}, 100.0)
    assert kept.take(ANN, token, 100.0 + KEPT_S) is None
    assert kept.take(ANN, "", 0.0) is None


def test_it_has_room_for_a_few():
    kept = handovers()
    tokens = [kept.leave(ANN, {"n": number}, 100.0) for number in range(MAX_KEPT + 1)]
    assert kept.take(ANN, tokens[0], 100.0) is None
    assert kept.take(ANN, tokens[1], 100.0) == {"n": 1}
