"""Both sides of a call beside each other: which tick each frame is laid on."""

from __future__ import annotations

from offhook.audio.frames import SILENCE
from offhook.media.tap import CHUNK, Tap

QUIET = SILENCE["PCMU"]


def frame(number: int) -> bytes:
    return bytes([number % 200]) * 160


class Listening:
    """A tap and what it gave, as one frame for each tick."""

    def __init__(self) -> None:
        self.chunks: list[tuple[bytes, bytes]] = []
        self.tap = Tap("PCMU", lambda heard, sent: self.chunks.append((heard, sent)))

    def finish(self) -> tuple[list[bytes], list[bytes]]:
        self.tap.finish()
        for heard, sent in self.chunks:
            assert len(heard) == len(sent)
        sides = b"".join(heard for heard, _ in self.chunks), b"".join(sent for _, sent in self.chunks)
        return tuple([side[at : at + 160] for at in range(0, len(side), 160)] for side in sides)  # type: ignore[return-value]


def test_each_frame_lies_on_its_tick():
    listening = Listening()
    for number in range(120):
        listening.tap.tick()
        listening.tap.sent(frame(number))
        listening.tap.heard(frame(number + 1))
    heard, sent = listening.finish()
    assert sent == [frame(number) for number in range(120)]
    assert heard == [frame(number + 1) for number in range(120)]
    assert listening.tap.duration_ms == 2400


def test_a_second_is_handed_on_at_a_time():
    listening = Listening()
    for _ in range(3 * CHUNK):
        listening.tap.tick()
    assert [len(heard) for heard, _ in listening.chunks] == [8000, 8000]


def test_a_side_that_is_not_there_is_silent():
    listening = Listening()
    for number in range(100):
        listening.tap.tick()
        listening.tap.sent(frame(1))
        if 30 <= number < 70:
            listening.tap.heard(frame(2))
    heard, _ = listening.finish()
    assert heard == [QUIET] * 30 + [frame(2)] * 40 + [QUIET] * 30


def test_sound_that_comes_unevenly_keeps_its_order_without_holes():
    listening = Listening()
    number = 0
    for tick in range(90):
        listening.tap.tick()
        listening.tap.sent(QUIET)
        # Nothing for two ticks, then three at once, as when the network delivers in bursts.
        if tick % 3 == 2:
            for _ in range(3):
                listening.tap.heard(frame(number))
                number += 1
    heard, _ = listening.finish()
    assert heard == [frame(number) for number in range(90)]


def test_packets_of_60_ms_are_laid_where_their_sound_began():
    listening = Listening()
    for tick in range(60):
        listening.tap.tick()
        if tick % 3 == 2:
            for part in range(3):
                listening.tap.sent(frame(tick - 2 + part))
    _, sent = listening.finish()
    assert sent == [frame(number) for number in range(60)]


def test_what_runs_far_ahead_is_left_out():
    listening = Listening()
    listening.tap.tick()
    for number in range(500):
        listening.tap.heard(frame(number))
    for _ in range(9):
        listening.tap.tick()
    heard, _ = listening.finish()
    assert heard == [frame(number) for number in range(10)]


def test_ticks_that_were_left_out_are_silent_on_both_sides():
    listening = Listening()
    for number in range(20):
        listening.tap.tick()
        listening.tap.sent(frame(number))
        listening.tap.heard(frame(number))
        if number == 9:
            listening.tap.skip(3)
    expected = (
        [frame(number) for number in range(10)] + [QUIET] * 3 + [frame(number) for number in range(10, 20)]
    )
    assert listening.finish() == (expected, expected)


def test_a_pause_is_silent_and_keeps_time():
    listening = Listening()
    for number in range(100):
        if number == 40:
            listening.tap.pause()
        if number == 42:
            listening.tap.resume()
        listening.tap.tick()
        listening.tap.sent(frame(number))
        listening.tap.heard(frame(number))
    expected = [QUIET if number in (40, 41) else frame(number) for number in range(100)]
    assert listening.finish() == (expected, expected)


def test_nothing_of_a_pause_is_kept_by_whoever_was_behind():
    listening = Listening()
    for number in range(200):
        if number == 50:
            listening.tap.pause()
        if number == 150:
            listening.tap.resume()
        listening.tap.tick()
        secret = 50 <= number < 150
        listening.tap.sent(frame(9 if secret else 1))
        listening.tap.heard(frame(9 if secret else 2))
    heard, sent = listening.finish()
    assert heard == [frame(2)] * 50 + [QUIET] * 100 + [frame(2)] * 50
    assert sent == [frame(1)] * 50 + [QUIET] * 100 + [frame(1)] * 50
