"""Answering challenges to the requests that a leg sends in its dialog (RFC 3261 sections 22.2 and 22.3). Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .digest import Challenge, authorization, find_challenge
from .message import Request, Response

__all__ = ["Authentication", "Credentials"]

MAX_ANSWERS = 2
"For one request: the second for a nonce that was stale."


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a peer that asks: what we register with at a carrier, whose proxies ask again in mid-call."""

    user: str
    password: str = field(repr=False)


class Authentication:
    """What one request does about challenges, from its first sending to its last."""

    __slots__ = ("_answers", "_challenge", "_credentials", "_new_token")

    def __init__(self, credentials: Credentials | None, new_token: Callable[[], str]) -> None:
        self._credentials = credentials
        self._new_token = new_token
        self._challenge: Challenge | None = None
        self._answers = 0

    def takes(self, response: Response) -> bool:
        """
        Return whether the request is to be sent again, with an answer to this response's challenge.

        Not without credentials, and not when the peer has seen them: they are wrong, or not for this.
        """
        if self._credentials is None or response.status not in (401, 407):
            return False
        challenge = find_challenge(response.status, response.headers.get_all)
        if challenge is None or self._answers >= MAX_ANSWERS or (self._answers and not challenge.stale):
            return False
        self._challenge = challenge
        self._answers += 1
        return True

    def sign(self, request: Request) -> None:
        """Add the answer to the challenge that was taken, if one was."""
        if self._credentials is None or self._challenge is None:
            return
        value = authorization(
            self._challenge,
            user=self._credentials.user,
            password=self._credentials.password,
            method=request.method,
            uri=request.uri,
            cnonce=self._new_token(),
        )
        request.headers.add(self._challenge.header, value)
