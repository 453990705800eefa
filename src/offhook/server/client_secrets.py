"""`POST /v1/realtime/client_secrets` (API row R26), and who comes with one (row C02)."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
from fastapi import APIRouter
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response

from offhook.calls.errors import CallError
from offhook.realtime.client_secrets import (
    LEAST_SECONDS,
    MOST_SECONDS,
    SECONDS,
    ClientSecret,
    ClientSecrets,
    SecretRequest,
    TooManySecrets,
)
from offhook.realtime.session_config import DEFAULT_MODEL
from offhook.realtime.transcription_config import TranscriptionConfig
from offhook.realtime.validation import RequestError
from offhook.tenants import Project, Projects

from .auth import authenticate, client_secret_of
from .body import optional_object, read_json
from .document import SECURITY, json_body
from .errors import documented
from .services import ServerServices
from .shapes import ClientSecretShown, found

__all__ = ["client_secret_router", "guest"]


def client_secret_router(services: ServerServices, secrets: ClientSecrets) -> APIRouter:
    """Return the route, relative to `/v1` and its like."""
    router = APIRouter(prefix="/realtime", tags=["sessions"], redirect_slashes=False)

    async def create_client_secret(request: Request) -> Response:
        """
        Make a token for somebody who must not have the project's key, such as a web page.

        It opens sessions without a call (`?model=`, `?intent=`), configured as is said here, until it expires.
        """
        project = authenticate(request.headers, services.projects)
        body = optional_object(await read_json(request))
        try:
            asked = SecretRequest.parse(body, DEFAULT_MODEL)
        except RequestError as error:
            raise CallError(400, error.message, code=error.code, param=error.param, type=error.type) from None
        if services.models is not None and services.models.relays(asked.config.model):
            is_transcription = isinstance(asked.config, TranscriptionConfig)
            remedy = "Ask the upstream for one" + ("." if is_transcription else ", or give another model.")
            raise CallError(
                501,
                f"Sessions of the model '{asked.config.model}' are relayed to an upstream, for which this node makes "
                f"no client secrets. {remedy}",
                code="not_supported",
                param="session.type" if is_transcription else "session.model",
                type="server_error",
            )
        try:
            secret = secrets.make(project.id, asked)
        except TooManySecrets:
            raise CallError(
                429,
                "Too many client secrets are good at present. Use one for several sessions, let them expire sooner "
                "(expires_after.seconds), or try again later.",
                code="rate_limit_exceeded",
                type="rate_limit_error",
                retry=True,
            ) from None
        # It is a key: no cache on the way may keep it.
        return Response(
            orjson.dumps(secret.to_api()),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    router.add_api_route(
        "/client_secrets",
        create_client_secret,
        methods=["POST"],
        response_class=Response,
        responses={
            **found(ClientSecretShown, "Made."),
            **documented(
                400, 401, 408, 413, 429, 501, meanings={429: "Too many are good.", 501: "Not for this model."}
            ),
        },
        openapi_extra={**SECURITY, **_BODY},
        operation_id="create_client_secret",
    )
    return router


_BODY = json_body(
    "May be left out.",
    {
        "properties": {
            "expires_after": {
                "type": ["object", "null"],
                "properties": {
                    "anchor": {"type": "string", "const": "created_at"},
                    "seconds": {
                        "type": "integer",
                        "minimum": LEAST_SECONDS,
                        "maximum": MOST_SECONDS,
                        "default": SECONDS,
                    },
                },
                "additionalProperties": False,
            },
            "session": {
                "type": ["object", "null"],
                "description": "A GA Realtime session object; each session begins with it.",
            },
        },
    },
    required=False,
)


def guest(
    headers: Headers,
    subprotocols: Iterable[str],
    query: QueryParams,
    projects: Projects,
    secrets: ClientSecrets | None,
) -> tuple[Project, ClientSecret] | None:
    """
    Return whose client secret a WebSocket comes with; `None` where it comes with none.

    Raises `CallError` 401 for one that opens nothing, or nothing here.
    """
    value = client_secret_of(headers, subprotocols)
    if value is None or secrets is None:
        return None
    secret = secrets.find(value)
    project = projects.by_id(secret.project_id) if secret is not None else None
    if secret is None or project is None:
        raise CallError(
            401,
            "This client secret is not known here, or has expired. Make a new one: POST /v1/realtime/client_secrets.",
            code="invalid_api_key",
        )
    if "call_id" in query:
        raise CallError(
            401,
            "A client secret (ek_...) opens sessions of its own (?model=), and no call's. Use the project's API key.",
            code="invalid_api_key",
        )
    return project, secret
