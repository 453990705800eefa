"""Tokens that a browser or a phone may hold instead of the project's key (API rows R26, C02)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, ValidationError

from .session_config import SessionConfig
from .transcription_config import TranscriptionConfig, parse_session
from .validation import ApiModel, to_request_error

__all__ = [
    "LEAST_SECONDS",
    "MOST_SECONDS",
    "SECONDS",
    "ClientSecret",
    "ClientSecrets",
    "SecretRequest",
    "TooManySecrets",
]

LEAST_SECONDS, SECONDS, MOST_SECONDS = 10, 600, 7200
MOST = 10_000
MOST_CHARACTERS = 100_000_000
"""
That are good at one time, of all projects, and the JSON of their sessions. A tenth of either for one project: who makes
one for each page view, or long ones, must not take all.
"""
SHARE = 10


class TooManySecrets(Exception):  # noqa: N818 - an answer, not a fault
    """So many are good already that the next must wait until some have expired."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """Opens sessions without a call, any number of them, until it expires. Those that are open then go on."""

    value: str
    project_id: str
    session_id: str
    "Of the session object that whoever made it got; each session that it opens has an id of its own."
    given: Mapping[str, Any]
    "The session object that it was made with."
    characters: int
    "Of its JSON."
    config: SessionConfig | TranscriptionConfig
    names_model: bool
    "Whether the model was chosen with it. If not, the session's URL names it."
    expires_at: float
    "Unix seconds."

    def to_api(self) -> dict[str, Any]:
        """Return the body of the answer to `POST /v1/realtime/client_secrets`."""
        return {
            "value": self.value,
            "expires_at": int(self.expires_at),
            "session": self.config.to_api(session_id=self.session_id, expires_at=0),
        }


class _ExpiresAfter(ApiModel):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=LEAST_SECONDS, le=MOST_SECONDS)] = SECONDS


class _Body(ApiModel):
    expires_after: _ExpiresAfter = _ExpiresAfter()
    session: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SecretRequest:
    """What is asked for, judged whole."""

    given: Mapping[str, Any]
    config: SessionConfig | TranscriptionConfig
    names_model: bool
    seconds: int

    @classmethod
    def parse(cls, body: Mapping[str, Any], default_model: str) -> SecretRequest:
        """Raises `RequestError` (`ConfigError` for the session) with the API's code and a dotted `param`."""
        given = {name: value for name, value in body.items() if value is not None}
        try:
            asked = _Body.model_validate(given)
        except ValidationError as error:
            raise to_request_error(error) from None
        session = {"type": "realtime", **(asked.session or {})}
        names_model = session.get("model") is not None
        config = parse_session(session, model=session["model"] if names_model else default_model)
        return cls(session, config, names_model, asked.expires_after.seconds)


class ClientSecrets:
    """Those of a node that are good. They end with the process: they are good for two hours at most anyway."""

    def __init__(
        self, *, wall: Callable[[], float], new_id: Callable[[str], str], new_value: Callable[[], str]
    ) -> None:
        self._wall = wall
        self._new_id = new_id
        self._new_value = new_value
        self._good: dict[str, ClientSecret] = {}
        self._by_end: list[tuple[float, str]] = []
        "A heap: the next to expire is the first."
        self._counts: Counter[str] = Counter()
        self._characters: Counter[str] = Counter()
        "Both by project."

    def make(self, project_id: str, request: SecretRequest) -> ClientSecret:
        """Raises `TooManySecrets`."""
        self._forget_expired()
        characters = len(orjson.dumps(request.given))
        if (
            len(self._good) >= MOST
            or self._characters.total() + characters > MOST_CHARACTERS
            or self._counts[project_id] >= MOST // SHARE
            or self._characters[project_id] + characters > MOST_CHARACTERS // SHARE
        ):
            raise TooManySecrets
        secret = ClientSecret(
            value=self._new_value(),
            project_id=project_id,
            session_id=self._new_id("sess"),
            given=request.given,
            characters=characters,
            config=request.config,
            names_model=request.names_model,
            expires_at=self._wall() + request.seconds,
        )
        self._good[secret.value] = secret
        heappush(self._by_end, (secret.expires_at, secret.value))
        self._counts[project_id] += 1
        self._characters[project_id] += characters
        return secret

    def find(self, value: str) -> ClientSecret | None:
        """Return the one with this value while it is good."""
        secret = self._good.get(value)
        if secret is None or secret.expires_at <= self._wall():
            return None
        return secret

    def _forget_expired(self) -> None:
        now = self._wall()
        while self._by_end and self._by_end[0][0] <= now:
            secret = self._good.pop(heappop(self._by_end)[1])
            for sums, part in ((self._counts, 1), (self._characters, secret.characters)):
                sums[secret.project_id] -= part
                if not sums[secret.project_id]:
                    del sums[secret.project_id]
