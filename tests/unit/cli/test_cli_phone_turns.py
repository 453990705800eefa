"""When the caller may speak, and how long the other side took, from frames of 20 ms."""

from offhook.cli.phone.turns import Answered, HeardEnded, HeardStarted, TurnEvent, TurnTaking

LOUD, QUIET = -20.0, -90.0


class Caller:
    """Feeds frames and keeps the time."""

    def __init__(self, **settings: float) -> None:
        self.now = 100.0
        self.turns = TurnTaking(self.now, **settings)

    def hear(self, seconds: float, level: float) -> list[TurnEvent]:
        events: list[TurnEvent] = []
        for _ in range(round(seconds / 0.02)):
            events += self.turns.hear(level, self.now)
            self.now += 0.02
        return events

    def say(self, seconds: float) -> None:
        self.turns.began(self.now)
        self.hear(seconds, QUIET)
        self.turns.finished(self.now)


def test_speaks_when_the_greeting_has_been_followed_by_the_gap() -> None:
    caller = Caller(gap_s=1.0)
    caller.hear(0.5, QUIET)
    assert not caller.turns.may_speak(caller.now)
    began = caller.now
    [started] = caller.hear(2.0, LOUD)
    assert started == HeardStarted(began)
    over = caller.now
    assert caller.hear(0.9, QUIET) == []
    assert not caller.turns.may_speak(caller.now)
    [ended] = caller.hear(0.2, QUIET)
    assert isinstance(ended, HeardEnded)
    assert ended.started_at == began
    assert abs(ended.ended_at - over) < 0.001
    assert caller.turns.may_speak(caller.now)


def test_a_pause_between_sentences_is_no_end() -> None:
    caller = Caller(gap_s=1.0)
    events = caller.hear(1.0, LOUD) + caller.hear(0.8, QUIET) + caller.hear(1.0, LOUD)
    assert [type(event) for event in events] == [HeardStarted]
    assert not caller.turns.may_speak(caller.now)


def test_a_click_is_no_speech() -> None:
    caller = Caller()
    assert (
        caller.hear(0.04, LOUD) + caller.hear(2.0, QUIET) + caller.hear(0.04, LOUD) + caller.hear(2.0, QUIET)
        == []
    )


def test_speech_that_begins_with_a_weak_frame_began_with_its_first_voiced_one() -> None:
    caller = Caller()
    began = caller.now
    events = caller.hear(0.04, LOUD) + caller.hear(0.02, QUIET) + caller.hear(0.02, LOUD)
    assert events == [HeardStarted(began)]


def test_the_answer_is_timed_from_our_last_sample_to_the_first_voiced_frame() -> None:
    caller = Caller()
    caller.hear(1.0, LOUD)
    caller.hear(1.1, QUIET)
    caller.say(2.0)
    spoke = caller.now
    caller.hear(0.6, QUIET)
    heard = caller.now
    started, answered = caller.hear(1.0, LOUD)
    assert started == HeardStarted(heard)
    assert isinstance(answered, Answered)
    assert answered.turn == 1
    assert abs(answered.after_s - (heard - spoke)) < 1e-9


def test_only_the_first_sound_after_our_turn_is_the_answer() -> None:
    caller = Caller(gap_s=0.5)
    caller.say(1.0)
    first = caller.hear(1.0, LOUD)
    caller.hear(1.0, QUIET)
    second = caller.hear(1.0, LOUD)
    assert [type(event) for event in first] == [HeardStarted, Answered]
    assert [type(event) for event in second] == [HeardStarted]


def test_after_our_turn_the_other_side_must_speak_before_we_do_again() -> None:
    caller = Caller(gap_s=0.5, patience_s=10)
    caller.hear(1.0, LOUD)
    caller.hear(1.0, QUIET)
    assert caller.turns.may_speak(caller.now)
    caller.say(1.0)
    caller.hear(3.0, QUIET)
    assert not caller.turns.may_speak(caller.now)
    caller.hear(1.0, LOUD)
    caller.hear(0.6, QUIET)
    assert caller.turns.may_speak(caller.now)
    assert caller.turns.turns == 1


def test_nobody_waits_for_ever() -> None:
    caller = Caller(patience_s=4.0)
    caller.hear(3.9, QUIET)
    assert not caller.turns.may_speak(caller.now)
    caller.hear(0.2, QUIET)
    assert caller.turns.may_speak(caller.now)


def test_not_while_we_speak() -> None:
    caller = Caller(gap_s=0.5)
    caller.hear(1.0, LOUD)
    caller.hear(1.0, QUIET)
    caller.turns.began(caller.now)
    assert not caller.turns.may_speak(caller.now)
