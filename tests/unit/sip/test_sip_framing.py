"""Streams: RFC 3261 sections 18.3 and 20.14, RFC 5626 section 3.5.1, the caps on hostile input."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.sip.framing import Frame, FramingError, KeepAlive, MessageFrame, StreamFramer
from offhook.sip.message import MAX_MESSAGE, MessageError, Response, parse_message


def message(
    body: bytes = b"", length: str | None = None, name: str = "Content-Length", method: str = "OPTIONS"
) -> bytes:
    line = f"{name}: {len(body) if length is None else length}\r\n" if name else ""
    return (
        f"{method} sip:a@b SIP/2.0\r\n"
        "Via: SIP/2.0/TCP h;branch=z9hG4bK1\r\n"
        f"From: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n{line}\r\n"
    ).encode() + body


def fault(data: bytes) -> FramingError:
    with pytest.raises(FramingError) as caught:
        StreamFramer().receive_data(data)
    return caught.value


def answer_status(error: FramingError) -> int | None:
    if error.answer is None:
        return None
    answer = parse_message(error.answer)
    assert isinstance(answer, Response)
    assert answer.top_via.branch == "z9hG4bK1"
    assert answer.call_id == "x"
    assert answer.to.tag
    return answer.status


def test_one_message() -> None:
    assert StreamFramer().receive_data(message(b"v=0")) == [MessageFrame(message(b"v=0"))]


def test_several_in_one_segment_and_one_in_several() -> None:
    framer = StreamFramer()
    first, second, third = message(b"1"), message(), message(b"\r\n\r\n")
    assert framer.receive_data(first + second + third[:-1]) == [MessageFrame(first), MessageFrame(second)]
    assert framer.buffered == len(third) - 1
    assert framer.receive_data(third[-1:]) == [MessageFrame(third)]
    assert framer.buffered == 0


@pytest.mark.parametrize(
    "name", ["l", "L", "Content-Length", "CONTENT-LENGTH", "content-length ", "l\t", "l \t"]
)
def test_every_spelling_of_content_length(name: str) -> None:
    data = message(b"body", name=name)
    assert StreamFramer().receive_data(data + message()) == [MessageFrame(data), MessageFrame(message())]


@pytest.mark.parametrize("length", ["\r\n 4", "\r\n\t 4", "4 ", "\t4\t", "00004", " \r\n  4\r\n "])
def test_folding_and_white_space_round_the_length(length: str) -> None:
    data = message(b"body", length)
    assert StreamFramer().receive_data(data) == [MessageFrame(data)]
    assert parse_message(data).body == b"body"


def test_a_ping_between_messages() -> None:
    framer = StreamFramer()
    assert framer.receive_data(b"\r\n\r\n") == [KeepAlive()]
    assert framer.receive_data(message() + b"\r\n\r\n" + message()) == [
        MessageFrame(message()),
        KeepAlive(),
        MessageFrame(message()),
    ]
    assert framer.receive_data(b"\r\n\r\n" * 1000 + message()) == [KeepAlive(), MessageFrame(message())]


def test_a_ping_in_pieces() -> None:
    framer = StreamFramer()
    assert framer.receive_data(b"\r") == []
    assert framer.receive_data(b"\n\r") == []
    assert framer.receive_data(b"\n") == [KeepAlive()]


def test_a_pong_is_not_half_a_ping() -> None:
    # A peer that answers our pings with CRLF must not get CRLFs of its own back.
    framer = StreamFramer()
    for _ in range(3):
        assert framer.receive_data(b"\r\n") == []
    assert framer.buffered == 0


def test_line_breaks_before_a_message() -> None:
    # RFC 3261 section 7.5: CRLF before the start line is ignored.
    assert StreamFramer().receive_data(b"\r\n" + message()) == [MessageFrame(message())]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (message(name=""), 400),
        (message(b"abc", "x"), 400),
        (message(b"abc", ""), 400),
        (message(b"abc", "-3"), 400),
        (message(b"abc", "+3"), 400),
        (message(b"abc", "1_0"), 400),
        (message(b"abc", "3 3"), 400),
        (message(b"abc", "3, 3"), 400),
        (message(b"abc", "3\r\nl: 3"), 400),
        (message(b"abc", "3\r\nContent-Length: 5"), 400),
        (message(b"abc", "65536"), 513),
        (message(b"abc", "2147483648"), 513),
        (message(b"abc", "9" * 5000), 513),
        (message(name="") + b"x" * 100, 400),
    ],
)
def test_faults_that_end_the_connection(data: bytes, status: int) -> None:
    assert answer_status(fault(data)) == status


def test_headers_without_end() -> None:
    framer = StreamFramer()
    assert framer.receive_data(message()[:-2] + b"X: ") == []
    for _ in range(6):
        assert framer.receive_data(b"y" * 10_000) == []
    with pytest.raises(FramingError) as caught:
        framer.receive_data(b"y" * 10_000)
    assert answer_status(caught.value) == 513
    assert framer.buffered == 0


def test_one_line_without_end() -> None:
    assert fault(b"INVITE " + b"x" * MAX_MESSAGE).answer is None


def test_what_is_not_a_request_is_not_answered() -> None:
    assert fault(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").answer is None
    assert fault(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP h\r\n\r\n").answer is None
    assert fault(message(name="", method="ACK")).answer is None


def test_what_came_before_the_fault_is_kept() -> None:
    error = fault(message(b"1") + b"\r\n\r\n" + message(name=""))
    assert error.frames == [MessageFrame(message(b"1")), KeepAlive()]


def test_the_same_fault_gets_the_same_answer() -> None:
    # RFC 3261 section 8.2.7: a stateless UAS gives the same To tag again.
    assert fault(message(name="")).answer == fault(message(name="")).answer


def test_the_largest_message() -> None:
    head = message(b"", "60000")
    assert StreamFramer().receive_data(head + b"x" * 60_000) == [MessageFrame(head + b"x" * 60_000)]


def test_a_byte_at_a_time_costs_no_more_than_linear() -> None:
    framer = StreamFramer()
    start = time.process_time()
    data = b"INVITE sip:a@b SIP/2.0\r\n" + b"X: yyyyyyyyyyyyy\r\n" * 3000
    for at in range(len(data)):
        framer.receive_data(data[at : at + 1])
    assert framer.buffered == len(data)
    # About 50 ms; searching from the start each time would take many times that.
    assert time.process_time() - start < 2


bodies = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"\r\n\r\n", message()])


@given(st.lists(bodies, min_size=1, max_size=5), st.lists(st.integers(1, 60), max_size=30))
def test_segments_do_not_matter(contents: list[bytes], sizes: list[int]) -> None:
    data = b"".join(map(message, contents))
    framer = StreamFramer()
    frames: list[Frame] = []
    for size in sizes:
        frames += framer.receive_data(data[:size])
        data = data[size:]
    frames += framer.receive_data(data)
    assert frames == [MessageFrame(message(content)) for content in contents]


@given(
    st.lists(
        st.binary() | st.sampled_from([b"\r\n", b"l: 1", b"Content-Length", b":", b"\r\n\r\n", message()])
    )
)
def test_any_bytes_are_framed_or_raise_a_framing_error(segments: list[bytes]) -> None:
    framer = StreamFramer()
    frames: list[Frame] = []
    try:
        for segment in segments:
            frames += framer.receive_data(segment)
    except FramingError as error:
        frames += error.frames
    assert framer.buffered <= sum(map(len, segments))
    for frame in frames:
        if isinstance(frame, MessageFrame):
            check_the_parser_agrees(frame.data)


def check_the_parser_agrees(data: bytes) -> None:
    # Were the two to disagree on where a message ends, one could hide in another.
    fault = ""
    body = b""
    try:
        body = parse_message(data).body
    except MessageError as error:
        fault = error.text
    assert not fault.startswith("Content-Length")
    if not fault:
        assert data.endswith(b"\r\n\r\n" + body)
        assert len(data) == data.index(b"\r\n\r\n") + 4 + len(body)
