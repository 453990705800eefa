"""Bodies in parts: RFC 2046 section 5.1, RFC 5621, and what trunks send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.sip.headers import HeaderError, Headers
from offhook.sip.message import Request
from offhook.sip.multipart import MAX_PARTS, body_parts, find_body

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"


def invite(content_type: str | None, body: bytes) -> Request:
    headers = Headers() if content_type is None else Headers([("c", content_type)])
    return Request("INVITE", "sip:a@b", headers=headers, body=body)


def multipart(*parts: bytes, boundary: bytes = b"b1") -> bytes:
    return (
        b"".join([b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts])
        + b"--"
        + boundary
        + b"--\r\n"
    )


@pytest.mark.parametrize(
    "content_type", ["application/sdp", "Application/SDP", 'application/sdp;charset="utf-8"']
)
def test_a_plain_body(content_type: str) -> None:
    assert find_body(invite(content_type, SDP), "application/sdp") == SDP


@pytest.mark.parametrize(
    ("content_type", "body"), [(None, SDP), ("application/sdp", b""), ("text/plain", SDP)]
)
def test_no_such_body(content_type: str | None, body: bytes) -> None:
    assert find_body(invite(content_type, body), "application/sdp") is None


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        ("multipart/mixed;boundary=b1", b"b1"),
        ('multipart/mixed; charset=x; Boundary="b:1 x"', b"b:1 x"),
        ("multipart/related;boundary=uniqueBoundary;start=1", b"uniqueBoundary"),
    ],
)
def test_sdp_beside_isup_and_pidf(value: str, boundary: bytes) -> None:
    body = b"preamble\r\n" + multipart(
        b"Content-Type: application/ISUP\r\nContent-Disposition: signal;\r\n handling=optional\r\n\r\n\x01\x00\r\n",
        b"content-type:application/sdp;charset=utf-8\r\n\r\n" + SDP,
        b"Content-Type: application/pidf+xml\r\n\r\n<presence/>",
        boundary=boundary,
    )
    request = invite(value, body)
    assert find_body(request, "application/sdp") == SDP
    isup = body_parts(request)[0]
    assert isup.body == b"\x01\x00\r\n"
    assert isup.headers.get("Content-Disposition") == "signal; handling=optional"


def test_a_part_without_headers_is_plain_text() -> None:
    (part,) = body_parts(invite("multipart/mixed;boundary=b1", multipart(b"\r\nHello")))
    assert (part.content_type.media_type, part.body) == ("text/plain", b"Hello")


def test_a_broken_part_does_not_cost_the_others() -> None:
    body = multipart(b"Content-Type: ;;\r\nno colon\r\n\r\nx", b"Content-Type: application/sdp\r\n\r\n" + SDP)
    request = invite("multipart/mixed;boundary=b1", body)
    assert find_body(request, "application/sdp") == SDP
    assert body_parts(request)[0].content_type.media_type == "application/octet-stream"


def test_white_space_after_a_boundary() -> None:
    body = multipart(b"Content-Type: application/sdp\r\n\r\n" + SDP, b"\r\nx").replace(
        b"--b1\r\n", b"--b1 \t\r\n"
    )
    parts = body_parts(invite("multipart/mixed;boundary=b1", body))
    assert [part.body for part in parts] == [SDP, b"x"]


def test_the_last_boundary_ends_it() -> None:
    body = multipart(b"\r\none") + b"--b1\r\n\r\nepilogue\r\n"
    assert [part.body for part in body_parts(invite("multipart/mixed;boundary=b1", body))] == [b"one"]


def test_at_most_sixteen_parts() -> None:
    body = multipart(*[b"\r\nx"] * 1000)
    assert len(body_parts(invite("multipart/mixed;boundary=b1", body))) == MAX_PARTS == 16


@pytest.mark.parametrize(
    "value", ["multipart/mixed", "multipart/mixed;boundary", 'multipart/mixed;boundary=""', "x"]
)
def test_a_content_type_that_does_not_help(value: str) -> None:
    with pytest.raises(HeaderError) as caught:
        find_body(invite(value, SDP), "application/sdp")
    assert caught.value.header == "Content-Type"


@given(st.lists(st.binary(max_size=30).filter(lambda body: b"--b1" not in body), max_size=5))
def test_round_trip(bodies: list[bytes]) -> None:
    request = invite("multipart/mixed;boundary=b1", multipart(*[b"\r\n" + body for body in bodies]))
    assert [part.body for part in body_parts(request)] == bodies


@given(
    st.binary()
    | st.lists(st.sampled_from([b"--b1", b"\r\n", b"--", b":", b"Content-Type", b"x"])).map(b"".join)
)
def test_any_body_is_read(body: bytes) -> None:
    body_parts(invite("multipart/mixed;boundary=b1", body))
