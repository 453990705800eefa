"""Large frames are cut as they come in, and say the same afterwards (RFC 6455 section 5.4, API row S19)."""

import itertools
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from offhook.server.fragments import PIECE, Fragments

MOST = 21 * 1024 * 1024
SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5])


def frames_in(data):
    """Parse what a client sent, as the library does."""
    reader = StreamReader()
    reader.feed_data(data)
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=True)
        try:
            next(parser)
        except StopIteration as parsed:
            yield parsed.value
        else:
            raise AssertionError("a frame is cut off")


def messages_in(frames):
    """Put fragments together; control frames are messages of their own."""
    messages, open_at = [], None
    for frame in frames:
        if frame.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
            messages.append((frame.opcode, bytes(frame.data)))
        elif frame.opcode is not Opcode.CONT:
            assert open_at is None
            messages.append((frame.opcode, bytes(frame.data)))
            open_at = None if frame.fin else len(messages) - 1
        else:
            assert open_at is not None
            opcode, data = messages[open_at]
            messages[open_at] = (opcode, data + bytes(frame.data))
            open_at = None if frame.fin else open_at
    assert open_at is None
    return messages


@st.composite
def streams(draw):
    """Messages of all sizes, some in fragments of the client's own, with pings between those."""
    frames = []
    for number in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(SIZES, min_size=1, max_size=3))
        kind = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
        for index, size in enumerate(sizes):
            payload = bytes(itertools.islice(itertools.cycle(bytes([number, index, 7, 9, 11])), size))
            last = index == len(sizes) - 1
            frames.append(Frame(kind if index == 0 else Opcode.CONT, payload, fin=last))
            if draw(st.booleans()):
                frames.append(Frame(Opcode.PING, b"are you there"))
    return b"".join(frame.serialize(mask=True) for frame in frames)


@settings(max_examples=60, deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(1, 90_000), min_size=1, max_size=40))
def test_what_is_cut_says_the_same_however_it_comes_in(stream, cuts):
    fragments, out, at = Fragments(MOST), [], 0
    for cut in itertools.cycle(cuts):
        out.append(fragments.rewrite(stream[at : at + cut]))
        at += cut
        if at >= len(stream):
            break
    rewritten = list(frames_in(b"".join(out)))
    assert messages_in(rewritten) == messages_in(frames_in(stream))
    assert max(len(frame.data) for frame in rewritten) <= PIECE
    assert not fragments.within


def test_a_small_frame_is_left_as_it_is():
    frame = Frame(Opcode.TEXT, b"x" * 1000).serialize(mask=True)
    assert Fragments(MOST).rewrite(frame) is frame


def test_a_large_frame_is_passed_on_before_all_of_it_is_there():
    frame = Frame(Opcode.TEXT, b"x" * 3 * PIECE).serialize(mask=True)
    fragments = Fragments(MOST)
    (first,) = frames_in(fragments.rewrite(frame[: 14 + PIECE]))
    assert (first.opcode, len(first.data), first.fin) == (Opcode.TEXT, PIECE, False)
    assert fragments.within
    rest = list(frames_in(fragments.rewrite(frame[14 + PIECE :])))
    assert [(one.opcode, one.fin) for one in rest] == [(Opcode.CONT, False), (Opcode.CONT, True)]
    assert not fragments.within


def test_what_is_too_large_is_left_for_the_parser_to_refuse_by_its_header():
    head = struct.pack("!BBQ", 0x81, 0xFF, MOST + 1) + b"mask"
    fragments = Fragments(MOST)
    assert fragments.rewrite(head) == head
    assert not fragments.within
