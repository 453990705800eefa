"""WAV files of two channels of G.711 (Microsoft's RIFF registration: tag 6 is A-law, 7 is mu-law)."""

from __future__ import annotations

import struct

import pytest

from offhook.audio.stereo_wav import HEADER_SIZE, create_header, interleave, is_header


@pytest.mark.parametrize(("law", "tag"), [("PCMA", 6), ("PCMU", 7)])
def test_the_header_says_what_follows(law, tag):
    header = create_header(law, 32_000)
    assert len(header) == HEADER_SIZE
    assert header[:4] + header[8:16] == b"RIFFWAVEfmt "
    # RIFF counts from behind its own eight bytes to the end of the file.
    assert struct.unpack("<I", header[4:8]) == (HEADER_SIZE - 8 + 32_000,)
    assert struct.unpack("<IHHIIHHH", header[16:38]) == (18, tag, 2, 8000, 16_000, 2, 8, 0)
    # Anything but PCM has a fact chunk, with the samples of each channel.
    assert header[38:42] == b"fact"
    assert struct.unpack("<II", header[42:50]) == (4, 16_000)
    assert header[50:54] == b"data"
    assert struct.unpack("<I", header[54:58]) == (32_000,)


def test_the_caller_is_on_the_left():
    assert interleave(b"\x01\x02", b"\x0a\x0b") == b"\x01\x0a\x02\x0b"


def test_sides_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 samples on the left, 1 on the right"):
        interleave(b"\x01\x02", b"\x0a")


def test_a_file_is_known_by_its_start_whatever_its_length():
    assert is_header(create_header("PCMA", 0) + b"sound") == "PCMA"
    assert is_header(create_header("PCMU", 123_456)) == "PCMU"
    assert is_header(b"") is None
    assert is_header(b"RIFF" + bytes(100)) is None
