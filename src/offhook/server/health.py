"""`/healthz`: the process answers. `/readyz`: it can take calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from .shapes import Health, found

__all__ = ["health_router"]


def health_router(
    not_ready: Callable[[], Sequence[str]], details: Callable[[], Mapping[str, object]]
) -> APIRouter:
    router = APIRouter(tags=["health"], redirect_slashes=False)

    @router.get("/healthz", operation_id="healthz", responses=found(Health, "It answers."))
    async def healthz() -> JSONResponse:
        """The event loop runs and answers."""
        return JSONResponse({"status": "ok"})

    @router.get(
        "/readyz",
        operation_id="readyz",
        responses={
            **found(Health, "It takes calls."),
            503: {"model": Health, "description": "Not now; `reasons` says why."},
        },
    )
    async def readyz() -> JSONResponse:
        """
        Models are warm, sockets are bound, and the node is not draining.

        Besides, what an operator may want to look at: `warnings`, and `registrations` of trunks with their state.
        """
        reasons = list(not_ready())
        if reasons:
            return JSONResponse({"status": "not ready", "reasons": reasons, **details()}, status_code=503)
        return JSONResponse({"status": "ready", **details()})

    return router
