import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.audio import tones, wav
from offhook.audio.resample import Resampler


def power_at(samples, frequency, rate=8000):
    time = np.arange(len(samples)) / rate
    return abs(np.sum(samples * np.exp(-2j * np.pi * frequency * time))) / len(samples)


@pytest.mark.parametrize(
    ("key", "low", "high"), [("1", 697, 1209), ("5", 770, 1336), ("#", 941, 1477), ("d", 941, 1633)]
)
def test_a_key_sounds_of_its_two_frequencies(key, low, high):
    sound = tones.dtmf(key, 100)
    assert len(sound) == 800
    present = {f for f in (697, 770, 852, 941, 1209, 1336, 1477, 1633) if power_at(sound, f) > 1000}
    assert present == {low, high}


def test_what_is_no_key_is_named():
    with pytest.raises(ValueError, match="'x' is no DTMF key"):
        tones.dtmf("x")


def test_a_tone_begins_and_ends_softly():
    sound = tones.tone(440.0, 50, level=1.0)
    assert abs(int(sound[0])) < 100
    assert abs(int(sound[-1])) < 1500
    assert 32000 < np.abs(sound).max() <= 32767


@pytest.mark.parametrize(
    ("rate_in", "rate_out"), [(8000, 24000), (24000, 8000), (8000, 16000), (22050, 8000)]
)
def test_resampling_in_chunks_keeps_the_tone_and_the_length(rate_in, rate_out):
    resampler = Resampler(rate_in, rate_out)
    sound = tones.tone(1000.0, 1000, rate=rate_in)
    chunk = rate_in // 50
    parts = [resampler.process(sound[at : at + chunk]) for at in range(0, len(sound), chunk)]
    heard = np.concatenate([*parts, resampler.process(sound[:0], last=True)])
    assert heard.dtype == np.int16
    assert abs(len(heard) - rate_out) <= 2
    assert power_at(heard, 1000, rate_out) == pytest.approx(power_at(sound, 1000, rate_in), rel=0.02)


def test_going_down_filters_what_would_fold_back():
    resampler = Resampler(24000, 8000)
    heard = resampler.process(tones.tone(7000.0, 500, rate=24000), last=True)
    # Without a filter, 7 kHz would be heard at 1 kHz.
    assert power_at(heard, 1000) < 20


def test_equal_rates_change_nothing():
    sound = tones.tone(500.0, 20)
    assert Resampler(8000, 8000).process(sound) is sound


@pytest.mark.parametrize("shape", [(100,), (100, 2)])
def test_wav_round_trip(shape):
    samples = np.arange(-100, 100 if len(shape) == 2 else 0).astype(np.int16).reshape(shape)
    target = io.BytesIO()
    data = wav.write(samples, 16000, target)
    assert target.getvalue() == data
    again, rate = wav.read(data)
    assert rate == 16000
    assert np.array_equal(again, samples)


def test_wav_of_another_width_says_what_would_do():
    data = bytearray(wav.write(np.zeros(8, dtype=np.int16), 8000))
    data[34:36] = (8).to_bytes(2, "little")
    with pytest.raises(wav.WavError, match="give 16-bit PCM"):
        wav.read(bytes(data))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_wav_reader(data):
    try:
        wav.read(b"RIFF" + data)
    except wav.WavError:
        pass
