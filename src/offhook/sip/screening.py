"""What a UAS refuses before it looks for a dialog (RFC 3261 section 8.2)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .headers import HeaderError, parse_content_type
from .message import METHODS, Request

__all__ = ["Refusal", "refuse_body", "refuse_request"]

SCHEMES = frozenset(("sip", "sips", "tel"))
ACCEPTED_TYPES = ("application/sdp", "multipart/mixed", "multipart/alternative", "multipart/related")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A final response to send at once."""

    status: int
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


def refuse_request(
    request: Request, *, allow: Collection[str], supported: Collection[str], merged: bool
) -> Refusal | None:
    """
    Return why a request other than ACK and CANCEL is refused, in the RFC's order; `None` if it is not.

    `merged` says that the same request came by another path and is still being answered (section 8.2.2.2).
    """
    allow_header = ("Allow", ", ".join(allow))
    if request.method not in METHODS:
        return Refusal(501, headers=(allow_header,))
    # A method that is known and not allowed can still make sense inside a dialog, to its listener.
    if request.method not in allow and request.to.tag is None:
        return Refusal(405, headers=(allow_header,))
    if request.uri.partition(":")[0].lower() not in SCHEMES:
        return Refusal(416)
    if merged:
        return Refusal(482, "Loop Detected (merged request)")
    missing = [tag for tag in request.headers.values("Require") if tag.lower() not in supported]
    if missing:
        return Refusal(420, headers=(("Unsupported", ", ".join(missing)),))
    return refuse_body(request) if request.method in ("INVITE", "UPDATE") else None


def refuse_body(request: Request) -> Refusal | None:
    """Return why the body of an INVITE cannot be used (section 8.2.3), or `None`."""
    encoding = (request.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity":
        return Refusal(415, headers=(("Accept-Encoding", "identity"),))
    value = request.headers.get("Content-Type")
    if not request.body or value is None or _is_optional(request):
        return None
    try:
        known = parse_content_type(value).media_type in ACCEPTED_TYPES
    except HeaderError as exc:
        return Refusal(400, f"Bad Request ({exc.header})")
    return None if known else Refusal(415, headers=(("Accept", ", ".join(ACCEPTED_TYPES)),))


def _is_optional(request: Request) -> bool:
    """Section 20.11: `handling=optional` lets us ignore a body that we do not understand."""
    disposition = (request.headers.get("Content-Disposition") or "").lower().replace(" ", "")
    return "handling=optional" in disposition
