"""Pydantic's complaints in the words of the Realtime API: one code, one message, one dotted `param`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, ValidationError
from pydantic_core import ErrorDetails

__all__ = ["ApiModel", "JsonObject", "RequestError", "by_type", "choose", "kind_of", "to_request_error"]

MAX_DEPTH = 100
"Of a value that is the client's own affair. What is read is also shown, and the writer of JSON stops at 254."


class RequestError(ValueError):
    """A client's request cannot be served. Carries the fields of the API's error object."""

    def __init__(
        self, code: str, message: str, param: str | None = None, *, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.type = kind


class ApiModel(BaseModel):
    """Base of what clients send: no coercion, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _check_depth(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


JsonObject = Annotated[dict[str, Any], AfterValidator(_check_depth)]
"An object with anything in it, such as a tool's JSON Schema."


_SUPPORTED = "Supported values are:"


def by_type(tags: Mapping[str, str]) -> Discriminator:
    """
    Choose a union's member by the input's `type`.

    `tags` maps the value of `type` to a pydantic tag, which must start with `@` so that it can be told from a
    field's name in an error's location.
    """

    def choose(value: Any) -> str | None:
        kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        return tags.get(kind) if isinstance(kind, str) else None

    supported = [f"'{kind}'" for kind in tags]
    return Discriminator(
        choose,
        custom_error_type="type_not_found",
        custom_error_message=f"{_SUPPORTED} {_listed(supported)}.",
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def choose(tag_of: Callable[[Any], str | None]) -> Discriminator:
    """Choose a union's member by a function of the input that returns one of its tags (which start with `@`)."""
    return Discriminator(tag_of)


_NOT_SERVED = {
    "mcp": "This server does not speak MCP: register function tools and call the MCP server from your app.",
    "input_image": "This server's models take no images: describe it in an input_text.",
}
"What the API has and this server has not, with the remedy."
_EXPECTED = {
    "bool_type": "a boolean",
    "dict_type": "an object",
    "float_type": "a number",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "list_type": "an array",
    "mapping_type": "an object",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_type": "a string",
}


def kind_of(value: object) -> str:
    """Name a JSON value's kind for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for kind, name in ((int, "an integer"), (float, "a decimal"), (str, "a string"), (Mapping, "an object")):
        if isinstance(value, kind):
            return name
    return "an array" if isinstance(value, Sequence) else "an unknown value"


def to_request_error(
    error: ValidationError,
    prefix: str = "",
    *,
    remedies: Mapping[str, str] | None = None,
    error_type: type[RequestError] = RequestError,
) -> RequestError:
    """
    Return the first complaint of a `ValidationError` as the API states it.

    `remedies` maps the path of a field to what a client should do when it is wrong or unknown.
    """
    details = error.errors(include_url=False)
    # A missing field explains more than what else is wrong; an unknown one, less.
    first = min(
        details, key=lambda detail: (detail["type"] != "missing", detail["type"] == "extra_forbidden")
    )
    param = _dotted(prefix, [part for part in first["loc"] if not str(part).startswith("@")])
    code, message, param = _explain(first, param)
    if remedies and param in remedies:
        message += f" {remedies[param]}"
    elif code == "unknown_parameter":
        message += " Leave it out."
    return error_type(code, message, param or None)


def _explain(detail: ErrorDetails, param: str) -> tuple[str, str, str]:
    kind, value = detail["type"], detail["input"]
    if kind == "missing":
        return _missing(param)
    if kind == "extra_forbidden":
        return "unknown_parameter", f"Unknown parameter: '{param}'.", param
    if kind in ("union_tag_not_found", "type_not_found"):
        return _explain_union(value, param, detail["msg"])
    if kind in _EXPECTED:
        return _mistyped(param, _EXPECTED[kind], value)
    context = detail.get("ctx") or {}
    if kind == "literal_error":
        expected = str(context["expected"]).replace(" or ", " and ")
        if not isinstance(value, str) and "'" in expected:
            return _mistyped(param, "a string", value)
        return "invalid_value", f"Invalid value: '{_short(value)}'. {_SUPPORTED} {expected}.", param
    if kind == "value_error":
        return "invalid_value", f"Invalid value for '{param}': {context.get('error', detail['msg'])}.", param
    reason = detail["msg"][:1].lower() + detail["msg"][1:]
    return (
        "invalid_value",
        f"Invalid value for '{param}': {reason}, but got {_short(value) or 'none'}.",
        param,
    )


def _explain_union(value: object, param: str, supported: str) -> tuple[str, str, str]:
    if not isinstance(value, Mapping):
        return _mistyped(param, "an object", value)
    path = f"{param}.type" if param else "type"
    if "type" not in value:
        return _missing(path)
    kind = value["type"]
    if not isinstance(kind, str):
        return _mistyped(path, "a string", kind)
    message = f"Invalid value for '{path}': '{_short(kind)}' is not supported."
    if supported.startswith(_SUPPORTED):
        message += f" {supported}"
    for known, remedy in _NOT_SERVED.items():
        if kind.startswith(known):
            message += f" {remedy}"
    return "invalid_value", message, path


def _missing(param: str) -> tuple[str, str, str]:
    return "missing_required_parameter", f"Missing required parameter: '{param}'.", param


def _mistyped(param: str, expected: str, value: object) -> tuple[str, str, str]:
    got = kind_of(value)
    return "invalid_type", f"Invalid type for '{param}': expected {expected}, but got {got} instead.", param


def _dotted(prefix: str, location: Sequence[object]) -> str:
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = _short(part)
            path += f".{name}" if path else name
    return path


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
