"""Bodies in parts (RFC 2046 section 5.1, RFC 5621): what carries SDP beside ISUP, PIDF or certificates."""

from __future__ import annotations

from dataclasses import dataclass

from .headers import ContentType, HeaderError, Headers, parse_content_type
from .message import Request, Response

__all__ = ["MAX_PARTS", "BodyPart", "body_parts", "find_body"]

MAX_PARTS = 16


@dataclass(frozen=True, slots=True)
class BodyPart:
    """One part: its own headers and its bytes."""

    content_type: ContentType
    headers: Headers
    body: bytes


def find_body(message: Request | Response, media_type: str) -> bytes | None:
    """
    Return the body, or the first part of a multipart body, of that media type (`application/sdp`, any parameters).

    `None` if there is none. Raises `HeaderError` for a Content-Type that cannot be read.
    """
    content_type = message.content_type
    if content_type is not None and content_type.type != "multipart":
        return message.body if message.body and content_type.media_type == media_type else None
    for part in body_parts(message):
        if part.content_type.media_type == media_type:
            return part.body
    return None


def body_parts(message: Request | Response) -> list[BodyPart]:
    """
    Return what the body holds: one part for a plain body, each part of a multipart one (at most 16, one level).

    Raises `HeaderError` for a Content-Type that cannot be read, and for a multipart body without its boundary.
    """
    content_type = message.content_type
    if content_type is None or not message.body:
        return []
    if content_type.type != "multipart":
        return [BodyPart(content_type, Headers(), message.body)]
    boundary = content_type.param("boundary")
    if not boundary:
        raise HeaderError("Content-Type", "multipart without a boundary", str(content_type))
    return [_parse_part(raw) for raw in _cut(message.body, boundary.encode("utf-8", "replace"))]


def _cut(body: bytes, boundary: bytes) -> list[bytes]:
    delimiter = b"\r\n--" + boundary
    # The delimiter's CRLF belongs to it, so that a part's own last CRLF is kept.
    _preamble, *rest = (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)
    parts = []
    for raw in rest[:MAX_PARTS]:
        if raw.startswith(b"--"):
            break
        # White space may follow the boundary on its line.
        padding, line_break, part = raw.partition(b"\r\n")
        if line_break and not padding.strip(b" \t"):
            parts.append(part)
    return parts


def _parse_part(raw: bytes) -> BodyPart:
    head, body = b"", raw
    if raw.startswith(b"\r\n"):
        body = raw[2:]
    elif b"\r\n\r\n" in raw:
        head, _, body = raw.partition(b"\r\n\r\n")
    headers = Headers()
    unfolded = head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").decode("utf-8", "replace")
    for line in unfolded.split("\r\n"):
        name, _, value = line.partition(":")
        try:
            headers.add(name.strip(" \t"), value.strip(" \t"))
        except HeaderError:
            continue
    return BodyPart(_part_type(headers), headers, body)


def _part_type(headers: Headers) -> ContentType:
    # RFC 2046 section 5.1: a part that does not say is plain text. One that cannot be read must not cost the others.
    try:
        return parse_content_type(headers.get("Content-Type") or "text/plain")
    except HeaderError:
        return ContentType("application", "octet-stream")
