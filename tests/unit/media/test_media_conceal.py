import numpy as np
import pytest

from offhook.audio import g711, tones
from offhook.audio.frames import SILENCE
from offhook.media.conceal import CONCEALED_FRAMES, Concealer

LAWS = ["PCMU", "PCMA"]


class Ear:
    """Hears frames and misses others, as the receiver does."""

    def __init__(self, law):
        self.concealer = Concealer(law)
        self.before = self.last = SILENCE[law]

    def hear(self, frame):
        self.before, self.last = self.last, frame
        return self.concealer.recover(frame)

    def miss(self):
        return self.concealer.conceal(self.before, self.last)


def frames_of(sound, law):
    data = g711.encode(sound, law)
    return [data[at : at + 160] for at in range(0, len(data), 160)]


def level(data, law):
    return float(np.sqrt(np.mean(g711.decode(data, law).astype(np.float64) ** 2)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("pitch", [80.0, 100.0, 160.0, 190.0])
def test_a_voiced_sound_goes_on_in_step(law, pitch):
    wave = tones.tone((pitch, 3 * pitch, 5 * pitch), 200, level=0.2)
    frames = frames_of(wave, law)
    ear = Ear(law)
    for frame in frames[:5]:
        ear.hear(frame)
    made_up = g711.decode(ear.miss(), law).astype(np.float64)[:80]
    truth = wave[800:880].astype(np.float64)
    likeness = np.corrcoef(made_up, truth)[0, 1]
    assert likeness > 0.9
    assert np.std(made_up) == pytest.approx(np.std(truth), rel=0.2)


@pytest.mark.parametrize("law", LAWS)
def test_it_fades_to_silence_in_sixty_ms(law):
    ear = Ear(law)
    for frame in frames_of(tones.tone(150.0, 100, level=0.3), law):
        ear.hear(frame)
    levels = [level(ear.miss(), law) for _ in range(5)]
    assert levels[0] > levels[1] > levels[2] > levels[3]
    assert levels[1] < 0.8 * levels[0]
    assert ear.miss() is SILENCE[law]
    assert ear.concealer.made_up == CONCEALED_FRAMES == 3


@pytest.mark.parametrize("lost", [1, 2, 3, 10])
def test_returning_sound_does_not_click(lost):
    wave = tones.tone(200.0, 400, level=0.3)
    frames = frames_of(wave, "PCMU")
    ear = Ear("PCMU")
    out = [ear.hear(frame) for frame in frames[:5]]
    out += [ear.miss() for _ in range(lost)]
    out += [ear.hear(frame) for frame in frames[5 + lost : 8 + lost]]
    # Between two samples of the tone there is at most this step; a cut would make one many times as large.
    step = 2 * np.pi * 200 / 8000 * 0.3 * 32767
    assert np.abs(np.diff(g711.decode(b"".join(out), "PCMU").astype(np.int32))).max() < 2.5 * step


def test_only_the_first_four_ms_of_returning_sound_are_touched():
    frames = frames_of(tones.tone(200.0, 400, level=0.3), "PCMA")
    ear = Ear("PCMA")
    for frame in frames[:5]:
        ear.hear(frame)
    ear.miss()
    back = ear.hear(frames[6])
    assert back[32:] == frames[6][32:]
    assert len(back) == 160
    assert ear.hear(frames[7]) is frames[7]


def test_nothing_is_made_up_before_the_first_sound_or_out_of_silence():
    ear = Ear("PCMU")
    assert ear.miss() is SILENCE["PCMU"]
    ear.hear(bytes(SILENCE["PCMU"]))
    assert ear.miss() is SILENCE["PCMU"]
    assert ear.concealer.made_up == 0


def test_a_pause_is_silent_at_once():
    ear = Ear("PCMU")
    for frame in frames_of(tones.tone(150.0, 100), "PCMU"):
        ear.hear(frame)
    ear.concealer.pause()
    assert ear.miss() is SILENCE["PCMU"]


def test_loud_noise_stays_within_range():
    rng = np.random.default_rng(1)
    noise = np.where(rng.random(1600) < 0.5, -32768, 32767).astype(np.int16)
    ear = Ear("PCMU")
    for frame in frames_of(noise, "PCMU"):
        ear.hear(frame)
    assert [len(ear.miss()) for _ in range(4)] == [160] * 4
