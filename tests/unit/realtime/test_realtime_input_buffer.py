"""The caller's audio by time, and how little of it is kept."""

from __future__ import annotations

from offhook.realtime.input_buffer import MAX_HELD_S, InputBuffer

FRAME = 160


def filled(ms: int) -> InputBuffer:
    """Return a buffer in which each 20 ms frame holds its own number."""
    buffer = InputBuffer(8)
    for index in range(ms // 20):
        buffer.receive_audio(bytes([index % 256]) * FRAME, 100 + (index + 1) * 0.02)
    return buffer


def test_audio_is_found_by_its_time() -> None:
    buffer = filled(1000)
    assert buffer.end_ms == 1000
    assert buffer.read(40, 80) == b"\x02" * FRAME + b"\x03" * FRAME
    assert buffer.read(990, 5000) == b"\x31" * 80
    assert buffer.read(500, 400) == b""


def test_committed_audio_is_not_read_again() -> None:
    buffer = filled(1000)
    buffer.commit(500)
    assert buffer.held_ms == 500
    assert len(buffer.read(0, 1000)) == 500 * 8
    buffer.commit(100)
    assert buffer.held_ms == 500


def test_time_of_audio() -> None:
    assert filled(1000).time_of(400) == 100.4


def test_release_keeps_the_clock_and_the_rest() -> None:
    buffer = filled(4000)
    buffer.release(3000)
    assert buffer.start_ms == 3000
    assert buffer.end_ms == 4000
    assert buffer.read(3000, 3020) == bytes([150]) * FRAME
    assert len(buffer.read(0, 4000)) == 8000


def test_it_is_bounded() -> None:
    buffer = InputBuffer(8)
    second = b"\0" * 8000
    for _ in range(MAX_HELD_S * 3):
        buffer.receive_audio(second, 0.0)
    assert buffer.end_ms == MAX_HELD_S * 3000
    assert buffer.end_ms - buffer.start_ms <= MAX_HELD_S * 1000
