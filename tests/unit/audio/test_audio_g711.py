"""G.711 against the recommendation's definition, worked out here anew: segments and steps, not tables."""

import itertools

import numpy as np
import pytest

from offhook.audio import g711
from offhook.audio.frames import FRAME_SAMPLES, SILENCE

EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)


def ulaw_value(code: int) -> int:
    """G.711 table 2a in closed form: 14 bits, eight segments, a bias of 33, all bits inverted."""
    bits = code ^ 0xFF
    magnitude = ((2 * (bits & 15) + 33) << (bits >> 4 & 7)) - 33
    return (-magnitude if bits & 0x80 else magnitude) * 4


def alaw_value(code: int) -> int:
    """G.711 table 1a: the first two segments have steps of 2, then 4, 8 ... on a scale of 4096, even bits inverted."""
    bits = code ^ 0x55
    segment, step = bits >> 4 & 7, bits & 15
    width = 2 if segment < 2 else 2**segment
    start = 0 if segment == 0 else 32 * 2 ** (segment - 1)
    magnitude = start + step * width + width // 2
    return (magnitude if bits & 0x80 else -magnitude) * 8


def test_ulaw_values():
    assert g711.decode(EVERY_CODE, "PCMU").tolist() == [ulaw_value(code) for code in EVERY_CODE]
    # The ends and the middle, as printed in the recommendation's table 2a (times 4).
    assert [ulaw_value(code) for code in (0x80, 0x8F, 0xFF, 0x7F, 0x00)] == [
        8031 * 4,
        4191 * 4,
        0,
        0,
        -8031 * 4,
    ]


def test_ulaw_steps_double_from_segment_to_segment():
    upwards = (g711.decode(bytes(range(0xFF, 0x7F, -1)), "PCMU") // 4).tolist()
    steps = [b - a for a, b in itertools.pairwise(upwards)]
    assert [steps[16 * segment] for segment in range(8)] == [2, 4, 8, 16, 32, 64, 128, 256]


def test_alaw_values():
    assert g711.decode(EVERY_CODE, "PCMA").tolist() == [alaw_value(code) for code in EVERY_CODE]


@pytest.mark.parametrize(("law", "clip", "scale"), [("PCMU", 8031 * 4, 4), ("PCMA", 4032 * 8, 8)])
def test_encoding_is_off_by_half_a_step_at_most(law, clip, scale):
    heard = g711.decode(g711.encode(EVERY_SAMPLE, law), law).astype(np.int32)
    wanted = np.clip(EVERY_SAMPLE.astype(np.int32), -clip, clip)
    # A step is a sixteenth of its segment: at most a sixteenth of the value, and never below the finest step.
    half_step = np.maximum(np.abs(wanted) / 32, scale) + scale
    if law == "PCMU":
        half_step += 33 * scale / 32
    assert np.all(np.abs(heard - wanted) <= half_step)


@pytest.mark.parametrize("law", ["PCMU", "PCMA"])
def test_codes_survive_a_round_trip(law):
    again = g711.encode(g711.decode(EVERY_CODE, law), law)
    # Mu-law has two zeros; the negative one comes back as the positive one.
    assert again == (EVERY_CODE.replace(b"\x7f", b"\xff") if law == "PCMU" else EVERY_CODE)


@pytest.mark.parametrize("law", ["PCMU", "PCMA"])
def test_loudness_keeps_its_order(law):
    heard = g711.decode(g711.encode(EVERY_SAMPLE, law), law)
    assert np.all(np.diff(heard.astype(np.int32)) >= 0)


@pytest.mark.parametrize("law", ["PCMU", "PCMA"])
def test_silence_is_silent_and_as_long_as_a_frame(law):
    assert len(SILENCE[law]) == FRAME_SAMPLES == 160
    assert np.abs(g711.decode(SILENCE[law], law)).max() <= 8


def test_law_to_law_is_decoding_and_encoding():
    for source, target in (("PCMU", "PCMA"), ("PCMA", "PCMU")):
        assert g711.transcode(EVERY_CODE, source, target) == g711.encode(
            g711.decode(EVERY_CODE, source), target
        )
    assert g711.transcode(EVERY_CODE, "PCMA", "PCMA") is EVERY_CODE


def test_strided_arrays_can_be_encoded():
    stereo = np.stack([EVERY_SAMPLE, -EVERY_SAMPLE - 1], axis=1)
    assert g711.encode(stereo[:, 0], "PCMU") == g711.encode(EVERY_SAMPLE, "PCMU")


def test_names_of_laws():
    assert g711.law_of("audio/pcmu") == g711.law_of("pcmu") == "PCMU"
    with pytest.raises(ValueError, match="'opus' is no"):
        g711.law_of("opus")
