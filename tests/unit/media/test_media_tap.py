"""Both sides of a call beside each other: which tick each frame is laid on."""

from __future__ import annotations

import pytest

from offhook.audio.frames import SILENCE
from offhook.media import negotiate
from offhook.media.rtp import HEADER
from offhook.media.stream import MediaStream
from offhook.media.tap import CHUNK, Tap

QUIET = SILENCE["PCMU"]
PLAN = negotiate.answer(
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n",
    negotiate.LocalMedia(host="127.0.0.1", port=20000, session_id=1, session_version=1),
).plan


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


def test_sound_that_is_given_before_its_turn_lies_where_its_turn_is():
    listening = Listening()
    number = 0
    for tick in range(90):
        listening.tap.tick()
        listening.tap.sent(QUIET)
        # Nothing for two ticks, then three at once, as when the network delivers in bursts.
        if tick % 3 == 0:
            for lead in range(3):
                listening.tap.heard(frame(number), lead)
                number += 1
    heard, _ = listening.finish()
    assert heard == [frame(number) for number in range(90)]


def test_a_gap_and_a_leap_move_nothing_of_what_follows():
    listening = Listening()
    for tick in range(120):
        listening.tap.tick()
        listening.tap.sent(frame(tick))
        if not 30 <= tick < 37:
            listening.tap.heard(frame(tick))
        if tick == 60:  # the buffer leaves the next frame out, and later gives one twice its time
            listening.tap.heard(frame(199))
    heard, sent = listening.finish()
    assert sent == [frame(tick) for tick in range(120)]
    assert heard[30:37] == [QUIET] * 7
    assert heard[60] == frame(199)
    assert heard[61:] == [frame(tick) for tick in range(61, 120)]


def test_packets_of_60_ms_are_laid_where_their_sound_began():
    listening = Listening()
    for tick in range(60):
        listening.tap.tick()
        if tick % 3 == 2:
            listening.tap.sent(frame(tick - 2) + frame(tick - 1) + frame(tick))
    _, sent = listening.finish()
    assert sent == [frame(number) for number in range(60)]


def test_long_packets_that_begin_anew_are_in_time():
    """Digits and re-INVITEs cut a packet of 60 ms short; what was sent after them is not early for that."""
    listening = Listening()
    waited = 0
    for tick in range(100):
        listening.tap.tick()
        waited += 1
        if tick in (10, 30, 50):
            waited = 0
        elif waited == 3:
            waited = 0
            listening.tap.sent(frame(tick - 2) + frame(tick - 1) + frame(tick))
    _, sent = listening.finish()
    assert all(each in (QUIET, frame(number)) for number, each in enumerate(sent))


def test_what_runs_far_ahead_is_left_out():
    listening = Listening()
    listening.tap.tick()
    for number in range(500):
        listening.tap.heard(frame(number), number)
    for _ in range(9):
        listening.tap.tick()
    heard, _ = listening.finish()
    assert heard == [frame(number) for number in range(10)]


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("lost_every", [0, 20, 7])
def test_the_callers_side_stays_in_time_when_packets_are_lost(prompt: bool, lost_every: int):
    """A prompt stream holds back what follows a loss, and gives it in one go."""
    listening = Listening()
    stream = MediaStream(
        PLAN, ssrc=1, sequence=1, timestamp=0, cname="x", now=0.0, wall_offset=0.0, prompt=prompt
    )
    give = listening.tap.heard
    for tick in range(400):
        now = tick * 0.02
        if not lost_every or tick % lost_every != 5:
            packet = HEADER.pack(0x80, 0, tick, tick * 160, 7) + bytes([tick // 100, tick % 100]) * 80
            stream.receive_rtp(packet, ("127.0.0.1", 40000), now - 0.007)
            while (early := stream.early_frame()) is not None:
                give(early, stream.receiver.lead)
        listening.tap.tick()
        if (due := stream.next_frame(now)) is not None:
            give(due, stream.receiver.lead)
        while (early := stream.early_frame()) is not None:
            give(early, stream.receiver.lead)
    heard, _ = listening.finish()
    late = [
        tick - (each[-2] * 100 + each[-1])
        for tick, each in enumerate(heard)
        if each[-2] < 4 and each[-1] < 100  # neither silence nor made up
    ]
    assert len(late) >= 400 * (1 - (1 / lost_every if lost_every else 0)) - 8
    assert max(late) == min(late)


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


def test_a_long_packet_after_a_pause_has_nothing_of_it():
    listening = Listening()
    for tick in range(60):
        if tick == 10:
            listening.tap.pause()
        if tick == 40:
            listening.tap.resume()
        listening.tap.tick()
        if tick % 3 == 2:  # the one that ends with tick 41 began in the pause
            listening.tap.sent(frame(tick - 2) + frame(tick - 1) + frame(tick))
    _, sent = listening.finish()
    assert sent[9:40] == [QUIET] * 31
    assert sent[40:] == [frame(tick) for tick in range(40, 60)]


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
