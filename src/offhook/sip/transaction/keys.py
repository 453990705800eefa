"""What makes two messages one transaction (RFC 3261 section 17.2.3)."""

from __future__ import annotations

from ..message import Request

__all__ = ["MAGIC_COOKIE", "MergeKey", "ServerKey", "merge_key", "server_key"]

MAGIC_COOKIE = "z9hG4bK"

ServerKey = tuple[str, ...]
MergeKey = tuple[str, str, int, str]


def server_key(request: Request, method: str) -> ServerKey:
    """Return what makes two requests of that method one transaction."""
    via = request.top_via
    branch = via.branch or ""
    if branch.startswith(MAGIC_COOKIE) and len(branch) > len(MAGIC_COOKIE):
        return (branch, via.host.lower(), str(via.port or ""), method)
    # RFC 2543 peers: no branch to rely on.
    tag = request.from_.tag or ""
    return ("", request.uri, tag, request.call_id, str(request.cseq.number), str(via), method)


def merge_key(request: Request) -> MergeKey:
    """Return what two copies of a request have in common that came by two ways (section 8.2.2.2)."""
    return (request.call_id, request.from_.tag or "", request.cseq.number, request.method)
