"""Puts the routes together."""

from __future__ import annotations

from fastapi import FastAPI

import offhook

from . import errors
from .admin import admin_router
from .call_directory import CallDirectory
from .calls import CallRoutes
from .client_secrets import client_secret_router
from .context import RequestContext
from .document import describe_app
from .health import health_router
from .metrics import metrics_router
from .pages import add_pages
from .recordings import RecordingRoutes
from .refused import refused_router
from .services import ServerServices
from .sideband import SidebandRoute, upgrade_router
from .webhook_deliveries import delivery_router
from .webhook_endpoints import endpoint_router

__all__ = ["PREFIXES", "ServerServices", "create_app"]

PREFIXES = ("/v1", "/openai/v1", "/openai")
"OpenAI's, Azure's, and Azure's before `v1` (API rows A01, A02): the same handlers."


def create_app(services: ServerServices) -> FastAPI:
    """Return the ASGI app: REST, the sideband and health, with /openapi.json."""
    app = FastAPI(
        title="Offhook",
        version=offhook.__version__,
        summary="Phone calls for the Realtime API.",
        description=(
            "What apps for the hosted Realtime API's SIP connector already call, and views of what happened. "
            "Every response has `x-request-id`. What is below `/v1` is also served below `/openai/v1` and `/openai`."
        ),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    directory = CallDirectory(services)
    calls, sideband = CallRoutes(services, directory), SidebandRoute(services)
    recordings = RecordingRoutes(services, directory)
    for prefix in PREFIXES:
        # Ahead of the calls', whose ids may have slashes.
        app.include_router(recordings.router(), prefix=prefix, include_in_schema=prefix == "/v1")
        app.include_router(calls.router(), prefix=prefix, include_in_schema=prefix == "/v1")
        app.include_router(refused_router(services), prefix=prefix, include_in_schema=prefix == "/v1")
        for hooks in (endpoint_router(services), delivery_router(services)):
            app.include_router(hooks, prefix=prefix, include_in_schema=prefix == "/v1")
        app.include_router(
            endpoint_router(services, azure=True), prefix=prefix, include_in_schema=prefix == "/openai/v1"
        )
        if services.client_secrets is not None:
            app.include_router(
                client_secret_router(services, services.client_secrets),
                prefix=prefix,
                include_in_schema=prefix == "/v1",
            )
        sideband.add_to(app.router, f"{prefix}/realtime")
        app.include_router(upgrade_router(), prefix=prefix, include_in_schema=prefix == "/v1")
    app.include_router(health_router(services.not_ready, services.details))
    if services.admin_key is not None:
        app.include_router(admin_router(services, services.admin_key, directory))
    add_pages(app, services, directory)
    app.include_router(metrics_router(services))
    app.add_middleware(RequestContext, clock=services.clock, metrics=services.metrics)
    describe_app(app)
    return app
