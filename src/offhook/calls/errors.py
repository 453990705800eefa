"""What a verb on a call can answer besides success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CallError", "call_not_found"]


class CallError(Exception):
    """
    A request about a call that cannot be done; the call itself goes on as it was.

    It carries all that the API's error object shows (API row C07), and the HTTP status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str = "invalid_request_error",  # noqa: A002 - the API's own word
        details: Mapping[str, Any] | None = None,
        retry: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type
        self.details = dict(details) if details is not None else None
        self.retry = retry
        "Whether the same request may be sent again by itself (`x-should-retry`)."

    def again(self) -> CallError:
        """Return the same error to be raised once more; one that was raised keeps alive whatever it went through."""
        return CallError(
            self.status,
            self.message,
            code=self.code,
            param=self.param,
            type=self.type,
            details=self.details,
            retry=self.retry,
        )


def call_not_found() -> CallError:
    """Return the error for a call that is unknown, over, or another project's: one text for all (rows R22, R24)."""
    return CallError(404, "No session found for the provided call_id", code="call_id_not_found", param="")
