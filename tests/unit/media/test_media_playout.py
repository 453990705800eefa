from hypothesis import given
from hypothesis import strategies as st

from offhook.audio import g711
from offhook.media.playout import Playout


def drain(playout):
    frames = []
    while playout.queued:
        frames.append(playout.take())
    return frames


@given(st.lists(st.binary(max_size=700), max_size=12))
def test_chunks_of_any_size_come_out_as_frames(chunks):
    playout = Playout("PCMU")
    for chunk in chunks:
        playout.play(chunk)
    sound = b"".join(chunks)
    assert playout.queued == len(sound)
    frames = drain(playout)
    assert all(len(frame) == 160 for frame in frames)
    assert b"".join(frames) == sound + b"\xff" * (-len(sound) % 160)
    assert playout.played == len(sound)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=400)), max_size=30))
def test_what_was_queued_is_played_or_waits(steps):
    playout = Playout("PCMA")
    queued = 0
    for take, chunk in steps:
        if take and playout.queued:
            playout.take()
        else:
            playout.play(chunk)
            queued += len(chunk)
        assert playout.played + playout.queued == queued


def test_clearing_tells_how_much_was_dropped():
    playout = Playout("PCMU")
    playout.play(bytes(400))
    playout.take()
    assert playout.clear() == 240
    assert (playout.queued, playout.played) == (0, 160)
    playout.play(b"\x01" * 160)
    assert playout.take() == b"\x01" * 160


def test_the_last_frame_is_filled_up_with_the_laws_silence():
    playout = Playout("PCMA")
    playout.play(b"\x01" * 10)
    assert playout.take() == b"\x01" * 10 + b"\xd5" * 150
    assert playout.played == 10


def test_a_change_of_law_takes_what_waits_along():
    playout = Playout("PCMU")
    sound = bytes(range(256)) * 2
    playout.play(sound)
    playout.take()
    playout.change_law("PCMA")
    assert b"".join(drain(playout))[:352] == g711.transcode(sound[160:], "PCMU", "PCMA")
    assert playout.played == 512


def test_what_is_queued_is_a_copy():
    playout = Playout("PCMU")
    chunk = bytearray(b"\x01" * 160)
    playout.play(chunk)
    chunk[:] = bytes(160)
    assert playout.take() == b"\x01" * 160
