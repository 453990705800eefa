"""What a UAS refuses before it looks for a dialog (RFC 3261 section 8.2)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .headers import HeaderError
from .message import METHODS, Request
from .session_timer import SessionTimerConfig, is_too_small

__all__ = ["Refusal", "refuse_body", "refuse_request"]

SCHEMES = frozenset(("sip", "sips", "tel"))
SDP = "application/sdp"
_COVER_SDP = frozenset((SDP, "application/*", "*/*"))
ACCEPTED_TYPES = (SDP, "multipart/mixed", "multipart/alternative", "multipart/related")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A final response to send at once."""

    status: int
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


def refuse_request(
    request: Request,
    *,
    allow: Collection[str],
    supported: Collection[str],
    session: SessionTimerConfig,
    merged: bool,
) -> Refusal | None:
    """
    Return why a request other than ACK and CANCEL is refused, in the RFC's order; `None` if it is not.

    `merged` says that the same request came by another path and is still being answered (section 8.2.2.2).
    """
    if request.method not in METHODS:
        return Refusal(501, headers=(("Allow", ", ".join(allow)),))
    # A method that is known and not allowed can still make sense inside a dialog, to its listener.
    if request.method not in allow and request.to.tag is None:
        return Refusal(405, headers=(("Allow", ", ".join(allow)),))
    if request.uri.partition(":")[0].lower() not in SCHEMES:
        return Refusal(416)
    if merged:
        return Refusal(482, "Loop Detected (merged request)")
    missing = [tag for tag in request.headers.values("Require") if tag.lower() not in supported]
    if missing:
        return Refusal(420, headers=(("Unsupported", ", ".join(missing)),))
    if request.method not in ("INVITE", "UPDATE"):
        return None
    refused = refuse_body(request)
    if refused is None and request.method == "INVITE" and not _takes_sdp(request):
        # The answer to a call is SDP, so there is nothing that we could say (RFC 4475 section 3.3.15).
        return Refusal(406, headers=(("Warning", f'399 offhook "the answer would be {SDP}"'),))
    if refused is None and is_too_small(request, session):
        return Refusal(422, headers=(("Min-SE", str(session.min_se)),))
    return refused


def refuse_body(request: Request) -> Refusal | None:
    """Return why the body of an INVITE cannot be used (section 8.2.3), or `None`."""
    encoding = (request.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity":
        return Refusal(415, headers=(("Accept-Encoding", "identity"),))
    if not request.body or "Content-Type" not in request.headers or _is_optional(request):
        return None
    try:
        content_type = request.content_type
    except HeaderError as exc:
        return Refusal(400, f"Bad Request ({exc.header})")
    known = content_type is not None and content_type.media_type in ACCEPTED_TYPES
    return None if known else Refusal(415, headers=(("Accept", ", ".join(ACCEPTED_TYPES)),))


def _takes_sdp(request: Request) -> bool:
    """Section 20.1: no Accept means SDP. An empty one is taken for a slip: nobody calls to hear nothing."""
    ranges = request.headers.values("Accept")
    return not ranges or any(_covers_sdp(media_range) for media_range in ranges)


def _covers_sdp(media_range: str) -> bool:
    name, *params = media_range.lower().replace(" ", "").split(";")
    return name in _COVER_SDP and not any(param.rstrip("0") in ("q=", "q=0.") for param in params)


def _is_optional(request: Request) -> bool:
    """Section 20.11: `handling=optional` lets us ignore a body that we do not understand."""
    disposition = (request.headers.get("Content-Disposition") or "").lower().replace(" ", "")
    return "handling=optional" in disposition
