"""The sound that the command-line phone makes and keeps."""

import numpy as np

from offhook.audio import tones
from offhook.audio.frames import FRAME_SAMPLES, SAMPLE_RATE
from offhook.cli.phone.sound import LineOut, StereoRecording, Utterance, level_db, telephone, voiced_span


def constant(value: int, samples: int = FRAME_SAMPLES) -> np.ndarray:
    return np.full(samples, value, dtype=np.int16)


def test_level_is_in_decibels_of_full_scale() -> None:
    assert level_db(constant(0)) == -120
    assert level_db(constant(0, 0)) == -120
    assert abs(level_db(constant(-32768))) < 0.01
    assert abs(level_db(constant(3277)) + 20) < 0.01


def test_a_telephone_line_cuts_what_lies_outside_its_band() -> None:
    rate = 24_000
    time = np.arange(rate) / rate

    def share(hertz: float) -> float:
        """How much of a tone is left beside one of 1 kHz of the same strength."""
        both = (np.sin(2 * np.pi * 1000 * time) + np.sin(2 * np.pi * hertz * time)).astype(np.float32)
        power = np.abs(np.fft.rfft(telephone(both, rate).astype(float)))
        return float(power[round(hertz)] / power[1000]) if hertz < SAMPLE_RATE / 2 else 0.0

    assert share(100) < 0.05
    assert share(3900) < 0.05
    assert 0.8 < share(500) < 1.2
    assert 0.8 < share(3000) < 1.2


def test_speech_has_the_level_of_telephone_speech_whatever_it_came_with() -> None:
    tone = np.sin(np.arange(24_000) * 0.3).astype(np.float32)
    assert abs(level_db(telephone(tone * 0.01, 24_000)) + 20) < 0.5
    assert abs(level_db(telephone(tone, 24_000)) + 20) < 0.5
    assert not telephone(np.zeros(2400, dtype=np.float32), 24_000).any()


def test_where_the_voice_begins_and_ends() -> None:
    sound = np.concatenate([tones.silence(100), tones.tone(440, 300), tones.silence(250)])
    start, end = voiced_span(sound)
    assert abs(start - 800) <= 40
    assert abs(end - 3200) <= 40
    assert voiced_span(tones.silence(100)) == (0, 0)


def test_the_line_is_never_dead_and_marks_the_frames_in_which_the_voice_begins_and_ends() -> None:
    line = LineOut()
    quiet = [line.next() for _ in range(300)]
    assert all(-75 < level_db(frame.samples) < -50 for frame in quiet)
    assert not line.speaking
    said = Utterance("beep", np.concatenate([tones.silence(40), tones.tone(440, 100), tones.silence(60)]))
    line.say(said)
    frames = [line.next() for _ in range(10)]
    assert [index for index, frame in enumerate(frames) if frame.voice_starts] == [2]
    assert [index for index, frame in enumerate(frames) if frame.voice_ends] == [6]
    assert frames[2].voice_starts is said
    assert frames[6].voice_ends is said
    assert not line.speaking
    assert {len(frame.samples) for frame in frames} == {FRAME_SAMPLES}


def test_a_line_with_the_same_seed_makes_the_same_noise() -> None:
    one, other = LineOut(seed=3), LineOut(seed=3)
    assert all(np.array_equal(one.next().samples, other.next().samples) for _ in range(50))


def test_a_recording_puts_each_side_where_its_time_says() -> None:
    recording = StereoRecording(10.0)
    recording.sent(constant(1), 10.0)
    recording.heard(constant(2), 10.5)
    recording.sent(constant(3), 10.24)
    stereo = recording.samples()
    assert stereo.shape == (4000 + FRAME_SAMPLES, 2)
    assert set(stereo[:160, 0]) == {1}
    assert set(stereo[160:1920, 0]) == {0}
    assert set(stereo[1920:2080, 0]) == {3}
    assert set(stereo[:4000, 1]) == {0}
    assert set(stereo[4000:, 1]) == {2}


def test_frames_that_come_a_little_early_or_late_join_without_a_click() -> None:
    recording = StereoRecording(0.0)
    for number, jitter in enumerate((0.0, 0.004, -0.003, 0.015, -0.010)):
        recording.heard(constant(number + 1), number * 0.02 + jitter)
    heard = recording.samples()[:, 1]
    assert len(heard) == 5 * FRAME_SAMPLES
    assert (heard != 0).all()


def test_an_empty_recording_is_one() -> None:
    assert StereoRecording(0.0).samples().shape == (0, 2)
