"""/openapi.json: what it says besides what the framework finds."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

__all__ = ["SECURITY", "describe_app", "json_body"]

_PROJECT: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"api_key": []}]
SECURITY: Final[dict[str, Any]] = {"security": _PROJECT}
"What opens a route: a project's key."


def json_body(
    description: str,
    schema: dict[str, Any],
    *,
    required: bool = True,
    closed: bool = True,
    example: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return the `requestBody` of a route that takes an object; `schema` has its `properties` and what is `required`.

    A `closed` one is refused when it has any other. Where none is `required`, null is none too.
    """
    shape = {
        "type": "object" if required else ["object", "null"],
        **schema,
        "additionalProperties": not closed,
    }
    content = {"schema": shape} if example is None else {"schema": shape, "example": example}
    return {
        "requestBody": {
            "required": required,
            "description": description,
            "content": {"application/json": content},
        }
    }


def describe_app(app: FastAPI) -> None:
    """Say in the schema how to authenticate, and leave out the framework's own 422, which never happens here."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        components = schema.setdefault("components", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            components.get("schemas", {}).pop(unused, None)
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "A project's API key."},
            "api_key": {"type": "apiKey", "in": "header", "name": "api-key"},
            "admin": {"type": "http", "scheme": "bearer", "description": "The node's admin key."},
        }
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
